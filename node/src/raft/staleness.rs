//! How old the state of a follower may be.
//!
//! A leader that has lost its majority does not know what is committed elsewhere, and still sends
//! heartbeats. So a heartbeat says how long ago a quorum last confirmed its leader: at that moment
//! nobody else led, and everything that was acknowledged by then the leader has applied when it
//! says so. A state that has applied as much is complete as of *that* moment, not as of the one in
//! which it was told.
//!
//! A heartbeat counts as of when it was sent, at the earliest that its receiver knows (see
//! `heartbeat/coalescing.rs`), however long it was on its way.
//!
//! Deliberately missing: clocks. Moments are passed in, and all of them are this process's own.

use std::time::Duration;

use tokio::time::Instant;

/// What is needed to say how old a state may be.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Staleness {
    /// The oldest promise that the state does not fulfil yet, and the newest.
    next: Option<LeaderStatement>,
    newest: Option<LeaderStatement>,
    /// When the state held all that was committed, last.
    complete: Option<Instant>,
}

/// A state that has applied `index` was complete at `at`.
#[derive(Clone, Copy, Debug)]
struct LeaderStatement {
    at: Instant,
    index: u64,
}

impl Staleness {
    /// A leader said at `sent` that a quorum had confirmed it that long before, and that it has
    /// applied this index.
    pub(super) fn heard(&mut self, sent: Instant, quorum_age: Duration, index: u64) {
        let Some(at) = sent.checked_sub(quorum_age) else { return };
        let promise = LeaderStatement { at, index };
        // One is kept while others come, or a replica that is always a little behind would never
        // see one fulfilled.
        self.next.get_or_insert(promise);
        self.newest = Some(promise);
    }

    /// The state has applied everything up to this index.
    pub(super) fn applied(&mut self, index: u64) {
        for promise in [self.next, self.newest].into_iter().flatten() {
            if promise.index <= index {
                // A leader that is confirmed no more says the same moment again and again, and
                // another may know less.
                self.complete = self.complete.max(Some(promise.at));
            }
        }
        self.newest = self.newest.filter(|promise| promise.index > index);
        self.next = self.next.filter(|promise| promise.index > index).or(self.newest);
    }

    /// How old the state may be; `None` if it was never known to be complete.
    pub(super) fn age(&self, now: Instant) -> Option<Duration> {
        Some(now.saturating_duration_since(self.complete?))
    }
}

#[cfg(test)]
mod tests;
