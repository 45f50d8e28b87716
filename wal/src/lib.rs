//! The write-ahead log of a node: one log that all its Raft groups share.
//!
//! Callers stage records: entries, votes, truncations, purges. A single writer takes whatever is
//! staged, puts it down as one *frame* with one write and one sync, and then tells all who waited.
//! While it does so the next frame collects, so under load one sync serves many writes of many
//! groups, and an idle log syncs at once: nobody ever waits by a timer. One log for all groups is
//! what keeps the number of syncs independent of the number of shards.
//!
//! The log is a sequence of *segment* files of fixed size, filled with zeros before they are used
//! (that halves the time of a sync) and deleted oldest first, once all their entries are purged or
//! truncated; a few of the files are used again. The first frame of each restates what else there
//! is to know, so an old segment is needed for its entries only. A group that does not purge keeps
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
//! Read in this order: [`options`], `format` (the bytes), `groups` (what is known), `segments` (the
//! table of files), `core` (what is staged and what comes next), `writer`, `segment_manager`,
//! `replay` (how a log is read back, and how a torn tail is told from damage), `read`, and
//! [`handle`].
//!
//! Rules that hold whatever happens:
//! * a callback is told `Ok` only after what it waits for has been synced, and callbacks are called
//!   in the order of the calls;
//! * an error of a write or a sync is never retried: the log is dead from then on, all who wait and
//!   all who come later get an error, and the fatal hook is called once;
//! * no room for the *next segment* is the one condition that passes: nothing was written to it;
//! * a log that may have lost acknowledged data does not open.
//!
//! Deliberately missing: any knowledge of Raft (terms and votes are opaque), compression,
//! encryption, and removal of anything but the oldest segment. The log cannot
//! tell an emptied directory from a new one; [`WalOptions::must_exist`] is for a caller who can.

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
pub use group_log::GroupLog;
pub use group_log::bounds;
pub use handle::Wal;
pub use options::{LogState, WalOptions, WalStats};
pub use read::Reading;
pub use segment_manager::{SegmentManager, SegmentManagerStep};
pub use writer::{Writer, WriterStep};

/// Called once what it was given with is durable, or with the reason why that will never be known.
///
/// It runs on the writer's thread, so it must be short and must not wait for the log. It may call
/// the log, and it may drop the last handle.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Says how long the next write takes, where time is simulated.
pub type WriteDelay = Box<dyn FnMut() -> Duration + Send>;

/// Called at most once, with the reason, when the log stops for good: the process is unfit to go
/// on.
pub type FatalHook = Box<dyn FnOnce(&str) + Send>;
