//! A view of a running node for observers in the same process.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use dkv_base::histogram::Times;
use dkv_wire::message::NodeStatus;

use crate::common::counters::Counted;
use crate::node::Node;
use crate::replica::GroupFigures;

/// A serving node.
#[derive(Clone, Debug)]
pub struct Serving {
    /// The node's address.
    pub address: SocketAddr,
    /// The observer of the node's figures.
    pub observer: Observer,
}

/// Access to the figures of a node that does not keep the node alive.
#[derive(Clone)]
pub struct Observer {
    node: Weak<Node>,
}

/// The figures of a node at one moment.
#[derive(Clone, Debug)]
pub struct Figures {
    /// The status that the node reports to everyone.
    pub status: NodeStatus,
    /// The counters.
    pub counted: Counted,
    /// Durations of writes to the log, including their sync.
    pub syncs: Times,
    /// Entries that the log has written.
    pub entries_written: u64,
    /// Bytes that wait to be written to the log.
    pub staged_bytes: usize,
    /// Open connections.
    pub connections: usize,
    /// Figures of the groups that only this node can know.
    pub groups: Vec<GroupFigures>,
}

impl Observer {
    pub(crate) fn of(node: &Arc<Node>) -> Self {
        Self { node: Arc::downgrade(node) }
    }

    /// Returns the figures, or `None` if the node has stopped.
    pub fn figures(&self) -> Option<Figures> {
        Some(self.node.upgrade()?.figures())
    }
}

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Observer")
    }
}
