//! The handle that callers hold.

mod network;
mod renew;

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::{NodeId, Stamp};
use dkv_base::supervise::again;
use dkv_wire::identity::{Identity, Role};
use dkv_wire::limits;
use dkv_wire::message::{Answer, Condition, Level, Reach, ReadBounds};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use crate::address::HostPort;
use crate::builder::ClientBuilder;
use crate::connect::{self, Contact};
use crate::error::{ConnectError, Error};
use crate::keep::Keep;
use crate::options::{ReadOptions, Value, WriteOptions, Written};
use crate::router::{Outcome, Work};
use crate::scan::{Scan, ScanOptions};
use crate::server::Server;
use crate::shared::{self, Shared};

/// Bytes of keys and values that one permit stands for.
const PERMIT_BYTES: usize = 4096;
/// Permits: that many small requests, or so many bytes (128 MiB), may be under way at once.
const PERMITS: usize = 32 * 1024;
/// Longest time that a request may wait. What is longer is taken to be this.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// A connection to a network. Cloning is cheap; clones share everything: connections, sessions,
/// and the bound on what is under way (32,768 requests or 128 MiB), beyond which calls wait.
///
/// Every future of a request may be dropped. What a dropped write was to do may be done or not.
/// The client never sends it again, and tells the shard so with the next write: if it had not been
/// executed by then, it never will be.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

/// The tasks share [`Shared`]; only handles share this, so that the last handle ends the tasks.
struct Inner {
    shared: Arc<Shared>,
    permits: Semaphore,
    timeout: Duration,
    identity: Identity,
    has_server: bool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// Gives a request up when its future is dropped.
struct Under<'a> {
    shared: &'a Shared,
    id: Option<u64>,
}

impl Drop for Under<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.shared.with(|router, now| router.cancel(now, id));
        }
    }
}

impl Client {
    /// Connects by the address of the registration server, as [`Role::Client`]: `host`,
    /// `host:port` or `[ipv6]:port`.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(server: impl Into<String>) -> Result<Self, ConnectError> {
        Self::builder().server(server).connect().await
    }

    /// Settings to connect with.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    pub(crate) async fn build(builder: ClientBuilder) -> Result<Self, ConnectError> {
        if !matches!(builder.role, Role::Client | Role::Admin | Role::Reader) {
            return Err(ConnectError::Role(builder.role));
        }
        let read = |texts: &[String]| -> Result<Vec<HostPort>, ConnectError> {
            texts.iter().map(|text| HostPort::parse(text)).collect()
        };
        let (servers, nodes) = (read(&builder.servers)?, read(&builder.nodes)?);
        let keep = Keep::new(builder.home.clone());
        let contact = connect::contact(&builder, &servers, &nodes, &keep);
        let Contact { endpoint, credentials, connection, view } =
            tokio::time::timeout(builder.timeout, contact).await.unwrap_or_else(|_| {
                let why = format!("no answer within {} ms", builder.timeout.as_millis());
                Err(ConnectError::Unreachable(why))
            })?;
        if let Some(view) = &view {
            view.settings.delays.check_place(None, builder.region.as_ref())?;
        }
        let has_server = !servers.is_empty();
        let known = connect::known_nodes(&keep, &credentials);
        let server = Server::new(servers, connection);
        let shared = Shared::new(endpoint, server, keep, builder.region.clone());
        shared.with(|router, now| match view {
            Some(view) => router.handle_view(now, view),
            None => {
                router.learn_nodes(known);
                router.no_view(shared::NOT_BOOTSTRAPPED.to_owned());
            }
        });
        // Without them, requests would wait for ever, and the certificate end.
        let weak = Arc::downgrade(&shared);
        tokio::spawn(async move {
            again("a client's clock", || shared::tell_time(Weak::clone(&weak))).await;
        });
        if has_server {
            let weak = Arc::downgrade(&shared);
            tokio::spawn(async move {
                again("a client's renewal", || renew::renew(Weak::clone(&weak))).await;
            });
        }
        let inner = Inner {
            shared,
            permits: Semaphore::new(PERMITS),
            timeout: builder.timeout,
            identity: credentials.identity,
            has_server,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Who this client is in the network.
    pub fn identity(&self) -> Identity {
        self.inner.identity
    }

    /// Reads a key, linearizably: not older than any write or strong read that was finished before
    /// this one began.
    ///
    /// # Errors
    /// As [`read_with`](Self::read_with).
    pub async fn read(&self, key: impl AsRef<[u8]>) -> Result<Value, Error> {
        self.read_with(key, ReadOptions::default()).await
    }

    /// Reads a key.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it does not exist, [`Error::Unavailable`] if nobody could tell in
    /// time, or if no replica came within the bounds; never [`Error::Conflict`] or
    /// [`Error::Unknown`].
    pub async fn read_with(
        &self,
        key: impl AsRef<[u8]>,
        options: ReadOptions,
    ) -> Result<Value, Error> {
        let key = checked_key(key.as_ref())?;
        let ReadOptions { level, max_staleness, at_least, nearest, timeout } = options;
        let max_staleness_ms =
            max_staleness.map(|most| u64::try_from(most.as_millis()).unwrap_or(u64::MAX));
        let (at_least, deposits) = (at_least.unwrap_or_default(), Vec::new());
        let bounds = ReadBounds { max_staleness_ms, at_least, deposits };
        let bounded = !bounds.is_empty();
        if bounded && !matches!(level, Level::Eventual | Level::Session) {
            let why = "max_staleness and at_least are bounds of an eventual read";
            return Err(Error::Invalid(why.into()));
        }
        let work = Work::Read { key, level, bounds, nearest };
        let (receipt, stored, reach) = match self.request(work, timeout).await? {
            Answer::Value(receipt, stored) => (receipt, stored, Reach::default()),
            Answer::ValueEverywhere(receipt, stored, reach) => (receipt, stored, reach),
            _ => return Err(other_kind()),
        };
        match stored {
            Some(stored) => Ok(Value { value: stored.value, receipt, reach }),
            None => Err(Error::NotFound { receipt }),
        }
    }

    /// Writes a key.
    ///
    /// # Errors
    /// As [`write_with`](Self::write_with), except [`Error::Conflict`].
    pub async fn write(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
    ) -> Result<Written, Error> {
        self.write_with(key, value, WriteOptions::default()).await
    }

    /// Writes a key under a condition. However often it has to be sent, it is executed at most
    /// once, and what it came to the first time is what is returned.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the condition does not hold; [`Error::Incomplete`] if it was done at
    /// [`Level::All`] and a replica is missing; [`Error::Unknown`] if it was sent and
    /// the outcome could not be learnt in time; every other error means that it had no effect.
    pub async fn write_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        options: WriteOptions,
    ) -> Result<Written, Error> {
        self.propose(key.as_ref(), Some(value.into()), options).await
    }

    /// Deletes a key.
    ///
    /// # Errors
    /// As [`delete_with`](Self::delete_with), except [`Error::Conflict`].
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<Written, Error> {
        self.delete_with(key, WriteOptions::default()).await
    }

    /// Deletes a key under a condition.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the key does not exist and the condition allows that, but never of an
    /// eventual delete, of which nobody knows that yet; for the others
    /// see [`write_with`](Self::write_with).
    pub async fn delete_with(
        &self,
        key: impl AsRef<[u8]>,
        options: WriteOptions,
    ) -> Result<Written, Error> {
        let written = self.propose(key.as_ref(), None, options).await?;
        if written.existed || written.receipt.pending.is_some() {
            Ok(written)
        } else {
            Err(Error::NotFound { receipt: written.receipt })
        }
    }

    /// Lists keys with their values, in the order of their bytes. Nothing is asked before
    /// [`Scan::next`] is called.
    ///
    /// A key that is there all the time comes once, with a value that it had meanwhile; one that is
    /// written for the first time or deleted meanwhile comes or does not. What is listed together
    /// need never have been there together.
    pub fn scan(&self, options: ScanOptions) -> Scan {
        Scan::new(self.clone(), options)
    }

    async fn propose(
        &self,
        key: &[u8],
        value: Option<Bytes>,
        options: WriteOptions,
    ) -> Result<Written, Error> {
        let key = checked_key(key)?;
        let bytes = value.as_ref().map_or(0, Bytes::len);
        // The network's own limit is lower as a rule, and the router's to check: it has the view.
        if bytes > limits::VALUE_BYTES_MAX {
            let (bytes, limit) = (bytes as u64, limits::VALUE_BYTES_MAX as u64);
            return Err(Error::TooLarge { what: "value".into(), bytes, limit });
        }
        let WriteOptions { level, condition, timeout } = options;
        let everywhere = level == Level::All;
        let work = match level {
            Level::Eventual if condition != Condition::Always => {
                let why = "an eventual write cannot have a condition";
                return Err(Error::Invalid(why.into()));
            }
            Level::Eventual => Work::Deposit { key, value, moment: Stamp(0) },
            Level::Strong | Level::Session | Level::All => {
                Work::Write { condition, everywhere, key, value, stamp: None, after: Stamp(0) }
            }
        };
        match self.request(work, timeout).await? {
            Answer::Written { receipt, existed } => Ok(Written { receipt, existed }),
            Answer::WrittenEverywhere { receipt, existed, reach } => {
                let written = Written { receipt, existed };
                if reach.missing.is_empty() {
                    return Ok(written);
                }
                Err(Error::Incomplete { written, missing: self.names(&reach.missing) })
            }
            _ => Err(other_kind()),
        }
    }

    /// Closes all connections, also of clones, and waits at most half a second until the peers have
    /// been told. Requests that are under way end with [`Error::Unavailable`], or with
    /// [`Error::Unknown`] if they may have had an effect.
    ///
    /// Dropping the last clone closes them too, without waiting.
    pub async fn close(self) {
        self.inner.shared.close();
        self.inner.shared.endpoint.close().await;
    }

    /// What people call these nodes, as far as this client knows.
    pub fn names(&self, nodes: &[NodeId]) -> Vec<String> {
        self.inner.shared.with(|router, _| {
            let name = |node: &NodeId| {
                let known = router.view().and_then(|view| view.node(*node));
                known.map_or_else(|| node.short().to_string(), |info| info.name.clone())
            };
            nodes.iter().map(name).collect()
        })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    pub(crate) fn has_server(&self) -> bool {
        self.inner.has_server
    }

    /// Hands a request to the router and waits for what comes of it.
    pub(crate) async fn request(&self, work: Work, timeout: Option<Duration>) -> Outcome {
        let inner = &*self.inner;
        let timeout = timeout.unwrap_or(inner.timeout).min(TIMEOUT_MAX);
        let begun = Instant::now();
        let permits = (1 + work.bytes() / PERMIT_BYTES).min(PERMITS) as u32;
        let permit = match inner.permits.try_acquire_many(permits) {
            Ok(permit) => permit,
            Err(_) => {
                match tokio::time::timeout(timeout, inner.permits.acquire_many(permits)).await {
                    Ok(Ok(permit)) => permit,
                    Ok(Err(_)) => return Err(closed()),
                    Err(_) => {
                        let why = "too many requests of this client are under way";
                        return Err(Error::Unavailable(why.into()));
                    }
                }
            }
        };
        let left = timeout.saturating_sub(begun.elapsed());
        let (waiter, answer) = oneshot::channel();
        let Some(id) = inner.shared.submit(work, left, waiter) else { return Err(closed()) };
        let mut under = Under { shared: &inner.shared, id: Some(id) };
        let outcome = answer.await;
        under.id = None;
        drop(permit);
        // The router answers everything, even when it is closed.
        outcome.unwrap_or_else(|_| Err(closed()))
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("identity", &self.inner.identity).finish_non_exhaustive()
    }
}

pub(crate) fn checked_key(key: &[u8]) -> Result<Bytes, Error> {
    if key.is_empty() {
        return Err(Error::Invalid("a key has at least one byte".into()));
    }
    if key.len() > limits::KEY_BYTES_MAX {
        let (bytes, limit) = (key.len() as u64, limits::KEY_BYTES_MAX as u64);
        return Err(Error::TooLarge { what: "key".into(), bytes, limit });
    }
    Ok(Bytes::copy_from_slice(key))
}

fn closed() -> Error {
    Error::Unavailable("the client is closed".into())
}

/// The router lets no answer through that is not one to the request.
pub(crate) fn other_kind() -> Error {
    Error::Unknown("the answer is to another kind of request".into())
}
