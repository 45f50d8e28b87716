//! Small files that survive a crash: keys, certificates, books.
//!
//! A file is replaced as a whole: written beside its place under a temporary name, synced, renamed
//! over the old one, and the directory synced, so that after a crash there is the old content or
//! the new one and never a mix. Directories are for their owner alone (0700), files too (0600).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::platform::{self, PowerCut};

/// Longest file that [`read`] reads, in bytes.
pub const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Makes a directory, and those above it, that only its owner may enter.
///
/// A directory that exists already is narrowed to its owner.
pub fn create_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    if fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    }
    sync_dir(path.parent().filter(|parent| !parent.as_os_str().is_empty()))?;
    sync_dir(Some(path))
}

/// Replaces the file at `path`, durably and as a whole.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = path.with_file_name(name);
    if let Some(cut) = platform::power_cut() {
        return Err(lose_power(cut, &temporary, path, content));
    }
    let written = write_synced(&temporary, content).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Best effort: the error that matters is the one that is returned.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_dir(directory)
}

/// Leaves the files of a simulated machine as they are when its power has failed so far into a write.
fn lose_power(cut: PowerCut, temporary: &Path, path: &Path, content: &[u8]) -> io::Error {
    let part = if cut == PowerCut::Begun { &content[..content.len() / 2] } else { content };
    let left = match cut {
        PowerCut::Before => Ok(()),
        PowerCut::Begun | PowerCut::Written => write_synced(temporary, part),
        PowerCut::Replaced => {
            write_synced(temporary, part).and_then(|()| fs::rename(temporary, path))
        }
    };
    left.err().unwrap_or_else(|| io::Error::other("the power has failed"))
}

fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Reads a file, or `None` if there is none.
///
/// # Errors
/// Also for a file over [`FILE_BYTES_MAX`]: it is none of ours.
pub fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut content = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content)?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "file is far too large"));
    }
    Ok(Some(content))
}

/// Removes a file if it is there, durably.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_dir(path.parent().filter(|parent| !parent.as_os_str().is_empty())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes the names in a directory durable; `None` is the working directory.
pub fn sync_dir(path: Option<&Path>) -> io::Result<()> {
    File::open(path.unwrap_or(Path::new(".")))?.sync_all()
}

/// Takes a directory for this process alone, until the returned file is dropped.
///
/// # Errors
/// `WouldBlock` if another process has it.
pub fn lock_dir(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests;
