//! Which replica is asked where any will do: the one place that knows what *near* means.
//!
//! Deliberately missing: what a replica has. Whether it is too far behind for a read is for itself
//! to say; one that said so for a request is not asked for the same again before all the others
//! were.

use std::time::Duration;

use dkv_base::id::NodeId;

use super::peer::{Group, Peer};
use super::{Router, timing};

impl<W> Router<W> {
    /// The replica that answers soonest, of those that have not `passed` the request on; the
    /// primary if none is known to be better.
    pub(super) fn choose(&self, now: Duration, group: &Group, passed: &[NodeId]) -> Option<NodeId> {
        let left = || group.replicas.iter().copied().filter(|node| !passed.contains(node));
        let nearest = left()
            .filter(|&node| self.is_usable(now, node))
            .min_by_key(|node| self.peers.get(node).map(Peer::distance));
        nearest
            .or(group.primary.filter(|primary| !passed.contains(primary)))
            .or_else(|| left().next())
    }

    /// Any node, for what every node can take, if no replica can be reached.
    pub(super) fn anybody(&self, now: Duration, passed: &[NodeId]) -> Option<NodeId> {
        let nodes = self.members().filter(|node| !passed.contains(node));
        nodes
            .filter(|&node| self.is_usable(now, node))
            .min_by_key(|node| self.peers.get(node).map(Peer::distance))
    }

    /// Whoever took an eventual write that this client has made or seen, and may keep it yet.
    pub(super) fn keeper(&self, now: Duration, group: &Group, passed: &[NodeId]) -> Option<NodeId> {
        let mut keepers = group.deposits.keys().copied();
        keepers.find(|&node| !passed.contains(&node) && self.is_usable(now, node))
    }

    /// A replica to ask for a strong read whose primary cannot be reached from here for a while
    /// now: it may well be reached from there.
    pub(super) fn detour(&self, now: Duration, group: &Group) -> Option<NodeId> {
        let unreachable = |node: NodeId| {
            self.peers.get(&node).is_some_and(|peer| peer.up.is_none() && peer.failures > 0)
        };
        let quiet = now.saturating_sub(group.quiet_since);
        if !group.primary.is_some_and(unreachable) || quiet < timing::DETOUR_AFTER {
            return None;
        }
        self.choose(now, group, &[]).filter(|&node| self.is_usable(now, node))
    }

    /// Whether a node is connected and says something when it is asked.
    pub(super) fn is_usable(&self, now: Duration, node: NodeId) -> bool {
        let peer = self.peers.get(&node);
        peer.is_some_and(|peer| peer.up.is_some() && !peer.is_silent(now, peer.patience()))
    }
}
