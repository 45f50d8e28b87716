//! History: the versions of keys that a shard keeps, back to its floor.

use bytes::Bytes;
use dkv_base::id::{LeaseId, Revision, Stamp};
use serde::{Deserialize, Serialize};

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
