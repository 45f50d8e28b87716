//! Access of peers to a group's replica here: its voters, and nodes that voters or the server vouch
//! for.
//!
//! A node's certificate says that the network admitted its holder, and no more. In Raft, leaders
//! and candidates alone send messages of their own; the others answer. So to send messages of a
//! group, a node has to be a voter of it: by the configuration that is applied here, by a later one
//! in the log, or by the directory, which plans each voter before it becomes one. A node that the
//! network has merely taken in, and which follows the control group as all do, can lead nothing.
//!
//! Two kinds of replica may not know who leads them. A new replica of the control group has no log
//! yet: it trusts the nodes that the server vouches for. A replica that was away for long may know
//! only former voters. It asks those of the directory and of its log whether the stranger may lead
//! by what they know, the former first. A voter gains nothing by lying about that, because it may
//! send messages itself.
//!
//! All other nodes are refused, and logged with their id (see [`denials`](crate::net::denials)).

use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use dkv_base::id::{GroupId, NodeId};
use dkv_base::sync::lock;
use dkv_wire::message::{Answer, RequestBody};
use futures::stream::{self, StreamExt};
use tokio::time::Instant;
use tracing::info;

use crate::net::peers::Lane;
use crate::net::rpc;
use crate::node::Node;
use crate::replica::Replica;

/// Time for which a voter's voucher for another node counts.
const VOUCHED_FOR: Duration = Duration::from_secs(10);
/// Longest time that a round of questions about a stranger takes.
const ROUND_MAX: Duration =
    PATIENCE.saturating_mul(ASKED_MAX.div_ceil(ASKED_AT_ONCE) as u32).saturating_add(ASK_EVERY);
/// Shortest time between two rounds of questions about the same stranger.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// Number of voters that are asked about one stranger: more than a group has, and than it had in
/// the configurations that one log names.
const ASKED_MAX: usize = 32;
/// Number of these that are asked at a time.
const ASKED_AT_ONCE: usize = 4;
/// Number of strangers that are asked about at a time.
const STRANGERS_MAX: usize = 64;
/// Number of these that one node may be: a thief is not to keep others from being asked about.
const OF_ONE_NODE_MAX: usize = 16;
/// Time that a voter has to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Nodes that are vouched for, besides those that the logs and the directory name.
#[derive(Debug, Default)]
pub(crate) struct Vouchers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Nodes that the server vouches for, for the control group.
    by_server: BTreeSet<NodeId>,
    /// Nodes that voters vouch for, and when they did.
    by_voters: BTreeMap<(GroupId, NodeId), Instant>,
    /// The nodes that the voters are or were asked about, and until when they are not asked again.
    asked: BTreeMap<(GroupId, NodeId), Instant>,
}

impl State {
    fn vouches(&self, group: GroupId, node: NodeId, now: Instant) -> bool {
        let by_server = group == GroupId::CONTROL && self.by_server.contains(&node);
        let counts = |at: &Instant| now.saturating_duration_since(*at) < VOUCHED_FOR;
        by_server || self.by_voters.get(&(group, node)).is_some_and(counts)
    }

    /// Returns whether to ask the voters about a stranger now; if so, records that they are asked.
    fn asks(&mut self, group: GroupId, node: NodeId, now: Instant) -> bool {
        let age = |at: &Instant| now.saturating_duration_since(*at);
        self.asked.retain(|_, until| *until > now);
        self.by_voters.retain(|_, at| age(at) < VOUCHED_FOR);
        let of_node = self.asked.keys().filter(|(_, asked)| *asked == node).count();
        let is_full = self.asked.len() >= STRANGERS_MAX || of_node >= OF_ONE_NODE_MAX;
        if is_full || self.asked.contains_key(&(group, node)) {
            return false;
        }
        self.asked.insert((group, node), now + ROUND_MAX);
        true
    }

    /// Takes note of the end of a round of questions about a stranger, and of who vouches for it.
    fn answered(&mut self, group: GroupId, node: NodeId, is_vouched_for: bool, now: Instant) {
        self.asked.insert((group, node), now + ASK_EVERY);
        if is_vouched_for {
            self.by_voters.insert((group, node), now);
        }
    }
}

impl Vouchers {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }
}

impl Node {
    /// Sets the members of the control group according to the server.
    pub(crate) fn vouched_by_server(&self, nodes: &[NodeId]) {
        self.connections.vouchers().lock().by_server = nodes.iter().copied().collect();
        self.name_members();
    }

    /// Sets the nodes whose verdicts on this incarnation count: those in the directory, and those
    /// that the server vouches for, which an older directory may not name.
    pub(crate) fn name_members(&self) {
        let listed = |directory: &dkv_state::Directory| -> BTreeSet<NodeId> {
            directory.nodes().keys().copied().collect()
        };
        let mut members = self.control().state_machine().with_directory(listed).unwrap_or_default();
        members.extend(&self.connections.vouchers().lock().by_server);
        members.retain(|node| !self.replicas.is_denied(*node));
        self.incarnations().know(members);
    }

    /// Returns the other nodes that can be asked for the current leader: those in the directory,
    /// and those that the server vouches for. If there is none, returns all nodes whose address is
    /// known.
    pub(crate) fn askable(&self) -> Vec<NodeId> {
        let known: Vec<NodeId> = self.peers().known().into_iter().map(|(node, _)| node).collect();
        let is_named = |node: &NodeId| {
            self.replicas.is_listed(*node)
                || self.connections.vouchers().lock().by_server.contains(node)
        };
        let named: Vec<NodeId> = known.iter().copied().filter(is_named).collect();
        if named.is_empty() { known } else { named }
    }

    /// Returns whether a node is a member of the control group, as far as this node knows.
    pub(crate) fn knows(&self, node: NodeId) -> bool {
        self.replicas.is_member(self.control(), node)
            || self.connections.vouchers().lock().vouches(GroupId::CONTROL, node, Instant::now())
    }

    /// Returns whether a node may send messages to the replica of a group here. If the node is not
    /// known to be a voter, asks the known voters, so that a later call may return true.
    pub(crate) fn may_speak(self: &Arc<Self>, id: GroupId, from: NodeId) -> bool {
        let Some(group) = self.group(id) else { return false };
        if self.replicas.may_lead(&group, from) {
            return true;
        }
        let now = Instant::now();
        let mut vouchers = self.connections.vouchers().lock();
        if vouchers.vouches(id, from, now) {
            return true;
        }
        if vouchers.asks(id, from, now) {
            let node = Arc::clone(self);
            self.tasks.spawn(async move { node.ask_about(group, from).await });
        }
        false
    }

    /// Asks the known voters about a stranger, until one vouches for it.
    async fn ask_about(&self, group: Arc<Replica>, stranger: NodeId) {
        let mut known = self.replicas.to_lead(group.id());
        if group.id() == GroupId::CONTROL {
            known.extend(self.connections.vouchers().lock().by_server.iter());
        }
        known.extend(group.voters());
        let known = in_turn(known, [self.id(), stranger]);
        let body = RequestBody::MayLead { group: group.id(), node: stranger };
        let ask = |voter| {
            let asked = rpc::ask(self.peers(), voter, Lane::Urgent, body.clone(), PATIENCE);
            async move { matches!(asked.await, Ok(Answer::Member(true))).then_some(voter) }
        };
        let asked = stream::iter(known.into_iter().map(ask)).buffer_unordered(ASKED_AT_ONCE);
        let voucher = pin!(asked.filter_map(ready)).next().await;
        if let Some(voter) = voucher {
            info!(group = %group.id(), %stranger, by = %voter, "a voter is vouched for");
        }
        let mut vouchers = self.connections.vouchers().lock();
        vouchers.answered(group.id(), stranger, voucher.is_some(), Instant::now());
    }
}

/// The nodes to ask, each once: the first named knows most.
fn in_turn(named: Vec<NodeId>, without: [NodeId; 2]) -> Vec<NodeId> {
    let mut seen = BTreeSet::from(without);
    named.into_iter().filter(|node| seen.insert(*node)).take(ASKED_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_of_a_voter_counts_for_a_while_and_for_its_group() {
        let (mut state, start) = (State::default(), Instant::now());
        let (node, shard) = (NodeId::random(), GroupId(1));
        assert!(!state.vouches(shard, node, start));
        state.by_voters.insert((shard, node), start);
        assert!(state.vouches(shard, node, start + VOUCHED_FOR / 2));
        assert!(!state.vouches(GroupId(2), node, start));
        assert!(!state.vouches(shard, NodeId::random(), start));
        assert!(!state.vouches(shard, node, start + VOUCHED_FOR));
    }

    #[test]
    fn each_known_voter_is_asked_once_and_nobody_is_left_out_for_former_ones() {
        let nodes: Vec<NodeId> = (0..7).map(|_| NodeId::random()).collect();
        let (planned, logged) = ([nodes[0], nodes[1]], [nodes[2], nodes[1], nodes[3], nodes[4]]);
        let named = [&planned[..], &logged[..], &[nodes[5], nodes[6]]].concat();
        let asked = in_turn(named, [nodes[5], nodes[6]]);
        assert_eq!(asked, nodes[..5]);
        let many = (0..2 * ASKED_MAX).map(|_| NodeId::random()).collect();
        assert_eq!(in_turn(many, [nodes[5], nodes[6]]).len(), ASKED_MAX);
    }

    #[test]
    fn the_server_vouches_for_the_control_group_only() {
        let (mut state, now, node) = (State::default(), Instant::now(), NodeId::random());
        state.by_server.insert(node);
        assert!(state.vouches(GroupId::CONTROL, node, now));
        assert!(!state.vouches(GroupId(1), node, now));
    }

    #[test]
    fn a_stranger_that_insists_costs_a_question_now_and_then() {
        let (mut state, start, node) = (State::default(), Instant::now(), NodeId::random());
        let (group, at) = (GroupId(1), |ms| start + Duration::from_millis(ms));
        assert!(state.asks(group, node, at(0)));
        // A round is under way, and then over.
        assert!(!state.asks(group, node, at(3000)));
        state.answered(group, node, false, at(3000));
        assert!(!state.asks(group, node, at(3499)) && !state.vouches(group, node, at(3499)));
        assert!(state.asks(group, node, at(3500)));
        state.answered(group, node, true, at(3510));
        assert!(state.vouches(group, node, at(3510)));
        // One node with many groups leaves room for others.
        let of_one = (10..).map(GroupId).take(STRANGERS_MAX);
        let of_one = of_one.filter(|group| state.asks(*group, node, at(3510))).count();
        assert!(of_one < OF_ONE_NODE_MAX, "{of_one}");
        let mut asks = |node| state.asks(group, node, at(3510));
        assert!(asks(NodeId::random()));
        let many = (0..10 * STRANGERS_MAX).filter(|_| asks(NodeId::random())).count();
        assert!(many < STRANGERS_MAX, "{many}");
    }
}
