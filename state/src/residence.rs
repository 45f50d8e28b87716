//! Which values are in memory.
//!
//! Keys, and where their values are, stay in memory; values may go once a checkpoint has them, and
//! are then read from it. What the shards of a node keep together is bounded. What is to go is
//! chosen by a hand that goes round the keys: a value that was read since the hand last passed
//! stays once more (second chance, or clock: Corbató 1968).
//!
//! Values that no checkpoint has yet stay whatever the bound says. How many those are, is bounded
//! by how often checkpoints are taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dkv_base::id::{Revision, Stamp};

use super::rows::Row;

/// Bytes that a value takes beside its own: counts, and what the allocator rounds up to.
const OVERHEAD_BYTES: u64 = 32;

/// What the values of all shards of a node may take in memory, and take. Clones are of the same
/// node.
#[derive(Clone, Debug)]
pub(super) struct ValueMemory {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limit: u64,
    used: AtomicU64,
}

impl ValueMemory {
    /// That many bytes.
    pub(super) fn new(limit: u64) -> Self {
        Self { shared: Arc::new(Shared { limit, used: AtomicU64::new(0) }) }
    }

    /// Whether more is taken than may be.
    pub(super) fn is_exceeded(&self) -> bool {
        self.used() > self.shared.limit
    }

    /// Bytes that are taken.
    pub(super) fn used(&self) -> u64 {
        self.shared.used.load(Ordering::Relaxed)
    }
}

impl Default for ValueMemory {
    fn default() -> Self {
        Self::new(u64::MAX)
    }
}

/// What the values of one shard take. Dropped, they take nothing.
#[derive(Debug, Default)]
pub(super) struct Residents {
    memory: ValueMemory,
    bytes: u64,
}

impl Residents {
    pub(super) fn of(memory: ValueMemory) -> Self {
        Self { memory, bytes: 0 }
    }

    pub(super) fn memory(&self) -> &ValueMemory {
        &self.memory
    }

    pub(super) fn came(&mut self, value: &[u8]) {
        let bytes = value.len() as u64 + OVERHEAD_BYTES;
        self.bytes += bytes;
        self.memory.shared.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn went(&mut self, value: &[u8]) {
        let bytes = value.len() as u64 + OVERHEAD_BYTES;
        self.bytes -= bytes;
        self.memory.shared.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Residents {
    fn drop(&mut self) {
        self.memory.shared.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What the table has for a key.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) revision: Revision,
    pub(super) stamp: Stamp,
    pub(super) value: Place,
}

/// Where a value is.
#[derive(Debug)]
pub(super) enum Place {
    /// In memory.
    Here {
        /// The value, in an allocation of its own.
        value: Arc<[u8]>,
        /// Whether it was read since the hand last passed.
        used: AtomicBool,
    },
    /// In the last checkpoint, of this length and with this part in the digest.
    Stored {
        /// Bytes of the value.
        bytes: u32,
        /// Hash of key, revision and value.
        hash: u64,
    },
}

/// What there is for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The row.
    Row(Row),
    /// The row is in the last checkpoint.
    Stored(Revision),
}

impl Slot {
    pub(super) fn new(revision: Revision, stamp: Stamp, value: Arc<[u8]>) -> Self {
        Self { revision, stamp, value: Place::Here { value, used: AtomicBool::new(false) } }
    }

    /// What a reader gets; the value counts as used.
    pub(super) fn find(&self) -> Found {
        match &self.value {
            Place::Here { value, used } => {
                // Most are used again and again; a store would take the line from other readers.
                if !used.load(Ordering::Relaxed) {
                    used.store(true, Ordering::Relaxed);
                }
                let (revision, stamp) = (self.revision, self.stamp);
                Found::Row(Row { revision, stamp, value: Arc::clone(value) })
            }
            Place::Stored { .. } => Found::Stored(self.revision),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_takes_nothing() {
        let memory = ValueMemory::new(200);
        let mut one = Residents::of(memory.clone());
        let mut two = Residents::of(memory.clone());
        one.came(&[0; 100]);
        two.came(&[0; 60]);
        assert_eq!((memory.used(), memory.is_exceeded()), (224, true));
        two.went(&[0; 60]);
        assert_eq!((memory.used(), memory.is_exceeded()), (132, false));
        drop(one);
        assert_eq!(memory.used(), 0);
    }
}
