//! Reads a log back from its segments, and distinguishes a torn tail from damage.
//!
//! One write is under way at a time, and the next begins only after the one before it was synced.
//! So the header of a later frame, wherever it lies, proves that all frames before it had been on
//! the disk; and the next segment is prepared only after the first frame of this one was synced, so
//! its existence proves that too. An unsound frame with no such proof behind it is the write that
//! was under way at a crash, which was never acknowledged: replay drops it, and overwrites its
//! header with zeros before it writes anything else. An unsound frame with proof behind it was
//! acknowledged, and is now lost: the log refuses to open. The same goes for files that are
//! missing, shorter than they were made or not segments, and for groups whose entries have holes.
//!
//! The last sound frame may exist only in the operating system's cache, left by a process that died
//! between write and sync, or whose sync failed. Replay therefore writes it once more, and syncs
//! it.
//!
//! After the end of the log a segment has zeros, or the earlier content of its file as another
//! segment: frames of another salt.
//!
//! Two things cannot be detected: damage of the very last frame looks like a torn tail, and
//! anything written over the end of the log looks like an end. A seal after an idle moment makes
//! the last frame an empty one.
//!
//! Lengths are checked against the file before anything is allocated or read.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use dkv_base::id::GroupId;

use super::error::WalError;
use super::format::{
    FRAME_HEADER_BYTES, FrameHeader, Kind, Record, Restated, SEGMENT_HEADER_BYTES, SegmentHeader,
    checksum, frame_bytes, is_unfinished_name, record_bytes, segment_name, sequence_of_name,
};
use super::groups::{Groups, Location, Refused};
use super::options::SEGMENT_BYTES_MAX;
use super::segments::{Segment, Segments};
use crate::disk::{Disk, SECTOR_BYTES};

const SECTOR: u64 = SECTOR_BYTES as u64;
/// Bytes read at once when looking for frames or zeros; a multiple of a sector.
const SCAN_BYTES: usize = 1024 * 1024;
/// Upper bound of a segment's size, whatever its header says: one append beyond the largest stage.
const FILE_BYTES_MAX: u64 = SEGMENT_BYTES_MAX + u32::MAX as u64;

/// Content of the files.
#[derive(Default)]
pub(super) struct Replayed {
    pub(super) groups: Groups,
    pub(super) segments: Segments,
    pub(super) next_frame: u64,
    /// Whether the last frame is a seal, or there is no frame.
    pub(super) sealed: bool,
}

/// A frame that was found sound.
struct SoundFrame {
    number: u64,
    body: Vec<u8>,
}

/// Position of the walk through the segments.
struct Walk {
    replayed: Replayed,
    /// The last sound frame: its segment, and its position there.
    last: Option<(u64, u64)>,
    /// Number of the next frame, once one was seen.
    expected: Option<u64>,
}

/// Reads the log in `disk`, repairs a torn tail, and removes the remains of unfinished segments.
pub(super) fn replay(disk: &dyn Disk) -> Result<Replayed, WalError> {
    let segments = open_segments(disk)?;
    let mut walk = Walk {
        replayed: Replayed { next_frame: 1, sealed: true, ..Replayed::default() },
        last: None,
        expected: None,
    };
    let mut end = None;
    for (position, segment) in segments.iter().enumerate() {
        let stopped_at = walk.segment(segment)?;
        if stopped_at > SEGMENT_HEADER_BYTES as u64 {
            walk.replayed.segments.written.insert(segment.header.sequence, segment.clone());
            walk.replayed.segments.offset = stopped_at;
        }
        if !walk.continues_after(&segments[position..], stopped_at)? {
            end = Some((position, stopped_at));
            break;
        }
    }
    let Some((position, stopped_at)) = end else { return Ok(walk.replayed) };
    walk.finish(&segments[position..], stopped_at)
}

/// Opens all segments, which must follow each other without a gap.
fn open_segments(disk: &dyn Disk) -> Result<Vec<Segment>, WalError> {
    let mut sequences = BTreeSet::new();
    for name in disk.list().map_err(WalError::disk("list the directory"))? {
        if is_unfinished_name(&name) {
            disk.remove(&name).map_err(WalError::disk(format!("remove {name}")))?;
        } else {
            sequences.extend(sequence_of_name(&name));
        }
    }
    let mut segments = Vec::new();
    let mut expected = None;
    for sequence in sequences {
        if let Some(expected) = expected
            && sequence != expected
        {
            return Err(damaged(expected, 0, "the file is missing"));
        }
        expected = sequence.checked_add(1);
        segments.push(open_segment(disk, sequence)?);
    }
    Ok(segments)
}

fn open_segment(disk: &dyn Disk, sequence: u64) -> Result<Segment, WalError> {
    let name = segment_name(sequence);
    let failed = |action: &str| WalError::disk(format!("{action} {name}"));
    let file = disk.open(&name).map_err(failed("open"))?;
    let bytes = file.bytes().map_err(failed("measure"))?;
    if bytes < SEGMENT_HEADER_BYTES as u64 {
        return Err(damaged(sequence, bytes, "the file ends within its header"));
    }
    let mut header = [0; SEGMENT_HEADER_BYTES];
    file.read_at(&mut header, 0).map_err(failed("read"))?;
    let header = SegmentHeader::decode(&header)
        .map_err(|error| damaged(sequence, 0, format!("the file {error}")))?;
    if header.sequence != sequence {
        let reason = format!("the file says that it is segment {}", header.sequence);
        return Err(damaged(sequence, 0, reason));
    }
    if header.bytes != bytes || bytes > FILE_BYTES_MAX {
        let reason = format!("the file has {bytes} bytes and was made with {}", header.bytes);
        return Err(damaged(sequence, bytes.min(header.bytes), reason));
    }
    Ok(Segment { header, file })
}

impl Walk {
    /// Applies the frames of a segment, up to the first that is not sound. Returns the position of
    /// that one.
    fn segment(&mut self, segment: &Segment) -> Result<u64, WalError> {
        let mut offset = SEGMENT_HEADER_BYTES as u64;
        while let Some(frame) = read_frame(segment, offset)? {
            let sequence = segment.header.sequence;
            if let Some(expected) = self.expected
                && frame.number != expected
            {
                let reason = format!("frame {expected} should be here, not {}", frame.number);
                return Err(damaged(sequence, offset, reason));
            }
            let opens_segment = offset == SEGMENT_HEADER_BYTES as u64;
            self.frame(sequence, offset, opens_segment, &frame.body)
                .map_err(|reason| damaged(sequence, offset, reason))?;
            self.last = Some((sequence, offset));
            self.expected = Some(frame.number + 1);
            self.replayed.next_frame = frame.number + 1;
            offset += frame_bytes(frame.body.len() as u64);
        }
        Ok(offset)
    }

    /// Applies a frame at `offset` of the segment `sequence`.
    fn frame(
        &mut self,
        sequence: u64,
        offset: u64,
        opens_segment: bool,
        body: &[u8],
    ) -> Result<(), String> {
        let records = split_records(body).ok_or("a record is malformed")?;
        let body_at = offset + FRAME_HEADER_BYTES as u64;
        let location = |at: usize, record: &Record<'_>| Location {
            segment: sequence,
            offset: (body_at + at as u64) as u32,
            payload_bytes: record.payload.len() as u32,
        };
        let restated = records.iter().find(|(_, record)| record.kind == Kind::Restate);
        if opens_segment != restated.is_some() {
            return Err("the first frame of a segment restates the groups, and no other".into());
        }
        // The oldest segment restates the state after its first frame; the records in that frame do
        // not apply to anything that is still known. Later segments only confirm the state.
        if let (Some((_, record)), None) = (restated, self.last) {
            let entries = records.iter().filter(|(_, record)| record.kind == Kind::Entry);
            let known: BTreeMap<(GroupId, u64), Location> = entries
                .map(|(at, record)| ((record.group, record.index), location(*at, record)))
                .collect();
            let (promises, states) = decode_restated(record)?;
            self.replayed.groups = Groups::from_restated(promises, states, known)
                .ok_or("the restated range of a group is impossible")?;
        } else {
            for (at, record) in &records {
                self.record(record, location(*at, record))?;
            }
        }
        self.replayed.sealed = records.iter().any(|(_, record)| record.kind == Kind::Seal);
        Ok(())
    }

    fn record(&mut self, record: &Record<'_>, location: Location) -> Result<(), String> {
        let groups = &mut self.replayed.groups;
        let (id, index) = (record.group, record.index);
        let payload = || Bytes::copy_from_slice(record.payload);
        let text = |refused: Refused| refused.to_string();
        match record.kind {
            Kind::Entry => {
                groups.check_append(id, index, 1).map_err(text)?;
                groups.append(id, index, location, None);
            }
            Kind::Vote => groups.set_vote(id, payload()),
            Kind::Committed => groups.set_committed(id, payload()),
            Kind::Truncate => {
                groups.check_truncate(id, index).map_err(text)?;
                groups.truncate(id, index);
            }
            Kind::Purge => {
                groups.check_purge(id, index).map_err(text)?;
                groups.purge(id, index, payload());
            }
            Kind::Forget => groups.forget(id),
            Kind::Seal => {}
            Kind::Restate => {
                if decode_restated(record)?.1 != groups.restate() {
                    return Err("the restated groups are not what the frames before it say".into());
                }
            }
        }
        Ok(())
    }

    /// Checks what follows the unsound place at `offset` of the first of `rest`: whether the log
    /// goes on at the start of the next segment, or nowhere. Anything else is damage.
    fn continues_after(&self, rest: &[Segment], offset: u64) -> Result<bool, WalError> {
        let here = &rest[0];
        let sequence = here.header.sequence;
        let start = SEGMENT_HEADER_BYTES as u64;
        let lost = |sequence: u64, offset: u64, proof: &Segment, at: u64| {
            let proof = segment_name(proof.header.sequence);
            let reason = format!("a frame is lost: a later one is in {proof} at byte {at}");
            Err(damaged(sequence, offset, reason))
        };
        // A torn frame may have its header on the disk; that header proves nothing, others do.
        let mut behind = offset;
        if let Some((at, header)) = find_header(here, offset)?
            && at == offset
            && self.expected.is_none_or(|expected| header.number == expected)
        {
            behind += SECTOR;
        }
        if let Some((at, _)) = find_header(here, behind)? {
            return lost(sequence, offset, here, at);
        }
        for next in &rest[1..] {
            let Some((at, header)) = find_header(next, start)? else { continue };
            let at_start = next.header.sequence == sequence + 1 && at == start;
            let number_missing = self.expected.is_none_or(|expected| header.number > expected);
            if at_start && offset > start && self.expected == Some(header.number) {
                return Ok(true);
            }
            // The lost frame was either here or at the start of the next segment, or there were
            // several.
            let second = self.expected.and_then(|expected| expected.checked_add(1));
            let lost_one = second == Some(header.number);
            let was_here = match at_start {
                true => number_missing || !is_zero(here, offset)?,
                false => !lost_one && !is_zero(here, offset)?,
            };
            let (lost_in, lost_at) =
                if was_here { (sequence, offset) } else { (sequence + 1, start) };
            return lost(lost_in, lost_at, next, at);
        }
        Ok(false)
    }

    /// Ends the log at `offset` of the first of `rest`; nothing after it is a frame.
    fn finish(mut self, rest: &[Segment], offset: u64) -> Result<Replayed, WalError> {
        let here = &rest[0];
        let sequence = here.header.sequence;
        let empty = offset == SEGMENT_HEADER_BYTES as u64;
        if empty && self.last.is_none() && sequence != 1 {
            return Err(damaged(sequence, offset, "the first frame of the log is gone"));
        }
        let spares = if empty { rest } else { &rest[1..] };
        if let Some(unexpected) = spares.get(1) {
            let proof = segment_name(unexpected.header.sequence);
            let reason = format!("the first frame is gone: {proof} was made after it");
            return Err(damaged(spares[0].header.sequence, SEGMENT_HEADER_BYTES as u64, reason));
        }
        if let Some((group, first, last)) = self.replayed.groups.missing() {
            let oldest = self.replayed.segments.written.keys().next().copied().unwrap_or(1);
            let reason = format!("entries {first} to {last} of group {group} are in no segment");
            return Err(damaged(oldest, 0, reason));
        }
        self.make_durable()?;
        if let Some(spare) = spares.first() {
            clear(spare, SEGMENT_HEADER_BYTES as u64)?;
            self.replayed.segments.spare = Some(spare.clone());
        }
        Ok(self.replayed)
    }

    /// Writes and syncs the last frame once more, and zeros after it.
    fn make_durable(&self) -> Result<(), WalError> {
        let segments = &self.replayed.segments;
        let (Some((sequence, offset)), Some((_, segment))) =
            (self.last, segments.written.last_key_value())
        else {
            return Ok(());
        };
        let failed = |action: &str| WalError::disk(format!("{action} {}", segment_name(sequence)));
        let mut frame = vec![0; (segments.offset - offset) as usize];
        segment.file.read_at(&mut frame, offset).map_err(failed("read"))?;
        segment.file.write_at(&frame, offset).map_err(failed("write"))?;
        segment.file.sync_data().map_err(failed("sync"))?;
        clear(segment, segments.offset)
    }
}

/// Returns the frame at `offset`, if there is a sound one.
fn read_frame(segment: &Segment, offset: u64) -> Result<Option<SoundFrame>, WalError> {
    let body_at = offset + FRAME_HEADER_BYTES as u64;
    if body_at > segment.header.bytes {
        return Ok(None);
    }
    let mut header = [0; FRAME_HEADER_BYTES];
    read(segment, &mut header, offset)?;
    let Some(header) = FrameHeader::decode(&header, &segment.header) else { return Ok(None) };
    if body_at + u64::from(header.body_bytes) > segment.header.bytes || header.number == u64::MAX {
        return Ok(None);
    }
    let mut body = vec![0; header.body_bytes as usize];
    read(segment, &mut body, body_at)?;
    let sound = checksum(&[&body]) == header.body_crc;
    Ok(sound.then_some(SoundFrame { number: header.number, body }))
}

/// Returns the records of a body with their positions in it, if all of it is records.
fn split_records(body: &[u8]) -> Option<Vec<(usize, Record<'_>)>> {
    let mut records = Vec::new();
    let mut at = 0;
    while at < body.len() {
        let record = Record::decode(&body[at..])?;
        records.push((at, record));
        at += record_bytes(record.payload.len());
    }
    Some(records)
}

fn decode_restated(record: &Record<'_>) -> Result<(u64, Vec<Restated>), String> {
    postcard::from_bytes(record.payload).map_err(|error| format!("cannot read the groups: {error}"))
}

/// Returns the first frame header in a segment from `from` on, whether its body is sound or not.
fn find_header(segment: &Segment, from: u64) -> Result<Option<(u64, FrameHeader)>, WalError> {
    scan(segment, from, |at, piece| {
        let mut sectors = piece.chunks(SECTOR_BYTES).zip((at..).step_by(SECTOR_BYTES));
        sectors.find_map(|(sector, at)| {
            FrameHeader::decode(sector, &segment.header).map(|header| (at, header))
        })
    })
}

/// Whether the sector at `offset` is all zeros, or does not exist.
fn is_zero(segment: &Segment, offset: u64) -> Result<bool, WalError> {
    let nothing = |sector: &[u8]| sector.iter().all(|byte| *byte == 0);
    let first = |_, piece: &[u8]| Some(nothing(&piece[..SECTOR_BYTES.min(piece.len())]));
    Ok(scan(segment, offset, first)?.unwrap_or(true))
}

/// Durably overwrites with zeros the header that a torn write left after `from`.
fn clear(segment: &Segment, from: u64) -> Result<(), WalError> {
    let failed = |action: &str| {
        WalError::disk(format!("{action} {}", segment_name(segment.header.sequence)))
    };
    let mut cleared = false;
    while let Some((at, _)) = find_header(segment, from)? {
        segment.file.write_at(&[0; SECTOR_BYTES], at).map_err(failed("clear"))?;
        cleared = true;
    }
    if cleared { segment.file.sync_data().map_err(failed("sync")) } else { Ok(()) }
}

/// Passes a segment from `from` on to `look`, piece by piece, until it returns a result.
fn scan<T>(
    segment: &Segment,
    from: u64,
    mut look: impl FnMut(u64, &[u8]) -> Option<T>,
) -> Result<Option<T>, WalError> {
    let mut at = from.next_multiple_of(SECTOR);
    let mut buffer = vec![0; SCAN_BYTES];
    while at < segment.header.bytes {
        let piece = buffer.len().min((segment.header.bytes - at) as usize);
        read(segment, &mut buffer[..piece], at)?;
        let answer = look(at, &buffer[..piece]);
        if answer.is_some() {
            return Ok(answer);
        }
        at += piece as u64;
    }
    Ok(None)
}

fn read(segment: &Segment, buffer: &mut [u8], offset: u64) -> Result<(), WalError> {
    let name = segment_name(segment.header.sequence);
    segment.file.read_at(buffer, offset).map_err(WalError::disk(format!("read {name}")))
}

fn damaged(sequence: u64, offset: u64, reason: impl Into<String>) -> WalError {
    WalError::Damaged { file: segment_name(sequence), offset, reason: reason.into() }
}
