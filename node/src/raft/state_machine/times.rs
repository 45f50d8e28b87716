//! The times that a state machine keeps: the shard's clock, the network's, and those of entries;
//! and how far its checkpoint reaches.

use dkv_base::id::{Stamp, Term};
use dkv_base::sync::lock;

use super::StateMachineHandle;
use crate::raft::checkpointed::Checkpointed;
use crate::raft::entry_times::EntryTimes;

impl StateMachineHandle {
    /// Returns the reading of the shard's clock, in milliseconds.
    pub(crate) fn clock_ms(&self) -> u64 {
        lock(&self.shared.clock).now_ms(self.shared.began.elapsed())
    }

    /// Returns the stamp for a batch that this replica makes now as the leader of a term: by the
    /// shard's clock if it has applied all that came before the term, else by what it has applied.
    /// `None` for the term if it is not known to lead.
    pub(crate) fn stamp_ms(&self, term: Option<Term>, has_caught_up: bool) -> u64 {
        let applied_ms = (!has_caught_up).then(|| self.applied_clock_ms());
        let mut clock = lock(&self.shared.clock);
        let now = self.shared.began.elapsed();
        match term {
            Some(term) => clock.stamp(term, applied_ms, now),
            None => clock.stamp_unled(applied_ms.unwrap_or_default(), now),
        }
    }

    /// Returns a fresh stamp of the network's clock.
    pub(crate) fn stamp(&self) -> Stamp {
        self.shared.stamps.stamp()
    }

    /// Returns the latest stamp that this node made or saw.
    pub(crate) fn last_stamp(&self) -> Stamp {
        self.shared.stamps.last()
    }

    /// Returns when the last entries were on disk and committed.
    pub(crate) fn entry_times(&self) -> &EntryTimes {
        &self.shared.entry_times
    }

    /// Returns how far the durable checkpoint reaches.
    pub(crate) fn checkpointed_log(&self) -> &Checkpointed {
        &self.shared.checkpointed
    }
}
