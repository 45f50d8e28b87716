//! Reads of a shard's history: its state at a revision, the versions of a key, and its changes.
//!
//! As for all reads, values that only the checkpoint has are read without the lock of the state. A
//! version can be compacted between the two steps; the read is then repeated from the start.

use std::sync::Arc;

use bytes::Bytes;
use dkv_base::id::{Revision, Stamp};
use dkv_base::platform::run_blocking;
use dkv_wire::limits::{
    FRAME_BYTES_MAX, SCAN_BYTES_MAX, TRANSACTION_BYTES_MAX, VERSION_OVERHEAD_BYTES,
    WATCH_BYTES_TARGET,
};
use dkv_wire::message::{
    Answer, Change, Cut, KeyRange, Level, OperationResult, Page, RangeOptions, Receipt, Refusal,
    Span, Version, Versions,
};

use super::{LOOK_UPS_MAX, LookupError, StateMachineHandle};
use dkv_state::{
    Changed, ChangedKeys, FoundChange, FoundRange, FoundResult, FoundVersion, Listed, ListingAt,
    NotKept, ResultsAt, ShardState, Sought, VersionValue,
};

/// Room in a frame for everything but keys and values, in bytes.
const FRAME_MARGIN_BYTES: usize = 512 * 1024;

// A page ends with a whole revision. Its changes fit a frame, if need be without the versions that
// they replaced.
const _: () =
    assert!(WATCH_BYTES_TARGET + TRANSACTION_BYTES_MAX + FRAME_MARGIN_BYTES <= FRAME_BYTES_MAX);

/// A question about the history of a shard.
#[derive(Clone, Debug)]
pub(crate) enum HistoryQuery {
    /// The value of a key at a cut.
    Key { key: Bytes, at: Cut },
    /// A page of keys at a cut.
    Page { span: Span, at: Cut },
    /// The versions of a key before a revision, or all of them if it is zero.
    Versions { key: Bytes, before: Revision, versions_max: usize },
    /// The keys of a range.
    Range(RangeQuery),
}

/// A question about the keys of a range.
#[derive(Clone, Debug)]
pub(crate) struct RangeQuery {
    pub(crate) keys: KeyRange,
    /// Only keys after this one; empty for all.
    pub(crate) after: Bytes,
    pub(crate) options: RangeOptions,
    pub(crate) bytes_max: usize,
    /// Whether to count all keys of the range.
    pub(crate) count: bool,
}

/// Changes for a watcher.
#[derive(Debug)]
pub(crate) struct WatchPage {
    pub(crate) changes: Vec<Change>,
    /// The page has every change up to this revision.
    pub(crate) through: Revision,
    /// Whether the state may have more of them.
    pub(crate) more: bool,
}

impl WatchPage {
    /// Returns the bytes of its keys and values.
    pub(crate) fn bytes(&self) -> usize {
        self.changes.iter().map(change_bytes).sum()
    }
}

fn change_bytes(change: &Change) -> usize {
    let bytes =
        |version: &Version| VERSION_OVERHEAD_BYTES + version.value.as_ref().map_or(0, Bytes::len);
    change.key.len() + bytes(&change.version) + change.previous.as_ref().map_or(0, bytes)
}

impl HistoryQuery {
    /// Returns the revision that a replica must have reached to answer.
    pub(crate) fn at(&self) -> Option<Revision> {
        match self {
            Self::Key { at, .. } | Self::Page { at, .. } => Some(at.revision),
            Self::Versions { .. } | Self::Range(_) => None,
        }
    }
}

impl StateMachineHandle {
    /// Gives `look` the state of the shard; `None` if this is the control group.
    pub(crate) fn with_shard<T>(&self, look: impl FnOnce(&ShardState) -> T) -> Option<T> {
        self.read().state.as_shard().map(look)
    }

    /// Answers from the history, with a completed `receipt`. Waits for the disk if some values are
    /// only there.
    ///
    /// # Errors
    /// [`Refusal::Compacted`], [`Refusal::NotYet`], or [`Refusal::Unavailable`] if a value cannot
    /// be read.
    pub(crate) fn read_history(
        &self,
        query: &HistoryQuery,
        receipt: Receipt,
    ) -> Result<Answer, Refusal> {
        self.repeat(|| match query {
            HistoryQuery::Key { key, at } => {
                // The state is not locked for longer than one step takes.
                let mut from = None;
                let found = loop {
                    let step = self.shard(|shard| shard.seek_at(key, *at, from))?;
                    match step.map_err(not_kept(at.revision))? {
                        Sought::Found(found) => break found,
                        Sought::Before(revision) => from = Some(revision),
                    }
                };
                let Some(found) = found else { return Ok(Some(absent(at.revision, receipt))) };
                Ok(self.complete(&found)?.map(|version| present(version, receipt)))
            }
            HistoryQuery::Page { span, at } => {
                let mut listing = ListingAt::new(span);
                loop {
                    let step = self.shard(|shard| shard.list_more_at(span, *at, &mut listing))?;
                    if step.map_err(not_kept(at.revision))? {
                        break;
                    }
                }
                let Listed { keys, more, stamp, .. } = listing.listed;
                let store = &self.shared.store;
                let stored = |listed: &_| {
                    let dkv_state::ListedKey { key, revision, .. } = listed;
                    store.get_past(key, *revision)
                };
                let pairs = self.fill(&keys, span.values, stored).map_err(Refusal::from)?;
                let receipt = Receipt { revision: at.revision, stamp, ..receipt };
                Ok(pairs.map(|pairs| Answer::Page(receipt, Page { pairs, more })))
            }
            HistoryQuery::Versions { key, .. }
                if receipt.level == Level::Strong && self.write_locked_at(key).is_some() =>
            {
                Err(LookupError::Locked.into())
            }
            HistoryQuery::Versions { key, before, versions_max } => {
                let (revision, floor, (found, more)) = self.shard(|shard| {
                    let versions = shard.versions(key, *before, *versions_max);
                    (shard.revision(), shard.floor(), versions)
                })?;
                let Some((versions, is_cut)) = self.complete_all(&found)? else {
                    return Ok(None);
                };
                let stamp = versions.first().map_or(Stamp::default(), |newest| newest.stamp);
                let receipt = Receipt { revision, stamp, ..receipt };
                let versions = Versions { versions, more: more || is_cut, floor };
                Ok(Some(Answer::Versions(receipt, versions)))
            }
            HistoryQuery::Range(query) => self.range(query, receipt),
        })
    }

    /// Answers from the history like [`read_history`](Self::read_history), but only if that needs
    /// no disk and little time.
    pub(crate) fn read_history_at_once(
        &self,
        query: &HistoryQuery,
        receipt: Receipt,
    ) -> Option<Result<Answer, Refusal>> {
        let HistoryQuery::Key { key, at } = query else { return None };
        let found = match self.shard(|shard| shard.seek_at(key, *at, None)) {
            Ok(Ok(Sought::Found(found))) => found,
            Ok(Ok(Sought::Before(_))) => return None,
            Ok(Err(why)) => return Some(Err(not_kept(at.revision)(why))),
            Err(refusal) => return Some(Err(refusal)),
        };
        match found {
            None => Some(Ok(absent(at.revision, receipt))),
            Some(found) if is_stored(&found) => None,
            Some(found) => Some(Ok(present(found.to_version(None), receipt))),
        }
    }

    /// Returns the changes of a range of keys after a revision, as many as fit a frame; those at
    /// some revisions, if they are known to be all up to the last of these.
    ///
    /// # Errors
    /// [`Refusal::Compacted`], or [`Refusal::Unavailable`] if a value cannot be read.
    pub(crate) async fn changes(
        &self,
        keys: &KeyRange,
        after: Revision,
        at: Option<&[Revision]>,
        previous: bool,
    ) -> Result<WatchPage, Refusal> {
        for _ in 0..LOOK_UPS_MAX {
            let changed = self.shard(|shard| match at {
                Some(at) => shard.changes_of(keys, after, at, previous, WATCH_BYTES_TARGET),
                None => shard.changes(keys, after, previous, WATCH_BYTES_TARGET),
            })?;
            let Changed { changes: mut found, through, more } = changed.map_err(not_kept(after))?;
            drop_previous_if_too_long(&mut found, FRAME_BYTES_MAX - FRAME_MARGIN_BYTES);
            let on_disk = |change: &FoundChange| {
                is_stored(&change.version) || change.previous.as_ref().is_some_and(is_stored)
            };
            let changes = if found.iter().any(on_disk) {
                let reading = self.clone();
                let read = run_blocking(move || reading.complete_changes(&found)).await;
                read.map_err(|error| Refusal::Unavailable(error.to_string()))??
            } else {
                self.complete_changes(&found)?
            };
            if let Some(changes) = changes {
                return Ok(WatchPage { changes, through, more });
            }
        }
        Err(too_fast())
    }

    /// Returns the results of a transaction that was executed at a revision, some values of which
    /// may be on the disk; `None` if the shard has forgotten them.
    pub(crate) async fn found_results(
        &self,
        body: &[u8],
        revision: Revision,
        way: (bool, u64),
        changed: bool,
    ) -> Option<Vec<FoundResult>> {
        let mut results = ResultsAt::new(body, revision, way, changed);
        while !self.with_shard(|shard| shard.results_more(&mut results))?.ok()? {
            tokio::task::yield_now().await;
        }
        Some(results.found)
    }

    /// Returns the results with all values; `None` if the checkpoint no longer has one. Waits for
    /// the disk elsewhere, if it has to.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] if a value cannot be read.
    pub(crate) async fn complete_found(
        &self,
        found: Vec<FoundResult>,
    ) -> Result<Option<Vec<OperationResult>>, Refusal> {
        if !found.iter().any(is_result_stored) {
            return self.complete_results(&found);
        }
        let reading = self.clone();
        let read = run_blocking(move || reading.complete_results(&found)).await;
        read.map_err(|error| Refusal::Unavailable(error.to_string()))?
    }

    fn complete_results(
        &self,
        found: &[FoundResult],
    ) -> Result<Option<Vec<OperationResult>>, Refusal> {
        let mut results = Vec::with_capacity(found.len());
        for result in found {
            results.push(match result {
                FoundResult::Got(None) => OperationResult::Got(None),
                FoundResult::Got(Some(found)) => match self.complete(found)? {
                    Some(version) => OperationResult::Got(Some(version)),
                    None => return Ok(None),
                },
                FoundResult::Listed { keys, more } => match self.complete_pairs(keys)? {
                    Some(keys) => OperationResult::Listed { keys, more: *more },
                    None => return Ok(None),
                },
                FoundResult::Replaced(previous) => {
                    let previous = match previous {
                        Some(found) => match self.complete(found)? {
                            None => return Ok(None),
                            version => version,
                        },
                        None => None,
                    };
                    OperationResult::Replaced { previous }
                }
                FoundResult::Removed { deleted, previous, revision } => {
                    let Some(previous) = self.complete_pairs(previous)? else { return Ok(None) };
                    let (deleted, revision) = (*deleted, *revision);
                    OperationResult::Removed { deleted, previous, revision }
                }
                FoundResult::Ranged { range, revision } => {
                    let Some(keys) = self.complete_pairs(&range.keys)? else { return Ok(None) };
                    let FoundRange { more, count, .. } = *range;
                    OperationResult::Ranged { keys, more, count, revision: *revision }
                }
                FoundResult::Nested { succeeded, results } => {
                    OperationResult::Nested { succeeded: *succeeded, results: *results }
                }
                FoundResult::Put(FoundVersion { origin, .. }) => {
                    OperationResult::Put { created: origin.created, version: origin.version }
                }
                FoundResult::Deleted(count) => OperationResult::Deleted(*count),
                FoundResult::Changed(found) => match self.complete(found)? {
                    Some(version) => OperationResult::Changed(version),
                    None => return Ok(None),
                },
            });
        }
        Ok(Some(results))
    }

    /// Returns the keys that were changed after a revision; the inner option is `None` if
    /// compaction has removed some of the changes, the outer one if this is the control group.
    pub(crate) fn changed_keys(
        &self,
        after: Revision,
        keys_max: usize,
    ) -> Option<Option<ChangedKeys>> {
        self.with_shard(|shard| shard.changed_keys(after, keys_max))
    }

    pub(super) fn shard<T>(&self, look: impl FnOnce(&ShardState) -> T) -> Result<T, Refusal> {
        let no_shard = || Refusal::Unavailable("the group has no keys".into());
        self.with_shard(look).ok_or_else(no_shard)
    }

    /// Calls `attempt` until it returns something.
    fn repeat<T>(
        &self,
        mut attempt: impl FnMut() -> Result<Option<T>, Refusal>,
    ) -> Result<T, Refusal> {
        for _ in 0..LOOK_UPS_MAX {
            if let Some(done) = attempt()? {
                return Ok(done);
            }
        }
        Err(too_fast())
    }

    /// Returns a version with its value; `None` if the checkpoint no longer has it.
    fn complete(&self, found: &FoundVersion) -> Result<Option<Version>, Refusal> {
        if !is_stored(found) {
            return Ok(Some(found.to_version(None)));
        }
        let unreadable = |problem: &dyn std::fmt::Display| Refusal::from(self.unreadable(problem));
        match self.shared.store.get_past(&found.key, found.origin.revision) {
            Ok(Some(row)) if found.is(&row) => Ok(Some(found.to_version(Some(&row)))),
            Ok(Some(_)) => Err(unreadable(&"it is not what was written")),
            Ok(None) => Ok(None),
            Err(error) => Err(unreadable(&error)),
        }
    }

    /// Returns as many of the versions as fit a page, and whether these are not all.
    fn complete_all(
        &self,
        found: &[FoundVersion],
    ) -> Result<Option<(Vec<Version>, bool)>, Refusal> {
        let (mut versions, mut bytes) = (Vec::new(), 0);
        for found in found {
            bytes += match &found.value {
                VersionValue::Deleted | VersionValue::Omitted => 0,
                VersionValue::Here(value) => value.len(),
                VersionValue::Stored { bytes, .. } => *bytes as usize,
            };
            if bytes > SCAN_BYTES_MAX && !versions.is_empty() {
                return Ok(Some((versions, true)));
            }
            let Some(version) = self.complete(found)? else { return Ok(None) };
            versions.push(version);
        }
        Ok(Some((versions, false)))
    }

    /// Returns the versions with their keys; `None` if the checkpoint no longer has one.
    pub(super) fn complete_pairs(
        &self,
        found: &[FoundVersion],
    ) -> Result<Option<Vec<(Bytes, Version)>>, Refusal> {
        let mut pairs = Vec::with_capacity(found.len());
        for found in found {
            let Some(version) = self.complete(found)? else { return Ok(None) };
            pairs.push((Bytes::from_owner(Arc::clone(&found.key)), version));
        }
        Ok(Some(pairs))
    }

    fn complete_changes(&self, found: &[FoundChange]) -> Result<Option<Vec<Change>>, Refusal> {
        let mut changes = Vec::with_capacity(found.len());
        for FoundChange { version: made, previous } in found {
            let Some(version) = self.complete(made)? else { return Ok(None) };
            let previous = match previous {
                None => None,
                Some(previous) => match self.complete(previous)? {
                    None => return Ok(None),
                    previous => previous,
                },
            };
            let key = Bytes::from_owner(Arc::clone(&made.key));
            changes.push(Change { key, version, previous });
        }
        Ok(Some(changes))
    }
}

/// Leaves the versions before out of the revisions that have no room for them in a frame: a
/// transaction can replace far more than it writes. They are not read then.
fn drop_previous_if_too_long(found: &mut [FoundChange], bytes_max: usize) {
    let mut bytes: usize = found.iter().map(FoundChange::bytes).sum();
    // A page ends with the first revision that makes it long.
    for revision in found
        .chunk_by_mut(|one, next| one.version.origin.revision == next.version.origin.revision)
        .rev()
    {
        if bytes <= bytes_max {
            return;
        }
        let before: usize = revision.iter().map(FoundChange::bytes).sum();
        revision.iter_mut().for_each(|change| change.previous = None);
        bytes -= before - revision.iter().map(FoundChange::bytes).sum::<usize>();
    }
}

fn is_result_stored(result: &FoundResult) -> bool {
    match result {
        FoundResult::Got(Some(found)) | FoundResult::Changed(found) => is_stored(found),
        FoundResult::Listed { keys, .. }
        | FoundResult::Removed { previous: keys, .. }
        | FoundResult::Ranged { range: FoundRange { keys, .. }, .. } => keys.iter().any(is_stored),
        FoundResult::Replaced(previous) => previous.as_ref().is_some_and(is_stored),
        FoundResult::Got(None)
        | FoundResult::Put(_)
        | FoundResult::Deleted(_)
        | FoundResult::Nested { .. } => false,
    }
}

fn is_stored(found: &FoundVersion) -> bool {
    matches!(found.value, VersionValue::Stored { .. })
}

fn present(version: Version, receipt: Receipt) -> Answer {
    let Version { revision, stamp, .. } = version;
    Answer::VersionAt(Receipt { revision, stamp, ..receipt }, Some(version))
}

/// The answer that a key did not exist at a revision.
fn absent(at: Revision, receipt: Receipt) -> Answer {
    Answer::VersionAt(Receipt { revision: at, ..receipt }, None)
}

pub(super) fn not_kept(asked: Revision) -> impl Fn(NotKept) -> Refusal {
    move |why| match why {
        NotKept::Compacted { floor } => Refusal::Compacted { floor },
        NotKept::NotYet { latest } => Refusal::NotYet { asked, latest },
    }
}

fn too_fast() -> Refusal {
    Refusal::Unavailable("the history is compacted faster than it is read".to_owned())
}

#[cfg(test)]
mod tests {
    use dkv_base::id::LeaseId;
    use dkv_state::Origin;

    use super::*;

    #[test]
    fn values_that_no_frame_has_room_for_are_not_read() {
        let origin = Origin {
            revision: Revision(2),
            stamp: Stamp(2),
            created: Revision(1),
            version: 1,
            position: 0,
        };
        let found = |value| FoundVersion {
            key: Arc::from(*b"k"),
            origin,
            lease: LeaseId::default(),
            expiry: None,
            value,
        };
        let deletions = |number: usize| {
            let stored = VersionValue::Stored { bytes: 2 << 20, hash: 0 };
            let version = found(VersionValue::Deleted);
            let change = FoundChange { version, previous: Some(found(stored)) };
            let mut changes = vec![change; number];
            drop_previous_if_too_long(&mut changes, FRAME_BYTES_MAX - FRAME_MARGIN_BYTES);
            changes.iter().filter(|change| change.previous.is_some()).count()
        };
        assert_eq!(deletions(16), 16);
        assert_eq!(deletions(17), 0);
        assert_eq!(deletions(10_000), 0);

        // Changes before it, of other keys, keep their versions.
        let mut early = found(VersionValue::Here(Arc::from(*b"v")));
        early.origin.revision = Revision(1);
        let previous = Some(early.clone());
        let mut changes = vec![FoundChange { version: early, previous }];
        let stored = VersionValue::Stored { bytes: 2 << 20, hash: 0 };
        let version = found(VersionValue::Deleted);
        changes.extend(vec![FoundChange { version, previous: Some(found(stored)) }; 17]);
        drop_previous_if_too_long(&mut changes, FRAME_BYTES_MAX - FRAME_MARGIN_BYTES);
        let kept = |changes: &[FoundChange]| -> Vec<bool> {
            changes.iter().map(|change| change.previous.is_some()).collect()
        };
        assert!(kept(&changes)[0] && !kept(&changes)[1..].contains(&true));

        // From the last one on, as many as must.
        let of = |revision| {
            let mut version = found(VersionValue::Here(Arc::from([0; 100])));
            version.origin.revision = Revision(revision);
            FoundChange { previous: Some(version.clone()), version }
        };
        let mut changes = [of(1), of(2), of(3)];
        let all: usize = changes.iter().map(FoundChange::bytes).sum();
        drop_previous_if_too_long(&mut changes, all - 101);
        assert_eq!(kept(&changes), [true, true, false]);
        drop_previous_if_too_long(&mut changes, all - 250);
        assert_eq!(kept(&changes), [true, false, false]);
    }
}
