//! The results of a transaction, read from the history after it was applied.
//!
//! What an operation saw are the changes of the operations before it and nothing later: each change
//! knows its position within its revision.

use std::convert::Infallible;
use std::sync::Arc;

use dkv_base::id::Revision;
use dkv_wire::limits::{self, SCAN_BYTES_MAX, SCAN_KEYS_MAX};
use dkv_wire::message::{
    Cut, Keys, RangeOptions, RangePart, Transaction, TransactionOperation, Unfit,
};

use crate::command::transaction::validate;
use crate::range::FoundRange;
use crate::reads_at::{FoundVersion, NotKept, VersionValue};
use crate::shard::ShardState;
use crate::shard::budget::Budget;
use crate::shard::path::{Path, PathStep};
use crate::shard::transactions::{Plan, PlannedChange};

/// The result of one operation; values may be in the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundResult {
    /// What a get found.
    Got(Option<FoundVersion>),
    /// What a list found.
    Listed {
        /// The keys, in order.
        keys: Vec<FoundVersion>,
        /// Whether there are more.
        more: bool,
    },
    /// The version that a put made.
    Put(FoundVersion),
    /// The number of keys that a delete removed.
    Deleted(u64),
    /// The version that an increment or an append made.
    Changed(FoundVersion),
    /// What a put replaced, if it was asked.
    Replaced(Option<FoundVersion>),
    /// What a delete removed.
    Removed {
        /// The number of keys.
        deleted: u64,
        /// They as they were, if that was asked for.
        previous: Vec<FoundVersion>,
        /// The revision of the state after it.
        revision: Revision,
    },
    /// What a range has.
    Ranged {
        /// The keys.
        range: FoundRange,
        /// The revision of the state that the operation saw.
        revision: Revision,
    },
    /// A nested transaction.
    Nested {
        /// Whether its compares held.
        succeeded: bool,
        /// The number of results that follow and belong to it.
        results: u32,
    },
}

/// A transaction that was executed, as its operations see it.
struct Seen<'s> {
    shard: &'s ShardState,
    /// The revision before it.
    before: Revision,
    /// Its revision, if it changed anything; otherwise that before it.
    revision: Revision,
}

impl Seen<'_> {
    /// Returns a key as the operation at a place sees it.
    fn get(&self, key: &[u8], place: usize) -> Option<FoundVersion> {
        let exists = |found: &FoundVersion| found.value != VersionValue::Deleted;
        let found = self.shard.version_at(key, Cut::at(self.revision));
        let is_own = |found: &FoundVersion| {
            found.origin.revision == self.revision && self.revision != self.before
        };
        let found = match found {
            Some(found) if is_own(&found) && usize::from(found.origin.position) >= place => {
                self.shard.version_at(key, Cut::at(self.before))
            }
            found => found,
        };
        found.filter(exists)
    }

    /// Returns the keys of a range as the operation at a place sees them.
    fn range(
        &self,
        keys: &Keys<'_>,
        place: usize,
        options: &RangeOptions,
        bytes_max: usize,
        counts: bool,
    ) -> FoundRange {
        let mut found = FoundRange::default();
        for key in self.shard.known_keys(keys) {
            let version = match options.at {
                None => self.get(&key, place),
                Some(at) => self.shard.version_at(&key, Cut::at(at)),
            };
            let version = version.filter(|found| found.value != VersionValue::Deleted);
            let Some(version) = version else { continue };
            let origin = (version.origin.revision, version.origin.created);
            found.take(options, bytes_max, origin, || version);
            if found.more && !counts {
                break;
            }
        }
        found
    }

    fn all(&self, keys: &Keys<'_>, place: usize, part: RangePart) -> FoundRange {
        let options = RangeOptions { part, ..RangeOptions::default() };
        self.range(keys, place, &options, usize::MAX, true)
    }
}

impl ShardState {
    /// Returns the results of a transaction that was executed at a revision, with what succeeded,
    /// the way through it, and whether it changed anything. Those of a nested transaction follow
    /// its own.
    ///
    /// # Errors
    /// [`NotKept`] if the history does not go back far enough.
    pub fn results(
        &self,
        body: &[u8],
        revision: Revision,
        (succeeded, path): (bool, u64),
        changed: bool,
    ) -> Result<Vec<FoundResult>, NotKept> {
        let limit = limits::VALUE_BYTES_MAX as u64;
        let Ok(Transaction { then, otherwise, .. }) = validate(body, limit) else {
            return Ok(Vec::new());
        };
        let operations = if succeeded { then } else { otherwise };
        let before = if changed { Revision(revision.0.saturating_sub(1)) } else { revision };
        self.kept(Cut::at(before))?;
        self.kept(Cut::at(revision))?;
        let taken = |number: u32| path >> number.min(63) & 1 == 1;
        let path =
            Path::through(&operations, &mut |_, number, _| Ok::<_, Infallible>(taken(number)));
        let Ok(path) = path;
        let seen = Seen { shard: self, before, revision };
        let mut results = Vec::with_capacity(path.steps.len());
        // The revision of the state after the operations so far.
        let mut reached = before;
        for (place, step) in path.steps.iter().enumerate() {
            results.push(match step {
                PathStep::Nested { succeeded, steps } => {
                    FoundResult::Nested { succeeded: *succeeded, results: *steps as u32 }
                }
                PathStep::Operation(operation) => seen.result(operation, place, &mut reached)?,
            });
        }
        Ok(results)
    }

    /// Checks that the reads of a transaction that is about to make these changes are possible, and
    /// that their results are not too long.
    pub(crate) fn check_reads(
        &self,
        path: &Path<'_>,
        changes: &Plan,
        budget: &mut Budget,
    ) -> Result<(), (u32, Unfit)> {
        for (place, operation) in path.operations() {
            let (all, left) = (RangeOptions::default(), budget.left());
            let bytes = match operation {
                TransactionOperation::PutWith { key, previous: true, .. } => {
                    self.bytes_of(&Keys::Key(key), &all, 0, changes, left)
                }
                TransactionOperation::DeleteWith { keys, previous: true } => {
                    self.bytes_of(keys, &all, 0, changes, left)
                }
                TransactionOperation::Range { keys, options } => {
                    self.bytes_of(keys, options, place, changes, left)
                }
                // The plan has counted all other reads.
                _ => continue,
            };
            bytes.and_then(|bytes| budget.take_all(bytes)).map_err(|why| (path.of[place], why))?;
        }
        Ok(())
    }

    /// Returns at least the bytes that an operation at a place reads of a range.
    fn bytes_of(
        &self,
        keys: &Keys<'_>,
        options: &RangeOptions,
        place: usize,
        changes: &Plan,
        bytes_max: usize,
    ) -> Result<usize, Unfit> {
        let at = options.at.unwrap_or(self.revision());
        let planned = |(key, position, _): &&(Arc<[u8]>, u16, PlannedChange)| {
            usize::from(*position) < place && keys.contains(key) && options.at.is_none()
        };
        let mut options = *options;
        if options.part == RangePart::Count {
            return self.kept(Cut::at(at)).map(|()| 0).map_err(unfit);
        }
        let mut bytes = 0;
        for (key, _, change) in changes.iter().filter(planned) {
            match change {
                PlannedChange::Put(value, _) if options.part == RangePart::Values => {
                    bytes += key.len() + value.len() + limits::VERSION_OVERHEAD_BYTES;
                }
                PlannedChange::Put(..) => bytes += key.len() + limits::VERSION_OVERHEAD_BYTES,
                // Another key may come in its place.
                PlannedChange::Delete if options.keys_max > 0 => options.keys_max += 1,
                PlannedChange::Delete => {}
            }
        }
        let Some(left) = bytes_max.checked_sub(bytes) else { return Err(Unfit::TooMuch) };
        let found = self.range_at(keys, &[], &options, at, left).map_err(unfit)?;
        if found.is_cut || found.bytes > left {
            Err(Unfit::TooMuch)
        } else {
            Ok(bytes + found.bytes)
        }
    }
}

fn unfit(why: NotKept) -> Unfit {
    match why {
        NotKept::Compacted { .. } => Unfit::Compacted,
        NotKept::NotYet { .. } => Unfit::NotYet,
    }
}

impl Seen<'_> {
    /// Returns the result of an operation, and notes the revision of the state after it.
    fn result(
        &self,
        operation: &TransactionOperation<'_>,
        place: usize,
        reached: &mut Revision,
    ) -> Result<FoundResult, NotKept> {
        let Self { shard, revision, .. } = *self;
        Ok(match operation {
            TransactionOperation::Get(key) => FoundResult::Got(self.get(key, place)),
            TransactionOperation::List { keys, keys_max } => {
                let keys_max = (*keys_max as usize).clamp(1, SCAN_KEYS_MAX) as u64;
                let options = RangeOptions { keys_max, ..RangeOptions::default() };
                let FoundRange { keys, more, .. } =
                    self.range(keys, place, &options, SCAN_BYTES_MAX, false);
                FoundResult::Listed { keys, more }
            }
            TransactionOperation::Put(key, _) | TransactionOperation::PutAttached { key, .. } => {
                *reached = revision;
                match shard.get_at(key, revision)? {
                    Some(found) => FoundResult::Put(found),
                    None => FoundResult::Deleted(0),
                }
            }
            TransactionOperation::Increment { key, .. }
            | TransactionOperation::Append { key, .. } => {
                *reached = revision;
                match shard.get_at(key, revision)? {
                    Some(found) => FoundResult::Changed(found),
                    None => FoundResult::Deleted(0),
                }
            }
            TransactionOperation::Delete(key) => {
                let deleted = u64::from(self.get(key, place).is_some());
                self.note_deleted(deleted, reached);
                FoundResult::Deleted(deleted)
            }
            TransactionOperation::DeleteAll(keys) => {
                let deleted = self.all(keys, place, RangePart::Count).count;
                self.note_deleted(deleted, reached);
                FoundResult::Deleted(deleted)
            }
            TransactionOperation::PutWith { key, previous, .. } => {
                *reached = revision;
                FoundResult::Replaced(self.get(key, place).filter(|_| *previous))
            }
            TransactionOperation::DeleteWith { keys, previous } => {
                let part = if *previous { RangePart::Values } else { RangePart::Count };
                let FoundRange { keys: previous, count: deleted, .. } = self.all(keys, place, part);
                self.note_deleted(deleted, reached);
                FoundResult::Removed { deleted, previous, revision: *reached }
            }
            TransactionOperation::Range { keys, options } => {
                if let Some(at) = options.at {
                    shard.kept(Cut::at(at))?;
                }
                let range = self.range(keys, place, options, usize::MAX, true);
                FoundResult::Ranged { range, revision: *reached }
            }
            // It is a step of its own.
            TransactionOperation::Nested(_) => FoundResult::Deleted(0),
        })
    }

    fn note_deleted(&self, deleted: u64, reached: &mut Revision) {
        if deleted > 0 {
            *reached = self.revision;
        }
    }
}
