//! The figures of one cell.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::summary::histogram;
use crate::systems::Answer;

/// The outcomes of requests.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    /// Latencies of answered requests, in nanoseconds.
    latency: Histogram<u64>,
    /// How late the generator started requests, in nanoseconds; open loop only.
    lateness: Histogram<u64>,
    /// Answers that the key does not exist.
    pub(crate) missing: u64,
    /// Read-modify-writes that conflicted with another write.
    pub(crate) conflicts: u64,
    /// Requests that failed, and those that the open loop dropped.
    pub(crate) failed: u64,
    /// Why the first of them failed.
    pub(crate) error: Option<String>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            latency: histogram(),
            lateness: histogram(),
            missing: 0,
            conflicts: 0,
            failed: 0,
            error: None,
        }
    }
}

impl Tally {
    /// Adds a request with its latency and answer.
    pub(crate) fn record(&mut self, latency: Duration, answer: Result<Answer, String>) {
        match answer {
            Ok(answer) => {
                self.missing += u64::from(answer == Answer::Missing);
                self.conflicts += u64::from(answer == Answer::Conflict);
                // Cannot fail: the histogram resizes itself.
                let _ = self.latency.record(nanoseconds(latency));
            }
            Err(error) => self.fail(error),
        }
    }

    /// Adds a request that failed.
    pub(crate) fn fail(&mut self, error: String) {
        self.failed += 1;
        self.error.get_or_insert(error);
    }

    /// Adds how late a request began.
    pub(crate) fn record_lateness(&mut self, late: Duration) {
        let _ = self.lateness.record(nanoseconds(late));
    }

    /// Adds another tally.
    pub(crate) fn add(&mut self, other: Self) {
        // Cannot fail: both have the same precision and resize themselves.
        let _ = self.latency.add(other.latency);
        let _ = self.lateness.add(other.lateness);
        self.missing += other.missing;
        self.conflicts += other.conflicts;
        self.failed += other.failed;
        self.error = self.error.take().or(other.error);
    }

    /// Returns the number of answered requests.
    pub(crate) fn answered(&self) -> u64 {
        self.latency.len()
    }

    /// Returns a quantile of the latencies, in milliseconds.
    pub(crate) fn latency_ms(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e6
    }

    /// Returns a quantile of the generator's own lateness, in milliseconds.
    pub(crate) fn lateness_ms(&self, quantile: f64) -> f64 {
        self.lateness.value_at_quantile(quantile) as f64 / 1e6
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The figures of one cell in one round.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// Time from the first request that counts to the last answer, in seconds.
    pub(crate) seconds: f64,
    /// The outcomes of the requests.
    pub(crate) tally: Tally,
    /// CPU time of all processes of the system.
    pub(crate) system_cpu: Duration,
    /// CPU time of this process.
    pub(crate) generator_cpu: Duration,
    /// Sum of the peaks of all processes of the system, in bytes.
    pub(crate) peak_memory: u64,
}

impl Sample {
    /// Returns the answered requests per second.
    pub(crate) fn rate(&self) -> f64 {
        self.tally.answered() as f64 / self.seconds
    }

    /// Returns the CPU time of the system per answered request, in microseconds.
    pub(crate) fn system_cpu_us(&self) -> f64 {
        self.system_cpu.as_secs_f64() * 1e6 / self.tally.answered().max(1) as f64
    }

    /// Returns the CPU time of this process per answered request, in microseconds.
    pub(crate) fn generator_cpu_us(&self) -> f64 {
        self.generator_cpu.as_secs_f64() * 1e6 / self.tally.answered().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_apart_from_latencies() {
        let mut tally = Tally::default();
        tally.record(Duration::from_millis(1), Ok(Answer::Done));
        tally.record(Duration::from_millis(2), Ok(Answer::Missing));
        tally.record(Duration::from_secs(9), Err("first".into()));
        let mut other = Tally::default();
        other.record(Duration::from_millis(3), Ok(Answer::Conflict));
        other.fail("second".into());
        tally.add(other);
        assert_eq!((tally.answered(), tally.failed), (3, 2));
        assert_eq!((tally.missing, tally.conflicts), (1, 1));
        assert_eq!(tally.error.as_deref(), Some("first"));
        assert!((tally.latency_ms(1.0) - 3.0).abs() < 0.01);
    }

    #[test]
    fn cost_is_by_answered_request() {
        let mut tally = Tally::default();
        for _ in 0..1000 {
            tally.record(Duration::from_millis(1), Ok(Answer::Done));
        }
        let sample = Sample {
            seconds: 2.0,
            tally,
            system_cpu: Duration::from_secs(1),
            generator_cpu: Duration::from_millis(500),
            peak_memory: 0,
        };
        assert_eq!(
            (sample.rate(), sample.system_cpu_us(), sample.generator_cpu_us()),
            (500.0, 1000.0, 500.0)
        );
    }
}
