//! The view of the directory for other processes.

use std::collections::{BTreeMap, BTreeSet};

use dkv_base::id::{GroupId, NodeId, Term};
use dkv_wire::network::{NetworkView, NodeInfo, NodeState, ShardInfo};

use super::Directory;

/// Observations of the caller that are not in the directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The control group's term.
    pub term: Term,
    /// Its leader in that term.
    pub coordinator: Option<NodeId>,
    /// The apparent state of each node; a node that is missing here counts as joining.
    pub states: BTreeMap<NodeId, NodeState>,
    /// The leader of each shard, where one is known.
    pub primaries: BTreeMap<GroupId, NodeId>,
    /// The voters and learners of each shard according to its own log, where they are known.
    pub members: BTreeMap<GroupId, (BTreeSet<NodeId>, BTreeSet<NodeId>)>,
}

impl Directory {
    /// Returns the network as this process sees it; `None` before the network has begun.
    ///
    /// Leadership, liveness and the members of each shard come from the observer, with two
    /// exceptions: a node that announced its departure counts as left, and where the observer does
    /// not know the members of a shard, the planned ones stand in.
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
        let shards = self.groups().iter().filter_map(|(group, plan)| {
            // Groups and keyspaces are numbered in the same order.
            let (id, keyspace) = self.keyspace_of(*group)?;
            let wanted = (&plan.voters, &plan.learners);
            let known = observed.members.get(group).map(|(voters, learners)| (voters, learners));
            let (voters, learners) = known.unwrap_or(wanted);
            Some(ShardInfo {
                group: *group,
                keyspace: id,
                first_hash: keyspace.first_hash(*group),
                primary: observed.primaries.get(group).copied(),
                voters: voters.iter().copied().collect(),
                learners: learners.iter().copied().collect(),
            })
        });
        Some(NetworkView {
            network: *network,
            term: observed.term,
            coordinator: observed.coordinator,
            nodes: nodes.collect(),
            revision: self.revision(),
            keyspaces: self.keyspaces().collect(),
            shards: shards.collect(),
            settings: settings.clone(),
            denied: self.denied().iter().copied().collect(),
            servers: self.servers().collect(),
        })
    }
}
