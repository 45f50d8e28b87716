//! The shell around the router: it owns the clock, the sockets and the tasks.
//!
//! Each event takes the lock, is passed to the router, and its effects are executed before the lock
//! is released. No task stands between a caller and the stream to its node. Nothing is awaited and
//! nothing large is copied under the lock.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use dkv_base::id::{KeyspaceId, NodeId, SessionId};
use dkv_base::platform;
use dkv_base::supervise::caught;
use dkv_base::sync::lock;
use dkv_wire::message::{Reply, ServerAnswer, ServerRequest};
use dkv_wire::quic::{Close, Endpoint};
use dkv_wire::region::Region;
use dkv_wire::user::User;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::credential_store::CredentialStore;
use crate::node_connection::{self, ConnectionId, NodeConnection, Observer};
use crate::registration_server::{LookupError, RegistrationServer};
use crate::router::{Effect, Outcome, RequestKind, Router};
use crate::watch_connections::WatchConnections;

/// Time between two ticks of the router while requests are under way.
const TICK: Duration = Duration::from_millis(5);
/// Time that the server has to answer a look-up of the router.
const SERVER_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) type Waiter = oneshot::Sender<Outcome>;

/// What all clones of a client, and all its tasks, share.
pub(crate) struct Driver {
    /// Handed to the tasks that the driver starts.
    weak_self: Weak<Self>,
    started: Instant,
    runtime: tokio::runtime::Handle,
    pub(crate) endpoint: Endpoint,
    pub(crate) server: RegistrationServer,
    pub(crate) store: CredentialStore,
    pub(crate) watches: WatchConnections,
    asking_server: AtomicBool,
    /// Wakes the task that ticks.
    busy: Notify,
    core: Mutex<Core>,
}

struct Core {
    router: Router<Waiter>,
    connections: BTreeMap<NodeId, NodeConnection>,
    closed: bool,
    ticking: bool,
}

impl Driver {
    pub(crate) fn new(
        endpoint: Endpoint,
        server: RegistrationServer,
        store: CredentialStore,
        region: Option<Region>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|weak_self| Self {
            weak_self: weak_self.clone(),
            started: Instant::now(),
            runtime: tokio::runtime::Handle::current(),
            endpoint,
            server,
            store,
            watches: WatchConnections::default(),
            asking_server: AtomicBool::new(false),
            busy: Notify::new(),
            core: Mutex::new(Core {
                router: Router::new(SessionId::random(), region.clone()),
                connections: BTreeMap::new(),
                closed: false,
                ticking: false,
            }),
        })
    }

    /// Passes an event to the router and executes its effects.
    pub(crate) fn with<T>(&self, event: impl FnOnce(&mut Router<Waiter>, Duration) -> T) -> T {
        let mut core = self.core();
        let result = event(&mut core.router, self.now());
        self.execute_effects(&mut core);
        result
    }

    /// Begins a request; `None` if the client is closed.
    pub(crate) fn submit(
        &self,
        keyspace: KeyspaceId,
        user: Option<User>,
        kind: RequestKind,
        timeout: Duration,
        waiter: Waiter,
    ) -> Option<u64> {
        let mut core = self.core();
        if core.closed {
            return None;
        }
        let id = core.router.submit_in(keyspace, user, self.now(), kind, timeout, Some(waiter));
        self.execute_effects(&mut core);
        Some(id)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.core().closed
    }

    /// Closes all connections and ends all requests.
    pub(crate) fn close(&self) {
        let mut core = self.core();
        core.router.close(self.now());
        self.execute_effects(&mut core);
        core.closed = true;
        core.connections.clear();
        self.endpoint.quinn().close(quinn::VarInt::from_u32(Close::Done as u32), b"closed");
        self.busy.notify_one();
    }

    fn execute_effects(&self, core: &mut Core) {
        while let Some(effect) = core.router.poll_effect() {
            if core.closed {
                continue;
            }
            match effect {
                Effect::Send(outgoing) => {
                    let connection = core.connections.get(&outgoing.node);
                    // If the connection is gone, the router is about to be told.
                    if let Some(connection) =
                        connection.filter(|it| it.generation == outgoing.generation)
                    {
                        connection.send(outgoing);
                    }
                }
                Effect::Finish { waiter, outcome } => {
                    // The caller may have dropped its future.
                    let _ = waiter.send(outcome);
                }
                Effect::Connect { node, generation, address } => {
                    self.connect(ConnectionId { node, generation }, address);
                }
                Effect::Disconnect { node } => {
                    if let Some(connection) = core.connections.remove(&node) {
                        connection.close("not a node of the network any more");
                    }
                }
                Effect::SetDelays { links, vary } => self.endpoint.set_link_delays(links, vary),
                Effect::AskServer => self.ask_server(),
                Effect::SaveNodes(nodes) => self.save_nodes(nodes),
                Effect::LearnServers(servers) => self.learn_servers(servers),
            }
        }
        if !core.ticking && !core.router.is_idle() {
            core.ticking = true;
            self.busy.notify_one();
        }
    }

    /// Starts the task of a connection.
    fn connect(&self, id: ConnectionId, address: SocketAddr) {
        let Some(driver) = self.weak_self.upgrade() else { return };
        self.runtime.spawn(async move {
            let connection = node_connection::run(&*driver, &driver.endpoint, id, address);
            if let Err(panicked) = caught(connection).await {
                // Without this the router would wait for news of the connection for ever.
                let why = format!("the connection's task {panicked}");
                tracing::error!(%address, "{why}; this is a bug in dkv");
                driver.connection_lost(id, &why, false);
            }
        });
    }

    /// Stores the addresses of the nodes, in the background.
    fn save_nodes(&self, nodes: Vec<(NodeId, SocketAddr)>) {
        if let (Some(driver), Some(credentials)) =
            (self.weak_self.upgrade(), self.endpoint.credentials())
        {
            let identity = credentials.identity;
            platform::spawn_blocking(move || {
                driver.store.save_nodes(identity.network, identity.role, &nodes);
            });
        }
    }

    /// Uses other registration servers too, and stores their addresses in the background.
    fn learn_servers(&self, servers: Vec<SocketAddr>) {
        self.server.learn(&servers);
        if let (Some(driver), Some(credentials)) =
            (self.weak_self.upgrade(), self.endpoint.credentials())
        {
            let identity = credentials.identity;
            platform::spawn_blocking(move || {
                driver.store.save_servers(identity.network, identity.role, &servers);
            });
        }
    }

    /// Asks the server for its view in the background, unless that is under way.
    fn ask_server(&self) {
        let Some(driver) = self.weak_self.upgrade() else { return };
        if self.asking_server.swap(true, Ordering::Relaxed) {
            return;
        }
        self.runtime.spawn(async move {
            let _ = caught(driver.lookup(SERVER_TIMEOUT)).await;
            driver.asking_server.store(false, Ordering::Relaxed);
        });
    }

    /// Asks the server for its view and passes the answer to the router.
    pub(crate) async fn lookup(&self, timeout: Duration) -> Result<(), LookupError> {
        let answer = self.server.ask(&self.endpoint, &ServerRequest::Lookup, timeout).await;
        let result = match answer {
            Ok(ServerAnswer::View(Some(view))) => {
                self.with(|router, now| router.handle_view(now, *view));
                return Ok(());
            }
            Ok(ServerAnswer::View(None)) => Err(LookupError::NotBootstrapped),
            Ok(_) => Err(LookupError::AnotherQuestion),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = &result {
            self.with(|router, _| router.handle_no_view(error.to_string()));
        }
        result
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        lock(&self.core)
    }
}

impl Observer for Driver {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn connect_failed(&self, id: ConnectionId, why: &str) {
        self.with(|router, now| router.connect_failed(now, id.node, id.generation, why));
    }

    fn connected(&self, id: ConnectionId, connection: NodeConnection) -> bool {
        let mut core = self.core();
        if core.closed {
            return false;
        }
        let round_trip = connection.round_trip();
        // The connection goes in before the router hears of it: what the router sends at once must
        // find it.
        let replaced = core.connections.insert(id.node, connection);
        let wanted = core.router.connected(self.now(), id.node, id.generation, round_trip);
        if wanted {
            if let Some(old) = replaced {
                old.close("replaced by a new connection");
            }
        } else if let Some(old) = replaced {
            core.connections.insert(id.node, old);
        } else {
            core.connections.remove(&id.node);
        }
        self.execute_effects(&mut core);
        wanted
    }

    fn handle_replies(&self, id: ConnectionId, replies: &mut Vec<Reply>) {
        self.with(|router, now| {
            for reply in replies.drain(..) {
                router.handle_reply(now, id.node, id.generation, reply);
            }
        });
    }

    fn connection_lost(&self, id: ConnectionId, why: &str, denied: bool) {
        let ConnectionId { node, generation } = id;
        let mut core = self.core();
        if core.connections.get(&node).is_some_and(|it| it.generation == generation) {
            core.connections.remove(&node);
        }
        core.router.connection_lost(self.now(), node, generation, why, denied);
        self.execute_effects(&mut core);
    }
}

/// Ticks the router for as long as requests are under way and the client exists.
pub(crate) async fn run_ticks(driver: Weak<Driver>) {
    loop {
        let Some(strong) = driver.upgrade() else { return };
        let (idle, closed) = {
            let mut core = strong.core();
            let now = strong.now();
            core.router.tick(now);
            strong.execute_effects(&mut core);
            let idle = core.router.is_idle();
            // Set under the lock, so that the next request sees it and wakes this task.
            core.ticking = !idle;
            (idle, core.closed)
        };
        if closed {
            return;
        }
        if idle {
            strong.busy.notified().await;
        } else {
            drop(strong);
            tokio::time::sleep(TICK).await;
        }
    }
}
