//! What the state is made of outside of memory: rows of five tables, and one meta row that says
//! which moment they are of.
//!
//! The engine stores rows, a snapshot carries them, and both check them against the hash in the
//! meta row. The layouts here are therefore a file format and a protocol: they change only together
//! with the first byte of the meta row.
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

/// Version of the layouts, first byte of the meta row.
const VERSION: u8 = 2;

/// Which table a row belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Table {
    /// The one row of the control group.
    Directory = b'd',
    /// When keys of a shard were deleted.
    Tombstones = b'g',
    /// The keys of a shard.
    Keys = b'k',
    /// How far each node's outbox was taken.
    OutboxPositions = b'o',
    /// The sessions of a shard.
    Sessions = b's',
}

impl Table {
    /// The byte that stands for it.
    pub fn byte(self) -> u8 {
        self as u8
    }

    /// The table that a byte stands for.
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Directory, Self::Tombstones, Self::Keys, Self::OutboxPositions, Self::Sessions]
            .into_iter()
            .find(|table| table.byte() == byte)
    }
}

/// A row that cannot be one of its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MalformedRow(pub &'static str);

/// Takes rows in, from the engine or from a snapshot, and knows at the end whether they are all
/// there.
pub trait RowSink {
    /// Takes one row. No row comes twice.
    ///
    /// # Errors
    /// If no state has such a row.
    fn row(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), MalformedRow>;

    /// The hash of a state of these rows, with the revision and the clock of `meta`.
    fn hash_with(&self, meta: &Meta) -> u64;

    /// The counts that such a state has: keys, their bytes, sessions.
    fn counts(&self) -> Counts;
}

/// How much a state holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Keys. The directory counts as one.
    pub keys: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Sessions.
    pub sessions: u64,
}

/// Which moment a set of rows is of. It goes with every checkpoint and every snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The caller's name for the last entry that is in the state; opaque here.
    pub applied: Bytes,
    /// The latest revision.
    pub revision: Revision,
    /// The log's clock, in milliseconds: of a shard since its first entry, of the directory since
    /// 1970.
    pub clock_ms: u64,
    /// The latest stamp of a write; of a shard.
    pub stamp: Stamp,
    /// The hash of the state.
    pub hash: u64,
    /// How much it holds.
    pub counts: Counts,
}

impl Meta {
    /// As bytes with a version in front and a checksum behind.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoded = codec::encode_into(self, vec![VERSION]);
        let checksum = xxh3_64(&encoded);
        encoded.extend_from_slice(&checksum.to_le_bytes());
        encoded
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// If the version is another, the checksum is wrong, or a bound is exceeded.
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

    /// Checks that `sink` took in exactly the rows that this was written with.
    ///
    /// # Errors
    /// With what differs.
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

/// A value in the table, and the write that stored it. Cloning shares the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The write that stored it.
    pub revision: Revision,
    /// When that was.
    pub stamp: Stamp,
    /// The value, in an allocation of its own.
    pub value: Arc<[u8]>,
}

impl Row {
    /// As the message that answers a read; shares the value.
    pub fn to_stored(&self) -> Stored {
        Stored { value: Bytes::from_owner(Arc::clone(&self.value)), revision: self.revision }
    }

    /// Splits the value of a row of [`Table::Keys`].
    pub(super) fn decode(value: &[u8]) -> Result<(Revision, Stamp, &[u8]), MalformedRow> {
        let (revision, rest) =
            value.split_first_chunk::<8>().ok_or(MalformedRow("a key has no revision"))?;
        let (stamp, value) =
            rest.split_first_chunk::<8>().ok_or(MalformedRow("a key has no stamp"))?;
        let (revision, stamp) = (u64::from_le_bytes(*revision), u64::from_le_bytes(*stamp));
        Ok((Revision(revision), Stamp(stamp), value))
    }

    /// The value of a row of [`Table::Keys`].
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut encoded = Vec::with_capacity(16 + self.value.len());
        encoded.extend_from_slice(&self.revision.0.to_le_bytes());
        encoded.extend_from_slice(&self.stamp.0.to_le_bytes());
        encoded.extend_from_slice(&self.value);
        encoded
    }
}

/// Which of the states of a group, over its life on this node, something belongs to. An installed
/// snapshot begins a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

/// What changed since the last checkpoint, and the moment that it leads to.
///
/// Keys and values are shared with the state, not copied. A checkpoint either takes it as a whole
/// or fails; then it goes back to where it came from.
#[derive(Debug)]
pub struct Changes {
    /// The generation that the state was loaded from: changes of an earlier one are refused.
    pub(super) generation: Generation,
    /// Keys, with nothing for those that were deleted.
    pub(super) keys: HashMap<Arc<[u8]>, Option<Row>>,
    /// Rows of the small tables, encoded, with nothing for those that went.
    pub(super) small: Vec<(Table, Vec<u8>, Option<Vec<u8>>)>,
    /// Sessions, encoded, with nothing for those that ended.
    pub(super) sessions: Vec<(SessionId, Option<Vec<u8>>)>,
    /// The directory, encoded, if it changed.
    pub(super) directory: Option<Vec<u8>>,
    /// The moment.
    pub(super) meta: Meta,
}

impl Changes {
    /// The state that they belong to.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The moment that a checkpoint of these changes leads to.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Rows that a checkpoint of these changes writes or removes.
    pub fn len(&self) -> usize {
        self.keys.len()
            + self.small.len()
            + self.sessions.len()
            + usize::from(self.directory.is_some())
    }

    /// Whether there is nothing but a new moment.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a value is this long.
    pub fn has_value_of(&self, bytes: usize) -> bool {
        self.keys.values().flatten().any(|row| row.value.len() >= bytes)
    }

    /// Bytes that the rows come to, about.
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

/// When a key was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tombstone {
    /// By the network's clock: what orders writes.
    pub(super) stamp: Stamp,
    /// By the log's clock, in milliseconds: what ends the tombstone.
    pub(super) dug_ms: u64,
}

impl Tombstone {
    /// The value of its row.
    pub(super) fn encode(self) -> Vec<u8> {
        [self.stamp.0.to_le_bytes(), self.dug_ms.to_le_bytes()].concat()
    }

    /// From the value of its row.
    pub(super) fn decode(row: &[u8]) -> Result<Self, MalformedRow> {
        let malformed = MalformedRow("a tombstone is not of 16 bytes");
        let (stamp, dug_ms) = row.split_first_chunk::<8>().ok_or(malformed)?;
        let dug_ms = dug_ms.try_into().map_err(|_| malformed)?;
        let (stamp, dug_ms) = (Stamp(u64::from_le_bytes(*stamp)), u64::from_le_bytes(dug_ms));
        Ok(Self { stamp, dug_ms })
    }

    /// What stands for it in the digest.
    pub(super) fn number(self) -> u64 {
        xxh3_64_with_seed(&self.stamp.0.to_le_bytes(), self.dug_ms)
    }
}
