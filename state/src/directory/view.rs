//! The directory as other processes are told it.

use std::collections::{BTreeMap, BTreeSet};

use dkv_base::id::{GroupId, NodeId, Term};
use dkv_wire::network::{self, NetworkView, NodeInfo, NodeState, ShardInfo};

use super::Directory;

/// What the one who makes the view knows, and the directory does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The control group's term.
    pub term: Term,
    /// Its leader in that term.
    pub coordinator: Option<NodeId>,
    /// How each node seems to be; a node that is missing here is taken to be joining.
    pub states: BTreeMap<NodeId, NodeState>,
    /// The leader of each shard, where one is known.
    pub primaries: BTreeMap<GroupId, NodeId>,
    /// The voters and learners of each shard by its own log, where that is known.
    pub members: BTreeMap<GroupId, (BTreeSet<NodeId>, BTreeSet<NodeId>)>,
}

impl Directory {
    /// The network as this process sees it; none before it has begun.
    ///
    /// For who leads, who is alive and who holds what the observer's word is taken, except that a
    /// node which said that it leaves has left. Where it does not know the members of a shard,
    /// these are the wanted ones.
    pub fn to_view(&self, observed: &Observed) -> Option<NetworkView> {
        let (network, settings) = self.contents.network.as_ref()?;
        let nodes = self.nodes().iter().map(|(id, member)| {
            let seen = observed.states.get(id).copied().unwrap_or(NodeState::Joining);
            NodeInfo {
                id: *id,
                name: member.name.clone(),
                address: member.address,
                region: member.region.clone(),
                state: if member.left { NodeState::Left } else { seen },
            }
        });
        let shards = self.groups().iter().filter(|(group, _)| group.is_shard());
        let shards = shards.zip(network::shard_starts(settings.shards)).map(
            |((group, plan), first_hash)| {
                let wanted = (&plan.voters, &plan.learners);
                let known =
                    observed.members.get(group).map(|(voters, learners)| (voters, learners));
                let (voters, learners) = known.unwrap_or(wanted);
                ShardInfo {
                    group: *group,
                    first_hash,
                    primary: observed.primaries.get(group).copied(),
                    voters: voters.iter().copied().collect(),
                    learners: learners.iter().copied().collect(),
                }
            },
        );
        Some(NetworkView {
            network: *network,
            term: observed.term,
            coordinator: observed.coordinator,
            nodes: nodes.collect(),
            shards: shards.collect(),
            settings: settings.clone(),
            denied: self.denied().iter().copied().collect(),
        })
    }
}
