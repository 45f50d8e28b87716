//! The state of a node: what its replicas have applied, and what it stores of that on disk.
//!
//! Each group on a node has one state, produced by applying the entries of the group's log in
//! order. The state of a shard ([`ShardState`]) is a table of keys and a table of sessions; the
//! state of the control group ([`Directory`]) records which nodes and groups exist. Both are plain
//! values: entries go in, results come out, and every replica that applied the same entries has the
//! same state.
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
//! The [`engine`] writes changed rows in the background, and always brings the stored state from
//! one consistent moment to another. [`placement`] decides where replicas should be, and
//! [`reconciler`] decides what a group's leader does next to get there; both are pure functions of
//! their inputs.
//!
//! Deliberately missing: Raft. This crate does not know how entries get into the log, and its owner
//! does not know what they contain.

#![forbid(unsafe_code)]

pub mod batch;
pub mod command;
pub mod limits;
pub mod rows;

mod attachments;
mod clock;
mod attempt_rows;
mod attempts;
mod digest;
mod history;
mod lease;
mod locks;
mod tombstones;
mod value_cache;
mod scan;
mod walk;
mod range;
mod planned_reads;
mod reads_at;
mod ended_sessions;
mod session;
mod sessions;
mod shard;
mod foreseen;
mod transaction_results;

pub mod directory;
pub mod placement;
pub mod reconciler;

pub mod engine;
mod group;

#[cfg(test)]
mod tests;

pub use batch::{Batch, BatchBuilder, CorruptBatch, stamp_batch};
pub use clock::LogClock;
pub use command::{AtLock, CommandResult, Foreseen, check_key, check_lease, check_value, validate};
pub use directory::{
    Announcement, Directory, DirectoryCommand, DirectoryEntry, DirectoryResult, Keyspace, Member,
    Observed, Recovery,
};
pub use engine::{
    Completed, Engine, EngineError, EngineOptions, GroupStore, Installer, MemoryStore,
    SnapshotReader,
};
pub use group::{Applied, CorruptEntry, GroupState};
pub use range::{FoundRange, RangingAt};
pub use reads_at::{
    Changed, ChangedKeys, FoundChange, FoundVersion, NotKept, Sought, VersionValue,
};
pub use rows::{Changes, Counts, Generation, Meta, Origin, Row};
pub use scan::{Listed, ListedKey, ListedValue, Waiting};
pub use shard::ShardState;
pub use shard::commit::HomeRecord;
pub use shard::leases::{FoundExpiry, FoundLease};
pub use shard::needed::Needed;
pub use shard::transactions::has_transactions;
pub use transaction_results::{FoundResult, ResultsAt};
pub use value_cache::Found;
pub use walk::ListingAt;
