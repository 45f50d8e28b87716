//! A running node, for those who watch it from the same process.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use dkv_base::histogram::Times;
use dkv_base::id::GroupId;
use dkv_wire::message::NodeStatus;

use crate::common::counters::Counted;
use crate::node::Node;

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

/// Figures of one group on this node.
#[derive(Clone, Debug)]
pub struct GroupFigures {
    /// Which.
    pub group: GroupId,
    /// Last entry that this node knows to be committed.
    pub committed_index: u64,
    /// How often another leader, or the same in another term, was seen since the start.
    pub leader_changes: u64,
    /// Writes that wait for a batch.
    pub writes_waiting: usize,
    /// Reads that wait for a round.
    pub reads_waiting: usize,
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
