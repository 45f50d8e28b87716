//! The snapshot files of etcd, read and written: what `etcdctl snapshot save` makes and `etcdctl
//! snapshot restore` takes.
//!
//! Such a file is a bbolt database, and a SHA-256 of it at the end. [`Database`] reads any bbolt
//! database, [`Plan`] writes one in a single pass. [`SnapshotFile`] and [`Spool`] know what etcd
//! keeps in it.
//!
//! The readers expect hostile bytes: every offset, count and depth is checked, a page is read once,
//! and what is in memory at a time is bounded. All I/O goes through [`std::io`]; nothing here opens
//! a file.
//!
//! Deliberately missing: changing a database in place, nested buckets, and users and roles of etcd.
#![forbid(unsafe_code)]
#![deny(missing_docs, rustdoc::broken_intra_doc_links)]

mod error;
mod format;
mod read;
mod snapshot;
mod write;

pub use error::BoltError;
pub use read::{Bucket, Database, Entries, Entry};
pub use snapshot::{Checksum, KeyValue, Lease, Members, SnapshotFile, Spool, SpooledSnapshot};
pub use write::{Plan, Tree, TreeWriter};
