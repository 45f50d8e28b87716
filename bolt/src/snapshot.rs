//! etcd's snapshot files: what its database holds, and the checksum at the end.
//!
//! The bucket `key` has a row for each version of each key, in the order of revisions; `lease` has
//! the leases, `meta` what the member knows of its log and of compactions.

mod messages;
mod read;
mod spool;
#[cfg(test)]
mod tests;

pub use self::messages::{KeyValue, Lease};
pub use self::read::{Checksum, SnapshotFile};
pub use self::spool::{Members, Spool, SpooledSnapshot};

/// Bytes of the checksum.
const CHECKSUM_BYTES: u64 = 32;
/// Bytes of the key of a version; one more if the version is a deletion.
const ROW_KEY_BYTES: usize = 17;

/// The keys of the bucket `meta`.
mod meta {
    /// The index of the log up to which the database goes.
    pub(super) const INDEX: &str = "consistent_index";
    /// The term of that index. Since 3.5.
    pub(super) const TERM: &str = "term";
    /// The voters of the group. Since 3.5.
    pub(super) const MEMBERS: &str = "confState";
    /// The version of this layout. Since 3.6.
    pub(super) const VERSION: &str = "storageVersion";
    /// The revision to which a compaction is begun.
    pub(super) const COMPACTING: &str = "scheduledCompactRev";
    /// The revision to which all is compacted.
    pub(super) const COMPACTED: &str = "finishedCompactRev";
}

/// A revision of a version: that of its transaction, and its place in there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct RowRevision {
    main: i64,
    sub: i64,
}

impl RowRevision {
    /// Reads the first bytes of a row's key; `None` if it is none.
    fn read(key: &[u8]) -> Option<Self> {
        let (main, rest) = key.split_first_chunk::<8>()?;
        let (sub, rest) = rest.strip_prefix(b"_")?.split_first_chunk::<8>()?;
        let revision = Self { main: i64::from_be_bytes(*main), sub: i64::from_be_bytes(*sub) };
        let known = rest.is_empty() || rest == b"t";
        (known && revision.main >= 0 && revision.sub >= 0).then_some(revision)
    }

    fn key(self) -> [u8; ROW_KEY_BYTES] {
        let mut key = [b'_'; ROW_KEY_BYTES];
        key[..8].copy_from_slice(&self.main.to_be_bytes());
        key[9..].copy_from_slice(&self.sub.to_be_bytes());
        key
    }
}
