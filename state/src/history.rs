//! The history of a shard: the versions of its keys before the newest, and the order of changes.
//!
//! The history reaches back to its *floor*: at every revision from the floor on, the shard can be
//! read as it was. It is a queue of changes in the order of revisions. Each change keeps the
//! version that it replaced, so a version is found by going back from the newest of its key, change
//! by change; and as revisions number the changes, the next one is found without a search. Adding a
//! change costs the same however long the history is.
//!
//! Compaction raises the floor at once and removes what is below it bit by bit, in the order of
//! revisions, so that no single entry of the log pays for all of it. A change below the floor makes
//! the version that it replaced unreadable, and is removed with it. A change at the floor stays, so
//! that a watch can begin with the floor, deletions included. How far that has come is part of the
//! state, because replicas must agree on what they store.
//!
//! Only the log raises the floor: no replica forgets by its own clock.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use dkv_base::id::{Revision, Stamp};
use dkv_base::mutants::{Mutant, planted};

use super::digest::{Digest, deletion_hash, key_hash, past_hash};
use super::rows::{
    Attachment, ChangedRows, HistoryRow, HistoryValue, MalformedRow, Origin, VersionKey,
};
use super::value_cache::{CachedValues, Place, Slot};

/// Bytes of memory that a change takes, as counted for the limit of a history.
const CHANGE_BYTES: u64 = 48;
/// Bytes of memory that a version takes beside its change and its value.
const VERSION_BYTES: u64 = 88;

/// A version that is not the newest one of its key.
#[derive(Debug)]
pub(super) struct PastVersion {
    pub(super) origin: Origin,
    pub(super) value: PastValue,
    /// What the key was attached to.
    pub(super) attachment: Option<Attachment>,
}

/// The newest version of a key, as it leaves the table.
#[derive(Debug)]
pub(super) struct Replaced {
    pub(super) slot: Slot,
    /// What it contributed to the digest.
    pub(super) hash: u64,
    /// What the key was attached to.
    pub(super) attachment: Option<Attachment>,
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

/// A change of a key.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) revision: Revision,
    pub(super) key: Arc<[u8]>,
    /// The latest stamp of this change and of all before it.
    pub(super) upto: Stamp,
    /// The revision of the next change of the key; zero if this is the newest.
    next: Revision,
    /// The version that the change replaced, unless there was none.
    replaced: Option<Box<PastVersion>>,
}

/// The history of a shard.
#[derive(Debug, Default)]
pub(super) struct History {
    floor: Revision,
    /// The changes up to this revision are removed.
    swept: Revision,
    /// The changes after `swept`, in the order of revisions, and of keys within one.
    changes: VecDeque<Change>,
    /// The keys that do not exist now and whose deletion is among the changes.
    deleted: BTreeMap<Arc<[u8]>, Origin>,
    /// A stamp not before those of the changes that are removed. Not part of the state: it may be
    /// later on a replica that was loaded.
    removed_upto: Stamp,
    versions: usize,
    bytes: u64,
    /// Changes since they were last counted. Not part of the state.
    added: usize,
    /// Rows that changed since the changes were last taken.
    changed: ChangedRows,
    /// The revision that the hand of the eviction has reached.
    hand: Revision,
    /// Rows that were read back, until all are there.
    loaded: Vec<(Arc<[u8]>, PastVersion)>,
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

    /// Returns a stamp not before those of the changes that are removed.
    pub(super) fn removed_upto(&self) -> Stamp {
        self.removed_upto
    }

    /// Returns the memory that the history takes, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the number of versions that are not the newest of their key.
    pub(super) fn len(&self) -> usize {
        self.versions
    }

    /// Returns the changes after a revision.
    pub(super) fn changes_after(&self, after: Revision) -> impl Iterator<Item = &Change> {
        self.changes.range(self.first_after(after)..)
    }

    /// Returns the changes, latest first.
    pub(super) fn latest_changes(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().rev()
    }

    /// Returns the place of the first change after a revision.
    fn first_after(&self, after: Revision) -> usize {
        let place = self.guess(Revision(after.0.saturating_add(1)));
        let is_there = |place: usize| self.changes.get(place).is_none_or(|it| it.revision > after);
        let is_first =
            place == 0 || self.changes.get(place - 1).is_some_and(|it| it.revision <= after);
        if is_there(place) && is_first {
            return place;
        }
        self.changes.partition_point(|change| change.revision <= after)
    }

    /// Returns the place of a change, if every revision before it has one change.
    fn guess(&self, revision: Revision) -> usize {
        let first = self.changes.front().map_or(0, |change| change.revision.0);
        let place = usize::try_from(revision.0.saturating_sub(first)).unwrap_or(usize::MAX);
        place.min(self.changes.len())
    }

    fn place(&self, key: &[u8], revision: Revision) -> Option<usize> {
        let is_it = |change: &Change| change.revision == revision && *change.key == *key;
        let guess = self.guess(revision);
        if self.changes.get(guess).is_some_and(is_it) {
            return Some(guess);
        }
        let at = |change: &Change| (change.revision, &*change.key) < (revision, key);
        let place = self.changes.partition_point(at);
        self.changes.get(place).filter(|change| is_it(change)).map(|_| place)
    }

    /// Returns the write that deleted a key, if the key does not exist and that is known.
    pub(super) fn deletion(&self, key: &[u8]) -> Option<(&Arc<[u8]>, Origin)> {
        self.deleted.get_key_value(key).map(|(key, origin)| (key, *origin))
    }

    /// Returns the first key from a bound on that does not exist and whose deletion is known.
    pub(super) fn deleted_from(&self, from: Bound<&[u8]>) -> Option<&Arc<[u8]>> {
        self.deleted.range::<[u8], _>((from, Bound::Unbounded)).next().map(|(key, _)| key)
    }

    /// Returns the versions of a key before that of its change at a revision, newest first.
    pub(super) fn before<'a>(
        &'a self,
        key: &'a [u8],
        revision: Revision,
    ) -> impl Iterator<Item = &'a PastVersion> {
        let mut next = revision;
        std::iter::from_fn(move || {
            let past = self.changes.get(self.place(key, next)?)?.replaced.as_deref()?;
            next = past.origin.revision;
            Some(past)
        })
    }

    /// Returns the version that a change made, unless it is the newest of its key.
    pub(super) fn made_by(&self, change: &Change) -> Option<&PastVersion> {
        if change.next == Revision(0) {
            return None;
        }
        self.changes.get(self.place(&change.key, change.next)?)?.replaced.as_deref()
    }

    /// Records that a put replaced the version of a key; `None` if it did not exist.
    pub(super) fn put(
        &mut self,
        key: &Arc<[u8]>,
        revision: Revision,
        stamp: Stamp,
        replaced: Option<Replaced>,
        digest: &mut Digest,
    ) {
        let past = match replaced {
            Some(replaced) => Some(self.retire(key, replaced, digest)),
            // The row of the deletion stays, as that of a past version.
            None => self.deleted.remove(key).map(|origin| Box::new(PastVersion::deleted(origin))),
        };
        self.push(key, revision, stamp, past);
    }

    /// Records that a write deleted a key.
    pub(super) fn delete(
        &mut self,
        key: &Arc<[u8]>,
        revision: Revision,
        (stamp, position): (Stamp, u16),
        replaced: Replaced,
        digest: &mut Digest,
    ) {
        let past = self.retire(key, replaced, digest);
        self.push(key, revision, stamp, Some(past));
        let origin = Origin { revision, stamp, created: revision, version: 0, position };
        digest.add_history(deletion_hash(key, origin));
        let (attachment, value) = (None, HistoryValue::Deleted);
        self.note(key, HistoryRow { origin, attachment, value });
        self.deleted.insert(Arc::clone(key), origin);
        self.versions += 1;
        self.bytes += VERSION_BYTES;
    }

    /// Takes over a version that was the newest. The value stays where it is.
    fn retire(
        &mut self,
        key: &Arc<[u8]>,
        replaced: Replaced,
        digest: &mut Digest,
    ) -> Box<PastVersion> {
        let Replaced { slot, hash, attachment } = replaced;
        let origin = slot.origin;
        let (value, row) = match slot.value {
            Place::Here { value, .. } => {
                (PastValue::Here(Arc::clone(&value)), HistoryValue::Here(value))
            }
            // The next checkpoint copies the value from the row of the key.
            Place::Stored { bytes, hash } => {
                (PastValue::Stored { bytes, hash }, HistoryValue::InKeys(bytes))
            }
        };
        digest.add_history(past_hash(hash, attachment));
        self.note(key, HistoryRow { origin, attachment, value: row });
        let past = PastVersion { origin, value, attachment };
        self.versions += 1;
        self.bytes += past.cost();
        Box::new(past)
    }

    fn note(&mut self, key: &Arc<[u8]>, row: HistoryRow) {
        let name = VersionKey { key: Arc::clone(key), revision: row.origin.revision };
        self.changed.push(name, Some(row));
    }

    /// Returns the number of changes since the last call.
    pub(super) fn take_added(&mut self) -> usize {
        std::mem::take(&mut self.added)
    }

    fn push(
        &mut self,
        key: &Arc<[u8]>,
        revision: Revision,
        stamp: Stamp,
        replaced: Option<Box<PastVersion>>,
    ) {
        self.added += 1;
        if let Some(past) = &replaced
            && let Some(place) = self.place(key, past.origin.revision)
            && let Some(change) = self.changes.get_mut(place)
        {
            change.next = revision;
        }
        self.bytes += CHANGE_BYTES;
        let (key, next) = (Arc::clone(key), Revision(0));
        let upto = self.changes.back().map_or(stamp, |last| last.upto.max(stamp));
        self.changes.push_back(Change { revision, key, upto, next, replaced });
    }

    /// Raises the floor.
    pub(super) fn compact(&mut self, floor: Revision) {
        self.floor = self.floor.max(floor);
    }

    /// Returns whether something below the floor is still to be removed.
    pub(super) fn is_sweeping(&self) -> bool {
        self.changes.front().is_some_and(|change| change.revision < self.floor)
    }

    /// Removes at least this many changes below the floor, whole revisions at a time, with the
    /// versions that they replaced. Those at the floor stay for watches that begin with it.
    pub(super) fn sweep(
        &mut self,
        changes_max: usize,
        cached_values: &mut CachedValues,
        digest: &mut Digest,
    ) {
        let mut swept = 0;
        while let Some(change) = self.changes.front() {
            let is_next = change.revision > self.swept;
            let floor = Revision(self.floor.0 + 2 * u64::from(planted(Mutant::CompactAtFloor)));
            if change.revision >= floor || swept >= changes_max && is_next {
                return;
            }
            let Some(change) = self.changes.pop_front() else { return };
            let Change { revision, key, upto, next, replaced } = change;
            self.removed_upto = self.removed_upto.max(upto);
            self.bytes -= CHANGE_BYTES;
            // Beyond the floor if a bug is planted.
            self.swept = revision.min(self.floor);
            swept += 1;
            if let Some(past) = replaced {
                self.forget(&key, &past, cached_values, digest);
            }
            // The key did not exist at the floor, nor just before it, and does not now.
            let is_newest = |origin: Origin| next == Revision(0) && origin.revision == revision;
            if let Some(origin) = self.deleted.get(&key).copied()
                && (is_newest(origin) || planted(Mutant::DropTombstones))
            {
                self.deleted.remove(&key);
                let past = PastVersion::deleted(origin);
                self.forget(&key, &past, cached_values, digest);
            }
        }
    }

    /// Removes a version that is no longer in the history.
    fn forget(
        &mut self,
        key: &Arc<[u8]>,
        past: &PastVersion,
        cached_values: &mut CachedValues,
        digest: &mut Digest,
    ) {
        self.versions -= 1;
        self.bytes -= past.cost();
        digest.remove_history(past.hash(key));
        if let PastValue::Here(value) = &past.value {
            cached_values.went(value);
        }
        let name = VersionKey { key: Arc::clone(key), revision: past.origin.revision };
        self.changed.push(name, None);
    }

    /// Returns the number of rows that changed since the changes were last taken.
    pub(super) fn changed_len(&self) -> usize {
        self.changed.len()
    }

    /// Takes the changed rows.
    pub(super) fn take_changed(&mut self) -> ChangedRows {
        std::mem::take(&mut self.changed)
    }

    /// Puts back rows that could not be written.
    pub(super) fn restore_changed(&mut self, rows: ChangedRows) {
        self.changed.prepend(rows);
    }

    /// Adds a row that was read back; it is in its place once [`Self::finish_load`] is done.
    pub(super) fn load(&mut self, key: Arc<[u8]>, past: PastVersion, digest: &mut Digest) {
        digest.add_history(past.hash(&key));
        self.versions += 1;
        self.bytes += past.cost();
        self.loaded.push((key, past));
    }

    /// Completes the loading of rows: `newest` finds the newest version of a key, `all` are those
    /// of all keys, `latest` is the latest stamp of a write.
    ///
    /// # Errors
    /// If no history has these rows.
    pub(super) fn finish_load<'a>(
        &mut self,
        floor: Revision,
        swept: Revision,
        latest: Stamp,
        newest: impl Fn(&[u8]) -> Option<(Arc<[u8]>, Revision)>,
        all: impl Iterator<Item = (&'a Arc<[u8]>, Origin)>,
    ) -> Result<(), MalformedRow> {
        if swept > floor {
            return Err(MalformedRow("the history was compacted beyond its floor"));
        }
        (self.floor, self.swept) = (floor, swept);
        if swept > Revision(0) {
            self.removed_upto = latest;
        }
        let mut loaded = std::mem::take(&mut self.loaded);
        let by_key = |(a, x): &(Arc<[u8]>, PastVersion), (b, y): &(Arc<[u8]>, PastVersion)| {
            (a, x.origin.revision).cmp(&(b, y.origin.revision))
        };
        loaded.sort_by(by_key);
        let new = |key: &Arc<[u8]>, origin: Origin| Change {
            revision: origin.revision,
            key: Arc::clone(key),
            upto: origin.stamp,
            next: Revision(0),
            replaced: None,
        };
        let later = all.filter(|(_, origin)| origin.revision > swept);
        let mut changes: Vec<Change> = later.map(|(key, origin)| new(key, origin)).collect();
        // The versions of a key share it, with the table if it exists.
        for at in 0..loaded.len() {
            let shared = match loaded.get(at.wrapping_sub(1)) {
                Some((before, _)) if *before == loaded[at].0 => Some(Arc::clone(before)),
                _ => newest(&loaded[at].0).map(|(key, _)| key),
            };
            let (key, past) = &mut loaded[at];
            if let Some(shared) = shared {
                *key = shared;
            }
            if past.origin.revision > swept {
                changes.push(new(key, past.origin));
            }
        }
        changes.sort_by(|a, b| (a.revision, &a.key).cmp(&(b.revision, &b.key)));
        let mut upto = Stamp(0);
        for change in &mut changes {
            upto = upto.max(change.upto);
            change.upto = upto;
        }
        self.bytes += changes.len() as u64 * CHANGE_BYTES;
        self.changes = changes.into();
        let mut rest = loaded.into_iter().peekable();
        while let Some((key, past)) = rest.next() {
            let later = rest.peek().filter(|(next, _)| *next == key);
            let later = later.map(|(_, past)| past.origin.revision);
            match later.or_else(|| newest(&key).map(|(_, revision)| revision)) {
                Some(replaced_at) => {
                    if let Some(place) = self.place(&key, past.origin.revision) {
                        self.changes[place].next = replaced_at;
                    }
                    let place = self.place(&key, replaced_at);
                    let place = place.ok_or(MalformedRow("a version should have been removed"))?;
                    self.changes[place].replaced = Some(Box::new(past));
                }
                None if matches!(past.value, PastValue::Deleted) => {
                    self.deleted.insert(key, past.origin);
                }
                None => return Err(MalformedRow("a past version was not replaced")),
            }
        }
        Ok(())
    }

    /// Evicts values that a checkpoint up to `stored` has. The hand passes at most `changes_max`
    /// changes. Returns whether it reached the last of them.
    pub(super) fn evict(
        &mut self,
        changes_max: usize,
        stored: Revision,
        cached_values: &mut CachedValues,
    ) -> bool {
        let first = self.first_after(self.hand);
        for place in first..first.saturating_add(changes_max) {
            // The change made the row of the version that it replaced.
            let change = self.changes.get_mut(place).filter(|change| change.revision <= stored);
            let Some(change) = change else {
                self.hand = Revision(0);
                return true;
            };
            if !cached_values.memory().is_exceeded() {
                return false;
            }
            self.hand = change.revision;
            let Some(past) = &mut change.replaced else { continue };
            let PastValue::Here(value) = &past.value else { continue };
            let Ok(bytes) = u32::try_from(value.len()) else { continue };
            let hash = key_hash(&change.key, past.origin, value);
            cached_values.went(value);
            past.value = PastValue::Stored { bytes, hash };
        }
        false
    }
}

impl Change {
    /// Returns the version that the change replaced, unless there was none.
    pub(super) fn replaced(&self) -> Option<&PastVersion> {
        self.replaced.as_deref()
    }

    /// Returns the memory that is free once the change is removed, in bytes.
    pub(super) fn cost(&self) -> u64 {
        CHANGE_BYTES + self.replaced().map_or(0, PastVersion::cost)
    }
}

impl PastVersion {
    fn deleted(origin: Origin) -> Self {
        Self { origin, value: PastValue::Deleted, attachment: None }
    }

    fn hash(&self, key: &[u8]) -> u64 {
        match &self.value {
            PastValue::Deleted => deletion_hash(key, self.origin),
            PastValue::Here(value) => past_hash(key_hash(key, self.origin, value), self.attachment),
            PastValue::Stored { hash, .. } => past_hash(*hash, self.attachment),
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
