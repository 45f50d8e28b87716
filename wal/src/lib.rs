//! The write-ahead log of a node: one log that all its Raft groups share.
//!
//! Callers stage records: entries, votes, truncations, purges. A single writer takes all staged
//! records, writes them as one *frame* with one write and one sync, and then calls all waiting
//! callbacks. Meanwhile the next frame collects, so under load one sync serves many writes of many
//! groups, and an idle log syncs at once: no caller ever waits for a timer. With one log for all
//! groups the number of syncs does not depend on the number of shards.
//!
//! The log is a sequence of *segment* files of fixed size, filled with zeros before they are used
//! (that halves the time of a sync) and deleted oldest first, once all their entries are purged or
//! truncated; a few of the files are used again. The first frame of each restates everything but
//! the entries, so an old segment is needed for its entries only. A group that does not purge keeps
//! segments alive for all; [`WalStats::oldest`] names it.
//!
//! ```text
//!  callers ── stage ──> core (one lock) ── plan ──> writer ── write, sync ──> segment files
//!                         │    ^                      │                         ^
//!                         │    └────── written ───────┤                         │
//!                         └── job ──> segment_manager ┼── prepare, delete ──────┘
//!  callers <───────────── done ───────────────────────┘
//! ```
//!
//! Read in this order: [`options`], `format` (the bytes), `groups` (the state of each group),
//! `segments` (the table of files), `core` (staged records and the next frame), `writer`,
//! `segment_manager`, `replay` (how a log is read back, and how it tells a torn tail from damage),
//! `read`, and [`handle`].
//!
//! Rules that always hold:
//! * a callback receives `Ok` only after the records that it waits for have been synced, and
//!   callbacks are called in the order of the calls;
//! * an error of a write or a sync is never retried: the log is dead from then on, all waiting and
//!   all later callers get an error, and the fatal hook is called once;
//! * a lack of room for the *next segment* is the one condition that passes: nothing was written to
//!   it;
//! * a log that may have lost acknowledged data does not open.
//!
//! Deliberately missing: any knowledge of Raft (terms and votes are opaque), compression,
//! encryption, and removal of anything but the oldest segment. The log cannot tell an emptied
//! directory from a new one; [`WalOptions::must_exist`] is for a caller that can.

#![forbid(unsafe_code)]

pub mod disk;
pub mod handle;
pub mod options;

mod core;
mod error;
mod format;
mod group_log;
mod groups;
mod segment_manager;
mod read;
mod replay;
mod segments;
mod shared;
#[cfg(test)]
mod tests;
mod timing;
mod writer;

use std::io;
use std::time::Duration;

pub use error::WalError;
pub use format::is_segment_name;
pub use group_log::GroupLog;
pub use group_log::bounds;
pub use handle::Wal;
pub use options::{LogState, WalOptions, WalStats};
pub use read::Reading;
pub use segment_manager::{SegmentManager, SegmentManagerStep};
pub use writer::{Writer, WriterStep};

/// A callback that is called once: when its records are durable, or with the reason why their
/// durability will never be known.
///
/// It runs on the writer's thread, so it must be short and must not wait for the log. It may call
/// the log, and it may drop the last handle.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Returns the duration of the next write, where time is simulated.
pub type WriteDelay = Box<dyn FnMut() -> Duration + Send>;

/// A callback that is called at most once, with the reason, when the log stops for good: the
/// process is then unfit to go on.
pub type FatalHook = Box<dyn FnOnce(&str) + Send>;
