//! What a node says of itself to an operator who looks for trouble, and of what
//! it logs.

use dkv_base::id::{GroupId, NodeId, Term};
use serde::{Deserialize, Serialize};

/// A change of what a process logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogChange {
    /// The filter, as the variable `DKV_LOG` has it; at most
    /// [`LOG_FILTER_BYTES_MAX`](crate::limits::LOG_FILTER_BYTES_MAX) bytes.
    pub filter: String,
    /// Time after which the filter before comes back, in milliseconds, at most
    /// [`LOG_FILTER_LIFE_MAX`](crate::limits::LOG_FILTER_LIFE_MAX); `None` keeps it until the
    /// process ends.
    pub for_ms: Option<u64>,
}

/// What a process logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFilter {
    /// The filter.
    pub filter: String,
    /// The filter that comes back, and the time until then in milliseconds.
    pub then: Option<(String, u64)>,
}

/// The circumstances of a node: what may fail next, and what has happened to its groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// The node's clock, in milliseconds since 1970.
    pub clock_ms: u64,
    /// When its certificate ends, in milliseconds since 1970.
    pub certificate_ends_ms: Option<u64>,
    /// The disk of its data directory, if that can be known.
    pub disk: Option<DiskFacts>,
    /// Open files, and how many it may have open.
    pub files: Option<(u64, u64)>,
    /// Open connections.
    pub connections: u64,
    /// The leases of its shards, where there are any.
    pub leases: Vec<(GroupId, u64)>,
    /// Slow requests since its start, by the stage that took longest.
    pub slow_requests: Vec<(String, u64)>,
    /// The last changes of leader that it saw, oldest first.
    pub leader_changes: Vec<LeaderChange>,
}

/// The disk of a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskFacts {
    /// Its size, in bytes.
    pub bytes: u64,
    /// What a node may still write, in bytes.
    pub free_bytes: u64,
    /// Whether it is memory, whose content a restart of the machine loses.
    pub is_memory: bool,
}

/// A group began a term under a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderChange {
    /// The group.
    pub group: GroupId,
    /// The term.
    pub term: Term,
    /// The new leader.
    pub leader: NodeId,
    /// The leader before, if the node knew one.
    pub before: Option<NodeId>,
    /// When the node saw it, in milliseconds since 1970.
    pub at_ms: u64,
    /// Why it happened.
    pub why: ChangeReason,
}

/// Why a group has another leader, as far as one node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ChangeReason {
    /// The node saw no leader before: it had just started.
    FirstSeen,
    /// The node was not involved.
    Unknown,
    /// The leader before was silent for an election time.
    Silent,
    /// The process of the leader before was gone.
    ProcessGone,
    /// The leader before handed over.
    HandedOver,
    /// The leader before was stopping in good order.
    Stopping,
    /// The disk of the leader before had stalled.
    DiskStalled,
    /// Balancing, draining, or an administrator moved it.
    Moved,
}

impl ChangeReason {
    /// How much the reason says; of two nodes, the one that says more knows.
    pub fn weight(self) -> u8 {
        match self {
            Self::FirstSeen => 0,
            Self::Unknown => 1,
            Self::Silent => 2,
            Self::ProcessGone => 3,
            Self::HandedOver => 4,
            Self::Stopping | Self::DiskStalled | Self::Moved => 5,
        }
    }
}

impl std::fmt::Display for ChangeReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::FirstSeen => "unknown: the nodes that remember it started later",
            Self::Unknown => "unknown",
            Self::Silent => "the primary before was silent for an election time",
            Self::ProcessGone => "the process of the primary before was gone",
            Self::HandedOver => "the primary before handed over",
            Self::Stopping => "the primary before was stopped in good order",
            Self::DiskStalled => "the disk of the primary before had stalled",
            Self::Moved => "it was moved, to balance, to drain or by an administrator",
        })
    }
}
