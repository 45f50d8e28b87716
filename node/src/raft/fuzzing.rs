//! Raft frames for fuzzing: arbitrary ones, decoded and encoded again, and forged ones. None of
//! this affects a group.

use std::collections::BTreeMap;

use bytes::Bytes;
use dkv_base::id::{GroupId, NodeId, Term};
use dkv_wire::codec::{decode, encode};
use dkv_wire::message::{Acknowledged, Opening};
use dkv_wire::seal::Seal;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use openraft::{EmptyNode, EntryPayload, Membership};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::codec::{
    AppendAnswer, Call, CallAnswer, CallResult, Confirmed, SnapshotAnswer, SnapshotFrame,
    SnapshotHead, decode_append, decode_entry, encode_append, encode_entry, log_id,
};
use super::snapshot::Position;
use super::{Entry, Proposal, SnapshotMeta, StoredMembership, Vote};
use crate::net::incarnations;
use crate::raft::heartbeat::coalescing::{Echo, HeartbeatBatch, HeartbeatBatchAnswer};

/// Number of kinds of frames.
pub const RAFT_FRAMES: usize = 11;

/// Decodes bytes as a frame of a kind below [`RAFT_FRAMES`], and encodes the result again; returns
/// `None` if they are no such frame.
pub fn raft_frame(kind: usize, bytes: &Bytes) -> Option<Bytes> {
    match kind {
        0 => Some(Bytes::from(encode_append(&decode_append(bytes).ok()?).concat())),
        1 => Some(encode_entry(&decode_entry(bytes).ok()?)),
        2 => again::<Call>(bytes),
        3 => again::<CallResult>(bytes),
        4 => again::<AppendAnswer>(bytes),
        5 => again::<HeartbeatBatch>(bytes),
        6 => again::<HeartbeatBatchAnswer>(bytes),
        7 => again::<SnapshotHead>(bytes),
        8 => again::<SnapshotFrame>(bytes).or_else(|| again::<SnapshotAnswer>(bytes)),
        9 => again::<Position>(bytes),
        _ => incarnations::frame(bytes),
    }
}

fn again<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<Bytes> {
    decode::<T>(bytes).ok().map(|frame| encode(&frame))
}

/// Returns valid frames, each with its kind.
pub fn raft_frame_samples() -> Vec<(usize, Bytes)> {
    let nodes = [1, 2, 3].map(|number| NodeId(Uuid::from_u128(number)));
    let vote = Vote::new_committed(3, nodes[0]);
    let configs = vec![nodes.into(), nodes[..2].iter().copied().collect()];
    let known: BTreeMap<_, _> = nodes.map(|node| (node, EmptyNode {})).into();
    // This cannot fail: the voters are among the known nodes.
    let membership = Membership::new(configs, known).unwrap_or_default();
    let payloads = [
        EntryPayload::Blank,
        EntryPayload::Normal(Proposal(Bytes::from_static(b"a batch"))),
        EntryPayload::Membership(membership.clone()),
    ];
    let entry = |(at, payload)| Entry { log_id: log_id(3, at), payload };
    let entries: Vec<Entry> = (7..).zip(payloads).map(entry).collect();
    let append = |entries| AppendEntriesRequest {
        vote,
        prev_log_id: Some(log_id(2, 6)),
        leader_commit: Some(log_id(2, 5)),
        entries,
    };
    let heartbeat = |age: Option<u64>| Call::Heartbeat {
        append: Bytes::from(encode_append(&append(Vec::new())).concat()),
        confirmed: age.map(|applied| Confirmed { age_us: 3, applied }),
        acknowledged: age.map(|index| Acknowledged { term: Term(3), index, seal: Seal([9; 16]) }),
        is_quiescent: age.is_some(),
    };
    let request = || VoteRequest::new(vote, Some(log_id(2, 6)));
    let calls = [heartbeat(None), heartbeat(Some(4)), Call::Vote(request())];
    let stored = StoredMembership::new(Some(log_id(2, 6)), membership);
    let meta = SnapshotMeta { last_log_id: Some(log_id(3, 9)), last_membership: stored.clone() };
    let mut samples: Vec<(usize, Bytes)> = vec![
        (0, Bytes::from(encode_append(&append(entries.clone())).concat())),
        (0, Bytes::from(encode_append(&append(Vec::new())).concat())),
        (2, encode(&Call::PreVote(request()))),
        (2, encode(&Call::Transfer(TransferLeaderRequest::new(vote, nodes[1], None)))),
        (2, encode(&Call::Follow { vote, acknowledged: None })),
        (3, encode(&CallResult::Ok(CallAnswer::Follow(true)))),
        (3, encode(&CallResult::Ok(CallAnswer::Heartbeat(AppendEntriesResponse::Success)))),
        (3, encode(&CallResult::Ok(CallAnswer::Vote(VoteResponse::new(vote, None, true))))),
        (3, encode(&CallResult::Err("why".into()))),
        (4, encode(&AppendAnswer::Taken { last: Some(log_id(3, 9)), seal: Some(Seal([9; 16])) })),
        (4, encode(&AppendAnswer::Refused(StreamAppendError::Conflict(log_id(3, 9))))),
        (
            6,
            encode(&HeartbeatBatchAnswer {
                number: 1,
                at_us: 5,
                answers: vec![Err("why".into())],
                mark: 9,
            }),
        ),
        (7, encode(&SnapshotHead { vote, meta, store: Bytes::from_static(b"store") })),
        (8, encode(&SnapshotFrame::Rows(Bytes::from_static(b"rows")))),
        (8, encode(&SnapshotFrame::End)),
        (8, encode(&SnapshotAnswer::Ok(vote))),
        (9, encode(&Position { applied: Some(log_id(3, 9)), membership: stored })),
    ];
    samples.extend(incarnations::frame_samples().map(|frame| (10, frame)));
    samples.extend(entries.iter().map(|entry| (1, encode_entry(entry))));
    samples.extend(calls.iter().map(|call| (2, encode(call))));
    let calls = calls.into_iter().map(|call| (GroupId(1), call)).collect();
    let echo = Some(Echo { answered_us: 5, since_us: 40_000 });
    samples.push((5, encode(&HeartbeatBatch { number: 1, echo, calls, mark: 300 })));
    samples
}

/// A stream that a holder of a node's certificate opens to a node, and the frames sent on it.
pub struct Forged {
    /// Purpose of the stream.
    pub opening: Opening,
    /// Frames that follow the opening.
    pub frames: Vec<Bytes>,
}

/// Returns everything that a thief of a node's certificate could say about a group in its own name,
/// as its leader or a candidate of that term.
///
/// The thief aims to depose the leader, to overwrite entries, and to pass for proof that the
/// receiver is damaged.
pub fn forgeries(from: NodeId, to: NodeId, group: GroupId, term: u64) -> Vec<Forged> {
    let vote = Vote::new_committed(term, from);
    let far = Some(log_id(term, u64::MAX));
    let acknowledged =
        Some(Acknowledged { term: Term(u64::MAX), index: u64::MAX, seal: Seal([0; 16]) });
    let blank = |index| Entry { log_id: log_id(term, index), payload: EntryPayload::Blank };
    let rubbish = Entry {
        log_id: log_id(term, 0),
        payload: EntryPayload::Normal(Proposal(Bytes::from_static(b"rubbish"))),
    };
    let me = Membership::new(vec![[from].into()], BTreeMap::from([(from, EmptyNode {})]));
    let takeover = Entry {
        log_id: log_id(term, 0),
        payload: EntryPayload::Membership(me.clone().unwrap_or_default()),
    };
    let append = |prev_log_id, leader_commit, entries| {
        let request = AppendEntriesRequest { vote, prev_log_id, leader_commit, entries };
        Bytes::from(encode_append(&request).concat())
    };
    let heartbeat = |leader_commit, acknowledged| Call::Heartbeat {
        append: append(None, leader_commit, Vec::new()),
        confirmed: Some(Confirmed { age_us: 0, applied: u64::MAX }),
        acknowledged,
        is_quiescent: true,
    };
    let calls = || {
        vec![
            heartbeat(None, None),
            heartbeat(far, None),
            heartbeat(None, acknowledged),
            Call::PreVote(VoteRequest::new(Vote::new(term, from), far)),
            Call::Vote(VoteRequest::new(Vote::new(term, from), Some(log_id(term, 1 << 30)))),
            Call::Transfer(TransferLeaderRequest::new(vote, from, None)),
            Call::Transfer(TransferLeaderRequest::new(vote, to, None)),
            Call::Follow { vote, acknowledged },
        ]
    };
    let meta = SnapshotMeta {
        last_log_id: Some(log_id(term, 1 << 30)),
        last_membership: StoredMembership::new(Some(log_id(term, 1)), me.unwrap_or_default()),
    };
    let snapshot = [
        encode(&SnapshotHead { vote, meta, store: Bytes::from_static(b"store") }),
        encode(&SnapshotFrame::Rows(Bytes::from_static(b"rows"))),
        encode(&SnapshotFrame::End),
    ];
    let stream = |acknowledged, frame| Forged {
        opening: Opening::RaftAppend { group, from, acknowledged },
        frames: vec![frame],
    };
    let heartbeat_batch = HeartbeatBatch {
        number: 1,
        echo: None,
        calls: calls().into_iter().map(|it| (group, it)).collect(),
        mark: 0,
    };
    let mut forged = vec![
        Forged {
            opening: Opening::RaftHeartbeats { from },
            frames: vec![encode(&heartbeat_batch)],
        },
        Forged { opening: Opening::RaftSnapshot { group, from }, frames: snapshot.into() },
        stream(acknowledged, append(None, None, Vec::new())),
        stream(None, append(None, far, vec![takeover])),
        stream(None, append(None, far, vec![rubbish])),
        stream(None, append(far, far, Vec::new())),
        stream(None, append(None, None, (0..50).map(blank).collect())),
        stream(None, Bytes::from_static(&[255; 64])),
    ];
    // Each call has a stream of its own: the first that the receiver refuses may end the stream.
    forged.extend(calls().into_iter().map(|call| Forged {
        opening: Opening::RaftCalls { group, from },
        frames: vec![encode(&call)],
    }));
    forged
}
