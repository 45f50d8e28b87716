//! Entries and Raft messages as bytes.
//!
//! An entry has one encoding, in the log and on the wire: a small head (term, index, kind) and the
//! payload as it is, so that appending and replicating a batch copies it and never parses it.
//! Everything else is openraft's own types through serde.

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

/// A batch of this many bytes is sent as it lies in memory; a smaller one is copied beside others.
const SHARED_BYTES: usize = 16 * 1024;

/// What follows an entry's head.
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

/// Decodes an entry; a batch in it shares the bytes.
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

pub(super) fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: CommittedLeaderId::new(term), index }
}

/// A message that is not one, as the error of the storage or stream it came from.
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

/// Encodes a request to append: a head, and each entry with its length in front. The parts make one
/// message; a large batch is a part of its own, shared and not copied.
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

/// Decodes a request to append; its entries share the bytes.
pub(super) fn decode_append(bytes: &Bytes) -> Result<AppendEntriesRequest<Types>, DecodeError> {
    let (head, rest) = decode_prefix::<AppendHead>(bytes)?;
    let mut rest = bytes.slice_ref(rest);
    // Each entry takes four bytes and more: no count can make us allocate more than we were sent.
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
    /// All up to the end of the request is on disk.
    Taken {
        /// Its last entry.
        last: Option<LogId>,
        /// The member's seal on that, by which it knows its word again; see `promises`.
        seal: Option<Seal>,
    },
    /// It was not taken.
    Refused(StreamAppendError<Types>),
}

/// A call that has one answer.
#[derive(Serialize, Deserialize)]
pub(super) enum Call {
    /// The leader lives.
    Heartbeat {
        /// An encoded request to append without entries.
        append: Bytes,
        /// How complete a state is that has applied as much as the leader; nothing as long as that
        /// is not known.
        confirmed: Option<Confirmed>,
        /// How far the leader knows the receiver to be, if it votes.
        acknowledged: Option<Acknowledged>,
        /// Whether the group rests: the next heartbeat comes later.
        rests: bool,
    },
    /// A request for a vote.
    Vote(VoteRequest<Types>),
    /// Would you vote for me?
    PreVote(VoteRequest<Types>),
    /// The leader hands over.
    Transfer(TransferLeaderRequest<Types>),
    /// Do you still follow the leader that has this vote?
    Follow {
        /// Of the term that the sender leads.
        vote: Vote,
        /// As in a heartbeat.
        acknowledged: Option<Acknowledged>,
    },
}

impl Call {
    /// It has waited for so long before it was sent.
    pub(super) fn waited(&mut self, time: Duration) {
        if let Self::Heartbeat { confirmed: Some(confirmed), .. } = self {
            // The part of a microsecond counts as a whole one: never younger than it is.
            let us = time.as_micros() as u64 + 1;
            confirmed.age_us = confirmed.age_us.saturating_add(us);
        }
    }
}

/// Everything that was acknowledged by a moment is in the entries up to an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Confirmed {
    /// How long before the message was sent that moment was, in microseconds: a quorum confirmed
    /// the leader then.
    pub(super) age_us: u64,
    /// The last entry that the leader has applied.
    pub(super) applied: u64,
}

/// The answer to a [`Call`], or why there is none.
pub(super) type CallResult = Result<CallAnswer, String>;

/// The answer to a [`Call`].
#[derive(Serialize, Deserialize)]
pub(super) enum CallAnswer {
    Heartbeat(AppendEntriesResponse<Types>),
    Vote(VoteResponse<Types>),
    Transfer(TransferLeaderResponse<Types>),
    /// Whether the vote that this member has put into its log last is that one.
    Follow(bool),
}

/// What comes in front of the chunks of a snapshot.
#[derive(Serialize, Deserialize)]
pub(super) struct SnapshotHead {
    pub(super) vote: Vote,
    pub(super) meta: SnapshotMeta,
    /// What the store says of itself; see `dkv_state::engine`.
    pub(super) store: Bytes,
}

/// A frame of a snapshot after its head.
#[derive(Serialize, Deserialize)]
pub(super) enum SnapshotFrame {
    /// Rows, as the store encodes them.
    Rows(Bytes),
    /// There are no more.
    End,
}

/// What the receiver of a snapshot answers: its vote, or why it did not take it.
pub(super) type SnapshotAnswer = Result<Vote, String>;

#[cfg(test)]
mod tests;
