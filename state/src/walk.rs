//! Walks over the keys of a shard as they were at a cut.
//!
//! A walk looks at a bounded number of keys and versions at once, because the state stays locked
//! meanwhile, and goes on from its [`Cursor`].

use std::ops::Bound;
use std::sync::Arc;

use dkv_base::id::Revision;
use dkv_wire::limits::{SCAN_BYTES_MAX, SCAN_KEYS_MAX};
use dkv_wire::message::{Cut, Span};

use super::reads_at::{CHANGES_LOOKED_AT_MAX, FoundVersion, NotKept, Sought, VersionValue};
use super::rows::Origin;
use super::scan::{Listed, ListedKey, ListedValue};
use super::shard::ShardState;

/// How far a walk has come.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    /// The next key is the first of these.
    pub(super) from: Bound<Arc<[u8]>>,
    /// The version of that key is older than the one that this write made.
    before: Option<Revision>,
}

impl Cursor {
    /// Begins a walk at a bound.
    pub(super) fn new(from: Bound<&[u8]>) -> Self {
        Self { from: from.map(Arc::from), before: None }
    }

    /// Returns the bound from which the walk goes on.
    pub(super) fn from(&self) -> Bound<&[u8]> {
        match &self.from {
            Bound::Included(key) => Bound::Included(&key[..]),
            Bound::Excluded(key) => Bound::Excluded(&key[..]),
            Bound::Unbounded => Bound::Unbounded,
        }
    }
}

/// A page of keys at a cut, on its way.
#[derive(Debug)]
pub struct ListingAt {
    /// The keys so far.
    pub listed: Listed,
    bytes: usize,
    cursor: Cursor,
}

impl ListingAt {
    /// Begins the page of a span.
    pub fn new(span: &Span) -> Self {
        Self { listed: Listed::default(), bytes: 0, cursor: Cursor::new(span.range().0) }
    }
}

impl ShardState {
    /// Returns the first key from a bound on that exists or has past versions.
    pub(super) fn next_key(&self, from: Bound<&[u8]>) -> Option<Arc<[u8]>> {
        let newest = self.keys().range::<[u8], _>((from, Bound::Unbounded)).next();
        let (newest, past) = (newest.map(|(key, _)| key), self.history().deleted_from(from));
        let first = match (newest, past) {
            (Some(newest), Some(past)) => newest.min(past),
            (newest, past) => newest.or(past)?,
        };
        Some(Arc::clone(first))
    }

    /// Returns the version at a cut of the key to which a walk has come, which may be its deletion;
    /// the walk goes on behind it. The inner option is `None` if there is no version. The outer one
    /// is `None` if the `steps` are used up: the walk goes on there with more of them.
    pub(super) fn look_at(
        &self,
        key: &Arc<[u8]>,
        at: Cut,
        cursor: &mut Cursor,
        steps: &mut usize,
    ) -> Option<Option<FoundVersion>> {
        *steps = steps.checked_sub(1)?;
        match self.find_at(key, at, cursor.before.take(), steps) {
            Sought::Found(found) => {
                cursor.from = Bound::Excluded(Arc::clone(key));
                Some(found)
            }
            Sought::Before(revision) => {
                cursor.from = Bound::Included(Arc::clone(key));
                cursor.before = Some(revision);
                None
            }
        }
    }

    /// Adds keys to a page; looks at a bounded number of keys and versions. Returns whether the
    /// page is complete.
    ///
    /// # Errors
    /// [`NotKept`].
    pub fn list_more_at(
        &self,
        span: &Span,
        at: Cut,
        listing: &mut ListingAt,
    ) -> Result<bool, NotKept> {
        self.kept(at)?;
        let keys_max = (span.keys_max as usize).clamp(1, SCAN_KEYS_MAX);
        let bytes_max = (span.bytes_max as usize).min(SCAN_BYTES_MAX);
        let ListingAt { listed, bytes, cursor } = listing;
        let mut steps = CHANGES_LOOKED_AT_MAX;
        while let Some(key) = self.next_key(cursor.from()) {
            if !key.starts_with(&span.prefix) {
                break;
            }
            let Some(found) = self.look_at(&key, at, cursor, &mut steps) else { return Ok(false) };
            let Some(found) = found else { continue };
            let value = match &found.value {
                VersionValue::Deleted | VersionValue::Omitted => continue,
                VersionValue::Here(value) => ListedValue::Here(Arc::clone(value)),
                VersionValue::Stored { hash, .. } => ListedValue::Stored { hash: *hash },
            };
            *bytes += if span.values { found.bytes() } else { key.len() };
            let is_full = *bytes > bytes_max && !listed.keys.is_empty();
            if listed.keys.len() == keys_max || is_full {
                listed.more = true;
                break;
            }
            listed.stamp = listed.stamp.max(found.origin.stamp);
            let Origin { revision, created, version, .. } = found.origin;
            let FoundVersion { lease, expiry, .. } = found;
            let listed_key = ListedKey { key, revision, created, version, lease, expiry, value };
            listed.keys.push(listed_key);
        }
        Ok(true)
    }
}
