//! Options and statistics of a log, and the fixed bounds of the options.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::GroupId;

use super::error::WalError;
use super::format::{FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use crate::disk::SECTOR_BYTES;

/// Longest vote, committed position or id of a purged entry, in bytes.
pub const STATE_BYTES_MAX: usize = 64 * 1024;
/// Most bytes that the entries of one append may have together.
pub const APPEND_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Largest segment size that may be chosen, in bytes.
pub const SEGMENT_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Largest value of [`WalOptions::staged_bytes`].
pub const STAGED_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Interval at which a log that found no room for a segment tries again.
pub const ROOM_RETRY: Duration = Duration::from_millis(200);

// Positions in a segment are stored in 32 bits: a frame is at most the staged bytes, one append
// beyond their bound, and small records.
const _: () = assert!(STAGED_BYTES_MAX + 4 * APPEND_BYTES_MAX <= u32::MAX as usize);
const _: () = assert!(SEGMENT_BYTES_MAX <= u32::MAX as u64);
const _: () = assert!(SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES < 2 * SECTOR_BYTES);

/// Options with which a log is opened.
#[derive(Debug, Clone)]
pub struct WalOptions {
    /// Size of a segment file, in bytes; a multiple of [`SECTOR_BYTES`] from 2 KiB to 1 GiB. Takes
    /// effect for segments that are created from now on.
    pub segment_bytes: u64,
    /// Bytes of written entries that stay in memory, for all groups together.
    pub cache_bytes: usize,
    /// Bytes that may wait to be written before appends are refused (or wait), for all groups
    /// together. One append may go beyond the bound.
    pub staged_bytes: usize,
    /// Bytes of free disk space that the log leaves to others: it takes no new segment if less
    /// would remain. Purging the log needs a checkpoint, and a checkpoint needs room.
    pub reserve_bytes: u64,
    /// Time for which the log must be idle before its last frame is sealed.
    pub idle_seal: Duration,
    /// Whether a directory without segments is an error rather than a new log.
    pub must_exist: bool,
    /// Seed of the salts of new segments. Fixed in a simulation, random otherwise.
    pub salt_seed: u64,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 * 1024 * 1024,
            cache_bytes: 64 * 1024 * 1024,
            staged_bytes: 16 * 1024 * 1024,
            reserve_bytes: 128 * 1024 * 1024,
            idle_seal: Duration::from_millis(50),
            must_exist: false,
            salt_seed: RandomState::new().hash_one("salt"),
        }
    }
}

impl WalOptions {
    pub(super) fn check(&self) -> Result<(), WalError> {
        let sector = SECTOR_BYTES as u64;
        if self.segment_bytes < 4 * sector
            || self.segment_bytes > SEGMENT_BYTES_MAX
            || !self.segment_bytes.is_multiple_of(sector)
        {
            return Err(WalError::Options("segment_bytes"));
        }
        if self.staged_bytes == 0 || self.staged_bytes > STAGED_BYTES_MAX {
            return Err(WalError::Options("staged_bytes"));
        }
        Ok(())
    }
}

/// State of a group's log besides its entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogState {
    /// The vote that was saved last.
    pub vote: Option<Bytes>,
    /// The committed position that was saved last; after a crash it may be an older one.
    pub committed: Option<Bytes>,
    /// The last index that was purged, and the id that the caller gave it.
    pub purged: Option<(u64, Bytes)>,
    /// The index of the oldest entry, if there are entries.
    pub first_index: Option<u64>,
    /// The index of the newest entry, if there are entries.
    pub last_index: Option<u64>,
    /// The index that the next entry must have; `None` if it may have any, because nothing was ever
    /// appended or purged.
    pub next_index: Option<u64>,
}

/// Statistics of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WalStats {
    /// Bytes of all segment files, the spare one included.
    pub bytes_on_disk: u64,
    /// Bytes of all segments before the one in use: what purging can free.
    pub bytes_held: u64,
    /// Number of segment files, the spare one included.
    pub segments: usize,
    /// The groups with entries in the oldest segment, each with the last index that it has there: a
    /// group has to purge up to that index before the segment can go.
    pub oldest: Vec<(GroupId, u64)>,
    /// Bytes of entries in memory, including those that wait to be written.
    pub cached_bytes: usize,
    /// Bytes that wait to be written.
    pub staged_bytes: usize,
    /// No room was found for the *next* segment. The segment in use still takes writes: a node
    /// should refuse its clients now, and save the remaining room for votes and for purging.
    pub short_of_room: bool,
    /// No room was found and the segment in use is full: nothing becomes durable until there is
    /// room.
    pub waiting_for_room: bool,
    /// Frames written since the log was opened; each took one sync.
    pub fsyncs: u64,
    /// Entries written since the log was opened.
    pub entries_written: u64,
    /// Median time of the latest 256 writes with their sync, in microseconds.
    pub fsync_us_median: u64,
    /// Longest of the latest 256 writes with their sync, in microseconds.
    pub fsync_us_max: u64,
    /// How long the current write has been under way, in microseconds; zero if there is none. It
    /// shows when a disk stalls.
    pub write_pending_us: u64,
    /// Why the log stopped for good, if it did.
    pub dead: Option<String>,
}
