//! Rest: a group of which nobody asks anything keeps its heartbeats further apart.
//!
//! Heartbeats are there so that a leader's silence is noticed. Those of groups that nobody asks anything are most
//! of what a quiet network costs, and there a silence need not be noticed as soon. So a leader that was asked nothing
//! for [`RESTS_AFTER`] says so with its heartbeat, and sends one in [`SLOWER`]. The times of all members are as much
//! longer from then on (see `pace.rs`), until the leader has something to say again: entries, or a heartbeat
//! that says it is awake, which it sends at once when it is asked something.
//!
//! That a process has died is found out in another way (see `lookout.rs`). When a whole machine is gone, a resting
//! group would take longer to notice; so a follower that is asked something does not wait for it: if its leader is not
//! heard in time, it no longer takes it to be resting.
//!
//! Deliberately missing: clocks. Moments are passed in.

use std::time::Duration;

use tokio::time::Instant;

/// Of so many heartbeats, a leader sends one while its group rests.
pub(crate) const SLOWER: u32 = 5;
/// Heartbeats of a group that rests which may fail to come before its leader is gone: as many as in the longest election
/// time that there is by default.
const BEATS_MAX: u32 = 5;
/// Time without anything asked after which a group rests.
const RESTS_AFTER: Duration = Duration::from_secs(2);

/// Whether one replica's group rests, as plain data.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
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
    /// Once more: those to whom it says that it is awake have not answered yet, and by the times of a group that is
    /// awake they have been silent for too long.
    OnceMore,
    Yes,
}

impl Rest {
    pub(super) fn new(now: Instant) -> Self {
        Self { asked: now, says: false, slow: Slow::No }
    }

    /// Something is asked. Returns whether that wakes the group.
    pub(super) fn stir(&mut self, now: Instant) -> bool {
        let undisturbed = self.is_undisturbed(now);
        self.asked = now;
        std::mem::take(&mut self.says) || undisturbed
    }

    /// Of a leader, whenever there is a heartbeat, `whole` if it is one that is sent at rest too. Returns
    /// whether to send it.
    pub(super) fn beats(&mut self, whole: bool, now: Instant) -> bool {
        if now.saturating_duration_since(self.asked) < RESTS_AFTER {
            self.says = false;
            self.slow = if self.slow == Slow::Yes { Slow::OnceMore } else { Slow::No };
            return true;
        }
        self.slow = Slow::Yes;
        // The others must hear of it before they hear less.
        !std::mem::replace(&mut self.says, true) || whole
    }

    /// Of a follower, as often as its leader beats when it is awake, which is every `every`, while now it may be every
    /// `slowest`: `heard` is when it was last heard, if ever. Returns whether it is not to be taken to rest any more, as it
    /// is gone, or is missed by those who ask.
    pub(super) fn misses(
        &mut self,
        heard: Option<Instant>,
        every: Duration,
        slowest: Duration,
        now: Instant,
    ) -> bool {
        let passed = |since| now.saturating_duration_since(since);
        let unanswered =
            heard.is_none_or(|heard| heard < self.asked) && passed(self.asked) > 2 * every;
        let gone = heard.is_none_or(|heard| passed(heard) > BEATS_MAX * slowest);
        (unanswered || gone) && self.told(false)
    }

    /// The leader, or another who would lead, says whether the group rests. Returns whether that wakes it.
    pub(super) fn told(&mut self, rests: bool) -> bool {
        let before = std::mem::replace(&mut self.slow, if rests { Slow::Yes } else { Slow::No });
        !rests && before != Slow::No
    }

    /// Whether a leader's heartbeats say that the group rests.
    pub(super) fn says(&self) -> bool {
        self.says
    }

    /// Whether times are those of rest.
    pub(super) fn is_slow(&self) -> bool {
        self.slow != Slow::No
    }

    /// Whether nobody waits for the leader.
    pub(super) fn is_undisturbed(&self, now: Instant) -> bool {
        self.is_slow() && now.saturating_duration_since(self.asked) >= RESTS_AFTER
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
        let mut rest = Rest::new(now);
        assert!(rest.beats(false, now) && !rest.says() && !rest.is_slow());
        let later = now + RESTS_AFTER;
        assert!(rest.beats(false, later) && rest.says() && rest.is_slow(), "it says so");
        assert!(!rest.beats(false, later), "and then it rests");
        assert!(rest.beats(true, later));
    }

    #[test]
    fn a_leader_that_is_asked_something_wakes_and_gives_the_others_time_to_answer() {
        let now = Instant::now();
        let mut rest = Rest::new(now);
        let later = now + RESTS_AFTER;
        rest.beats(true, later);
        assert!(rest.stir(later), "it wakes");
        assert!(!rest.says() && rest.is_slow());
        assert!(!rest.stir(later), "it is on its way already");
        assert!(rest.beats(false, later) && rest.is_slow(), "nobody has answered yet");
        assert!(rest.beats(false, later + EVERY) && !rest.is_slow());
        assert!(!rest.stir(later + EVERY), "it is awake");
    }

    #[test]
    fn a_follower_that_is_asked_something_does_not_wait_for_a_leader_that_is_gone() {
        let start = Instant::now();
        let mut rest = Rest::new(start);
        rest.told(true);
        let heard = Some(start + Duration::from_secs(10));
        let asked = start + Duration::from_millis(10_020);
        assert!(!rest.misses(heard, EVERY, SLOWEST, asked), "nobody asks");
        rest.stir(asked);
        assert!(!rest.misses(heard, EVERY, SLOWEST, asked + 2 * EVERY), "it may answer yet");
        let mut answered = rest;
        assert!(
            !answered.misses(Some(asked), EVERY, SLOWEST, asked + 3 * EVERY) && answered.is_slow()
        );
        assert!(rest.misses(heard, EVERY, SLOWEST, asked + 3 * EVERY) && !rest.is_slow());
    }

    #[test]
    fn a_leader_that_has_not_been_heard_for_long_does_not_rest_but_is_gone() {
        let heard = Instant::now();
        let mut rest = Rest::new(heard - Duration::from_secs(10));
        rest.told(true);
        let election = BEATS_MAX * SLOWEST;
        assert!(!rest.misses(Some(heard), EVERY, SLOWEST, heard + election) && rest.is_slow());
        assert!(
            rest.misses(Some(heard), EVERY, SLOWEST, heard + election + EVERY) && !rest.is_slow()
        );
    }

    #[test]
    fn who_leads_says_whether_the_group_rests() {
        let now = Instant::now();
        let mut rest = Rest::new(now);
        assert!(!rest.told(true) && rest.is_slow());
        assert!(rest.told(false) && !rest.is_slow());
        assert!(!rest.told(false), "it is awake already");
        assert!(!rest.is_undisturbed(now + RESTS_AFTER));
        rest.told(true);
        assert!(rest.is_undisturbed(now + RESTS_AFTER) && !rest.is_undisturbed(now));
    }
}
