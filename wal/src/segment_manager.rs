//! Manages segment files: prepares the next one ahead of time, deletes those that nothing needs,
//! and waits for room when there is none.
//!
//! A few of the unneeded files are used again: to overwrite existing bytes of a file takes a
//! fraction of the time of extending it. A file is durably renamed first, so that no crash leaves a
//! segment with the frames of another one under its name. The old content is not taken for frames
//! of the new segment, because the new segment has another salt.
//!
//! A segment is written full of zeros and synced under a temporary name before it gets its own, so
//! that a visible segment is complete, and writing to it later changes no metadata: that makes the
//! syncs of frames about twice as fast. The zeros are synced piece by piece, so that a frame's sync
//! does not wait behind all of them. While frames are long, zeros would be as many bytes again as
//! the frames themselves: then the segment manager only reserves room, and the old content of a
//! file stays in it.

use std::io;
use std::sync::Arc;

use super::format::{SEGMENT_HEADER_BYTES, SegmentHeader, segment_name, unfinished_name};
use super::options::WalOptions;
use super::segments::{Job, Segment, Wanted};
use super::shared::WalInner;
use crate::disk::{Disk, DiskFile, is_no_room};

/// Bytes of zeros that are written and synced at once.
const PIECE_BYTES: usize = 1024 * 1024;
/// Most files that wait to be used again.
const RECYCLED_MAX: usize = 2;

/// Prepares and deletes segment files. There is one for each log.
pub struct SegmentManager {
    shared: Arc<WalInner>,
    /// No other part of the log keeps the disk, so that its directory is free again once the log
    /// is closed.
    disk: Arc<dyn Disk>,
    maker: SegmentMaker,
}

/// Result of a step of the segment manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentManagerStep {
    /// A segment was prepared or deleted; there may be more to do.
    Worked,
    /// There is nothing to do.
    Idle,
    /// A segment is wanted and there is no room for it; try again after [`ROOM_RETRY`].
    ///
    /// [`ROOM_RETRY`]: super::options::ROOM_RETRY
    NoRoom,
    /// The log is closed or dead: no step will do anything any more.
    Stopped,
}

impl SegmentManager {
    pub(super) fn new(shared: Arc<WalInner>, disk: Arc<dyn Disk>, maker: SegmentMaker) -> Self {
        Self { shared, disk, maker }
    }

    /// Prepares or deletes one segment, if one is due.
    pub fn step(&mut self) -> SegmentManagerStep {
        let job = {
            let core = self.shared.lock();
            if core.stopped || core.dead.is_some() {
                return SegmentManagerStep::Stopped;
            }
            core.segments.job()
        };
        let outcome = match job {
            None => return SegmentManagerStep::Idle,
            Some(Job::Delete { sequence }) => self.delete(sequence),
            Some(Job::Prepare(wanted)) => self.prepare(wanted),
        };
        match outcome {
            Ok(()) => SegmentManagerStep::Worked,
            Err(error) if is_no_room(&error) && matches!(job, Some(Job::Prepare(_))) => {
                self.shared.lock().segments.short_of_room = true;
                // A log that is being closed gives up instead of waiting for room.
                self.shared.wake_writer();
                SegmentManagerStep::NoRoom
            }
            Err(error) => {
                self.shared.die(format!("cannot keep segments: {error}"));
                SegmentManagerStep::Worked
            }
        }
    }

    fn delete(&mut self, sequence: u64) -> io::Result<()> {
        let disk = &*self.disk;
        let unread = self.shared.lock().segments.unread(sequence);
        match unread {
            Some(segment) if self.maker.may_keep(disk, &segment)? => {
                self.maker.keep(disk, segment)?;
            }
            _ => disk.remove(&segment_name(sequence))?,
        }
        // One by one: a later segment must never be gone while an earlier one still exists.
        disk.sync_dir()?;
        self.shared.lock().segments.deleted(sequence);
        Ok(())
    }

    fn prepare(&mut self, wanted: Wanted) -> io::Result<()> {
        let segment = self.maker.make(&*self.disk, wanted)?;
        self.shared.lock().segments.prepared(segment);
        self.shared.wake_writer();
        Ok(())
    }

    /// Steps until the log is closed or dead; sleeps while there is nothing to do.
    pub(super) fn run(mut self) {
        loop {
            match self.step() {
                SegmentManagerStep::Worked => {}
                SegmentManagerStep::Idle => self.shared.wait_for_job(),
                SegmentManagerStep::NoRoom => self.shared.wait_for_room(),
                SegmentManagerStep::Stopped => break,
            }
        }
    }

    /// Runs as [`Self::run`] does, but as a task.
    pub(super) async fn run_as_task(mut self) {
        loop {
            match self.step() {
                // Other tasks may run between two steps, as other threads would.
                SegmentManagerStep::Worked => tokio::task::yield_now().await,
                SegmentManagerStep::Idle => self.shared.job().await,
                SegmentManagerStep::NoRoom => self.shared.room().await,
                SegmentManagerStep::Stopped => break,
            }
        }
    }
}

/// Makes new segment files.
pub(super) struct SegmentMaker {
    segment_bytes: u64,
    reserve_bytes: u64,
    salt: u64,
    /// Files of unneeded segments, all of the usual length.
    recycled: Vec<RecycledFile>,
}

struct RecycledFile {
    name: String,
    file: Arc<dyn DiskFile>,
}

impl SegmentMaker {
    pub(super) fn new(options: &WalOptions) -> Self {
        let WalOptions { segment_bytes, reserve_bytes, salt_seed: salt, .. } = *options;
        Self { segment_bytes, reserve_bytes, salt, recycled: Vec::new() }
    }

    /// Whether the file of an unneeded segment is worth keeping, and takes no room that others
    /// need.
    fn may_keep(&self, disk: &dyn Disk, segment: &Segment) -> io::Result<bool> {
        Ok(self.recycled.len() < RECYCLED_MAX
            && segment.header.bytes == self.segment_bytes
            && disk.free_bytes()? >= self.reserve_bytes)
    }

    /// Keeps the file, under the name of an unfinished segment: opening the log removes those.
    fn keep(&mut self, disk: &dyn Disk, segment: Segment) -> io::Result<()> {
        let Segment { header, file } = segment;
        let name = unfinished_name(header.sequence);
        disk.rename(&segment_name(header.sequence), &name)?;
        self.recycled.push(RecycledFile { name, file });
        Ok(())
    }

    /// Makes a segment, durably, in place of any file that has its name. If there is no room for
    /// it, the attempt leaves nothing behind.
    pub(super) fn make(&mut self, disk: &dyn Disk, wanted: Wanted) -> io::Result<Segment> {
        let Wanted { sequence, bytes, may_use_reserve, zeroed } = wanted;
        let reserve_bytes = if may_use_reserve { 0 } else { self.reserve_bytes };
        let header = SegmentHeader { sequence, bytes, salt: self.next_salt() };
        if bytes != self.segment_bytes {
            // The recycled files will not be of use soon, and room may be needed.
            for RecycledFile { name, .. } in self.recycled.drain(..) {
                disk.remove(&name)?;
            }
        }
        let (name, made) = match self.recycled.pop() {
            Some(RecycledFile { name, file }) => {
                let filled = Self::fill(&*file, &header, zeroed);
                (name, filled.map(|()| file))
            }
            None => {
                if disk.free_bytes()? < bytes.saturating_add(reserve_bytes) {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                let name = unfinished_name(sequence);
                let made = Self::create(disk, &name, &header, zeroed);
                (name, made)
            }
        };
        if let Err(error) = &made
            && is_no_room(error)
        {
            match disk.remove(&name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let file = made?;
        disk.rename(&name, &segment_name(sequence))?;
        disk.sync_dir()?;
        Ok(Segment { header, file })
    }

    /// Creates a new file of the length that the header says.
    fn create(
        disk: &dyn Disk,
        name: &str,
        header: &SegmentHeader,
        zeroed: bool,
    ) -> io::Result<Arc<dyn DiskFile>> {
        let file = disk.create(name)?;
        let allocated = if zeroed { false } else { allocate(&*file, header.bytes)? };
        Self::fill(&*file, header, !allocated)?;
        Ok(file)
    }

    /// Writes the header of a file, and zeros after it if they are wanted.
    fn fill(file: &dyn DiskFile, header: &SegmentHeader, zeroed: bool) -> io::Result<()> {
        file.write_at(&header.encode(), 0)?;
        if zeroed {
            let mut at = SEGMENT_HEADER_BYTES as u64;
            let zeros = vec![0; PIECE_BYTES.min(header.bytes as usize)];
            while at < header.bytes {
                let piece = zeros.len().min((header.bytes - at) as usize);
                file.write_at(&zeros[..piece], at)?;
                file.sync_data()?;
                at += piece as u64;
            }
        }
        file.sync_data()
    }

    /// Returns the next number of the splitmix64 sequence: no two segments of a log share a salt.
    fn next_salt(&mut self) -> u64 {
        self.salt = self.salt.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.salt;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Reserves room for a file, unless the disk does not support that.
fn allocate(file: &dyn DiskFile, bytes: u64) -> io::Result<bool> {
    match file.allocate(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(false),
        Err(error) => Err(error),
    }
}
