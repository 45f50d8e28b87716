//! Tracks which nodes reach this node and which refuse it: a node needs this before it reports that
//! it is ready, and to warn when something is wrong.
//!
//! A node is *in contact* once the server has answered it, once another node has connected to it,
//! or if there is no other node. Until then the node may have been removed while it was away, and
//! the others may not have said so yet. `ready` waits for contact, but not for ever: with all other
//! nodes down, a node serves what it can. If one of those that are left refuses it, and no server
//! can tell whether it is right, the start ends.
//!
//! A node learns of its removal from the server or, if that is down, from the other nodes, which
//! close its connections. One of them may be mistaken, or its key stolen; two that are more than
//! half of them are believed.
//!
//! A node that votes keeps a connection to each of the other voters.
//!
//! If the node cannot be reached at its advertised address, it sees no incoming connections:
//! neither from the server, which calls every node back, nor from another node.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dkv_base::id::NodeId;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::net::peers::Peers;
use crate::node::{Node, Replicas};

/// Interval between checks for contact.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Longest time that `ready` waits for contact, if no other node refuses this one.
const CONTACT_PATIENCE: Duration = Duration::from_secs(2);
/// Interval between checks for refusals and for reachability.
const WATCH_EVERY: Duration = Duration::from_millis(500);
/// Time after the server's answer within which the server, or another node, connects to a reachable
/// node.
const REACHED_WITHIN: Duration = Duration::from_secs(6);
/// Longest time that `ready` waits for a server while another node refuses this one.
const REFUSED_PATIENCE: Duration = Duration::from_secs(10);
/// Time for which an answer of the server outweighs the word of other nodes: unless it is cut off
/// from the coordinator, it knows of a removal earlier than that.
const VOUCHED_FOR: Duration = Duration::from_secs(10);
/// Nodes that must agree before their word counts.
const BELIEVED: usize = 2;
/// Interval between repeated warnings.
const REMIND: Duration = Duration::from_secs(600);

/// Completes when the node may report that it is ready.
pub(crate) async fn made(node: &Node) {
    let begun = Instant::now();
    loop {
        let refusing = &node.peers().refusing() & &others(node.replicas(), node.id());
        let patient = begun.elapsed() < CONTACT_PATIENCE || !refusing.is_empty();
        if !patient || is_made(node) {
            return;
        }
        // No server can tell it the truth, and what it took meanwhile could be lost.
        if begun.elapsed() >= REFUSED_PATIENCE && !refusing.is_empty() {
            node.tasks().fail(format!(
                "another node says that this one was removed from the network, and no registration \
                 server answers that would know; start the server, then this node again, or, if it \
                 was removed, start it with another, empty data directory (--data-dir) and keep {} \
                 until nothing is missed: it may have the only copy of some writes",
                node.store().data_dir().path().display()
            ));
            return std::future::pending().await;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn is_made(node: &Node) -> bool {
    node.connections().server().seen().is_some()
        || node.peers().is_met()
        || others(node.replicas(), node.id()).is_empty()
}

/// The other nodes of the directory.
fn others(replicas: &Replicas, me: NodeId) -> BTreeSet<NodeId> {
    let listed = replicas.with_directory(|directory| {
        let nodes = directory.nodes().iter().filter(|(_, member)| !member.left);
        nodes.map(|(id, _)| *id).filter(|id| *id != me).collect()
    });
    listed.unwrap_or_default()
}

/// Runs for the life of the node.
pub(crate) async fn run(node: Arc<Node>) {
    let mut known = BTreeSet::new();
    let mut unreached = Unreached::default();
    loop {
        node.ticks().pause(WATCH_EVERY).await;
        meet_voters(node.replicas(), node.peers(), node.id());
        let (refusing, others) = (node.peers().refusing(), others(node.replicas(), node.id()));
        for peer in refusing.difference(&known) {
            warn!(?peer, "another node refuses this one: it says that this node was removed");
        }
        let is_vouched_for =
            node.connections().server().seen().is_some_and(|age| age < VOUCHED_FOR);
        if !is_vouched_for && is_removed(&refusing, &others) {
            return node.tasks().fail(format!(
                "this node was removed from the network, as {} of the {} other nodes say; to join again, \
                 start it with another, empty data directory (--data-dir). Keep {} until nothing is \
                 missed: it may have the only copy of some writes",
                refusing.intersection(&others).count(),
                others.len(),
                node.store().data_dir().path().display()
            ));
        }
        known = refusing;
        let is_reached = node.connections().was_called_back() || node.peers().is_met();
        let address = node.me().address;
        match unreached.look(
            is_reached,
            node.connections().server().seen().is_some(),
            Instant::now(),
        ) {
            Some(ReachabilityChange::NotReached) => warn!(
                %address,
                "this node is unreachable at its advertised address: neither the registration server nor \
                 another node can connect to it. Others cannot count on it. Name the address at which they \
                 reach it with --advertise, and see that firewalls let UDP through to it"
            ),
            Some(ReachabilityChange::Reached) => {
                info!(%address, "this node is reachable at its advertised address")
            }
            None => {}
        }
    }
}

/// Connects this node to those it votes with: when the leader that they all hear is gone, the next
/// one needs their votes, and a handshake over a long distance takes longer than an election.
fn meet_voters(replicas: &Replicas, peers: &Peers, me: NodeId) {
    let groups = replicas.all().into_iter().filter(|group| !group.only_follows());
    let voters: BTreeSet<NodeId> = groups.flat_map(|group| group.voters()).collect();
    for voter in voters.into_iter().filter(|voter| *voter != me) {
        peers.warm(voter);
    }
}

/// Whether enough nodes refuse this one to conclude that it was removed.
fn is_removed(refusing: &BTreeSet<NodeId>, others: &BTreeSet<NodeId>) -> bool {
    let count = refusing.intersection(others).count();
    count >= BELIEVED && count * 2 > others.len()
}

/// A report about the reachability of a node's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReachabilityChange {
    NotReached,
    Reached,
}

/// Whether other nodes reach this one, and what was reported of it.
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
            // The key of the only other node may be stolen.
            (0..1, 0..1, false),
            (0..1, 0..2, false),
            (0..2, 0..2, true),
            (0..2, 0..3, true),
            // Nodes outside the network do not count.
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
        // Before the server has answered, no other node can have learnt where this one is.
        assert_eq!(look(false, false, 100), None);
        assert_eq!(look(false, true, 101), None);
        assert_eq!(look(false, true, 110), Some(ReachabilityChange::NotReached));
        assert_eq!(look(false, true, 111), None);
        assert_eq!(look(false, true, 711), Some(ReachabilityChange::NotReached));
        assert_eq!(look(true, true, 712), Some(ReachabilityChange::Reached));
        assert_eq!(look(true, true, 713), None);
        // The node is alone for a while; its address was right.
        assert_eq!(look(false, true, 2000), None);
    }
}
