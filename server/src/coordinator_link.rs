//! The server's way to the control group, which keeps the books: it finds the coordinator among the
//! voters, and asks it.
//!
//! It believes the answers, so it asks only nodes whose reports it accepts. A stranger that has
//! registered with a stolen token is not asked, not even if another node names it.
//!
//! The coordinator alone answers; another node says who that is. While nobody answers, the server
//! tries again until its patience ends: a new coordinator is usually found within a second.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dkv_base::id::NodeId;
use dkv_base::supervise::caught;
use dkv_base::sync::lock;
use dkv_wire::limits::SERVER_FRAME_BYTES_MAX;
use dkv_wire::message::{
    Answer, BookKey, BooksChange, BooksPage, BooksVersion, Opening, Refusal, Reply, Request,
    RequestBody,
};
use dkv_wire::quic::{Close, ConnectError, Endpoint};
use dkv_wire::rpc::call;
use dkv_wire::tls::Expect;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, error};

use crate::limits::{BOOKS_ATTEMPT, BOOKS_CONFLICTS_MAX, BOOKS_DIAL, BOOKS_PATIENCE, BOOKS_RETRY};
use crate::registry::{BooksCopy, Registry};

/// Why the control group did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlGroupError {
    /// It refused a change, for this reason: nothing has changed.
    #[error("{0}")]
    Rejected(String),
    /// No coordinator answered in time. A change may have been made.
    #[error(
        "the control group does not answer ({0}), and without it the server makes no change that \
         another server must know of; start most of its nodes, then try again"
    )]
    Silent(String),
}

/// The books as the coordinator has them.
pub(crate) struct Fetched {
    /// All of them; `None` if the asker knows this version.
    pub(crate) copy: Option<BooksCopy>,
    pub(crate) version: BooksVersion,
    pub(crate) is_complete: bool,
    /// The ids of the latest changes.
    pub(crate) recent: Vec<uuid::Uuid>,
}

/// Connections to the nodes of the control group.
pub(crate) struct CoordinatorLink {
    endpoint: Endpoint,
    open: Mutex<BTreeMap<NodeId, quinn::Connection>>,
    /// The nodes to which a connection is being made.
    dialled: Mutex<BTreeSet<(NodeId, SocketAddr)>>,
    /// The node that answered last.
    coordinator: Mutex<Option<NodeId>>,
    /// The nodes that did not answer when they were last asked, and when that was. They are asked
    /// after the others, the latest one last, for it may take all the time that there is; unless
    /// another node names it as the coordinator.
    silent: Mutex<BTreeMap<NodeId, Instant>>,
    /// Whether a voter has refused this server for good.
    is_removed: AtomicBool,
}

/// What one node answered.
enum Attempt {
    Answered(Answer),
    /// Another node is the coordinator, or might be.
    Elsewhere(Option<NodeId>),
    Rejected(String),
    /// It does not answer, or is of no use at the moment.
    Silent(String),
}

impl CoordinatorLink {
    pub(crate) fn new(endpoint: Endpoint) -> Arc<Self> {
        let (open, dialled, coordinator, silent, is_removed) = Default::default();
        Arc::new(Self { endpoint, open, dialled, coordinator, silent, is_removed })
    }

    /// Whether a voter of the control group has said that this server was removed.
    pub(crate) fn is_removed(&self) -> bool {
        self.is_removed.load(Ordering::Relaxed)
    }

    /// Reads the books. `known` is the version that the server has, `patience` the time for each
    /// page.
    pub(crate) async fn fetch(
        self: &Arc<Self>,
        registry: &Registry,
        known: Option<BooksVersion>,
        patience: Duration,
    ) -> Result<Fetched, ControlGroupError> {
        'anew: for _ in 0..BOOKS_CONFLICTS_MAX {
            let first = self.page(registry, None, known, patience).await?;
            let BooksPage { version, complete, ref recent, .. } = first;
            let recent = recent.clone();
            if known == Some(version) {
                return Ok(Fetched { copy: None, version, is_complete: complete, recent });
            }
            let servers = first.servers.clone();
            let (mut records, mut more) = (first.records, first.more);
            while more {
                let after = records.last().map(|(key, _)| *key);
                let page = self.page(registry, after, known, patience).await?;
                if page.version != version || page.records.is_empty() {
                    // They have changed meanwhile.
                    continue 'anew;
                }
                more = page.more;
                records.extend(page.records);
            }
            let copy = Some(BooksCopy { version, servers, records });
            return Ok(Fetched { copy, version, is_complete: complete, recent });
        }
        Err(ControlGroupError::Silent("the books change all the time".into()))
    }

    async fn page(
        self: &Arc<Self>,
        registry: &Registry,
        after: Option<BookKey>,
        known: Option<BooksVersion>,
        patience: Duration,
    ) -> Result<BooksPage, ControlGroupError> {
        let until = Instant::now() + patience;
        match self.ask(registry, &RequestBody::Books { after, known }, until).await? {
            Answer::Books(page) => Ok(*page),
            _ => Err(ControlGroupError::Silent("it answered another question".into())),
        }
    }

    /// Changes the books.
    pub(crate) async fn change(
        self: &Arc<Self>,
        registry: &Registry,
        change: BooksChange,
    ) -> Result<(), ControlGroupError> {
        let body = RequestBody::ChangeBooks(Box::new(change));
        self.ask(registry, &body, Instant::now() + BOOKS_PATIENCE).await.map(drop)
    }

    /// Asks the coordinator, and looks for it as long as it takes, but not longer than `until`.
    async fn ask(
        self: &Arc<Self>,
        registry: &Registry,
        body: &RequestBody,
        until: Instant,
    ) -> Result<Answer, ControlGroupError> {
        let nodes = registry.book_keepers();
        let mut last = "no voter of it is known; name one with --trust-voter".to_owned();
        loop {
            let mut asked = Vec::new();
            let mut next: VecDeque<NodeId> = VecDeque::new();
            next.extend(*lock(&self.coordinator));
            next.extend(registry.coordinator_id());
            next.extend(nodes.keys().copied());
            {
                let silent = lock(&self.silent);
                next.make_contiguous().sort_by_key(|node| silent.get(node).copied());
            }
            while let Some(node) = next.pop_front() {
                let Some(address) = nodes.get(&node) else { continue };
                if asked.contains(&node) {
                    continue;
                }
                asked.push(node);
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(ControlGroupError::Silent(last));
                }
                let attempt = self.attempt(node, *address, body, left.min(BOOKS_ATTEMPT)).await;
                if matches!(attempt, Attempt::Silent(_)) {
                    lock(&self.silent).insert(node, Instant::now());
                } else {
                    lock(&self.silent).remove(&node);
                }
                match attempt {
                    Attempt::Answered(answer) => {
                        *lock(&self.coordinator) = Some(node);
                        return Ok(answer);
                    }
                    Attempt::Rejected(why) => {
                        // Only the one that decides rejects: what it has is to be fetched next, not
                        // what one has that was deposed and does not know it yet.
                        *lock(&self.coordinator) = Some(node);
                        return Err(ControlGroupError::Rejected(why));
                    }
                    Attempt::Elsewhere(coordinator) => {
                        last = "no node says that it is the coordinator".to_owned();
                        if let Some(coordinator) = coordinator {
                            next.push_front(coordinator);
                        }
                    }
                    Attempt::Silent(why) => {
                        debug!(%node, why, "the node does not answer about the books");
                        last = why;
                    }
                }
            }
            if Instant::now() + BOOKS_RETRY >= until {
                return Err(ControlGroupError::Silent(last));
            }
            sleep(BOOKS_RETRY).await;
        }
    }

    async fn attempt(
        self: &Arc<Self>,
        node: NodeId,
        address: SocketAddr,
        body: &RequestBody,
        patience: Duration,
    ) -> Attempt {
        let asked = async {
            let connection = self.connect(node, address).await?;
            let deadline_ms = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
            let request =
                Request { id: 1, deadline_ms, forward: false, user: None, body: body.clone() };
            let opening = Some(&Opening::Requests);
            call(&connection, opening, &request, SERVER_FRAME_BYTES_MAX, patience).await.map_err(
                |error| {
                    lock(&self.open).remove(&node);
                    self.note_removal(&connection, address);
                    Close::Done.close(&connection, "no answer");
                    error.to_string()
                },
            )
        };
        let reply: Result<Reply, String> = match timeout(patience, asked).await {
            Ok(reply) => reply,
            Err(_) => {
                lock(&self.open).remove(&node);
                Err(format!("{address} did not answer in time"))
            }
        };
        match reply.map(|reply| reply.result) {
            Ok(Ok(answer)) => Attempt::Answered(answer),
            Ok(Err(Refusal::NotPrimary { primary })) => Attempt::Elsewhere(primary),
            Ok(Err(Refusal::Invalid(why))) => Attempt::Rejected(why),
            Ok(Err(refusal)) => Attempt::Silent(refusal.to_string()),
            Err(why) => Attempt::Silent(why),
        }
    }

    /// Notes whether a node has ended a connection because this server was removed.
    fn note_removal(&self, connection: &quinn::Connection, address: SocketAddr) {
        let lost = connection.close_reason();
        let lost = lost.map(|lost| ConnectError::from_lost(address, &lost));
        if matches!(lost, Some(ConnectError::Removed { .. })) {
            self.is_removed.store(true, Ordering::Relaxed);
        }
    }

    /// Returns the connection to a node. Dialling goes on when the caller does not wait any more,
    /// so that a node is reached whose handshake takes longer than the time for an answer.
    async fn connect(
        self: &Arc<Self>,
        node: NodeId,
        address: SocketAddr,
    ) -> Result<quinn::Connection, String> {
        let open = lock(&self.open).get(&node).cloned();
        let is_good = |open: &quinn::Connection| {
            open.close_reason().is_none() && open.remote_address() == address
        };
        if let Some(open) = open {
            if is_good(&open) {
                return Ok(open);
            }
            self.note_removal(&open, address);
        }
        let connecting = || format!("the connection to {address} is not made yet");
        if !lock(&self.dialled).insert((node, address)) {
            return Err(connecting());
        }
        let (done, dialled) = oneshot::channel();
        let link = Arc::clone(self);
        tokio::spawn(async move {
            let connection = caught(link.endpoint.connect(address, Expect::Node(node))).await;
            let connection = match connection {
                Ok(connection) => connection.map_err(|error| error.to_string()),
                Err(panicked) => {
                    error!("connecting to {address} {panicked}; this is a bug in dkv");
                    Err(panicked.to_string())
                }
            };
            if let Ok(connection) = &connection {
                lock(&link.open).insert(node, connection.clone());
            }
            lock(&link.dialled).remove(&(node, address));
            // The one that asked may not wait any more.
            let _ = done.send(connection);
        });
        // The next node may answer sooner.
        match timeout(BOOKS_DIAL, dialled).await {
            Ok(Ok(connection)) => connection,
            _ => Err(connecting()),
        }
    }
}
