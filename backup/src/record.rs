//! Records: keys, changes and leases, as a chunk holds them.

use bytes::Bytes;
use dkv_api::{KeyChange, Pair, VersionExpiry};
use dkv_base::id::LeaseId;
use dkv_wire::codec::{self, DecodeError};
use serde::{Deserialize, Serialize};

/// What a key is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Attachment {
    /// A lease.
    Lease(u64),
    /// An expiry of its own.
    Expiry {
        /// When it ends, in milliseconds since 1970.
        deadline_ms: u64,
    },
}

/// A key with its value and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Put {
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
    pub(crate) attachment: Option<Attachment>,
}

/// The place of a change in the log of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) shard: u32,
    pub(crate) revision: u64,
    pub(crate) stamp: u64,
}

/// A record of a chunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Record {
    /// A key of a page.
    Key(Put),
    /// A change that put a key.
    Put(Place, Put),
    /// A change that deleted a key.
    Delete(Place, Bytes),
    /// A lease at a cut.
    Lease {
        /// Its id.
        id: u64,
        /// The time that each keep-alive gives it, in milliseconds.
        ttl_ms: u64,
    },
}

fn attachment(lease: LeaseId, expiry: Option<VersionExpiry>, now_ms: u64) -> Option<Attachment> {
    if let Some(VersionExpiry { remaining_ms, .. }) = expiry {
        let deadline_ms = now_ms.saturating_add(remaining_ms);
        return Some(Attachment::Expiry { deadline_ms });
    }
    (lease != LeaseId::default()).then_some(Attachment::Lease(lease.0))
}

impl Record {
    /// Returns the record of a key in a page that was read now.
    pub(crate) fn of_pair(pair: Pair, now_ms: u64) -> Self {
        let Pair { key, value, lease, expiry, .. } = pair;
        Self::Key(Put {
            key,
            value: value.unwrap_or_default(),
            attachment: attachment(lease, expiry, now_ms),
        })
    }

    /// Returns the record of a change that was shown now.
    pub(crate) fn of_change(change: KeyChange, now_ms: u64) -> Self {
        let KeyChange { shard, key, value, revision, stamp, .. } = change;
        let place = Place { shard: shard.0, revision: revision.0, stamp: stamp.0 };
        let Some(value) = value else { return Self::Delete(place, key) };
        let attachment = attachment(change.lease, change.expiry, now_ms);
        Self::Put(place, Put { key, value, attachment })
    }

    /// Returns the bytes of key and value.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Key(put) | Self::Put(_, put) => (put.key.len() + put.value.len()) as u64,
            Self::Delete(_, key) => key.len() as u64,
            Self::Lease { .. } => 16,
        }
    }

    /// Appends the encoded record.
    pub(crate) fn encode_into(&self, buffer: Vec<u8>) -> Vec<u8> {
        codec::encode_into(self, buffer)
    }
}

/// Decodes the records of a chunk, one after the other.
#[derive(Debug)]
pub(crate) struct Records {
    rest: Bytes,
}

impl Records {
    pub(crate) fn new(body: Bytes) -> Self {
        Self { rest: body }
    }
}

impl Iterator for Records {
    type Item = Result<Record, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match codec::decode_prefix::<Record>(&self.rest) {
            Ok((record, rest)) => {
                let taken = self.rest.len() - rest.len();
                self.rest = self.rest.slice(taken..);
                Some(Ok(record))
            }
            Err(error) => {
                self.rest = Bytes::new();
                Some(Err(error))
            }
        }
    }
}
