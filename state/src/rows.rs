//! The state in its serialized form: rows of five tables, and one meta row that says which moment
//! the rows belong to.
//!
//! The engine stores rows, a snapshot carries them, and both check them against the hash in the
//! meta row. The layouts here are therefore both a file format and a protocol: they change only
//! together with the first byte of the meta row.
//!
//! ```text
//! table      key           value
//! 'd' 100    (empty)       the directory, postcard
//! 'g' 103    the key       stamp u64 le: it was deleted then
//! 'k' 107    the key       revision u64 le, stamp u64 le, value
//! 'o' 111    node id       number u64 le: so much of that node's outbox is here
//! 's' 115    session id    the session, postcard
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use dkv_base::id::{Revision, SessionId, Stamp};
use dkv_base::mutants::{Mutant, planted};
use dkv_wire::codec;
use dkv_wire::message::Stored;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::limits;

/// Version of the layouts; the first byte of the meta row.
const VERSION: u8 = 2;

/// The table that a row belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Table {
    /// The directory, as the single row of the control group.
    Directory = b'd',
    /// The tombstones of a shard: when its keys were deleted.
    Tombstones = b'g',
    /// The keys of a shard.
    Keys = b'k',
    /// The position up to which the shard has taken each node's outbox.
    OutboxPositions = b'o',
    /// The sessions of a shard.
    Sessions = b's',
}

impl Table {
    /// Returns the byte that identifies the table.
    pub fn byte(self) -> u8 {
        self as u8
    }

    /// Returns the table that a byte identifies.
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Directory, Self::Tombstones, Self::Keys, Self::OutboxPositions, Self::Sessions]
            .into_iter()
            .find(|table| table.byte() == byte)
    }
}

/// A row that is not valid in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MalformedRow(pub &'static str);

/// A receiver of rows from the engine or from a snapshot, which can tell at the end whether all of
/// them have arrived.
pub trait RowSink {
    /// Takes one row. No row comes twice.
    ///
    /// # Errors
    /// If no state can contain this row.
    fn row(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), MalformedRow>;

    /// Returns the hash of a state with these rows and with the revision and the clock of `meta`.
    fn hash_with(&self, meta: &Meta) -> u64;

    /// Returns the counts of a state with these rows: keys, their bytes, sessions.
    fn counts(&self) -> Counts;
}

/// The size of a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Keys. The directory counts as one.
    pub keys: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Sessions.
    pub sessions: u64,
}

/// The moment that a set of rows belongs to. Every checkpoint and every snapshot includes one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The caller's name for the last entry that the state includes; opaque here.
    pub applied: Bytes,
    /// The latest revision.
    pub revision: Revision,
    /// The log's clock, in milliseconds: for a shard since its first entry, for the directory since
    /// 1970.
    pub clock_ms: u64,
    /// The latest stamp of a write; shards only.
    pub stamp: Stamp,
    /// The hash of the state.
    pub hash: u64,
    /// The size of the state.
    pub counts: Counts,
}

impl Meta {
    /// Encodes the row, with a version in front and a checksum at the end.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoded = codec::encode_into(self, vec![VERSION]);
        let checksum = xxh3_64(&encoded);
        encoded.extend_from_slice(&checksum.to_le_bytes());
        encoded
    }

    /// Decodes the output of [`encode`](Self::encode).
    ///
    /// # Errors
    /// If the version is unknown, the checksum is wrong, or a bound is exceeded.
    pub fn decode(encoded: &[u8]) -> Result<Self, MalformedRow> {
        let (body, checksum) =
            encoded.split_last_chunk::<8>().ok_or(MalformedRow("the meta row is cut short"))?;
        if xxh3_64(body) != u64::from_le_bytes(*checksum) {
            return Err(MalformedRow("the checksum of the meta row is wrong"));
        }
        let (version, body) =
            body.split_first().ok_or(MalformedRow("the meta row has no version"))?;
        if *version != VERSION {
            return Err(MalformedRow("the meta row is of another version of dkv"));
        }
        let meta: Self =
            codec::decode(body).map_err(|_| MalformedRow("the meta row is malformed"))?;
        if meta.applied.len() > limits::APPLIED_BYTES_MAX {
            return Err(MalformedRow("the applied position is over its limit"));
        }
        Ok(meta)
    }

    /// Checks that `sink` received exactly the rows that this meta row was written with.
    ///
    /// # Errors
    /// Names the difference.
    pub fn check(&self, sink: &impl RowSink) -> Result<(), MalformedRow> {
        if planted(Mutant::HalfSnapshot) {
            return Ok(());
        }
        if sink.counts() != self.counts {
            return Err(MalformedRow("rows are missing or there are too many"));
        }
        if sink.hash_with(self) != self.hash {
            return Err(MalformedRow("the hash of the rows is not the one stored with them"));
        }
        Ok(())
    }
}

/// A stored value and the write that stored it. Cloning shares the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The revision of the write that stored the value.
    pub revision: Revision,
    /// The stamp of that write.
    pub stamp: Stamp,
    /// The value, in an allocation of its own.
    pub value: Arc<[u8]>,
}

impl Row {
    /// Converts the row to the message that answers a read; shares the value.
    pub fn to_stored(&self) -> Stored {
        Stored { value: Bytes::from_owner(Arc::clone(&self.value)), revision: self.revision }
    }

    /// Decodes the value of a row of [`Table::Keys`].
    pub(super) fn decode(value: &[u8]) -> Result<(Revision, Stamp, &[u8]), MalformedRow> {
        let (revision, rest) =
            value.split_first_chunk::<8>().ok_or(MalformedRow("a key has no revision"))?;
        let (stamp, value) =
            rest.split_first_chunk::<8>().ok_or(MalformedRow("a key has no stamp"))?;
        let (revision, stamp) = (u64::from_le_bytes(*revision), u64::from_le_bytes(*stamp));
        Ok((Revision(revision), Stamp(stamp), value))
    }

    /// Encodes the value of a row of [`Table::Keys`].
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut encoded = Vec::with_capacity(16 + self.value.len());
        encoded.extend_from_slice(&self.revision.0.to_le_bytes());
        encoded.extend_from_slice(&self.stamp.0.to_le_bytes());
        encoded.extend_from_slice(&self.value);
        encoded
    }
}

/// A number that tells apart the successive states of a group on this node. Installing a snapshot
/// begins a new generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

/// The rows that changed since the last checkpoint, and the moment that they lead to.
///
/// Keys and values are shared with the state, not copied. A checkpoint either writes all changes or
/// fails; the caller then gives them back to the state they came from.
#[derive(Debug)]
pub struct Changes {
    /// The generation that the state was loaded from; the store refuses changes of an earlier one.
    pub(super) generation: Generation,
    /// Keys; `None` for those that were deleted.
    pub(super) keys: HashMap<Arc<[u8]>, Option<Row>>,
    /// Rows of the small tables, encoded; `None` for those that were removed.
    pub(super) small: Vec<(Table, Vec<u8>, Option<Vec<u8>>)>,
    /// Sessions, encoded; `None` for those that ended.
    pub(super) sessions: Vec<(SessionId, Option<Vec<u8>>)>,
    /// The directory, encoded, if it changed.
    pub(super) directory: Option<Vec<u8>>,
    /// The moment that the changes lead to.
    pub(super) meta: Meta,
}

impl Changes {
    /// Returns the generation of the state that the changes belong to.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Returns the moment that a checkpoint of these changes leads to.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Returns the number of rows that a checkpoint of these changes writes or removes.
    pub fn len(&self) -> usize {
        self.keys.len()
            + self.small.len()
            + self.sessions.len()
            + usize::from(self.directory.is_some())
    }

    /// Returns whether the changes consist of a new moment only.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns whether any value is at least this long.
    pub fn has_value_of(&self, bytes: usize) -> bool {
        self.keys.values().flatten().any(|row| row.value.len() >= bytes)
    }

    /// Returns the approximate size of the rows, in bytes.
    pub fn bytes(&self) -> usize {
        let keys = self
            .keys
            .iter()
            .map(|(key, row)| key.len() + 16 + row.as_ref().map_or(0, |row| row.value.len()));
        let sessions = self.sessions.iter().map(|(_, row)| 16 + row.as_ref().map_or(0, Vec::len));
        let small = self.small.iter();
        let small = small.map(|(_, key, row)| key.len() + row.as_ref().map_or(0, Vec::len));
        keys.sum::<usize>()
            + small.sum::<usize>()
            + sessions.sum::<usize>()
            + self.directory.as_ref().map_or(0, Vec::len)
            + self.meta.applied.len()
    }
}

/// The record of when a key was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tombstone {
    /// The time of the deletion by the network's clock, which orders writes.
    pub(super) stamp: Stamp,
    /// The time of the deletion by the log's clock, in milliseconds; the tombstone expires by it.
    pub(super) dug_ms: u64,
}

impl Tombstone {
    /// Encodes the value of the tombstone's row.
    pub(super) fn encode(self) -> Vec<u8> {
        [self.stamp.0.to_le_bytes(), self.dug_ms.to_le_bytes()].concat()
    }

    /// Decodes the value of a tombstone's row.
    pub(super) fn decode(row: &[u8]) -> Result<Self, MalformedRow> {
        let malformed = MalformedRow("a tombstone is not of 16 bytes");
        let (stamp, dug_ms) = row.split_first_chunk::<8>().ok_or(malformed)?;
        let dug_ms = dug_ms.try_into().map_err(|_| malformed)?;
        let (stamp, dug_ms) = (Stamp(u64::from_le_bytes(*stamp)), u64::from_le_bytes(dug_ms));
        Ok(Self { stamp, dug_ms })
    }

    /// Returns the number that represents the tombstone in the digest.
    pub(super) fn number(self) -> u64 {
        xxh3_64_with_seed(&self.stamp.0.to_le_bytes(), self.dug_ms)
    }
}
