//! The disk as the node sees it: one directory of files.
//!
//! Whatever has to survive a loss of power goes through [`Disk`] and [`DiskFile`], so that a
//! simulation can put a disk of its own in the place of the real one: [`RealDisk`] is a directory
//! of the operating system, [`MemoryDisk`] lives in memory and loses, tears and refuses writes on
//! command. The traits promise no more than POSIX does:
//!
//! * bytes that were written may be read back at once, by every handle, but survive a loss of power
//!   only after [`DiskFile::sync_data`] on that file has succeeded;
//! * a file that was created, renamed or removed is so for certain only after
//!   [`Disk::sync_dir`] has succeeded;
//! * of a write that was not synced, any of its sectors may have reached the disk, in any order;
//! * after a sync that *failed* nothing is known about what was written before it, and a later sync
//!   that succeeds proves nothing about it either. The caller has to stop.
//!
//! Deliberately missing: directories in directories, appending (every write says where), memory
//! maps, direct IO, and anything asynchronous. Calls block; the threads that make them are the
//! caller's business.

mod memory;
mod real;

use std::io;
use std::sync::Arc;

pub use memory::MemoryDisk;
pub use real::RealDisk;

/// The unit in which a disk is taken to write: a sector either lands whole or not at all. In bytes.
pub const SECTOR_BYTES: usize = 512;

/// One directory of files, held by one owner at a time.
pub trait Disk: Send + Sync + 'static {
    /// The names of all files in the directory, in no particular order.
    ///
    /// # Errors
    /// Whatever the disk reports.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens a file that exists, for reading and writing.
    ///
    /// # Errors
    /// `NotFound` if there is none of that name, or whatever the disk reports.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Creates an empty file, in place of one that already has the name.
    ///
    /// # Errors
    /// `StorageFull` or `QuotaExceeded` if there is no room, or whatever the disk reports.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name, in one step, in place of a file that already has it.
    ///
    /// # Errors
    /// `NotFound` if there is none of the old name, or whatever the disk reports.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Handles that are open go on reading it.
    ///
    /// # Errors
    /// `NotFound` if there is none of that name, or whatever the disk reports.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Waits until everything that was created, renamed or removed so far is so for good.
    ///
    /// # Errors
    /// Whatever the disk reports; the caller must then stop.
    fn sync_dir(&self) -> io::Result<()>;

    /// Bytes that may still be written to new files.
    ///
    /// # Errors
    /// Whatever the disk reports.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// An open file. All positions and lengths are in bytes.
pub trait DiskFile: Send + Sync {
    /// The length of the file.
    ///
    /// # Errors
    /// Whatever the disk reports.
    fn bytes(&self) -> io::Result<u64>;

    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file ends before the buffer is full, or whatever the disk reports.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `data` from `offset` on, and makes the file longer if need be.
    ///
    /// # Errors
    /// `StorageFull` or `QuotaExceeded` if there is no room, or whatever the disk reports. Part of
    /// the data may have been written.
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()>;

    /// Makes a file longer, by zeros for which there is room whatever else is written. As a write,
    /// it is there for good only after a sync.
    ///
    /// # Errors
    /// `StorageFull` or `QuotaExceeded` if there is no room, `Unsupported` if the disk cannot do
    /// it, or whatever else it reports.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// Waits until everything written to this file so far, and its length, survives a loss of
    /// power.
    ///
    /// # Errors
    /// Whatever the disk reports; the caller must then stop, and never try again.
    fn sync_data(&self) -> io::Result<()>;
}

/// Whether an error says that there is no room, which passes, rather than that the disk is broken.
pub fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
