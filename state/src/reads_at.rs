//! Reads at a revision: the state as it was, the versions of a key, and the changes since.
//!
//! Every replica that has reached a revision gives the same answer at it, for as long as its floor
//! is not above.

use std::sync::Arc;

use bytes::Bytes;
use dkv_base::id::{LeaseId, Revision, Stamp};
use dkv_base::mutants::{Mutant, planted};
use dkv_wire::limits::{SCAN_KEYS_MAX, VERSION_OVERHEAD_BYTES};
use dkv_wire::message::{Cut, KeyRange, Version, VersionExpiry};

use super::digest::key_hash;
use super::history::{Change, PastValue, PastVersion};
use super::rows::{Origin, Row};
use super::scan::Attached;
use super::shard::ShardState;
use super::value_cache::{Place, Slot};

/// Most changes, keys and versions that one call looks at, but for what belongs to one revision:
/// the state stays locked meanwhile.
pub(super) const CHANGES_LOOKED_AT_MAX: usize = 4096;

/// Most changes after its moment that a cut looks back over, because the entry that makes it holds
/// up the shard meanwhile.
const CUT_CHANGES_MAX: usize = 1 << 16;

/// Why a state cannot be read at a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotKept {
    /// It has been forgotten.
    Compacted {
        /// The earliest revision at which the state can be read.
        floor: Revision,
    },
    /// This replica has not reached it.
    NotYet {
        /// The latest revision.
        latest: Revision,
    },
}

/// What one step of a search for a version has led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sought {
    /// This is the version; `None` if the key did not exist.
    Found(Option<FoundVersion>),
    /// It is older than the version that this write made; the search goes on there.
    Before(Revision),
}

/// A version of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundVersion {
    /// The key.
    pub key: Arc<[u8]>,
    /// The write that made the version.
    pub origin: Origin,
    /// The lease that the write attached the key to; zero if there is none.
    pub lease: LeaseId,
    /// The expiry that the write gave the key, as it is now.
    pub expiry: Option<VersionExpiry>,
    /// The value, or where it is.
    pub value: VersionValue,
}

/// The location of the value of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionValue {
    /// The write deleted the key.
    Deleted,
    /// It was not asked for.
    Omitted,
    /// In memory.
    Here(Arc<[u8]>),
    /// In the last checkpoint: see [`GroupStore::get_past`](super::GroupStore::get_past).
    Stored {
        /// Bytes of the value.
        bytes: u32,
        /// Hash of the version, to check what is read there.
        hash: u64,
    },
}

/// Changes in the order of revisions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// The changes.
    pub changes: Vec<FoundChange>,
    /// They are all that there are up to this revision.
    pub through: Revision,
    /// Whether the state may have more of them.
    pub more: bool,
}

impl Changed {
    /// Brings the changes of each revision into the order in which they were made.
    fn order(&mut self) {
        self.changes
            .sort_by_key(|change| (change.version.origin.revision, change.version.origin.position));
    }
}

/// Keys that were changed, in the order of revisions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangedKeys {
    /// The keys, each with the revision of its change.
    pub keys: Vec<(Revision, Arc<[u8]>)>,
    /// They are all that there are up to this revision.
    pub through: Revision,
    /// Whether the state may have more of them.
    pub more: bool,
}

/// A change of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundChange {
    /// The version that the change made.
    pub version: FoundVersion,
    /// The version before it, if it was asked for, existed and is still kept.
    pub previous: Option<FoundVersion>,
}

impl FoundVersion {
    /// Returns whether a row read from the checkpoint is this version.
    pub fn is(&self, row: &Row) -> bool {
        match self.value {
            VersionValue::Stored { hash, .. } => {
                row.origin == self.origin && key_hash(&self.key, row.origin, &row.value) == hash
            }
            VersionValue::Deleted | VersionValue::Omitted | VersionValue::Here(_) => false,
        }
    }

    /// Converts the version to a message, with a value that was read from the checkpoint if it is
    /// there.
    pub fn to_version(&self, stored: Option<&Row>) -> Version {
        let Origin { revision, stamp, created, version, .. } = self.origin;
        let value = match &self.value {
            VersionValue::Deleted | VersionValue::Omitted => None,
            VersionValue::Here(value) => Some(Bytes::from_owner(Arc::clone(value))),
            VersionValue::Stored { .. } => {
                stored.map(|row| Bytes::from_owner(Arc::clone(&row.value)))
            }
        };
        Version { revision, created, version, stamp, value, lease: self.lease, expiry: self.expiry }
    }

    pub(super) fn newest(key: &Arc<[u8]>, slot: &Slot, attached: Attached) -> Self {
        let value = match &slot.value {
            Place::Here { value, .. } => VersionValue::Here(Arc::clone(value)),
            Place::Stored { bytes, hash } => VersionValue::Stored { bytes: *bytes, hash: *hash },
        };
        let Attached { lease, expiry } = attached;
        Self { key: Arc::clone(key), origin: slot.origin, lease, expiry, value }
    }

    fn deleted(key: &Arc<[u8]>, origin: Origin) -> Self {
        let (Attached { lease, expiry }, value) = (Attached::default(), VersionValue::Deleted);
        Self { key: Arc::clone(key), origin, lease, expiry, value }
    }

    fn past(key: &Arc<[u8]>, past: &PastVersion, clock_ms: u64) -> Self {
        let value = match &past.value {
            PastValue::Deleted => VersionValue::Deleted,
            PastValue::Here(value) => VersionValue::Here(Arc::clone(value)),
            PastValue::Stored { bytes, hash } => {
                VersionValue::Stored { bytes: *bytes, hash: *hash }
            }
        };
        let Attached { lease, expiry } = Attached::of(past.attachment, clock_ms);
        Self { key: Arc::clone(key), origin: past.origin, lease, expiry, value }
    }

    /// Returns the bytes of key and value.
    pub fn bytes(&self) -> usize {
        let value = match &self.value {
            VersionValue::Here(value) => value.len(),
            VersionValue::Stored { bytes, .. } => *bytes as usize,
            VersionValue::Deleted | VersionValue::Omitted => 0,
        };
        self.key.len() + value
    }
}

impl FoundChange {
    /// Returns the bytes of its keys and values, with what counts for each version beside.
    pub fn bytes(&self) -> usize {
        let bytes = |found: &FoundVersion| found.bytes() + VERSION_OVERHEAD_BYTES;
        bytes(&self.version) + self.previous.as_ref().map_or(0, bytes)
    }
}

impl ShardState {
    /// Returns the earliest revision at which the state can be read.
    pub fn floor(&self) -> Revision {
        self.history().floor()
    }

    /// Returns the memory that the history takes, in bytes, and the number of its past versions.
    pub fn history_size(&self) -> (u64, usize) {
        (self.history().bytes(), self.history().len())
    }

    /// Returns whether compaction has something left to remove.
    pub fn is_sweeping(&self) -> bool {
        self.history().is_sweeping()
    }

    /// Returns the revision to which the floor must rise for the history to lose at least `excess`
    /// bytes, or every change stamped before `stamp`; `None` if nothing is to go. Looks at a
    /// bounded number of changes.
    pub fn compactable(&self, excess: u64, stamp: Stamp) -> Option<Revision> {
        let (mut found, mut bytes) = (None, 0);
        for change in self.history().changes_after(self.floor()).take(2 * CHANGES_LOOKED_AT_MAX) {
            let version = self.made_by(change);
            let is_old = version.as_ref().is_some_and(|version| version.origin.stamp < stamp);
            if bytes >= excess && !is_old {
                break;
            }
            bytes += change.cost();
            // A change at the floor stays.
            found = Some(Revision(change.revision.0 + 1).min(self.revision()));
        }
        found.filter(|floor| *floor > self.floor())
    }

    pub(super) fn kept(&self, Cut { revision, base, .. }: Cut) -> Result<(), NotKept> {
        let (floor, latest) = (self.floor(), self.revision());
        if revision.min(base) < floor && !planted(Mutant::ReadBelowFloor) {
            return Err(NotKept::Compacted { floor });
        }
        if revision > latest {
            return Err(NotKept::NotYet { latest });
        }
        Ok(())
    }

    /// Returns the cut at a moment, if it is the end of the history but for the latest writes, and
    /// all of these are still in the history.
    pub(super) fn cut_at(&self, moment: Stamp) -> Option<Cut> {
        if moment < self.history().removed_upto() {
            return None;
        }
        let mut base = self.revision();
        // Stamps do not quite follow revisions: an eventual write, and the part of a transaction
        // over several shards, may have an earlier one than writes of other keys before it.
        let later = self.history().latest_changes().take_while(|change| change.upto > moment);
        for (seen, change) in later.enumerate() {
            if seen >= CUT_CHANGES_MAX {
                return None;
            }
            if self.made_by(change).is_some_and(|made| made.origin.stamp > moment) {
                base = Revision(change.revision.0 - 1);
            }
        }
        (base >= self.floor()).then(|| Cut { revision: self.revision(), base, moment })
    }

    /// Looks a key up at a cut; `None` if it did not exist then.
    ///
    /// # Errors
    /// [`NotKept`].
    pub fn get_at(&self, key: &[u8], at: impl Into<Cut>) -> Result<Option<FoundVersion>, NotKept> {
        let (at, mut from) = (at.into(), None);
        loop {
            match self.seek_at(key, at, from)? {
                Sought::Found(found) => return Ok(found),
                Sought::Before(revision) => from = Some(revision),
            }
        }
    }

    /// Looks at a bounded number of the versions of a key, from the newest on or from where an
    /// earlier call has come to.
    ///
    /// # Errors
    /// [`NotKept`].
    pub fn seek_at(&self, key: &[u8], at: Cut, from: Option<Revision>) -> Result<Sought, NotKept> {
        self.kept(at)?;
        let exists = |found: &FoundVersion| found.value != VersionValue::Deleted;
        let mut steps = CHANGES_LOOKED_AT_MAX;
        Ok(match self.find_at(key, at, from, &mut steps) {
            Sought::Found(found) => Sought::Found(found.filter(exists)),
            further => further,
        })
    }

    /// Returns the newest version of a key, which may be its deletion.
    fn newest(&self, key: &[u8]) -> Option<FoundVersion> {
        if let Some((key, slot)) = self.keys().get_key_value(key) {
            return Some(FoundVersion::newest(key, slot, self.attached(key)));
        }
        self.history().deletion(key).map(|(key, origin)| FoundVersion::deleted(key, origin))
    }

    /// Looks for a version at a cut; takes one of the `steps` for each that it looks at, but looks
    /// at one at least.
    pub(super) fn find_at(
        &self,
        key: &[u8],
        at: Cut,
        from: Option<Revision>,
        steps: &mut usize,
    ) -> Sought {
        let is_late = |stamp: Stamp| stamp > at.moment && !planted(Mutant::CutAfterMoment);
        let is_in = |origin: Origin| origin.revision <= at.revision && !is_late(origin.stamp);
        let Some(newest) = self.newest(key) else { return Sought::Found(None) };
        if is_in(newest.origin) {
            return Sought::Found(Some(newest));
        }
        let mut before = from.unwrap_or(newest.origin.revision);
        for past in self.history().before(key, before) {
            if is_in(past.origin) {
                let found = FoundVersion::past(&newest.key, past, self.clock_ms());
                return Sought::Found(Some(found));
            }
            before = past.origin.revision;
            if *steps == 0 {
                return Sought::Before(before);
            }
            *steps -= 1;
        }
        Sought::Found(None)
    }

    /// Returns the version that a change made.
    fn made_by(&self, change: &Change) -> Option<FoundVersion> {
        match self.history().made_by(change) {
            Some(past) => Some(FoundVersion::past(&change.key, past, self.clock_ms())),
            None => self.newest(&change.key).filter(|it| it.origin.revision == change.revision),
        }
    }

    /// Returns the versions of a key before a revision (zero: all), newest first, and whether there
    /// are more: those that the key had at some revision from the floor on.
    pub fn versions(
        &self,
        key: &[u8],
        before: Revision,
        versions_max: usize,
    ) -> (Vec<FoundVersion>, bool) {
        let before = if before == Revision(0) { Revision(u64::MAX) } else { before };
        let newest = self.newest(key);
        let past = newest.iter().flat_map(|newest| {
            let past = self.history().before(&newest.key, newest.origin.revision);
            past.map(|past| FoundVersion::past(&newest.key, past, self.clock_ms()))
        });
        let all = newest.iter().cloned().chain(past);
        let (mut found, floor) = (Vec::new(), self.floor());
        for version in all.filter(|found| found.origin.revision < before) {
            let is_last = version.origin.revision <= floor;
            if is_last && version.value == VersionValue::Deleted {
                break;
            }
            if found.len() == versions_max.clamp(1, SCAN_KEYS_MAX) {
                return (found, true);
            }
            found.push(version);
            if is_last {
                break;
            }
        }
        (found, false)
    }

    /// Returns the changes of a range of keys after a revision, about `bytes_max` bytes of them,
    /// whole revisions at a time and at least one that is there.
    ///
    /// # Errors
    /// [`NotKept::Compacted`]. A revision that the state has not reached is no error: nothing has
    /// changed after it yet.
    pub fn changes(
        &self,
        keys: &KeyRange,
        after: Revision,
        previous: bool,
        bytes_max: usize,
    ) -> Result<Changed, NotKept> {
        let changes = self.history().changes_after(after);
        let mut changed = self.changes_among(changes, keys, after, previous, bytes_max)?;
        if !changed.more {
            changed.through = changed.through.max(self.revision());
        }
        Ok(changed)
    }

    /// Returns the changes of a range of keys at some revisions after another one, in order, as
    /// [`changes`](Self::changes) does. No other change up to the last one may be of these keys, so
    /// it does not matter whether those before the first are kept.
    ///
    /// # Errors
    /// As above.
    pub fn changes_of(
        &self,
        keys: &KeyRange,
        after: Revision,
        revisions: &[Revision],
        previous: bool,
        bytes_max: usize,
    ) -> Result<Changed, NotKept> {
        let before_first = |first: &Revision| Revision(first.0.saturating_sub(1));
        let after = revisions.first().map_or(after, |first| after.max(before_first(first)));
        let changes = revisions.iter().flat_map(|revision| {
            let before = Revision(revision.0.saturating_sub(1));
            let changes = self.history().changes_after(before);
            changes.take_while(|change| change.revision == *revision)
        });
        self.changes_among(changes, keys, after, previous, bytes_max)
    }

    fn changes_among<'a>(
        &'a self,
        changes: impl Iterator<Item = &'a Change>,
        keys: &KeyRange,
        after: Revision,
        previous: bool,
        bytes_max: usize,
    ) -> Result<Changed, NotKept> {
        // The changes at the floor are there, those below it are not.
        if after.0.saturating_add(1) < self.floor().0 {
            return Err(NotKept::Compacted { floor: self.floor() });
        }
        let mut changed = Changed { through: after, ..Changed::default() };
        let (mut bytes, mut seen) = (0, 0);
        for change in changes {
            let is_next = change.revision > changed.through;
            if is_next && seen > 0 && (bytes >= bytes_max || seen >= CHANGES_LOOKED_AT_MAX) {
                changed.more = true;
                changed.order();
                return Ok(changed);
            }
            seen += 1;
            changed.through = change.revision;
            if !keys.contains(&change.key) {
                continue;
            }
            if !is_next && planted(Mutant::HalfRevision) {
                continue;
            }
            let Some(version) = self.made_by(change) else { continue };
            let previous = change.replaced().filter(|_| previous);
            let previous =
                previous.map(|past| FoundVersion::past(&change.key, past, self.clock_ms()));
            let previous = previous.filter(|found| found.value != VersionValue::Deleted);
            let change = FoundChange { version, previous };
            bytes += change.bytes();
            changed.changes.push(change);
        }
        changed.order();
        Ok(changed)
    }

    /// Returns the keys that were changed after a revision, about `keys_max` of them, whole
    /// revisions at a time; `None` if compaction has removed some of these changes. They are there
    /// for a while after the floor has risen above them.
    pub fn changed_keys(&self, after: Revision, keys_max: usize) -> Option<ChangedKeys> {
        if after < self.history().swept() {
            return None;
        }
        let mut changed = ChangedKeys { through: after, ..ChangedKeys::default() };
        for change in self.history().changes_after(after) {
            if changed.keys.len() >= keys_max && change.revision > changed.through {
                changed.more = true;
                return Some(changed);
            }
            changed.through = change.revision;
            changed.keys.push((change.revision, Arc::clone(&change.key)));
        }
        changed.through = changed.through.max(self.revision());
        Some(changed)
    }
}
