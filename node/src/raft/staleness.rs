//! An upper bound on the age of a follower's state.
//!
//! A leader that has lost its majority does not know what is committed elsewhere, and still sends
//! heartbeats. So a heartbeat says how long ago a quorum last confirmed its leader. At that moment
//! no other node led, and by the time of the heartbeat the leader has applied everything that was
//! acknowledged by that moment. A state that has applied as much is complete as of *that* moment,
//! not as of the moment when the heartbeat arrived.
//!
//! A heartbeat counts as of when it was sent, at the earliest that its receiver knows (see
//! `heartbeat/coalescing.rs`), however long it was on its way.
//!
//! Deliberately missing: clocks. The caller passes in the moments, all of which are this process's
//! own.

use std::time::Duration;

use tokio::time::Instant;

/// The facts from which the age of a state follows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Staleness {
    /// The oldest promise that the state does not fulfil yet, and the newest.
    next: Option<LeaderStatement>,
    newest: Option<LeaderStatement>,
    /// The last moment when the state is known to have held everything that was committed.
    complete: Option<Instant>,
}

/// A leader's promise: a state that has applied `index` was complete at `at`.
#[derive(Clone, Copy, Debug)]
struct LeaderStatement {
    at: Instant,
    index: u64,
}

impl Staleness {
    /// Records a leader's statement at `sent` that a quorum had confirmed it `quorum_age` before,
    /// and that it has applied `index`.
    pub(super) fn heard(&mut self, sent: Instant, quorum_age: Duration, index: u64) {
        let Some(at) = sent.checked_sub(quorum_age) else { return };
        let promise = LeaderStatement { at, index };
        // One promise stays while others arrive. Otherwise a replica that is always a little behind
        // would never see one fulfilled.
        self.next.get_or_insert(promise);
        self.newest = Some(promise);
    }

    /// Records that the state has applied everything up to `index`.
    pub(super) fn applied(&mut self, index: u64) {
        for promise in [self.next, self.newest].into_iter().flatten() {
            if promise.index <= index {
                // A leader that no quorum confirms any more repeats the same moment, and another
                // leader may know of an earlier one only.
                self.complete = self.complete.max(Some(promise.at));
            }
        }
        self.newest = self.newest.filter(|promise| promise.index > index);
        self.next = self.next.filter(|promise| promise.index > index).or(self.newest);
    }

    /// Returns how old the state may be; `None` if it was never known to be complete.
    pub(super) fn age(&self, now: Instant) -> Option<Duration> {
        Some(now.saturating_duration_since(self.complete?))
    }
}

#[cfg(test)]
mod tests;
