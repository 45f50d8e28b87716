//! What a transaction reads of ranges of keys, checked before it is executed.
//!
//! Its results are read afterwards, and have to fit an answer. This check is part of applying the
//! transaction, so it must not take long either: every key and every version that it looks at
//! counts, whether it passes the filters of the operation or not.

use std::collections::BTreeMap;
use std::ops::Bound;

use dkv_base::id::Revision;
use dkv_wire::limits::{SCAN_BYTES_MAX, VERSION_OVERHEAD_BYTES};
use dkv_wire::message::{Cut, Keys, RangeOptions, RangePart, TransactionOperation, Unfit};

use super::range::{FoundRange, RangingAt};
use super::reads_at::NotKept;
use super::shard::ShardState;
use super::shard::budget::Budget;
use super::shard::path::Path;
use super::shard::transactions::{Plan, PlannedChange};
use super::transaction_results::list_keys_max;

/// A read of a range.
struct RangeRead<'a> {
    keys: Keys<'a>,
    options: RangeOptions,
    /// It sees what operations at places before this one write.
    place: usize,
    /// Whether it stops when it has as many bytes as a page.
    is_page: bool,
}

impl<'a> RangeRead<'a> {
    /// Returns what an operation at a place reads; `None` if the plan has counted that.
    fn of(operation: &TransactionOperation<'a>, place: usize) -> Option<Self> {
        let (keys, all) = (operation.keys(), RangeOptions::default());
        Some(match operation {
            TransactionOperation::PutWith { previous: true, .. }
            | TransactionOperation::DeleteWith { previous: true, .. } => {
                Self { keys, options: all, place: 0, is_page: false }
            }
            TransactionOperation::List { keys: Keys::Key(_), .. } => return None,
            TransactionOperation::List { keys_max, .. } => {
                let options = RangeOptions { keys_max: list_keys_max(*keys_max), ..all };
                Self { keys, options, place, is_page: true }
            }
            TransactionOperation::Range { options, .. } => {
                Self { keys, options: *options, place, is_page: false }
            }
            _ => return None,
        })
    }
}

/// The writes of the transaction.
struct OwnWrites<'p> {
    /// The place of the first operation that writes each key, and the length of the value, if it
    /// is a put.
    by_key: BTreeMap<&'p [u8], (usize, Option<usize>)>,
}

impl<'p> OwnWrites<'p> {
    fn of(changes: &'p Plan) -> Self {
        let mut by_key = BTreeMap::new();
        for (key, place, change) in changes {
            let value_bytes = match change {
                PlannedChange::Put(value, _) => Some(value.len()),
                PlannedChange::Delete => None,
            };
            by_key.entry(&key[..]).or_insert((usize::from(*place), value_bytes));
        }
        Self { by_key }
    }

    /// Returns whether a read sees a write of a key.
    fn is_seen(&self, key: &[u8], read: &RangeRead<'_>) -> bool {
        let is_before = |(place, _): &(usize, _)| *place < read.place;
        read.options.at.is_none() && self.by_key.get(key).is_some_and(is_before)
    }

    /// Returns all writes of the keys of a read that may see some.
    fn in_range(
        &self,
        read: &RangeRead<'_>,
    ) -> impl Iterator<Item = (&'p [u8], (usize, Option<usize>))> {
        let sees = read.options.at.is_none() && read.place > 0;
        let from = (Bound::Included(read.keys.first()), Bound::Unbounded);
        let writes = sees.then(|| self.by_key.range::<[u8], _>(from)).into_iter().flatten();
        writes.take_while(|(key, _)| read.keys.contains(key)).map(|(key, write)| (*key, *write))
    }
}

impl ShardState {
    /// Checks that the reads of a transaction that is about to make these changes are possible, and
    /// takes what they cost.
    pub(crate) fn check_reads(
        &self,
        path: &Path<'_>,
        changes: &Plan,
        budget: &mut Budget,
    ) -> Result<(), (u32, Unfit)> {
        let mut own = None;
        for (place, operation) in path.operations() {
            let Some(read) = RangeRead::of(operation, place) else { continue };
            let own = own.get_or_insert_with(|| OwnWrites::of(changes));
            let bytes = self.bytes_of(&read, own, budget.left());
            bytes.and_then(|bytes| budget.take_all(bytes)).map_err(|why| (path.of[place], why))?;
        }
        Ok(())
    }

    /// Returns the most bytes that a read of a range has, and counts what it looks at.
    fn bytes_of(
        &self,
        read: &RangeRead<'_>,
        own: &OwnWrites<'_>,
        bytes_max: usize,
    ) -> Result<usize, Unfit> {
        let RangeRead { keys, options, is_page, .. } = *read;
        let at: Revision = options.at.unwrap_or(self.revision());
        self.kept(Cut::at(at)).map_err(|why| match why {
            NotKept::Compacted { .. } => Unfit::Compacted,
            NotKept::NotYet { .. } => Unfit::NotYet,
        })?;
        if options.part == RangePart::Count {
            return Ok(0);
        }
        let steps_max = bytes_max / VERSION_OVERHEAD_BYTES;
        let mut steps = steps_max;
        let (mut bytes, mut longest) = (0, 0);
        for (key, (place, value_bytes)) in own.in_range(read) {
            steps = steps.checked_sub(1).ok_or(Unfit::TooMuch)?;
            if let Some(value_bytes) = value_bytes.filter(|_| place < read.place) {
                let value_bytes = if options.part == RangePart::Values { value_bytes } else { 0 };
                bytes += key.len() + value_bytes;
                longest = longest.max(key.len() + value_bytes);
            }
        }
        let walked_max = if is_page { SCAN_BYTES_MAX } else { bytes_max };
        let mut ranging = RangingAt::new(keys, &[], options, walked_max);
        let is_replaced = |key: &[u8]| own.is_seen(key, read);
        let walked = self.range_steps(at, &mut ranging, &mut steps, is_replaced);
        let FoundRange { keys: found, bytes: found_bytes, is_cut, .. } = ranging.found;
        if walked != Ok(true) || is_cut && !is_page {
            return Err(Unfit::TooMuch);
        }
        bytes += found_bytes - found.len() * VERSION_OVERHEAD_BYTES;
        if is_page {
            // Only the first key of a page may be longer than the page.
            longest = found.first().map_or(longest, |first| longest.max(first.bytes()));
            bytes = bytes.min(longest.max(SCAN_BYTES_MAX));
        }
        Ok(bytes + (steps_max - steps) * VERSION_OVERHEAD_BYTES)
    }
}
