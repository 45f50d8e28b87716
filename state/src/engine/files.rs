//! The files of a fjall database, to explain why it does not open.
//!
//! fjall treats a directory without the file `version` as a new database, and a table without the
//! file `current` as a new table. It then fails on the first file that already exists, and names
//! neither.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use dkv_base::durable;

/// The file that fjall writes last when it creates a database.
const VERSION: &str = "version";
/// The file that says which version of a table is current.
const CURRENT: &str = "current";
const KEYSPACES: &str = "keyspaces";
/// The journal that exists before a database contains anything; it is all zeros then.
const FIRST_JOURNAL: &str = "0.jnl";
const JOURNAL_SUFFIX: &str = ".jnl";
const LOCK: &str = "lock";

/// Returns whether a file of this name is one of a database. A directory without any may be the
/// mount point of a disk that is not mounted.
pub fn is_database_name(name: &str) -> bool {
    name == VERSION || name == KEYSPACES || name.ends_with(JOURNAL_SUFFIX)
}

/// Deletes the remains of a first start that was interrupted while it created the database: nothing
/// was stored by then. The directory must belong to this process.
pub(super) fn clear_unfinished(path: &Path) -> io::Result<()> {
    let has_tables = durable::has_entries(&path.join(KEYSPACES))?;
    if has_tables || durable::exists(&path.join(VERSION))? {
        return Ok(());
    }
    let journal = path.join(FIRST_JOURNAL);
    if fs::metadata(&journal).is_ok_and(|found| found.is_file()) && is_used(&journal)? {
        return Ok(());
    }
    [journal, path.join(LOCK)].iter().try_for_each(|file| durable::remove(file))
}

/// Returns whether a file contains anything but zeros.
fn is_used(file: &Path) -> io::Result<bool> {
    let at = |error| durable::named(file, error);
    let mut reader = File::open(file).map_err(at)?;
    let mut part = vec![0; 64 * 1024];
    loop {
        match reader.read(&mut part).map_err(at)? {
            0 => return Ok(false),
            read if part[..read].iter().any(|byte| *byte != 0) => return Ok(true),
            _ => {}
        }
    }
}

/// Returns a file that the existing ones depend on and that is missing or empty, if any. One that
/// may not be looked at is not missing.
pub(super) fn missing(path: &Path) -> Option<PathBuf> {
    let tables = fs::read_dir(path.join(KEYSPACES)).into_iter().flatten();
    let mut needed: Vec<_> = tables.filter_map(|table| Some(table.ok()?.path())).collect();
    needed.sort();
    let needed = needed.into_iter().filter(|table| durable::has_entries(table).unwrap_or(false));
    let mut needed =
        [path.join(VERSION)].into_iter().chain(needed.map(|table| table.join(CURRENT)));
    needed.find(|file| match fs::metadata(file) {
        Ok(found) => found.len() == 0,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    })
}

/// Returns why the first file of the database that this process may not use is closed to it; an
/// error of fjall names no file. `None` if all are open to it.
pub(super) fn closed(path: &Path) -> Option<io::Error> {
    let look = || {
        durable::require_own(path)?;
        let at = |error| durable::named(path, error);
        let entries = fs::read_dir(path).map_err(at)?;
        let entries = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
        let mut entries = entries.map_err(at)?;
        entries.sort();
        Ok(entries)
    };
    let entries = match look() {
        Ok(entries) => entries,
        Err(error) => return Some(error),
    };
    entries.iter().find_map(|entry| match fs::symlink_metadata(entry) {
        Ok(found) if found.is_dir() => closed(entry),
        Ok(found) if found.is_file() => {
            let opened = File::options().read(true).write(true).open(entry).map(drop);
            let opened = opened.map_err(|error| durable::named(entry, error));
            durable::require_own(entry).and(opened).err()
        }
        // Removed meanwhile, or nothing that fjall has made.
        Ok(_) | Err(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_another_user_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let table = directory.path().join(KEYSPACES).join("1");
        fs::create_dir_all(&table).unwrap();
        let files = [directory.path().join(VERSION), table.join(CURRENT), table.join("v0")];
        for file in &files {
            fs::write(file, "content").unwrap();
        }
        assert!(closed(directory.path()).is_none());
        // Only root can give files away.
        if std::os::unix::fs::chown(&files[2], Some(65_534), None).is_ok() {
            let said = closed(directory.path()).unwrap().to_string();
            assert!(said.starts_with(&format!("{}: it belongs to", files[2].display())), "{said}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert_eq!(missing(path), Some(path.join(VERSION)));
        fs::write(path.join(VERSION), "FJL").unwrap();
        assert_eq!(missing(path), None);
        // A table that nothing has been written to yet needs no such file.
        fs::create_dir_all(path.join(KEYSPACES).join("1")).unwrap();
        assert_eq!(missing(path), None);
        let table = path.join(KEYSPACES).join("0");
        fs::create_dir_all(table.join("tables")).unwrap();
        assert_eq!(missing(path), Some(table.join(CURRENT)));
        fs::write(table.join(CURRENT), "").unwrap();
        assert_eq!(missing(path), Some(table.join(CURRENT)));
        fs::write(table.join(CURRENT), "v0").unwrap();
        assert_eq!(missing(path), None);
        // A link to itself stands for any file that exists and may not be looked at.
        fs::remove_file(table.join(CURRENT)).unwrap();
        std::os::unix::fs::symlink(CURRENT, table.join(CURRENT)).unwrap();
        assert_eq!(missing(path), None);
    }
}
