//! Options of reads and writes, and their results.

use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::{LeaseId, Revision};
use dkv_wire::message::{Condition, Level, NodeStatus, Placement, Reach, Receipt, ServerStatus};
use dkv_wire::network::{NetworkView, NodeInfo, ServerInfo};
use dkv_wire::user::User;

use crate::attach::Attach;

/// A join token to create; see [`Client::create_token_with`](crate::Client::create_token_with).
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use dkv_api::TokenOptions;
///
/// let hour = Some(Duration::from_secs(3600));
/// let once = TokenOptions { life: hour, uses: Some(1), ..TokenOptions::default() };
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenOptions {
    /// How long it is valid, in whole seconds; without an end by default.
    pub life: Option<Duration>,
    /// How many holders it admits; any number by default.
    pub uses: Option<u32>,
    /// Its name, under which it and the holders that it admits are listed.
    pub name: Option<String>,
    /// The user that its bearers are: they may do only what the policies of the user allow. By
    /// default they are nobody's, and limited by their role alone.
    pub user: Option<User>,
}

/// How to read; see [`Client::read_with`](crate::Client::read_with).
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use dkv_api::{ReadOptions, Revision};
///
/// let strong = ReadOptions::default();
/// let fresh_enough = ReadOptions::eventual().max_staleness(Duration::from_millis(500));
/// let not_before = ReadOptions::eventual().at_least(Revision(12));
/// // Never older than what this client has written or read before.
/// let mine = ReadOptions::session();
/// ```
#[must_use = "options do nothing until they are passed to a read"]
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadOptions {
    /// What the answer must guarantee; [`Level::Strong`] by default.
    pub level: Level,
    /// Greatest age of an eventual answer; any age by default.
    pub max_staleness: Option<Duration>,
    /// Revision that the answering replica must have reached, for an eventual read.
    pub at_least: Option<Revision>,
    /// Whether the nearest replica answers a strong read, instead of the primary. That replica asks
    /// the primary how far it has to be, which takes a little longer and relieves the primary.
    pub nearest: bool,
    /// Time to wait for the answer; the client's timeout by default.
    pub timeout: Option<Duration>,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            level: Level::Strong,
            max_staleness: None,
            at_least: None,
            nearest: false,
            timeout: None,
        }
    }
}

impl From<Level> for ReadOptions {
    fn from(level: Level) -> Self {
        Self { level, ..Self::default() }
    }
}

impl ReadOptions {
    /// Reads what one replica has, at once; see [`Level::Eventual`].
    ///
    /// # Examples
    /// ```
    /// # use dkv_api::{Level, ReadOptions};
    /// assert_eq!(ReadOptions::eventual().level, Level::Eventual);
    /// ```
    pub fn eventual() -> Self {
        Level::Eventual.into()
    }

    /// Reads what one replica has, but nothing older than what this client has written or read; see
    /// [`Level::Session`].
    ///
    /// # Examples
    /// ```
    /// # use dkv_api::{Level, ReadOptions};
    /// assert_eq!(ReadOptions::session().level, Level::Session);
    /// ```
    pub fn session() -> Self {
        Level::Session.into()
    }

    /// Reads the latest value and brings it to every replica that can be reached; see
    /// [`Level::All`].
    ///
    /// # Examples
    /// ```
    /// # use dkv_api::{Level, ReadOptions};
    /// assert_eq!(ReadOptions::all().level, Level::All);
    /// ```
    pub fn all() -> Self {
        Level::All.into()
    }

    /// Sets the greatest age of an eventual answer.
    ///
    /// # Examples
    /// ```
    /// # use dkv_api::ReadOptions;
    /// use std::time::Duration;
    ///
    /// let options = ReadOptions::eventual().max_staleness(Duration::from_millis(500));
    /// ```
    pub fn max_staleness(self, most: Duration) -> Self {
        Self { max_staleness: Some(most), ..self }
    }

    /// Sets the revision that the replica of an eventual answer must have reached. The receipt of
    /// an earlier answer about a key of the same shard has one.
    ///
    /// # Examples
    /// ```
    /// # use dkv_api::{ReadOptions, Written};
    /// # fn example(written: Written) {
    /// let options = ReadOptions::eventual().at_least(written.receipt.revision);
    /// # }
    /// ```
    pub fn at_least(self, revision: Revision) -> Self {
        Self { at_least: Some(revision), ..self }
    }

    /// Sets whether the nearest replica answers a strong read, instead of the primary.
    ///
    /// # Examples
    /// ```
    /// # use dkv_api::ReadOptions;
    /// let options = ReadOptions::default().nearest(true);
    /// ```
    pub fn nearest(self, nearest: bool) -> Self {
        Self { nearest, ..self }
    }

    /// Sets the time to wait for the answer.
    ///
    /// # Examples
    /// ```
    /// # use dkv_api::ReadOptions;
    /// use std::time::Duration;
    ///
    /// let options = ReadOptions::default().timeout(Duration::from_secs(1));
    /// ```
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }
}

/// How to write or delete; see [`Client::write_with`](crate::Client::write_with).
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use dkv_api::{Condition, Level, WriteOptions};
///
/// let only_if_new = WriteOptions::from(Condition::Absent);
/// let everywhere = WriteOptions::from(Level::All).timeout(Duration::from_secs(5));
/// ```
#[must_use = "options do nothing until they are passed to a write"]
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteOptions {
    /// What the answer must guarantee; [`Level::Strong`] by default.
    ///
    /// [`Level::Session`] is the same as that for a write. [`Level::Eventual`] takes no condition:
    /// the nearest node stores the write durably and brings it to the primary when it can, and the
    /// receipt says that the write is pending.
    pub level: Level,
    /// When to execute the write; [`Condition::Always`] by default.
    pub condition: Condition,
    /// How long the key will live: until it is deleted, by default. A delete and an eventual write
    /// take nothing else.
    pub attach: Option<Attach>,
    /// Time to wait for the answer; the client's timeout by default.
    pub timeout: Option<Duration>,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { level: Level::Strong, condition: Condition::Always, attach: None, timeout: None }
    }
}

impl From<Condition> for WriteOptions {
    fn from(condition: Condition) -> Self {
        Self { condition, ..Self::default() }
    }
}

impl From<Level> for WriteOptions {
    fn from(level: Level) -> Self {
        Self { level, ..Self::default() }
    }
}

impl WriteOptions {
    /// Sets what the answer must guarantee.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{Condition, Level, WriteOptions};
    ///
    /// let options = WriteOptions::from(Condition::Absent).level(Level::All);
    /// ```
    pub fn level(self, level: Level) -> Self {
        Self { level, ..self }
    }

    /// Sets the condition under which the write is executed.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{Condition, Level, WriteOptions};
    ///
    /// let options = WriteOptions::from(Level::All).condition(Condition::Present);
    /// ```
    pub fn condition(self, condition: Condition) -> Self {
        Self { condition, ..self }
    }

    /// Sets the time after which the key is deleted, unless it is written again: 100 ms to 3650
    /// days.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use dkv_api::WriteOptions;
    ///
    /// let options = WriteOptions::default().ttl(Duration::from_secs(30));
    /// ```
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { attach: Some(Attach::Ttl(ttl)), ..self }
    }

    /// Sets the lease with which the key is deleted, unless it is written again.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{LeaseId, WriteOptions};
    ///
    /// # fn example(lease: LeaseId) {
    /// let options = WriteOptions::default().lease(lease);
    /// # }
    /// ```
    pub fn lease(self, lease: LeaseId) -> Self {
        Self { attach: Some(Attach::Lease(lease)), ..self }
    }

    /// Sets the time to wait for the answer.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use dkv_api::WriteOptions;
    ///
    /// let options = WriteOptions::default().timeout(Duration::from_secs(1));
    /// ```
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }
}

/// The result of a read.
///
/// # Examples
/// ```
/// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
/// let read = client.read_with("planet", dkv_api::ReadOptions::eventual()).await?;
/// println!("{:?}, at most {:?} ms old", read.value, read.receipt.staleness_ms);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The value.
    pub value: Bytes,
    /// The receipt of the read. Its revision is that of the write which stored the value.
    pub receipt: Receipt,
    /// For a read at [`Level::All`]: the replicas that were behind and now have the value, and
    /// those that lack it. Empty at the other levels.
    pub reach: Reach,
}

/// The result of a write or delete.
///
/// # Examples
/// ```
/// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
/// let written = client.write("planet", "Mars").await?;
/// println!("revision {}, existed: {}", written.receipt.revision, written.existed);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The receipt of the write.
    pub receipt: Receipt,
    /// Whether the key existed before. For an eventual write, as far as the node knew that took it.
    pub existed: bool,
}

/// What the server and every node report about themselves; see
/// [`Client::status`](crate::Client::status).
///
/// # Examples
/// ```
/// # async fn example(client: &dkv_api::Client) {
/// let status = client.status().await;
/// let silent = status.nodes.iter().filter(|(_, status)| status.is_err()).count();
/// println!("server up: {}, {silent} nodes silent", status.server.is_ok());
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct NetworkStatus {
    /// The status of the registration server, or why it did not answer.
    pub server: Result<ServerStatus, StatusError>,
    /// All registration servers that the network names, with their status, or why they did not
    /// answer; ordered by id.
    pub servers: Vec<(ServerInfo, Result<ServerStatus, StatusError>)>,
    /// Every known node with its status, or why it did not answer; ordered by name.
    pub nodes: Vec<(NodeInfo, Result<NodeStatus, StatusError>)>,
    /// The network as this client sees it; `None` if it has not been bootstrapped yet.
    pub view: Option<NetworkView>,
    /// Where replicas are and which are moving; `None` if the coordinator does not answer.
    pub placement: Option<Placement>,
}

/// Why the registration server or a node gave no status; see
/// [`NetworkStatus`].
///
/// # Examples
/// ```
/// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
/// use dkv_api::StatusError;
///
/// for (node, status) in client.status().await.nodes {
///     match status {
///         Ok(_) => println!("{} is there", node.name),
///         Err(StatusError::Silent(why)) => println!("{} may be down: {why}", node.name),
///         Err(error) => println!("{}: {error}", node.name),
///     }
/// }
/// # Ok(()) }
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatusError {
    /// It cannot be reached, or does not answer in time: it may be down, so ask again later.
    #[error("{0}")]
    Silent(String),
    /// It runs, but does not answer this client: asking again is of no use.
    #[error("{0}")]
    Refused(String),
}
