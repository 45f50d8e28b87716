//! A window of concurrent operations in flight, each of which takes a round trip to other nodes.
//!
//! Among nearby members a few operations are in flight at a time, and requests that arrive
//! meanwhile share the next. Over long distances a request that just missed one would wait for a
//! whole one, so there more begin before the last has ended: once a small part of the duration of
//! one has passed, and up to a bound.
//!
//! Deliberately missing: clocks. The caller passes the time in.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Most operations in flight at once.
pub(crate) const UNDER_WAY_MAX: usize = 16;
/// Shortest time between the beginnings of two operations while as many are in flight as begin
/// without a pause. A round between nearby members takes a small part of it.
const APART_MIN: Duration = Duration::from_millis(5);

/// When the next operation may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NextStart {
    Now,
    At(Instant),
    /// Not before one has ended.
    Later,
}

impl NextStart {
    /// The moment to wait for, if there is one.
    pub(crate) fn at(self) -> Option<Instant> {
        if let Self::At(at) = self { Some(at) } else { None }
    }
}

/// The state of the operations in flight.
#[derive(Debug)]
pub(crate) struct InFlightWindow {
    /// Number of operations that begin without a pause.
    at_once: usize,
    under_way: usize,
    /// When the last one began.
    begun: Option<Instant>,
    /// Duration of the one that ended last.
    took: Duration,
}

impl InFlightWindow {
    pub(crate) fn new(at_once: usize) -> Self {
        Self { at_once, under_way: 0, begun: None, took: Duration::ZERO }
    }

    /// Returns when the next operation may begin, if at most `most` may be in flight.
    pub(crate) fn next(&self, most: usize, now: Instant) -> NextStart {
        let is_busy = self.under_way >= self.at_once;
        let Some(begun) = self.begun.filter(|_| is_busy) else { return NextStart::Now };
        if self.under_way >= most {
            return NextStart::Later;
        }
        let at = begun + APART_MIN.max(self.took / UNDER_WAY_MAX as u32);
        if at <= now { NextStart::Now } else { NextStart::At(at) }
    }

    /// Records that an operation begins.
    pub(crate) fn begins(&mut self, now: Instant) {
        self.under_way += 1;
        self.begun = Some(now);
    }

    /// Records that an operation that took `took` has ended.
    pub(crate) fn ends(&mut self, took: Duration) {
        self.under_way -= 1;
        self.took = took;
    }
}

/// Sleeps until `at`, if there is such a moment.
pub(crate) async fn until(at: Option<Instant>) {
    if let Some(at) = at {
        sleep_until(at).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR: Duration = Duration::from_millis(400);

    #[test]
    fn as_many_as_may_are_under_way_and_no_more() {
        let (mut window, mut now) = (InFlightWindow::new(1), Instant::now());
        assert_eq!(window.next(UNDER_WAY_MAX, now), NextStart::Now);
        for _ in 0..UNDER_WAY_MAX {
            assert_eq!(window.next(UNDER_WAY_MAX, now), NextStart::Now);
            window.begins(now);
            now += APART_MIN;
        }
        assert_eq!(window.next(UNDER_WAY_MAX, now + FAR), NextStart::Later);
        window.ends(FAR);
        let last = now - APART_MIN;
        let at = NextStart::At(last + FAR / UNDER_WAY_MAX as u32);
        assert_eq!(window.next(UNDER_WAY_MAX, now), at);
        // With none in flight, the next one need not wait.
        for _ in 1..UNDER_WAY_MAX {
            window.ends(FAR);
        }
        assert_eq!(window.next(UNDER_WAY_MAX, last), NextStart::Now);
    }

    #[test]
    fn a_few_begin_without_a_pause_and_among_near_members_no_more() {
        let (mut window, now) = (InFlightWindow::new(2), Instant::now());
        window.begins(now);
        assert_eq!(window.next(2, now), NextStart::Now);
        window.begins(now);
        assert_eq!(window.next(UNDER_WAY_MAX, now), NextStart::At(now + APART_MIN));
        assert_eq!(window.next(UNDER_WAY_MAX, now + APART_MIN), NextStart::Now);
        assert_eq!(window.next(2, now + APART_MIN), NextStart::Later);
        window.ends(FAR);
        assert_eq!(window.next(2, now), NextStart::Now);
    }
}
