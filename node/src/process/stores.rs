//! Opens a node's log and checkpoints with the sizes that its settings ask for.

use dkv_base::platform;
use dkv_base::supervise::Failure;
use dkv_wire::network::Settings;

use crate::process::args::Args;
use crate::process::error::ProcessError;
use crate::process::memory_limit;
use crate::storage::data_dir::{DataDir, DataDirError, NodeFile};
use crate::storage::disk_check;
use crate::storage::stores::{RealStorage, Storage, StorageError};
use dkv_state::{Engine, EngineOptions};
use dkv_wal::{Wal, WalOptions};

/// Bytes of log entries that stay in memory.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// Opens the log and the checkpoints, once the disk has been found fast enough.
pub(super) async fn open_stores(
    args: &Args,
    directory: &DataDir,
    file: &NodeFile,
    storage: Box<dyn Storage>,
    failure: Failure,
) -> Result<(Wal, Engine), ProcessError> {
    let (log_path, state_path) = (directory.log_path(), directory.state_path());
    let settings = file.settings.clone();
    let must_exist = file.log_begun;
    let mib = |count: u32| u64::from(count) * 1024 * 1024;
    let value_bytes = args.value_memory.map_or_else(memory_limit::default_value_bytes, mib);
    disk_check::check(directory.path(), &settings, must_exist).await?;
    let opened = platform::run_blocking(move || {
        let options = log_options(&settings, must_exist);
        let on_fatal = move |why: &str| {
            failure.fail(format!(
                "the log cannot be written any more: {why}; see to the disk, then start the node again"
            ));
        };
        let wal = storage.open_log(&log_path, options, Box::new(on_fatal))?;
        let engine_options = EngineOptions { value_bytes, ..EngineOptions::default() };
        let engine = storage.open_engine(&state_path, engine_options)?;
        Ok::<_, StorageError>((wal, engine))
    });
    Ok(opened.await?.map_err(|error| explain(error, directory))?)
}

/// Opens the log and the checkpoints of a node that is stopped and has begun its log.
pub(crate) fn open_stopped(
    directory: &DataDir,
    file: &NodeFile,
) -> Result<(Wal, Engine), DataDirError> {
    let open = || {
        let options = log_options(&file.settings, true);
        // Every write is waited for, and reports why it failed.
        let wal = RealStorage.open_log(&directory.log_path(), options, Box::new(|_| ()))?;
        let value_bytes = memory_limit::default_value_bytes();
        let engine_options = EngineOptions { value_bytes, ..EngineOptions::default() };
        Ok((wal, RealStorage.open_engine(&directory.state_path(), engine_options)?))
    };
    open().map_err(|error| explain(error, directory))
}

fn log_options(settings: &Settings, must_exist: bool) -> WalOptions {
    WalOptions {
        segment_bytes: segment_bytes(settings.log_bytes_max),
        cache_bytes: CACHE_BYTES,
        must_exist,
        ..WalOptions::default()
    }
}

fn explain(error: StorageError, directory: &DataDir) -> DataDirError {
    match error {
        StorageError::Damaged(problem) => directory.damaged(problem),
        StorageError::Missing(file) => directory.missing(file),
        StorageError::Unusable(why) => directory.unusable(&why),
    }
}

/// A sixteenth of the log, so that it is purged in small steps; a multiple of 64 KiB.
fn segment_bytes(log_bytes_max: u64) -> u64 {
    const STEP: u64 = 64 * 1024;
    (log_bytes_max / 16 / STEP * STEP).clamp(1024 * 1024, 16 * 1024 * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn a_segment_is_a_sixteenth_of_the_log_within_bounds() {
        for (log, segment) in [
            (0, MIB),
            (16 * MIB, MIB),
            (32 * MIB, 2 * MIB),
            (32 * MIB + 123_456, 2 * MIB),
            (33 * MIB, 2 * MIB + MIB / 16),
            (256 * MIB, 16 * MIB),
            (1024 * MIB, 16 * MIB),
            (u64::MAX, 16 * MIB),
        ] {
            assert_eq!(segment_bytes(log), segment, "{log}");
        }
    }
}
