//! The log of one group, as its callers see it.

use std::collections::BTreeMap;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::GroupId;

use super::Done;
use super::core::{Core, Staged};
use super::format::{Kind, Record, record_bytes};
use super::groups::{Found, Refused};
use super::options::{APPEND_BYTES_MAX, LogState, STATE_BYTES_MAX};
use super::read::Reading;
use super::shared::Handle;
use super::shared::WalInner;

/// The log of one group. Clones refer to the same log.
///
/// Calls take effect in the order in which they are made, in memory at once and on disk later. Each
/// call that takes a [`Done`] either returns an error and drops it, or returns `Ok` and calls it
/// exactly once. None of them waits for the disk.
#[derive(Clone)]
pub struct GroupLog {
    pub(super) handle: Arc<Handle>,
    pub(super) id: GroupId,
}

impl GroupLog {
    /// The group to which this log belongs.
    pub fn id(&self) -> GroupId {
        self.id
    }

    /// Appends entries. They are readable when this returns, and durable when `done` is called.
    ///
    /// The indexes must be contiguous, and follow the last entry, or the last purged one; the first
    /// entry of a group may have any index. An entry stays in memory until it is written and the
    /// cache is full; memory that it shares with others stays with it.
    ///
    /// # Errors
    /// `WouldBlock` if [`staged_bytes`](super::WalOptions::staged_bytes) are waiting already (see
    /// [`Self::append_when_ready`]), `InvalidInput` if the indexes do not fit or the entries are
    /// too long together ([`APPEND_BYTES_MAX`]), or the reason why the log accepts no more. Nothing
    /// was appended.
    pub fn append(&self, entries: Vec<(u64, Bytes)>, done: Done) -> io::Result<()> {
        let records = self.encode(&entries)?;
        let mut core = self.shared().lock();
        core.check_open()?;
        if !core.has_room() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.stage_append(&mut core, entries, records, done)
    }

    /// Appends entries as [`Self::append`] does, but waits while too much is staged, which is how a
    /// slow or full disk pushes back. If the call is cancelled, nothing was appended.
    ///
    /// # Errors
    /// As for [`Self::append`], but never `WouldBlock`.
    pub async fn append_when_ready(
        &self,
        entries: Vec<(u64, Bytes)>,
        done: Done,
    ) -> io::Result<()> {
        let records = self.encode(&entries)?;
        loop {
            // Registered before the check of the stage, or the wake-up could fall between the two.
            let woken = self.shared().for_appenders().notified();
            let mut woken = std::pin::pin!(woken);
            woken.as_mut().enable();
            {
                let mut core = self.shared().lock();
                core.check_open()?;
                if core.has_room() {
                    return self.stage_append(&mut core, entries, records, done);
                }
            }
            woken.await;
        }
    }

    /// Saves the vote.
    ///
    /// # Errors
    /// `InvalidInput` if it is longer than [`STATE_BYTES_MAX`], or the reason why the log accepts
    /// no more.
    pub fn save_vote(&self, vote: Bytes, done: Done) -> io::Result<()> {
        check_state_bytes(&vote)?;
        let mut core = self.shared().lock();
        core.check_open()?;
        let records = self.record(Kind::Vote, 0, &vote);
        core.groups.set_vote(self.id, vote);
        self.stage(&mut core, records, false, done);
        Ok(())
    }

    /// Saves the committed position, lazily: it goes to disk with the next frame, or with the seal
    /// after an idle moment or at close. After a crash an older one may come back.
    ///
    /// # Errors
    /// As for [`Self::save_vote`].
    pub fn save_committed(&self, committed: Bytes) -> io::Result<()> {
        check_state_bytes(&committed)?;
        let mut core = self.shared().lock();
        core.check_open()?;
        core.groups.set_committed(self.id, committed);
        let seal_was_due = core.needs_seal();
        core.stage_committed(self.id);
        if !seal_was_due {
            // The writer sleeps without a limit, and must count the idle time from now on.
            self.shared().wake_writer_locked(&mut core);
        }
        Ok(())
    }

    /// Drops all entries from `index` on. Beyond the last entry there is nothing to drop, and
    /// `done` only waits for what was staged before.
    ///
    /// # Errors
    /// `InvalidInput` if `index` was purged, or the reason why the log accepts no more.
    pub fn truncate_from(&self, index: u64, done: Done) -> io::Result<()> {
        let mut core = self.shared().lock();
        core.check_open()?;
        let mut records = Vec::new();
        if core.groups.check_truncate(self.id, index).map_err(refused)? {
            records = self.record(Kind::Truncate, index, &[]);
            core.groups.truncate(self.id, index);
        }
        self.stage(&mut core, records, true, done);
        Ok(())
    }

    /// Drops all entries up to `index`, whose id for the caller is `log_id`. `index` may lie beyond
    /// the last entry: the next entry to append is then the one after `index`. If the log was
    /// already purged up to there, nothing changes, and `done` only waits for what was staged
    /// before.
    ///
    /// # Errors
    /// `InvalidInput` if `log_id` is longer than [`STATE_BYTES_MAX`] or `index` is `u64::MAX`, or
    /// the reason why the log accepts no more.
    pub fn purge(&self, index: u64, log_id: Bytes, done: Done) -> io::Result<()> {
        check_state_bytes(&log_id)?;
        let mut core = self.shared().lock();
        core.check_open()?;
        let mut records = Vec::new();
        if core.groups.check_purge(self.id, index).map_err(refused)? {
            records = self.record(Kind::Purge, index, &log_id);
            core.groups.purge(self.id, index, log_id);
        }
        self.stage(&mut core, records, true, done);
        Ok(())
    }

    /// Drops all data of the group, as if it had never existed.
    ///
    /// # Errors
    /// The reason why the log accepts no more.
    pub fn forget(&self, done: Done) -> io::Result<()> {
        let mut core = self.shared().lock();
        core.check_open()?;
        let mut records = Vec::new();
        if core.groups.contains(self.id) {
            records = self.record(Kind::Forget, 0, &[]);
            core.forget(self.id);
        }
        self.stage(&mut core, records, true, done);
        Ok(())
    }

    /// Returns the existing entries of a range, with their indexes. Reads those from disk that have
    /// left memory, and blocks meanwhile.
    ///
    /// # Errors
    /// `InvalidData` if an entry is damaged on disk, or any error of the disk.
    pub fn read(&self, range: impl RangeBounds<u64>) -> io::Result<Vec<(u64, Bytes)>> {
        let (start, end) = bounds(&range);
        self.read_limited(start, end, u64::MAX)
    }

    /// Returns the existing entries from `start` up to but without `end`, while the sum of their
    /// lengths does not exceed `bytes_max`; but at least one, if there is one.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub fn read_limited(
        &self,
        start: u64,
        end: u64,
        bytes_max: u64,
    ) -> io::Result<Vec<(u64, Bytes)>> {
        self.reading(start, end, bytes_max).entries()
    }

    /// Finds the entries that [`Self::read_limited`] would return, without reading them, and says
    /// whether that needs the disk: for callers that must not wait for it.
    pub fn reading(&self, start: u64, end: u64, bytes_max: u64) -> Reading {
        let core = self.shared().lock();
        let found = core.groups.find(self.id, start, end, bytes_max);
        let mut files = BTreeMap::new();
        for (_, place) in &found {
            if let Found::Stored(location) = place
                && let Some(segment) = core.segments.written.get(&location.segment)
            {
                files.entry(location.segment).or_insert_with(|| segment.file.clone());
            }
        }
        Reading { group: self.id, found, files }
    }

    /// Bytes of the segment files that could be purged, of all groups: all files but the one in use
    /// and the spare.
    pub fn bytes_held(&self) -> u64 {
        self.shared().lock().segments.bytes_held()
    }

    /// How long the current write, of any group, has been under way; zero if there is none.
    pub fn write_pending(&self) -> Duration {
        Duration::from_micros(self.shared().lock().timing.pending_us())
    }

    /// Returns the group's saved state, and which entries exist.
    pub fn state(&self) -> LogState {
        self.shared().lock().groups.state(self.id)
    }

    fn shared(&self) -> &WalInner {
        &self.handle.shared
    }

    fn record(&self, kind: Kind, index: u64, payload: &[u8]) -> Vec<u8> {
        let mut records = Vec::with_capacity(record_bytes(payload.len()));
        Record { group: self.id, kind, index, payload }.encode(&mut records);
        records
    }

    /// Encodes the records of an append. This is done without the lock, because it computes the
    /// checksums.
    fn encode(&self, entries: &[(u64, Bytes)]) -> io::Result<Vec<u8>> {
        let bytes: usize = entries.iter().map(|(_, payload)| record_bytes(payload.len())).sum();
        if bytes > APPEND_BYTES_MAX {
            return Err(invalid("too many bytes to append at once"));
        }
        let first = entries.first().map_or(0, |(index, _)| *index);
        let mut records = Vec::with_capacity(bytes);
        for (position, (index, payload)) in entries.iter().enumerate() {
            if first.checked_add(position as u64) != Some(*index) {
                return Err(invalid("the entries to append are not contiguous"));
            }
            Record { group: self.id, kind: Kind::Entry, index: *index, payload }
                .encode(&mut records);
        }
        Ok(records)
    }

    fn stage_append(
        &self,
        core: &mut Core,
        entries: Vec<(u64, Bytes)>,
        records: Vec<u8>,
        done: Done,
    ) -> io::Result<()> {
        if let Some((first, _)) = entries.first() {
            let count = entries.len() as u64;
            core.groups.check_append(self.id, *first, count).map_err(refused)?;
        }
        core.stage_append(self.id, entries, records, done);
        self.shared().wake_writer_locked(core);
        Ok(())
    }

    fn stage(&self, core: &mut Core, records: Vec<u8>, frees: bool, done: Done) {
        core.stage(Staged { records, appended: None, frees, done: Some(done) });
        self.shared().wake_writer_locked(core);
    }
}

/// Returns the first index of a range, and the one after the last.
pub fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

fn check_state_bytes(bytes: &Bytes) -> io::Result<()> {
    if bytes.len() > STATE_BYTES_MAX { Err(invalid("too long to save")) } else { Ok(()) }
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

fn refused(refused: Refused) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, refused)
}
