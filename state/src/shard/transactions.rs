//! Transactions as part of an entry of the log.
//!
//! A transaction is one command: it judges its compares, executes one of its lists of operations,
//! and all its writes have one revision. Applying it records the outcome only (which list, which
//! revision); the results of its operations are read afterwards from the history, at the revision
//! of the outcome. So a transaction that is repeated has the same results for as long as the
//! history goes back that far, and applying it never waits for a page of keys.
//!
//! Some operations need the value of a key (an increment, an append, a put that keeps the value, a
//! compare of values), which
//! may be in the checkpoint only. The owner reads these before it applies the entry, and passes
//! them in ([`ShardState::needed`]).

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::Arc;

use dkv_base::id::{Revision, Stamp};
use dkv_wire::limits;
use dkv_wire::message::{
    Command, Compare, Decide, Keys, Operation, Prepare, PutAttach, Test, Transact, Transaction,
    TransactionOperation, Unfit,
};

use super::path::Path;
use super::{Attaching, ShardState};
use crate::batch::{Batch, CorruptBatch};
use crate::command::{self, transaction::validate};
use crate::rows::Row;
use crate::session::Outcome;
use crate::value_cache::{Found, Slot};

/// Values that a batch needs, by key.
#[derive(Debug, Default)]
pub struct Needed {
    /// Those that are in memory, and those that were read from the checkpoint.
    pub rows: HashMap<Arc<[u8]>, Row>,
    /// The keys whose values are in the checkpoint only.
    pub stored: Vec<Arc<[u8]>>,
}

/// Returns whether an entry of a shard's log may have a transaction.
pub fn has_transactions(entry: &[u8]) -> bool {
    Batch::decode(entry).is_ok_and(|batch| batch.commands().any(command::may_need_values))
}

/// Writes that a transaction is about to make: the key, the place of the operation, the change.
pub(crate) type Plan = Vec<(Arc<[u8]>, u16, PlannedChange)>;

/// A write that a transaction is about to make.
pub(crate) enum PlannedChange {
    Put(Arc<[u8]>, Attaching),
    Delete,
}

impl ShardState {
    /// Returns the values that the transactions of a batch need, as far as they are known before it
    /// is applied. Costs a look at each command.
    ///
    /// # Errors
    /// As for [`Self::apply_with`].
    pub fn needed(&self, batch: &[u8]) -> Result<Needed, CorruptBatch> {
        let mut needed = Needed::default();
        for encoded in Batch::decode(batch)?.commands() {
            if !command::may_need_values(encoded) {
                continue;
            }
            match command::decode_logged(encoded) {
                Some(Command::Transact(Transact { body, .. }))
                | Some(Command::Prepare(Prepare { body, .. })) => self.need(body, &mut needed),
                Some(Command::Decide(Decide { id, .. })) | Some(Command::Finish { id, .. }) => {
                    if let Some(part) = self.attempts.parts().get(&id) {
                        self.need(&part.body, &mut needed);
                    }
                }
                _ => {}
            }
        }
        Ok(needed)
    }

    /// Returns the values that a transaction with this body needs now.
    pub fn needed_by(&self, body: &[u8]) -> Needed {
        let mut needed = Needed::default();
        self.need(body, &mut needed);
        needed
    }

    fn need(&self, body: &[u8], needed: &mut Needed) {
        let Ok(transaction) = validate(body, limits::VALUE_BYTES_MAX as u64) else { return };
        let (compares, operations) = transaction.parts();
        for Compare { keys, .. } in compares.iter().filter(|compare| needs_values(compare)) {
            for (key, slot) in self.slots(keys) {
                note(needed, key, slot);
            }
        }
        for operation in &operations {
            if let TransactionOperation::Increment { key, .. }
            | TransactionOperation::Append { key, .. }
            | TransactionOperation::PutWith { key, value: None, .. } = operation
                && let Some((key, slot)) = self.keys().get_key_value(*key)
            {
                note(needed, key, slot);
            }
        }
    }

    /// Returns the existing keys of a range.
    pub(crate) fn slots(&self, keys: &Keys<'_>) -> impl Iterator<Item = (&Arc<[u8]>, &Slot)> {
        self.slots_from(keys, Bound::Included(keys.first()))
    }

    /// Returns those from a bound on, which is not before the first.
    pub(crate) fn slots_from(
        &self,
        keys: &Keys<'_>,
        from: Bound<&[u8]>,
    ) -> impl Iterator<Item = (&Arc<[u8]>, &Slot)> {
        let rows = self.keys().range::<[u8], _>((from, Bound::Unbounded));
        rows.take_while(|(key, _)| keys.contains(key))
    }

    /// Executes a transaction.
    ///
    /// # Errors
    /// If a value that it needs is neither in memory nor in `needed`.
    pub(crate) fn transact(
        &mut self,
        transact: &Transact<'_>,
        now: Stamp,
        needed: &Needed,
    ) -> Result<Outcome, MissingValue> {
        let limit = limits::VALUE_BYTES_MAX as u64;
        let Ok(transaction) = validate(transact.body, limit) else {
            return Ok(Outcome::Conflict { current: None });
        };
        let Transaction { compares, then, otherwise } = &transaction;
        let succeeded = self.holds_all(compares, needed)?;
        let path = self.path(if succeeded { then } else { otherwise }, needed)?;
        let changes = match self.planned_on(&path, needed)? {
            Ok(changes) => changes,
            Err((operation, why)) => return Ok(Outcome::Unfit { operation, why }),
        };
        if let Err((operation, why)) = self.check_reads(&path, &changes) {
            return Ok(Outcome::Unfit { operation, why });
        }
        let stamp = self.stamp_after(now, transact.after);
        let (revision, changed) = self.make(changes, stamp);
        Ok(Outcome::Transacted { revision, succeeded, changed, path: path.taken })
    }

    /// Returns what a list of operations changes, or the first one that cannot be executed.
    pub(crate) fn planned(
        &self,
        operations: &[TransactionOperation<'_>],
        needed: &Needed,
    ) -> Result<Result<Plan, (u32, Unfit)>, MissingValue> {
        self.planned_on(&self.path(operations, needed)?, needed)
    }

    fn planned_on(
        &self,
        path: &Path<'_>,
        needed: &Needed,
    ) -> Result<Result<Plan, (u32, Unfit)>, MissingValue> {
        let mut changes = Vec::new();
        for (place, operation) in path.operations() {
            if let Err(why) = self.change(operation, place as u16, needed, &mut changes)? {
                return Ok(Err((path.of[place], why)));
            }
        }
        Ok(Ok(changes))
    }

    /// Returns whether changes change anything.
    pub(super) fn is_changed_by(&self, changes: &Plan) -> bool {
        changes.iter().any(|(key, _, change)| {
            matches!(change, PlannedChange::Put(..)) || self.keys().contains_key(key)
        })
    }

    /// Makes changes at the next revision, with a stamp later than those of their keys. Returns the
    /// revision, and whether anything changed.
    pub(super) fn make(&mut self, mut changes: Plan, stamp: Stamp) -> (Revision, bool) {
        // In the order of keys, as they are when the state is loaded. Of several operations that
        // delete a key, the first does it.
        changes.sort_by(|(a, ..), (b, ..)| a.cmp(b));
        changes.dedup_by(|(later, ..), (first, ..)| later == first);
        let changed = self.is_changed_by(&changes);
        self.note_stamp(stamp);
        let revision = if changed { Revision(self.revision().0 + 1) } else { self.revision() };
        for (key, position, change) in changes {
            let at = (revision, position);
            match change {
                PlannedChange::Put(value, attaching) => {
                    self.store_at(at, &key, Operation::Put(&value), stamp, attaching);
                }
                PlannedChange::Delete => {
                    self.store_at(at, &key, Operation::Delete, stamp, Attaching::Nothing);
                }
            }
        }
        (revision, changed)
    }

    /// Adds what an operation changes to `changes`.
    fn change(
        &self,
        operation: &TransactionOperation<'_>,
        place: u16,
        needed: &Needed,
        changes: &mut Plan,
    ) -> Result<Result<(), Unfit>, MissingValue> {
        let current = |key: &[u8]| match self.keys().get_key_value(key) {
            Some((key, slot)) => value_of(key, slot, needed).map(Some),
            None => Ok(None),
        };
        let mut put = |key: &[u8], value, attaching| {
            changes.push((Arc::from(key), place, PlannedChange::Put(value, attaching)));
        };
        match operation {
            TransactionOperation::Get(_)
            | TransactionOperation::List { .. }
            | TransactionOperation::Range { .. }
            | TransactionOperation::Nested(_) => {}
            TransactionOperation::Put(key, value) => {
                put(key, Arc::from(*value), Attaching::Nothing);
            }
            TransactionOperation::PutAttached { key, value, attach } => {
                let Ok(attachment) = self.attachment(*attach) else {
                    return Ok(Err(Unfit::NoLease));
                };
                put(key, Arc::from(*value), Attaching::To(attachment));
            }
            TransactionOperation::PutWith { key, value, attach, .. } => {
                let keeps = value.is_none() || *attach == PutAttach::AsBefore;
                if keeps && !self.keys().contains_key(*key) {
                    return Ok(Err(Unfit::NoKey));
                }
                let attaching = match attach {
                    PutAttach::Nothing => Attaching::Nothing,
                    PutAttach::AsBefore => Attaching::AsBefore,
                    PutAttach::To(attach) => match self.attachment(*attach) {
                        Ok(attachment) => Attaching::To(attachment),
                        Err(_) => return Ok(Err(Unfit::NoLease)),
                    },
                };
                let value = match value {
                    Some(value) => Arc::from(*value),
                    None => current(key)?.unwrap_or_default(),
                };
                put(key, value, attaching);
            }
            TransactionOperation::Delete(key) => {
                changes.push((Arc::from(*key), place, PlannedChange::Delete));
            }
            TransactionOperation::DeleteAll(keys)
            | TransactionOperation::DeleteWith { keys, .. } => {
                let found = self
                    .slots(keys)
                    .map(|(key, _)| (Arc::clone(key), place, PlannedChange::Delete));
                changes.extend(found);
            }
            TransactionOperation::Increment { key, by } => {
                let value = match current(key)? {
                    Some(value) => match number(&value) {
                        Some(number) => number,
                        None => return Ok(Err(Unfit::NotANumber)),
                    },
                    None => 0,
                };
                let Some(sum) = value.checked_add(*by) else { return Ok(Err(Unfit::Overflow)) };
                put(key, Arc::from(sum.to_string().into_bytes()), Attaching::AsBefore);
            }
            TransactionOperation::Append { key, bytes } => {
                let value = current(key)?.unwrap_or_default();
                if value.len() + bytes.len() > limits::VALUE_BYTES_MAX {
                    return Ok(Err(Unfit::TooLong));
                }
                put(key, Arc::from([&value[..], bytes].concat()), Attaching::AsBefore);
            }
        }
        Ok(Ok(()))
    }
}

/// A value that a transaction needs is not at hand. The replica cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MissingValue;

fn note(needed: &mut Needed, key: &Arc<[u8]>, slot: &Slot) {
    match slot.find() {
        Found::Row(row) => _ = needed.rows.insert(Arc::clone(key), row),
        Found::Stored(_) => needed.stored.push(Arc::clone(key)),
    }
}

pub(super) fn value_of(
    key: &Arc<[u8]>,
    slot: &Slot,
    needed: &Needed,
) -> Result<Arc<[u8]>, MissingValue> {
    if let Found::Row(row) = slot.find() {
        return Ok(row.value);
    }
    let row = needed.rows.get(key).filter(|row| row.origin == slot.origin);
    row.map(|row| Arc::clone(&row.value)).ok_or(MissingValue)
}

/// Parses a number: decimal digits with an optional minus sign.
fn number(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Returns whether a compare needs the values of its keys.
fn needs_values(compare: &Compare<'_>) -> bool {
    matches!(compare.test, Test::Value(..))
}
