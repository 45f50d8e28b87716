//! How far a leader's log was a moment ago, to tell a member that keeps up from one that does not.
//!
//! A member over a long link always lacks what was written during a round trip, however fast it is.
//! Under load that is more than any fixed number of entries.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Most entries that a member may lack and still count as caught up, however long ago they were
/// written: about as many as are in flight anyway.
const CAUGHT_UP_ENTRIES: u64 = 16;
/// Time by which a member may be behind and still counts as caught up.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(1);
/// Shortest time between two samples.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// Samples of the last index of a log, the oldest first.
#[derive(Debug, Default)]
pub(super) struct LogSamples {
    samples: VecDeque<(Instant, u64)>,
}

impl LogSamples {
    /// Notes the last index of the log.
    pub(super) fn note(&mut self, last_index: u64, now: Instant) {
        let age = |at: Instant| now.saturating_duration_since(at);
        if self.samples.back().is_some_and(|(at, _)| age(*at) < SAMPLE_EVERY) {
            return;
        }
        // One that is old enough stays.
        while self.samples.get(1).is_some_and(|(at, _)| age(*at) >= CAUGHT_UP_WITHIN) {
            self.samples.pop_front();
        }
        self.samples.push_back((now, last_index));
    }

    /// Returns whether a member that has `matched_index` has all but the newest entries of the log,
    /// which ends at `last_index`.
    pub(super) fn is_caught_up(&self, matched_index: u64, last_index: u64, now: Instant) -> bool {
        let is_near = last_index.saturating_sub(matched_index) <= CAUGHT_UP_ENTRIES;
        let age = |at: Instant| now.saturating_duration_since(at);
        let old = self.samples.iter().rev().find(|(at, _)| age(*at) >= CAUGHT_UP_WITHIN);
        // After a pause in which no samples were noted, an old one says nothing.
        let old = old.filter(|(at, _)| age(*at) < 2 * CAUGHT_UP_WITHIN);
        matched_index > 0 && (is_near || old.is_some_and(|(_, index)| matched_index >= *index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_keeps_up_if_it_has_what_there_was_a_second_ago() {
        let (mut log_samples, start) = (LogSamples::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        // A thousand entries a second.
        for ms in (0..=5000).step_by(10) {
            log_samples.note(ms, at(ms));
        }
        assert!(log_samples.samples.len() <= 13, "{}", log_samples.samples.len());
        assert!(log_samples.is_caught_up(4700, 5000, at(5000)), "300 ms behind");
        assert!(!log_samples.is_caught_up(3800, 5000, at(5000)), "1.2 s behind");
        assert!(!log_samples.is_caught_up(0, 5, at(5000)), "it has nothing");
    }

    #[test]
    fn what_there_was_long_ago_says_nothing() {
        let (mut log_samples, start) = (LogSamples::default(), Instant::now());
        log_samples.note(0, start);
        log_samples.note(1_000_000, start + Duration::from_secs(10));
        assert!(!log_samples.is_caught_up(1, 1_000_000, start + Duration::from_millis(10_500)));
        assert!(log_samples.is_caught_up(
            1_000_000,
            1_100_000,
            start + Duration::from_millis(11_500)
        ));
    }

    #[test]
    fn without_samples_few_entries_may_lack() {
        let (log_samples, now) = (LogSamples::default(), Instant::now());
        assert!(log_samples.is_caught_up(84, 100, now));
        assert!(!log_samples.is_caught_up(83, 100, now));
    }
}
