//! When shards took writes, as the clients saw it: leases end in time only while there is service.

use std::collections::BTreeMap;

use dkv_api::Receipt;
use dkv_base::id::{GroupId, Term};
use dkv_check::Disruption;

use super::TICK_NS;

/// Longest time between two acknowledged writes of a shard in which it had service for sure, in
/// milliseconds. A primary that nobody could ask for a second gives leases their time again.
const GAP_MS: u64 = 800;

/// The last acknowledged write of each shard, and the times in which it may not have served.
#[derive(Debug, Default)]
pub(super) struct Service {
    shards: BTreeMap<GroupId, Served>,
}

#[derive(Debug, Default)]
struct Served {
    at: u64,
    term: Term,
    disruptions: Vec<Disruption>,
}

impl Service {
    /// Notes that a write was acknowledged.
    pub(super) fn wrote(&mut self, receipt: &Receipt, now: u64) {
        let served = self.shards.entry(receipt.shard).or_default();
        if served.term != receipt.term || now > served.at + GAP_MS {
            served
                .disruptions
                .push(Disruption { start_ns: served.at * TICK_NS, end_ns: now * TICK_NS });
        }
        (served.at, served.term) = (served.at.max(now), served.term.max(receipt.term));
    }

    /// Returns the times in which a shard may not have served.
    pub(super) fn disruptions(&self, shard: GroupId) -> Vec<Disruption> {
        let forever = |from: u64| Disruption { start_ns: from * TICK_NS, end_ns: u64::MAX };
        let Some(served) = self.shards.get(&shard) else { return vec![forever(0)] };
        let last = forever(served.at);
        served.disruptions.iter().copied().chain([last]).collect()
    }
}

#[cfg(test)]
mod tests {
    use dkv_api::Level;
    use dkv_base::id::{NodeId, Revision, Stamp};

    use super::*;

    #[test]
    fn a_new_term_and_a_pause_are_disruptions() {
        let receipt = |term| Receipt {
            shard: GroupId(1),
            revision: Revision(1),
            level: Level::Strong,
            node: NodeId::random(),
            term: Term(term),
            staleness_ms: None,
            stamp: Stamp(1),
            pending: None,
        };
        let mut service = Service::default();
        for (term, now) in [(1, 100), (1, 700), (1, 1000), (2, 1100), (2, 2000)] {
            service.wrote(&receipt(term), now);
        }
        let ms = |ns: u64| ns / TICK_NS;
        let found = service.disruptions(GroupId(1));
        let found: Vec<_> = found.iter().map(|it| (ms(it.start_ns), ms(it.end_ns))).collect();
        let forever = ms(u64::MAX);
        assert_eq!(found, [(0, 100), (1000, 1100), (1100, 2000), (2000, forever)]);
        assert_eq!(service.disruptions(GroupId(2)).len(), 1);
    }
}
