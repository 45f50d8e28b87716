//! A network of three nodes and two shards, written down.

use dkv_api::{
    GroupId, NetworkStatus, NodeId, NodeInfo, NodeState, NodeStatus, Revision, StatusError, Term,
};
use dkv_base::id::{HolderId, NetworkId};
use dkv_wire::message::{GroupRole, GroupStatus, ReplicaStatus, ServerStatus};
use dkv_wire::network::{NetworkView, Settings, ShardInfo};
use uuid::Uuid;

pub(super) fn id(number: u8) -> NodeId {
    NodeId(Uuid::from_u128(u128::from(number)))
}

/// A node's answer as a replica of each group; `leads` are the groups that it leads.
pub(super) fn answer(number: u8, voters: &[NodeId], groups: &[u32], leads: &[u32]) -> NodeStatus {
    let replica = |group: &u32| {
        let leader = leads.contains(group);
        let behind = if leader { 0 } else { u64::from(number) - 1 };
        GroupStatus {
            group: GroupId(*group),
            role: if leader { GroupRole::Leader } else { GroupRole::Follower },
            term: Term(4),
            leader: Some(if leader { id(number) } else { id(1) }),
            voters: voters.to_vec(),
            halves: Vec::new(),
            learners: Vec::new(),
            last_index: 1000 - behind,
            applied_index: 1000 - 2 * behind,
            checkpoint_index: 900,
            purged_index: 800,
            keys: 33_000 + u64::from(*group),
            bytes: 1_400_000,
            revision: Revision(1000),
            state_hash: 77,
            replicas: if leader {
                voters
                    .iter()
                    .zip((0..).map(|behind| 1000 - behind))
                    .filter(|(node, _)| **node != id(number))
                    .map(|(node, matched_index)| ReplicaStatus {
                        node: *node,
                        matched_index,
                        silent_ms: Some(7),
                        is_heard: true,
                    })
                    .collect()
            } else {
                Vec::new()
            },
        }
    };
    NodeStatus {
        id: id(number),
        name: format!("n{number}"),
        version: "0.1.0".into(),
        uptime_ms: 754_000,
        server_seen_ms: Some(20),
        groups: groups.iter().map(replica).collect(),
        log_bytes: 12_000_000,
        fsync_us: 430,
        disk_full: false,
        pending: 0,
        notes: Vec::new(),
    }
}

pub(super) fn info(number: u8, state: NodeState) -> NodeInfo {
    let address = format!("127.0.0.1:{}", 4400 + u16::from(number)).parse().unwrap();
    NodeInfo { id: id(number), name: format!("n{number}"), address, region: None, state }
}

/// Three nodes and two shards, of which `answering` answer; n1 leads the control group and shard
/// 1, n2 leads shard 2.
pub(super) fn network(answering: &[u8]) -> NetworkStatus {
    let voters = [id(1), id(2), id(3)];
    let network = NetworkId(Uuid::from_u128(0xabcd_ef01 << 96));
    let leads = |number| match number {
        1 => vec![0, 1],
        2 => vec![2],
        _ => vec![],
    };
    let nodes = (1..=3)
        .map(|number| {
            let said = if answering.contains(&number) {
                let mut said = answer(number, &voters, &[0, 1, 2], &leads(number));
                for replica in said.groups.iter_mut().flat_map(|group| &mut group.replicas) {
                    replica.is_heard = answering.iter().any(|it| id(*it) == replica.node);
                }
                Ok(said)
            } else {
                Err(StatusError::Silent("no answer within 1 s".to_owned()))
            };
            (info(number, NodeState::Live), said)
        })
        .collect();
    let shard = |group| ShardInfo {
        group: GroupId(group),
        keyspace: Default::default(),
        first_hash: u64::from(group - 1) << 63,
        primary: Some(id(1)),
        voters: voters.to_vec(),
        learners: Vec::new(),
    };
    let view = NetworkView {
        network,
        term: Term(4),
        coordinator: Some(id(1)),
        nodes: (1..=3).map(|number| info(number, NodeState::Live)).collect(),
        revision: Default::default(),
        keyspaces: Vec::new(),
        shards: vec![shard(1), shard(2)],
        settings: Settings::default(),
        denied: Vec::new(),
        servers: Vec::new(),
    };
    let server = ServerStatus {
        network,
        version: "0.1.0".into(),
        uptime_ms: 755_000,
        bootstrap: Some(id(1)),
        coordinator: Some((id(1), Term(4))),
        confirmed_at_ms: Some(1_772_368_496_000),
        report_age_ms: Some(120),
        nodes: Vec::new(),
        view: None,
        settings: Settings::default(),
        runs: Vec::new(),
        now_ms: 1_772_368_500_000,
        server: HolderId(Uuid::from_u128(1)),
        books: Some(7),
    };
    NetworkStatus {
        server: Ok(server),
        servers: Vec::new(),
        nodes,
        view: Some(view),
        placement: None,
    }
}
