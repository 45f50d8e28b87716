//! Histograms that count nothing.
//!
//! openraft records batch sizes and budgets in histograms of the crate `base2histogram`, whatever
//! its features are, and shows them with its feature `runtime-stats` only, which dkv does not use.
//! The published crate builds the tables of all its sixteen scales when the first histogram is
//! made: 26 MiB in every process, four times what a node allocates otherwise. This crate takes its
//! place, as `[patch.crates-io]` in the workspace's manifest says, and has the part of its
//! interface that openraft compiles against. docs/decisions.md has the measurement.
//!
//! Deliberately missing: every number. To see openraft's statistics, remove the patch and enable
//! `runtime-stats`.
#![forbid(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;

/// A histogram that drops what it is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()>(PhantomData<T>);

impl<T> Histogram<T> {
    /// Creates a histogram. It takes no memory.
    #[must_use]
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self(PhantomData)
    }

    /// Drops a value.
    pub const fn record(&mut self, _value: u64) {}

    /// Drops a value that occurred `_count` times.
    pub const fn record_n(&mut self, _value: u64, _count: u64) {}

    /// Returns statistics without samples.
    #[must_use]
    pub const fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: 0,
            p0_1: 0,
            p1: 0,
            p5: 0,
            p10: 0,
            p50: 0,
            p90: 0,
            p99: 0,
            p99_9: 0,
        }
    }
}

/// Percentiles of a histogram: all zero, as there are no samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PercentileStats {
    /// Number of samples.
    pub samples: u64,
    /// The 0.1th percentile.
    pub p0_1: u64,
    /// The 1st percentile.
    pub p1: u64,
    /// The 5th percentile.
    pub p5: u64,
    /// The 10th percentile.
    pub p10: u64,
    /// The median.
    pub p50: u64,
    /// The 90th percentile.
    pub p90: u64,
    /// The 99th percentile.
    pub p99: u64,
    /// The 99.9th percentile.
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[samples: {}]", self.samples)
    }
}

/// A chart of histograms that stays empty.
#[derive(Debug, Default)]
pub struct AsciiChart;

impl AsciiChart {
    /// Creates a chart.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }

    /// Drops a series.
    #[must_use]
    pub fn add(self, _name: impl Into<String>, _histogram: Histogram) -> Self {
        self
    }

    /// Returns the chart as text.
    #[must_use]
    pub const fn detailed(&self) -> &'static str {
        ""
    }
}
