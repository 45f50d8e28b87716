//! Why a file cannot be read.

use std::io;

/// A file is not what it should be. The text begins with "it", for a caller who names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BoltError {
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    /// It does not begin as such a database does.
    #[error("it is no bbolt database")]
    Foreign,
    /// The end is missing.
    #[error("it is cut short: it has {has} of {needs} bytes")]
    Short {
        /// Bytes that there are.
        has: u64,
        /// Bytes that it says to have.
        needs: u64,
    },
    /// A page contradicts the format or another page.
    #[error("it is damaged: {why} (page {page})")]
    Damaged {
        /// Number of the page.
        page: u64,
        /// The reason why it cannot be one.
        why: &'static str,
    },
    /// It has no checksum at its end.
    #[error("it has no checksum at its end, as a file of etcdctl snapshot save has")]
    NoChecksum,
    /// Its checksum does not match.
    #[error("it is damaged: its checksum does not match")]
    WrongChecksum,
    /// The database is sound, and not one of etcd.
    #[error("it is no database of etcd: {0}")]
    NotEtcd(&'static str),
}
