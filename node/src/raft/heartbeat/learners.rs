//! Heartbeats that a learner is spared.
//!
//! A heartbeat keeps voters from standing for election, and confirms a leader to itself. Of a
//! learner it asks nothing but whether it is there. In a network of many nodes nearly all follow
//! the control group as learners, and each would cost every node, and the coordinator as many times
//! over, a packet, its answer and what both wake. So a learner that has answered is left alone for
//! a while.

use std::time::Duration;

use tokio::time::Instant;

/// Time for which a learner that has answered is sent no further heartbeat.
pub(in crate::raft) const SPARED_FOR: Duration = Duration::from_millis(500);

/// What one member was sent, as plain data.
#[derive(Debug, Default)]
pub(in crate::raft) struct Sparing {
    /// When the heartbeat was sent that the member answered last.
    answered: Option<Instant>,
}

impl Sparing {
    /// Whether a heartbeat need not be sent now. A voter is never spared: an election, or a read,
    /// may hang on its answer.
    pub(in crate::raft) fn spares(&self, votes: bool, now: Instant) -> bool {
        let rests = |sent| now.saturating_duration_since(sent) < SPARED_FOR;
        !votes && self.answered.is_some_and(rests)
    }

    /// What was sent then has been answered.
    pub(in crate::raft) fn answered(&mut self, sent: Instant) {
        self.answered = Some(sent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_learner_that_answered_lately_is_spared() {
        let (mut sparing, start) = (Sparing::default(), Instant::now());
        assert!(!sparing.spares(false, start), "it has never answered");
        sparing.answered(start);
        let just_before = start + SPARED_FOR - Duration::from_millis(1);
        assert!(sparing.spares(false, just_before));
        assert!(!sparing.spares(true, just_before), "it votes");
        assert!(!sparing.spares(false, start + SPARED_FOR));
    }
}
