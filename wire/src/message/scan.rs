//! Scans: the keys of a shard, page by page.

use std::ops::Bound;

use bytes::Bytes;
use dkv_base::id::{LeaseId, Revision};
use serde::{Deserialize, Serialize};

use super::history::{Version, VersionExpiry};

/// A range of the keys of a shard, in the order of their bytes, and the size of a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Prefix of all keys.
    pub prefix: Bytes,
    /// The keys after this one, which need not exist; empty for all keys.
    pub after: Bytes,
    /// Most keys in a page, capped at [`SCAN_KEYS_MAX`](crate::limits::SCAN_KEYS_MAX). Zero asks
    /// for the receipt alone; a page at a cut has at least one key.
    pub keys_max: u32,
    /// A page ends once it has this many bytes of keys and values, and holds at least one pair.
    /// Capped at [`SCAN_BYTES_MAX`](crate::limits::SCAN_BYTES_MAX).
    pub bytes_max: u32,
    /// Whether to return values too.
    pub values: bool,
}

impl Span {
    /// The range of keys from the start of this span on. The keys with its prefix come first in it.
    pub fn range(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let from = match self.after.as_ref() {
            after if after >= self.prefix.as_ref() && !after.is_empty() => Bound::Excluded(after),
            _ => Bound::Included(self.prefix.as_ref()),
        };
        (from, Bound::Unbounded)
    }
}

/// A key that a scan found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// The key.
    pub key: Bytes,
    /// The revision of the write that stored the value; zero while that write waits in the outbox
    /// of the answering node.
    pub revision: Revision,
    /// The value, if the request asks for values.
    pub value: Option<Bytes>,
    /// The revision of the write that created the key; zero while the write waits.
    pub created: Revision,
    /// The number of writes of the key since it was created; zero while the write waits.
    pub version: u64,
    /// The lease that the key is attached to; zero if there is none.
    pub lease: LeaseId,
    /// The expiry of its own that the key has.
    pub expiry: Option<VersionExpiry>,
}

impl Pair {
    /// Creates a pair without what else is known of the key.
    pub fn new(key: Bytes, revision: Revision, value: Option<Bytes>) -> Self {
        let (created, version, lease) = (Revision(0), 0, LeaseId::default());
        Self { key, revision, value, created, version, lease, expiry: None }
    }
}

/// One page of a scan, which shows a shard at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// In the order of their keys.
    pub pairs: Vec<Pair>,
    /// Whether there are more keys after these.
    pub more: bool,
}

/// The keys of a range as [`RequestBody::Range`](super::RequestBody::Range) asks for them, or the
/// first of them, at one revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangePage {
    /// The keys that pass the filters, in order.
    pub keys: Vec<(Bytes, Version)>,
    /// Whether there are more that pass the filters after these.
    pub more: bool,
    /// The number of all keys of the range, whatever the filters; zero if it was not asked for.
    pub count: u64,
    /// The revision at which the keys were read.
    pub at: Revision,
}
