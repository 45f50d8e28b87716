//! The router: who is asked, when somebody else is, and what a caller is told in the end.
//!
//! Plain data. It opens no socket, reads no clock and draws no random number: whatever happens is
//! handed in with the time at which it happens, and what is to be done comes out as [`Effect`]s.
//! The loop that drives it is
//!
//! ```text
//! lock the router
//!     submit, cancel, handle_reply, handle_view, link_up, link_failed, link_lost, or tick
//!     while let Some(effect) = router.poll_effect() { carry it out }
//! unlock
//! ```
//!
//! A request goes to the node that is believed to lead the key's shard. That belief comes from
//! views and from redirects, and it is not changed while the node serves. It is questioned when a
//! node redirects, refuses or loses its connection, and when it is silent: QUIC takes seconds to
//! find out that a process is dead, so after some twenty milliseconds without a word the other
//! replicas are asked for their views, and as soon as one names another primary everything under
//! way goes there as well. The answer that comes first counts. All attempts of a write carry one
//! stamp, so it is executed once whoever receives it.
//!
//! An attempt ends in one of three ways: it was answered; it was refused without an effect; or its
//! answer cannot come any more, which leaves a doubt. A write that has to be given up is
//! [`Error::Unknown`] if an attempt is open or in doubt, and otherwise [`Error::Unavailable`].
//!
//! Views are believed of the server and of nodes that it, or an earlier view, names as nodes of the
//! network; see [`view`]. Of a stranger with a certificate nothing is believed and nothing is sent
//! to it, and a node that was removed is a stranger.
//!
//! A dropped future is given up at once, and its serial is settled: see [`crate::session`].
//!
//! Deliberately missing: an order among the claims of different nodes. Views carry no term of a
//! shard. A wrong belief costs a redirect, never a wrong answer: nodes check for themselves.

mod choice;
mod peer;
mod probe;
mod reply;
mod route;
mod time;
pub(crate) mod timing;
mod view;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dkv_base::id::{GroupId, HolderId, NodeId, Revision, SessionId};
use dkv_wire::limits;
use dkv_wire::message::Answer;
use dkv_wire::network::LinkDelay;
use dkv_wire::network::NetworkView;
use dkv_wire::region::Region;

use self::peer::{Group, Peer};
use self::time::Time;
use self::work::Pending;
pub(crate) use self::work::{Message, Stage, Whom, Work};
use crate::error::Error;

/// What a request comes to.
pub(crate) type Outcome = Result<Answer, Error>;

/// One request to one node.
#[derive(Clone, Debug)]
pub(crate) struct Sending {
    pub(crate) node: NodeId,
    /// Number of the connection that it is for.
    pub(crate) generation: u64,
    /// The attempt; see [`Work::attempt`].
    pub(crate) id: u64,
    pub(crate) deadline: Duration,
    pub(crate) message: Message,
    /// Whether it, or what it asks for, is so large that it would hold up others.
    pub(crate) bulk: bool,
}

/// What the router wants done.
#[derive(Debug)]
pub(crate) enum Effect<W> {
    /// Connect to a node; then say [`Router::link_up`] or [`Router::link_failed`].
    Connect { node: NodeId, generation: u64, address: SocketAddr },
    /// Close the connections to a node.
    Disconnect { node: NodeId },
    /// Send a request.
    Send(Sending),
    /// Tell a caller what came of its request.
    Finish { waiter: W, outcome: Outcome },
    /// Ask the server for its view; then say [`Router::handle_view`] or [`Router::no_view`].
    AskServer,
    /// Hold back what goes to these addresses and comes from them.
    KeepApart { links: Vec<(SocketAddr, LinkDelay)>, vary: bool },
    /// Keep these addresses for the next start.
    Remember(Vec<(NodeId, SocketAddr)>),
}

/// See the [module](self).
pub(crate) struct Router<W> {
    first_session: SessionId,
    /// Tells this client's pauses from those of others that were told to come again at once.
    jitter: u64,
    /// Where this client is, if it was told.
    region: Option<Region>,
    links: Vec<(SocketAddr, LinkDelay)>,
    view: Option<Arc<NetworkView>>,
    /// Whom a view has named as removed: an id never comes back.
    denied: BTreeSet<HolderId>,
    /// What the server said when it had no view.
    no_view: Option<String>,
    ask_server_at: Duration,
    peers: BTreeMap<NodeId, Peer>,
    groups: BTreeMap<GroupId, Group>,
    requests: BTreeMap<u64, Pending<W>>,
    next_id: u64,
    unrouted: BTreeSet<u64>,
    parked: BTreeSet<u64>,
    pauses: BTreeSet<(Duration, u64)>,
    deadlines: BTreeSet<(Duration, u64)>,
    time: Time,
    /// Hashes of keys whose value was large when it was last seen, each in the place that its
    /// lowest bits name.
    large: Vec<u64>,
    effects: VecDeque<Effect<W>>,
}

impl<W> Router<W> {
    /// A router that knows nothing but where it is. `first_session` must be random.
    pub(crate) fn new(first_session: SessionId, region: Option<Region>) -> Self {
        Self {
            first_session,
            jitter: first_session.0.as_u64_pair().1,
            region,
            links: Vec::new(),
            view: None,
            denied: BTreeSet::new(),
            no_view: None,
            ask_server_at: Duration::ZERO,
            peers: BTreeMap::new(),
            groups: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_id: 1,
            unrouted: BTreeSet::new(),
            parked: BTreeSet::new(),
            pauses: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            time: Time::new(first_session.0.as_u64_pair().0),
            large: vec![0; reply::LARGE_KEYS],
            effects: VecDeque::new(),
        }
    }

    /// The network as last seen.
    pub(crate) fn view(&self) -> Option<&Arc<NetworkView>> {
        self.view.as_ref()
    }

    /// The nodes of the network and where they are.
    pub(crate) fn addresses(&self) -> Vec<(NodeId, SocketAddr)> {
        let members = self.peers.iter().filter(|(_, peer)| peer.is_member);
        members.map(|(&node, peer)| (node, peer.address)).collect()
    }

    /// Those who are asked for what matters: the nodes of the network.
    fn members(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.peers.iter().filter(|(_, peer)| peer.is_member).map(|(&node, _)| node)
    }

    /// Whether nothing is under way, so that no time has to pass.
    pub(crate) fn is_idle(&self) -> bool {
        self.requests.is_empty()
    }

    /// Longest value, in bytes, as far as is known.
    fn value_bytes_max(&self) -> usize {
        let known = self.view.as_ref().map(|view| view.settings.value_bytes_max as usize);
        known.unwrap_or(limits::VALUE_BYTES_MAX)
    }

    /// Begins a request. Its outcome comes as [`Effect::Finish`], unless it is cancelled.
    pub(crate) fn submit(
        &mut self,
        now: Duration,
        work: Work,
        timeout: Duration,
        waiter: Option<W>,
    ) -> u64 {
        let id = self.insert(now, work, now + timeout, waiter);
        self.unrouted.insert(id);
        self.place(now, id);
        id
    }

    fn insert(&mut self, now: Duration, work: Work, deadline: Duration, waiter: Option<W>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let pending = Pending {
            work,
            group: None,
            begun: now,
            deadline,
            waiter,
            stage: Stage::Unrouted,
            attempts: Vec::new(),
            sent: now,
            doubt: false,
            passed: Vec::new(),
            tries: 0,
            expiries: 0,
            why: None,
            floor: Revision(0),
        };
        self.requests.insert(id, pending);
        self.deadlines.insert((deadline, id));
        id
    }

    /// Gives a request up because its caller has gone away.
    pub(crate) fn cancel(&mut self, now: Duration, id: u64) {
        self.take(now, id);
    }

    /// Time has passed. To be called every few milliseconds while the router [is not
    /// idle](Self::is_idle).
    pub(crate) fn tick(&mut self, now: Duration) {
        while let Some(&(deadline, id)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            self.give_up(now, id);
        }
        while let Some(&(until, id)) = self.pauses.first() {
            if until > now {
                break;
            }
            self.pauses.pop_first();
            self.route(now, id);
        }
        self.redial(now);
        self.attend(now);
    }

    /// What is to be done next.
    pub(crate) fn poll_effect(&mut self) -> Option<Effect<W>> {
        self.effects.pop_front()
    }

    /// Ends everything, because the client is closed.
    pub(crate) fn close(&mut self, now: Duration) {
        for group in self.groups.values_mut() {
            // So that nothing that ends here makes room for another beginning.
            group.queue.clear();
        }
        let ids: Vec<u64> = self.requests.keys().copied().collect();
        for id in ids {
            self.finish_refused(now, id, Error::Unavailable("the client was closed".into()));
        }
    }

    /// Ends a request that can wait no longer.
    fn give_up(&mut self, now: Duration, id: u64) {
        let Some(pending) = self.requests.get(&id) else { return };
        let waited = shown(pending.deadline.saturating_sub(pending.begun));
        let last = self.stood_in_the_way(pending);
        let text = match (&pending.stage, &self.no_view, last) {
            // What a whole sentence or two say is no end of another one.
            (Stage::Unrouted, Some(why), None) => format!("not within {waited}: {why}"),
            (Stage::Unrouted, Some(why), Some(last)) => {
                format!("not within {waited}: {why}; before that: {last}")
            }
            // Whoever was asked has refused it, the last one for this.
            (Stage::Parked { .. }, _, Some(last)) => format!("not served within {waited}: {last}"),
            (.., None) => format!("{} within {waited}", self.obstacle(pending)),
            (.., Some(last)) => {
                format!("{} within {waited}; before that: {last}", self.obstacle(pending))
            }
        };
        let text = text + &self.missing_writes(pending);
        let error =
            if pending.may_have_effect() { Error::Unknown(text) } else { Error::Unavailable(text) };
        self.finish(now, id, Err(error));
    }

    /// Eventual writes that a session read must show, and that a node has which cannot be asked.
    fn missing_writes(&self, pending: &Pending<W>) -> String {
        let (Work::Read { bounds, .. } | Work::Scan { bounds, .. }) = &pending.work else {
            return String::new();
        };
        let silent = |node: &NodeId| self.peers.get(node).is_none_or(|peer| peer.up.is_none());
        let nodes = bounds.deposits.iter().map(|(node, _)| *node).filter(silent);
        let names: Vec<String> = nodes.map(|node| self.describe(node)).collect();
        if names.is_empty() {
            return String::new();
        }
        format!(
            "; the session has to show eventual writes that {} took and may not have delivered, and it cannot \
             be reached; a strong read goes without them",
            names.join(" and ")
        )
    }

    /// What stood in a request's way last: in its own, or in that of the session that it waits for.
    fn stood_in_the_way<'a>(&'a self, pending: &'a Pending<W>) -> Option<&'a String> {
        let opening =
            || self.requests.get(&self.groups.get(&pending.group?)?.opening?)?.why.as_ref();
        match pending.stage {
            Stage::Queued => opening().or(pending.why.as_ref()),
            _ => pending.why.as_ref(),
        }
    }

    /// What a request waits for in vain.
    fn obstacle(&self, pending: &Pending<W>) -> String {
        match pending.stage {
            Stage::Unrouted => self.no_view.clone().unwrap_or_else(|| {
                "neither the registration server nor a node has told where the shards are".into()
            }),
            Stage::Queued => {
                // It waits for another request, which has an obstacle of its own.
                let group = pending.group.and_then(|group| self.groups.get(&group));
                let opening = group.and_then(|group| group.opening);
                match opening.and_then(|opening| self.requests.get(&opening)) {
                    Some(opening) if opening.stage != Stage::Queued => self.obstacle(opening),
                    _ => "earlier writes to the key's shard were not answered".into(),
                }
            }
            Stage::Parked { .. } if pending.tries > 0 => "nobody served the request".into(),
            Stage::Parked { .. } => match pending.work.whom() {
                Whom::Primary => "no primary of the key's shard could be reached".into(),
                Whom::Replica => "no replica of the key's shard could be reached".into(),
                Whom::Node(node) => format!("{} could not be reached", self.describe(node)),
            },
            Stage::Sent(node) => format!("{} did not answer", self.describe(node)),
        }
    }

    /// Ends a request with an outcome.
    fn finish(&mut self, now: Duration, id: u64, outcome: Outcome) {
        let Some(pending) = self.take(now, id) else { return };
        if let (Work::Open { session }, Some(group)) = (&pending.work, pending.group) {
            self.session_answered(now, group, *session, outcome);
        } else if let Some(waiter) = pending.waiter {
            self.effects.push_back(Effect::Finish { waiter, outcome });
        }
    }

    /// Forgets a request, wherever it is.
    fn take(&mut self, now: Duration, id: u64) -> Option<Pending<W>> {
        let pending = self.requests.remove(&id)?;
        self.deadlines.remove(&(pending.deadline, id));
        for node in &pending.attempts {
            if let Some(peer) = self.peers.get_mut(node) {
                peer.outstanding -= 1;
            }
        }
        match pending.stage {
            Stage::Unrouted => {
                self.unrouted.remove(&id);
            }
            Stage::Parked { not_before } => {
                self.parked.remove(&id);
                self.pauses.remove(&(not_before, id));
            }
            Stage::Queued | Stage::Sent(_) => {}
        }
        if let Some(group) = pending.group.and_then(|group| self.groups.get_mut(&group)) {
            if pending.waits_for_primary() {
                group.waiting -= 1;
            }
            if pending.stage == Stage::Queued {
                group.queue.retain(|&queued| queued != id);
            }
            if let Work::Write { stamp: Some(stamp), .. } = pending.work {
                group.session.settle(stamp);
            }
        }
        if let (Work::Write { stamp: Some(_), .. }, Some(group)) = (&pending.work, pending.group) {
            self.stamp_queued(now, group);
        }
        Some(pending)
    }

    fn describe(&self, node: NodeId) -> String {
        match self.view.as_ref().and_then(|view| view.node(node)) {
            Some(info) => format!("{} at {}", info.name, info.address),
            None => match self.peers.get(&node) {
                Some(peer) => format!("the node at {}", peer.address),
                None => format!("node {}", node.short()),
            },
        }
    }
}

#[cfg(test)]
mod tests;

/// A time that was waited, to about a hundredth: clocks are read a moment before the time is up.
fn shown(time: Duration) -> String {
    let ms = time.as_millis();
    let ms = if ms >= 100 { (ms + 5) / 10 * 10 } else { ms };
    if ms >= 1000 && ms % 1000 == 0 { format!("{} s", ms / 1000) } else { format!("{ms} ms") }
}
