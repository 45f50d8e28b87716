//! Errors of opening a log. Later failures are [`io::Error`]s, because callbacks and the Raft
//! library use those.

use std::io;

/// Why a log could not be opened. The attempt lost nothing.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// A file contains something that no crash can explain: acknowledged data may be lost. The node
    /// must not take part under its identity again; its data comes back from the other replicas.
    #[error("write-ahead log is damaged: {file} at byte {offset}: {reason}")]
    Damaged {
        /// Name of the segment file.
        file: String,
        /// Position in the file, in bytes.
        offset: u64,
        /// The contradiction that was found there.
        reason: String,
    },
    /// The disk failed; another attempt may succeed.
    #[error("write-ahead log: cannot {action}")]
    Disk {
        /// The action that failed.
        action: String,
        /// The error of the disk.
        #[source]
        source: io::Error,
    },
    /// There are no segments, and the options say that there must be.
    #[error("write-ahead log has no segments, though it must exist")]
    Missing,
    /// An option is outside its bounds.
    #[error("write-ahead log: option {0} is out of bounds")]
    Options(&'static str),
}

impl WalError {
    pub(super) fn disk(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Disk { action, source }
    }
}
