//! The part of the log that decides and does no IO: it collects staged records and plans the next
//! frame.
//!
//! Callers stage records under one lock: at that moment the state of their group changes and their
//! entries are readable. The writer then asks for a [`Plan`], carries it out without the lock, and
//! reports back with [`Core::written`]. A plan takes *everything* that is staged, in order, so the
//! state of the groups at that moment is the state after the frame, and the first frame of a
//! segment restates that state.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use dkv_base::id::GroupId;

use super::format::{
    Kind, Record, SEGMENT_HEADER_BYTES, SegmentHeader, frame_bytes, record_bytes, stored_length,
};
use super::groups::{Groups, Location};
use super::options::WalOptions;
use super::segments::Segments;
use super::timing::Timing;
use super::{Done, FatalHook};
use crate::disk::DiskFile;

/// The contribution of one call to the log.
#[derive(Default)]
pub(super) struct Staged {
    /// Encoded records; empty for a call that changes nothing and only waits its turn.
    pub(super) records: Vec<u8>,
    /// The entries among the records. If there are any, the records hold nothing else, one record
    /// each.
    pub(super) appended: Option<Appended>,
    /// Whether these records may free a segment.
    pub(super) frees: bool,
    pub(super) done: Option<Done>,
}

pub(super) struct Appended {
    pub(super) group: GroupId,
    pub(super) first: u64,
    pub(super) payload_bytes: Vec<u32>,
}

/// The writer's next task.
pub(super) enum Plan {
    /// Nothing is staged.
    Nothing,
    /// There is no segment for the next frame.
    NeedsSegment,
    /// There is nothing to write, but the turn of these callbacks has come.
    Call(Vec<Done>),
    Write(Frame),
    /// The log has ended; all callbacks receive this error.
    Stop(Vec<Done>, io::Error),
}

/// A frame to be written.
pub(super) struct Frame {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) segment: SegmentHeader,
    pub(super) offset: u64,
    pub(super) number: u64,
    pub(super) pieces: Vec<Vec<u8>>,
    pub(super) dones: Vec<Done>,
    entries: u64,
    last_serial: u64,
    /// Entries and votes that were given to the log up to this frame.
    promises: u64,
    is_seal: bool,
    release_below: Option<u64>,
}

pub(super) struct Core {
    pub(super) groups: Groups,
    pub(super) segments: Segments,
    pub(super) timing: Timing,
    options: WalOptions,
    staged: Vec<Staged>,
    staged_bytes: usize,
    /// Groups whose committed position rides on the next frame.
    committed: BTreeSet<GroupId>,
    next_frame: u64,
    /// Entries and votes that are on disk, including those that were dropped since.
    pub(super) durable_records: u64,
    written_serial: u64,
    entries_written: u64,
    /// Whether the last frame is a seal, or there is no frame.
    sealed: bool,
    pub(super) closing: bool,
    /// Whether the writer is done and will write nothing more.
    pub(super) stopped: bool,
    pub(super) dead: Option<String>,
    on_fatal: Option<FatalHook>,
    /// Whether the writer sleeps, and must be woken.
    pub(super) writer_sleeps: bool,
}

impl Core {
    pub(super) fn new(
        options: WalOptions,
        groups: Groups,
        mut segments: Segments,
        next_frame: u64,
        sealed: bool,
        on_fatal: FatalHook,
    ) -> Self {
        if let Some((&current, _)) = segments.written.last_key_value() {
            segments.release_below(groups.oldest_segment().unwrap_or(current));
        }
        segments.want_spare(options.segment_bytes);
        let durable_records = groups.promises;
        Self {
            groups,
            segments,
            timing: Timing::default(),
            options,
            staged: Vec::new(),
            staged_bytes: 0,
            committed: BTreeSet::new(),
            next_frame,
            durable_records,
            written_serial: 0,
            entries_written: 0,
            sealed,
            closing: false,
            stopped: false,
            dead: None,
            on_fatal: Some(on_fatal),
            writer_sleeps: false,
        }
    }

    /// Fails if no records may be staged any more.
    pub(super) fn check_open(&self) -> io::Result<()> {
        if let Some(reason) = &self.dead {
            return Err(dead_error(reason));
        }
        if self.closing { Err(closed_error()) } else { Ok(()) }
    }

    /// Whether there is room for another append.
    pub(super) fn has_room(&self) -> bool {
        self.staged_bytes < self.options.staged_bytes
    }

    pub(super) fn staged_bytes(&self) -> usize {
        self.staged_bytes
    }

    pub(super) fn entries_written(&self) -> u64 {
        self.entries_written
    }

    pub(super) fn stage(&mut self, staged: Staged) {
        self.staged_bytes += staged.records.len();
        if staged.frees {
            self.segments.something_frees();
        }
        self.staged.push(staged);
    }

    /// Stages the entries of one append, whose records are encoded already.
    pub(super) fn stage_append(
        &mut self,
        group: GroupId,
        entries: Vec<(u64, Bytes)>,
        records: Vec<u8>,
        done: Done,
    ) {
        let first = entries.first().map_or(0, |(index, _)| *index);
        let mut payload_bytes = Vec::with_capacity(entries.len());
        for (index, payload) in entries {
            let bytes = stored_length(payload.len() as u64);
            payload_bytes.push(bytes);
            self.groups.append(group, index, Location::staged(bytes), Some(payload));
        }
        let appended = Some(Appended { group, first, payload_bytes });
        self.stage(Staged { records, appended, frees: false, done: Some(done) });
    }

    /// Schedules the committed position of a group for the next frame.
    pub(super) fn stage_committed(&mut self, group: GroupId) {
        self.committed.insert(group);
    }

    pub(super) fn forget(&mut self, group: GroupId) {
        self.groups.forget(group);
        self.committed.remove(&group);
    }

    /// Whether the writer would find work that does not wait for the log to be idle.
    pub(super) fn has_work(&self) -> bool {
        !self.staged.is_empty() || self.closing || self.dead.is_some()
    }

    /// Whether a seal is due once the log is idle.
    pub(super) fn needs_seal(&self) -> bool {
        !self.sealed || !self.committed.is_empty()
    }

    /// Whether the writer should try again after a plan that needed a segment.
    pub(super) fn may_have_segment(&self) -> bool {
        self.segments.spare.is_some() || self.dead.is_some() || self.must_give_up()
    }

    /// Whether to give up: a log that is being closed does not wait for room.
    fn must_give_up(&self) -> bool {
        self.closing && self.segments.short_of_room
    }

    /// Returns the writer's next task. `idle` says that the log has been idle for long enough.
    pub(super) fn plan(&mut self, idle: bool) -> Plan {
        if let Some(reason) = &self.dead {
            let error = dead_error(reason);
            return self.stop(error);
        }
        if self.stopped {
            return self.stop(closed_error());
        }
        let is_seal = self.staged_bytes == 0;
        if is_seal && !self.staged.is_empty() {
            return Plan::Call(self.take_staged().filter_map(|staged| staged.done).collect());
        }
        if is_seal && !((idle || self.closing) && self.needs_seal()) {
            return if self.closing { self.stop(closed_error()) } else { Plan::Nothing };
        }

        let mut tail = self.encode_committed();
        if is_seal {
            let group = GroupId::CONTROL;
            Record { group, kind: Kind::Seal, index: 0, payload: &[] }.encode(&mut tail);
        }
        let mut body_bytes = (self.staged_bytes + tail.len()) as u64;
        if self.segments.fit(frame_bytes(body_bytes)).is_none() {
            self.encode_restated(&mut tail);
            body_bytes = (self.staged_bytes + tail.len()) as u64;
            let frees = self.staged.iter().any(|staged| staged.frees);
            let bytes = frame_bytes(body_bytes);
            if !self.segments.rotate(bytes, self.options.segment_bytes, frees) {
                if self.must_give_up() {
                    return self.stop(io::Error::from(io::ErrorKind::StorageFull));
                }
                return Plan::NeedsSegment;
            }
        }
        self.take_frame(tail, body_bytes, is_seal)
    }

    /// Turns everything that is staged into a frame. The caller has checked that there is room for
    /// it.
    fn take_frame(&mut self, tail: Vec<u8>, body_bytes: u64, is_seal: bool) -> Plan {
        let bytes = frame_bytes(body_bytes);
        let Some((segment, offset)) = self.segments.fit(bytes) else { return Plan::NeedsSegment };
        let (file, segment) = (segment.file.clone(), segment.header);
        self.committed.clear();

        let mut frame = Frame {
            file,
            segment,
            offset,
            number: self.next_frame,
            pieces: Vec::with_capacity(self.staged.len() + 1),
            dones: Vec::with_capacity(self.staged.len()),
            entries: 0,
            last_serial: self.groups.last_serial(),
            promises: self.groups.promises,
            is_seal,
            release_below: None,
        };
        let mut at = offset + super::format::FRAME_HEADER_BYTES as u64;
        // A segment whose entries went while it was in use can be released once it is not.
        let mut frees = offset == SEGMENT_HEADER_BYTES as u64;
        for staged in self.take_staged() {
            if let Some(appended) = &staged.appended {
                frame.entries += appended.payload_bytes.len() as u64;
                self.locate(appended, segment.sequence, at);
            }
            at += staged.records.len() as u64;
            frees |= staged.frees;
            frame.pieces.push(staged.records);
            frame.dones.extend(staged.done);
        }
        frame.pieces.push(tail);
        if frees {
            let oldest = self.groups.oldest_segment().unwrap_or(segment.sequence);
            frame.release_below = Some(oldest);
        }
        self.next_frame += 1;
        self.segments.place(bytes);
        Plan::Write(frame)
    }

    /// Records where the entries of an append lie, whose records begin at `at` in a segment.
    fn locate(&mut self, appended: &Appended, segment: u64, at: u64) {
        let mut at = at;
        for (index, &payload_bytes) in (appended.first..).zip(&appended.payload_bytes) {
            let offset = stored_length(at);
            self.groups.locate(appended.group, index, Location { segment, offset, payload_bytes });
            at += record_bytes(payload_bytes as usize) as u64;
        }
    }

    fn take_staged(&mut self) -> impl Iterator<Item = Staged> + use<> {
        self.staged_bytes = 0;
        std::mem::take(&mut self.staged).into_iter()
    }

    fn encode_committed(&self) -> Vec<u8> {
        let mut records = Vec::new();
        for &group in &self.committed {
            if let Some(payload) = self.groups.committed(group) {
                let kind = Kind::Committed;
                Record { group, kind, index: 0, payload: &payload }.encode(&mut records);
            }
        }
        records
    }

    fn encode_restated(&self, into: &mut Vec<u8>) {
        // Encoding plain values into memory does not fail; if it did, the next start would refuse
        // the empty payload rather than take it for a log without groups.
        let restated = (self.groups.promises, self.groups.restate());
        let payload = postcard::to_stdvec(&restated).unwrap_or_default();
        let group = GroupId::CONTROL;
        Record { group, kind: Kind::Restate, index: 0, payload: &payload }.encode(into);
    }

    /// Records that a frame was written and synced.
    pub(super) fn written(&mut self, frame: &Frame) {
        self.sealed = frame.is_seal;
        self.durable_records = frame.promises;
        self.written_serial = frame.last_serial;
        self.entries_written += frame.entries;
        self.groups.shrink_cache(self.options.cache_bytes, self.written_serial);
        if let Some(sequence) = frame.release_below {
            self.segments.release_below(sequence);
        }
        // Not earlier: the existence of the next segment proves that this one's first frame was
        // synced.
        self.segments.want_spare(self.options.segment_bytes);
    }

    /// Ends the log for good. Calls the hook with the reason before any caller can notice.
    pub(super) fn die(&mut self, reason: String) {
        if let Some(hook) = self.on_fatal.take() {
            hook(&reason);
        }
        self.dead.get_or_insert(reason);
    }

    fn stop(&mut self, error: io::Error) -> Plan {
        self.stopped = true;
        Plan::Stop(self.take_staged().filter_map(|staged| staged.done).collect(), error)
    }
}

fn dead_error(reason: &str) -> io::Error {
    io::Error::other(format!("the write-ahead log stopped for good: {reason}"))
}

fn closed_error() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the write-ahead log is closed")
}
