//! When another node was last heard, and how long a silence of it is out of the ordinary.
//!
//! A leader that has work speaks many times in a millisecond, an idle one once a heartbeat. So a
//! silence is measured by what came before it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Shortest silence that is ever out of the ordinary: a disk may take that long for a sync.
const PATIENCE_MIN: Duration = Duration::from_millis(10);
/// Usual pauses in a row that make a silence.
const PAUSES: u32 = 4;

/// How one node speaks: plain data, shared by the streams that it speaks on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hearing(Arc<Mutex<State>>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    last: Option<Instant>,
    /// Smoothed time between two messages.
    pause: Duration,
}

impl Hearing {
    /// A message has come.
    pub(crate) fn heard(&self, now: Instant) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = state.last {
            state.pause = (state.pause * 7 + now.saturating_duration_since(last)) / 8;
        }
        state.last = Some(now);
    }

    /// When it was last heard, if ever.
    pub(crate) fn last_heard(&self) -> Option<Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).last
    }

    /// When the silence of this node will be, or was, out of the ordinary, if one that is told to
    /// speak every `heartbeat` is not heard until then. `None` if it was never heard.
    pub(crate) fn silent_at(&self, heartbeat: Duration) -> Option<Instant> {
        let state = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let longest = (heartbeat * 4 / 3).max(PATIENCE_MIN);
        Some(state.last? + (state.pause * PAUSES).clamp(PATIENCE_MIN, longest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARTBEAT: Duration = Duration::from_millis(30);

    fn after(pauses: &[u64]) -> Duration {
        let (hearing, mut now) = (Hearing::default(), Instant::now());
        hearing.heard(now);
        for pause in pauses {
            now += Duration::from_millis(*pause);
            hearing.heard(now);
        }
        hearing.silent_at(HEARTBEAT).expect("it was heard") - now
    }

    #[test]
    fn a_node_that_was_never_heard_is_not_silent() {
        assert_eq!(Hearing::default().silent_at(HEARTBEAT), None);
    }

    #[test]
    fn an_idle_leader_may_miss_no_more_than_one_heartbeat() {
        assert_eq!(after(&[30; 50]), Duration::from_millis(40));
    }

    #[test]
    fn a_busy_leader_is_missed_at_once() {
        assert_eq!(after(&[1; 50]), PATIENCE_MIN);
    }

    #[test]
    fn a_leader_that_becomes_idle_is_given_time() {
        let mut pauses = vec![1; 50];
        pauses.extend([30; 4]);
        assert!(after(&pauses) >= Duration::from_millis(35), "{:?}", after(&pauses));
    }
}
