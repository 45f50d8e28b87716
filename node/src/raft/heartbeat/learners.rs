//! Heartbeats that a learner does not need.
//!
//! A heartbeat keeps voters from standing for election, and confirms to a leader that it still
//! leads. To a learner it is only a check whether the learner is there. In a network of many nodes
//! nearly all follow the control group as learners. Each heartbeat would cost each of these nodes,
//! and the coordinator as many times over, a packet, its answer and two wake-ups. So a leader sends
//! no heartbeats for a while to a learner that has answered.

use std::time::Duration;

use tokio::time::Instant;

/// Time for which a learner that has answered is sent no further heartbeat.
pub(in crate::raft) const LEARNER_SILENCE_MAX: Duration = Duration::from_millis(500);

/// The heartbeats of one member, as plain data.
#[derive(Debug, Default)]
pub(in crate::raft) struct LearnerHeartbeats {
    /// When the last answered heartbeat was sent.
    answered: Option<Instant>,
}

impl LearnerHeartbeats {
    /// Returns whether a heartbeat can be skipped now. A voter's never can: an election, or a read,
    /// may depend on its answer.
    pub(in crate::raft) fn may_skip(&self, votes: bool, now: Instant) -> bool {
        let is_quiescent = |sent| now.saturating_duration_since(sent) < LEARNER_SILENCE_MAX;
        !votes && self.answered.is_some_and(is_quiescent)
    }

    /// Records that the heartbeat sent at `sent` was answered.
    pub(in crate::raft) fn answered(&mut self, sent: Instant) {
        self.answered = Some(sent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_learner_that_answered_lately_is_spared() {
        let (mut learner_heartbeats, start) = (LearnerHeartbeats::default(), Instant::now());
        assert!(!learner_heartbeats.may_skip(false, start), "it has never answered");
        learner_heartbeats.answered(start);
        let just_before = start + LEARNER_SILENCE_MAX - Duration::from_millis(1);
        assert!(learner_heartbeats.may_skip(false, just_before));
        assert!(!learner_heartbeats.may_skip(true, just_before), "it votes");
        assert!(!learner_heartbeats.may_skip(false, start + LEARNER_SILENCE_MAX));
    }
}
