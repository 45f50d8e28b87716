//! Small files that survive a crash: keys, certificates, books.
//!
//! A file is replaced as a whole: written beside its place under a temporary name, synced, renamed
//! over the old one, and the directory synced, so that after a crash there is the old content or
//! the new one and never a mix. What a process that was killed has left under a temporary name, the
//! next that writes the same file removes. Directories are for their owner alone (0700), files too
//! (0600).
//!
//! An error of the system does not say which file it is about. Every error from here does: see
//! [`named`].

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::process::Pid;

use crate::platform::{self, PowerCut};

/// Longest file that [`read`] reads, in bytes.
pub const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// End of the temporary name of a file, after the id of the process that writes it.
const TEMPORARY: &str = ".new";
/// The file that says that a process uses a directory.
pub const LOCK: &str = "lock";
/// What may be in a directory whoever it belongs to.
const NOBODYS: [&str; 2] = [LOCK, "lost+found"];
/// How often a file is written anew whose temporary file somebody has removed.
const REPLACE_TRIES: usize = 3;

/// An error of the system about a file, with the file's name in its text and of the same kind as
/// before.
///
/// Of an error that has been through here, this one or another file's name is not added again.
pub fn named(path: &Path, error: io::Error) -> io::Error {
    if error.get_ref().is_some_and(|inner| inner.is::<Named>()) {
        return error;
    }
    io::Error::new(error.kind(), Named { path: path.to_owned(), error })
}

/// An error about that file.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", .path.display())]
struct Named {
    path: PathBuf,
    error: io::Error,
}

/// Makes a directory, and those above it, that only its owner may enter.
///
/// A directory that exists already is narrowed to its owner.
pub fn create_dir(path: &Path) -> io::Result<()> {
    create_and_sync_dir(path).map_err(|error| named(path, error))
}

fn create_and_sync_dir(path: &Path) -> io::Result<()> {
    refuse_dangling(path)?;
    match fs::DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(io::Error::new(error.kind(), "it is not a directory"));
        }
        made => made?,
    }
    if fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    }
    sync_dir(path.parent().filter(|parent| !parent.as_os_str().is_empty()))?;
    sync_dir(Some(path))
}

/// The directories that [`create_dir`] would make for `path`, the deepest first.
pub fn missing_dirs(path: &Path) -> Vec<PathBuf> {
    let above = path.ancestors().take_while(|above| !above.as_os_str().is_empty());
    above.take_while(|above| !above.exists()).map(Path::to_owned).collect()
}

/// Whether a file or directory is there; that it cannot be told is an error, not a no.
pub fn exists(path: &Path) -> io::Result<bool> {
    path.try_exists().map_err(|error| named(path, error))
}

/// Refuses a symbolic link whose target does not exist: whoever made it meant something that is not
/// there, such as a disk that is not mounted, and nothing may take its place.
///
/// # Errors
/// `InvalidInput` if it is one, or whatever the system reports.
pub fn refuse_dangling(path: &Path) -> io::Result<()> {
    let is_link = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
    if !is_link || path.try_exists().map_err(|error| named(path, error))? {
        return Ok(());
    }
    let target = fs::read_link(path).map_err(|error| named(path, error))?;
    let why = format!("it is a symbolic link to {}, which does not exist", target.display());
    Err(named(path, io::Error::new(io::ErrorKind::InvalidInput, why)))
}

/// Names of what is in a directory. There is nothing in one that does not exist.
fn names(path: &Path) -> io::Result<Vec<OsString>> {
    let listed = match fs::read_dir(path) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    listed.map_err(|error| named(path, error))
}

/// Whether there is anything in a directory. There is nothing in one that does not exist.
pub fn has_entries(path: &Path) -> io::Result<bool> {
    Ok(!names(path)?.is_empty())
}

/// The same, beside what says nothing of whose it is: the lock of a process, and what a file system
/// has in its root.
pub fn has_content(path: &Path) -> io::Result<bool> {
    Ok(names(path)?.iter().any(|name| !NOBODYS.iter().any(|nobodys| name == nobodys)))
}

/// Whether a directory has something in it, and nothing under any of `ours`.
pub fn is_foreign(path: &Path, ours: &[&str]) -> io::Result<bool> {
    refuse_dangling(path).map_err(|error| named(path, error))?;
    let is_ours = names(path)?.iter().any(|name| ours.iter().any(|ours| name == ours));
    Ok(!is_ours && has_content(path)?)
}

/// Refuses what belongs to another user: a process that goes on with it leaves files in it that its
/// owner cannot read, and trusts what that user writes.
///
/// # Errors
/// `PermissionDenied` if it does, or whatever the system reports.
pub fn require_own(path: &Path) -> io::Result<()> {
    let owner = fs::metadata(path).map_err(|error| named(path, error))?.uid();
    let me = rustix::process::geteuid().as_raw();
    if owner == me {
        return Ok(());
    }
    let why = format!(
        "it belongs to user {owner}, and this process runs as user {me}; run it as user {owner}, or give \
         the files to user {me} with chown -R"
    );
    Err(named(path, io::Error::new(io::ErrorKind::PermissionDenied, why)))
}

/// Takes a file or directory of this user, with all that is in it, away from everybody else: 0600
/// and 0700. Says whether others could read any of it.
pub fn narrow(path: &Path) -> io::Result<bool> {
    let at = |error| named(path, error);
    let metadata = fs::symlink_metadata(path).map_err(at)?;
    if metadata.is_symlink() {
        return Ok(false);
    }
    let mut was_open = metadata.mode() & 0o077 != 0;
    if was_open {
        let mode = fs::Permissions::from_mode(metadata.mode() & 0o700);
        match fs::set_permissions(path, mode) {
            // Removed meanwhile, or a directory that belongs to the system, such as lost+found.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
                ) =>
            {
                return Ok(false);
            }
            set => set.map_err(at)?,
        }
    }
    if metadata.is_dir() {
        for entry in fs::read_dir(path).map_err(at)? {
            was_open |= narrow(&entry.map_err(at)?.path())?;
        }
    }
    Ok(was_open)
}

/// From now on, files and directories of this process are for its user alone, whoever makes them.
pub fn keep_files_private() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
}

/// Replaces the file at `path`, durably and as a whole.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    replace(path, content).map_err(|error| named(path, error))
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut temporary = name.to_owned();
    temporary.push(format!(".{}{TEMPORARY}", std::process::id()));
    let temporary = path.with_file_name(temporary);
    if let Some(cut) = platform::power_cut() {
        return Err(lose_power(cut, &temporary, path, content));
    }
    remove_leftovers(directory, name);
    let mut written = Ok(());
    for _ in 0..REPLACE_TRIES {
        written = write_synced(&temporary, content).and_then(|()| fs::rename(&temporary, path));
        // Nobody else has reason to remove it, but a process that cannot see this one: in another
        // container.
        if !written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            break;
        }
    }
    if written.is_err() {
        // Best effort: the error that matters is the one that is returned.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_dir(directory)
}

/// Removes the temporary files of this name whose writers are dead, as far as that can be done.
fn remove_leftovers(directory: Option<&Path>, name: &OsStr) {
    let directory = directory.unwrap_or(Path::new("."));
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.filter_map(Result::ok) {
        let found = entry.file_name();
        let writer = found.as_bytes().strip_prefix(name.as_bytes());
        let writer = writer.and_then(|rest| rest.strip_prefix(b"."));
        let writer = writer.and_then(|rest| rest.strip_suffix(TEMPORARY.as_bytes()));
        let writer = writer.and_then(|writer| str::from_utf8(writer).ok()?.parse::<i32>().ok());
        let writer = writer.filter(|writer| *writer > 0);
        if writer.and_then(Pid::from_raw).is_some_and(is_dead) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether there is no such process. One of another user is there.
fn is_dead(process: Pid) -> bool {
    rustix::process::test_kill_process(process) == Err(rustix::io::Errno::SRCH)
}

/// Leaves the files of a simulated machine as they are when its power has failed so far into a
/// write.
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
/// Also for a link to nothing, which is not the same as no file; see [`refuse_dangling`]. Also for
/// a file over [`FILE_BYTES_MAX`]: it is none of ours.
pub fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    read_bounded(path).map_err(|error| named(path, error))
}

fn read_bounded(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            for link in path.parent().into_iter().chain([path]) {
                refuse_dangling(link)?;
            }
            return Ok(None);
        }
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
        Err(error) => Err(named(path, error)),
    }
}

/// Makes the names in a directory durable; `None` is the working directory.
pub fn sync_dir(path: Option<&Path>) -> io::Result<()> {
    let path = path.unwrap_or(Path::new("."));
    File::open(path).and_then(|file| file.sync_all()).map_err(|error| named(path, error))
}

/// Takes a directory for this process alone, until the returned file is dropped.
///
/// # Errors
/// `WouldBlock` if another process has it.
pub fn lock_dir(path: &Path) -> io::Result<File> {
    let path = path.join(LOCK);
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = file.map_err(|error| named(&path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        Err(fs::TryLockError::Error(error)) => Err(named(&path, error)),
    }
}

#[cfg(test)]
mod tests;
