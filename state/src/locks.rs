//! Locks on the keys of prepared transactions.
//!
//! A key that a transaction may write is locked for it alone; one that it only compares or reads is
//! locked together with others that do the same. No command waits here: one that meets a lock has
//! no effect, and comes again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use dkv_base::id::Revision;
use dkv_wire::message::{Keys, Transaction};

/// The keys of a transaction's part, by what it does with them.
#[derive(Debug, Default)]
pub(super) struct PartKeys<'a> {
    /// Those that either list of operations writes.
    pub(super) written: BTreeSet<&'a [u8]>,
    /// The others.
    pub(super) read: BTreeSet<&'a [u8]>,
}

impl<'a> PartKeys<'a> {
    /// Returns the keys of a transaction; `None` if it has ranges of keys, or operations that need
    /// a keyspace with one shard.
    pub(super) fn of(transaction: &Transaction<'a>) -> Option<Self> {
        let Transaction { compares, then, otherwise } = transaction;
        let mut keys = Self::default();
        let only = |keys: Keys<'a>| match keys {
            Keys::Key(key) => Some(key),
            Keys::Prefix(_) | Keys::Range(..) => None,
        };
        for compare in compares {
            keys.read.insert(only(compare.keys)?);
        }
        for operation in then.iter().chain(otherwise) {
            let key = only(operation.keys()).filter(|_| !operation.needs_one_shard())?;
            match operation.written() {
                Some(_) => keys.written.insert(key),
                None => keys.read.insert(key),
            };
        }
        keys.read.retain(|key| !keys.written.contains(key));
        Some(keys)
    }
}

/// The lock on a key.
#[derive(Clone, Copy, Debug)]
struct Lock {
    /// Transactions that share it; zero if one has it alone.
    readers: u32,
    /// The latest revision of the shard when it was locked.
    at: Revision,
}

/// The locks of a shard.
#[derive(Debug, Default)]
pub(super) struct Locks {
    held: BTreeMap<Arc<[u8]>, Lock>,
    /// Times that locks were released, for those who wait. Not part of the state.
    releases: u64,
}

impl Locks {
    /// Returns the times that locks were released.
    pub(super) fn releases(&self) -> u64 {
        self.releases
    }

    /// Returns the number of locked keys.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// Returns whether a key is locked.
    pub(super) fn is_locked(&self, key: &[u8]) -> bool {
        !self.held.is_empty() && self.held.contains_key(key)
    }

    /// Returns whether any of these keys is locked.
    pub(super) fn any_locked(&self, keys: &Keys<'_>) -> bool {
        self.in_range(keys).next().is_some()
    }

    /// Returns the revision of the shard when a transaction locked this key that may write it;
    /// `None` if there is none.
    pub(super) fn write_locked_at(&self, key: &[u8]) -> Option<Revision> {
        if self.held.is_empty() {
            return None;
        }
        self.held.get(key).filter(|lock| lock.readers == 0).map(|lock| lock.at)
    }

    /// Returns whether a transaction may write any of these keys.
    pub(super) fn any_write_locked(&self, keys: &Keys<'_>) -> bool {
        self.in_range(keys).any(|(_, lock)| lock.readers == 0)
    }

    /// Returns whether a transaction may write a key of this range.
    pub(super) fn any_write_locked_between(
        &self,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        prefix: &[u8],
    ) -> bool {
        if self.held.is_empty() || is_empty(range) {
            return false;
        }
        let held = self.held.range::<[u8], _>(range);
        held.take_while(|(key, _)| key.starts_with(prefix)).any(|(_, lock)| lock.readers == 0)
    }

    /// Returns whether the keys of a part are free for it.
    pub(super) fn are_free(&self, keys: &PartKeys<'_>) -> bool {
        let shared = |key: &&[u8]| self.held.get(*key).is_none_or(|lock| lock.readers > 0);
        let free = |key: &&[u8]| !self.held.contains_key(*key);
        keys.written.iter().all(free) && keys.read.iter().all(shared)
    }

    fn in_range<'a>(
        &'a self,
        keys: &'a Keys<'_>,
    ) -> impl Iterator<Item = (&'a Arc<[u8]>, &'a Lock)> {
        let from = (Bound::Included(keys.first()), Bound::Unbounded);
        self.held.range::<[u8], _>(from).take_while(|(key, _)| keys.contains(key))
    }

    /// Locks the keys of a part, if all of them are free for it. Returns whether they were.
    pub(super) fn acquire(&mut self, keys: &PartKeys<'_>, at: Revision) -> bool {
        if !self.are_free(keys) {
            return false;
        }
        for key in &keys.written {
            self.held.insert(Arc::from(*key), Lock { readers: 0, at });
        }
        for key in &keys.read {
            match self.held.get_mut(*key) {
                Some(lock) => lock.readers += 1,
                None => _ = self.held.insert(Arc::from(*key), Lock { readers: 1, at }),
            }
        }
        true
    }

    /// Releases the locks of a part that acquired them.
    pub(super) fn release(&mut self, keys: &PartKeys<'_>) {
        self.releases += 1;
        for key in &keys.written {
            self.held.remove(*key);
        }
        for key in &keys.read {
            if let Some(lock) = self.held.get_mut(*key) {
                lock.readers -= 1;
                if lock.readers == 0 {
                    self.held.remove(*key);
                }
            }
        }
    }
}

/// Returns whether no key can be in the range; a tree panics on a range that ends before it begins.
fn is_empty(range: (Bound<&[u8]>, Bound<&[u8]>)) -> bool {
    match range {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (
            Bound::Included(from) | Bound::Excluded(from),
            Bound::Included(to) | Bound::Excluded(to),
        ) => from >= to,
        _ => false,
    }
}
