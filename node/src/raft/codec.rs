//! Encoding of entries and Raft messages.
//!
//! An entry has one encoding, in the log and on the wire: a small head (term, index, kind) followed
//! by the payload as is, so that appending and replicating a batch copies it and never parses it.
//! All other messages are openraft's own types through serde.

use std::io;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use dkv_wire::codec::{DecodeError, decode, decode_prefix, encode_into};
use dkv_wire::message::Acknowledged;
use dkv_wire::seal::Seal;
use openraft::EntryPayload;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, StreamAppendError};
use openraft::raft::{TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse};
use openraft::vote::leader_id_std::CommittedLeaderId;
use serde::{Deserialize, Serialize};

use super::{Entry, LogId, Proposal, SnapshotMeta, Types, Vote};

/// A batch of at least this many bytes is sent from where it lies in memory; a smaller one is
/// copied next to others.
const SHARED_BYTES: usize = 16 * 1024;

/// The kind of payload that follows an entry's head.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    Blank,
    Normal,
    Membership,
}

#[derive(Serialize, Deserialize)]
struct EntryHead {
    term: u64,
    index: u64,
    kind: Kind,
}

fn encode_head(entry: &Entry, kind: Kind, buffer: Vec<u8>) -> Vec<u8> {
    let (term, index) = (*entry.log_id.leader_id, entry.log_id.index);
    encode_into(&EntryHead { term, index, kind }, buffer)
}

/// Encodes an entry.
pub(super) fn encode_entry(entry: &Entry) -> Bytes {
    let buffer = match &entry.payload {
        EntryPayload::Blank => encode_head(entry, Kind::Blank, Vec::with_capacity(16)),
        EntryPayload::Normal(proposal) => {
            let buffer = Vec::with_capacity(24 + proposal.0.len());
            let mut buffer = encode_head(entry, Kind::Normal, buffer);
            buffer.extend_from_slice(&proposal.0);
            buffer
        }
        EntryPayload::Membership(membership) => {
            let buffer = encode_head(entry, Kind::Membership, Vec::with_capacity(256));
            encode_into(membership, buffer)
        }
    };
    Bytes::from(buffer)
}

/// Decodes an entry; a batch in it shares the memory of `bytes`.
pub(super) fn decode_entry(bytes: &Bytes) -> Result<Entry, DecodeError> {
    let (head, rest) = decode_prefix::<EntryHead>(bytes)?;
    let payload = match head.kind {
        Kind::Blank if !rest.is_empty() => return Err(DecodeError::Trailing(rest.len())),
        Kind::Blank => EntryPayload::Blank,
        Kind::Normal => EntryPayload::Normal(Proposal(bytes.slice_ref(rest))),
        Kind::Membership => EntryPayload::Membership(decode(rest)?),
    };
    Ok(Entry { log_id: log_id(head.term, head.index), payload })
}

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: CommittedLeaderId::new(term), index }
}

/// Converts a decoding error to an error of the storage or stream that the bytes came from.
pub(super) fn invalid(error: DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[derive(Serialize, Deserialize)]
struct AppendHead {
    vote: Vote,
    prev_log_id: Option<LogId>,
    leader_commit: Option<LogId>,
    entries: u32,
}

/// Encodes a request to append: a head, then each entry preceded by its length. The parts form one
/// message; a large batch is a separate part, shared and not copied.
pub(super) fn encode_append(request: &AppendEntriesRequest<Types>) -> Vec<Bytes> {
    let head = AppendHead {
        vote: request.vote,
        prev_log_id: request.prev_log_id,
        leader_commit: request.leader_commit,
        entries: request.entries.len() as u32,
    };
    let (mut parts, mut small) = (Vec::new(), encode_into(&head, Vec::with_capacity(256)));
    for entry in &request.entries {
        match &entry.payload {
            EntryPayload::Normal(Proposal(batch)) if batch.len() >= SHARED_BYTES => {
                let head = encode_head(entry, Kind::Normal, Vec::with_capacity(16));
                small.put_u32_le((head.len() + batch.len()) as u32);
                small.extend_from_slice(&head);
                parts.push(Bytes::from(std::mem::take(&mut small)));
                parts.push(batch.clone());
            }
            _ => {
                let entry = encode_entry(entry);
                small.put_u32_le(entry.len() as u32);
                small.extend_from_slice(&entry);
            }
        }
    }
    if !small.is_empty() {
        parts.push(Bytes::from(small));
    }
    parts
}

/// Decodes a request to append; its entries share the memory of `bytes`.
pub(super) fn decode_append(bytes: &Bytes) -> Result<AppendEntriesRequest<Types>, DecodeError> {
    let (head, rest) = decode_prefix::<AppendHead>(bytes)?;
    let mut rest = bytes.slice_ref(rest);
    // Each entry takes at least four bytes: no count can make us allocate more than we were sent.
    let mut entries = Vec::with_capacity((head.entries as usize).min(rest.len() / 4));
    for _ in 0..head.entries {
        let length = if rest.len() < 4 { usize::MAX } else { rest.get_u32_le() as usize };
        if length > rest.len() {
            return Err(DecodeError::Malformed(postcard::Error::DeserializeUnexpectedEnd));
        }
        entries.push(decode_entry(&rest.split_to(length))?);
    }
    if !rest.is_empty() {
        return Err(DecodeError::Trailing(rest.len()));
    }
    Ok(AppendEntriesRequest {
        vote: head.vote,
        prev_log_id: head.prev_log_id,
        leader_commit: head.leader_commit,
        entries,
    })
}

/// The acknowledgement of one request to append, or why it was not taken.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum AppendAnswer {
    /// All entries up to the end of the request are on disk.
    Taken {
        /// The last entry of the request.
        last: Option<LogId>,
        /// The member's seal on that entry, by which it recognizes its own acknowledgement; see
        /// `durability_check`.
        seal: Option<Seal>,
    },
    /// The request was not taken.
    Refused(StreamAppendError<Types>),
}

/// A call that has a single answer.
#[derive(Serialize, Deserialize)]
pub(super) enum Call {
    /// The leader is alive.
    Heartbeat {
        /// An encoded request to append without entries.
        append: Bytes,
        /// How complete a state is that has applied as much as the leader; `None` as long as that
        /// is unknown.
        confirmed: Option<Confirmed>,
        /// The receiver's last acknowledgement as the leader has it, if the receiver votes.
        acknowledged: Option<Acknowledged>,
        /// Whether the group is quiescent, so that the next heartbeat comes later.
        is_quiescent: bool,
    },
    /// A request for a vote.
    Vote(VoteRequest<Types>),
    /// Asks whether the receiver would vote for the sender.
    PreVote(VoteRequest<Types>),
    /// The leader transfers the leadership.
    Transfer(TransferLeaderRequest<Types>),
    /// Asks whether the receiver still follows the leader that has this vote.
    Follow {
        /// The vote of the term that the sender leads.
        vote: Vote,
        /// As in a heartbeat.
        acknowledged: Option<Acknowledged>,
    },
}

impl Call {
    /// Accounts for the time that the call waited before it was sent.
    pub(super) fn waited(&mut self, time: Duration) {
        if let Self::Heartbeat { confirmed: Some(confirmed), .. } = self {
            // A fraction of a microsecond counts as a whole one, so that the age is never too low.
            let us = time.as_micros() as u64 + 1;
            confirmed.age_us = confirmed.age_us.saturating_add(us);
        }
    }
}

/// A statement that everything acknowledged by some moment is in the entries up to an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Confirmed {
    /// How long before the message was sent that moment was, in microseconds; a quorum confirmed
    /// the leader then.
    pub(super) age_us: u64,
    /// The index of the last entry that the leader has applied.
    pub(super) applied: u64,
}

/// The answer to a [`Call`], or why there is none, as it crosses the network. The reason is text:
/// its receiver logs it, and treats all reasons alike.
pub(super) type CallResult = Result<CallAnswer, String>;

/// The answer to a [`Call`].
#[derive(Serialize, Deserialize)]
pub(super) enum CallAnswer {
    Heartbeat(AppendEntriesResponse<Types>),
    Vote(VoteResponse<Types>),
    Transfer(TransferLeaderResponse<Types>),
    /// Whether the vote that this member last wrote to its log is the one asked about.
    Follow(bool),
}

/// The head that precedes the chunks of a snapshot.
#[derive(Serialize, Deserialize)]
pub(super) struct SnapshotHead {
    pub(super) vote: Vote,
    pub(super) meta: SnapshotMeta,
    /// The store's metadata about the rows; see `dkv_state::engine`.
    pub(super) store: Bytes,
}

/// A frame of a snapshot after its head.
#[derive(Serialize, Deserialize)]
pub(super) enum SnapshotFrame {
    /// Rows, as the store encodes them.
    Rows(Bytes),
    /// The end of the rows.
    End,
}

/// The answer of a snapshot's receiver: its vote, or why it did not take the snapshot. The reason
/// is text, as in a [`CallResult`].
pub(super) type SnapshotAnswer = Result<Vote, String>;

#[cfg(test)]
mod tests;
