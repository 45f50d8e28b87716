//! The state of a node: what its replicas have applied, and what they keep of it on disk.
//!
//! Each group of a node has one state, made by applying the entries of its log in order. A shard's
//! ([`ShardState`]) is a table of keys and a table of sessions; the control group's ([`Directory`])
//! says which nodes and groups there are. Both are plain values: entries in, results out, equal on
//! every replica that applied the same entries.
//!
//! ```text
//!             apply                take_changes              checkpoint
//! log entry --------> state in memory --------> Changes --------------> Engine
//!                          ^                                              |  snapshot
//!                          |  load                                        v
//!                          +------------------------------- Engine <-- chunks (another node)
//!                                                             install
//! ```
//!
//! The [`engine`] writes what changed, in the background, and only ever a whole moment of the
//! state. [`placement`] wishes where replicas shall be, [`reconciler`] says what a group's leader
//! does next about it; both are plain functions of what is known.
//!
//! Deliberately missing: Raft. This module does not know how entries come to be in the log, and its
//! owner does not know what is in them.

#![forbid(unsafe_code)]

pub mod batch;
pub mod command;
pub mod limits;
pub mod rows;

mod clock;
mod digest;
mod tombstones;
mod value_cache;
mod scan;
mod session;
mod sessions;
mod shard;

pub mod directory;
pub mod placement;
pub mod reconciler;

pub mod engine;
mod group;

#[cfg(test)]
mod tests;

pub use batch::{Batch, BatchBuilder, CorruptBatch};
pub use clock::LogClock;
pub use command::{CommandResult, check_key, check_value, validate};
pub use directory::{
    Announcement, Directory, DirectoryCommand, DirectoryEntry, DirectoryResult, Member, Observed,
};
pub use engine::{
    Completed, Engine, EngineError, EngineOptions, GroupStore, Installer, MemoryStore,
    SnapshotReader,
};
pub use group::{Applied, CorruptEntry, GroupState};
pub use rows::{Changes, Counts, Generation, Meta, Row};
pub use scan::{Listed, ListedKey, ListedValue, Waiting};
pub use shard::ShardState;
pub use value_cache::Found;
