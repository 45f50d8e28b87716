//! A running node, for those who watch it from the same process.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use dkv_base::histogram::Times;
use dkv_wire::message::NodeStatus;

use crate::common::counters::Counted;
use crate::node::Node;
use crate::replica::GroupFigures;

/// A node that serves.
#[derive(Clone, Debug)]
pub struct Serving {
    /// Where.
    pub address: SocketAddr,
    /// Its figures.
    pub observer: Observer,
}

/// Sees the figures of a node, and does not keep it alive.
#[derive(Clone)]
pub struct Observer {
    node: Weak<Node>,
}

/// The figures of a node at one moment.
#[derive(Clone, Debug)]
pub struct Figures {
    /// What it tells everybody.
    pub status: NodeStatus,
    /// What it has counted.
    pub counted: Counted,
    /// Times of writes of the log with their sync.
    pub syncs: Times,
    /// Entries that the log has written.
    pub entries_written: u64,
    /// Bytes that wait to be written to the log.
    pub staged_bytes: usize,
    /// Connections that are open.
    pub connections: usize,
    /// What only this node can know of its groups.
    pub groups: Vec<GroupFigures>,
}

impl Observer {
    pub(crate) fn of(node: &Arc<Node>) -> Self {
        Self { node: Arc::downgrade(node) }
    }

    /// The figures; none if the node has stopped.
    pub fn figures(&self) -> Option<Figures> {
        Some(self.node.upgrade()?.figures())
    }
}

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Observer")
    }
}
