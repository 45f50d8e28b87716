//! Connections to the other nodes, made when they are needed and mended when they break.
//!
//! Between two nodes there are two connections each way: one for what must never wait (heartbeats,
//! votes, announcements) and one for what may be large (entries, snapshots). QUIC keeps the streams
//! of one connection apart, but they share its congestion window; two connections share nothing.
//!
//! A connection whose peer has died without a word looks alive for seconds. So whoever finds that
//! a peer does not answer says so ([`Peers::failed`]), and after a while of nothing but failures
//! the connection is dropped and made anew.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dkv_base::id::NodeId;
use dkv_wire::acceptor::Acceptor;
use dkv_wire::limits::NODES_MAX;
use dkv_wire::quic::{Close, ConnectError, Endpoint};
use dkv_wire::tls::Expect;
use tokio::time::Instant;

use crate::net::denials::DenialLog;
use crate::net::incarnations::{self, Incarnations};
use crate::net::liveness::Liveness;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// Small and urgent.
    Urgent,
    /// Large, or many.
    Bulk,
}

/// Time of nothing but failures after which a connection to a near node is given up.
const GIVE_UP_AFTER: Duration = Duration::from_millis(600);
/// Time after a failed attempt to connect in which no other is made.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// Longest attempt to connect, the first time. The next one may take twice as long: the node may be
/// far.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1000);

/// Nodes whose speech is followed: those that there can be, and as many that are no more or never
/// were.
const HEARINGS_MAX: usize = 2 * NODES_MAX;

/// Why there is no connection to a peer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    /// Nobody has told us yet where it is.
    #[error("the address of node {0:?} is not known")]
    UnknownAddress(NodeId),
    /// It was removed from the network.
    #[error("node {0:?} was removed from the network")]
    Denied(NodeId),
    /// It could not be reached a moment ago, and it is too early to try again.
    #[error("node {0:?} could not be reached a moment ago")]
    Resting(NodeId),
    /// It cannot be reached.
    #[error("{0}")]
    Connect(#[from] ConnectError),
    /// Its run, or this one, may not take part.
    #[error("node {0:?}: {1}")]
    Refused(NodeId, String),
    /// This node takes no part.
    #[error("{0}")]
    Held(Arc<str>),
}

/// All the other nodes.
#[derive(Clone)]
pub(crate) struct Peers {
    shared: Arc<PeersInner>,
}

struct PeersInner {
    endpoint: Endpoint,
    acceptor: Arc<Acceptor>,
    /// Which runs speak at both ends; without it, nobody is asked.
    incarnations: Option<Incarnations>,
    addresses: Mutex<BTreeMap<NodeId, SocketAddr>>,
    links: Mutex<BTreeMap<(NodeId, Lane), Arc<Link>>>,
    hearings: Mutex<BTreeMap<NodeId, Liveness>>,
    /// The newest connection from each node.
    met: Mutex<BTreeMap<NodeId, quinn::Connection>>,
    denials: DenialLog,
    /// Who has closed a connection of this node because it was removed, and has not connected to it
    /// since.
    refusing: Mutex<BTreeSet<NodeId>>,
}

/// One connection to be, or that is.
#[derive(Default)]
struct Link {
    /// Held while connecting, so that many who wait share one attempt.
    connecting: tokio::sync::Mutex<()>,
    state: Mutex<LinkState>,
}

#[derive(Default)]
struct LinkState {
    connection: Option<quinn::Connection>,
    address: Option<SocketAddr>,
    failing_since: Option<Instant>,
    /// Attempts to connect that failed in a row.
    attempts: u32,
    rest_until: Option<Instant>,
}

impl Peers {
    /// The other nodes, as a node meets them: on each connection both ends say which run they are.
    pub(crate) fn greeting(
        endpoint: Endpoint,
        acceptor: Arc<Acceptor>,
        incarnations: Incarnations,
    ) -> Self {
        Self::with(endpoint, acceptor, Some(incarnations))
    }

    /// The other nodes, without a word at the beginning of a connection.
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
            hearings: Mutex::default(),
            met: Mutex::default(),
            denials: DenialLog::default(),
            refusing: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Learns where a node is. A connection to another address is given up.
    pub(crate) fn learn(&self, node: NodeId, address: SocketAddr) {
        let known = lock(&self.shared.addresses).insert(node, address);
        if known != Some(address) {
            self.redial(node);
        }
    }

    /// Where a node is, as far as is known.
    pub(crate) fn address(&self, node: NodeId) -> Option<SocketAddr> {
        lock(&self.shared.addresses).get(&node).copied()
    }

    /// Whether there is a connection to a node, as far as is known.
    pub(crate) fn is_connected(&self, node: NodeId) -> bool {
        [Lane::Urgent, Lane::Bulk].into_iter().any(|lane| self.link(node, lane).open().is_some())
    }

    /// Where it is told what other nodes sent that was refused.
    pub(crate) fn denials(&self) -> &DenialLog {
        &self.shared.denials
    }

    /// A secret of this node's own, the same for the life of its identity.
    pub(crate) fn secret(&self) -> Vec<u8> {
        let credentials = self.shared.endpoint.credentials();
        credentials.map(|credentials| credentials.secret().to_vec()).unwrap_or_default()
    }

    /// When a node was last heard to speak Raft: to be noted, and looked at.
    pub(crate) fn liveness(&self, node: NodeId) -> Liveness {
        let mut hearings = lock(&self.shared.hearings);
        if hearings.len() >= HEARINGS_MAX && !hearings.contains_key(&node) {
            // Of so many most are strangers, of whom nothing is kept.
            return Liveness::default();
        }
        hearings.entry(node).or_default().clone()
    }

    /// A node has connected to this one.
    pub(crate) fn met(&self, node: NodeId, connection: &quinn::Connection) {
        lock(&self.shared.met).insert(node, connection.clone());
        lock(&self.shared.refusing).remove(&node);
        // It is there: whatever of ours to it seemed dead should be tried again at once.
        self.redial(node);
    }

    /// Whether another node is connected to this one.
    pub(crate) fn is_met(&self) -> bool {
        lock(&self.shared.met).values().any(|open| open.close_reason().is_none())
    }

    /// Who says that this node was removed from the network.
    pub(crate) fn refusing(&self) -> BTreeSet<NodeId> {
        lock(&self.shared.refusing).clone()
    }

    /// Notes whether a node closes a connection because this node was removed.
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

    /// How long a packet to a node and its acknowledgement take, as measured by now on whatever
    /// connection there is.
    pub(crate) fn round_trip(&self, node: NodeId) -> Option<Duration> {
        let mut own = [Lane::Urgent, Lane::Bulk].into_iter();
        let own = own.find_map(|lane| self.link(node, lane).open());
        let theirs = || lock(&self.shared.met).get(&node).cloned();
        let open = own.or_else(theirs).filter(|open| open.close_reason().is_none());
        open.map(|open| open.rtt())
    }

    /// All nodes whose address is known.
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
            if (state.failing_since.is_some() || moved)
                && let Some(connection) = state.connection.take()
            {
                Close::Done.close(&connection, "connecting anew");
            }
            state.failing_since = None;
            state.attempts = 0;
            state.rest_until = None;
        }
    }

    /// A connection to a node.
    pub(crate) async fn connection(
        &self,
        node: NodeId,
        lane: Lane,
    ) -> Result<quinn::Connection, PeerError> {
        if let Some(why) = self.shared.incarnations.as_ref().and_then(Incarnations::held_by_server)
        {
            return Err(PeerError::Held(why));
        }
        if let Some(connection) = self.link(node, lane).open() {
            return Ok(connection);
        }
        let peers = self.clone();
        // In a task of its own: whoever asks may give up sooner than a handshake takes.
        let connecting = tokio::spawn(async move { peers.connect(node, lane).await });
        connecting.await.unwrap_or(Err(PeerError::Resting(node)))
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

    /// Nothing is said on a connection before both ends know which run speaks.
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
        incarnations.held().map_or(Ok(()), |why| Err(PeerError::Held(why)))
    }

    /// Somebody found that a node does not answer.
    pub(crate) fn failed(&self, node: NodeId, lane: Lane) {
        let link = self.link(node, lane);
        let mut state = lock(&link.state);
        let since = *state.failing_since.get_or_insert_with(Instant::now);
        let far = state.connection.as_ref().map_or(Duration::ZERO, |open| open.rtt() * 4);
        if since.elapsed() >= GIVE_UP_AFTER.max(far) {
            state.failing_since = None;
            if let Some(connection) = state.connection.take() {
                Close::Done.close(&connection, "no answer");
            }
        }
    }

    /// How far the log of this node is on disk.
    pub(crate) fn mark(&self) -> u64 {
        self.shared.incarnations.as_ref().map_or(0, |incarnations| incarnations.own().mark)
    }

    /// Whoever is at the other end of a connection has said how far its log is on disk.
    pub(crate) fn advance(&self, node: NodeId, connection: &quinn::Connection, mark: u64) {
        if let Some(incarnations) = &self.shared.incarnations {
            incarnations.advance(node, connection, mark);
        }
    }

    /// Somebody had an answer from a node.
    pub(crate) fn answered(&self, node: NodeId, lane: Lane) {
        lock(&self.link(node, lane).state).failing_since = None;
    }

    fn link(&self, node: NodeId, lane: Lane) -> Arc<Link> {
        Arc::clone(lock(&self.shared.links).entry((node, lane)).or_default())
    }
}

impl Link {
    fn open(&self) -> Option<quinn::Connection> {
        let state = lock(&self.state);
        state.connection.as_ref().filter(|open| open.close_reason().is_none()).cloned()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
