//! How much a command would add to the keys and values of a shard, for a quota.
//!
//! The primary asks before it proposes a command. What it hears is an estimate: commands that are
//! under way already are not in the state yet.

use dkv_base::id::{Serial, SessionId};
use dkv_wire::limits;
use dkv_wire::message::{
    Command, Operation, Prepare, Transact, Transaction, TransactionOperation, WriteAttached,
};

use super::ShardState;
use crate::command::transaction::validate;
use crate::value_cache::{Place, Slot};

/// Most keys of a range to delete whose sizes are added up.
const RANGE_KEYS_MAX: usize = 4096;
/// Longest text of a number that an increment stores, in bytes.
const NUMBER_BYTES_MAX: i64 = 20;

impl ShardState {
    /// Returns the bytes that a command would add to the keys and values; zero if it would remove
    /// some, or has been executed before. A transaction counts by the list of operations that adds
    /// more.
    pub fn growth(&self, command: &Command<'_>) -> u64 {
        let growth = match command {
            Command::Write(write) | Command::WriteAttached(WriteAttached { write, .. })
                if self.has_executed(write.session, write.serial) =>
            {
                0
            }
            Command::Write(write) | Command::WriteAttached(WriteAttached { write, .. }) => {
                match write.operation {
                    Operation::Put(value) => self.growth_of_put(write.key, value.len()),
                    Operation::Delete => 0,
                }
            }
            Command::Transact(transact) if self.has_executed(transact.session, transact.serial) => {
                0
            }
            // A transaction that its home has decided is answered from memory.
            Command::Prepare(Prepare { id, at_home: Some(_), .. })
                if self.has_executed(id.session, id.serial) =>
            {
                0
            }
            Command::Prepare(Prepare { id, .. }) if self.prepared_body(*id).is_some() => 0,
            Command::Transact(Transact { body, .. }) | Command::Prepare(Prepare { body, .. }) => {
                let limit = limits::VALUE_BYTES_MAX as u64;
                let Ok(transaction) = validate(body, limit) else { return 0 };
                let Transaction { then, otherwise, .. } = &transaction;
                self.growth_of_all(then).max(self.growth_of_all(otherwise))
            }
            // What an outbox brings was acknowledged long ago.
            Command::Deposited(_) => 0,
            Command::OpenSession(_)
            | Command::OpenSessionOf { .. }
            | Command::Compact { .. }
            | Command::Cut { .. }
            | Command::Lease(_)
            | Command::Expire(_)
            // The parts of the shards are checked.
            | Command::TransactOver(_)
            | Command::Decide(_)
            | Command::Finish { .. }
            | Command::Resolve { .. }
            | Command::Forget(_) => 0,
        };
        u64::try_from(growth).unwrap_or_default()
    }

    /// Returns the bytes that a put of a value of this length would add; negative if it removes
    /// some.
    pub fn growth_of_put(&self, key: &[u8], value_bytes: usize) -> i64 {
        (key.len() + value_bytes) as i64 - self.size_of(key)
    }

    fn growth_of_all(&self, operations: &[TransactionOperation<'_>]) -> i64 {
        let of = |operation: &TransactionOperation<'_>| match operation {
            TransactionOperation::Get(_)
            | TransactionOperation::List { .. }
            | TransactionOperation::Range { .. } => 0,
            TransactionOperation::PutWith { key, value: Some(value), .. } => {
                self.growth_of_put(key, value.len())
            }
            TransactionOperation::PutWith { value: None, .. } => 0,
            TransactionOperation::Nested(body) => {
                let Transaction { then, otherwise, .. } =
                    Transaction::decode(body).unwrap_or_default();
                self.growth_of_all(&then).max(self.growth_of_all(&otherwise))
            }
            TransactionOperation::Put(key, value)
            | TransactionOperation::PutAttached { key, value, .. } => {
                self.growth_of_put(key, value.len())
            }
            TransactionOperation::Delete(key) => -self.size_of(key),
            TransactionOperation::DeleteAll(keys)
            | TransactionOperation::DeleteWith { keys, .. } => {
                let slots = self.slots(keys).take(RANGE_KEYS_MAX);
                -slots.map(|(key, slot)| size(key, slot)).sum::<i64>()
            }
            TransactionOperation::Increment { key, .. } => match self.size_of(key) {
                0 => key.len() as i64 + NUMBER_BYTES_MAX,
                // A digit at most, as a rule.
                _ => 0,
            },
            TransactionOperation::Append { key, bytes } => match self.size_of(key) {
                0 => (key.len() + bytes.len()) as i64,
                _ => bytes.len() as i64,
            },
        };
        operations.iter().map(of).sum()
    }

    fn has_executed(&self, session: SessionId, serial: Serial) -> bool {
        self.sessions.has_executed(session, serial)
    }

    /// Returns the size of a key and its value; zero if the key does not exist.
    fn size_of(&self, key: &[u8]) -> i64 {
        self.keys().get(key).map_or(0, |slot| size(key, slot))
    }
}

fn size(key: &[u8], slot: &Slot) -> i64 {
    let value = match &slot.value {
        Place::Here { value, .. } => value.len(),
        Place::Stored { bytes, .. } => *bytes as usize,
    };
    (key.len() + value) as i64
}
