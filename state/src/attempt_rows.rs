//! The rows of transactions over several shards: prepared parts, what a home has decided, and what
//! was finished of other homes.

use dkv_base::id::{GroupId, Revision, Serial, SessionId, Stamp, Term};
use dkv_wire::codec;
use dkv_wire::limits as wire_limits;
use dkv_wire::message::{Attempt, AttemptId, Commitment, PartReceipt};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::command::transaction::validate_part;
use super::limits;
use super::rows::{MalformedRow, Table};

/// The row of a prepared part.
#[derive(Serialize, Deserialize)]
pub(super) struct PartRow<'a> {
    pub(super) after: Stamp,
    pub(super) since_ms: u64,
    pub(super) at: Revision,
    pub(super) stamp: Stamp,
    #[serde(borrow)]
    pub(super) body: &'a [u8],
}

/// What a home knows of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Record {
    /// All attempts up to this one are aborted.
    Fenced {
        /// The last of them.
        upto: Attempt,
    },
    /// An attempt is prepared here and not decided.
    Pending {
        /// The attempt.
        id: AttemptId,
        /// When it may be aborted, in milliseconds of the log's clock.
        deadline_ms: u64,
        /// The other shards.
        participants: Vec<GroupId>,
    },
    /// An attempt is committed.
    Committed {
        /// The attempt.
        id: AttemptId,
        /// The revision of its writes here.
        revision: Revision,
        /// What the other shards have to know.
        commitment: Commitment,
        /// Whether it changed anything.
        changed: bool,
        /// The other shards.
        parts: Vec<PartReceipt>,
        /// Whether all of them have finished it.
        finished: bool,
    },
}

/// What a shard has finished of the attempts of one home.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Finished {
    /// All attempts below this one are over.
    pub(super) over: Attempt,
    /// Those from there on that were executed here, in order.
    pub(super) executed: Vec<Attempt>,
}

/// The name of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RowName {
    Part(AttemptId),
    Record(SessionId, Serial),
    Finished(GroupId),
}

impl Record {
    /// Returns the undecided attempt.
    pub(super) fn pending(&self) -> Option<AttemptId> {
        match self {
            Self::Pending { id, .. } => Some(*id),
            Self::Fenced { .. } | Self::Committed { .. } => None,
        }
    }
}

/// A row as decoded.
pub(super) enum Decoded<'a> {
    Part(AttemptId, PartRow<'a>),
    Record(SessionId, Serial, Record),
    Finished(GroupId, Finished),
}

pub(super) fn decode<'a>(
    table: Table,
    key: &[u8],
    value: &'a [u8],
) -> Result<Decoded<'a>, MalformedRow> {
    let malformed = MalformedRow("a transaction is malformed");
    let name = name_of(table, key).ok_or(malformed)?;
    match name {
        RowName::Part(id) => {
            let row: PartRow<'a> = codec::decode(value).map_err(|_| malformed)?;
            let is_valid = validate_part(row.body).is_some();
            if is_valid { Ok(Decoded::Part(id, row)) } else { Err(malformed) }
        }
        RowName::Record(session, serial) => {
            let record: Record = codec::decode(value).map_err(|_| malformed)?;
            let shards = match &record {
                Record::Fenced { .. } => 0,
                Record::Pending { participants, .. } => participants.len(),
                Record::Committed { parts, .. } => parts.len(),
            };
            if shards > wire_limits::TRANSACTION_SHARDS_MAX {
                return Err(MalformedRow("a transaction has too many shards"));
            }
            Ok(Decoded::Record(session, serial, record))
        }
        RowName::Finished(home) => {
            let finished: Finished = codec::decode(value).map_err(|_| malformed)?;
            let ascending = finished.executed.is_sorted_by(|left, right| left < right);
            if !ascending || finished.executed.len() > limits::EXECUTED_MAX {
                return Err(MalformedRow("the transactions of a home are out of order"));
            }
            Ok(Decoded::Finished(home, finished))
        }
    }
}

/// Returns the number that represents a row in the digest.
pub(super) fn row_number(table: Table, key: &[u8], value: &[u8]) -> Result<u64, MalformedRow> {
    decode(table, key, value)?;
    Ok(xxh3_64(value))
}

pub(super) fn part_key(id: AttemptId) -> Vec<u8> {
    let AttemptId { home, session, serial, attempt: Attempt { term, number } } = id;
    let mut key = Vec::with_capacity(44);
    key.extend_from_slice(&home.0.to_be_bytes());
    key.extend_from_slice(session.0.as_bytes());
    for part in [serial.0, term.0, number] {
        key.extend_from_slice(&part.to_be_bytes());
    }
    key
}

pub(super) fn record_key(session: SessionId, serial: Serial) -> Vec<u8> {
    [&session.0.as_bytes()[..], &serial.0.to_be_bytes()].concat()
}

/// Returns the name of a row of these tables, if it is one.
pub(super) fn name_of(table: Table, key: &[u8]) -> Option<RowName> {
    match table {
        Table::Finished => {
            Some(RowName::Finished(GroupId(u32::from_be_bytes(key.try_into().ok()?))))
        }
        Table::Records => {
            let (session, serial) = key.split_first_chunk::<16>()?;
            let serial = Serial(u64::from_be_bytes(serial.try_into().ok()?));
            Some(RowName::Record(SessionId(Uuid::from_bytes(*session)), serial))
        }
        Table::Parts => {
            let (home, rest) = key.split_first_chunk::<4>()?;
            let (session, rest) = rest.split_first_chunk::<16>()?;
            let (serial, rest) = rest.split_first_chunk::<8>()?;
            let (term, number) = rest.split_first_chunk::<8>()?;
            let number = u64::from_be_bytes(number.try_into().ok()?);
            let term = Term(u64::from_be_bytes(*term));
            Some(RowName::Part(AttemptId {
                home: GroupId(u32::from_be_bytes(*home)),
                session: SessionId(Uuid::from_bytes(*session)),
                serial: Serial(u64::from_be_bytes(*serial)),
                attempt: Attempt { term, number },
            }))
        }
        _ => None,
    }
}
