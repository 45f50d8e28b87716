//! State of the log, group by group: votes, positions, where each entry lies, and the entries that
//! are still in memory.
//!
//! The same methods serve the callers and the replay of the files, so that both agree on what is
//! allowed. Entries are in order, so the index is a queue: 16 bytes an entry. The cache is the
//! youngest part of it: entries enter in the order in which they are appended, over all groups, and
//! leave in that order once they are written, so the entries of a group in memory are always a
//! suffix of its entries. An entry that is not written yet never leaves, except by being truncated
//! or purged.
//!
//! Deliberately missing: files, threads, and any notion of what is durable.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use dkv_base::id::GroupId;

use super::format::Restated;
use super::options::LogState;

/// Where the record of an entry lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Location {
    /// Sequence number of the segment; zero for an entry that is not on its way to the disk yet.
    pub(super) segment: u64,
    /// Position of the record in the file, in bytes.
    pub(super) offset: u32,
    /// Length of the entry itself, in bytes.
    pub(super) payload_bytes: u32,
}

impl Location {
    /// The location of an entry that has no place on disk yet.
    pub(super) fn staged(payload_bytes: u32) -> Self {
        Self { segment: 0, offset: 0, payload_bytes }
    }
}

/// Assumed memory of an entry beside its own bytes, so that empty ones count too.
const CACHED_OVERHEAD_BYTES: usize = 64;

/// Where an entry was found, in memory or on disk.
pub(super) enum Found {
    Cached(Bytes),
    Stored(Location),
}

/// Why a change makes no sense for its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("group {group}: entry {index} does not follow: the next index is {next}")]
    Gap { group: GroupId, index: u64, next: u64 },
    #[error("group {group}: entry {index} was purged and cannot be truncated")]
    Purged { group: GroupId, index: u64 },
    #[error("group {group}: index {index} is out of range")]
    Range { group: GroupId, index: u64 },
}

#[derive(Default)]
pub(super) struct Group {
    vote: Option<Bytes>,
    committed: Option<Bytes>,
    purged: Option<(u64, Bytes)>,
    /// First index, and the one after the last; `None` before the first entry or purge.
    range: Option<(u64, u64)>,
    /// Locations of the entries at the end of the range: all of them, except during replay.
    locations: VecDeque<Location>,
    /// The entries in memory, at the end of the range, each with its serial number.
    cached: VecDeque<(u64, Bytes)>,
}

/// All groups of a log.
#[derive(Default)]
pub(super) struct Groups {
    groups: BTreeMap<GroupId, Group>,
    /// For each group with entries in memory, the serial number of the oldest of them.
    oldest_cached: BTreeMap<u64, GroupId>,
    cached_bytes: usize,
    last_serial: u64,
    /// Entries and votes that were ever given to this log: everything that its node has promised to
    /// keep.
    pub(super) promises: u64,
}

impl Groups {
    pub(super) fn ids(&self) -> impl Iterator<Item = GroupId> {
        self.groups.keys().copied()
    }

    pub(super) fn contains(&self, id: GroupId) -> bool {
        self.groups.contains_key(&id)
    }

    pub(super) fn state(&self, id: GroupId) -> LogState {
        let Some(group) = self.groups.get(&id) else { return LogState::default() };
        let filled = group.range.filter(|(first, next)| first < next);
        LogState {
            vote: group.vote.clone(),
            committed: group.committed.clone(),
            purged: group.purged.clone(),
            first_index: filled.map(|(first, _)| first),
            last_index: filled.map(|(_, next)| next - 1),
            next_index: group.range.map(|(_, next)| next),
        }
    }

    pub(super) fn cached_bytes(&self) -> usize {
        self.cached_bytes
    }

    /// The serial number of the entry that entered memory last.
    pub(super) fn last_serial(&self) -> u64 {
        self.last_serial
    }

    pub(super) fn set_vote(&mut self, id: GroupId, vote: Bytes) {
        self.promises += 1;
        self.groups.entry(id).or_default().vote = Some(vote);
    }

    pub(super) fn set_committed(&mut self, id: GroupId, committed: Bytes) {
        self.groups.entry(id).or_default().committed = Some(committed);
    }

    pub(super) fn committed(&self, id: GroupId) -> Option<Bytes> {
        self.groups.get(&id).and_then(|group| group.committed.clone())
    }

    /// Checks whether `count` entries from `index` on may be appended now.
    pub(super) fn check_append(&self, id: GroupId, index: u64, count: u64) -> Result<(), Refused> {
        if index.checked_add(count).is_none() {
            return Err(Refused::Range { group: id, index });
        }
        match self.groups.get(&id).and_then(|group| group.range) {
            Some((_, next)) if next != index => Err(Refused::Gap { group: id, index, next }),
            _ => Ok(()),
        }
    }

    /// Appends an entry, which stays in memory if `payload` is given. The caller has checked it.
    pub(super) fn append(
        &mut self,
        id: GroupId,
        index: u64,
        location: Location,
        payload: Option<Bytes>,
    ) {
        debug_assert!(self.check_append(id, index, 1).is_ok(), "the caller has checked it");
        self.promises += 1;
        let group = self.groups.entry(id).or_default();
        let first = group.range.map_or(index, |(first, _)| first);
        group.range = Some((first, index + 1));
        group.locations.push_back(location);
        if let Some(payload) = payload {
            self.last_serial += 1;
            if group.cached.is_empty() {
                self.oldest_cached.insert(self.last_serial, id);
            }
            self.cached_bytes += payload.len() + CACHED_OVERHEAD_BYTES;
            group.cached.push_back((self.last_serial, payload));
        }
    }

    /// Records where an entry lies that was appended before its place was known. It may have been
    /// truncated or purged since.
    pub(super) fn locate(&mut self, id: GroupId, index: u64, location: Location) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        if let Some(at) = group.position(index) {
            group.locations[at] = location;
        }
    }

    /// Returns whether truncating from `index` would change anything.
    pub(super) fn check_truncate(&self, id: GroupId, index: u64) -> Result<bool, Refused> {
        match self.groups.get(&id).and_then(|group| group.range) {
            Some((first, _)) if index < first => Err(Refused::Purged { group: id, index }),
            Some((_, next)) => Ok(index < next),
            None => Ok(false),
        }
    }

    /// Drops all entries from `index` on. The caller has checked it.
    pub(super) fn truncate(&mut self, id: GroupId, index: u64) {
        debug_assert!(self.check_truncate(id, index).is_ok(), "the caller has checked it");
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some((first, next)) = group.range else { return };
        let dropped = usize::try_from(next.saturating_sub(index)).unwrap_or(usize::MAX);
        group.range = Some((first, index));
        group.locations.truncate(group.locations.len().saturating_sub(dropped));
        shrink(&mut group.locations);
        self.drop_cached(id, |cached| cached.len().saturating_sub(dropped)..cached.len());
    }

    /// Returns whether purging up to `index` would change anything.
    pub(super) fn check_purge(&self, id: GroupId, index: u64) -> Result<bool, Refused> {
        if index == u64::MAX {
            return Err(Refused::Range { group: id, index });
        }
        let purged = self.groups.get(&id).and_then(|group| group.purged.as_ref());
        Ok(purged.is_none_or(|(purged, _)| *purged < index))
    }

    /// Drops all entries up to `index`; the next entry to append is at least the one after it. The
    /// caller has checked it.
    pub(super) fn purge(&mut self, id: GroupId, index: u64, log_id: Bytes) {
        debug_assert!(self.check_purge(id, index).is_ok(), "the caller has checked it");
        let group = self.groups.entry(id).or_default();
        group.purged = Some((index, log_id));
        let (first, next) = group.range.unwrap_or((index + 1, index + 1));
        let first = first.max(index + 1);
        let next = next.max(first);
        group.range = Some((first, next));
        let kept = usize::try_from(next - first).unwrap_or(usize::MAX);
        let surplus = group.locations.len().saturating_sub(kept);
        group.locations.drain(..surplus);
        shrink(&mut group.locations);
        self.drop_cached(id, |cached| 0..cached.len().saturating_sub(kept));
    }

    pub(super) fn forget(&mut self, id: GroupId) {
        self.drop_cached(id, |cached| 0..cached.len());
        self.groups.remove(&id);
    }

    /// Removes a range from the entries that a group has in memory, and updates the accounts.
    fn drop_cached(
        &mut self,
        id: GroupId,
        range: impl FnOnce(&VecDeque<(u64, Bytes)>) -> std::ops::Range<usize>,
    ) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some((oldest, _)) = group.cached.front() else { return };
        self.oldest_cached.remove(oldest);
        let range = range(&group.cached);
        for (_, payload) in group.cached.drain(range) {
            self.cached_bytes -= payload.len() + CACHED_OVERHEAD_BYTES;
        }
        if let Some((oldest, _)) = group.cached.front() {
            self.oldest_cached.insert(*oldest, id);
        }
    }

    /// Removes entries from memory, oldest first, until no more than `bytes_max` remain; but none
    /// younger than `written`, the serial number of the last entry that can be read from its file.
    pub(super) fn shrink_cache(&mut self, bytes_max: usize, written: u64) {
        while self.cached_bytes > bytes_max {
            match self.oldest_cached.first_key_value() {
                Some((&oldest, &id)) if oldest <= written => self.drop_cached(id, |_| 0..1),
                _ => break,
            }
        }
    }

    /// Returns the places of the existing entries of a group from `start` up to but without `end`,
    /// until the sum of their lengths exceeds `bytes_max`; but at least one, if there is one.
    pub(super) fn find(
        &self,
        id: GroupId,
        start: u64,
        end: u64,
        bytes_max: u64,
    ) -> Vec<(u64, Found)> {
        let Some(group) = self.groups.get(&id) else { return Vec::new() };
        let Some((first, next)) = group.range else { return Vec::new() };
        let mut found = Vec::new();
        let mut bytes = 0_u64;
        for index in start.max(first)..end.min(next) {
            let Some(place) = group.place(index) else { continue };
            bytes = bytes.saturating_add(match &place {
                Found::Cached(payload) => payload.len() as u64,
                Found::Stored(location) => u64::from(location.payload_bytes),
            });
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push((index, place));
        }
        found
    }

    /// Returns the oldest segment that still contains an entry of any group.
    pub(super) fn oldest_segment(&self) -> Option<u64> {
        let fronts = self.groups.values().filter_map(|group| group.locations.front());
        fronts.map(|location| location.segment).filter(|segment| *segment != 0).min()
    }

    /// Returns the last index that each group has in `segment` or an older one.
    pub(super) fn last_indexes_in(&self, segment: u64) -> Vec<(GroupId, u64)> {
        let mut pinning = Vec::new();
        for (id, group) in &self.groups {
            let there = |location: &Location| location.segment != 0 && location.segment <= segment;
            let count = group.locations.partition_point(there);
            if let (Some((_, next)), 1..) = (group.range, count) {
                let last = next - (group.locations.len() - count) as u64 - 1;
                pinning.push((*id, last));
            }
        }
        pinning
    }

    /// Returns the state of every group, for the first frame of a segment.
    pub(super) fn restate(&self) -> Vec<Restated> {
        let bytes = |bytes: &Bytes| bytes.to_vec();
        let states = self.groups.iter().map(|(id, group)| Restated {
            group: *id,
            vote: group.vote.as_ref().map(bytes),
            committed: group.committed.as_ref().map(bytes),
            purged: group.purged.as_ref().map(|(index, log_id)| (*index, log_id.to_vec())),
            range: group.range,
        });
        states.collect()
    }

    /// Makes the groups as a segment restates them, with the entries that are known to lie in that
    /// segment. Other entries are [missing](Self::missing) for now.
    pub(super) fn from_restated(
        promises: u64,
        states: Vec<Restated>,
        mut known: BTreeMap<(GroupId, u64), Location>,
    ) -> Option<Self> {
        let mut groups = BTreeMap::new();
        for state in states {
            let mut locations = VecDeque::new();
            if let Some((first, next)) = state.range {
                if first > next {
                    return None;
                }
                let last = (first..next).rev();
                for location in last.map_while(|index| known.remove(&(state.group, index))) {
                    locations.push_front(location);
                }
            }
            let group = Group {
                vote: state.vote.map(Bytes::from),
                committed: state.committed.map(Bytes::from),
                purged: state.purged.map(|(index, log_id)| (index, Bytes::from(log_id))),
                range: state.range,
                locations,
                cached: VecDeque::new(),
            };
            groups.insert(state.group, group);
        }
        Some(Self { groups, promises, ..Self::default() })
    }

    /// Returns a group, and the indexes that it should have but that were in no segment.
    pub(super) fn missing(&self) -> Option<(GroupId, u64, u64)> {
        self.groups.iter().find_map(|(id, group)| {
            let (first, next) = group.range?;
            let seen_from = next - group.locations.len() as u64;
            (first < seen_from).then(|| (*id, first, seen_from - 1))
        })
    }
}

impl Group {
    /// Returns the position of an index in the queue of locations.
    fn position(&self, index: u64) -> Option<usize> {
        let (_, next) = self.range?;
        let from_end = usize::try_from(next.checked_sub(index)?).ok()?;
        if from_end == 0 { None } else { self.locations.len().checked_sub(from_end) }
    }

    fn place(&self, index: u64) -> Option<Found> {
        let (_, next) = self.range?;
        let from_end = usize::try_from(next.checked_sub(index)?).ok()?;
        if let Some(at) = self.cached.len().checked_sub(from_end) {
            return self.cached.get(at).map(|(_, payload)| Found::Cached(payload.clone()));
        }
        self.position(index).map(|at| Found::Stored(self.locations[at]))
    }
}

/// Releases memory once a queue is far emptier than it was.
fn shrink(locations: &mut VecDeque<Location>) {
    if locations.capacity() > 4096 && locations.len() < locations.capacity() / 4 {
        locations.shrink_to(locations.len() * 2);
    }
}
