//! The byte format of a segment file, without any files or state.
//!
//! A segment is a header in the first sector, then frames, then zeros. A **frame** is the unit of
//! one write and one sync: a header, and a body of records. Each frame begins a sector of its own,
//! so that a torn write never touches a sector that holds acknowledged data. All numbers are
//! little-endian.
//!
//! ```text
//! segment  magic u64 | version u32 | crc u32 | sequence u64 | bytes u64 | salt u64 | zeros to 512
//! frame    magic u32 | header crc u32 | salt u64 | sequence u64 | number u64
//!          | body bytes u32 | body crc u32 | body | zeros to a multiple of 512
//! record   crc u32 | payload bytes u32 | group u32 | kind u32 | index u64 | payload
//! ```
//!
//! The salt is drawn at random for each segment and is part of each frame header: a client that
//! stores the image of a frame as a value does not know it, so its value is never taken for a
//! frame. A later read of a single entry checks the checksum of its record.

use dkv_base::id::GroupId;
use serde::{Deserialize, Serialize};

use crate::disk::SECTOR_BYTES;

pub(super) const SEGMENT_HEADER_BYTES: usize = SECTOR_BYTES;
pub(super) const FRAME_HEADER_BYTES: usize = 40;
pub(super) const RECORD_HEADER_BYTES: usize = 24;

const SEGMENT_MAGIC: u64 = u64::from_le_bytes(*b"dkv wal\n");
const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"frm\n");
const VERSION: u32 = 1;

/// Content of the first sector of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) sequence: u64,
    /// Length of the whole file.
    pub(super) bytes: u64,
    pub(super) salt: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadSegmentHeader {
    #[error("is not a segment of a write-ahead log")]
    Magic,
    #[error("has format version {0}, which this program does not know")]
    Version(u32),
    #[error("has a header whose checksum does not match")]
    Checksum,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&SEGMENT_MAGIC.to_le_bytes());
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.bytes.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.salt.to_le_bytes());
        let crc = checksum(&[&bytes[0..12], &bytes[16..40]]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Result<Self, BadSegmentHeader> {
        if u64_at(bytes, 0) != SEGMENT_MAGIC {
            return Err(BadSegmentHeader::Magic);
        }
        if u32_at(bytes, 12) != checksum(&[&bytes[0..12], &bytes[16..40]]) {
            return Err(BadSegmentHeader::Checksum);
        }
        if u32_at(bytes, 8) != VERSION {
            return Err(BadSegmentHeader::Version(u32_at(bytes, 8)));
        }
        Ok(Self { sequence: u64_at(bytes, 16), bytes: u64_at(bytes, 24), salt: u64_at(bytes, 32) })
    }
}

/// Header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) salt: u64,
    pub(super) sequence: u64,
    /// Position among all frames of the log, without gaps.
    pub(super) number: u64,
    pub(super) body_bytes: u32,
    pub(super) body_crc: u32,
}

impl FrameHeader {
    pub(super) fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        bytes[0..4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.salt.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.number.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = checksum(&[&bytes[0..4], &bytes[8..]]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Decodes the header at the start of `bytes`, if there is one that belongs to this segment.
    pub(super) fn decode(bytes: &[u8], segment: &SegmentHeader) -> Option<Self> {
        let bytes = bytes.get(..FRAME_HEADER_BYTES)?;
        if u32_at(bytes, 0) != FRAME_MAGIC
            || u32_at(bytes, 4) != checksum(&[&bytes[0..4], &bytes[8..]])
        {
            return None;
        }
        let header = Self {
            salt: u64_at(bytes, 8),
            sequence: u64_at(bytes, 16),
            number: u64_at(bytes, 24),
            body_bytes: u32_at(bytes, 32),
            body_crc: u32_at(bytes, 36),
        };
        (header.salt == segment.salt && header.sequence == segment.sequence).then_some(header)
    }
}

/// Returns a length or an offset in a segment as it is stored, in 32 bits: the bounds in
/// `options.rs` keep all of them below 4 GiB.
pub(super) fn stored_length(bytes: u64) -> u32 {
    u32::try_from(bytes).expect("segments, frames and appends are shorter than 4 GiB")
}

/// Bytes that a frame with a body of `body_bytes` takes in its segment.
pub(super) fn frame_bytes(body_bytes: u64) -> u64 {
    (FRAME_HEADER_BYTES as u64 + body_bytes).next_multiple_of(SECTOR_BYTES as u64)
}

/// Kind of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    /// An entry of the log at `index`; the payload is the caller's.
    Entry = 1,
    /// The vote; the payload is the caller's.
    Vote = 2,
    /// The committed position; the payload is the caller's.
    Committed = 3,
    /// All entries from `index` on are void.
    Truncate = 4,
    /// All entries up to `index` are gone; the payload is the caller's id of the last of them.
    Purge = 5,
    /// All data of the group is void.
    Forget = 6,
    /// No data: the frame only proves that the one before it was synced.
    Seal = 7,
    /// The state of all groups after this frame: the number of entries and votes so far, and a list
    /// of [`Restated`].
    Restate = 8,
}

impl Kind {
    fn from_number(number: u32) -> Option<Self> {
        let all = [
            Self::Entry,
            Self::Vote,
            Self::Committed,
            Self::Truncate,
            Self::Purge,
            Self::Forget,
            Self::Seal,
            Self::Restate,
        ];
        all.into_iter().find(|kind| *kind as u32 == number)
    }
}

/// One group's state in the first frame of a segment, which makes older segments unnecessary for
/// everything but entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Restated {
    pub(super) group: GroupId,
    pub(super) vote: Option<Vec<u8>>,
    pub(super) committed: Option<Vec<u8>>,
    pub(super) purged: Option<(u64, Vec<u8>)>,
    /// The first index of the group and the one after its last; equal if it has no entries.
    pub(super) range: Option<(u64, u64)>,
}

/// One record of a frame's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) group: GroupId,
    pub(super) kind: Kind,
    pub(super) index: u64,
    pub(super) payload: &'a [u8],
}

/// Bytes that a record with a payload of `payload_bytes` takes.
pub(super) fn record_bytes(payload_bytes: usize) -> usize {
    RECORD_HEADER_BYTES + payload_bytes
}

impl<'a> Record<'a> {
    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        let mut header = [0; RECORD_HEADER_BYTES];
        // Callers bound payloads far below this; see `options.rs`.
        let payload_bytes = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        header[4..8].copy_from_slice(&payload_bytes.to_le_bytes());
        header[8..12].copy_from_slice(&self.group.0.to_le_bytes());
        header[12..16].copy_from_slice(&(self.kind as u32).to_le_bytes());
        header[16..24].copy_from_slice(&self.index.to_le_bytes());
        let crc = checksum(&[&header[4..], self.payload]);
        header[0..4].copy_from_slice(&crc.to_le_bytes());
        into.extend_from_slice(&header);
        into.extend_from_slice(self.payload);
    }

    /// Decodes the record at the start of `bytes`; `None` if there is no whole and sound one.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let header = bytes.get(..RECORD_HEADER_BYTES)?;
        let payload_bytes = usize::try_from(u32_at(header, 4)).ok()?;
        let payload = bytes[RECORD_HEADER_BYTES..].get(..payload_bytes)?;
        if u32_at(header, 0) != checksum(&[&header[4..], payload]) {
            return None;
        }
        Some(Self {
            group: GroupId(u32_at(header, 8)),
            kind: Kind::from_number(u32_at(header, 12))?,
            index: u64_at(header, 16),
            payload,
        })
    }
}

/// Computes the checksum of several pieces as if they were one.
pub(super) fn checksum(pieces: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for piece in pieces {
        hasher.update(piece);
    }
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

/// Returns the name of the segment with a sequence number.
pub(super) fn segment_name(sequence: u64) -> String {
    format!("{sequence:016x}.wal")
}

/// Returns the name of a segment that is still being prepared.
pub(super) fn unfinished_name(sequence: u64) -> String {
    format!("{sequence:016x}.tmp")
}

/// Returns whether a file of this name is one of a log that has begun.
pub fn is_segment_name(name: &str) -> bool {
    sequence_of_name(name).is_some()
}

/// Returns the sequence number of a segment, if `name` is the name of one.
pub(super) fn sequence_of_name(name: &str) -> Option<u64> {
    let sequence = u64::from_str_radix(name.strip_suffix(".wal")?, 16).ok()?;
    (name == segment_name(sequence)).then_some(sequence)
}

/// Whether `name` is the name of a segment that was never finished.
pub(super) fn is_unfinished_name(name: &str) -> bool {
    let digits = name.strip_suffix(".tmp").unwrap_or("");
    digits.len() == 16 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}
