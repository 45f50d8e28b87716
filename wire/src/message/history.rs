//! History: the versions of keys that a shard keeps, back to its floor.

use bytes::Bytes;
use dkv_base::id::{LeaseId, Revision, Stamp};
use serde::{Deserialize, Serialize};

/// A moment in the history of a shard: its state at a revision, without the writes that are stamped
/// after the moment.
///
/// The cuts of all shards at one moment are a snapshot of the whole: no write that began after the
/// snapshot is in them, and every write that was acknowledged before it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// The revision. What the shard applied later does not count, whatever its stamp.
    pub revision: Revision,
    /// The shard has to keep its history from this revision on: the writes up to it are stamped at
    /// the moment or before.
    pub base: Revision,
    /// The moment.
    pub moment: Stamp,
}

impl Cut {
    /// Returns the whole state at a revision.
    pub fn at(revision: Revision) -> Self {
        Self { revision, base: revision, moment: Stamp(u64::MAX) }
    }
}

impl From<Revision> for Cut {
    fn from(revision: Revision) -> Self {
        Self::at(revision)
    }
}

/// One version of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The revision of the write that made this version.
    pub revision: Revision,
    /// The revision of the write that created the key; that of this version for a deletion.
    pub created: Revision,
    /// The number of writes of the key since it was created, this one included; zero for a
    /// deletion.
    pub version: u64,
    /// The stamp of the write, which tells when it was made.
    pub stamp: Stamp,
    /// The value; `None` if the write deleted the key.
    pub value: Option<Bytes>,
    /// The lease that the write attached the key to; zero if there is none, also of a key with an
    /// expiry of its own.
    pub lease: LeaseId,
    /// The expiry of its own that the key had.
    pub expiry: Option<VersionExpiry>,
}

/// The expiry of a version of a key, if it is not written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionExpiry {
    /// The time to live that the put named, in milliseconds.
    pub ttl_ms: u64,
    /// The time that was left of it when this answer was made, in milliseconds; zero if it had
    /// passed.
    pub remaining_ms: u64,
}

/// Versions of one key, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// The versions.
    pub versions: Vec<Version>,
    /// Whether there are older ones.
    pub more: bool,
    /// The earliest revision at which the shard can still be read.
    pub floor: Revision,
}
