//! Measures how long writes take. The log bases no decision on it; it is for people and for the
//! node's assessment of its disk.

use std::time::Duration;

use dkv_base::histogram::{Histogram, Times};
use tokio::time::Instant;

const SAMPLES_MAX: usize = 256;

/// The latest write times, and the write that is under way.
#[derive(Default)]
pub(super) struct Timing {
    samples_us: Vec<u32>,
    count: u64,
    begun: Option<Instant>,
    all: Histogram,
}

impl Timing {
    pub(super) fn begin(&mut self) {
        self.begun = Some(now());
    }

    pub(super) fn end(&mut self) {
        let elapsed_us = u32::try_from(self.pending_us()).unwrap_or(u32::MAX);
        self.begun = None;
        if self.samples_us.len() < SAMPLES_MAX {
            self.samples_us.push(elapsed_us);
        } else {
            self.samples_us[self.count as usize % SAMPLES_MAX] = elapsed_us;
        }
        self.count += 1;
        self.all.add(Duration::from_micros(u64::from(elapsed_us)));
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Returns the distribution of all write times.
    pub(super) fn times(&self) -> Times {
        self.all.times()
    }

    /// Returns how long the current write has taken so far; zero if there is none.
    pub(super) fn pending_us(&self) -> u64 {
        let elapsed = self.begun.map(|begun| now().saturating_duration_since(begun));
        elapsed.map_or(0, |elapsed| u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX))
    }

    /// Returns the median and the longest of the latest writes.
    pub(super) fn median_and_max_us(&self) -> (u64, u64) {
        let mut sorted = self.samples_us.clone();
        sorted.sort_unstable();
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or(0);
        (u64::from(median), u64::from(sorted.last().copied().unwrap_or(0)))
    }
}

/// Reads the clock; no other code in the log does.
fn now() -> Instant {
    Instant::now()
}
