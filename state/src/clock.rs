//! The clock of a shard: how much time its primaries have measured since its first entry.
//!
//! Time in the log moves by what a primary has *measured*, never by what a clock on the wall shows,
//! so that a wall clock that is set ahead cannot end all sessions at once, and one that is set back
//! cannot keep them from ending. Each replica follows the clock while it applies, and a new primary
//! goes on from there.
//!
//! An entry is applied some time after it was stamped, so a replica's idea of the clock is late by
//! the shortest delay that it has seen: each stamp says that at least so much time has passed, and
//! the most that any stamp has said, plus the time since, is what is known. It is therefore never
//! ahead of the primary's, and never behind the last stamp.
//!
//! Deliberately missing: the time in which no node ran, and any clock. Readings are passed in.

use std::time::Duration;

/// The clock of one replica of a shard. `now` is always a reading of the same monotonic clock,
/// whatever its beginning.
#[derive(Clone, Copy, Debug)]
pub struct LogClock {
    /// What the log's clock showed at least, in milliseconds.
    known_ms: u64,
    /// When it did.
    known_at: Duration,
}

impl LogClock {
    /// The clock of a replica whose state's clock shows `clock_ms`.
    pub fn new(clock_ms: u64, now: Duration) -> Self {
        Self { known_ms: clock_ms, known_at: now }
    }

    /// An entry was applied, and the state's clock shows `clock_ms` now.
    pub fn observe(&mut self, clock_ms: u64, now: Duration) {
        if clock_ms > self.now_ms(now) {
            *self = Self::new(clock_ms, now);
        }
    }

    /// What the clock shows, in milliseconds: the stamp of a batch that is made now.
    pub fn now_ms(&self, now: Duration) -> u64 {
        let since = now.saturating_sub(self.known_at);
        self.known_ms.saturating_add(since.as_millis() as u64)
    }
}

#[cfg(test)]
mod tests;
