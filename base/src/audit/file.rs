//! The file of an audit log: appended to, rotated by size, and opened anew once it was moved away.
//!
//! `FILE` is the current one, `FILE.1` the one before it, and so on. All are for their owner alone.
//! A line is in the file as a whole or not at all, as far as the file can be truncated after a
//! failed write; after a crash, a line that was cut off ends where the next start begins.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tracing::warn;

/// Mode of the files.
const MODE: u32 = 0o600;

/// An audit file and its rotated ones.
#[derive(Debug)]
pub(super) struct AuditFile {
    path: PathBuf,
    bytes_max: u64,
    keep: u32,
    current: Option<Current>,
}

/// The open file.
#[derive(Debug)]
struct Current {
    file: File,
    bytes: u64,
    /// Device and inode.
    id: (u64, u64),
    /// Length at which it is rotated.
    full_at: u64,
}

impl AuditFile {
    /// Opens a file, which may exist.
    ///
    /// # Errors
    /// The error of the system, or the file is no regular one; of the kind `WouldBlock` if another
    /// process has it.
    pub(super) fn open(path: &Path, bytes_max: u64, keep: u32) -> io::Result<Self> {
        let mut file = Self { path: path.to_owned(), bytes_max, keep: keep.max(1), current: None };
        file.current = Some(file.open_current()?);
        Ok(file)
    }

    /// The file's name.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends lines, to a new file if they make the current one too long.
    ///
    /// # Errors
    /// None of the lines is in the file then, unless the file could not be truncated either.
    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let added = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        self.follow_name();
        let is_full = |current: &Current| {
            current.bytes > 0 && current.bytes.saturating_add(added) > current.full_at
        };
        if self.current.as_ref().is_some_and(is_full) {
            self.rotate();
        }
        let current = match &mut self.current {
            Some(current) => current,
            None => {
                let current = self.open_current()?;
                self.current.insert(current)
            }
        };
        if let Err(error) = current.file.write_all(lines) {
            if current.file.set_len(current.bytes).is_err() {
                // The next line begins behind what is there of this one.
                self.current = None;
            }
            return Err(error);
        }
        current.bytes += added;
        Ok(())
    }

    /// Opens the file anew, under its name.
    pub(super) fn reopen(&mut self) {
        self.current = None;
    }

    /// Lets the file go if its name leads to another one, or to none. If it was truncated, as by
    /// logrotate's `copytruncate`, notes what is left.
    fn follow_name(&mut self) {
        let Some(current) = &mut self.current else { return };
        match fs::metadata(&self.path) {
            Ok(found) if id_of(&found) == current.id => current.bytes = found.len(),
            _ => self.current = None,
        }
    }

    /// Moves the file away, and each of the older ones one further. A file that cannot be moved
    /// goes on growing for a while.
    fn rotate(&mut self) {
        let moved = (1..self.keep).rev().try_for_each(|number| {
            let moved = fs::rename(self.rotated(number), self.rotated(number + 1));
            match moved {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                moved => moved,
            }
        });
        match moved.and_then(|()| fs::rename(&self.path, self.rotated(1))) {
            Ok(()) => self.current = None,
            Err(error) => {
                warn!(file = %self.path.display(), %error, "the audit log cannot be rotated");
                if let Some(current) = &mut self.current {
                    current.full_at = current.bytes.saturating_add(self.bytes_max / 8);
                }
            }
        }
    }

    fn rotated(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }

    fn open_current(&self) -> io::Result<Current> {
        let other = || io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
        // Before it is opened: that of a pipe could take for ever.
        if fs::metadata(&self.path).is_ok_and(|found| !found.is_file()) {
            return Err(other());
        }
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).mode(MODE).open(&self.path)?;
        // Another one would truncate and rotate what this one writes.
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) if has_no_locks(&error) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let found = file.metadata()?;
        if found.permissions().mode() & 0o777 != MODE {
            file.set_permissions(Permissions::from_mode(MODE))?;
        }
        let mut bytes = found.len();
        if bytes > 0 && !ends_a_line(&mut file)? {
            file.write_all(b"\n")?;
            bytes += 1;
        }
        Ok(Current { id: id_of(&found), file, bytes, full_at: self.bytes_max })
    }
}

fn id_of(found: &fs::Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

/// Whether a file system has no locks, as some network file systems do not.
fn has_no_locks(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let without = [Errno::NOLCK, Errno::OPNOTSUPP, Errno::NOSYS];
    let found = Errno::from_io_error(error);
    error.kind() == io::ErrorKind::Unsupported || found.is_some_and(|it| without.contains(&it))
}

fn ends_a_line(file: &mut File) -> io::Result<bool> {
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests;
