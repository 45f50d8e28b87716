//! The messages of etcd that are values in its database.

use bytes::Bytes;

/// A version of a key: `mvccpb.KeyValue`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct KeyValue {
    /// The key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Revision of the write that created the key.
    #[prost(int64, tag = "2")]
    pub create_revision: i64,
    /// Revision of the write of this version.
    #[prost(int64, tag = "3")]
    pub mod_revision: i64,
    /// Number of writes since the key was created.
    #[prost(int64, tag = "4")]
    pub version: i64,
    /// The value.
    #[prost(bytes = "bytes", tag = "5")]
    pub value: Bytes,
    /// The lease that the key is attached to; zero without one.
    #[prost(int64, tag = "6")]
    pub lease: i64,
}

/// A lease: `leasepb.Lease`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Lease {
    /// Its id.
    #[prost(int64, tag = "1")]
    pub id: i64,
    /// Time that each keep-alive gives it, in seconds.
    #[prost(int64, tag = "2")]
    pub ttl: i64,
    /// Time that it had left at its last checkpoint, in seconds; zero if there was none.
    #[prost(int64, tag = "3")]
    pub remaining_ttl: i64,
}
