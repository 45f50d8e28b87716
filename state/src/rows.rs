//! The state in its serialized form: rows of twelve tables, and one meta row that says which moment
//! the rows belong to.
//!
//! The engine stores rows, a snapshot carries them, and both check them against the hash in the
//! meta row. The layouts here are therefore both a file format and a protocol: they change only
//! together with the first byte of the meta row.
//!
//! ```text
//! table      key           value
//! 'a'  97    the key       1 u8 and the lease u64 le, or 2 u8, deadline u64 le, ttl u64 le
//! 'c'  99    session id,   what has become of a transaction whose home this is, postcard
//!            serial u64 be
//! 'd' 100    (empty)       the directory, postcard
//! 'e' 101    session id    ended u64 le: the session ended then
//! 'f' 102    home u32 be   what was finished of the transactions of another home, postcard
//! 'g' 103    the key       stamp u64 le: it was deleted then
//! 'h' 104    the key, then  stamp u64 le, created u64 le, version u64 le, position u16 le, then
//!            revision u64   1 u8 and the value, or what it was attached to, as in 'a' but for the
//!            be             first byte: 2 u8 (lease) or 3 u8 (expiry), and the value,
//!                           or 0 u8 if the key was deleted
//! 'k' 107    the key       revision u64 le, stamp u64 le, created u64 le, version u64 le,
//!                          position u16 le, value
//! 'l' 108    lease u64 be  ttl u64 le, grant u64 le, the holder, 1 u8 if it has ended, 0 u8 if not
//! 'o' 111    node id       number u64 le: so much of that node's outbox is here
//! 'p' 112    attempt id    a prepared part of a transaction, postcard
//! 's' 115    session id    the session, postcard
//! ```

mod attachment;
mod changed;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use dkv_base::id::{LeaseId, Revision, SessionId, Stamp};
use dkv_base::mutants::{Mutant, planted};
use dkv_wire::codec;
use dkv_wire::message::Stored;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

pub(crate) use attachment::{ATTACHMENT_BYTES_MAX, Attachment};
pub(crate) use changed::ChangedRows;

use super::limits;

/// Version of the layouts; the first byte of the meta row.
const VERSION: u8 = 8;

/// The table that a row belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Table {
    /// What the keys of a shard are attached to.
    Attachments = b'a',
    /// What has become of the transactions whose home a shard is.
    Records = b'c',
    /// The directory, as the single row of the control group.
    Directory = b'd',
    /// The sessions of a shard that have ended.
    EndedSessions = b'e',
    /// What a shard has finished of the transactions of other homes.
    Finished = b'f',
    /// The tombstones of a shard: when its keys were deleted.
    Tombstones = b'g',
    /// The past versions of a shard's keys.
    History = b'h',
    /// The keys of a shard.
    Keys = b'k',
    /// The leases of a shard.
    Leases = b'l',
    /// The position up to which the shard has taken each node's outbox.
    OutboxPositions = b'o',
    /// The prepared parts of transactions over several shards.
    Parts = b'p',
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
        let all = [
            Self::Attachments,
            Self::Records,
            Self::Directory,
            Self::EndedSessions,
            Self::Finished,
            Self::Tombstones,
            Self::History,
            Self::Keys,
            Self::Leases,
            Self::OutboxPositions,
            Self::Parts,
            Self::Sessions,
        ];
        all.into_iter().find(|table| table.byte() == byte)
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
    /// The earliest revision at which the shard can be read.
    pub floor: Revision,
    /// The revision up to which compaction has removed what it must.
    pub swept: Revision,
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

/// The write that made a version of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its revision.
    pub revision: Revision,
    /// Its stamp.
    pub stamp: Stamp,
    /// The revision of the write that created the key.
    pub created: Revision,
    /// The number of writes of the key since then, this one included; zero for a deletion.
    pub version: u64,
    /// Its place among the changes of its revision: that of the operation of its transaction. The
    /// changes of one operation are in the order of keys.
    pub position: u16,
}

/// A stored value and the write that stored it. Cloning shares the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The write.
    pub origin: Origin,
    /// The value, in an allocation of its own.
    pub value: Arc<[u8]>,
}

impl Row {
    /// Converts the row to the message that answers a read; shares the value.
    pub fn to_stored(&self) -> Stored {
        Stored { value: Bytes::from_owner(Arc::clone(&self.value)), revision: self.origin.revision }
    }

    /// Decodes the value of a row of [`Table::Keys`].
    pub(super) fn decode(row: &[u8]) -> Result<(Origin, &[u8]), MalformedRow> {
        let (revision, rest) = number(row)?;
        let (stamp, rest) = number(rest)?;
        let (created, rest) = number(rest)?;
        let (version, rest) = number(rest)?;
        let (position, value) = position(rest)?;
        let (revision, stamp, created) = (Revision(revision), Stamp(stamp), Revision(created));
        Ok((Origin { revision, stamp, created, version, position }, value))
    }

    /// Encodes the value of a row of [`Table::Keys`].
    pub(super) fn encode(&self) -> Vec<u8> {
        let Origin { revision, stamp, created, version, position } = self.origin;
        let mut encoded = Vec::with_capacity(34 + self.value.len());
        for number in [revision.0, stamp.0, created.0, version] {
            encoded.extend_from_slice(&number.to_le_bytes());
        }
        encoded.extend_from_slice(&position.to_le_bytes());
        encoded.extend_from_slice(&self.value);
        encoded
    }
}

fn number(row: &[u8]) -> Result<(u64, &[u8]), MalformedRow> {
    let (number, rest) =
        row.split_first_chunk::<8>().ok_or(MalformedRow("a version is cut short"))?;
    Ok((u64::from_le_bytes(*number), rest))
}

fn position(row: &[u8]) -> Result<(u16, &[u8]), MalformedRow> {
    let (position, rest) =
        row.split_first_chunk::<2>().ok_or(MalformedRow("a version is cut short"))?;
    Ok((u16::from_le_bytes(*position), rest))
}

/// The name of a version: its key, and the revision of the write that made it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct VersionKey {
    pub(super) key: Arc<[u8]>,
    pub(super) revision: Revision,
}

/// A past version of a key, as a row of [`Table::History`].
#[derive(Clone, Debug)]
pub(super) struct HistoryRow {
    pub(super) origin: Origin,
    /// What the key was attached to.
    pub(super) attachment: Option<Attachment>,
    pub(super) value: HistoryValue,
}

/// A row of [`Table::History`], decoded.
pub(super) struct PastRow<'a> {
    pub(super) origin: Origin,
    pub(super) attachment: Option<Attachment>,
    /// `None` for a deletion.
    pub(super) value: Option<&'a [u8]>,
}

/// The value of a past version, or where the checkpoint that writes its row finds it.
#[derive(Clone, Debug)]
pub(super) enum HistoryValue {
    /// The write deleted the key.
    Deleted,
    /// The value.
    Here(Arc<[u8]>),
    /// It is in the row of the key that the last checkpoint has, with this length in bytes.
    InKeys(u32),
}

impl HistoryRow {
    fn value_len(&self) -> usize {
        match &self.value {
            HistoryValue::Deleted => 0,
            HistoryValue::Here(value) => value.len(),
            HistoryValue::InKeys(bytes) => *bytes as usize,
        }
    }

    /// Returns the key of the row of a version.
    pub(super) fn key(key: &[u8], revision: Revision) -> Vec<u8> {
        [key, &revision.0.to_be_bytes()].concat()
    }

    /// Splits the key of a row into the key and the revision of the version.
    pub(super) fn split_key(joined: &[u8]) -> Result<(&[u8], Revision), MalformedRow> {
        let (key, revision) =
            joined.split_last_chunk::<8>().ok_or(MalformedRow("a version has no revision"))?;
        Ok((key, Revision(u64::from_be_bytes(*revision))))
    }

    /// Encodes the value of a row; `None` for a deletion.
    pub(super) fn encode(
        origin: Origin,
        attachment: Option<Attachment>,
        value: Option<&[u8]>,
    ) -> Vec<u8> {
        let mut encoded = Vec::with_capacity(51 + value.map_or(0, <[u8]>::len));
        for number in [origin.stamp.0, origin.created.0, origin.version] {
            encoded.extend_from_slice(&number.to_le_bytes());
        }
        encoded.extend_from_slice(&origin.position.to_le_bytes());
        match (value, attachment) {
            (None, _) => encoded.push(0),
            (Some(_), None) => encoded.push(1),
            (Some(_), Some(Attachment::Lease(lease))) => {
                encoded.push(2);
                encoded.extend_from_slice(&lease.0.to_le_bytes());
            }
            (Some(_), Some(Attachment::Expiry { deadline_ms, ttl_ms })) => {
                encoded.push(3);
                encoded.extend_from_slice(&deadline_ms.to_le_bytes());
                encoded.extend_from_slice(&ttl_ms.to_le_bytes());
            }
        }
        encoded.extend_from_slice(value.unwrap_or_default());
        encoded
    }

    /// Decodes the value of the row of a version.
    pub(super) fn decode(revision: Revision, row: &[u8]) -> Result<PastRow<'_>, MalformedRow> {
        let (stamp, rest) = number(row)?;
        let (created, rest) = number(rest)?;
        let (version, rest) = number(rest)?;
        let (position, rest) = position(rest)?;
        let (attachment, value) = match rest.split_first() {
            Some((1, value)) => (None, Some(value)),
            Some((2, rest)) => {
                let (lease, value) = number(rest)?;
                let lease = Some(LeaseId(lease)).filter(|lease| lease.is_valid());
                let lease = lease.ok_or(MalformedRow("a version has no such lease"))?;
                (Some(Attachment::Lease(lease)), Some(value))
            }
            Some((3, rest)) => {
                let (deadline_ms, rest) = number(rest)?;
                let (ttl_ms, value) = number(rest)?;
                (Some(Attachment::Expiry { deadline_ms, ttl_ms }), Some(value))
            }
            Some((0, [])) => (None, None),
            _ => return Err(MalformedRow("a version is neither a value nor a deletion")),
        };
        let (stamp, created) = (Stamp(stamp), Revision(created));
        let origin = Origin { revision, stamp, created, version, position };
        Ok(PastRow { origin, attachment, value })
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
    /// Past versions.
    pub(super) history: ChangedRows,
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

    /// Returns the number of rows that a checkpoint of these changes writes or removes, at most.
    pub fn len(&self) -> usize {
        self.keys.len()
            + self.history.len()
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
        let history = self.history.rows().filter_map(|(_, row)| row).map(HistoryRow::value_len);
        let keys = self.keys.values().flatten().map(|row| row.value.len());
        let small = self.small.iter().filter_map(|(_, _, row)| row.as_ref().map(Vec::len));
        keys.chain(history).chain(small).any(|length| length >= bytes)
    }

    /// Returns the approximate size of the rows, in bytes.
    pub fn bytes(&self) -> usize {
        let keys = self
            .keys
            .iter()
            .map(|(key, row)| key.len() + 32 + row.as_ref().map_or(0, |row| row.value.len()));
        let history = self
            .history
            .rows()
            .map(|(name, row)| name.key.len() + 49 + row.map_or(0, HistoryRow::value_len));
        let sessions = self.sessions.iter().map(|(_, row)| 16 + row.as_ref().map_or(0, Vec::len));
        let small = self.small.iter();
        let small = small.map(|(_, key, row)| key.len() + row.as_ref().map_or(0, Vec::len));
        keys.sum::<usize>()
            + history.sum::<usize>()
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
    pub(super) deleted_ms: u64,
}

impl Tombstone {
    /// Encodes the value of the tombstone's row.
    pub(super) fn encode(self) -> Vec<u8> {
        [self.stamp.0.to_le_bytes(), self.deleted_ms.to_le_bytes()].concat()
    }

    /// Decodes the value of a tombstone's row.
    pub(super) fn decode(row: &[u8]) -> Result<Self, MalformedRow> {
        let malformed = MalformedRow("a tombstone is not of 16 bytes");
        let (stamp, deleted_ms) = row.split_first_chunk::<8>().ok_or(malformed)?;
        let deleted_ms = deleted_ms.try_into().map_err(|_| malformed)?;
        let (stamp, deleted_ms) =
            (Stamp(u64::from_le_bytes(*stamp)), u64::from_le_bytes(deleted_ms));
        Ok(Self { stamp, deleted_ms })
    }

    /// Returns the number that represents the tombstone in the digest.
    pub(super) fn number(self) -> u64 {
        xxh3_64_with_seed(&self.stamp.0.to_le_bytes(), self.deleted_ms)
    }
}
