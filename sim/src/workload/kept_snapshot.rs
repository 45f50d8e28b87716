//! A snapshot that a caller has read, and is to read again.

use std::collections::BTreeMap;

use bytes::Bytes;
use dkv_api::SnapshotToken;

/// Values and revisions by key.
pub(super) type Contents = BTreeMap<Bytes, (Bytes, u64)>;

/// A snapshot that is to be read again.
pub(super) struct KeptSnapshot {
    pub(super) token: SnapshotToken,
    pub(super) contents: Contents,
}
