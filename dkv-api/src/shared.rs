//! The shell around the router: it has the clock, the sockets and the tasks.
//!
//! Whoever has news takes the lock, tells the router, and carries out what the router wants, all in
//! one go: there is no task between a caller and the stream to its node. Nothing is awaited under
//! the lock, and nothing large is copied.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dkv_base::id::{NodeId, SessionId};
use dkv_base::platform;
use dkv_base::supervise::caught;
use dkv_wire::message::{ServerAnswer, ServerRequest};
use dkv_wire::quic::{Close, Endpoint};
use dkv_wire::region::Region;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::keep::Keep;
use crate::link::{self, Link};
use crate::router::{Effect, Outcome, Router, Work};
use crate::server::Server;

/// How often the router is told that time passes while something is under way.
const TICK: Duration = Duration::from_millis(5);
/// Time that the server has to answer when the router wants to hear it.
const SERVER_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) type Waiter = oneshot::Sender<Outcome>;

/// What all clones of a client, and all its tasks, share.
pub(crate) struct Shared {
    /// Itself, for the tasks that it starts.
    itself: std::sync::Weak<Self>,
    started: Instant,
    runtime: tokio::runtime::Handle,
    pub(crate) endpoint: Endpoint,
    pub(crate) server: Server,
    pub(crate) keep: Keep,
    asking_server: AtomicBool,
    /// Wakes the task that tells the time.
    pub(crate) busy: Notify,
    core: Mutex<Core>,
}

struct Core {
    router: Router<Waiter>,
    links: BTreeMap<NodeId, Link>,
    closed: bool,
    ticking: bool,
}

impl Shared {
    pub(crate) fn new(
        endpoint: Endpoint,
        server: Server,
        keep: Keep,
        region: Option<Region>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|itself| Self {
            itself: itself.clone(),
            started: Instant::now(),
            runtime: tokio::runtime::Handle::current(),
            endpoint,
            server,
            keep,
            asking_server: AtomicBool::new(false),
            busy: Notify::new(),
            core: Mutex::new(Core {
                router: Router::new(SessionId::random(), region.clone()),
                links: BTreeMap::new(),
                closed: false,
                ticking: false,
            }),
        })
    }

    /// Time since the client was made: the router's clock.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Tells the router something, and does what it wants.
    pub(crate) fn with<T>(&self, tell: impl FnOnce(&mut Router<Waiter>, Duration) -> T) -> T {
        let mut core = self.core();
        let told = tell(&mut core.router, self.now());
        self.carry_out(&mut core);
        told
    }

    /// A connection is up; whether it is wanted.
    pub(crate) fn link_up(&self, node: NodeId, link: Link) -> bool {
        let mut core = self.core();
        if core.closed {
            return false;
        }
        let (generation, round_trip) = (link.generation, link.round_trip());
        // First the link, then the news: what the router wants sent goes through it.
        let replaced = core.links.insert(node, link);
        let wanted = core.router.link_up(self.now(), node, generation, round_trip);
        if wanted {
            if let Some(old) = replaced {
                old.close("replaced by a new connection");
            }
        } else if let Some(old) = replaced {
            core.links.insert(node, old);
        } else {
            core.links.remove(&node);
        }
        self.carry_out(&mut core);
        wanted
    }

    pub(crate) fn link_lost(&self, node: NodeId, generation: u64, why: &str, denied: bool) {
        let mut core = self.core();
        if core.links.get(&node).is_some_and(|link| link.generation == generation) {
            core.links.remove(&node);
        }
        core.router.link_lost(self.now(), node, generation, why, denied);
        self.carry_out(&mut core);
    }

    /// Begins a request; `None` if the client is closed.
    pub(crate) fn submit(&self, work: Work, timeout: Duration, waiter: Waiter) -> Option<u64> {
        let mut core = self.core();
        if core.closed {
            return None;
        }
        let id = core.router.submit(self.now(), work, timeout, Some(waiter));
        self.carry_out(&mut core);
        Some(id)
    }

    /// Closes everything, and tells those who wait.
    pub(crate) fn close(&self) {
        let mut core = self.core();
        core.router.close(self.now());
        self.carry_out(&mut core);
        core.closed = true;
        core.links.clear();
        self.endpoint.quinn().close(quinn::VarInt::from_u32(Close::Done as u32), b"closed");
        self.busy.notify_one();
    }

    fn carry_out(&self, core: &mut Core) {
        while let Some(effect) = core.router.poll_effect() {
            if core.closed {
                continue;
            }
            match effect {
                Effect::Send(sending) => {
                    let link = core.links.get(&sending.node);
                    // A link that is gone is news that is on its way to the router.
                    if let Some(link) = link.filter(|link| link.generation == sending.generation) {
                        link.send(sending);
                    }
                }
                Effect::Finish { waiter, outcome } => {
                    // A caller that has gone away needs no answer.
                    let _ = waiter.send(outcome);
                }
                Effect::Connect { node, generation, address } => {
                    if let Some(shared) = self.itself.upgrade() {
                        self.runtime.spawn(async move {
                            let link = link::run(Arc::clone(&shared), node, generation, address);
                            if let Err(panicked) = caught(link).await {
                                // The router would wait for news of it for ever.
                                let why = format!("the connection's task {panicked}");
                                tracing::error!(%address, "{why}; this is a fault in dkv");
                                shared.link_lost(node, generation, &why, false);
                            }
                        });
                    }
                }
                Effect::Disconnect { node } => {
                    if let Some(link) = core.links.remove(&node) {
                        link.close("not a node of the network any more");
                    }
                }
                Effect::KeepApart { links, vary } => self.endpoint.set_link_delays(links, vary),
                Effect::AskServer => self.ask_server(),
                Effect::Remember(nodes) => {
                    if let (Some(shared), Some(credentials)) =
                        (self.itself.upgrade(), self.endpoint.credentials())
                    {
                        let identity = credentials.identity;
                        platform::spawn_blocking(move || {
                            shared.keep.save_nodes(identity.network, identity.role, &nodes);
                        });
                    }
                }
            }
        }
        if !core.ticking && !core.router.is_idle() {
            core.ticking = true;
            self.busy.notify_one();
        }
    }

    /// Asks the server for its view, if that is not under way.
    fn ask_server(&self) {
        let Some(shared) = self.itself.upgrade() else { return };
        if self.asking_server.swap(true, Ordering::Relaxed) {
            return;
        }
        self.runtime.spawn(async move {
            let _ = caught(shared.lookup(SERVER_TIMEOUT)).await;
            shared.asking_server.store(false, Ordering::Relaxed);
        });
    }

    /// Asks the server for its view and tells the router.
    pub(crate) async fn lookup(&self, timeout: Duration) -> Result<(), String> {
        let answer = self.server.ask(&self.endpoint, &ServerRequest::Lookup, timeout).await;
        let result = match answer {
            Ok(ServerAnswer::View(Some(view))) => {
                self.with(|router, now| router.handle_view(now, *view));
                return Ok(());
            }
            Ok(ServerAnswer::View(None)) => Err(NOT_BOOTSTRAPPED.to_owned()),
            Ok(_) => Err("registration server: the answer is to another question".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(why) = &result {
            self.with(|router, _| router.no_view(why.clone()));
        }
        result
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a caller is told as long as there is nothing to serve it.
pub(crate) const NOT_BOOTSTRAPPED: &str = "the network has no coordinator yet: the registration \
     server runs, and no node has started (or none could form the network); start a node with \
     dkv-node";

/// Tells the router that time passes, as long as something is under way and the client lives.
pub(crate) async fn tell_time(shared: std::sync::Weak<Shared>) {
    loop {
        let Some(strong) = shared.upgrade() else { return };
        let (idle, closed) = {
            let mut core = strong.core();
            let now = strong.now();
            core.router.tick(now);
            strong.carry_out(&mut core);
            let idle = core.router.is_idle();
            // Set under the lock: whoever submits next sees it and wakes us.
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
