//! Errors of the engine, classified by what the caller must do about them.

use std::io;
use std::path::PathBuf;

use crate::rows::MalformedRow;

/// The reason why the engine did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Another process has the directory open, or a reader of this process still does. Nothing was
    /// read or changed.
    #[error("{path} is in use by another process")]
    InUse {
        /// The engine's directory.
        path: PathBuf,
    },
    /// The data on disk is not what was written. The node must not go on with it: its replicas have
    /// to come from other nodes, under a new identity.
    #[error("{path} is damaged: {problem}")]
    Damaged {
        /// The engine's directory.
        path: PathBuf,
        /// The inconsistency that was found.
        problem: String,
    },
    /// A file that the rest depends on is missing or empty.
    #[error("{} is missing or empty", .0.display())]
    Missing(PathBuf),
    /// There is too little room. Nothing was changed; the caller can retry once there is room.
    #[error("no space left in {path}: {needed_bytes} bytes are needed and {free_bytes} are free")]
    NoSpace {
        /// The engine's directory.
        path: PathBuf,
        /// Bytes that the request needs, including the reserve.
        needed_bytes: u64,
        /// Bytes that are free.
        free_bytes: u64,
    },
    /// A snapshot was installed, or the group was removed, since these changes were taken or this
    /// installation began. Nothing was changed; drop them.
    #[error("superseded by a later snapshot")]
    Superseded,
    /// The received data is not a whole snapshot. Nothing was changed; ask for another.
    #[error("invalid snapshot: {0}")]
    InvalidSnapshot(#[from] MalformedRow),
    /// Reading or writing failed, and the contents of the disk are uncertain until a restart: the
    /// process must stop. A failed fsync is never retried.
    #[error("cannot read or write {path}: {source}")]
    Failed {
        /// The engine's directory.
        path: PathBuf,
        /// The error reported by the engine or the system.
        source: io::Error,
    },
}

impl EngineError {
    /// Returns whether the process must stop, because its data in memory may no longer become
    /// durable.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Missing(_) | Self::Failed { .. })
    }
}
