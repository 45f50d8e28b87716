//! When a node looks after what it looks after now and then, and when it beats.
//!
//! Many tasks look at something a few times in a second. Each by a clock of its own would wake the
//! processor at a time of its own; by shared ticks they do at moments that they share. While all
//! groups of a node rest, they share the few moments of [`AT_REST`], and all are woken when a group
//! wakes (see `raft/rest.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

/// Time between two moments while all groups rest.
const AT_REST: Duration = Duration::from_millis(250);

/// The ticks of one node; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Ticks(Arc<TicksInner>);

#[derive(Debug)]
struct TicksInner {
    began: Instant,
    /// Whether all groups of the node rest.
    rests: AtomicBool,
    beat: Notify,
    looks: Notify,
}

impl Default for Ticks {
    fn default() -> Self {
        let (rests, beat, looks) = Default::default();
        Self(Arc::new(TicksInner { began: Instant::now(), rests, beat, looks }))
    }
}

impl Ticks {
    /// A group wakes: so does everybody who sleeps here.
    pub(crate) fn wake(&self) {
        self.0.rests.store(false, Ordering::Relaxed);
        self.0.looks.notify_waiters();
        self.0.beat.notify_one();
    }

    /// Whether all groups rest, as the one says who gives the time for heartbeats.
    pub(crate) fn set_rests(&self, rests: bool) {
        self.0.rests.store(rests, Ordering::Relaxed);
    }

    /// Sleeps until then or until a group wakes: the one who gives the time for heartbeats, who is
    /// woken even if that was before.
    pub(crate) async fn until_beat(&self, until: Instant) {
        // Both ends are the same to it.
        let _ = timeout_at(until, self.0.beat.notified()).await;
    }

    /// Sleeps until the next of the moments that are so far apart; longer, if all groups rest, but
    /// then until one wakes at the latest.
    pub(crate) async fn pause(&self, every: Duration) {
        let every = if self.0.rests.load(Ordering::Relaxed) { every.max(AT_REST) } else { every };
        self.until(self.next(every, Instant::now())).await;
    }

    /// Sleeps until then, or until a group wakes.
    pub(crate) async fn until(&self, until: Instant) {
        tokio::select! {
            () = sleep_until(until) => {}
            () = self.0.looks.notified() => {}
        }
    }

    /// The first moment, from `from` on, of those that are shared by all while they rest.
    pub(crate) fn at_rest(&self, from: Instant) -> Instant {
        self.next(AT_REST, from)
    }

    /// The first of the moments that are so far apart after `now`.
    pub(crate) fn next(&self, every: Duration, now: Instant) -> Instant {
        let passed = now.saturating_duration_since(self.0.began).as_nanos();
        let rest = every.as_nanos() - passed % every.as_nanos().max(1);
        now + Duration::from_nanos(rest as u64) // no longer than `every`
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn those_who_look_equally_often_look_at_one_moment() {
        let (ticks, began) = (Ticks::default(), Instant::now());
        for (passed, next) in [(0, 100), (1, 100), (99, 100), (100, 200), (250, 300)] {
            assert_eq!(ticks.next(100 * MS, began + passed * MS), began + next * MS, "{passed}");
        }
        tokio::time::advance(30 * MS).await;
        ticks.pause(100 * MS).await;
        assert_eq!(began.elapsed(), 100 * MS);
    }

    #[tokio::test(start_paused = true)]
    async fn at_rest_there_are_few_moments_until_a_group_wakes() {
        let (ticks, began) = (Ticks::default(), Instant::now());
        ticks.set_rests(true);
        ticks.pause(10 * MS).await;
        assert_eq!(began.elapsed(), AT_REST);
        let waking = async {
            tokio::time::sleep(20 * MS).await;
            ticks.wake();
        };
        tokio::join!(ticks.pause(10 * MS), waking);
        assert_eq!(began.elapsed(), AT_REST + 20 * MS);
        // Who gives the time for heartbeats misses nothing.
        ticks.until_beat(began + 1000 * MS).await;
        ticks.pause(10 * MS).await;
        assert_eq!(began.elapsed(), AT_REST + 30 * MS);
    }
}
