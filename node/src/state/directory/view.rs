//! The directory as other processes are told it.

use std::collections::BTreeMap;

use dkv_wire::id::{GroupId, NodeId, Term};
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
}

impl Directory {
    /// The network as this process sees it; none before it has begun.
    ///
    /// Voters and learners are the wanted ones. For who leads and who is alive the observer's word
    /// is taken, except that a node which said that it leaves has left.
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
            |((group, plan), first_hash)| ShardInfo {
                group: *group,
                first_hash,
                primary: observed.primaries.get(group).copied(),
                voters: plan.voters.iter().copied().collect(),
                learners: plan.learners.iter().copied().collect(),
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
