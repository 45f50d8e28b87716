//! What a caller may ask for, and what it gets.

use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::Revision;
use dkv_wire::message::{Condition, Level, NodeStatus, Placement, Reach, Receipt, ServerStatus};
use dkv_wire::network::{NetworkView, NodeInfo};

/// How to read.
///
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadOptions {
    /// What the answer must guarantee; [`Level::Strong`] by default.
    pub level: Level,
    /// How old an eventual answer may be; any age by default.
    pub max_staleness: Option<Duration>,
    /// The revision that the shard must have reached where an eventual answer comes from.
    pub at_least: Option<Revision>,
    /// Has a strong read answered by the nearest replica, which asks the primary how far to go,
    /// rather than by the primary itself. It takes a little longer and spares the primary.
    pub nearest: bool,
    /// Time to wait for it; the client's by default.
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
    /// What one replica has at once.
    pub fn eventual() -> Self {
        Level::Eventual.into()
    }

    /// What one replica has, but never less than this client has written or seen.
    pub fn session() -> Self {
        Level::Session.into()
    }

    /// What there is, and after it every replica that can be reached has it.
    pub fn all() -> Self {
        Level::All.into()
    }

    /// Has an eventual answer be no older than that.
    pub fn max_staleness(self, most: Duration) -> Self {
        Self { max_staleness: Some(most), ..self }
    }

    /// Has an eventual answer come from a replica that has reached that revision. A receipt of an
    /// earlier answer about a key of the same shard has one.
    pub fn at_least(self, revision: Revision) -> Self {
        Self { at_least: Some(revision), ..self }
    }

    /// Gives up after that time.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }
}

/// How to write or delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteOptions {
    /// What the answer must guarantee; [`Level::Strong`] by default. [`Level::Session`] writes as
    /// that does. [`Level::Eventual`] takes no condition: the nearest node keeps the write,
    /// durably, and brings it to the primary when it can; the receipt says that it is pending.
    pub level: Level,
    /// When to do it; [`Condition::Always`] by default.
    pub condition: Condition,
    /// Time to wait for it; the client's by default.
    pub timeout: Option<Duration>,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { level: Level::Strong, condition: Condition::Always, timeout: None }
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

/// A value that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The value.
    pub value: Bytes,
    /// About the read; its revision is that of the write which stored the value.
    pub receipt: Receipt,
    /// Of a read at [`Level::All`]: which replicas were behind and have it now, and which are
    /// missing.
    pub reach: Reach,
}

/// A write or delete that was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// About the write.
    pub receipt: Receipt,
    /// Whether the key was there before; of an eventual write, as far as the node knew that took
    /// it.
    pub existed: bool,
}

/// What the server and every node say about themselves.
#[derive(Clone, Debug)]
pub struct NetworkStatus {
    /// The server's books, or why there is no answer.
    pub server: Result<ServerStatus, String>,
    /// Every node that is known, and its status or why there is no answer.
    pub nodes: Vec<(NodeInfo, Result<NodeStatus, String>)>,
    /// The network as this client sees it; `None` if nobody has bootstrapped it yet.
    pub view: Option<NetworkView>,
    /// Where replicas are going; `None` if no coordinator answers.
    pub placement: Option<Placement>,
}
