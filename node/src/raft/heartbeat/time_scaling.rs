//! Time scale of a group: the farther its members are, the slower its time passes.
//!
//! Raft's timeouts have to be a few round trips long. openraft's are fixed when a group starts,
//! when the distance between its future members is unknown. So each group has a [`TimeScale`],
//! which stretches the times that openraft adds to a moment or waits for. Moments themselves are
//! real ones, so that the scale may change at any time. The configured times fit round trips of up
//! to [`ROOM`] of a heartbeat's patience, and are not stretched for these.
//!
//! The times of a quiescent group are longer too, because its heartbeats are further apart (see
//! `quiescence.rs`).
//!
//! openraft asks its runtime for the time without naming the group. The task identifies the group:
//! every task that a group's task spawns belongs to the same group.
//!
//! No guarantee depends on these times: they determine when something is tried, not what holds.

use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dkv_base::sync::lock;
use tokio::task_local;
use tokio::time::Instant;

use super::quiescence::{QUIESCENT_SLOWDOWN, Quiescence};
use crate::common::ticks::Ticks;

/// Number of round trips that must fit into the time for the answer to a heartbeat.
const ROOM: f64 = 1.25;
/// Longest round trip taken into account: anything longer is due to a fault of the network, or to
/// an overloaded machine.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(5);

task_local! {
    static PACE: TimeScale;
}

/// The time scale of one group; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct TimeScale(Arc<TimeScaleInner>);

#[derive(Debug)]
struct TimeScaleInner {
    /// Time that the answer to a heartbeat has, as configured.
    patience: Duration,
    round_trip_us: AtomicU64,
    quiescence: Mutex<Quiescence>,
    /// Whether times are those of a quiescent group, for readers that cannot wait for the lock.
    slow: AtomicBool,
    /// The ticks of the node, which wake together with the group.
    ticks: Ticks,
}

impl TimeScale {
    /// Creates the time scale of a group whose heartbeats must be answered within `patience`.
    pub(crate) fn new(patience: Duration, ticks: Ticks) -> Self {
        let (round_trip_us, slow) = Default::default();
        let quiescence = Mutex::new(Quiescence::new(Instant::now()));
        Self(Arc::new(TimeScaleInner { patience, round_trip_us, quiescence, slow, ticks }))
    }

    /// Sets the round-trip time to the farthest member.
    pub(crate) fn set_round_trip(&self, round_trip: Duration) {
        let round_trip_us = round_trip.min(ROUND_TRIP_MAX).as_micros() as u64;
        self.0.round_trip_us.store(round_trip_us, Ordering::Relaxed);
    }

    /// Returns the round-trip time to the farthest member.
    pub(crate) fn round_trip(&self) -> Duration {
        Duration::from_micros(self.0.round_trip_us.load(Ordering::Relaxed))
    }

    /// Ends quiescence, because the group has received a request.
    pub(crate) fn wake(&self) {
        if self.quiescence(|quiescence| quiescence.wake(Instant::now())) {
            self.0.ticks.wake();
        }
    }

    /// Returns whether a leader sends the heartbeat that is due; `whole` says that a quiescent
    /// group sends this one too.
    pub(crate) fn beats(&self, whole: bool) -> bool {
        self.quiescence(|quiescence| quiescence.beats(whole, Instant::now()))
    }

    /// Ends quiescence on a follower if its leader is gone. The leader was last heard at `heard`,
    /// if ever, and sends a heartbeat every `every` when the group is awake.
    pub(crate) fn miss(&self, heard: Option<Instant>, every: Duration) {
        let every = self.stretch(every);
        self.quiescence(|quiescence| quiescence.misses(heard, every, Instant::now()));
    }

    /// Records whether the group is quiescent, as the leader, or a node that would lead, says.
    pub(in crate::raft) fn told(&self, is_quiescent: bool) {
        if self.is_slow() != is_quiescent
            && self.quiescence(|quiescence| quiescence.told(is_quiescent))
        {
            self.0.ticks.wake();
        }
    }

    /// Returns whether this leader's heartbeats say that the group is quiescent.
    pub(in crate::raft) fn says_quiescence(&self) -> bool {
        self.quiescence(|quiescence| quiescence.says())
    }

    /// Returns whether heartbeats are as far apart as in a quiescent group.
    pub(crate) fn is_slow(&self) -> bool {
        self.0.slow.load(Ordering::Relaxed)
    }

    /// Returns whether the group is quiescent and remains so.
    pub(crate) fn is_quiescent(&self) -> bool {
        self.quiescence(|quiescence| quiescence.is_quiescent())
    }

    fn quiescence<T>(&self, change: impl FnOnce(&mut Quiescence) -> T) -> T {
        let mut quiescence = lock(&self.0.quiescence);
        let result = change(&mut quiescence);
        self.0.slow.store(quiescence.is_slow(), Ordering::Relaxed);
        result
    }

    /// Returns the time that the answer to a heartbeat has.
    pub(crate) fn patience(&self) -> Duration {
        self.stretch(self.0.patience)
    }

    /// Stretches a configured time to this group's scale.
    pub(crate) fn stretch(&self, time: Duration) -> Duration {
        match self.factor() {
            Some(factor) => time.mul_f64(factor),
            None => time,
        }
    }

    /// Stretches a configured time in milliseconds.
    pub(crate) fn stretch_ms(&self, time_ms: u64) -> u64 {
        self.stretch(Duration::from_millis(time_ms)).as_millis() as u64
    }

    /// Returns when a sleep ends that was to end at `deadline`: the sleeps of quiescent groups end
    /// together.
    fn end_of_sleep(&self, deadline: Instant) -> Instant {
        if self.is_slow() { self.0.ticks.while_quiescent(deadline) } else { deadline }
    }

    /// Runs `work` as part of the group.
    pub(in crate::raft) async fn run<T>(&self, work: impl Future<Output = T>) -> T {
        PACE.scope(self.clone(), work).await
    }

    /// Returns the factor by which all times are longer, if it is more than one.
    fn factor(&self) -> Option<f64> {
        let needed = self.round_trip().mul_f64(ROOM);
        let far = needed.as_secs_f64() / self.0.patience.as_secs_f64();
        let slow = if self.is_slow() { f64::from(QUIESCENT_SLOWDOWN) } else { 1.0 };
        Some(far.max(slow)).filter(|factor| *factor > 1.0)
    }
}

/// Returns the time scale of the group that this task belongs to.
pub(in crate::raft) fn current() -> Option<TimeScale> {
    PACE.try_with(Clone::clone).ok()
}

/// Stretches a time to the scale of the group that this task belongs to.
pub(in crate::raft) fn stretched(time: Duration) -> Duration {
    PACE.try_with(|time_scale| time_scale.stretch(time)).unwrap_or(time)
}

/// Returns when a sleep that was to end at `deadline` ends in the group that this task belongs to.
pub(in crate::raft) fn end_of_sleep(deadline: Moment) -> Instant {
    PACE.try_with(|time_scale| time_scale.end_of_sleep(deadline.0)).unwrap_or(deadline.0)
}

/// Converts an elapsed time to the configured time that would be stretched to it.
fn shrunk(time: Duration) -> Duration {
    let factor = PACE.try_with(TimeScale::factor).ok().flatten();
    factor.map_or(time, |factor| time.div_f64(factor))
}

/// A moment to which openraft adds times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(in crate::raft) Instant);

impl Moment {
    /// Returns how long ago the moment was, independent of any group's scale.
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
        // A machine that has been on for less time has no such moment.
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
        // Outside the group's tasks, times are not stretched.
        assert_eq!((begun + ms(50)).0 - begun.0, ms(50));
        assert_eq!(later - begun, ms(100));
        far.run(async {
            assert_eq!(later - begun, ms(50));
            assert_eq!(later.age(), ms(0));
            // A new scale takes effect at once.
            time_scale.set_round_trip(ms(1));
            assert_eq!(later - begun, ms(100));
        })
        .await;
    }
}
