//! What a caller may ask for, and what it gets.

use std::time::Duration;

use bytes::Bytes;
use dkv_wire::message::{Condition, Level, NodeStatus, Receipt, ServerStatus};
use dkv_wire::network::{NetworkView, NodeInfo};

/// How to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadOptions {
    /// What the answer must guarantee; [`Level::Strong`] by default.
    pub level: Level,
    /// Time to wait for it; the client's by default.
    pub timeout: Option<Duration>,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { level: Level::Strong, timeout: None }
    }
}

impl ReadOptions {
    /// What one replica has at once.
    pub fn eventual() -> Self {
        Self { level: Level::Eventual, timeout: None }
    }
}

/// How to write or delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteOptions {
    /// When to do it; [`Condition::Always`] by default.
    pub condition: Condition,
    /// Time to wait for it; the client's by default.
    pub timeout: Option<Duration>,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { condition: Condition::Always, timeout: None }
    }
}

impl From<Condition> for WriteOptions {
    fn from(condition: Condition) -> Self {
        Self { condition, timeout: None }
    }
}

/// A value that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The value.
    pub value: Bytes,
    /// About the read; its revision is that of the write which stored the value.
    pub receipt: Receipt,
}

/// A write or delete that was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// About the write.
    pub receipt: Receipt,
    /// Whether the key was there before.
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
}
