use std::collections::{BTreeMap, BTreeSet};

use dkv_base::id::NodeId;
use dkv_wire::codec::encode;
use openraft::{EmptyNode, Membership};

use super::*;

fn entry(index: u64, payload: EntryPayload<Proposal, NodeId, EmptyNode>) -> Entry {
    Entry { log_id: log_id(3, index), payload }
}

fn normal(index: u64, batch: &[u8]) -> Entry {
    entry(index, EntryPayload::Normal(Proposal(Bytes::copy_from_slice(batch))))
}

fn membership(index: u64) -> Entry {
    let nodes: Vec<NodeId> = (0..5).map(|_| NodeId::random()).collect();
    let voters = |range: std::ops::Range<usize>| nodes[range].iter().copied().collect();
    let configs: Vec<BTreeSet<NodeId>> = vec![voters(0..3), voters(1..4)];
    let known: BTreeMap<NodeId, EmptyNode> =
        nodes.iter().map(|node| (*node, EmptyNode {})).collect();
    entry(index, EntryPayload::Membership(Membership::new(configs, known).unwrap()))
}

fn entries() -> Vec<Entry> {
    vec![
        entry(1, EntryPayload::Blank),
        normal(2, b""),
        normal(3, b"a batch"),
        membership(u64::MAX),
        normal(5, &[0xff; 70_000]),
        normal(6, &[0xee; SHARED_BYTES]),
        entry(7, EntryPayload::Blank),
    ]
}

/// A request as it lies in a frame.
fn encoded(request: &AppendEntriesRequest<Types>) -> Bytes {
    Bytes::from(encode_append(request).concat())
}

fn append(entries: Vec<Entry>) -> AppendEntriesRequest<Types> {
    AppendEntriesRequest {
        vote: Vote::new_committed(3, NodeId::random()),
        prev_log_id: Some(log_id(2, 9)),
        leader_commit: None,
        entries,
    }
}

/// Returns whether `part` lies inside the memory of `whole`.
fn shares(part: &Bytes, whole: &Bytes) -> bool {
    whole.as_ptr_range().contains(&part.as_ptr())
}

#[test]
fn an_entry_comes_back() {
    for entry in entries() {
        assert_eq!(decode_entry(&encode_entry(&entry)).unwrap(), entry);
    }
}

/// A newer version must be able to read the log of an older one.
#[test]
fn an_entry_is_the_bytes_that_it_was() {
    assert_eq!(*encode_entry(&entry(300, EntryPayload::Blank)), [3, 0xac, 0x02, 0]);
    assert_eq!(*encode_entry(&normal(1, b"batch")), *b"\x03\x01\x01batch");
    assert_eq!(encode_entry(&membership(1))[..3], [3, 1, 2]);
}

#[test]
fn a_batch_is_not_copied_out_of_its_entry_or_request() {
    let bytes = encode_entry(&normal(3, b"a batch"));
    let EntryPayload::Normal(proposal) = decode_entry(&bytes).unwrap().payload else { panic!() };
    assert!(shares(&proposal.0, &bytes));

    let bytes = encoded(&append(vec![normal(1, b"one"), normal(2, b"two")]));
    for entry in decode_append(&bytes).unwrap().entries {
        let EntryPayload::Normal(proposal) = entry.payload else { panic!() };
        assert!(shares(&proposal.0, &bytes));
    }
}

#[test]
fn a_large_batch_is_not_copied_into_a_request() {
    let large = normal(2, &[1; SHARED_BYTES]);
    let EntryPayload::Normal(Proposal(batch)) = large.payload.clone() else { panic!() };
    let request = append(vec![normal(1, b"small"), large, normal(3, b"small")]);
    let parts = encode_append(&request);
    assert_eq!(parts.len(), 3);
    assert!(shares(&parts[1], &batch));
}

#[test]
fn what_is_no_entry_is_refused() {
    for entry in [entry(300, EntryPayload::Blank), membership(4)] {
        let bytes = encode_entry(&entry);
        for length in 0..bytes.len() {
            decode_entry(&bytes.slice(..length)).unwrap_err();
        }
        let longer = Bytes::from([&bytes[..], &[0]].concat());
        assert_eq!(decode_entry(&longer), Err(DecodeError::Trailing(1)));
    }
    decode_entry(&Bytes::from_static(&[3, 1, 3])).unwrap_err();
    // Only the head of a batch is decoded here; the state validates the rest.
    decode_entry(&Bytes::from_static(&[3, 1])).unwrap_err();
}

#[test]
fn a_request_to_append_comes_back() {
    for entries in [vec![], entries()] {
        let request = append(entries);
        let decoded = decode_append(&encoded(&request)).unwrap();
        assert_eq!(decoded.vote, request.vote);
        assert_eq!(decoded.prev_log_id, request.prev_log_id);
        assert_eq!(decoded.leader_commit, request.leader_commit);
        assert_eq!(decoded.entries, request.entries);
    }
}

#[test]
fn a_request_to_append_that_is_cut_or_longer_is_refused() {
    let request = append(vec![entry(1, EntryPayload::Blank), normal(2, b"batch"), membership(3)]);
    let bytes = encoded(&request);
    for length in 0..bytes.len() {
        assert!(decode_append(&bytes.slice(..length)).is_err(), "{length}");
    }
    let longer = Bytes::from([&bytes[..], &[0]].concat());
    assert_eq!(decode_append(&longer).unwrap_err(), DecodeError::Trailing(1));
}

#[test]
fn false_counts_and_lengths_are_refused() {
    let request = append(vec![]);
    let head = |entries| {
        let (vote, prev_log_id, leader_commit) =
            (request.vote, request.prev_log_id, request.leader_commit);
        encode(&AppendHead { vote, prev_log_id, leader_commit, entries }).to_vec()
    };
    let blank = encode_entry(&entry(1, EntryPayload::Blank));
    let framed = |length: u32| [&length.to_le_bytes()[..], &blank].concat();
    let own = blank.len() as u32;
    let decode = |parts: &[&[u8]]| decode_append(&Bytes::from(parts.concat()));
    assert_eq!(decode(&[&head(1), &framed(own)]).unwrap().entries.len(), 1);
    for (entries, length) in
        [(0, own), (2, own), (u32::MAX, own), (1, 0), (1, own - 1), (1, own + 1), (1, u32::MAX)]
    {
        assert!(decode(&[&head(entries), &framed(length)]).is_err(), "{entries} of {length}");
    }
    decode(&[&head(u32::MAX)]).unwrap_err();
    decode(&[&head(1), &[0; 3]]).unwrap_err();
}

/// Nodes of two releases communicate while a network is being upgraded.
#[test]
fn a_heartbeat_is_the_bytes_that_it_was() {
    let append = Bytes::from_static(b"append");
    let confirmed = Some(Confirmed { age_us: 300, applied: 9 });
    for (confirmed, is_quiescent, end) in
        [(None, false, &[0, 0, 0][..]), (confirmed, true, &[1, 0xac, 0x02, 9, 0, 1])]
    {
        let heartbeat =
            Call::Heartbeat { append: append.clone(), confirmed, acknowledged: None, is_quiescent };
        let bytes = encode(&heartbeat);
        assert_eq!(*bytes, *[&[0, 6][..], b"append", end].concat());
        let Call::Heartbeat { append: back, confirmed: age, .. } = decode(&bytes).unwrap() else {
            panic!("another call")
        };
        assert_eq!((back, age), (append.clone(), confirmed));
    }
}
