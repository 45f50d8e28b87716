//! Who reaches this node, and who refuses it: what a node must know before it says that it is
//! ready, and say when something is wrong.
//!
//! A node is *in contact* once the server has answered it, or another node has connected to it, or
//! when there is nobody else. Until then it may be that it was removed while it was away, and that
//! those who know it have not said so yet; `ready` waits for that, though not for ever: with
//! everybody else down, a node serves what it can.
//!
//! That it was removed it hears from the server, or, if that is down, from the other nodes, which
//! close its connections. One of them may be mistaken; more than half of them are not.
//!
//! That nobody reaches it at the address which it names shows in that nobody connects to it,
//! neither the server, which calls every node back, nor another node.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dkv_base::id::NodeId;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::node::Node;

/// How often it is looked whether there is contact.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Longest time that `ready` waits for contact, if nobody refuses the node.
const CONTACT_PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked who refuses the node, and whether it is reached.
const WATCH_EVERY: Duration = Duration::from_millis(500);
/// Time after the server has answered in which it, or somebody, reaches a node that can be reached.
const REACHED_WITHIN: Duration = Duration::from_secs(6);
/// How often a person is told again.
const REMIND: Duration = Duration::from_secs(600);

/// Completes when the node may say that it is ready.
pub(crate) async fn made(node: &Node) {
    let begun = Instant::now();
    loop {
        let patient = begun.elapsed() < CONTACT_PATIENCE || !node.peers().refusing().is_empty();
        if !patient || is_made(node) {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn is_made(node: &Node) -> bool {
    node.server().seen().is_some() || node.peers().is_met() || others(node).is_empty()
}

/// The other nodes of the directory.
fn others(node: &Node) -> BTreeSet<NodeId> {
    let listed = node.control().state_machine().with_directory(|directory| {
        let nodes = directory.nodes().iter().filter(|(_, member)| !member.left);
        nodes.map(|(id, _)| *id).filter(|id| *id != node.id()).collect()
    });
    listed.unwrap_or_default()
}

/// Runs for the life of the node.
pub(crate) async fn run(node: Arc<Node>) {
    let mut known = BTreeSet::new();
    let mut unreached = Unreached::default();
    loop {
        node.ticks().pause(WATCH_EVERY).await;
        let (refusing, others) = (node.peers().refusing(), others(&node));
        for peer in refusing.difference(&known) {
            warn!(?peer, "another node refuses this one: it says that this node was removed");
        }
        if is_removed(&refusing, &others) {
            return node.fail(format!(
                "this node was removed from the network, as {} of the {} other nodes say; to join again, \
                 start it with an empty data directory (this one is {})",
                refusing.intersection(&others).count(),
                others.len(),
                node.data_dir().path().display()
            ));
        }
        known = refusing;
        let is_reached = node.was_called_back() || node.peers().is_met();
        let address = node.me().address;
        match unreached.look(is_reached, node.server().seen().is_some(), Instant::now()) {
            Some(ReachabilityChange::NotReached) => warn!(
                %address,
                "nobody reaches this node at the address that it names: not the registration server, and no \
                 other node. Others cannot count on it. Name the address at which they reach it with \
                 --advertise, and see that firewalls let UDP through to it"
            ),
            Some(ReachabilityChange::Reached) => {
                info!(%address, "this node is reached at the address that it names")
            }
            None => {}
        }
    }
}

/// Whether so many refuse this node that it was removed.
fn is_removed(refusing: &BTreeSet<NodeId>, others: &BTreeSet<NodeId>) -> bool {
    refusing.intersection(others).count() * 2 > others.len()
}

/// What is to be told of a node's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReachabilityChange {
    NotReached,
    Reached,
}

/// Whether a node is reached, and what was told of that.
#[derive(Default)]
struct Unreached {
    server_seen: Option<Instant>,
    told: Option<Instant>,
    reached: bool,
}

impl Unreached {
    fn look(
        &mut self,
        is_reached: bool,
        has_server: bool,
        now: Instant,
    ) -> Option<ReachabilityChange> {
        if is_reached {
            self.reached = true;
            return self.told.take().map(|_| ReachabilityChange::Reached);
        }
        if !has_server || self.reached {
            return None;
        }
        let since = *self.server_seen.get_or_insert(now);
        let due = self.told.is_none_or(|told| now.duration_since(told) >= REMIND);
        if now.duration_since(since) < REACHED_WITHIN || !due {
            return None;
        }
        self.told = Some(now);
        Some(ReachabilityChange::NotReached)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_of_the_others_must_refuse_a_node() {
        let ids: Vec<NodeId> = (0..4).map(|_| NodeId::random()).collect();
        let set = |range: std::ops::Range<usize>| ids[range].iter().copied().collect();
        for (refusing, others, removed) in [
            (0..0, 0..0, false),
            (0..0, 0..1, false),
            (0..1, 0..1, true),
            (0..1, 0..2, false),
            (0..2, 0..2, true),
            (0..2, 0..3, true),
            // Who is not of the network has no say.
            (3..4, 0..1, false),
            (2..4, 0..3, false),
        ] {
            assert_eq!(is_removed(&set(refusing.clone()), &set(others.clone())), removed);
        }
    }

    #[test]
    fn a_node_that_is_not_reached_is_told_once_and_again_later() {
        let mut unreached = Unreached::default();
        let begun = Instant::now();
        let mut look = |reached, server, seconds| {
            unreached.look(reached, server, begun + Duration::from_secs(seconds))
        };
        // Before the server has answered, nobody can have been told where the node is.
        assert_eq!(look(false, false, 100), None);
        assert_eq!(look(false, true, 101), None);
        assert_eq!(look(false, true, 110), Some(ReachabilityChange::NotReached));
        assert_eq!(look(false, true, 111), None);
        assert_eq!(look(false, true, 711), Some(ReachabilityChange::NotReached));
        assert_eq!(look(true, true, 712), Some(ReachabilityChange::Reached));
        assert_eq!(look(true, true, 713), None);
        // It is alone for a while; its address was right.
        assert_eq!(look(false, true, 2000), None);
    }
}
