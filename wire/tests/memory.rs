//! What a message may cost its receiver: no announced length allocates what was not sent.
#![allow(clippy::unwrap_used, missing_docs)]

use std::alloc::System;
use std::fmt::Debug;

use bytes::Bytes;
use dkv_base::id::{GroupId, HolderId, NetworkId, NodeId, Revision, Term};
use dkv_wire::codec::{decode, encode};
use dkv_wire::identity::Role;
use dkv_wire::message::{
    Answer, GroupRole, GroupStatus, JoinAnswer, JoinRefusal, JoinRequest, Joining, NodeStatus,
    RecertifyRequest, ReplicaStatus, Reply, Request, RequestBody, ServerAnswer, ServerRequest,
    TokenInfo,
};
use dkv_wire::network::{NetworkView, NodeInfo, NodeState, Settings, ShardInfo};
use serde::Serialize;
use serde::de::DeserializeOwned;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use uuid::Uuid;

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Lengths that no message can have: 2^28, 2^32 and 2^63 elements or bytes.
const LENGTHS: [&[u8]; 3] = [
    &[0x80, 0x80, 0x80, 0x80, 0x01],
    &[0x80, 0x80, 0x80, 0x80, 0x10],
    &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
];

/// The bytes that were allocated at the most for a sample in which, at every place in turn, the
/// byte there is replaced by a length that cannot be.
fn most_allocated<T: Serialize + DeserializeOwned + Debug>(sample: &T) -> usize {
    let bytes = encode(sample);
    let mut most = 0;
    for at in 0..bytes.len() {
        for length in LENGTHS {
            let hostile = [&bytes[..at], length, &bytes[at + 1..]].concat();
            let region = Region::new(GLOBAL);
            let outcome = decode::<T>(&hostile);
            drop(outcome);
            most = most.max(region.change().bytes_allocated);
        }
    }
    most
}

fn view() -> NetworkView {
    let ids = || (0..3).map(|_| NodeId::random()).collect();
    let shard = ShardInfo {
        group: GroupId(1),
        keyspace: Default::default(),
        first_hash: 0,
        primary: None,
        voters: ids(),
        learners: ids(),
    };
    let node = NodeInfo {
        id: NodeId::random(),
        name: "name".into(),
        address: ([127, 0, 0, 1], 4401).into(),
        region: Some("region".parse().unwrap()),
        state: NodeState::Live,
    };
    NetworkView {
        network: NetworkId::random(),
        term: Term(1),
        coordinator: None,
        nodes: vec![node; 3],
        revision: Default::default(),
        keyspaces: Vec::new(),
        shards: vec![shard; 3],
        settings: Settings::default(),
        denied: vec![HolderId::random()],
        servers: Vec::new(),
    }
}

fn status() -> NodeStatus {
    let replica =
        ReplicaStatus { node: NodeId::random(), matched_index: 1, silent_ms: None, is_heard: true };
    let group = GroupStatus {
        group: GroupId(1),
        role: GroupRole::Leader,
        term: Term(1),
        leader: None,
        voters: vec![NodeId::random(); 3],
        halves: vec![vec![NodeId::random(); 3]; 2],
        learners: vec![NodeId::random(); 3],
        last_index: 1,
        applied_index: 1,
        checkpoint_index: 1,
        purged_index: 1,
        keys: 1,
        bytes: 1,
        revision: Revision(1),
        state_hash: 1,
        replicas: vec![replica; 3],
    };
    NodeStatus {
        id: NodeId::random(),
        name: "name".into(),
        version: "version".into(),
        uptime_ms: 1,
        server_seen_ms: None,
        groups: vec![group; 3],
        log_bytes: 1,
        fsync_us: 1,
        disk_full: false,
        pending: 0,
        notes: Vec::new(),
    }
}

// One test, for the allocator counts for the whole process.
#[test]
fn an_announced_length_allocates_nothing_that_was_not_sent() {
    // What somebody without a certificate may send, and what a joiner is answered: no lists at all.
    let (token, secret) = (Uuid::new_v4(), [7; 32]);
    let bytes = || Bytes::from(vec![1; 100]);
    let join = Joining::Join(JoinRequest { token, secret, public_key: bytes() });
    let recertify = RecertifyRequest { certificate: bytes(), proof: bytes() };
    let answer = JoinAnswer {
        network: NetworkId::random(),
        role: Role::Node,
        holder: HolderId::random(),
        certificate: bytes(),
    };
    let answer: Result<_, JoinRefusal> = Ok(answer);
    let few = 1024;
    assert!(most_allocated(&join) < few);
    assert!(most_allocated(&Joining::Recertify(recertify)) < few);
    assert!(most_allocated(&answer) < few);
    // What a client may send has no lists either.
    for body in [
        RequestBody::Propose { shard: GroupId(1), everywhere: false, command: bytes() },
        RequestBody::Announce {
            name: "name".into(),
            address: ([127, 0, 0, 1], 1).into(),
            region: None,
        },
    ] {
        assert!(
            most_allocated(&Request { id: 1, deadline_ms: 1, forward: false, user: None, body })
                < few
        );
    }
    // Before the elements of a list are there, serde makes room for at most a mebibyte of them. No
    // more than two lists are nested, and each list before the false one is as long as it says.
    let list = 1024 * 1024;
    let token = TokenInfo {
        id: Uuid::new_v4(),
        role: Role::Node,
        user: None,
        name: None,
        expires_ms: None,
        used: 1,
        uses: None,
        admitted: vec![HolderId::random(); 3],
    };
    let control = dkv_wire::message::ControlGroup {
        term: Term(1),
        leader: None,
        index: 1,
        voters: vec![NodeId::random(); 3],
    };
    let report = dkv_wire::message::CoordinatorReport { term: Term(1), view: view(), control };
    let most = [
        most_allocated(&ServerRequest::Report(report)),
        most_allocated(&ServerAnswer::View(Some(Box::new(view())))),
        most_allocated(&ServerAnswer::Tokens(vec![token; 3])),
        most_allocated(&Reply { id: 1, result: Ok(Answer::View(Box::new(view()))) }),
        most_allocated(&Reply { id: 1, result: Ok(Answer::Status(Box::new(status()))) }),
    ];
    assert!(most.iter().all(|most| *most < 2 * list), "{most:?}");
}
