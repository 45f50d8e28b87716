//! The table of segment files: which exist, where the next frame goes, which one is spare, which
//! one is wanted and which may be deleted.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::format::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::disk::DiskFile;

#[derive(Clone)]
pub(super) struct Segment {
    pub(super) header: SegmentHeader,
    pub(super) file: Arc<dyn DiskFile>,
}

/// The segment manager's next task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Job {
    Delete { sequence: u64 },
    Prepare(Wanted),
}

/// A segment that is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) sequence: u64,
    pub(super) bytes: u64,
    pub(super) may_use_reserve: bool,
    /// Whether to write zeros; if not, it is enough to reserve room.
    pub(super) zeroed: bool,
}

/// Usual length of frames from which on segments are not filled with zeros beforehand: with frames
/// this long, that would cost more than it saves.
const ALLOCATED_FROM_BYTES: u64 = if cfg!(test) { 800 } else { 64 * 1024 };

#[derive(Default)]
pub(super) struct Segments {
    /// The segments that contain frames, by sequence number. The last one is in use.
    pub(super) written: BTreeMap<u64, Segment>,
    /// Where the next frame goes in the last segment, in bytes.
    pub(super) offset: u64,
    /// The segment after the last, prepared ahead of time.
    pub(super) spare: Option<Segment>,
    /// Size of the wanted spare, if one is wanted.
    wanted_bytes: Option<u64>,
    /// Segments before this one contain nothing that is needed.
    delete_below: u64,
    /// Whether the last attempt to prepare a segment found no room.
    pub(super) short_of_room: bool,
    /// Whether the writer cannot go on without a segment.
    waiting: bool,
    /// Whether the staged records would free segments, so the reserve may be used for them.
    urgent: bool,
    /// The usual length of frames, in bytes.
    frame_bytes: u64,
}

impl Segments {
    /// Returns the sequence number of the segment after those in use.
    pub(super) fn next_sequence(&self) -> u64 {
        self.written.last_key_value().map_or(1, |(last, _)| last + 1)
    }

    /// Returns the segment in use and the position of the next frame, if a frame of `bytes` fits
    /// there.
    pub(super) fn fit(&self, bytes: u64) -> Option<(&Segment, u64)> {
        let (_, segment) = self.written.last_key_value()?;
        (self.offset + bytes <= segment.header.bytes).then_some((segment, self.offset))
    }

    /// Begins to use the spare, if there is one with room for a frame of `bytes`; otherwise asks
    /// for one that has. `bytes_default` is the size of a segment in which the frame fits easily.
    pub(super) fn rotate(&mut self, bytes: u64, bytes_default: u64, urgent: bool) -> bool {
        let needed = SEGMENT_HEADER_BYTES as u64 + bytes;
        match self.spare.take_if(|spare| spare.header.bytes >= needed) {
            Some(spare) => {
                self.written.insert(spare.header.sequence, spare);
                self.offset = SEGMENT_HEADER_BYTES as u64;
                self.waiting = false;
                self.urgent = false;
                true
            }
            None => {
                // A spare that is too small is replaced: it contains nothing.
                self.spare = None;
                self.wanted_bytes = Some(needed.max(bytes_default));
                self.waiting = true;
                self.urgent |= urgent;
                false
            }
        }
    }

    /// Advances the position past the next frame, of `bytes`.
    pub(super) fn place(&mut self, bytes: u64) {
        self.offset += bytes;
        self.frame_bytes = (self.frame_bytes * 7 + bytes) / 8;
    }

    /// Asks for a spare ahead of time.
    pub(super) fn want_spare(&mut self, bytes: u64) {
        if self.spare.is_none() && self.wanted_bytes.is_none() {
            self.wanted_bytes = Some(bytes);
        }
    }

    /// Allows the use of the reserve if the writer waits.
    pub(super) fn something_frees(&mut self) {
        self.urgent |= self.waiting;
    }

    /// Declares that all segments before `sequence` may be deleted.
    pub(super) fn release_below(&mut self, sequence: u64) {
        self.delete_below = self.delete_below.max(sequence);
    }

    /// Returns the next background task. Deletions come first: they make room.
    pub(super) fn job(&self) -> Option<Job> {
        if let Some((&sequence, _)) = self.written.first_key_value()
            && sequence < self.delete_below
            && self.written.len() > 1
        {
            return Some(Job::Delete { sequence });
        }
        let bytes = self.wanted_bytes?;
        let sequence = self.next_sequence();
        let zeroed = self.frame_bytes < ALLOCATED_FROM_BYTES;
        Some(Job::Prepare(Wanted { sequence, bytes, may_use_reserve: self.urgent, zeroed }))
    }

    /// Records that the segment manager has prepared a segment.
    pub(super) fn prepared(&mut self, segment: Segment) {
        self.short_of_room = false;
        if segment.header.sequence == self.next_sequence() {
            if self.wanted_bytes.is_some_and(|wanted| wanted <= segment.header.bytes) {
                self.wanted_bytes = None;
            }
            self.spare = Some(segment);
        }
    }

    /// Returns the segment, if no reader uses its file: new readers cannot find it any more once it
    /// may be deleted.
    pub(super) fn unread(&self, sequence: u64) -> Option<Segment> {
        let segment = self.written.get(&sequence)?;
        (Arc::strong_count(&segment.file) == 1).then(|| segment.clone())
    }

    pub(super) fn deleted(&mut self, sequence: u64) {
        self.written.remove(&sequence);
    }

    /// Whether nothing can be written until there is room.
    pub(super) fn waiting_for_room(&self) -> bool {
        self.waiting && self.short_of_room
    }

    pub(super) fn count(&self) -> usize {
        self.written.len() + usize::from(self.spare.is_some())
    }

    /// Bytes of all segments before the one in use.
    pub(super) fn bytes_held(&self) -> u64 {
        self.written.values().rev().skip(1).map(|segment| segment.header.bytes).sum()
    }

    pub(super) fn bytes_on_disk(&self) -> u64 {
        self.written.values().chain(&self.spare).map(|segment| segment.header.bytes).sum()
    }
}
