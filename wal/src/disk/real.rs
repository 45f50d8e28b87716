//! A [`Disk`] on a directory of the operating system.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dkv_base::durable::{self, named};
use rustix::fs::FallocateFlags;

use super::{Disk, DiskFile};

/// Name of the file whose lock shows that the directory has an owner.
const LOCK_NAME: &str = "lock";
/// Mode of new files: only their owner may use them, whatever the umask of the process.
const FILE_MODE: u32 = 0o600;

/// A directory of the operating system, locked for as long as this value lives.
pub struct RealDisk {
    path: PathBuf,
    directory: File,
    /// Never read: the lock ends when the file is closed, also by a crash.
    _lock: File,
}

impl RealDisk {
    /// Opens the directory at `path` and locks it; creates it and its parents if need be.
    ///
    /// # Errors
    /// `WouldBlock` if another process (or another part of this one) uses the directory, or any
    /// error of the operating system.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        create_directories(&path)?;
        let directory = File::open(&path).map_err(|error| named(&path, error))?;
        let lock_path = path.join(LOCK_NAME);
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(FILE_MODE);
        let lock = options.open(&lock_path).map_err(|error| named(&lock_path, error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, directory, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                format!("{} is in use by another process", path.display()),
            )),
            Err(TryLockError::Error(error)) => Err(named(&lock_path, error)),
        }
    }

    /// Returns the path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Creates `path` and its parents, each durably: a directory is an entry of its parent, and that
/// entry is lost with the power unless the parent is synced.
fn create_directories(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_directories(parent)?;
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other.map_err(|error| named(path, error))?,
    }
    durable::sync_dir(Some(parent))
}

impl Disk for RealDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        let at = |error| named(&self.path, error);
        for entry in fs::read_dir(&self.path).map_err(at)? {
            // A name that is not text is not one of the log's files.
            if let Ok(name) = entry.map_err(at)?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.path.join(name);
        let file = OpenOptions::new().read(true).write(true).open(&path);
        Ok(Arc::new(RealFile { file: file.map_err(|error| named(&path, error))?, path }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.path.join(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(FILE_MODE);
        let file = options.open(&path).map_err(|error| named(&path, error))?;
        Ok(Arc::new(RealFile { file, path }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let from = self.path.join(from);
        fs::rename(&from, self.path.join(to)).map_err(|error| named(&from, error))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.path.join(name);
        fs::remove_file(&path).map_err(|error| named(&path, error))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.directory.sync_all().map_err(|error| named(&self.path, error))
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let status = rustix::fs::fstatvfs(&self.directory);
        let status = status.map_err(|error| named(&self.path, error.into()))?;
        Ok(status.f_bavail.saturating_mul(status.f_frsize))
    }
}

struct RealFile {
    file: File,
    /// The path at which it was opened, for errors: it may have been renamed since.
    path: PathBuf,
}

impl RealFile {
    fn named<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| named(&self.path, error))
    }
}

impl DiskFile for RealFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.named(self.file.metadata())?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.named(self.file.read_exact_at(buffer, offset))
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.named(self.file.write_all_at(data, offset))
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let done = rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, bytes);
        self.named(done.map_err(io::Error::from))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.named(self.file.sync_data())
    }
}
