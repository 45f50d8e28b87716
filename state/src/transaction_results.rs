//! The results of a transaction, read from the history after it was applied.
//!
//! What an operation saw are the changes of the operations before it and nothing later: each change
//! knows its position within its revision. The results are read step by step.

use std::convert::Infallible;
use std::sync::Arc;

use dkv_base::id::Revision;
use dkv_wire::limits::{self, SCAN_BYTES_MAX, SCAN_KEYS_MAX};
use dkv_wire::message::{Cut, RangeOptions, RangePart, Transaction, TransactionOperation};

use crate::command::transaction::validate;
use crate::range::{FoundRange, RangingAt};
use crate::reads_at::{CHANGES_LOOKED_AT_MAX, FoundVersion, NotKept, Sought, VersionValue};
use crate::shard::ShardState;
use crate::shard::path::{Path, PathStep};
use crate::walk::Cursor;

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

impl FoundResult {
    /// Returns the bytes of its keys and values, with what counts for each version beside.
    pub fn bytes(&self) -> usize {
        let bytes = |found: &FoundVersion| found.bytes() + limits::VERSION_OVERHEAD_BYTES;
        match self {
            Self::Got(Some(found)) | Self::Changed(found) | Self::Replaced(Some(found)) => {
                bytes(found)
            }
            Self::Listed { keys, .. }
            | Self::Removed { previous: keys, .. }
            | Self::Ranged { range: FoundRange { keys, .. }, .. } => keys.iter().map(bytes).sum(),
            Self::Got(None) | Self::Replaced(None) => 0,
            Self::Put(_) | Self::Deleted(_) | Self::Nested { .. } => 0,
        }
    }
}

/// The results of a transaction, on their way. Those of a nested transaction follow its own.
#[derive(Debug)]
pub struct ResultsAt<'b> {
    /// The results so far.
    pub found: Vec<FoundResult>,
    path: Path<'b>,
    seen: Seen,
    /// The revision of the state after the operations so far.
    reached: Revision,
    /// What the next operation reads.
    reading: Option<RangingAt<'b>>,
}

/// A transaction that was executed, as its operations see it.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// The revision before it.
    before: Revision,
    /// Its revision, if it changed anything; otherwise that before it.
    revision: Revision,
}

impl<'b> ResultsAt<'b> {
    /// Begins with the first operation of a transaction that was executed at a revision, with what
    /// succeeded, the way through it, and whether it changed anything.
    pub fn new(
        body: &'b [u8],
        revision: Revision,
        (succeeded, path): (bool, u64),
        changed: bool,
    ) -> Self {
        let transaction = validate(body, limits::VALUE_BYTES_MAX as u64);
        let Transaction { then, otherwise, .. } = transaction.unwrap_or_default();
        let operations = if succeeded { then } else { otherwise };
        let before = if changed { Revision(revision.0.saturating_sub(1)) } else { revision };
        let taken = |number: u32| path >> number.min(63) & 1 == 1;
        let path =
            Path::through(&operations, &mut |_, number, _| Ok::<_, Infallible>(taken(number)));
        let Ok(path) = path;
        let found = Vec::with_capacity(path.steps.len());
        let seen = Seen { before, revision };
        Self { found, path, seen, reached: before, reading: None }
    }
}

impl Seen {
    /// Returns a key to which a walk has come, as the operation at a place sees it, as
    /// [`ShardState::look_at`] does.
    fn look_at(
        self,
        shard: &ShardState,
        key: &Arc<[u8]>,
        place: usize,
        cursor: &mut Cursor,
        steps: &mut usize,
    ) -> Option<Option<FoundVersion>> {
        let found = shard.look_at(key, Cut::at(self.revision), cursor, steps)?;
        let is_own = |found: &FoundVersion| {
            found.origin.revision == self.revision && self.revision != self.before
        };
        Some(match found {
            Some(found) if is_own(&found) && usize::from(found.origin.position) >= place => {
                let (before, from) = (Cut::at(self.before), Some(self.revision));
                // It is the next version.
                match shard.find_at(key, before, from, steps) {
                    Sought::Found(found) => found,
                    Sought::Before(_) => None,
                }
            }
            found => found,
        })
    }

    /// Adds the keys that the operation at a place sees, and counts them all if it `counts`.
    /// Returns whether that is complete.
    fn read(
        self,
        shard: &ShardState,
        place: usize,
        counts: bool,
        reading: &mut RangingAt<'_>,
        steps: &mut usize,
    ) -> Result<bool, NotKept> {
        let RangingAt { found, keys, options, bytes_max, cursor } = reading;
        if let Some(at) = options.at {
            shard.kept(Cut::at(at))?;
        }
        while let Some(key) = shard.next_key(cursor.from()).filter(|key| keys.contains(key)) {
            let looked_at = match options.at {
                None => self.look_at(shard, &key, place, cursor, steps),
                Some(at) => shard.look_at(&key, Cut::at(at), cursor, steps),
            };
            let Some(version) = looked_at else { return Ok(false) };
            let version = version.filter(|found| found.value != VersionValue::Deleted);
            let Some(version) = version else { continue };
            let origin = (version.origin.revision, version.origin.created);
            found.take(options, *bytes_max, origin, || version);
            if found.more && !counts {
                break;
            }
        }
        Ok(true)
    }
}

impl ShardState {
    /// Adds results of a transaction; looks at a bounded number of keys and versions. Returns
    /// whether they are complete.
    ///
    /// # Errors
    /// [`NotKept`] if the history does not go back far enough.
    pub fn results_more(&self, results: &mut ResultsAt<'_>) -> Result<bool, NotKept> {
        let ResultsAt { found: all, path, seen, reached, reading } = results;
        self.kept(Cut::at(seen.before))?;
        self.kept(Cut::at(seen.revision))?;
        let mut steps = CHANGES_LOOKED_AT_MAX;
        while let Some(step) = path.steps.get(all.len()) {
            let operation = match step {
                PathStep::Nested { succeeded, steps } => {
                    let (succeeded, results) = (*succeeded, *steps as u32);
                    all.push(FoundResult::Nested { succeeded, results });
                    continue;
                }
                PathStep::Operation(operation) => operation,
            };
            let (place, counts) = seen_from(operation, all.len());
            let mut now = reading.take().or_else(|| read_by(operation));
            if let Some(read) = &mut now
                && !seen.read(self, place, counts, read, &mut steps)?
            {
                *reading = now;
                return Ok(false);
            }
            let found = now.map(|read| read.found).unwrap_or_default();
            all.push(seen.result(operation, found, reached));
        }
        Ok(true)
    }
}

/// Returns from which place on an operation at a place does not see the writes of its transaction,
/// and whether it counts all keys of its range.
fn seen_from(operation: &TransactionOperation<'_>, place: usize) -> (usize, bool) {
    match operation {
        TransactionOperation::Put(..)
        | TransactionOperation::PutAttached { .. }
        | TransactionOperation::Increment { .. }
        | TransactionOperation::Append { .. } => (place + 1, true),
        TransactionOperation::List { .. } => (place, false),
        _ => (place, true),
    }
}

/// Returns what has to be read for the result of an operation.
fn read_by<'b>(operation: &TransactionOperation<'b>) -> Option<RangingAt<'b>> {
    let (keys, mut options) = (operation.keys(), RangeOptions::default());
    let mut bytes_max = usize::MAX;
    match operation {
        TransactionOperation::List { keys_max, .. } => {
            options.keys_max = list_keys_max(*keys_max);
            bytes_max = SCAN_BYTES_MAX;
        }
        TransactionOperation::Range { options: asked, .. } => options = *asked,
        TransactionOperation::Delete(_)
        | TransactionOperation::DeleteAll(_)
        | TransactionOperation::DeleteWith { previous: false, .. } => {
            options.part = RangePart::Count;
        }
        TransactionOperation::PutWith { previous: false, .. } | TransactionOperation::Nested(_) => {
            return None;
        }
        TransactionOperation::Get(_)
        | TransactionOperation::Put(..)
        | TransactionOperation::PutAttached { .. }
        | TransactionOperation::PutWith { .. }
        | TransactionOperation::DeleteWith { .. }
        | TransactionOperation::Increment { .. }
        | TransactionOperation::Append { .. } => {}
    }
    Some(RangingAt::new(keys, &[], options, bytes_max))
}

/// Returns the most keys of a list that may have this many.
pub(crate) fn list_keys_max(keys_max: u32) -> u64 {
    (keys_max as usize).clamp(1, SCAN_KEYS_MAX) as u64
}

impl Seen {
    /// Returns the result of an operation that has read this, and notes the revision of the state
    /// after it.
    fn result(
        self,
        operation: &TransactionOperation<'_>,
        read: FoundRange,
        reached: &mut Revision,
    ) -> FoundResult {
        let FoundRange { count, .. } = read;
        if operation.written().is_some() && (count > 0 || !is_delete(operation)) {
            *reached = self.revision;
        }
        let first = |read: FoundRange| read.keys.into_iter().next();
        match operation {
            TransactionOperation::Get(_) => FoundResult::Got(first(read)),
            TransactionOperation::List { .. } => {
                FoundResult::Listed { keys: read.keys, more: read.more }
            }
            TransactionOperation::Put(..) | TransactionOperation::PutAttached { .. } => {
                first(read).map_or(FoundResult::Deleted(0), FoundResult::Put)
            }
            TransactionOperation::Increment { .. } | TransactionOperation::Append { .. } => {
                first(read).map_or(FoundResult::Deleted(0), FoundResult::Changed)
            }
            TransactionOperation::Delete(_) | TransactionOperation::DeleteAll(_) => {
                FoundResult::Deleted(count)
            }
            TransactionOperation::PutWith { .. } => FoundResult::Replaced(first(read)),
            TransactionOperation::DeleteWith { .. } => {
                let (previous, revision) = (read.keys, *reached);
                FoundResult::Removed { deleted: count, previous, revision }
            }
            TransactionOperation::Range { .. } => {
                FoundResult::Ranged { range: read, revision: *reached }
            }
            // It is a step of its own.
            TransactionOperation::Nested(_) => FoundResult::Deleted(0),
        }
    }
}

fn is_delete(operation: &TransactionOperation<'_>) -> bool {
    matches!(
        operation,
        TransactionOperation::Delete(_)
            | TransactionOperation::DeleteAll(_)
            | TransactionOperation::DeleteWith { .. }
    )
}
