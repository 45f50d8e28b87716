//! The handle that applications hold: reads, writes and deletes.

mod admin;
mod diagnosis;
mod keyspaces;
mod network;
mod policies;
mod renewal;

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::{NodeId, Stamp};
use dkv_base::supervise::again;
use dkv_wire::identity::Identity;
use dkv_wire::limits;
use dkv_wire::message::{Answer, Condition, Level, Reach, ReadBounds};
use dkv_wire::region::Region;
use dkv_wire::user::User;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

use self::keyspaces::OwnKeyspace;
use crate::address::HostPort;
use crate::connect::{self, Contact};
use crate::credential_store::CredentialStore;
use crate::driver::{self, Driver};
use crate::error::Error;
use crate::options::{ReadOptions, Value, WriteOptions, Written};
use crate::registration_server::{NOT_BOOTSTRAPPED, RegistrationServer};
use crate::router::{Outcome, RequestKind};
use crate::time_bounds::checked_attach;

/// Bytes of keys and values that one permit stands for.
const PERMIT_BYTES: usize = 4096;
/// Permits: at most this many small requests, or 128 MiB, are under way at once.
const PERMITS: usize = 32 * 1024;
/// Longest timeout of a request; longer ones are shortened to it.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// A connection to a network, from [`connect`](Self::connect) or [`builder`](Self::builder).
///
/// Cloning is cheap. Clones share everything: connections, sessions, and the bound on requests
/// under way (32,768 requests or 128 MiB), beyond which calls wait. One client serves a whole
/// program; calls may run concurrently from any number of tasks.
///
/// The future of any request may be dropped. A dropped write may or may not take effect; the client
/// never sends it again, and tells the shard so with the next write, after which it can no longer
/// take effect.
///
/// # Examples
/// ```
/// # async fn example(client: dkv_api::Client) -> Result<(), dkv_api::Error> {
/// let writers = (0..10).map(|number| {
///     let client = client.clone();
///     async move { client.write(format!("key-{number}"), "value").await }
/// });
/// futures::future::try_join_all(writers).await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    /// The keyspace that its requests are about.
    keyspace: Arc<OwnKeyspace>,
    /// The user for whom it asks, whose rights limit its own.
    user: Option<User>,
}

/// Only handles share this. The tasks share the [`Driver`], so that dropping the last handle ends
/// them.
struct Inner {
    driver: Arc<Driver>,
    permits: Semaphore,
    timeout: Duration,
    identity: Identity,
    has_server: bool,
    token: Option<Uuid>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.driver.close();
    }
}

/// Cancels a request when its future is dropped.
struct CancelOnDrop<'a> {
    driver: &'a Driver,
    id: Option<u64>,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.driver.with(|router, now| router.cancel(now, id));
        }
    }
}

impl Client {
    /// Creates a client from a first contact, and starts its background tasks.
    pub(crate) fn start(
        contact: Contact,
        servers: Vec<HostPort>,
        store: CredentialStore,
        region: Option<Region>,
        timeout: Duration,
    ) -> Self {
        let Contact { endpoint, credentials, connection, view, token } = contact;
        let has_server = !servers.is_empty();
        let known = connect::known_nodes(&store, &credentials);
        let server = RegistrationServer::new(servers, connection);
        let driver = Driver::new(endpoint, server, store, region);
        driver.with(|router, now| match view {
            Some(view) => router.handle_view(now, view),
            None => {
                router.add_known_nodes(known);
                router.handle_no_view(NOT_BOOTSTRAPPED.to_owned());
            }
        });
        // Supervised: without ticks requests would wait for ever, without renewal the certificate
        // would expire.
        let weak = Arc::downgrade(&driver);
        tokio::spawn(async move {
            again("a client's clock", || driver::run_ticks(Weak::clone(&weak))).await;
        });
        if has_server {
            let weak = Arc::downgrade(&driver);
            tokio::spawn(async move {
                again("a client's renewal", || renewal::renew(Weak::clone(&weak))).await;
            });
        }
        let permits = Semaphore::new(PERMITS);
        let identity = credentials.identity;
        let inner = Arc::new(Inner { driver, permits, timeout, identity, has_server, token });
        Self { inner, keyspace: Arc::default(), user: None }
    }

    /// Returns the identity of this client in the network: the network, its role and its holder id.
    ///
    /// # Examples
    /// ```
    /// # fn example(client: &dkv_api::Client) {
    /// let identity = client.identity();
    /// println!("connected to network {} as {}", identity.network, identity.role);
    /// # }
    /// ```
    pub fn identity(&self) -> Identity {
        self.inner.identity
    }

    /// Returns the id of the token with which this client joined, now or before; `None` if its home
    /// directory does not say. No client reads another token while it has credentials.
    ///
    /// # Examples
    /// ```
    /// # fn example(client: &dkv_api::Client) {
    /// if let Some(token) = client.token_id() {
    ///     println!("joined with token {token}");
    /// }
    /// # }
    /// ```
    pub fn token_id(&self) -> Option<Uuid> {
        self.inner.token
    }

    /// Reads a key linearizably: the result is not older than any write or strong read that
    /// completed before this call began.
    ///
    /// # Errors
    /// As for [`read_with`](Self::read_with).
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let read = client.read("planet").await?;
    /// println!("{:?} since revision {}", read.value, read.receipt.revision);
    /// # Ok(()) }
    /// ```
    pub async fn read(&self, key: impl AsRef<[u8]>) -> Result<Value, Error> {
        self.read_with(key, ReadOptions::default()).await
    }

    /// Reads a key at a chosen level of consistency.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the key does not exist; [`Error::Unavailable`] if no node answered in
    /// time, or if no replica was within the bounds; [`Error::Invalid`] if the options have bounds
    /// that the level does not take. Never [`Error::Conflict`] or [`Error::Unknown`].
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use dkv_api::ReadOptions;
    ///
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let half_a_second = Duration::from_millis(500);
    /// let options = ReadOptions::eventual().max_staleness(half_a_second);
    /// let read = client.read_with("planet", options).await?;
    /// # Ok(()) }
    /// ```
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
        let kind = RequestKind::Read { key, level, bounds, nearest };
        let (receipt, stored, reach) = match self.request(kind, timeout).await? {
            Answer::Value(receipt, stored) => (receipt, stored, Reach::default()),
            Answer::ValueEverywhere(receipt, stored, reach) => (receipt, stored, reach),
            _ => return Err(wrong_answer()),
        };
        match stored {
            Some(stored) => Ok(Value { value: stored.value, receipt, reach }),
            None => Err(Error::NotFound { receipt }),
        }
    }

    /// Writes a key, whether or not it exists.
    ///
    /// # Errors
    /// As for [`write_with`](Self::write_with), except [`Error::Conflict`] and
    /// [`Error::Incomplete`].
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let written = client.write("planet", "Mars").await?;
    /// let what = if written.existed { "changed" } else { "new" };
    /// println!("{what} at {}", written.receipt.revision);
    /// # Ok(()) }
    /// ```
    pub async fn write(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
    ) -> Result<Written, Error> {
        self.write_with(key, value, WriteOptions::default()).await
    }

    /// Writes a key under a condition, at a chosen level of consistency.
    ///
    /// However often the client has to send the write, it is executed at most once, and the call
    /// returns the result of that execution.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the condition does not hold; [`Error::Incomplete`] if the write was
    /// executed at [`Level::All`] and a replica lacks it; [`Error::Unknown`] if the write was sent
    /// and its outcome could not be learnt in time. After every other error it had no effect.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{Condition, Error};
    ///
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// // Changes the value only if nobody has changed it since it was read.
    /// let read = client.read("counter").await?;
    /// let unchanged = Condition::Revision(read.receipt.revision);
    /// match client.write_with("counter", "42", unchanged.into()).await {
    ///     Ok(_) => println!("done"),
    ///     Err(Error::Conflict { current, .. }) => println!("the key is at {current:?} by now"),
    ///     Err(other) => return Err(other),
    /// }
    /// # Ok(()) }
    /// ```
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
    /// As for [`delete_with`](Self::delete_with), except [`Error::Conflict`] and
    /// [`Error::Incomplete`].
    ///
    /// # Examples
    /// ```
    /// use dkv_api::Error;
    ///
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// match client.delete("planet").await {
    ///     Ok(_) | Err(Error::NotFound { .. }) => println!("it is gone"),
    ///     Err(other) => return Err(other),
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<Written, Error> {
        self.delete_with(key, WriteOptions::default()).await
    }

    /// Deletes a key under a condition, at a chosen level of consistency.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the key does not exist and the condition allows that. An eventual
    /// delete never returns it, because the node that takes it does not know yet. For the other
    /// errors see [`write_with`](Self::write_with).
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{Condition, Revision};
    ///
    /// # async fn example(client: &dkv_api::Client, seen: Revision) -> Result<(), dkv_api::Error> {
    /// client.delete_with("planet", Condition::Revision(seen).into()).await?;
    /// # Ok(()) }
    /// ```
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

    /// Closes all connections, also those of clones, and waits for at most half a second until the
    /// nodes have been notified.
    ///
    /// Requests under way end with [`Error::Unavailable`], or with [`Error::Unknown`] if they may
    /// have had an effect. Dropping the last clone closes the connections too, without waiting.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: dkv_api::Client) {
    /// client.close().await;
    /// # }
    /// ```
    pub async fn close(self) {
        self.inner.driver.close();
        self.inner.driver.endpoint.close().await;
    }

    /// Returns the names of nodes; the first digits of the id for a node that this client does not
    /// know.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let read = client.read("planet").await?;
    /// println!("served by {}", client.names(&[read.receipt.node])[0]);
    /// # Ok(()) }
    /// ```
    pub fn names(&self, nodes: &[NodeId]) -> Vec<String> {
        self.inner.driver.with(|router, _| {
            let name = |node: &NodeId| {
                let known = router.view().and_then(|view| view.node(*node));
                known.map_or_else(|| node.short().to_string(), |info| info.name.clone())
            };
            nodes.iter().map(name).collect()
        })
    }

    async fn propose(
        &self,
        key: &[u8],
        value: Option<Bytes>,
        options: WriteOptions,
    ) -> Result<Written, Error> {
        let key = checked_key(key)?;
        let bytes = value.as_ref().map_or(0, Bytes::len);
        // The router checks the network's own limit, which is usually lower: it has the view.
        if bytes > limits::VALUE_BYTES_MAX {
            let (bytes, limit) = (bytes as u64, limits::VALUE_BYTES_MAX as u64);
            return Err(Error::TooLarge { what: "value".into(), bytes, limit });
        }
        let WriteOptions { level, condition, attach, timeout } = options;
        if attach.is_some() && (value.is_none() || level == Level::Eventual) {
            let why = "only a put at another level than eventual takes a time to live or a lease";
            return Err(Error::Invalid(why.into()));
        }
        let attach = attach.map(checked_attach).transpose()?;
        let everywhere = level == Level::All;
        let kind = match level {
            Level::Eventual if condition != Condition::Always => {
                let why = "an eventual write cannot have a condition";
                return Err(Error::Invalid(why.into()));
            }
            Level::Eventual => RequestKind::Deposit { key, value, stamp: Stamp(0) },
            Level::Strong | Level::Session | Level::All => RequestKind::Write {
                condition,
                everywhere,
                key,
                value,
                attach,
                write_id: None,
                after: Stamp(0),
            },
        };
        match self.request(kind, timeout).await? {
            Answer::Written { receipt, existed } => Ok(Written { receipt, existed }),
            Answer::WrittenEverywhere { receipt, existed, reach } => {
                let written = Written { receipt, existed };
                if reach.missing.is_empty() {
                    return Ok(written);
                }
                Err(Error::Incomplete { written, missing: self.names(&reach.missing) })
            }
            _ => Err(wrong_answer()),
        }
    }

    pub(crate) fn driver(&self) -> &Arc<Driver> {
        &self.inner.driver
    }

    /// Returns the time limit of requests that set none.
    pub(crate) fn timeout(&self) -> Duration {
        self.inner.timeout
    }

    /// Returns whether it was closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.inner.driver.is_closed()
    }

    pub(crate) fn has_server(&self) -> bool {
        self.inner.has_server
    }

    /// Hands a request to the router and waits for its outcome.
    pub(crate) async fn request(&self, kind: RequestKind, timeout: Option<Duration>) -> Outcome {
        let inner = &*self.inner;
        let timeout = timeout.unwrap_or(inner.timeout).min(TIMEOUT_MAX);
        let started = Instant::now();
        let permits = (1 + kind.bytes() / PERMIT_BYTES).min(PERMITS) as u32;
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
        let left = timeout.saturating_sub(started.elapsed());
        let (waiter, answer) = oneshot::channel();
        let Some(id) = inner.driver.submit(self.keyspace.id, self.user, kind, left, waiter) else {
            return Err(closed());
        };
        let mut cancel = CancelOnDrop { driver: &inner.driver, id: Some(id) };
        let outcome = answer.await;
        cancel.id = None;
        drop(permit);
        // The router answers every request, also when it is closed.
        outcome.unwrap_or_else(|_| Err(closed())).map_err(|error| self.keyspace.named(error))
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (identity, keyspace) = (&self.inner.identity, &self.keyspace.name);
        f.debug_struct("Client")
            .field("identity", identity)
            .field("keyspace", keyspace)
            .finish_non_exhaustive()
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

/// The error for an answer of the wrong kind. The router passes on none, so this is a safeguard.
pub(crate) fn wrong_answer() -> Error {
    Error::Unknown("unexpected answer".into())
}
