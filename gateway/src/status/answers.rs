//! The answers of all processes of a network, and look-ups in them.

use std::collections::BTreeSet;

use dkv_api::{GroupId, NetworkStatus, NodeId, NodeStatus};
use dkv_wire::message::{GroupRole, GroupStatus};

/// The answers of one status.
pub(super) struct Answers<'a> {
    pub(super) status: &'a NetworkStatus,
}

impl<'a> Answers<'a> {
    /// Returns the answers of all nodes that answered.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &'a NodeStatus> {
        self.status.nodes.iter().filter_map(|(_, answer)| answer.as_ref().ok())
    }

    /// Returns the answer of a node, if it answered.
    pub(super) fn answer(&self, node: NodeId) -> Option<&'a NodeStatus> {
        let mut nodes = self.status.nodes.iter();
        nodes.find(|(info, _)| info.id == node).and_then(|(_, answer)| answer.as_ref().ok())
    }

    /// Returns the replica of a group on a node.
    pub(super) fn replica(&self, node: NodeId, group: GroupId) -> Option<&'a GroupStatus> {
        self.answer(node)?.groups.iter().find(|replica| replica.group == group)
    }

    /// Returns the replicas of a group, as their nodes report them.
    pub(super) fn replicas(
        &self,
        group: GroupId,
    ) -> impl Iterator<Item = (NodeId, &'a GroupStatus)> {
        self.nodes().filter_map(move |answer| {
            let replica = answer.groups.iter().find(|replica| replica.group == group)?;
            Some((answer.id, replica))
        })
    }

    /// Returns the leader of a group, if it answered and hears a majority of the voters.
    pub(super) fn leader(&self, group: GroupId) -> Option<(NodeId, &'a GroupStatus)> {
        self.claimant(group).filter(|(_, it)| it.has_leader())
    }

    /// Returns the node that leads a group by its own word: the one of the later term if two claim
    /// to lead.
    pub(super) fn claimant(&self, group: GroupId) -> Option<(NodeId, &'a GroupStatus)> {
        let claims = self.replicas(group).filter(|(_, it)| it.role == GroupRole::Leader);
        let latest = self.replicas(group).map(|(_, it)| it.term).max();
        // A leader of an earlier term has been replaced and has not noticed yet.
        claims.max_by_key(|(_, it)| it.term).filter(|(_, it)| Some(it.term) == latest)
    }

    /// Returns the name of a node.
    pub(super) fn name(&self, node: NodeId) -> String {
        let known = self.status.nodes.iter().find(|(info, _)| info.id == node);
        let listed = || self.status.server.as_ref().ok()?.nodes.iter().find(|it| it.id == node);
        match known {
            Some((info, _)) => info.name.clone(),
            None => listed().map_or_else(|| node.short(), |it| it.name.clone()),
        }
    }

    /// Returns all known groups, the control group first.
    pub(super) fn groups(&self) -> BTreeSet<GroupId> {
        let held = self.nodes().flat_map(|answer| answer.groups.iter().map(|it| it.group));
        let in_view =
            self.status.view.iter().flat_map(|view| view.shards.iter().map(|it| it.group));
        held.chain(in_view).collect()
    }
}
