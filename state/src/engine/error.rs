//! What can go wrong with what is on disk, by what the caller must do about it.

use std::io;
use std::path::PathBuf;

use crate::rows::MalformedRow;

/// Why the engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Another process has the directory open, or a reader of this one still does. Nothing was
    /// read or changed.
    #[error("{path} is in use by another process")]
    InUse {
        /// The engine's directory.
        path: PathBuf,
    },
    /// What is on disk is not what was written. The node must not go on with it: its replicas have
    /// to come from other nodes, under a new identity.
    #[error("{path} is damaged: {problem}")]
    Damaged {
        /// The engine's directory.
        path: PathBuf,
        /// What does not fit.
        problem: String,
    },
    /// A file without which the rest does not count is missing or empty.
    #[error("{} is missing or empty", .0.display())]
    Missing(PathBuf),
    /// There is too little room. Nothing was changed; it can be tried again once there is room.
    #[error("no space left in {path}: {needed_bytes} bytes are needed and {free_bytes} are free")]
    NoSpace {
        /// The engine's directory.
        path: PathBuf,
        /// What the request needs, with the reserve.
        needed_bytes: u64,
        /// What there is.
        free_bytes: u64,
    },
    /// A snapshot was installed, or the group removed, since these changes were taken or this
    /// installation was begun. Nothing was changed; drop them.
    #[error("superseded by a later snapshot")]
    Superseded,
    /// What was sent is not a whole snapshot. Nothing was changed; ask for another.
    #[error("invalid snapshot: {0}")]
    InvalidSnapshot(#[from] MalformedRow),
    /// Reading or writing failed, and what is on disk is known only after a restart: the process
    /// must stop. An fsync that failed is never tried again.
    #[error("cannot read or write {path}: {source}")]
    Failed {
        /// The engine's directory.
        path: PathBuf,
        /// What the engine or the system said.
        source: io::Error,
    },
}

impl EngineError {
    /// Whether the process must stop: what it has in memory may no longer become durable.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Missing(_) | Self::Failed { .. })
    }
}
