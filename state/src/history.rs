//! The history of a shard: the versions of its keys before the newest, and the order of changes.
//!
//! The history reaches back to its *floor*: at every revision from the floor on, the shard can be
//! read as it was. Two indexes hold it. The versions are sorted by key and revision, for reads at a
//! revision; the changes are sorted by revision, for watches and for compaction.
//!
//! Compaction raises the floor at once and removes what is below it bit by bit, in the order of
//! revisions, so that no single entry of the log pays for all of it. A change at or below the floor
//! makes the earlier versions of its key unreadable; removing the change removes these. How far
//! that has come is part of the state, because replicas must agree on what they store.
//!
//! Only the log raises the floor: no replica forgets by its own clock.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use dkv_base::id::{Revision, Stamp};

use super::digest::{Digest, deletion_hash, key_hash};
use super::rows::{HistoryRow, HistoryValue, MalformedRow, Origin};
use super::value_cache::{CachedValues, Place, Slot};

/// Bytes of memory that a version takes beside its value, as counted for the limit of a history: an
/// entry of each index.
const VERSION_BYTES: u64 = 112;
/// Bytes of memory that the change of the newest version of a key takes.
const CHANGE_BYTES: u64 = 24;

/// The name of a version: its key, and the revision of the write that made it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct VersionKey {
    pub(super) key: Arc<[u8]>,
    pub(super) revision: Revision,
}

/// A version that is not the newest one of its key.
#[derive(Debug)]
pub(super) struct PastVersion {
    pub(super) stamp: Stamp,
    pub(super) created: Revision,
    pub(super) version: u64,
    pub(super) value: PastValue,
}

/// The value of a past version, or its location.
#[derive(Debug)]
pub(super) enum PastValue {
    /// The write deleted the key.
    Deleted,
    /// In memory.
    Here(Arc<[u8]>),
    /// In the last checkpoint, with this length and this contribution to the digest.
    Stored { bytes: u32, hash: u64 },
}

/// A change of a key, in the order of revisions.
#[derive(Clone, Debug)]
pub(super) struct ChangeAt {
    pub(super) revision: Revision,
    pub(super) key: Arc<[u8]>,
}

/// The history of a shard.
#[derive(Debug, Default)]
pub(super) struct History {
    floor: Revision,
    /// Everything that the changes up to this revision made unreadable is removed.
    swept: Revision,
    versions: BTreeMap<VersionKey, PastVersion>,
    /// The changes after `swept`.
    changes: VecDeque<ChangeAt>,
    bytes: u64,
    /// Rows that changed since the changes were last taken; `None` for removed versions. Nothing
    /// depends on their hash order.
    changed: HashMap<VersionKey, Option<HistoryRow>>,
    /// The version that the hand of the eviction has reached.
    hand: Option<VersionKey>,
}

impl History {
    /// Returns the earliest revision at which the shard can be read.
    pub(super) fn floor(&self) -> Revision {
        self.floor
    }

    /// Returns the revision up to which compaction has removed what it must.
    pub(super) fn swept(&self) -> Revision {
        self.swept
    }

    /// Returns the memory that the history takes, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the number of versions that are not the newest of their key.
    pub(super) fn len(&self) -> usize {
        self.versions.len()
    }

    /// Returns the changes after a revision.
    pub(super) fn changes_after(&self, after: Revision) -> impl Iterator<Item = &ChangeAt> {
        let first = self.changes.partition_point(|change| change.revision <= after);
        self.changes.range(first..)
    }

    /// Returns all past versions from a bound on, in the order of keys and revisions.
    pub(super) fn from(
        &self,
        from: Bound<VersionKey>,
    ) -> impl DoubleEndedIterator<Item = (&VersionKey, &PastVersion)> {
        self.versions.range((from, Bound::Unbounded))
    }

    /// Returns a past version.
    pub(super) fn get(&self, at: &VersionKey) -> Option<&PastVersion> {
        self.versions.get(at)
    }

    /// Returns the past versions of a key before a revision, oldest first.
    pub(super) fn before(
        &self,
        key: &Arc<[u8]>,
        before: Revision,
    ) -> impl DoubleEndedIterator<Item = (&VersionKey, &PastVersion)> {
        let name = |revision| VersionKey { key: Arc::clone(key), revision };
        self.versions.range(name(Revision(0))..name(before))
    }

    /// Adds the change of a key that was just written.
    pub(super) fn note_change(&mut self, key: &Arc<[u8]>, revision: Revision) {
        self.bytes += CHANGE_BYTES;
        self.changes.push_back(ChangeAt { revision, key: Arc::clone(key) });
    }

    /// Takes over the version of a key that a write has replaced. The value stays where it is.
    /// `hash` is what the version contributed to the digest.
    pub(super) fn retire(&mut self, key: &Arc<[u8]>, slot: Slot, hash: u64, digest: &mut Digest) {
        let Origin { revision, stamp, created, version } = slot.origin;
        let (value, row_value) = match slot.value {
            Place::Here { value, .. } => {
                (PastValue::Here(Arc::clone(&value)), HistoryValue::Here(value))
            }
            // The next checkpoint copies the value from the row of the key.
            Place::Stored { bytes, hash } => {
                (PastValue::Stored { bytes, hash }, HistoryValue::InKeys(bytes))
            }
        };
        digest.add_history(hash);
        let row = HistoryRow { origin: slot.origin, value: row_value };
        self.insert(key, revision, PastVersion { stamp, created, version, value }, row);
    }

    /// Records that a write deleted a key.
    pub(super) fn delete(
        &mut self,
        key: &Arc<[u8]>,
        revision: Revision,
        stamp: Stamp,
        digest: &mut Digest,
    ) {
        let origin = Origin { revision, stamp, created: revision, version: 0 };
        digest.add_history(deletion_hash(key, origin));
        let past = PastVersion { stamp, created: revision, version: 0, value: PastValue::Deleted };
        let row = HistoryRow { origin, value: HistoryValue::Deleted };
        self.insert(key, revision, past, row);
    }

    fn insert(&mut self, key: &Arc<[u8]>, revision: Revision, past: PastVersion, row: HistoryRow) {
        let name = VersionKey { key: Arc::clone(key), revision };
        self.bytes += past.cost();
        self.changed.insert(name.clone(), Some(row));
        self.versions.insert(name, past);
    }

    /// Raises the floor.
    pub(super) fn compact(&mut self, floor: Revision) {
        self.floor = self.floor.max(floor);
    }

    /// Returns whether something below the floor is still to be removed.
    pub(super) fn is_sweeping(&self) -> bool {
        self.changes.front().is_some_and(|change| change.revision <= self.floor)
    }

    /// Removes what at least this many changes at or below the floor made unreadable, whole
    /// revisions at a time.
    pub(super) fn sweep(
        &mut self,
        changes_max: usize,
        residents: &mut CachedValues,
        digest: &mut Digest,
    ) {
        let mut swept = 0;
        while let Some(change) = self.changes.front() {
            let is_next = change.revision > self.swept;
            if change.revision > self.floor || swept >= changes_max && is_next {
                return;
            }
            let Some(ChangeAt { revision, key }) = self.changes.pop_front() else { return };
            self.bytes -= CHANGE_BYTES;
            self.swept = revision;
            swept += 1;
            let name = |revision| VersionKey { key: Arc::clone(&key), revision };
            // The versions before this one, and this one if it is a deletion.
            while let Some((found, past)) =
                self.versions.range(name(Revision(0))..=name(revision)).next()
            {
                if found.revision == revision && !matches!(past.value, PastValue::Deleted) {
                    break;
                }
                let found = found.clone();
                self.remove(found, residents, digest);
            }
        }
    }

    fn remove(&mut self, name: VersionKey, residents: &mut CachedValues, digest: &mut Digest) {
        let Some(past) = self.versions.remove(&name) else { return };
        self.bytes -= past.cost();
        digest.remove_history(past.hash(&name));
        if let PastValue::Here(value) = &past.value {
            residents.went(value);
        }
        self.changed.insert(name, None);
    }

    /// Returns the number of rows that changed since the changes were last taken.
    pub(super) fn changed_len(&self) -> usize {
        self.changed.len()
    }

    /// Takes the changed rows.
    pub(super) fn take_changed(&mut self) -> HashMap<VersionKey, Option<HistoryRow>> {
        std::mem::take(&mut self.changed)
    }

    /// Puts back rows that could not be written.
    pub(super) fn restore_changed(&mut self, rows: HashMap<VersionKey, Option<HistoryRow>>) {
        for (name, row) in rows {
            self.changed.entry(name).or_insert(row);
        }
    }

    /// Adds a row that was read back, without its change.
    pub(super) fn load(
        &mut self,
        key: Arc<[u8]>,
        revision: Revision,
        past: PastVersion,
        digest: &mut Digest,
    ) {
        let name = VersionKey { key, revision };
        digest.add_history(past.hash(&name));
        self.bytes += past.cost();
        self.versions.insert(name, past);
    }

    /// Completes the loading of rows: `newest` are the newest versions of all keys.
    ///
    /// # Errors
    /// If the positions contradict each other.
    pub(super) fn finish_load<'a>(
        &mut self,
        floor: Revision,
        swept: Revision,
        newest: impl Iterator<Item = (&'a Arc<[u8]>, Revision)>,
    ) -> Result<(), MalformedRow> {
        if swept > floor {
            return Err(MalformedRow("the history was compacted beyond its floor"));
        }
        (self.floor, self.swept) = (floor, swept);
        let change = |(key, revision): (&Arc<[u8]>, Revision)| {
            (revision > swept).then(|| ChangeAt { revision, key: Arc::clone(key) })
        };
        let mut changes: Vec<ChangeAt> = newest.filter_map(change).collect();
        let past = self.versions.keys().map(|name| (&name.key, name.revision));
        changes.extend(past.filter_map(change));
        changes.sort_by(|a, b| (a.revision, &a.key).cmp(&(b.revision, &b.key)));
        self.bytes += changes.len() as u64 * CHANGE_BYTES;
        self.changes = changes.into();
        Ok(())
    }

    /// Evicts values that a checkpoint up to `stored` has. The hand passes at most `versions_max`
    /// versions. `newest` returns the revision of a key's newest version, if it exists.
    pub(super) fn evict(
        &mut self,
        versions_max: usize,
        stored: Revision,
        residents: &mut CachedValues,
        newest: impl Fn(&[u8]) -> Option<Revision>,
    ) {
        let from = self.hand.take().map_or(Bound::Unbounded, Bound::Included);
        let mut versions = self.versions.range_mut((from, Bound::Unbounded)).peekable();
        for _ in 0..versions_max {
            let Some((name, past)) = versions.next() else { return };
            if !residents.memory().is_exceeded() {
                self.hand = Some(name.clone());
                return;
            }
            let PastValue::Here(value) = &past.value else { continue };
            // The write that replaced the version made its row.
            let next = versions.peek().filter(|(next, _)| next.key == name.key);
            let replaced = match next {
                Some((next, _)) => Some(next.revision),
                None => newest(&name.key),
            };
            if replaced.is_none_or(|replaced| replaced > stored) {
                continue;
            }
            let Ok(bytes) = u32::try_from(value.len()) else { continue };
            let origin = past.origin(name.revision);
            let hash = key_hash(&name.key, origin, value);
            residents.went(value);
            past.value = PastValue::Stored { bytes, hash };
        }
        self.hand = versions.next().map(|(name, _)| name.clone());
    }
}

impl PastVersion {
    /// Returns the write that made the version.
    pub(super) fn origin(&self, revision: Revision) -> Origin {
        Origin { revision, stamp: self.stamp, created: self.created, version: self.version }
    }

    fn hash(&self, name: &VersionKey) -> u64 {
        let origin = self.origin(name.revision);
        match &self.value {
            PastValue::Deleted => deletion_hash(&name.key, origin),
            PastValue::Here(value) => key_hash(&name.key, origin, value),
            PastValue::Stored { hash, .. } => *hash,
        }
    }

    /// Returns the memory that the version takes, in bytes.
    pub(super) fn cost(&self) -> u64 {
        let value = match &self.value {
            PastValue::Deleted => 0,
            PastValue::Here(value) => value.len() as u64,
            PastValue::Stored { bytes, .. } => u64::from(*bytes),
        };
        VERSION_BYTES + value
    }
}
