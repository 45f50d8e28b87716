//! The disk as the node sees it: one directory of files.
//!
//! Everything that has to survive a loss of power goes through [`Disk`] and [`DiskFile`], so that a
//! simulation can substitute a disk of its own: [`RealDisk`] is a directory of the operating
//! system, [`MemoryDisk`] lives in memory and loses, tears and refuses writes on command. The
//! traits promise no more than POSIX does:
//!
//! * bytes that were written may be read back at once, by every handle, but survive a loss of power
//!   only after [`DiskFile::sync_data`] on that file has succeeded;
//! * the creation, renaming or removal of a file is certain only after [`Disk::sync_dir`] has
//!   succeeded;
//! * of a write that was not synced, any of its sectors may have reached the disk, in any order;
//! * after a sync that *failed* the state of earlier writes is unknown, and a later sync that
//!   succeeds proves nothing about it either. The caller has to stop.
//!
//! Deliberately missing: directories in directories, appending (every write names its offset),
//! memory maps, direct IO, and anything asynchronous. Calls block; the threads that make them are
//! the caller's business.

mod memory;
mod real;

use std::io;
use std::sync::Arc;

pub use memory::MemoryDisk;
pub use real::RealDisk;

/// The unit, in bytes, in which a disk is assumed to write: a sector either lands whole or not at
/// all.
pub const SECTOR_BYTES: usize = 512;

/// One directory of files with one owner at a time.
pub trait Disk: Send + Sync + 'static {
    /// Returns the names of all files in the directory, in no particular order.
    ///
    /// # Errors
    /// Any error of the disk.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// `NotFound` if no file has that name, or any other error of the disk.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Creates an empty file, replacing any file of that name.
    ///
    /// # Errors
    /// `StorageFull` or `QuotaExceeded` if there is no room, or any other error of the disk.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Renames a file in one step, replacing any file that already has the new name.
    ///
    /// # Errors
    /// `NotFound` if no file has the old name, or any other error of the disk.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Open handles can still read it.
    ///
    /// # Errors
    /// `NotFound` if no file has that name, or any other error of the disk.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Waits until all creations, renamings and removals so far are durable.
    ///
    /// # Errors
    /// Any error of the disk; the caller must then stop.
    fn sync_dir(&self) -> io::Result<()>;

    /// Returns the bytes that may still be written to new files.
    ///
    /// # Errors
    /// Any error of the disk.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// An open file. All positions and lengths are in bytes.
pub trait DiskFile: Send + Sync {
    /// Returns the length of the file.
    ///
    /// # Errors
    /// Any error of the disk.
    fn bytes(&self) -> io::Result<u64>;

    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file ends before the buffer is full, or any other error of the disk.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `data` from `offset` on, and makes the file longer if need be.
    ///
    /// # Errors
    /// `StorageFull` or `QuotaExceeded` if there is no room, or any other error of the disk. Part
    /// of the data may have been written.
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()>;

    /// Extends a file with zeros for which room is reserved, whatever else is written. Like a
    /// write, the extension is durable only after a sync.
    ///
    /// # Errors
    /// `StorageFull` or `QuotaExceeded` if there is no room, `Unsupported` if the disk cannot do
    /// it, or any other error of the disk.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// Waits until everything written to this file so far, and its length, survives a loss of
    /// power.
    ///
    /// # Errors
    /// Any error of the disk; the caller must then stop, and never try again.
    fn sync_data(&self) -> io::Result<()>;
}

/// Whether an error means a lack of room, which passes, rather than a broken disk.
pub fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
