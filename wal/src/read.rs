//! Reads entries back from disk that have left memory.
//!
//! Entries of one segment that lie close together are read at once, up to a bound. Each is checked
//! against its own checksum, and against the requested group and index.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use dkv_base::id::GroupId;

use super::format::{Kind, Record, record_bytes, segment_name};
use super::groups::{Found, Location};
use crate::disk::DiskFile;

/// Most bytes read at once, unless a single entry is longer.
const RUN_BYTES_MAX: u64 = 1024 * 1024;
/// Bytes of other groups that are read along rather than skipped.
const GAP_BYTES_MAX: u64 = 8 * 1024;

/// Entries that were found, in memory or in files, and are still to be read.
///
/// They stay readable, even if they are purged meanwhile.
pub struct Reading {
    pub(super) group: GroupId,
    pub(super) found: Vec<(u64, Found)>,
    /// All segments in which the entries lie. An open file outlives the deletion of its segment.
    pub(super) files: BTreeMap<u64, Arc<dyn DiskFile>>,
}

impl Reading {
    /// Whether all of them are in memory, so that reading them does not wait for the disk.
    pub fn is_in_memory(&self) -> bool {
        self.found.iter().all(|(_, place)| matches!(place, Found::Cached(_)))
    }

    /// Returns the entries, with their indexes. Blocks while it reads from the disk.
    ///
    /// # Errors
    /// `InvalidData` if an entry is damaged on disk, or any error of the disk.
    pub fn entries(self) -> io::Result<Vec<(u64, Bytes)>> {
        read_found(self.group, self.found, &self.files)
    }
}

/// Entries of one segment that are read at once.
struct Run {
    segment: u64,
    from: u64,
    to: u64,
    /// Each entry with its position in the result.
    entries: Vec<(usize, u64, Location)>,
}

/// Reads entries from their places. `files` contains every segment that they lie in.
fn read_found(
    group: GroupId,
    found: Vec<(u64, Found)>,
    files: &BTreeMap<u64, Arc<dyn DiskFile>>,
) -> io::Result<Vec<(u64, Bytes)>> {
    let mut answer = Vec::with_capacity(found.len());
    let mut runs: Vec<Run> = Vec::new();
    for (index, place) in found {
        match place {
            Found::Cached(payload) => answer.push((index, payload)),
            Found::Stored(location) => {
                add_to_runs(&mut runs, answer.len(), index, location);
                answer.push((index, Bytes::new()));
            }
        }
    }
    for run in runs {
        let missing = || io::Error::other(format!("no segment {}", segment_name(run.segment)));
        let file = files.get(&run.segment).ok_or_else(missing)?;
        let mut buffer = vec![0; (run.to - run.from) as usize];
        file.read_at(&mut buffer, run.from)?;
        for (place, index, location) in run.entries {
            let at = (u64::from(location.offset) - run.from) as usize;
            answer[place].1 = check_entry(group, index, &buffer[at..]).ok_or_else(|| {
                let name = segment_name(run.segment);
                let offset = location.offset;
                let text = format!("entry {index} of group {group} is damaged: {name} at {offset}");
                io::Error::new(io::ErrorKind::InvalidData, text)
            })?;
        }
    }
    Ok(answer)
}

fn add_to_runs(runs: &mut Vec<Run>, place: usize, index: u64, location: Location) {
    let from = u64::from(location.offset);
    let to = from + record_bytes(location.payload_bytes as usize) as u64;
    if let Some(run) = runs.last_mut()
        && run.segment == location.segment
        && from >= run.to
        && from - run.to <= GAP_BYTES_MAX
        && to - run.from <= RUN_BYTES_MAX
    {
        run.to = to;
        run.entries.push((place, index, location));
        return;
    }
    runs.push(Run { segment: location.segment, from, to, entries: vec![(place, index, location)] });
}

/// Returns the payload of the record at the start of `bytes`, if it is the requested entry.
fn check_entry(group: GroupId, index: u64, bytes: &[u8]) -> Option<Bytes> {
    let record = Record::decode(bytes)?;
    let right = record.group == group && record.index == index && record.kind == Kind::Entry;
    // Copied, so that one entry in memory does not keep alive all that were read with it.
    right.then(|| Bytes::copy_from_slice(record.payload))
}
