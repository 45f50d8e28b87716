//! What a node keeps its data on: its log and its checkpoints.

use std::path::Path;
use std::sync::Arc;

use crate::disk::RealDisk;
use crate::state::{Engine, EngineOptions};
use crate::wal::{FatalHook, Wal, WalOptions};

/// Opens what a node keeps its data in. A simulation has one of its own.
pub trait Storage: Send + 'static {
    /// Opens the log that belongs at `path`.
    ///
    /// # Errors
    /// Why it does not open, as a text for a person.
    fn open_log(
        &self,
        path: &Path,
        options: WalOptions,
        on_fatal: FatalHook,
    ) -> Result<Wal, String>;

    /// Opens the checkpoints that belong at `path`.
    ///
    /// # Errors
    /// Why they do not open, as a text for a person.
    fn open_engine(&self, path: &Path, options: EngineOptions) -> Result<Engine, String>;
}

/// Directories of the operating system.
pub(crate) struct RealStorage;

impl Storage for RealStorage {
    fn open_log(
        &self,
        path: &Path,
        options: WalOptions,
        on_fatal: FatalHook,
    ) -> Result<Wal, String> {
        let disk = RealDisk::open(path).map_err(|error| error.to_string())?;
        Wal::open(Arc::new(disk), options, on_fatal).map_err(|error| error.to_string())
    }

    fn open_engine(&self, path: &Path, options: EngineOptions) -> Result<Engine, String> {
        Engine::open(path, options).map_err(|error| error.to_string())
    }
}
