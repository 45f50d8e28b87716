//! Ranges of keys with their versions, and their number.
//!
//! A large range is read, and its keys are counted, step by step at one revision, so that nobody
//! waits for it.

use dkv_base::id::Revision;
use dkv_wire::message::{
    Answer, Cut, KeyRange, Keys, Level, RangeOptions, RangePage, RangePart, Receipt, Refusal,
};

use super::history::{RangeQuery, not_kept};
use super::{LookupError, StateMachineHandle};
use dkv_state::{FoundRange, RangingAt};

impl StateMachineHandle {
    /// Answers a question about a range; `None` if the checkpoint no longer has a value, so that
    /// the question is to be asked again.
    pub(super) fn range(
        &self,
        query: &RangeQuery,
        receipt: Receipt,
    ) -> Result<Option<Answer>, Refusal> {
        let RangeQuery { keys, after, options, bytes_max, count } = query;
        let keys = borrowed(keys);
        if receipt.level != Level::Eventual && self.is_range_locked(&keys) {
            return Err(LookupError::Locked.into());
        }
        let mut ranging = RangingAt::new(keys, after, *options, *bytes_max);
        let (latest, stamp, at, begun) = self.shard(|shard| {
            let latest = shard.revision();
            let at = options.at.unwrap_or(latest);
            let begun = match options.part {
                // They are counted below, if at all.
                RangePart::Count => shard.get_at(&[], Cut::at(at)).map(|_| true),
                RangePart::Values | RangePart::Keys => shard.range_more_at(at, &mut ranging),
            };
            (latest, shard.stamp(), at, begun)
        })?;
        let mut read = || {
            if !begun.map_err(not_kept(at))? {
                self.complete_range(&mut ranging, at)?;
            }
            if *count { self.count(keys, at) } else { Ok(0) }
        };
        let counted = match read() {
            // The latest revision has been compacted on the way.
            Err(Refusal::Compacted { .. }) if options.at.is_none() => return Ok(None),
            counted => counted?,
        };
        let FoundRange { keys: found, more, .. } = ranging.found;
        let receipt = Receipt { revision: latest, stamp, ..receipt };
        let Some(keys) = self.complete_pairs(&found)? else { return Ok(None) };
        Ok(Some(Answer::Ranged(receipt, RangePage { keys, more, count: counted, at })))
    }

    /// Counts the keys of a range that existed at a revision.
    fn count(&self, keys: Keys<'_>, at: Revision) -> Result<u64, Refusal> {
        let options = RangeOptions { part: RangePart::Count, ..RangeOptions::default() };
        let mut counting = RangingAt::new(keys, &[], options, 0);
        self.complete_range(&mut counting, at)?;
        Ok(counting.found.count)
    }

    fn complete_range(&self, ranging: &mut RangingAt<'_>, at: Revision) -> Result<(), Refusal> {
        while !self.shard(|shard| shard.range_more_at(at, ranging))?.map_err(not_kept(at))? {}
        Ok(())
    }

    /// Returns whether a transaction over several shards may write a key of a range.
    pub(crate) fn is_range_locked(&self, keys: &Keys<'_>) -> bool {
        self.with_shard(|shard| shard.is_range_write_locked(keys)).unwrap_or(false)
    }
}

/// Returns a range that borrows its bounds.
pub(crate) fn borrowed(keys: &KeyRange) -> Keys<'_> {
    match keys {
        KeyRange::Key(key) => Keys::Key(key),
        KeyRange::Prefix(prefix) => Keys::Prefix(prefix),
        KeyRange::Range(from, to) => Keys::Range(from, to),
    }
}
