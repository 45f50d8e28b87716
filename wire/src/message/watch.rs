//! Watches: the changes of a range of keys in one shard, as they happen.
//!
//! A watch has a stream of its own. It begins with [`Opening::Watch`](super::Opening::Watch) and a
//! [`WatchRequest`]; then the node sends [`WatchFrame`]s until either end closes the stream. All
//! changes of one revision come in one frame, and frames in the order of revisions. A watch that
//! goes on elsewhere asks for what comes after [`WatchFrame::through`].

use bytes::Bytes;
use dkv_base::id::{GroupId, Revision};
use serde::{Deserialize, Serialize};

use super::history::Version;
use super::keys::KeyRange;
use super::reply::Refusal;
use crate::user::User;

/// What a watch is to show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchRequest {
    /// The shard.
    pub shard: GroupId,
    /// The keys.
    pub keys: KeyRange,
    /// Changes after this revision; `None` for those after the node's current one.
    pub after: Option<Revision>,
    /// Whether each change comes with the version before it.
    pub previous: bool,
    /// The user for whom the sender asks, as in [`Request`](super::Request).
    pub user: Option<User>,
}

/// One change of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The key.
    pub key: Bytes,
    /// The version that the change made.
    pub version: Version,
    /// The version before it, if it was asked for, existed and is still kept. Missing too from the
    /// changes of a transaction that are too large together for a frame.
    pub previous: Option<Version>,
}

/// A message to a watcher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WatchFrame {
    /// Changes, and the revision through which the watch has now shown everything. Without changes
    /// it marks progress.
    Changes {
        /// In the order of revisions; several may have the same one.
        changes: Vec<Change>,
        /// The watch has shown every change up to this revision.
        through: Revision,
    },
    /// The watch ends.
    Ended(Refusal),
}

impl WatchFrame {
    /// Returns the revision through which the watch has shown everything.
    pub fn through(&self) -> Option<Revision> {
        match self {
            Self::Changes { through, .. } => Some(*through),
            Self::Ended(_) => None,
        }
    }
}
