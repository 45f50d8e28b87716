//! Quiescence: a group that receives no requests sends its heartbeats further apart.
//!
//! Heartbeats exist so that a leader's silence is noticed. Those of idle groups are most of what a
//! quiet network costs, and there a silence need not be noticed as soon. So a leader that received
//! no request for [`RESTS_AFTER`] says so with its heartbeat, and from then on sends only one
//! heartbeat in [`QUIESCENT_SLOWDOWN`]. The times of all members are longer by the same factor (see
//! `time_scaling.rs`), until the leader has something to say again: entries, or a heartbeat that
//! says that it is awake, which it sends at once when it receives a request.
//!
//! The death of a process is detected in another way (see `tasks/failure_detector.rs`). When a
//! whole machine is gone, a quiescent group takes longer to notice, by the same factor.
//!
//! Deliberately missing: clocks. Moments are passed in.

use std::time::Duration;

use tokio::time::Instant;

/// The leader of a quiescent group sends one of this many heartbeats.
pub(crate) const QUIESCENT_SLOWDOWN: u32 = 5;
/// Most heartbeats of a quiescent group that may fail to arrive before its leader counts as gone:
/// as many as in the longest default election time.
const BEATS_MAX: u32 = 5;
/// Time without requests after which a group becomes quiescent.
const RESTS_AFTER: Duration = Duration::from_secs(2);

/// Quiescence of the group as one of its replicas sees it, as plain data.
#[derive(Clone, Copy, Debug)]
pub(in crate::raft) struct Quiescence {
    /// When this replica last received a request that its leader has to answer.
    asked: Instant,
    /// Whether a leader's heartbeats say that the group is quiescent.
    says: bool,
    /// Whether times are those of a quiescent group; a leader's remain so for one heartbeat more.
    slow: Slow,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Slow {
    No,
    /// For one heartbeat more: the members that learn from it that the group is awake have not
    /// answered yet, and by the times of a group that is awake they have been silent for too long.
    OnceMore,
    Yes,
}

impl Quiescence {
    pub(in crate::raft) fn new(now: Instant) -> Self {
        Self { asked: now, says: false, slow: Slow::No }
    }

    /// Records a request. Returns whether it wakes the group: only a request to its leader can.
    pub(in crate::raft) fn wake(&mut self, now: Instant) -> bool {
        self.asked = now;
        std::mem::take(&mut self.says)
    }

    /// Decides whether a leader sends the heartbeat that is due; `whole` says that a quiescent
    /// group sends this one too.
    pub(in crate::raft) fn beats(&mut self, whole: bool, now: Instant) -> bool {
        if now.saturating_duration_since(self.asked) < RESTS_AFTER {
            self.says = false;
            self.slow = if self.slow == Slow::Yes { Slow::OnceMore } else { Slow::No };
            return true;
        }
        self.slow = Slow::Yes;
        // The others must learn of it before they receive fewer heartbeats.
        !std::mem::replace(&mut self.says, true) || whole
    }

    /// Ends quiescence on a follower if its leader is gone, so that a leader that is gone does not
    /// pass for a quiescent one. The leader was last heard at `heard`, if ever, and sends a
    /// heartbeat every `every`.
    pub(in crate::raft) fn misses(
        &mut self,
        heard: Option<Instant>,
        every: Duration,
        now: Instant,
    ) {
        let silence = heard.map(|heard| now.saturating_duration_since(heard));
        if silence.is_none_or(|silence| silence > BEATS_MAX * every) {
            self.told(false);
        }
    }

    /// Records whether the group is quiescent, as the leader, or a node that would lead, says.
    /// Returns whether that wakes the replica.
    pub(in crate::raft) fn told(&mut self, is_quiescent: bool) -> bool {
        let before =
            std::mem::replace(&mut self.slow, if is_quiescent { Slow::Yes } else { Slow::No });
        !is_quiescent && before != Slow::No
    }

    /// Returns whether a leader's heartbeats say that the group is quiescent.
    pub(in crate::raft) fn says(&self) -> bool {
        self.says
    }

    /// Returns whether times are those of a quiescent group.
    pub(in crate::raft) fn is_slow(&self) -> bool {
        self.slow != Slow::No
    }

    /// Returns whether the group is quiescent and remains so.
    pub(in crate::raft) fn is_quiescent(&self) -> bool {
        self.slow == Slow::Yes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_millis(50);
    const SLOWEST: Duration = Duration::from_millis(250);

    #[test]
    fn a_leader_rests_when_it_is_asked_nothing_and_says_so_first() {
        let now = Instant::now();
        let mut rest = Quiescence::new(now);
        assert!(rest.beats(false, now) && !rest.says() && !rest.is_slow());
        let later = now + RESTS_AFTER;
        assert!(rest.beats(false, later) && rest.says() && rest.is_slow(), "it says so");
        assert!(!rest.beats(false, later), "and then it rests");
        assert!(rest.beats(true, later));
    }

    #[test]
    fn a_leader_that_is_asked_something_wakes_and_gives_the_others_time_to_answer() {
        let now = Instant::now();
        let mut rest = Quiescence::new(now);
        let later = now + RESTS_AFTER;
        rest.beats(true, later);
        assert!(rest.wake(later), "it wakes");
        assert!(!rest.says() && rest.is_slow());
        assert!(!rest.wake(later), "it is on its way already");
        assert!(rest.beats(false, later) && rest.is_slow(), "nobody has answered yet");
        assert!(!rest.is_quiescent());
        assert!(rest.beats(false, later + EVERY) && !rest.is_slow());
        assert!(!rest.wake(later + EVERY), "it is awake");
    }

    #[test]
    fn a_leader_that_has_not_been_heard_for_long_does_not_rest_but_is_gone() {
        let heard = Instant::now();
        let mut rest = Quiescence::new(heard - Duration::from_secs(10));
        rest.told(true);
        rest.misses(Some(heard), SLOWEST, heard + BEATS_MAX * SLOWEST);
        assert!(rest.is_slow());
        rest.misses(Some(heard), SLOWEST, heard + BEATS_MAX * SLOWEST + EVERY);
        assert!(!rest.is_slow());
        rest.told(true);
        rest.misses(None, SLOWEST, heard);
        assert!(!rest.is_slow(), "it was never heard");
    }

    #[test]
    fn who_leads_says_whether_the_group_rests() {
        let mut rest = Quiescence::new(Instant::now());
        assert!(!rest.told(true) && rest.is_quiescent());
        assert!(rest.told(false) && !rest.is_quiescent());
        assert!(!rest.told(false), "it is awake already");
    }
}
