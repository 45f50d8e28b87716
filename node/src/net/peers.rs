//! Connections to the other nodes, opened on demand and replaced when they break.
//!
//! Between two nodes there are two connections each way: one for messages that must never wait
//! (heartbeats, votes, announcements) and one for messages that may be large (entries, snapshots).
//! QUIC keeps the streams of one connection apart, but they share its congestion window; two
//! connections share nothing.
//!
//! A connection whose peer has died silently looks alive for seconds. So a caller that gets no
//! answer from a peer reports it ([`Peers::failed`]), and after a period of nothing but failures
//! the connection is dropped and opened anew.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dkv_base::id::NodeId;
use dkv_base::sync::lock;
use dkv_wire::acceptor::Acceptor;
use dkv_wire::limits::NODES_MAX;
use dkv_wire::quic::{Close, ConnectError, Endpoint};
use dkv_wire::tls::Expect;
use tokio::time::Instant;

use crate::net::denials::DenialLog;
use crate::net::incarnations::{self, HandshakeError, Incarnations};
use crate::net::liveness::Liveness;

/// The purpose of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// Small and urgent messages.
    Urgent,
    /// Large messages, or many.
    Bulk,
}

/// Time of nothing but failures after which a connection to a nearby node is given up.
const GIVE_UP_AFTER: Duration = Duration::from_millis(600);
/// Pause after a failed attempt to connect, in which no other is made.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// Longest duration of the first attempt to connect. After each failure the limit doubles, up to 8
/// times this, because the node may be far away.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1000);

/// Nodes whose liveness is tracked: as many as there can be, and as many that have left or never
/// were members.
const LIVENESS_MAX: usize = 2 * NODES_MAX;

/// The reason why there is no connection to a peer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    /// The node's address has not been announced yet.
    #[error("the address of node {0:?} is not known")]
    UnknownAddress(NodeId),
    /// The node was removed from the network.
    #[error("node {0:?} was removed from the network")]
    Denied(NodeId),
    /// An attempt failed a moment ago, and it is too early for another.
    #[error("node {0:?} could not be reached a moment ago")]
    Resting(NodeId),
    /// The node cannot be reached.
    #[error("{0}")]
    Connect(#[from] ConnectError),
    /// The node's incarnation, or this one, may not take part.
    #[error("node {0:?}: {1}")]
    Refused(NodeId, HandshakeError),
    /// This node takes no part.
    #[error("{0}")]
    HeldBack(Arc<str>),
}

/// The other nodes, with the connections to them.
#[derive(Clone)]
pub(crate) struct Peers {
    shared: Arc<PeersInner>,
}

struct PeersInner {
    endpoint: Endpoint,
    acceptor: Arc<Acceptor>,
    /// The incarnations at both ends of connections. If `None`, no handshake takes place.
    incarnations: Option<Incarnations>,
    addresses: Mutex<BTreeMap<NodeId, SocketAddr>>,
    links: Mutex<BTreeMap<(NodeId, Lane), Arc<Link>>>,
    liveness: Mutex<BTreeMap<NodeId, Liveness>>,
    /// The newest connection from each node.
    met: Mutex<BTreeMap<NodeId, quinn::Connection>>,
    denials: DenialLog,
    /// The nodes that have closed a connection because this node was removed, and have not
    /// connected to this node since.
    refusing: Mutex<BTreeSet<NodeId>>,
}

/// One outgoing connection, open or to be opened.
#[derive(Default)]
struct Link {
    /// Locked while connecting, so that all who wait share one attempt.
    connecting: tokio::sync::Mutex<()>,
    state: Mutex<LinkState>,
}

#[derive(Default)]
struct LinkState {
    connection: Option<quinn::Connection>,
    /// When the connection was opened.
    opened: Option<Instant>,
    address: Option<SocketAddr>,
    failing_since: Option<Instant>,
    /// Failed attempts to connect in a row.
    attempts: u32,
    rest_until: Option<Instant>,
}

impl Peers {
    /// Returns the peers of a serving node: on each connection both ends first state their
    /// incarnations.
    pub(crate) fn greeting(
        endpoint: Endpoint,
        acceptor: Arc<Acceptor>,
        incarnations: Incarnations,
    ) -> Self {
        Self::with(endpoint, acceptor, Some(incarnations))
    }

    /// Returns peers that skip the handshake.
    #[cfg(test)]
    pub(crate) fn new(endpoint: Endpoint, acceptor: Arc<Acceptor>) -> Self {
        Self::with(endpoint, acceptor, None)
    }

    fn with(
        endpoint: Endpoint,
        acceptor: Arc<Acceptor>,
        incarnations: Option<Incarnations>,
    ) -> Self {
        let shared = PeersInner {
            endpoint,
            acceptor,
            incarnations,
            addresses: Mutex::default(),
            links: Mutex::default(),
            liveness: Mutex::default(),
            met: Mutex::default(),
            denials: DenialLog::default(),
            refusing: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Sets a node's address. A connection to another address is given up.
    pub(crate) fn learn(&self, node: NodeId, address: SocketAddr) {
        self.shared.denials.know(node);
        let known = lock(&self.shared.addresses).insert(node, address);
        if known != Some(address) {
            self.redial(node);
        }
    }

    /// Returns the address of a node, if it is known.
    pub(crate) fn address(&self, node: NodeId) -> Option<SocketAddr> {
        lock(&self.shared.addresses).get(&node).copied()
    }

    /// Returns whether this node has an apparently open connection to a node.
    pub(crate) fn is_connected(&self, node: NodeId) -> bool {
        [Lane::Urgent, Lane::Bulk].into_iter().any(|lane| self.link(node, lane).open().is_some())
    }

    /// Returns the log of refused messages.
    pub(crate) fn denials(&self) -> &DenialLog {
        &self.shared.denials
    }

    /// Returns a secret of this node, which stays the same for the life of its identity.
    pub(crate) fn secret(&self) -> Vec<u8> {
        let credentials = self.shared.endpoint.credentials();
        credentials.map(|credentials| credentials.secret().to_vec()).unwrap_or_default()
    }

    /// Returns the record of when a node last sent a Raft message, for updates and queries.
    pub(crate) fn liveness(&self, node: NodeId) -> Liveness {
        let mut liveness = lock(&self.shared.liveness);
        if liveness.len() >= LIVENESS_MAX && !liveness.contains_key(&node) {
            // Most of that many nodes are strangers; nothing is recorded about them.
            return Liveness::default();
        }
        liveness.entry(node).or_default().clone()
    }

    /// Registers a connection from another node.
    pub(crate) fn met(&self, node: NodeId, connection: &quinn::Connection) {
        lock(&self.shared.met).insert(node, connection.clone());
        lock(&self.shared.refusing).remove(&node);
        // The node is up, so connections to it that seemed dead are to be retried at once.
        self.redial(node);
    }

    /// Returns whether another node is connected to this one.
    pub(crate) fn is_met(&self) -> bool {
        lock(&self.shared.met).values().any(|open| open.close_reason().is_none())
    }

    /// Returns the nodes that say that this node was removed from the network.
    pub(crate) fn refusing(&self) -> BTreeSet<NodeId> {
        lock(&self.shared.refusing).clone()
    }

    /// Records it if a node closes this connection because this node was removed.
    fn watch(&self, node: NodeId, address: SocketAddr, connection: &quinn::Connection) {
        let (shared, connection) = (Arc::downgrade(&self.shared), connection.clone());
        tokio::spawn(async move {
            let lost = connection.closed().await;
            if let ConnectError::Removed { .. } = ConnectError::from_lost(address, &lost)
                && let Some(shared) = shared.upgrade()
            {
                lock(&shared.refusing).insert(node);
            }
        });
    }

    /// Returns the current round-trip time to a node, as measured on any open connection with it.
    pub(crate) fn round_trip(&self, node: NodeId) -> Option<Duration> {
        let mut own = [Lane::Urgent, Lane::Bulk].into_iter();
        let own = own.find_map(|lane| self.link(node, lane).open());
        let theirs = || lock(&self.shared.met).get(&node).cloned();
        let open = own.or_else(theirs).filter(|open| open.close_reason().is_none());
        open.map(|open| open.rtt())
    }

    /// Returns all nodes whose address is known.
    pub(crate) fn known(&self) -> Vec<(NodeId, SocketAddr)> {
        lock(&self.shared.addresses).iter().map(|(node, address)| (*node, *address)).collect()
    }

    /// Forgets the connections to a node that do not work, so that the next use connects at once.
    ///
    /// Called when there is a sign that the node has come back, such as a connection from it.
    pub(crate) fn redial(&self, node: NodeId) {
        for lane in [Lane::Urgent, Lane::Bulk] {
            let link = self.link(node, lane);
            let mut state = lock(&link.state);
            let moved = state.address.is_some() && state.address != self.address(node);
            if (state.seems_dead() || moved)
                && let Some(connection) = state.connection.take()
            {
                Close::Done.close(&connection, "reconnecting");
            }
            state.failing_since = None;
            state.attempts = 0;
            state.rest_until = None;
        }
    }

    /// Returns a connection to a node, and opens it if necessary.
    pub(crate) async fn connection(
        &self,
        node: NodeId,
        lane: Lane,
    ) -> Result<quinn::Connection, PeerError> {
        if let Some(why) = self.shared.incarnations.as_ref().and_then(Incarnations::held_by_server)
        {
            return Err(PeerError::HeldBack(why));
        }
        if let Some(connection) = self.link(node, lane).open() {
            return Ok(connection);
        }
        let peers = self.clone();
        // Spawned, because the caller may give up sooner than a handshake takes.
        let connecting = tokio::spawn(async move { peers.connect(node, lane).await });
        connecting.await.unwrap_or(Err(PeerError::Resting(node)))
    }

    /// Opens the connection for urgent messages to a node, unless it is open or being opened. What
    /// is urgent then does not wait for a handshake, which takes three round trips.
    pub(crate) fn warm(&self, node: NodeId) {
        let link = self.link(node, Lane::Urgent);
        if link.open().is_some() || link.connecting.try_lock().is_err() {
            return;
        }
        let peers = self.clone();
        tokio::spawn(async move {
            // The next user of the connection reports why there is none.
            let _ = peers.connection(node, Lane::Urgent).await;
        });
    }

    async fn connect(&self, node: NodeId, lane: Lane) -> Result<quinn::Connection, PeerError> {
        let link = self.link(node, lane);
        let _connecting = link.connecting.lock().await;
        if let Some(connection) = link.open() {
            return Ok(connection);
        }
        if self.shared.acceptor.is_denied(node.into()) {
            return Err(PeerError::Denied(node));
        }
        let address = self.address(node).ok_or(PeerError::UnknownAddress(node))?;
        if lock(&link.state).rest_until.is_some_and(|until| Instant::now() < until) {
            return Err(PeerError::Resting(node));
        }
        let attempts = lock(&link.state).attempts;
        let patience = CONNECT_TIMEOUT * (1 << attempts.min(3));
        let connect = self.shared.endpoint.connect(address, Expect::Node(node));
        let connected = match tokio::time::timeout(patience, connect).await {
            Ok(connected) => connected,
            Err(_) => Err(ConnectError::Unreachable { address, why: "no answer".into() }),
        };
        let connected = match connected {
            Ok(connection) => {
                self.shared.acceptor.watch(&connection);
                self.watch(node, address, &connection);
                self.greet(node, lane, &connection).await.map(|()| connection)
            }
            Err(error) => Err(error.into()),
        };
        let mut state = lock(&link.state);
        match connected {
            Ok(connection) => {
                *state = LinkState {
                    connection: Some(connection.clone()),
                    opened: Some(Instant::now()),
                    address: Some(address),
                    ..LinkState::default()
                };
                Ok(connection)
            }
            Err(error) => {
                state.attempts = state.attempts.saturating_add(1);
                state.rest_until = Some(Instant::now() + RETRY_AFTER);
                Err(error)
            }
        }
    }

    /// Exchanges incarnations: nothing else is sent before each end knows the other's incarnation.
    async fn greet(
        &self,
        node: NodeId,
        lane: Lane,
        connection: &quinn::Connection,
    ) -> Result<(), PeerError> {
        let Some(incarnations) = &self.shared.incarnations else { return Ok(()) };
        let greeted =
            incarnations::greet(incarnations, node, connection, lane == Lane::Urgent).await;
        greeted.map_err(|why| PeerError::Refused(node, why))?;
        incarnations.held().map_or(Ok(()), |why| Err(PeerError::HeldBack(why)))
    }

    /// Reports that a node did not answer what was begun at `asked`. It says nothing about a
    /// connection that was opened later.
    pub(crate) fn failed(&self, node: NodeId, lane: Lane, asked: Instant) {
        let link = self.link(node, lane);
        let mut state = lock(&link.state);
        if state.opened.is_none_or(|opened| asked < opened) {
            return;
        }
        let since = *state.failing_since.get_or_insert_with(Instant::now);
        let far = state.connection.as_ref().map_or(Duration::ZERO, |open| open.rtt() * 4);
        if since.elapsed() >= GIVE_UP_AFTER.max(far) {
            state.failing_since = None;
            if let Some(connection) = state.connection.take() {
                Close::Done.close(&connection, "no answer");
            }
        }
    }

    /// Returns how far the log of this node is on disk.
    pub(crate) fn mark(&self) -> u64 {
        self.shared.incarnations.as_ref().map_or(0, |incarnations| incarnations.own().mark)
    }

    /// Records how far the log of the peer at the other end of a connection is on disk.
    pub(crate) fn advance(&self, node: NodeId, connection: &quinn::Connection, mark: u64) {
        if let Some(incarnations) = &self.shared.incarnations {
            incarnations.advance(node, connection, mark);
        }
    }

    /// Reports that a node answered.
    pub(crate) fn answered(&self, node: NodeId, lane: Lane) {
        lock(&self.link(node, lane).state).failing_since = None;
    }

    fn link(&self, node: NodeId, lane: Lane) -> Arc<Link> {
        Arc::clone(lock(&self.shared.links).entry((node, lane)).or_default())
    }
}

impl LinkState {
    /// Returns whether nothing has been answered for longer than an answer takes. Two nodes that
    /// connect to each other must not take one late answer for a dead connection: each would close
    /// the connection that the other needs.
    fn seems_dead(&self) -> bool {
        let round_trip = self.connection.as_ref().map_or(Duration::ZERO, |open| open.rtt());
        self.failing_since.is_some_and(|since| since.elapsed() > round_trip * 2)
    }
}

impl Link {
    fn open(&self) -> Option<quinn::Connection> {
        let state = lock(&self.state);
        state.connection.as_ref().filter(|open| open.close_reason().is_none()).cloned()
    }
}

#[cfg(test)]
mod tests;
