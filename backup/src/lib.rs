//! Backups of a dkv network, online and of one moment, and how they come back.
//!
//! A backup is a *chain* of chunks for each keyspace. A chain begins with a *base*: all keys, read
//! page by page while writes go on. The *changes* that a watch shows meanwhile follow, up to a
//! *cut*: a snapshot's revisions of all shards. Pages and changes together are the keyspace at the
//! cut, however long the pages took; no shard has to keep its history for as long. A backup that is
//! *followed* goes on with changes and a cut every second, and can be restored at each of them. An
//! *increment* has changes only, after a cut of another backup.
//!
//! Reading order:
//! - The format, as plain data: `record` (what a chunk holds), `chunk` (its bytes), `plan` (what a
//!   backup is of, and what it turned out to hold), `chain` (what chunks make together) and `merge`
//!   (the keys at a cut).
//! - The shell: `destination` (a directory or a bucket), `changes` (the watch), `writer` (a chain
//!   that grows), `create` and `follow`; `reader`, `contents`, `catalog` and `restore`.
//!
//! Deliberately missing: encryption, and a lock of the destination. Each chunk is created under a
//! name that must not exist, so of two processes that write one backup, one ends.
#![forbid(unsafe_code)]
#![deny(missing_docs, rustdoc::broken_intra_doc_links)]

mod catalog;
mod chain;
mod changes;
mod chunk;
mod clock;
mod contents;
mod create;
mod destination;
mod error;
mod follow;
mod marker;
mod merge;
mod pages;
mod plan;
mod reader;
mod record;
mod restore;
#[cfg(test)]
mod sample;
mod session;
mod throttle;
mod writer;

pub use catalog::{
    Backup, KeyspaceContents, PruneOptions, Pruned, Verified, find, list, prune, show, verify,
};
pub use create::{CreateOptions, Created, create};
pub use destination::Destination;
pub use error::BackupError;
pub use follow::{FollowOptions, follow};
pub use plan::Kind;
pub use restore::{RestoreOptions, Restored, drop_interrupted, restore};

/// Progress events of a long command.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// A sentence for the user.
    Note(String),
    /// A keyspace was restored, and is whole.
    Restored(Restored),
    /// So far, of a keyspace: keys, and bytes of keys and values; and how many keys there may be.
    Keys {
        /// The keyspace.
        keyspace: String,
        /// Keys so far.
        keys: u64,
        /// Bytes of keys and values so far.
        bytes: u64,
        /// Bytes that there are, about; zero if unknown.
        bytes_of: u64,
    },
    /// A keyspace is being followed.
    FollowBegan {
        /// The keyspace.
        keyspace: String,
    },
    /// A keyspace is no longer followed, because it was dropped.
    FollowEnded {
        /// The keyspace.
        keyspace: String,
    },
    /// A followed backup has everything of a keyspace up to a moment.
    Followed {
        /// The keyspace.
        keyspace: String,
        /// The moment, in milliseconds since 1970.
        through_ms: u64,
        /// Changes since the last such event.
        changes: u64,
        /// Bytes that were written since then.
        bytes: u64,
    },
}
