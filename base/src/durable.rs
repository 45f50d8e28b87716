//! Small files that survive a crash: keys, certificates, registries.
//!
//! A file is replaced as a whole: the new content is written under a temporary name, synced,
//! renamed over the old file, and the directory synced. After a crash the file has the old content
//! or the new, never a mix. The next writer of a file removes the temporary files that killed
//! processes left. Directories and files are accessible to their owner alone (0700 and 0600).
//!
//! Errors of the operating system do not say which file they are about. Every error of this module
//! does: see [`named`].

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::process::Pid;

use crate::platform::{self, PowerCut};

/// Longest file that [`read`] accepts, in bytes.
pub const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Suffix of temporary file names, after the id of the writing process.
const TEMPORARY: &str = ".new";
/// Name of the lock file of a directory that a process uses.
pub const LOCK: &str = "lock";
/// Entries that do not show whose a directory is.
const NEUTRAL: [&str; 2] = [LOCK, "lost+found"];
/// How often a file is written anew after another process removed its temporary file.
const REPLACE_TRIES: usize = 3;

/// Adds the name of a file to an error about it. The kind stays the same.
///
/// An error that names a file already is returned as it is.
pub fn named(path: &Path, error: io::Error) -> io::Error {
    if error.get_ref().is_some_and(|inner| inner.is::<Named>()) {
        return error;
    }
    io::Error::new(error.kind(), Named { path: path.to_owned(), error })
}

/// An error that names its file.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", .path.display())]
struct Named {
    path: PathBuf,
    error: io::Error,
}

/// Creates a directory, and its missing ancestors, that only the owner may enter.
///
/// An existing directory is restricted to its owner.
///
/// # Errors
/// The error of the operating system; also if the path is a dangling link or not a directory.
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

/// The directories that [`create_dir`] would create for `path`, the deepest first.
pub fn missing_dirs(path: &Path) -> Vec<PathBuf> {
    let above = path.ancestors().take_while(|above| !above.as_os_str().is_empty());
    above.take_while(|above| !above.exists()).map(Path::to_owned).collect()
}

/// Whether a file or directory exists.
///
/// # Errors
/// If that cannot be determined.
pub fn exists(path: &Path) -> io::Result<bool> {
    path.try_exists().map_err(|error| named(path, error))
}

/// Refuses a symbolic link whose target does not exist. Such a link stands for something that is
/// missing, such as a disk that is not mounted, and nothing may take its place.
///
/// # Errors
/// `InvalidInput` if the path is such a link, or the error of the operating system.
pub fn refuse_dangling(path: &Path) -> io::Result<()> {
    let is_link = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
    if !is_link || path.try_exists().map_err(|error| named(path, error))? {
        return Ok(());
    }
    let target = fs::read_link(path).map_err(|error| named(path, error))?;
    let why = format!("it is a symbolic link to {}, which does not exist", target.display());
    Err(named(path, io::Error::new(io::ErrorKind::InvalidInput, why)))
}

/// The names of the entries of a directory; none if the directory does not exist.
fn names(path: &Path) -> io::Result<Vec<OsString>> {
    let listed = match fs::read_dir(path) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    listed.map_err(|error| named(path, error))
}

/// Whether a directory exists and has entries.
///
/// # Errors
/// If it cannot be read.
pub fn has_entries(path: &Path) -> io::Result<bool> {
    Ok(!names(path)?.is_empty())
}

/// Whether a directory exists and has an entry with a name that `is_wanted`.
///
/// # Errors
/// If it cannot be read.
pub fn has_named(path: &Path, is_wanted: impl Fn(&str) -> bool) -> io::Result<bool> {
    Ok(names(path)?.iter().any(|name| name.to_str().is_some_and(&is_wanted)))
}

/// Whether a directory has entries, but none of the names in `ours`: whether it belongs to another
/// program. A lock file and `lost+found` do not show whose it is.
///
/// # Errors
/// If it cannot be read or is a dangling link.
pub fn is_foreign(path: &Path, ours: &[&str]) -> io::Result<bool> {
    refuse_dangling(path).map_err(|error| named(path, error))?;
    let names = names(path)?;
    let is_ours = names.iter().any(|name| ours.iter().any(|ours| name == ours));
    Ok(!is_ours && names.iter().any(|name| !NEUTRAL.iter().any(|neutral| name == neutral)))
}

/// Refuses a file or directory of another user. A process that went on would leave files there that
/// the owner cannot read, and would trust what that user writes.
///
/// # Errors
/// `PermissionDenied` if it belongs to another user, or the error of the operating system.
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

/// Restricts a file, or a directory with all its contents, to its owner (0600 and 0700). Returns
/// whether other users could access any of it.
///
/// # Errors
/// The error of the operating system.
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
            // Removed meanwhile, or a directory of the system, such as lost+found.
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

/// Sets the umask so that all files and directories that this process creates are private to its
/// user.
pub fn keep_files_private() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
}

/// Replaces the file at `path`, atomically and durably.
///
/// # Errors
/// The error of the operating system. The old content is then still in place.
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
        // Only a process in another container, which cannot see this one, takes it for dead and
        // removes its temporary file.
        if !written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            break;
        }
    }
    if written.is_err() {
        // Best effort: the first error is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_dir(directory)
}

/// Removes the temporary files of this name whose writers are dead, on a best-effort basis.
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

/// Whether the process does not exist. A process of another user does.
fn is_dead(process: Pid) -> bool {
    rustix::process::test_kill_process(process) == Err(rustix::io::Errno::SRCH)
}

/// Leaves the files of a simulated machine in the state in which the power failure interrupts a
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

/// Reads a file; `None` if it does not exist.
///
/// # Errors
/// The error of the operating system; also for a dangling link, which is not the same as no file
/// (see [`refuse_dangling`]), and for a file of more than [`FILE_BYTES_MAX`] bytes, which is not
/// one of ours.
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

/// Copies a directory with everything in it to a new directory. The copy is not synced.
///
/// # Errors
/// Those of the system, such as that the new directory exists already.
pub fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    let at_source = |error| named(from, error);
    fs::create_dir(to).map_err(|error| named(to, error))?;
    for entry in fs::read_dir(from).map_err(at_source)? {
        let entry = entry.map_err(at_source)?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().map_err(|error| named(&source, error))?.is_dir() {
            copy_dir(&source, &target)?;
        } else {
            fs::copy(&source, &target).map_err(|error| {
                let (source, target) = (source.display(), target.display());
                io::Error::new(error.kind(), format!("cannot copy {source} to {target}: {error}"))
            })?;
        }
    }
    Ok(())
}

/// Removes a file if it exists, durably.
///
/// # Errors
/// The error of the operating system.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_dir(path.parent().filter(|parent| !parent.as_os_str().is_empty())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(named(path, error)),
    }
}

/// Syncs a directory, so that the names in it are durable. `None` stands for the working directory.
///
/// # Errors
/// The error of the operating system.
pub fn sync_dir(path: Option<&Path>) -> io::Result<()> {
    let path = path.unwrap_or(Path::new("."));
    File::open(path).and_then(|file| file.sync_all()).map_err(|error| named(path, error))
}

/// Locks a directory for this process until the returned file is dropped.
///
/// # Errors
/// `WouldBlock` if another process holds the lock, or the error of the operating system.
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
