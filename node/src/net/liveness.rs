//! The time of the last message of another node, and the length at which its silence is unusual.
//!
//! A busy leader sends many messages per millisecond, an idle one sends one per heartbeat. So the
//! pauses before a silence determine when it counts as unusual.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dkv_base::sync::lock;
use tokio::time::Instant;

/// Shortest silence that ever counts as unusual: an fsync may take that long.
const PATIENCE_MIN: Duration = Duration::from_millis(10);
/// Number of usual pauses in a row that make a silence.
const PAUSES: u32 = 4;

/// The message timing of one node: plain data, shared by the streams that the node sends on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Liveness(Arc<Mutex<State>>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    last: Option<Instant>,
    /// Smoothed time between two messages.
    pause: Duration,
}

impl Liveness {
    /// Records the arrival of a message.
    pub(crate) fn heard(&self, now: Instant) {
        let mut state = lock(&self.0);
        if let Some(last) = state.last {
            state.pause = (state.pause * 7 + now.saturating_duration_since(last)) / 8;
        }
        state.last = Some(now);
    }

    /// Returns the time of the last message, or `None` if there was none.
    pub(crate) fn last_heard(&self) -> Option<Instant> {
        lock(&self.0).last
    }

    /// Returns the time at which the silence of this node becomes, or became, unusual, if it is
    /// expected to send a message every `heartbeat`. `None` if it was never heard.
    pub(crate) fn silent_at(&self, heartbeat: Duration) -> Option<Instant> {
        let state = *lock(&self.0);
        let longest = (heartbeat * 4 / 3).max(PATIENCE_MIN);
        Some(state.last? + (state.pause * PAUSES).clamp(PATIENCE_MIN, longest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARTBEAT: Duration = Duration::from_millis(30);

    fn after(pauses: &[u64]) -> Duration {
        let (liveness, mut now) = (Liveness::default(), Instant::now());
        liveness.heard(now);
        for pause in pauses {
            now += Duration::from_millis(*pause);
            liveness.heard(now);
        }
        liveness.silent_at(HEARTBEAT).expect("it was heard") - now
    }

    #[test]
    fn a_node_that_was_never_heard_is_not_silent() {
        assert_eq!(Liveness::default().silent_at(HEARTBEAT), None);
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
