//! A promise to a leader that was taken back, and given again.
//!
//! A replica that hears its leader votes for nobody else. It takes that promise back if it looks as
//! if the leader's process were gone (see `tasks/failure_detector.rs`), which is a hint only: a
//! leader that is heard afterwards lives, and the promise holds again, for as long as it does after
//! any heartbeat.
//!
//! Deliberately missing: clocks. Moments are passed in.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// When the promise to the leader was last taken back, if ever; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct ForgottenLeader(Arc<Mutex<Option<Instant>>>);

impl ForgottenLeader {
    /// The promise is taken back.
    pub(super) fn forget(&self, now: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// Whether it was taken back and then given again, by hearing the leader at `heard`, and still
    /// lasts.
    pub(super) fn keeps(&self, heard: Option<Instant>, lasts: Duration, now: Instant) -> bool {
        let forgotten = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let given_again = heard.filter(|heard| forgotten.is_some_and(|at| *heard > at));
        given_again.is_some_and(|heard| now.saturating_duration_since(heard) <= lasts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_promise_that_was_taken_back_holds_again_once_the_leader_is_heard() {
        let (forgotten, start) = (ForgottenLeader::default(), Instant::now());
        let keeps = |heard: Option<u32>, now: u32| {
            forgotten.keeps(heard.map(|ms| start + ms * MS), 300 * MS, start + now * MS)
        };
        assert!(!keeps(Some(1), 2), "openraft keeps it");
        forgotten.forget(start + 10 * MS);
        for (heard, now, kept) in
            [(None, 11, false), (Some(9), 11, false), (Some(20), 320, true), (Some(20), 321, false)]
        {
            assert_eq!(keeps(heard, now), kept, "{heard:?} at {now}");
        }
        forgotten.forget(start + 30 * MS);
        assert!(!keeps(Some(20), 31));
    }
}
