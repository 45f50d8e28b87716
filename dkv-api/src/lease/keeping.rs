//! When to keep a lease alive, and when it is lost. Plain data: times come in, shards to ask come
//! out.
//!
//! The time that a shard gives counts from the moment at which the keeper asked, which is earlier
//! than the moment from which the shard counts. So a keeper gives up no later than the first shard
//! does, as long as the two clocks run at the same speed.

use std::collections::BTreeMap;
use std::time::Duration;

use dkv_base::id::GroupId;

/// Parts of its time after which a lease is kept alive again.
const PARTS: u32 = 3;
/// Parts of its time after which a shard that failed is asked again.
const RETRY_PARTS: u32 = 30;
/// Shortest pause before a shard that failed is asked again.
const RETRY_MIN: Duration = Duration::from_millis(20);

/// The lease in one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    ttl: Duration,
    valid_until: Duration,
    /// When to ask next; `None` while an answer is awaited.
    next: Option<Duration>,
}

/// A lease that is kept alive.
#[derive(Clone, Debug)]
pub(super) struct Keeping {
    parts: BTreeMap<GroupId, Part>,
}

impl Keeping {
    /// Begins with the times that the shards gave when they were asked at `sent`.
    pub(super) fn new(sent: Duration, times: BTreeMap<GroupId, Duration>) -> Self {
        let mut keeping = Self { parts: BTreeMap::new() };
        for (shard, ttl) in times {
            keeping.answered(sent, shard, ttl);
        }
        keeping
    }

    /// Returns when the lease is lost, unless it is kept alive before.
    pub(super) fn valid_until(&self) -> Duration {
        self.parts.values().map(|part| part.valid_until).min().unwrap_or_default()
    }

    /// Returns when a shard has to be asked again; `None` while answers of all are awaited.
    pub(super) fn next(&self) -> Option<Duration> {
        self.parts.values().filter_map(|part| part.next).min()
    }

    /// Returns the shards to ask now.
    pub(super) fn due(&mut self, now: Duration) -> Vec<GroupId> {
        let due = self.parts.iter_mut().filter(|(_, part)| part.next.is_some_and(|at| at <= now));
        due.map(|(&shard, part)| {
            part.next = None;
            shard
        })
        .collect()
    }

    /// Records that a shard that was asked at `sent` gives the lease this time.
    pub(super) fn answered(&mut self, sent: Duration, shard: GroupId, ttl: Duration) {
        let valid_until = sent.saturating_add(ttl);
        let next = Some(sent.saturating_add(ttl / PARTS));
        self.parts.insert(shard, Part { ttl, valid_until, next });
    }

    /// Records that a shard could not be asked.
    pub(super) fn failed(&mut self, now: Duration, shard: GroupId) {
        if let Some(part) = self.parts.get_mut(&shard) {
            part.next = Some(now + (part.ttl / RETRY_PARTS).max(RETRY_MIN));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;
    const ONE: GroupId = GroupId(1);
    const TWO: GroupId = GroupId(2);

    #[test]
    fn a_lease_is_kept_at_a_third_of_its_time() {
        let mut keeping = Keeping::new(S(10), [(ONE, S(30)), (TWO, S(30))].into());
        assert_eq!((keeping.next(), keeping.valid_until()), (Some(S(20)), S(40)));
        assert_eq!(keeping.due(S(19)), []);
        assert_eq!(keeping.due(S(20)), [ONE, TWO]);
        assert_eq!((keeping.due(S(25)), keeping.next()), (vec![], None));
        // It counts from when the shard was asked, however late the answer came.
        keeping.answered(S(20), ONE, S(30));
        assert_eq!((keeping.next(), keeping.valid_until()), (Some(S(30)), S(40)));
        keeping.answered(S(20), TWO, S(30));
        assert_eq!(keeping.valid_until(), S(50));
    }

    #[test]
    fn a_shard_that_fails_is_asked_again_soon_and_alone() {
        let mut keeping = Keeping::new(S(0), [(ONE, S(30)), (TWO, S(30))].into());
        assert_eq!(keeping.due(S(10)), [ONE, TWO]);
        keeping.answered(S(10), TWO, S(30));
        keeping.failed(S(12), ONE);
        assert_eq!((keeping.next(), keeping.valid_until()), (Some(S(13)), S(30)));
        assert_eq!(keeping.due(S(13)), [ONE]);
        let mut short = Keeping::new(S(0), [(ONE, Duration::from_millis(90))].into());
        assert_eq!(short.due(S(1)), [ONE]);
        short.failed(S(1), ONE);
        assert_eq!(short.next(), Some(S(1) + RETRY_MIN));
    }
}
