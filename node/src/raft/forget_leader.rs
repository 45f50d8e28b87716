//! A promise to a leader that a replica took back, and gave again.
//!
//! A replica that hears its leader votes for no other node. It takes that promise back if the
//! leader's process appears to be gone (see `tasks/failure_detector.rs`), which is only a hint: a
//! leader that is heard afterwards is alive, and the promise holds again, for as long as it does
//! after any heartbeat.
//!
//! Deliberately missing: clocks. The caller passes in the moments.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dkv_base::sync::lock;
use tokio::time::Instant;

/// The moment when the promise to the leader was last taken back, if ever; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct ForgottenLeader(Arc<Mutex<Option<Instant>>>);

impl ForgottenLeader {
    /// Takes the promise back.
    pub(super) fn forget(&self, now: Instant) {
        *lock(&self.0) = Some(now);
    }

    /// Returns whether the promise was taken back, then given again by hearing the leader at
    /// `heard`, and still lasts.
    pub(super) fn keeps(&self, heard: Option<Instant>, lasts: Duration, now: Instant) -> bool {
        let forgotten = *lock(&self.0);
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
