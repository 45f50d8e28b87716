//! The owners of the writes that wait in the outboxes: one client cannot fill them for the others.
//!
//! A holder of a certificate may have half of the room. Writes that waited before a restart have no
//! owner: the log does not record it, and they count toward the total alone.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard};

use dkv_base::id::{GroupId, HolderId, Number};
use dkv_base::sync::lock;

/// The owners of the waiting writes.
#[derive(Debug, Default)]
pub(crate) struct OwnerQuotas(Mutex<Usage>);

#[derive(Debug, Default)]
struct Usage {
    bytes: HashMap<HolderId, usize>,
    writes: HashMap<GroupId, OfShard>,
}

#[derive(Debug, Default)]
struct OfShard {
    /// All writes up to this number have reached their destination.
    settled: Number,
    waiting: BTreeMap<Number, (HolderId, usize)>,
}

impl OwnerQuotas {
    /// Returns whether a holder may have `bytes` more, if all holders together may have
    /// `bytes_max`.
    pub(crate) fn allow(&self, holder: HolderId, bytes: usize, bytes_max: usize) -> bool {
        let own = self.lock().bytes.get(&holder).copied().unwrap_or_default();
        own + bytes <= bytes_max / 2
    }

    /// Records that a holder's write waits under `number`.
    pub(crate) fn took(&self, holder: HolderId, shard: GroupId, number: Number, bytes: usize) {
        let kept = &mut *self.lock();
        let of_shard = kept.writes.entry(shard).or_default();
        // It may have been delivered in the meantime, and a retry is counted already.
        if number <= of_shard.settled || of_shard.waiting.contains_key(&number) {
            return;
        }
        of_shard.waiting.insert(number, (holder, bytes));
        *kept.bytes.entry(holder).or_default() += bytes;
    }

    /// Forgets the writes to a shard that was dropped.
    pub(crate) fn forget(&self, shard: GroupId) {
        self.settled(shard, Number(u64::MAX));
        self.lock().writes.remove(&shard);
    }

    /// Records that all writes up to `upto` have reached their destination.
    pub(crate) fn settled(&self, shard: GroupId, upto: Number) {
        let kept = &mut *self.lock();
        let of_shard = kept.writes.entry(shard).or_default();
        of_shard.settled = of_shard.settled.max(upto);
        while let Some(first) = of_shard.waiting.first_entry() {
            if *first.key() > upto {
                break;
            }
            let (holder, bytes) = first.remove();
            if let Some(own) = kept.bytes.get_mut(&holder) {
                *own -= bytes;
                if *own == 0 {
                    kept.bytes.remove(&holder);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Usage> {
        lock(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_fills_half_and_gets_it_back_when_it_is_delivered() {
        let (owners, shard) = (OwnerQuotas::default(), GroupId(1));
        let (first, second) = (HolderId::random(), HolderId::random());
        owners.took(first, shard, Number(1), 30);
        owners.took(first, shard, Number(2), 20);
        // A retry is not counted again.
        owners.took(first, shard, Number(2), 20);
        assert!(!owners.allow(first, 1, 100) && owners.allow(second, 50, 100));
        owners.settled(shard, Number(1));
        assert!(owners.allow(first, 30, 100) && !owners.allow(first, 31, 100));
        // Delivered before it was counted.
        owners.settled(shard, Number(5));
        owners.took(first, shard, Number(4), 40);
        assert!(owners.allow(first, 50, 100));
        assert!(owners.lock().bytes.is_empty());
    }
}
