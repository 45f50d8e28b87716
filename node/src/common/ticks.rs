//! Shared ticks for the periodic tasks of a node and for its heartbeats.
//!
//! Many tasks check something a few times a second. With a timer each, they would wake the
//! processor at as many different times; with shared ticks they wake together. While all groups of
//! a node are quiescent, the tasks share the few ticks of [`WHILE_QUIESCENT`], and all of them wake
//! when a group wakes (see `raft/heartbeat/quiescence.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

/// Time between two ticks while all groups are quiescent.
const WHILE_QUIESCENT: Duration = Duration::from_millis(250);

/// The ticks of one node. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Ticks(Arc<TicksInner>);

#[derive(Debug)]
struct TicksInner {
    began: Instant,
    /// Whether all groups of the node are quiescent.
    all_quiescent: AtomicBool,
    beat: Notify,
    looks: Notify,
}

impl Default for Ticks {
    fn default() -> Self {
        let (all_quiescent, beat, looks) = Default::default();
        Self(Arc::new(TicksInner { began: Instant::now(), all_quiescent, beat, looks }))
    }
}

impl Ticks {
    /// Wakes every task that sleeps here, because a group wakes.
    pub(crate) fn wake(&self) {
        self.0.all_quiescent.store(false, Ordering::Relaxed);
        self.0.looks.notify_waiters();
        self.0.beat.notify_one();
    }

    /// Sets whether all groups are quiescent. Only the heartbeat task calls this.
    pub(crate) fn set_quiescent(&self, all_quiescent: bool) {
        self.0.all_quiescent.store(all_quiescent, Ordering::Relaxed);
    }

    /// Sleeps until `until` or until a group wakes. Only the heartbeat task calls this; a wake that
    /// came before the call ends the sleep too.
    pub(crate) async fn until_beat(&self, until: Instant) {
        // A timeout and a wake-up have the same effect.
        let _ = timeout_at(until, self.0.beat.notified()).await;
    }

    /// Sleeps until the next tick of the period `every`. If all groups are quiescent, the sleep is
    /// longer, but ends when a group wakes at the latest.
    pub(crate) async fn pause(&self, every: Duration) {
        let every = if self.0.all_quiescent.load(Ordering::Relaxed) {
            every.max(WHILE_QUIESCENT)
        } else {
            every
        };
        self.until(self.next(every, Instant::now())).await;
    }

    /// Sleeps until `until`, or until a group wakes.
    pub(crate) async fn until(&self, until: Instant) {
        tokio::select! {
            biased;
            () = sleep_until(until) => {}
            () = self.0.looks.notified() => {}
        }
    }

    /// Returns the first resting tick at or after `from`.
    pub(crate) fn while_quiescent(&self, from: Instant) -> Instant {
        self.next(WHILE_QUIESCENT, from)
    }

    /// Returns the first tick of the period `every` after `now`.
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
    async fn while_quiescent_there_are_few_moments_until_a_group_wakes() {
        let (ticks, began) = (Ticks::default(), Instant::now());
        ticks.set_quiescent(true);
        ticks.pause(10 * MS).await;
        assert_eq!(began.elapsed(), WHILE_QUIESCENT);
        let waking = async {
            tokio::time::sleep(20 * MS).await;
            ticks.wake();
        };
        tokio::join!(ticks.pause(10 * MS), waking);
        assert_eq!(began.elapsed(), WHILE_QUIESCENT + 20 * MS);
        // The heartbeat task misses no wake-up.
        ticks.until_beat(began + 1000 * MS).await;
        ticks.pause(10 * MS).await;
        assert_eq!(began.elapsed(), WHILE_QUIESCENT + 30 * MS);
    }
}
