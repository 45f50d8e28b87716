//! A histogram of durations, for the metrics of a process.
//!
//! Recording a duration costs two relaxed additions and no lock. A reader may see one of them
//! before the other.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets, in microseconds. One more bucket holds what is above the last.
pub const BOUNDS_US: [u64; 16] = [
    50, 100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 10_000_000,
];
const BUCKETS: usize = BOUNDS_US.len() + 1;

/// A histogram of durations.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

/// The contents of a histogram at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Number of durations in each bucket; not cumulative.
    pub buckets: [u64; BUCKETS],
    /// Sum of all durations, in microseconds.
    pub sum_us: u64,
}

impl Histogram {
    /// Records a duration.
    pub fn add(&self, time: Duration) {
        let time_us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < time_us);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(time_us, Ordering::Relaxed);
    }

    /// The current contents.
    pub fn times(&self) -> Times {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Times { buckets: self.buckets.each_ref().map(load), sum_us: load(&self.sum_us) }
    }
}

impl Times {
    /// Number of durations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let histogram = Histogram::default();
        for time_us in [0, 50, 51, 10_000_000, 10_000_001] {
            histogram.add(Duration::from_micros(time_us));
        }
        let times = histogram.times();
        assert_eq!((times.buckets[0], times.buckets[1]), (2, 1));
        assert_eq!((times.buckets[15], times.buckets[16]), (1, 1));
        assert_eq!((times.count(), times.sum_us), (5, 20_000_102));
    }
}
