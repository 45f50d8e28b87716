//! Reports for tests.

use dkv_api::{NodeId, NodeState, Uuid};

use crate::status::{Coordinator, Group, Node, Replica, Report, Role, Server};

/// Returns the id of a node, from the last letter of its name.
pub(super) fn id(name: &str) -> NodeId {
    NodeId(Uuid::from_u128(u128::from(name.bytes().last().unwrap_or(0))))
}

/// Returns the report of a network in which each node has a replica of every group. A `-` before a
/// name marks a node that does not answer. `leaders` holds the coordinator, then the primary of
/// each shard; an empty name means none.
pub(super) fn report(nodes: &[&str], leaders: &[&str], term: u64) -> Report {
    let reachable = |name: &str| nodes.contains(&name);
    let names: Vec<&str> = nodes.iter().map(|name| name.trim_start_matches('-')).collect();
    let live = names.iter().filter(|name| reachable(name)).count() as i64;
    let spare = live - (names.len() as i64 / 2 + 1);
    let replica = |name: &&str, leader: &str| Replica {
        id: id(name),
        name: (*name).to_owned(),
        reachable: reachable(name),
        leader: *name == leader && reachable(name),
        log_lag: Some(0),
        applied_lag: Some(0),
        silent_ms: None,
    };
    let some = |name: &str| (!name.is_empty() && reachable(name)).then(|| name.to_owned());
    let groups = leaders.iter().zip(0..).map(|(leader, group)| Group {
        group,
        primary: some(leader),
        term: Some(term),
        revision: Some(100),
        keys: Some(3),
        data_bytes: Some(30),
        voters: names.iter().map(|name| replica(name, leader)).collect(),
        learners: Vec::new(),
        spare: Some(spare),
    });
    let coordinator = some(leaders[0]).map(|name| Coordinator {
        id: id(&name),
        name,
        term,
        reachable: true,
        confirmed: true,
        confirmed_at_ms: None,
    });
    let node = |name: &&str| Node {
        id: id(name),
        name: (*name).to_owned(),
        role: if *name == leaders[0] { Role::Coordinator } else { Role::Replicant },
        state: NodeState::Live,
        reachable: reachable(name),
        error: None,
        address: ([127, 0, 0, 1], 1).into(),
        region: None,
        version: None,
        uptime_ms: Some(1),
        primaries: Vec::new(),
        replicas: 1,
        log_lag: None,
        applied_lag: None,
        keys: None,
        data_bytes: None,
        log_bytes: None,
        fsync_us: None,
        disk_full: false,
        pending: None,
        server_seen_ms: None,
        draining: false,
        retiring: false,
        may_stop: None,
    };
    Report {
        network: Some("n".into()),
        servers: Vec::new(),
        server: Server {
            address: "here".into(),
            reachable: true,
            error: None,
            version: None,
            uptime_ms: None,
            confirmed_coordinator: None,
            confirmed_term: None,
            confirmed_at_ms: None,
            report_age_ms: None,
        },
        coordinator,
        may_fail: Some(u32::try_from(spare).unwrap_or(0)),
        available: spare >= 0,
        warnings: Vec::new(),
        nodes: names.iter().map(node).collect(),
        groups: groups.collect(),
        moves: Vec::new(),
    }
}
