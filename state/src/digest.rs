//! The hash of a shard's state, updated incrementally with every write.
//!
//! Each part of the state (a key with its value, a session, a remembered result) has a hash of its
//! own, and the digest is their sum, so that the order of additions does not matter and a part can
//! be taken out again. Replicas at the same index must have the same digest, and so must a state
//! read back from disk. It detects accidents, not malice: sums of XXH3 can be forged.

use dkv_base::id::{Revision, Serial, SessionId, Stamp};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::attempt_rows;
use super::lease::Lease;
use super::rows::{
    Attachment, Counts, HistoryRow, MalformedRow, Meta, Origin, PastRow, Row, RowSink, Table,
    Tombstone,
};
use super::session::{Outcome, Session};
use super::value_cache::{Place, Slot};

/// The numbers of a state that its hash includes besides the parts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) revision: Revision,
    pub(super) clock_ms: u64,
    pub(super) stamp: Stamp,
    pub(super) floor: Revision,
    pub(super) swept: Revision,
}

/// Sums of the hashes of all parts of a shard's state, and their counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Digest {
    keys_sum: u64,
    sessions_sum: u64,
    /// Sum over tombstones and outbox positions.
    small_sum: u64,
    small: u64,
    /// Sum over past versions.
    history_sum: u64,
    history: u64,
    counts: Counts,
    results: u64,
}

impl Digest {
    /// Returns the size of the state.
    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns the number of results that the sessions remember.
    pub(super) fn results(&self) -> u64 {
        self.results
    }

    /// Returns the hash of a state with these parts at the given moment.
    pub(super) fn hash(&self, at: Moment) -> u64 {
        let Moment { revision, clock_ms, stamp, floor, swept } = at;
        let mut bytes = [0; 120];
        let parts = [
            self.keys_sum,
            self.counts.keys,
            self.counts.bytes,
            self.sessions_sum,
            self.counts.sessions,
            self.results,
            revision.0,
            clock_ms,
            stamp.0,
            self.small_sum,
            self.small,
            self.history_sum,
            self.history,
            floor.0,
            swept.0,
        ];
        for (chunk, part) in bytes.chunks_exact_mut(8).zip(parts) {
            chunk.copy_from_slice(&part.to_le_bytes());
        }
        xxh3_64(&bytes)
    }

    pub(super) fn add_key(&mut self, key: &[u8], origin: Origin, value: &[u8]) {
        self.keys_sum = self.keys_sum.wrapping_add(key_hash(key, origin, value));
        self.counts.keys += 1;
        self.counts.bytes += (key.len() + value.len()) as u64;
    }

    /// Takes a key out, and returns what it contributed.
    pub(super) fn remove_key(&mut self, key: &[u8], slot: &Slot) -> u64 {
        let (hash, bytes) = match &slot.value {
            Place::Here { value, .. } => (key_hash(key, slot.origin, value), value.len()),
            Place::Stored { bytes, hash } => (*hash, *bytes as usize),
        };
        self.keys_sum = self.keys_sum.wrapping_sub(hash);
        self.counts.keys -= 1;
        self.counts.bytes -= (key.len() + bytes) as u64;
        hash
    }

    /// Adds a past version, whose hash is that which it had or would have had as the newest.
    pub(super) fn add_history(&mut self, hash: u64) {
        self.history_sum = self.history_sum.wrapping_add(hash);
        self.history += 1;
    }

    pub(super) fn remove_history(&mut self, hash: u64) {
        self.history_sum = self.history_sum.wrapping_sub(hash);
        self.history -= 1;
    }

    /// Adds a row of a small table, which maps a name to a number.
    pub(super) fn add_small(&mut self, table: Table, key: &[u8], number: u64) {
        self.small_sum = self.small_sum.wrapping_add(small_hash(table, key, number));
        self.small += 1;
    }

    pub(super) fn remove_small(&mut self, table: Table, key: &[u8], number: u64) {
        self.small_sum = self.small_sum.wrapping_sub(small_hash(table, key, number));
        self.small -= 1;
    }

    /// Adds the session itself, without its results.
    pub(super) fn add_session(&mut self, id: SessionId, session: &Session) {
        self.sessions_sum = self.sessions_sum.wrapping_add(session_hash(id, session));
        self.counts.sessions += 1;
    }

    pub(super) fn remove_session(&mut self, id: SessionId, session: &Session) {
        self.sessions_sum = self.sessions_sum.wrapping_sub(session_hash(id, session));
        self.counts.sessions -= 1;
    }

    pub(super) fn add_result(&mut self, id: SessionId, serial: Serial, outcome: Outcome) {
        self.sessions_sum = self.sessions_sum.wrapping_add(result_hash(id, serial, outcome));
        self.results += 1;
    }

    pub(super) fn remove_result(&mut self, id: SessionId, serial: Serial, outcome: Outcome) {
        self.sessions_sum = self.sessions_sum.wrapping_sub(result_hash(id, serial, outcome));
        self.results -= 1;
    }

    pub(super) fn add_whole_session(&mut self, id: SessionId, session: &Session) {
        self.add_session(id, session);
        for (serial, outcome) in &session.results {
            self.add_result(id, *serial, *outcome);
        }
    }

    pub(super) fn remove_whole_session(&mut self, id: SessionId, session: &Session) {
        self.remove_session(id, session);
        for (serial, outcome) in &session.results {
            self.remove_result(id, *serial, *outcome);
        }
    }
}

/// As a sink, the digest checks the rows of a snapshot without a second state in memory.
impl RowSink for Digest {
    fn row(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), MalformedRow> {
        match table {
            Table::Keys => {
                let (origin, value) = Row::decode(value)?;
                self.add_key(key, origin, value);
            }
            Table::History => {
                let (key, revision) = HistoryRow::split_key(key)?;
                let PastRow { origin, attachment, value } = HistoryRow::decode(revision, value)?;
                self.add_history(match value {
                    Some(value) => past_hash(key_hash(key, origin, value), attachment),
                    None => deletion_hash(key, origin),
                });
            }
            Table::Attachments => self.add_small(table, key, Attachment::decode(value)?.number()),
            Table::Leases => self.add_small(table, key, Lease::decode(key, value)?.1.number()),
            Table::Tombstones => self.add_small(table, key, Tombstone::decode(value)?.number()),
            Table::OutboxPositions | Table::EndedSessions => {
                self.add_small(table, key, small_number(value)?);
            }
            Table::Records | Table::Finished | Table::Parts => {
                self.add_small(table, key, attempt_rows::row_number(table, key, value)?);
            }
            Table::Sessions => {
                let (id, session) = Session::decode(key, value)?;
                self.add_whole_session(id, &session);
            }
            Table::Directory => return Err(MalformedRow("a shard has no directory")),
        }
        Ok(())
    }

    fn hash_with(&self, meta: &Meta) -> u64 {
        self.hash(Moment {
            revision: meta.revision,
            clock_ms: meta.clock_ms,
            stamp: meta.stamp,
            floor: meta.floor,
            swept: meta.swept,
        })
    }

    fn counts(&self) -> Counts {
        self.counts
    }
}

/// Hashes a version of a key. The value is hashed once, in one piece; all else enters through the
/// seeds.
pub(super) fn key_hash(key: &[u8], origin: Origin, value: &[u8]) -> u64 {
    let Origin { revision, stamp, created, version, position } = origin;
    let at = revision.0
        ^ stamp.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ created.0.wrapping_mul(0xc2b2_ae3d_27d4_eb4f)
        ^ version.wrapping_mul(0x1656_67b1_9e37_79f9)
        ^ u64::from(position).wrapping_mul(0x27d4_eb2f_1656_67c5);
    xxh3_64_with_seed(value, xxh3_64_with_seed(key, at))
}

/// Hashes a past version of this hash that was attached to this.
pub(super) fn past_hash(hash: u64, attachment: Option<Attachment>) -> u64 {
    attachment.map_or(hash, |attachment| hash ^ attachment.number())
}

/// Hashes a deletion as a past version of its key.
pub(super) fn deletion_hash(key: &[u8], origin: Origin) -> u64 {
    !key_hash(key, origin, &[])
}

fn small_hash(table: Table, key: &[u8], number: u64) -> u64 {
    xxh3_64_with_seed(key, number ^ (u64::from(table.byte()) << 56))
}

/// Decodes the value of a row of a small table.
pub(super) fn small_number(value: &[u8]) -> Result<u64, MalformedRow> {
    let number = value.try_into().map_err(|_| MalformedRow("a number is not of 8 bytes"))?;
    Ok(u64::from_le_bytes(number))
}

fn session_hash(id: SessionId, session: &Session) -> u64 {
    let mut bytes = [0; 48];
    bytes[..16].copy_from_slice(id.0.as_bytes());
    bytes[16..32].copy_from_slice(session.holder.0.as_bytes());
    bytes[32..40].copy_from_slice(&session.settled.0.to_le_bytes());
    bytes[40..].copy_from_slice(&session.used_ms.to_le_bytes());
    xxh3_64(&bytes)
}

fn result_hash(id: SessionId, serial: Serial, outcome: Outcome) -> u64 {
    let (kind, revision) = match outcome {
        Outcome::Written { revision, existed: false } => (0, revision),
        Outcome::Written { revision, existed: true } => (1, revision),
        Outcome::Conflict { current: None } => (2, Revision(0)),
        Outcome::Conflict { current: Some(revision) } => (3, revision),
        Outcome::Transacted { revision, succeeded, changed, path } => {
            let path = path.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (4 + u8::from(succeeded) + 2 * u8::from(changed), Revision(revision.0 ^ path))
        }
        Outcome::Unfit { operation, why } => (8 + why as u8, Revision(operation.into())),
        Outcome::Granted { revision } => (32, revision),
        Outcome::Revoked { revision, deleted, left } => {
            let counts = u64::from(left) << 16 | u64::from(deleted);
            (33, Revision(revision.0 ^ counts.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
        }
        Outcome::NoLease { lease } => (34, Revision(lease.0)),
        Outcome::LeaseExists { lease } => (35, Revision(lease.0)),
        Outcome::TooManyLeases { own } => (36, Revision(own.into())),
    };
    let mut bytes = [0; 33];
    bytes[..16].copy_from_slice(id.0.as_bytes());
    bytes[16..24].copy_from_slice(&serial.0.to_le_bytes());
    bytes[24..32].copy_from_slice(&revision.0.to_le_bytes());
    bytes[32] = kind;
    xxh3_64(&bytes)
}
