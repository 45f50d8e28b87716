//! The log of slow requests: where the time of each went.
//!
//! A slow disk makes every request slow. The log then has a few lines a second, and each line says
//! how many requests had none.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dkv_base::sync::lock;
use dkv_wire::identity::Identity;
use tokio::time::Instant;
use tracing::warn;

use super::timeline::{STAGES, Timeline};

/// Lines that may come at once, after a time without any.
const BURST: u32 = 10;
/// Time after which one more line may come.
const LINE_EVERY: Duration = Duration::from_millis(500);
/// Bytes of a key that a line shows.
const KEY_BYTES: usize = 32;

/// The log of the slow requests of a node, and their number by stage.
#[derive(Debug)]
pub(crate) struct SlowRequests {
    /// The time from which a request is slow; zero if none ever is.
    bound: Duration,
    counts: [AtomicU64; STAGES.len()],
    pace: Mutex<Pace>,
}

/// How many lines may be written now.
#[derive(Debug)]
struct Pace {
    left: u32,
    since: Option<Instant>,
    /// Requests without a line since the last one.
    unlogged: u64,
}

impl Pace {
    /// Takes a line. Returns the number of requests without one before, or `None` if there is none
    /// left now.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let since = *self.since.get_or_insert(now);
        let passed = now.saturating_duration_since(since);
        let more = passed.as_millis() / LINE_EVERY.as_millis();
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        if more > 0 {
            self.left = self.left.saturating_add(more).min(BURST);
            self.since = Some(now);
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Some(std::mem::take(&mut self.unlogged))
            }
            None => {
                self.unlogged += 1;
                None
            }
        }
    }
}

impl Default for SlowRequests {
    fn default() -> Self {
        Self::new(Duration::ZERO)
    }
}

impl SlowRequests {
    /// Returns a log of the requests that take longer than `bound`; zero logs none.
    pub(crate) fn new(bound: Duration) -> Self {
        let pace = Mutex::new(Pace { left: BURST, since: None, unlogged: 0 });
        Self { bound, counts: Default::default(), pace }
    }

    /// Returns whether a request that took `time` is slow.
    pub(crate) fn is_slow(&self, time: Duration) -> bool {
        !self.bound.is_zero() && time > self.bound
    }

    /// Notes a slow request, which took `time` in all and has ended at `now`.
    pub(crate) fn note(
        &self,
        by: Identity,
        timeline: &Timeline,
        result: &'static str,
        time: Duration,
        now: Instant,
    ) {
        if !timeline.subject().is_measured() {
            return;
        }
        self.counts[timeline.longest()].fetch_add(1, Ordering::Relaxed);
        let taken = lock(&self.pace).take(now);
        // Only what is written is decoded: a slow disk has thousands of slow requests a second.
        let read =
            taken.and_then(|unlogged| timeline.subject().read().map(|read| (read, unlogged)));
        if let Some(((kind, shard, key), unlogged)) = read {
            let (ms, stages) = (time.as_millis() as u64, timeline.stages());
            let (key, key_bytes) = (shown(&key), key.len());
            warn!(
                kind, %shard, key, key_bytes, by = %by.holder, ms, stages, result, unlogged,
                "slow request"
            );
        }
    }

    /// Returns the number of slow requests by the stage that took longest.
    pub(crate) fn counts(&self) -> Vec<(&'static str, u64)> {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        STAGES.into_iter().zip(counts).collect()
    }
}

/// Returns the first bytes of a key as text.
fn shown(key: &[u8]) -> String {
    let first = &key[..key.len().min(KEY_BYTES)];
    let more = if key.len() > KEY_BYTES { "…" } else { "" };
    format!("{}{more}", first.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_at_a_pace_and_count_what_had_none() {
        let start = Instant::now();
        let mut pace = Pace { left: BURST, since: None, unlogged: 0 };
        for _ in 0..BURST {
            assert_eq!(pace.take(start), Some(0));
        }
        for _ in 0..1000 {
            assert_eq!(pace.take(start + LINE_EVERY / 2), None);
        }
        assert_eq!(pace.take(start + LINE_EVERY), Some(1000));
        assert_eq!(pace.take(start + LINE_EVERY), None);
        let later = start + LINE_EVERY * 1000;
        assert_eq!(pace.take(later), Some(1));
        assert_eq!((1..100).filter(|_| pace.take(later).is_some()).count(), BURST as usize - 1);
    }

    #[test]
    fn nothing_is_slow_without_a_bound() {
        assert!(!SlowRequests::default().is_slow(Duration::from_secs(100)));
        let log = SlowRequests::new(Duration::from_millis(500));
        assert!(!log.is_slow(Duration::from_millis(500)));
        assert!(log.is_slow(Duration::from_millis(501)));
    }

    #[test]
    fn a_key_is_shown_as_printable_text() {
        assert_eq!(shown(b"a\n\xff"), "a\\n\\xff");
        assert_eq!(shown(&[b'k'; KEY_BYTES + 1]), format!("{}…", "k".repeat(KEY_BYTES)));
    }
}
