//! The stores of a node: its log and its checkpoints.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dkv_state::{Engine, EngineError, EngineOptions};
use dkv_wal::disk::RealDisk;
use dkv_wal::{FatalHook, Wal, WalError, WalOptions};

/// Why data does not open, by the remedy that it needs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// The data is not what was written. The node must not go on with it under its identity.
    #[error("{0}")]
    Damaged(String),
    /// A file of the data is missing: nothing was read that could be damaged. The node must not go
    /// on without it.
    #[error("{} is missing or empty", .0.display())]
    Missing(PathBuf),
    /// The data cannot be read or written now: the disk fails or is full, or another process uses
    /// it. Nothing is lost, and a later start may succeed.
    #[error("{0}")]
    Unusable(String),
}

impl StorageError {
    /// Tells why the log that belongs at `path` does not open.
    pub fn of_log(error: &WalError, path: &Path) -> Self {
        match error {
            WalError::Damaged { .. } => Self::Damaged(error.to_string()),
            // As on a disk that is not mounted: nothing was read.
            WalError::Missing => Self::Missing(path.to_owned()),
            WalError::Disk { source, .. } => Self::Unusable(format!("{error}: {source}")),
            WalError::Options(_) => Self::Unusable(error.to_string()),
        }
    }
}

impl From<EngineError> for StorageError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Damaged { .. } => Self::Damaged(error.to_string()),
            EngineError::Missing(file) => Self::Missing(file),
            _ => Self::Unusable(error.to_string()),
        }
    }
}

/// Opens the stores of a node. A simulation has an implementation of its own.
pub trait Storage: Send + 'static {
    /// Opens the log that belongs at `path`.
    ///
    /// # Errors
    /// If it does not open, with the reason.
    fn open_log(
        &self,
        path: &Path,
        options: WalOptions,
        on_fatal: FatalHook,
    ) -> Result<Wal, StorageError>;

    /// Opens the checkpoints that belong at `path`.
    ///
    /// # Errors
    /// If they do not open, with the reason.
    fn open_engine(&self, path: &Path, options: EngineOptions) -> Result<Engine, StorageError>;
}

/// Directories of the operating system.
pub(crate) struct RealStorage;

impl Storage for RealStorage {
    fn open_log(
        &self,
        path: &Path,
        options: WalOptions,
        on_fatal: FatalHook,
    ) -> Result<Wal, StorageError> {
        let disk =
            RealDisk::open(path).map_err(|error| StorageError::Unusable(error.to_string()))?;
        let opened = Wal::open(Arc::new(disk), options, on_fatal);
        opened.map_err(|error| StorageError::of_log(&error, path))
    }

    fn open_engine(&self, path: &Path, options: EngineOptions) -> Result<Engine, StorageError> {
        Ok(Engine::open(path, options)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_a_directory_in_use_are_no_damage() {
        let directory = tempfile::tempdir().unwrap();
        let (log, state) = (directory.path().join("wal"), directory.path().join("state"));
        let full = EngineOptions { reserve_bytes: u64::MAX / 4, ..EngineOptions::default() };
        let error = RealStorage.open_engine(&state, full).map(drop).unwrap_err();
        assert!(matches!(error, StorageError::Unusable(_)), "{error}");

        let reserve_bytes = u64::MAX / 4;
        let open = |options| RealStorage.open_log(&log, options, Box::new(|_| ())).map(drop);
        let full = WalOptions { reserve_bytes, ..WalOptions::default() };
        assert!(matches!(open(full), Err(StorageError::Unusable(_))));
        let owner = RealDisk::open(&log).unwrap();
        let error = open(WalOptions::default()).unwrap_err();
        assert!(error.to_string().contains("in use"), "{error}");
        assert!(matches!(error, StorageError::Unusable(_)));
        drop(owner);
        let missing = WalOptions { must_exist: true, ..WalOptions::default() };
        std::fs::write(log.join("NOT_MOUNTED"), "").unwrap();
        assert_eq!(open(missing).unwrap_err(), StorageError::Missing(log.clone()));
    }
}
