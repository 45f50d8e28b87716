//! Summaries of several figures of one thing.

use hdrhistogram::Histogram;
use serde::Serialize;

/// The median and the extremes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// The smallest.
    pub(crate) min: f64,
    /// The middle one, or the mean of the two middle ones.
    pub(crate) median: f64,
    /// The largest.
    pub(crate) max: f64,
}

impl Summary {
    /// Summarizes figures; zeros if there are none.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let (Some(min), Some(max)) = (figures.first(), figures.last()) else {
            return Self::default();
        };
        let middle = figures.len() / 2;
        let median = if figures.len() % 2 == 1 {
            figures[middle]
        } else {
            f64::midpoint(figures[middle - 1], figures[middle])
        };
        Self { min: *min, median, max: *max }
    }
}

/// Returns an empty histogram of times in nanoseconds, with three significant digits.
pub(crate) fn histogram() -> Histogram<u64> {
    // Three significant digits are always accepted.
    Histogram::new(3).unwrap_or_else(|error| unreachable!("three digits: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(Summary::of([3.0, 1.0, 2.0]), Summary { min: 1.0, median: 2.0, max: 3.0 });
        assert_eq!(Summary::of([4.0, 1.0]), Summary { min: 1.0, median: 2.5, max: 4.0 });
        assert_eq!(Summary::of([5.0]), Summary { min: 5.0, median: 5.0, max: 5.0 });
        assert_eq!(Summary::of([]), Summary::default());
    }
}
