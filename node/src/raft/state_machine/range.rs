//! Ranges of keys with their versions, and their number.
//!
//! A page is taken under one lock of the state. The keys of a large range are counted bit by bit,
//! at the revision of the page, so that nobody waits for it.

use std::sync::Arc;

use dkv_base::id::Revision;
use dkv_wire::message::{
    Answer, Cut, KeyRange, Keys, Level, RangePage, RangePart, Receipt, Refusal,
};

use super::history::{RangeQuery, not_kept};
use super::{LookupError, StateMachineHandle};
use dkv_state::{Counted, FoundRange};

/// Keys that are counted under one lock of the state.
const COUNTED_TOGETHER: usize = 8192;

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
        let (latest, stamp, at, found) = self.shard(|shard| {
            let latest = shard.revision();
            let at = options.at.unwrap_or(latest);
            let found = match options.part {
                RangePart::Count => shard.get_at(&[], Cut::at(at)).map(|_| FoundRange::default()),
                _ => shard.range_at(&keys, after, options, at, *bytes_max),
            };
            (latest, shard.stamp(), at, found)
        })?;
        let FoundRange { keys: found, more, .. } = found.map_err(not_kept(at))?;
        let counted = if *count { self.count(&keys, at)? } else { 0 };
        let receipt = Receipt { revision: latest, stamp, ..receipt };
        let Some(keys) = self.complete_pairs(&found)? else { return Ok(None) };
        Ok(Some(Answer::Ranged(receipt, RangePage { keys, more, count: counted, at })))
    }

    /// Counts the keys of a range that existed at a revision.
    fn count(&self, keys: &Keys<'_>, at: Revision) -> Result<u64, Refusal> {
        let mut counted = 0;
        let mut upto: Option<Arc<[u8]>> = None;
        loop {
            let part = self.shard(|shard| {
                let after = upto.as_deref().unwrap_or_default();
                shard.count_at(keys, after, at, COUNTED_TOGETHER)
            })?;
            let Counted { count, upto: next } = part.map_err(not_kept(at))?;
            counted += count;
            match next {
                Some(next) => upto = Some(next),
                None => return Ok(counted),
            }
        }
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
