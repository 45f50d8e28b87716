//! Counters of a serving node, for its observers.
//!
//! Requests are counted where their answers are written, many at a time, so that the code that
//! decides a request does no counting.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dkv_base::histogram::{Histogram, Times};
use dkv_wire::message::{Answer, ReadMode, Refusal, RequestBody};

use super::slow_requests::SlowRequests;

/// Kinds of requests.
pub(crate) const KINDS: [&str; 8] =
    ["read_strong", "read_eventual", "scan", "write", "view", "status", "replica", "directory"];

/// Outcomes of requests.
pub(crate) const RESULTS: [&str; 11] = [
    "ok",
    "conflict",
    "not_primary",
    "overloaded",
    "unavailable",
    "unknown",
    "invalid",
    "denied",
    "behind",
    "over_quota",
    "limited",
];

/// Returns the kind of a request, as an index into [`KINDS`].
pub(crate) fn kind(body: &RequestBody) -> usize {
    match body {
        RequestBody::Read { mode: ReadMode::Eventual(_), .. } | RequestBody::ReadAt { .. } => 1,
        RequestBody::Read { .. } => 0,
        RequestBody::Scan { .. }
        | RequestBody::ScanAt { .. }
        | RequestBody::Range { .. }
        | RequestBody::History { .. } => 2,
        RequestBody::Leases { .. } | RequestBody::LeaseInfo { .. } => 2,
        RequestBody::KeyTtl { .. } => 0,
        RequestBody::Propose { .. }
        | RequestBody::Deposit { .. }
        | RequestBody::KeepAlive { .. } => 3,
        RequestBody::View => 4,
        RequestBody::Status => 5,
        RequestBody::Committed { .. } | RequestBody::Cut { .. } | RequestBody::Reach { .. } => 6,
        _ => 7,
    }
}

fn result(result: &Result<Answer, Refusal>) -> usize {
    match result {
        Ok(_) => 0,
        Err(Refusal::Conflict { .. }) => 1,
        Err(Refusal::NotPrimary { .. }) => 2,
        Err(Refusal::Overloaded { .. }) => 3,
        Err(Refusal::Unavailable(_) | Refusal::Lost { .. }) => 4,
        Err(Refusal::Unknown(_) | Refusal::SessionExpired) => 5,
        Err(
            Refusal::Invalid(_)
            | Refusal::TooLarge { .. }
            | Refusal::Compacted { .. }
            | Refusal::NotYet { .. }
            | Refusal::Unfit { .. }
            | Refusal::NoLease { .. }
            | Refusal::LeaseExists { .. }
            | Refusal::TooManyLeases { .. }
            | Refusal::Dropped { .. },
        ) => 6,
        Err(Refusal::OverQuota { .. }) => 9,
        Err(Refusal::Limited { .. }) => 10,
        Err(Refusal::Denied(_)) => 7,
        // Neither is an error: another replica, or another stamp, will do.
        Err(Refusal::Behind { .. } | Refusal::Clock { .. }) => 8,
    }
}

/// The counters of a node.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    requests: [[AtomicU64; RESULTS.len()]; KINDS.len()],
    times: [Histogram; KINDS.len()],
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    slow: SlowRequests,
}

impl Counters {
    /// Returns counters that log requests as slow which take longer than a bound; zero logs none.
    pub(crate) fn new(slow_request: Duration) -> Self {
        Self { slow: SlowRequests::new(slow_request), ..Self::default() }
    }

    /// Counts an answered request, with the time from its arrival to its answer. Returns the
    /// outcome, one of [`RESULTS`].
    pub(crate) fn answered(
        &self,
        kind: usize,
        answer: &Result<Answer, Refusal>,
        time: Duration,
    ) -> &'static str {
        let result = result(answer);
        if let (Some(results), Some(times)) = (self.requests.get(kind), self.times.get(kind)) {
            results[result].fetch_add(1, Ordering::Relaxed);
            times.add(time);
        }
        RESULTS[result]
    }

    /// The log of slow requests.
    pub(crate) fn slow(&self) -> &SlowRequests {
        &self.slow
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Returns a snapshot of all counters.
    pub(crate) fn counted(&self) -> Counted {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let requests = KINDS.iter().zip(&self.requests).zip(&self.times);
        let requests = requests.map(|((kind, results), times)| CountedKind {
            kind,
            results: RESULTS.iter().copied().zip(results.iter().map(load)).collect(),
            times: times.times(),
        });
        Counted {
            requests: requests.collect(),
            received_bytes: load(&self.received_bytes),
            sent_bytes: load(&self.sent_bytes),
            slow_requests: self.slow.counts(),
        }
    }
}

/// The counter values of a node.
#[derive(Clone, Debug)]
pub struct Counted {
    /// Requests by kind.
    pub requests: Vec<CountedKind>,
    /// Bytes of requests received.
    pub received_bytes: u64,
    /// Bytes of answers sent.
    pub sent_bytes: u64,
    /// Slow requests, by the stage that took longest.
    pub slow_requests: Vec<(&'static str, u64)>,
}

/// Requests of one kind.
#[derive(Clone, Debug)]
pub struct CountedKind {
    /// The kind, one of `KINDS`.
    pub kind: &'static str,
    /// Number of requests per outcome.
    pub results: Vec<(&'static str, u64)>,
    /// Times from a request to its answer.
    pub times: Times,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_answered_is_counted() {
        let counters = Counters::default();
        counters.answered(3, &Ok(Answer::Done), Duration::from_millis(2));
        counters.answered(3, &Err(Refusal::Overloaded { retry_after_ms: 1 }), Duration::ZERO);
        counters.received(7);
        let counted = counters.counted();
        let write = counted.requests.iter().find(|it| it.kind == "write").unwrap();
        assert_eq!((write.results[0], write.results[3]), (("ok", 1), ("overloaded", 1)));
        assert_eq!((write.times.count(), counted.received_bytes), (2, 7));
    }
}
