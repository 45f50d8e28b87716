//! How fast a group's time passes: slower, the farther its members are.
//!
//! Raft's times have to be a few round trips long. openraft's are fixed when a group begins, and
//! nobody knows then how far apart its members will be. So each group has a [`TimeScale`]: what
//! openraft adds to a moment, or waits for, is stretched by it. Moments themselves are real ones,
//! so that a pace may change at any time. Times as they are set fit round trips of up to [`ROOM`]
//! of a heartbeat's patience, and are not stretched for these.
//!
//! The times of a group that rests are longer too, as its heartbeats are further apart (see
//! `rest.rs`).
//!
//! openraft asks its runtime for the time without saying for which group. The group is known from
//! the task: whatever a group's tasks start belongs to it too.
//!
//! Nothing that is promised rests on these times: they say when something is tried, not what holds.

use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task_local;
use tokio::time::Instant;

use super::quiescence::{QUIESCENT_SLOWDOWN, Quiescence};
use crate::common::ticks::Ticks;

/// Round trips that the time for the answer to a heartbeat must have room for.
const ROOM: f64 = 1.25;
/// Longest round trip that is reckoned with: whatever is longer has to do with its network, or with
/// a machine that does not get to its work.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(5);

task_local! {
    static PACE: TimeScale;
}

/// The pace of one group; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct TimeScale(Arc<TimeScaleInner>);

#[derive(Debug)]
struct TimeScaleInner {
    /// Time that the answer to a heartbeat has as things are set.
    patience: Duration,
    round_trip_us: AtomicU64,
    rest: Mutex<Quiescence>,
    /// Whether times are those of rest, for those who cannot wait for the lock.
    slow: AtomicBool,
    /// The node's, which is woken with the group.
    ticks: Ticks,
}

impl TimeScale {
    /// The pace of a group whose heartbeats have so much time to be answered.
    pub(crate) fn new(patience: Duration, ticks: Ticks) -> Self {
        let (round_trip_us, slow) = Default::default();
        let rest = Mutex::new(Quiescence::new(Instant::now()));
        Self(Arc::new(TimeScaleInner { patience, round_trip_us, rest, slow, ticks }))
    }

    /// Notes how far the farthest member is.
    pub(crate) fn set_round_trip(&self, round_trip: Duration) {
        let round_trip_us = round_trip.min(ROUND_TRIP_MAX).as_micros() as u64;
        self.0.round_trip_us.store(round_trip_us, Ordering::Relaxed);
    }

    /// How far the farthest member is, there and back.
    pub(crate) fn round_trip(&self) -> Duration {
        Duration::from_micros(self.0.round_trip_us.load(Ordering::Relaxed))
    }

    /// Something is asked of the group: it does not rest any more.
    pub(crate) fn wake(&self) {
        if self.rest(|rest| rest.wake(Instant::now())) {
            self.0.ticks.wake();
        }
    }

    /// Of a leader, whenever there is a heartbeat, `whole` if it is one that is sent at rest too:
    /// whether to send it.
    pub(crate) fn beats(&self, whole: bool) -> bool {
        self.rest(|rest| rest.beats(whole, Instant::now()))
    }

    /// Of a follower whose leader was last heard then, if ever, and beats so often when the group
    /// is awake: looks whether that is gone.
    pub(crate) fn miss(&self, heard: Option<Instant>, every: Duration) {
        let every = self.stretch(every);
        self.rest(|rest| rest.misses(heard, every, Instant::now()));
    }

    /// The leader, or another who would lead, says whether the group rests.
    pub(in crate::raft) fn told(&self, is_quiescent: bool) {
        if self.is_slow() != is_quiescent && self.rest(|rest| rest.told(is_quiescent)) {
            self.0.ticks.wake();
        }
    }

    /// What this leader's heartbeats say of it.
    pub(in crate::raft) fn says_rest(&self) -> bool {
        self.rest(|rest| rest.says())
    }

    /// Whether heartbeats are as far apart as they are at rest.
    pub(crate) fn is_slow(&self) -> bool {
        self.0.slow.load(Ordering::Relaxed)
    }

    /// Whether the group rests, and goes on to.
    pub(crate) fn is_quiescent(&self) -> bool {
        self.rest(|rest| rest.is_quiescent())
    }

    fn rest<T>(&self, change: impl FnOnce(&mut Quiescence) -> T) -> T {
        let mut rest = self.0.rest.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut rest);
        self.0.slow.store(rest.is_slow(), Ordering::Relaxed);
        result
    }

    /// Time that the answer to a heartbeat has.
    pub(crate) fn patience(&self) -> Duration {
        self.stretch(self.0.patience)
    }

    /// A time that was set, as it is for this group.
    pub(crate) fn stretch(&self, time: Duration) -> Duration {
        match self.factor() {
            Some(factor) => time.mul_f64(factor),
            None => time,
        }
    }

    /// The same of milliseconds.
    pub(crate) fn stretch_ms(&self, time_ms: u64) -> u64 {
        self.stretch(Duration::from_millis(time_ms)).as_millis() as u64
    }

    /// When a sleep ends that was to end then: those of groups that rest end together.
    fn end_of_sleep(&self, deadline: Instant) -> Instant {
        if self.is_slow() { self.0.ticks.at_rest(deadline) } else { deadline }
    }

    /// Runs what belongs to the group.
    pub(in crate::raft) async fn run<T>(&self, work: impl Future<Output = T>) -> T {
        PACE.scope(self.clone(), work).await
    }

    /// How many times longer everything takes, if it does.
    fn factor(&self) -> Option<f64> {
        let needed = self.round_trip().mul_f64(ROOM);
        let far = needed.as_secs_f64() / self.0.patience.as_secs_f64();
        let slow = if self.is_slow() { f64::from(QUIESCENT_SLOWDOWN) } else { 1.0 };
        Some(far.max(slow)).filter(|factor| *factor > 1.0)
    }
}

/// The pace of the group that this task belongs to.
pub(in crate::raft) fn current() -> Option<TimeScale> {
    PACE.try_with(Clone::clone).ok()
}

/// A time, as it is for the group that this task belongs to.
pub(in crate::raft) fn stretched(time: Duration) -> Duration {
    PACE.try_with(|time_scale| time_scale.stretch(time)).unwrap_or(time)
}

/// When a sleep of the group that this task belongs to ends that was to end then.
pub(in crate::raft) fn end_of_sleep(deadline: Moment) -> Instant {
    PACE.try_with(|time_scale| time_scale.end_of_sleep(deadline.0)).unwrap_or(deadline.0)
}

/// A time that has passed, as it would have to be set to be so long.
fn shrunk(time: Duration) -> Duration {
    let factor = PACE.try_with(TimeScale::factor).ok().flatten();
    factor.map_or(time, |factor| time.div_f64(factor))
}

/// A moment, to which openraft adds times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(in crate::raft) Instant);

impl Moment {
    /// How long ago it was, for everybody.
    pub(in crate::raft) fn age(&self) -> Duration {
        self.0.elapsed()
    }
}

impl openraft::Instant for Moment {
    fn now() -> Self {
        Self(Instant::now())
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0 + stretched(time))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    fn sub(self, time: Duration) -> Self {
        // A machine that has not been on for as long has no such moment.
        Self(self.0.checked_sub(stretched(time)).unwrap_or(self.0))
    }
}

impl Sub for Moment {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        shrunk(self.0.saturating_duration_since(earlier.0))
    }
}

impl AddAssign<Duration> for Moment {
    fn add_assign(&mut self, time: Duration) {
        *self = *self + time;
    }
}

impl SubAssign<Duration> for Moment {
    fn sub_assign(&mut self, time: Duration) {
        *self = *self - time;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn near_members_change_nothing_and_far_ones_stretch_everything() {
        let time_scale = TimeScale::new(ms(100), Ticks::default());
        for (round_trip, stretched) in
            [(0, 150), (1, 150), (80, 150), (160, 300), (1200, 2250), (600_000, 9375)]
        {
            time_scale.set_round_trip(ms(round_trip));
            assert_eq!(time_scale.stretch_ms(150), stretched, "{round_trip}");
        }
    }

    #[test]
    fn rest_stretches_everything_but_not_what_is_longer_already() {
        let time_scale = TimeScale::new(ms(100), Ticks::default());
        time_scale.told(true);
        assert_eq!(time_scale.stretch_ms(150), 750);
        time_scale.set_round_trip(ms(1200));
        assert_eq!(time_scale.stretch_ms(150), 2250);
        time_scale.told(false);
        time_scale.set_round_trip(ms(1));
        assert_eq!(time_scale.stretch_ms(150), 150);
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_of_a_group_is_that_of_its_tasks() {
        let time_scale = TimeScale::new(ms(100), Ticks::default());
        time_scale.set_round_trip(ms(160));
        let far = time_scale.clone();
        let (begun, later) = time_scale
            .run(async move {
                let begun = <Moment as openraft::Instant>::now();
                let spawned =
                    <crate::raft::runtime::Runtime as openraft::AsyncRuntime>::spawn(async move {
                        begun + ms(50)
                    });
                (begun, spawned.await.expect("no panic"))
            })
            .await;
        assert_eq!(later.0 - begun.0, ms(100));
        // Nobody else's.
        assert_eq!((begun + ms(50)).0 - begun.0, ms(50));
        assert_eq!(later - begun, ms(100));
        far.run(async {
            assert_eq!(later - begun, ms(50));
            assert_eq!(later.age(), ms(0));
            // It changes at once.
            time_scale.set_round_trip(ms(1));
            assert_eq!(later - begun, ms(100));
        })
        .await;
    }
}
