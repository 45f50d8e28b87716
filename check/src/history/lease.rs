//! What clients noted about leases, and times without service.

use serde::{Deserialize, Serialize};

use super::line::LineError;

/// A call that concerns a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseNote {
    /// The lease: any number that belongs to it alone in this history.
    pub lease: u64,
    /// When the call began, in nanoseconds.
    pub start_ns: u64,
    /// When the answer came; none if the outcome is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_ns: Option<u64>,
    /// The call and its answer.
    pub event: LeaseEvent,
}

/// A call that concerns a lease, and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum LeaseEvent {
    /// The lease was granted, or kept alive: from now on it has this time.
    Renewed {
        /// The time, in milliseconds.
        ttl_ms: u64,
    },
    /// It was revoked, or its key was deleted or overwritten.
    Revoked,
    /// A key of the lease was there.
    Present {
        /// The key.
        key: String,
    },
    /// A key of the lease, or the lease itself, was gone.
    Gone {
        /// The key; empty for the lease itself.
        key: String,
    },
}

/// A time in which the store may not have served, for instance a failover. After it every lease may
/// have its whole time again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disruption {
    /// Its begin, in nanoseconds.
    pub start_ns: u64,
    /// Its end.
    pub end_ns: u64,
}

impl LeaseNote {
    pub(super) fn checked(self) -> Result<Self, LineError> {
        let is_answer = matches!(self.event, LeaseEvent::Present { .. } | LeaseEvent::Gone { .. });
        match self.end_ns {
            Some(end_ns) if end_ns < self.start_ns => Err(LineError::EndsEarly),
            None if is_answer => Err(LineError::NoEnd),
            _ => Ok(self),
        }
    }
}
