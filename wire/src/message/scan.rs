//! Scans: the keys of a shard, page by page.

use std::ops::Bound;

use bytes::Bytes;
use dkv_base::id::Revision;
use serde::{Deserialize, Serialize};

/// Some of the keys of a shard, in the order of their bytes, and how much of them makes a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// They begin with this.
    pub prefix: Bytes,
    /// They come after this key, which need not exist; empty for all.
    pub after: Bytes,
    /// Most keys of a page; what is over [`SCAN_KEYS_MAX`](crate::limits::SCAN_KEYS_MAX) is taken
    /// to be that.
    pub keys_max: u32,
    /// A page ends when it has so many bytes of keys and values, and holds one pair at least; over
    /// [`SCAN_BYTES_MAX`](crate::limits::SCAN_BYTES_MAX) is taken to be that.
    pub bytes_max: u32,
    /// Whether values are wanted too.
    pub values: bool,
}

impl Span {
    /// The keys that there are from where it begins on, in the order of their bytes; those that
    /// begin with its prefix come first.
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
    /// The write that stored its value; zero while that waits in the outbox of the node that
    /// answers.
    pub revision: Revision,
    /// The value, if it was asked for.
    pub value: Option<Bytes>,
}

/// A part of a scan: what a shard had at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// In the order of their keys.
    pub pairs: Vec<Pair>,
    /// Whether there were more keys after these.
    pub more: bool,
}
