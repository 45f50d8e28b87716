//! The results of a transaction, read from the history after it was applied.

use dkv_base::id::Revision;
use dkv_wire::limits;
use dkv_wire::message::{Keys, Transaction, TransactionOperation};

use crate::command::transaction::validate;
use crate::reads_at::{FoundVersion, NotKept};
use crate::shard::ShardState;

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
}

impl ShardState {
    /// Returns the results of a transaction that was executed at a revision, with what succeeded
    /// and whether it changed anything.
    ///
    /// # Errors
    /// [`NotKept`] if the history does not go back far enough.
    pub fn results(
        &self,
        body: &[u8],
        revision: Revision,
        succeeded: bool,
        changed: bool,
    ) -> Result<Vec<FoundResult>, NotKept> {
        let limit = limits::VALUE_BYTES_MAX as u64;
        let Ok(Transaction { then, otherwise, .. }) = validate(body, limit) else {
            return Ok(Vec::new());
        };
        let operations = if succeeded { then } else { otherwise };
        let before = if changed { Revision(revision.0.saturating_sub(1)) } else { revision };
        let mut results = Vec::with_capacity(operations.len());
        for (index, operation) in operations.iter().enumerate() {
            let earlier: Vec<Keys<'_>> =
                operations.iter().take(index).filter_map(TransactionOperation::written).collect();
            let seen_at = |key: &[u8]| {
                let is_own = earlier.iter().any(|keys| keys.contains(key));
                if is_own { revision } else { before }
            };
            results.push(match *operation {
                TransactionOperation::Get(key) => FoundResult::Got(self.get_at(key, seen_at(key))?),
                TransactionOperation::List { keys, keys_max } => {
                    self.list_seen(&keys, keys_max, &seen_at)?
                }
                TransactionOperation::Put(key, _)
                | TransactionOperation::PutAttached { key, .. } => {
                    match self.get_at(key, revision)? {
                        Some(found) => FoundResult::Put(found),
                        None => FoundResult::Deleted(0),
                    }
                }
                TransactionOperation::Increment { key, .. }
                | TransactionOperation::Append { key, .. } => match self.get_at(key, revision)? {
                    Some(found) => FoundResult::Changed(found),
                    None => FoundResult::Deleted(0),
                },
                TransactionOperation::Delete(key) => {
                    FoundResult::Deleted(u64::from(self.get_at(key, before)?.is_some()))
                }
                TransactionOperation::DeleteAll(keys) => {
                    FoundResult::Deleted(self.count_at(&keys, before)?)
                }
            });
        }
        Ok(results)
    }

    /// Lists the first keys of a range as an operation sees them: its transaction's earlier writes,
    /// and everything else as it was before.
    fn list_seen(
        &self,
        keys: &Keys<'_>,
        keys_max: u32,
        seen_at: &dyn Fn(&[u8]) -> Revision,
    ) -> Result<FoundResult, NotKept> {
        let keys_max = (keys_max as usize).clamp(1, limits::SCAN_KEYS_MAX);
        let (mut found, mut bytes) = (Vec::new(), 0);
        for key in self.known_keys(keys) {
            let Some(version) = self.get_at(&key, seen_at(&key))? else { continue };
            bytes += version.bytes();
            if found.len() == keys_max || bytes > limits::SCAN_BYTES_MAX && !found.is_empty() {
                return Ok(FoundResult::Listed { keys: found, more: true });
            }
            found.push(version);
        }
        Ok(FoundResult::Listed { keys: found, more: false })
    }

    fn count_at(&self, keys: &Keys<'_>, at: Revision) -> Result<u64, NotKept> {
        let mut count = 0;
        for key in self.known_keys(keys) {
            count += u64::from(self.get_at(&key, at)?.is_some());
        }
        Ok(count)
    }
}
