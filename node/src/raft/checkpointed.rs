//! How far the durable checkpoint of a replica reaches: the log may be purged up to there, and no
//! further.
//!
//! openraft purges only what a snapshot covers. The log compares, so that a defect there or here
//! ends the replica in place of losing entries that are nowhere else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::LogId;

/// Number of entries that a durable checkpoint covers, purged ones included. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checkpointed(Arc<AtomicU64>);

impl Checkpointed {
    /// Notes that a checkpoint at this position is durable.
    pub(super) fn note(&self, applied: Option<LogId>) {
        let entries = applied.map_or(0, |applied| applied.index + 1);
        self.0.fetch_max(entries, Ordering::AcqRel);
    }

    /// Returns whether a durable checkpoint covers this entry.
    pub(super) fn covers(&self, index: u64) -> bool {
        index < self.0.load(Ordering::Acquire)
    }
}
