//! Which replica gets a request that any can serve: the only place that knows what *near* means.
//!
//! Deliberately missing: what a replica has. A replica says itself whether it is too far behind for
//! a read. One that declined a request gets it again only after all others have declined.

use std::time::Duration;

use dkv_base::id::NodeId;

use super::peer::{Group, Peer};
use super::{Router, timing};

impl<W> Router<W> {
    /// Returns the replica that answers soonest, among those that have not declined the request;
    /// the primary if none is known to be better.
    pub(super) fn nearest_replica(
        &self,
        now: Duration,
        group: &Group,
        declined: &[NodeId],
    ) -> Option<NodeId> {
        let left = || group.replicas.iter().copied().filter(|node| !declined.contains(node));
        let nearest = left()
            .filter(|&node| self.is_usable(now, node))
            .min_by_key(|node| self.peers.get(node).map(Peer::distance));
        nearest
            .or(group.primary.filter(|primary| !declined.contains(primary)))
            .or_else(|| left().next())
    }

    /// Returns the nearest node, for a request that every node accepts, when no replica is
    /// reachable.
    pub(super) fn nearest_node(&self, now: Duration, declined: &[NodeId]) -> Option<NodeId> {
        let nodes = self.members().filter(|node| !declined.contains(node));
        nodes
            .filter(|&node| self.is_usable(now, node))
            .min_by_key(|node| self.peers.get(node).map(Peer::distance))
    }

    /// Returns a node that accepted an eventual write which this client made or saw, and may still
    /// hold it.
    pub(super) fn deposit_holder(
        &self,
        now: Duration,
        group: &Group,
        declined: &[NodeId],
    ) -> Option<NodeId> {
        let mut keepers = group.deposits.keys().copied();
        keepers.find(|&node| !declined.contains(&node) && self.is_usable(now, node))
    }

    /// Returns a replica to send a strong read to when the primary has been unreachable for a
    /// while. That replica may still reach it.
    pub(super) fn detour(&self, now: Duration, group: &Group) -> Option<NodeId> {
        let unreachable = |node: NodeId| {
            self.peers.get(&node).is_some_and(|peer| peer.connection.is_none() && peer.failures > 0)
        };
        let quiet = now.saturating_sub(group.silent_since);
        if !group.primary.is_some_and(unreachable) || quiet < timing::DETOUR_AFTER {
            return None;
        }
        self.nearest_replica(now, group, &[]).filter(|&node| self.is_usable(now, node))
    }

    /// Returns whether a node is connected and not silent.
    pub(super) fn is_usable(&self, now: Duration, node: NodeId) -> bool {
        let peer = self.peers.get(&node);
        peer.is_some_and(|peer| peer.connection.is_some() && !peer.is_silent(now, peer.patience()))
    }
}
