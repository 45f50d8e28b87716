//! When the last entries of a group were on this node's disk, and when they were committed.
//!
//! The log and the state machine note it for each entry; the primary reads it to say where the time
//! of a batch went.

use std::sync::{Arc, Mutex};

use dkv_base::sync::lock;
use tokio::time::Instant;

/// Entries of which the times are kept: more than are ever in flight.
const KEPT: usize = 64;

/// The times of a group's last entries. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct EntryTimes(Arc<Mutex<Slots>>);

struct Slots([Slot; KEPT]);

#[derive(Clone, Copy, Default)]
struct Slot {
    index: u64,
    times: BatchTimes,
}

/// The times of an entry, as far as they are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BatchTimes {
    /// When it was on the disk of this node.
    pub(crate) synced: Option<Instant>,
    /// When it was committed, and applying it began.
    pub(crate) committed: Option<Instant>,
}

impl Default for Slots {
    fn default() -> Self {
        Self([Slot::default(); KEPT])
    }
}

impl EntryTimes {
    /// Notes that the entries from `first` to `last` are on disk since `at`.
    pub(crate) fn synced(&self, first: u64, last: u64, at: Instant) {
        let first = first.max(last.saturating_sub(KEPT as u64 - 1));
        let mut slots = lock(&self.0);
        for index in first..=last {
            slots.of(index).synced = Some(at);
        }
    }

    /// Notes that an entry is committed since `at`.
    pub(crate) fn committed(&self, index: u64, at: Instant) {
        lock(&self.0).of(index).committed = Some(at);
    }

    /// Returns the times of an entry.
    pub(crate) fn of(&self, index: u64) -> BatchTimes {
        let slots = lock(&self.0);
        let slot = slots.0[place(index)];
        if slot.index == index { slot.times } else { BatchTimes::default() }
    }
}

impl Slots {
    fn of(&mut self, index: u64) -> &mut BatchTimes {
        let slot = &mut self.0[place(index)];
        if slot.index != index {
            *slot = Slot { index, times: BatchTimes::default() };
        }
        &mut slot.times
    }
}

fn place(index: u64) -> usize {
    (index % KEPT as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_the_last_entries_are_kept() {
        let (times, now) = (EntryTimes::default(), Instant::now());
        times.synced(1, 1_000_000, now);
        times.committed(1_000_000, now);
        let both = BatchTimes { synced: Some(now), committed: Some(now) };
        assert_eq!(times.of(1_000_000), both);
        assert_eq!(times.of(999_937), BatchTimes { committed: None, ..both });
        assert_eq!(times.of(999_936), BatchTimes::default());
        // A later entry takes the place of an earlier one.
        times.synced(1_000_064, 1_000_064, now);
        assert_eq!(times.of(1_000_000), BatchTimes::default());
        assert_eq!(times.of(1_000_064), BatchTimes { committed: None, ..both });
    }
}
