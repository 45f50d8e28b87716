//! The times that a state machine keeps: the shard's clock, the network's, and those of entries;
//! and how far its checkpoint reaches.

use dkv_base::id::Stamp;
use dkv_base::sync::lock;

use super::StateMachineHandle;
use crate::raft::checkpointed::Checkpointed;
use crate::raft::entry_times::EntryTimes;

impl StateMachineHandle {
    /// Returns the reading of the shard's clock, in milliseconds: the stamp of a batch made now.
    pub(crate) fn clock_ms(&self) -> u64 {
        lock(&self.shared.clock).now_ms(self.shared.began.elapsed())
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
