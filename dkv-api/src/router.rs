//! The router decides which node gets a request, when to try another, and what the caller learns in
//! the end.
//!
//! It is plain data: it opens no socket, reads no clock and draws no random number. Events come in
//! with the time at which they happen, and [`Effect`]s come out. The loop that drives it is
//!
//! ```text
//! lock the router
//!     submit, cancel, handle_reply, handle_view,
//!     connected, connect_failed, connection_lost or tick
//!     while let Some(effect) = router.poll_effect() { execute it }
//! unlock
//! ```
//!
//! A request goes to the node that is taken to be the primary of the key's shard. The router learns
//! primaries from views and redirects, and keeps one for as long as it serves. It suspects a
//! primary that redirects, refuses, loses its connection, or is silent. QUIC takes seconds to
//! detect a dead process. So after some twenty milliseconds of silence the router asks the other
//! replicas for their views, and as soon as one names another primary, everything under way goes
//! there as well. The first answer counts. All attempts of a write carry the same write id, so it
//! is executed once, whichever node receives it.
//!
//! An attempt ends in one of three links: with an answer; with a refusal that had no effect; or in
//! doubt, when its answer can no longer come. A write that times out is [`Error::Unknown`] if an
//! attempt is open or in doubt, and otherwise [`Error::Unavailable`].
//!
//! The router trusts the views of the server, and of nodes that the server or an earlier view names
//! as members; see [`view`]. It trusts and sends nothing to other holders of a certificate, such as
//! removed nodes.
//!
//! When a caller drops its future, the router cancels the request and settles its serial; see
//! [`session`].
//!
//! Deliberately missing: an order among the claims of different nodes, because views carry no term
//! of a shard. A wrong primary costs a redirect and never a wrong answer: nodes check for
//! themselves.

mod replica_choice;
mod peer;
mod probe;
mod answer;
mod dropped;
mod refusal;
mod failure;
mod route;
mod session;
mod clock;
pub(crate) mod timing;
mod view;
mod request;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dkv_base::id::{GroupId, HolderId, KeyspaceId, NodeId, Revision, SessionId};
use dkv_wire::limits;
use dkv_wire::message::Answer;
use dkv_wire::network::LinkDelay;
use dkv_wire::network::NetworkView;
use dkv_wire::region::Region;
use dkv_wire::user::User;

use self::clock::NetworkClock;
use self::peer::{Group, Peer};
use self::request::Pending;
pub(crate) use self::request::{Payload, RangeQuery, RequestKind, Stage, Target};
use crate::error::Error;

/// The outcome of a request.
pub(crate) type Outcome = Result<Answer, Error>;

/// One request to one node.
#[derive(Clone, Debug)]
pub(crate) struct OutgoingRequest {
    pub(crate) node: NodeId,
    /// Generation of the connection to use.
    pub(crate) generation: u64,
    /// The id of the attempt; see [`RequestKind::attempt`].
    pub(crate) id: u64,
    pub(crate) deadline: Duration,
    /// The user for whom the caller asks, if it names one.
    pub(crate) user: Option<User>,
    pub(crate) payload: Payload,
    /// Whether the request, or its answer, is so large that it would delay others.
    pub(crate) bulk: bool,
}

/// What the router wants done.
#[derive(Debug)]
pub(crate) enum Effect<W> {
    /// Connect to a node; then call [`Router::connected`] or [`Router::connect_failed`].
    Connect { node: NodeId, generation: u64, address: SocketAddr },
    /// Close the connections to a node.
    Disconnect { node: NodeId },
    /// Send a request.
    Send(OutgoingRequest),
    /// Deliver an outcome to a caller.
    Finish { waiter: W, outcome: Outcome },
    /// Ask the server for its view; then call [`Router::handle_view`] or
    /// [`Router::handle_no_view`].
    AskServer,
    /// Delay packets to and from these addresses.
    SetDelays { links: Vec<(SocketAddr, LinkDelay)>, vary: bool },
    /// Store these addresses for the next start.
    SaveNodes(Vec<(NodeId, SocketAddr)>),
    /// Use these registration servers too, and store their addresses.
    LearnServers(Vec<SocketAddr>),
}

/// See the [module](self).
pub(crate) struct Router<W> {
    first_session: SessionId,
    /// Makes the back-off of this client differ from that of others that were refused at the same
    /// time.
    jitter: u64,
    /// The region of this client, if it was given one.
    region: Option<Region>,
    links: Vec<(SocketAddr, LinkDelay)>,
    view: Option<Arc<NetworkView>>,
    /// Holders that a view has named as removed. An id is never reused.
    denied: BTreeSet<HolderId>,
    /// What the server said when it had no view.
    no_view_reason: Option<String>,
    ask_server_at: Duration,
    /// When it may be asked again who has a group whose replicas do not serve it.
    seek_at: Duration,
    peers: BTreeMap<NodeId, Peer>,
    groups: BTreeMap<GroupId, Group>,
    requests: BTreeMap<u64, Pending<W>>,
    next_id: u64,
    unrouted: BTreeSet<u64>,
    parked: BTreeSet<u64>,
    pauses: BTreeSet<(Duration, u64)>,
    deadlines: BTreeSet<(Duration, u64)>,
    clock: NetworkClock,
    /// Hashes of keys whose value was large when last seen. The lowest bits of a hash are its
    /// index.
    large_keys: Vec<u64>,
    effects: VecDeque<Effect<W>>,
}

impl<W> Router<W> {
    /// Creates a router without a view. `first_session` must be random.
    pub(crate) fn new(first_session: SessionId, region: Option<Region>) -> Self {
        Self {
            first_session,
            jitter: first_session.0.as_u64_pair().1,
            region,
            links: Vec::new(),
            view: None,
            denied: BTreeSet::new(),
            no_view_reason: None,
            ask_server_at: Duration::ZERO,
            seek_at: Duration::ZERO,
            peers: BTreeMap::new(),
            groups: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_id: 1,
            unrouted: BTreeSet::new(),
            parked: BTreeSet::new(),
            pauses: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            clock: NetworkClock::new(first_session.0.as_u64_pair().0),
            large_keys: vec![0; answer::LARGE_KEYS],
            effects: VecDeque::new(),
        }
    }

    /// Returns the network as last seen.
    pub(crate) fn view(&self) -> Option<&Arc<NetworkView>> {
        self.view.as_ref()
    }

    /// Returns the members of the network and their addresses.
    pub(crate) fn addresses(&self) -> Vec<(NodeId, SocketAddr)> {
        let members = self.peers.iter().filter(|(_, peer)| peer.is_member);
        members.map(|(&node, peer)| (node, peer.address)).collect()
    }

    /// Returns the members of the network.
    fn members(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.peers.iter().filter(|(_, peer)| peer.is_member).map(|(&node, _)| node)
    }

    /// Returns whether no request is under way, so that no ticks are needed.
    pub(crate) fn is_idle(&self) -> bool {
        self.requests.is_empty()
    }

    /// Returns the length of the longest allowed value, in bytes, as far as is known.
    fn value_bytes_max(&self) -> usize {
        let known = self.view.as_ref().map(|view| view.settings.value_bytes_max as usize);
        known.unwrap_or(limits::VALUE_BYTES_MAX)
    }

    /// Begins a request about the default keyspace, or about none; see
    /// [`submit_in`](Self::submit_in).
    pub(crate) fn submit(
        &mut self,
        now: Duration,
        kind: RequestKind,
        timeout: Duration,
        waiter: Option<W>,
    ) -> u64 {
        self.submit_in(KeyspaceId::DEFAULT, None, now, kind, timeout, waiter)
    }

    /// Begins a request about the keys of a keyspace, for a user if there is one. Its outcome comes
    /// as [`Effect::Finish`], unless it is cancelled.
    pub(crate) fn submit_in(
        &mut self,
        keyspace: KeyspaceId,
        user: Option<User>,
        now: Duration,
        kind: RequestKind,
        timeout: Duration,
        waiter: Option<W>,
    ) -> u64 {
        let id = self.insert(now, kind, now + timeout, waiter);
        if let Some(pending) = self.requests.get_mut(&id) {
            pending.keyspace = keyspace;
            pending.user = user;
        }
        self.unrouted.insert(id);
        self.assign_group(now, id);
        id
    }

    fn insert(
        &mut self,
        now: Duration,
        kind: RequestKind,
        deadline: Duration,
        waiter: Option<W>,
    ) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let declined = match &kind {
            RequestKind::Locate { avoid, .. } => avoid.clone(),
            _ => Vec::new(),
        };
        let pending = Pending {
            kind,
            keyspace: KeyspaceId::DEFAULT,
            user: None,
            group: None,
            started: now,
            deadline,
            waiter,
            stage: Stage::Unrouted,
            attempts: Vec::new(),
            sent: now,
            in_doubt: false,
            declined,
            retries: 0,
            session_expiries: 0,
            last_error: None,
            revision_floor: Revision(0),
        };
        self.requests.insert(id, pending);
        self.deadlines.insert((deadline, id));
        id
    }

    /// Returns the address of a member of the network.
    pub(crate) fn address_of(&self, node: NodeId) -> Option<SocketAddr> {
        self.peers.get(&node).filter(|peer| peer.is_member).map(|peer| peer.address)
    }

    /// Cancels a request whose caller has dropped its future.
    pub(crate) fn cancel(&mut self, now: Duration, id: u64) {
        self.remove(now, id);
    }

    /// Handles the passing of time. Must be called every few milliseconds while the router [is not
    /// idle](Self::is_idle).
    pub(crate) fn tick(&mut self, now: Duration) {
        while let Some(&(deadline, id)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            self.time_out(now, id);
        }
        while let Some(&(until, id)) = self.pauses.first() {
            if until > now {
                break;
            }
            self.pauses.pop_first();
            self.route(now, id);
        }
        self.redial(now);
        self.check_health(now);
    }

    /// Returns the next effect to execute.
    pub(crate) fn poll_effect(&mut self) -> Option<Effect<W>> {
        self.effects.pop_front()
    }

    /// Ends all requests, because the client is closed.
    pub(crate) fn close(&mut self, now: Duration) {
        for group in self.groups.values_mut() {
            // The queues are cleared first, so that no request that ends lets the next one start.
            group.queue.clear();
        }
        let ids: Vec<u64> = self.requests.keys().copied().collect();
        for id in ids {
            self.finish_refused(now, id, Error::Unavailable("the client was closed".into()));
        }
    }

    /// Ends a request with an outcome.
    fn finish(&mut self, now: Duration, id: u64, outcome: Outcome) {
        let Some(pending) = self.remove(now, id) else { return };
        if let (RequestKind::Open { session }, Some(group)) = (&pending.kind, pending.group) {
            self.session_answered(now, group, *session, outcome);
        } else if let Some(waiter) = pending.waiter {
            self.effects.push_back(Effect::Finish { waiter, outcome });
        }
    }

    /// Removes a request, whatever its stage.
    fn remove(&mut self, now: Duration, id: u64) -> Option<Pending<W>> {
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
            if let Some(Some(write_id)) = pending.kind.write_id() {
                group.session.settle(*write_id);
            }
        }
        if let (Some(Some(_)), Some(group)) = (pending.kind.write_id(), pending.group) {
            self.admit_queued_writes(now, group);
        }
        Some(pending)
    }
}

#[cfg(test)]
mod tests;
