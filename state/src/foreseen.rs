//! The results of a transaction's part before it is executed: its keys are locked, so they are
//! known except for the numbers that the execution gives, which are zero here.

use std::collections::BTreeMap;
use std::sync::Arc;

use dkv_base::id::{Revision, Stamp};
use dkv_wire::message::{Keys, TransactionOperation};

use super::command::transaction::validate_part;
use super::reads_at::{FoundVersion, VersionValue};
use super::rows::Origin;
use super::scan::Attached;
use super::shard::needed::{Needed, Supply};
use super::shard::transactions::PlannedChange;
use super::shard::{Attaching, ShardState};
use super::transaction_results::FoundResult;

impl ShardState {
    /// Returns the results of both lists of operations of a prepared part: of those to execute if
    /// all compares hold, and of the others. A list that cannot be executed has none. `None` if a
    /// value is neither in memory nor in `needed`.
    pub fn foreseen_results(&self, body: &[u8], needed: &Needed) -> Option<[Vec<FoundResult>; 2]> {
        let transaction = validate_part(body)?;
        let then = self.results_of(&transaction.then, needed)?;
        Some([then, self.results_of(&transaction.otherwise, needed)?])
    }

    fn results_of(
        &self,
        operations: &[TransactionOperation<'_>],
        needed: &Needed,
    ) -> Option<Vec<FoundResult>> {
        let Ok(changes) = self.planned(operations, Supply::of(needed)).ok()? else {
            return Some(Vec::new());
        };
        let changes: BTreeMap<_, _> =
            changes.into_iter().map(|(key, _, change)| (key, change)).collect();
        // The keys that operations before have written.
        let mut written: Vec<&[u8]> = Vec::new();
        let mut results = Vec::with_capacity(operations.len());
        for operation in operations {
            let now = |key: &[u8]| self.get_at(key, self.revision()).ok().flatten();
            let made = |key: &[u8]| match changes.get(key) {
                Some(PlannedChange::Put(value, attaching)) => {
                    let as_before = matches!(attaching, Attaching::AsBefore);
                    Some(self.foreseen_version(key, value, as_before))
                }
                Some(PlannedChange::Delete) | None => None,
            };
            let seen = |key: &[u8]| if written.contains(&key) { made(key) } else { now(key) };
            results.push(match *operation {
                TransactionOperation::Get(key) => FoundResult::Got(seen(key)),
                TransactionOperation::List { keys: Keys::Key(key), .. } => {
                    FoundResult::Listed { keys: seen(key).into_iter().collect(), more: false }
                }
                TransactionOperation::Put(key, _)
                | TransactionOperation::PutAttached { key, .. } => FoundResult::Put(made(key)?),
                TransactionOperation::Increment { key, .. }
                | TransactionOperation::Append { key, .. } => FoundResult::Changed(made(key)?),
                TransactionOperation::Delete(key)
                | TransactionOperation::DeleteAll(Keys::Key(key)) => {
                    FoundResult::Deleted(u64::from(seen(key).is_some()))
                }
                // A part has none of these: they need a keyspace with one shard.
                TransactionOperation::List { .. }
                | TransactionOperation::DeleteAll(_)
                | TransactionOperation::PutWith { .. }
                | TransactionOperation::DeleteWith { .. }
                | TransactionOperation::Range { .. }
                | TransactionOperation::Nested(_) => return None,
            });
            if let Some(Keys::Key(key)) = operation.written() {
                written.push(key);
            }
        }
        Some(results)
    }

    fn foreseen_version(&self, key: &[u8], value: &Arc<[u8]>, as_before: bool) -> FoundVersion {
        let (created, version) = match self.keys().get(key) {
            Some(slot) => (slot.origin.created, slot.origin.version + 1),
            None => (Revision(0), 1),
        };
        // A part attaches no key to a lease, but may change one that is attached.
        let attached = if as_before { self.attached(key) } else { Attached::default() };
        let Attached { lease, expiry } = attached;
        let (revision, stamp) = (Revision(0), Stamp(0));
        let origin = Origin { revision, stamp, created, version, position: 0 };
        let value = VersionValue::Here(Arc::clone(value));
        FoundVersion { key: Arc::from(key), origin, value, lease, expiry }
    }
}
