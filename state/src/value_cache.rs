//! The cache of values: which values are in memory.
//!
//! Keys, and the locations of their values, stay in memory. Values may be evicted once a checkpoint
//! has them, and are then read from it. The memory for values is bounded over all shards of a node.
//! Eviction follows the clock algorithm (second chance: Corbató 1968): a hand goes round the keys,
//! and spares a value that was read since the hand last passed.
//!
//! Values that no checkpoint has yet stay in memory whatever the bound says. Their number is
//! bounded by how often checkpoints are taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dkv_base::id::Revision;

use super::rows::{Origin, Row};

/// Overhead of a value in bytes: reference counts, and rounding by the allocator.
const OVERHEAD_BYTES: u64 = 32;

/// The memory limit and the memory use of the values of all shards of a node. Clones refer to the
/// same node.
#[derive(Clone, Debug)]
pub(super) struct ValueCache {
    shared: Arc<ValueCacheInner>,
}

#[derive(Debug)]
struct ValueCacheInner {
    limit: u64,
    used: AtomicU64,
}

impl ValueCache {
    /// Creates a cache with a limit in bytes.
    pub(super) fn new(limit: u64) -> Self {
        Self { shared: Arc::new(ValueCacheInner { limit, used: AtomicU64::new(0) }) }
    }

    /// Returns whether the use exceeds the limit.
    pub(super) fn is_exceeded(&self) -> bool {
        self.used() > self.shared.limit
    }

    /// Returns the bytes in use.
    pub(super) fn used(&self) -> u64 {
        self.shared.used.load(Ordering::Relaxed)
    }
}

impl Default for ValueCache {
    fn default() -> Self {
        Self::new(u64::MAX)
    }
}

/// The memory use of the values of one shard. Dropping it releases all of that.
#[derive(Debug, Default)]
pub(super) struct CachedValues {
    memory: ValueCache,
    bytes: u64,
}

impl CachedValues {
    pub(super) fn of(memory: ValueCache) -> Self {
        Self { memory, bytes: 0 }
    }

    pub(super) fn memory(&self) -> &ValueCache {
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

impl Drop for CachedValues {
    fn drop(&mut self) {
        self.memory.shared.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The entry of a key in the table.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) origin: Origin,
    pub(super) value: Place,
}

/// The location of a value.
#[derive(Debug)]
pub(super) enum Place {
    /// In memory.
    Here {
        /// The value, in an allocation of its own.
        value: Arc<[u8]>,
        /// Whether the value was read since the hand last passed.
        used: AtomicBool,
    },
    /// In the last checkpoint, with this length and this contribution to the digest.
    Stored {
        /// Bytes of the value.
        bytes: u32,
        /// Hash of key, revision and value.
        hash: u64,
    },
}

/// The result of looking a key up in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The row.
    Row(Row),
    /// The revision of the row, which is in the last checkpoint only.
    Stored(Revision),
}

impl Slot {
    pub(super) fn new(origin: Origin, value: Arc<[u8]>) -> Self {
        Self { origin, value: Place::Here { value, used: AtomicBool::new(false) } }
    }

    /// Returns the result for a reader, and marks the value as used.
    pub(super) fn find(&self) -> Found {
        match &self.value {
            Place::Here { value, used } => {
                // Most values are used again and again; a store would take the cache line from
                // other readers.
                if !used.load(Ordering::Relaxed) {
                    used.store(true, Ordering::Relaxed);
                }
                Found::Row(Row { origin: self.origin, value: Arc::clone(value) })
            }
            Place::Stored { .. } => Found::Stored(self.origin.revision),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_takes_nothing() {
        let memory = ValueCache::new(200);
        let mut one = CachedValues::of(memory.clone());
        let mut two = CachedValues::of(memory.clone());
        one.came(&[0; 100]);
        two.came(&[0; 60]);
        assert_eq!((memory.used(), memory.is_exceeded()), (224, true));
        two.went(&[0; 60]);
        assert_eq!((memory.used(), memory.is_exceeded()), (132, false));
        drop(one);
        assert_eq!(memory.used(), 0);
    }
}
