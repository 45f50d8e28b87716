//! Orders to forget history, at random.

use dkv_base::id::{GroupId, Revision};

use crate::observer::{Observations, Order};
use crate::random::Random;
use crate::workload::Workload;

/// Least and most time between two orders, in ticks.
const PAUSE: (u64, u64) = (600, 4000);
/// Revisions before the latest that are kept.
const KEPT_MAX: u64 = 120;

/// Orders the administrator to compact shards.
pub(crate) struct Compaction {
    random: Random,
    next: u64,
}

impl Compaction {
    /// Begins some time after `from`. Four runs in ten have none.
    pub(crate) fn new(mut random: Random, from: u64) -> Self {
        let (low, high) = PAUSE;
        let never = random.per_mille(400);
        let next = if never { u64::MAX } else { from + random.between(low, high) };
        Self { random, next }
    }

    /// Gives an order if one is due.
    pub(crate) fn tick(&mut self, now: u64, observations: &Observations, workload: &Workload) {
        if now < self.next {
            return;
        }
        let (low, high) = PAUSE;
        self.next = now + self.random.between(low, high);
        let shard = GroupId(self.random.below(u64::from(workload.shards())) as u32 + 1);
        let kept = self.random.below(KEPT_MAX);
        let floor = Revision(workload.latest(shard).0.saturating_sub(kept));
        if floor > Revision(0) {
            observations.order(Order::Compact(shard, floor));
        }
    }
}
