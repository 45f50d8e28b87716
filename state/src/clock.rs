//! The clock of a shard: the time that its primaries have measured since its first entry.
//!
//! Time in the log advances by what a primary has *measured*, never by what a wall clock shows, so
//! that a wall clock set ahead cannot end all sessions at once, and one set back cannot keep them
//! from ending. Each replica follows the clock as it applies entries, and a new primary continues
//! from there.
//!
//! A replica applies an entry some time after the primary stamped it, so its estimate of the clock
//! lags by the shortest delay it has seen in this term. Each stamp is a lower bound on the time
//! that the primary has measured; the estimate is the highest such bound, each advanced by the time
//! since it was observed. It is therefore never ahead of the primary's clock, and never behind the
//! last stamp of the term.
//!
//! The clocks of two primaries differ: one that has just started knows no more than what was in the
//! log. So the first stamp of a term sets every replica's clock, back as well. Otherwise the next
//! primary would count time that the clock of this one has left out, and what has a deadline by it
//! would end early.
//!
//! A primary stamps nothing before it has applied an entry of its own term: its reading may be
//! ahead of the clock of its predecessor, whose entries it has yet to apply, and an older reading
//! would take the time in between from all that it stamps next.
//!
//! Deliberately missing: time during which no node ran, and a clock. The caller passes readings in.

use std::time::Duration;

use dkv_base::id::Term;

/// The clock of one replica of a shard. `now` is always a reading of the same monotonic clock,
/// whose origin does not matter.
#[derive(Clone, Copy, Debug)]
pub struct LogClock {
    /// The term of the last stamp.
    term: Term,
    /// A lower bound on the log's clock, in milliseconds.
    known_ms: u64,
    /// The reading at which the bound held.
    known_at: Duration,
}

impl LogClock {
    /// Creates the clock of a replica whose state's clock shows `clock_ms`.
    pub fn new(clock_ms: u64, now: Duration) -> Self {
        Self { term: Term(0), known_ms: clock_ms, known_at: now }
    }

    /// Records that an entry of a term was applied that has a stamp, and that the state's clock now
    /// shows `clock_ms`.
    pub fn observe(&mut self, term: Term, clock_ms: u64, now: Duration) {
        if term > self.term || clock_ms > self.now_ms(now) {
            *self = Self { term: term.max(self.term), known_ms: clock_ms, known_at: now };
        }
    }

    /// Returns the current time in milliseconds, which is the stamp for a batch made now.
    pub fn now_ms(&self, now: Duration) -> u64 {
        let since = now.saturating_sub(self.known_at);
        self.known_ms.saturating_add(since.as_millis() as u64)
    }
}

#[cfg(test)]
mod tests;
