//! Changes of shards, as watches, reads at a revision and others report them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// All changes of one revision of a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevisionChanges {
    /// The shard.
    pub shard: u32,
    /// The revision.
    pub revision: u64,
    /// The new value of each key that changed; `None` if it was deleted.
    pub keys: BTreeMap<String, Option<String>>,
}

/// What a watcher noted about its watch of one shard. Notes of one watcher are in the order in
/// which it made them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchNote {
    /// The watcher.
    pub watcher: u64,
    /// The shard.
    pub shard: u32,
    /// The event.
    pub event: WatchEvent,
}

/// An event of a watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum WatchEvent {
    /// The watch was opened, or opened again.
    Opened {
        /// It is to show the changes after this revision.
        after: u64,
        /// The keys; all keys if there is no range.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        keys: Option<WatchedKeys>,
        /// Whether each change comes with the version before it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        previous: bool,
    },
    /// It showed a change.
    Change {
        /// The revision.
        revision: u64,
        /// The key.
        key: String,
        /// The new value; `None` if the key was deleted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<String>,
        /// The version before, if it was shown.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        previous: Option<PreviousVersion>,
    },
    /// It said that it has shown everything through this revision.
    Progress(u64),
    /// It gave a token: a watch that begins there shows what this one has not shown.
    Token(u64),
    /// It ended because the history begins at this revision.
    Compacted(u64),
}

/// The version of a key before a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreviousVersion {
    /// The revision of the write that made it.
    pub revision: u64,
    /// The value.
    pub value: String,
}

/// The keys of a watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WatchedKeys {
    /// One key.
    Key(String),
    /// All keys that begin so.
    Prefix(String),
    /// All keys from the first to before the second.
    Range(String, String),
}

impl WatchedKeys {
    /// Returns whether a key is among them.
    pub fn contains(&self, key: &str) -> bool {
        match self {
            Self::Key(only) => key == only,
            Self::Prefix(prefix) => key.starts_with(prefix.as_str()),
            Self::Range(from, to) => key >= from.as_str() && key < to.as_str(),
        }
    }
}

/// A read of a key as it was at a revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PastRead {
    /// The client.
    pub client: u64,
    /// The shard.
    pub shard: u32,
    /// The key.
    pub key: String,
    /// The revision that was asked for.
    pub at: u64,
    /// When the call began, in nanoseconds.
    pub start_ns: u64,
    /// When the answer came.
    pub end_ns: u64,
    /// The answer.
    pub answer: PastAnswer,
}

/// The answer to a [`PastRead`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum PastAnswer {
    /// The key had a value.
    Value {
        /// The value.
        value: String,
        /// The revision of the write that stored it.
        revision: u64,
    },
    /// The key did not exist.
    Absent,
    /// The history begins at this revision, which is later.
    Compacted(u64),
}

/// The versions of a key, as a shard listed them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionList {
    /// The client.
    pub client: u64,
    /// The shard.
    pub shard: u32,
    /// The key.
    pub key: String,
    /// When the call began, in nanoseconds.
    pub start_ns: u64,
    /// When the answer came.
    pub end_ns: u64,
    /// The revision at which the history begins.
    pub floor: u64,
    /// Revision and value of each version, newest first; no value of a deletion. They are all back
    /// to the one that the key had at the floor.
    pub versions: Vec<(u64, Option<String>)>,
}
