//! Quiescence: a group of which nobody asks anything keeps its heartbeats further apart.
//!
//! Heartbeats are there so that a leader's silence is noticed. Those of groups that nobody asks
//! anything are most of what a quiet network costs, and there a silence need not be noticed as
//! soon. So a leader that was asked nothing for [`RESTS_AFTER`] says so with its heartbeat, and
//! sends one in [`QUIESCENT_SLOWDOWN`]. The times of all members are as much longer from then on
//! (see `time_scale.rs`), until the leader has something to say again: entries, or a heartbeat that
//! says it is awake, which it sends at once when it is asked something.
//!
//! That a process has died is found out in another way (see `tasks/failure_detector.rs`). When a
//! whole machine is gone, a resting group takes as much longer to notice.
//!
//! Deliberately missing: clocks. Moments are passed in.

use std::time::Duration;

use tokio::time::Instant;

/// Of so many heartbeats, a leader sends one while its group rests.
pub(crate) const QUIESCENT_SLOWDOWN: u32 = 5;
/// Heartbeats of a group that rests which may fail to come before its leader is gone: as many as in
/// the longest election time that there is by default.
const BEATS_MAX: u32 = 5;
/// Time without anything asked after which a group rests.
const RESTS_AFTER: Duration = Duration::from_secs(2);

/// Whether one replica's group rests, as plain data.
#[derive(Clone, Copy, Debug)]
pub(in crate::raft) struct Quiescence {
    /// When this replica was last asked something that its leader has to answer.
    asked: Instant,
    /// Whether a leader's heartbeats say that the group rests.
    says: bool,
    /// Whether times are those of rest; a leader's are for one heartbeat more.
    slow: Slow,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Slow {
    No,
    /// Once more: those to whom it says that it is awake have not answered yet, and by the times of
    /// a group that is awake they have been silent for too long.
    OnceMore,
    Yes,
}

impl Quiescence {
    pub(in crate::raft) fn new(now: Instant) -> Self {
        Self { asked: now, says: false, slow: Slow::No }
    }

    /// Something is asked. Returns whether that wakes the group: only its leader can.
    pub(in crate::raft) fn wake(&mut self, now: Instant) -> bool {
        self.asked = now;
        std::mem::take(&mut self.says)
    }

    /// Of a leader, whenever there is a heartbeat, `whole` if it is one that is sent at rest too.
    /// Returns whether to send it.
    pub(in crate::raft) fn beats(&mut self, whole: bool, now: Instant) -> bool {
        if now.saturating_duration_since(self.asked) < RESTS_AFTER {
            self.says = false;
            self.slow = if self.slow == Slow::Yes { Slow::OnceMore } else { Slow::No };
            return true;
        }
        self.slow = Slow::Yes;
        // The others must hear of it before they hear less.
        !std::mem::replace(&mut self.says, true) || whole
    }

    /// Of a follower whose leader was last heard then, if ever, and beats so often: it is not to be
    /// taken to rest if it is gone.
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

    /// The leader, or another who would lead, says whether the group rests. Returns whether that
    /// wakes it.
    pub(in crate::raft) fn told(&mut self, is_quiescent: bool) -> bool {
        let before =
            std::mem::replace(&mut self.slow, if is_quiescent { Slow::Yes } else { Slow::No });
        !is_quiescent && before != Slow::No
    }

    /// Whether a leader's heartbeats say that the group rests.
    pub(in crate::raft) fn says(&self) -> bool {
        self.says
    }

    /// Whether times are those of rest.
    pub(in crate::raft) fn is_slow(&self) -> bool {
        self.slow != Slow::No
    }

    /// Whether the group rests, and goes on to.
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
