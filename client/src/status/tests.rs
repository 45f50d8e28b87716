//! Reports and tables of networks that are written down here.

use dkv_api::{GroupId, NetworkStatus, NodeId, NodeInfo, NodeState, NodeStatus, Revision, Term};
use dkv_base::id::NetworkId;
use dkv_wire::message::{GroupRole, GroupStatus, ReplicaStatus, ServerStatus};
use dkv_wire::network::{NetworkView, Settings, ShardInfo};
use expect_test::expect;
use uuid::Uuid;

use super::*;

fn id(number: u8) -> NodeId {
    NodeId(Uuid::from_u128(u128::from(number)))
}

/// A node's answer as a replica of each group; `leads` are the groups that it leads.
fn answer(number: u8, voters: &[NodeId], groups: &[u32], leads: &[u32]) -> NodeStatus {
    let replica = |group: &u32| {
        let leader = leads.contains(group);
        let behind = if leader { 0 } else { u64::from(number) - 1 };
        GroupStatus {
            group: GroupId(*group),
            role: if leader { GroupRole::Leader } else { GroupRole::Follower },
            term: Term(4),
            leader: Some(id(1)),
            voters: voters.to_vec(),
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
                    .zip([1000, 999, 998])
                    .filter(|(node, _)| **node != id(number))
                    .map(|(node, matched_index)| ReplicaStatus {
                        node: *node,
                        matched_index,
                        silent_ms: Some(7),
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

fn info(number: u8, state: NodeState) -> NodeInfo {
    let address = format!("127.0.0.1:{}", 4400 + u16::from(number)).parse().unwrap();
    NodeInfo { id: id(number), name: format!("n{number}"), address, region: None, state }
}

/// Three nodes and two shards, of which `answering` answer; n1 leads the control group and shard
/// 1, n2 leads shard 2.
pub(crate) fn network(answering: &[u8]) -> NetworkStatus {
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
                Ok(answer(number, &voters, &[0, 1, 2], &leads(number)))
            } else {
                Err("no answer within 1 s".to_owned())
            };
            (info(number, NodeState::Live), said)
        })
        .collect();
    let shard = |group| ShardInfo {
        group: GroupId(group),
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
        shards: vec![shard(1), shard(2)],
        settings: Settings::default(),
        denied: Vec::new(),
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
    };
    NetworkStatus { server: Ok(server), nodes, view: Some(view), placement: None }
}

fn shown(status: &NetworkStatus, width: usize) -> String {
    let text = render(&report(status, "127.0.0.1:4400"), Some(width), false);
    for line in text.lines() {
        assert!(line.chars().count() <= width, "{line:?} is too long");
    }
    text
}

#[test]
fn a_network_where_all_is_well() {
    expect![[r#"
        network     abcdef01
        server      127.0.0.1:4400  up  version 0.1.0, up 12 min, last report 120 ms ago
        coordinator n1  term 4  confirmed by the server at 2026-03-01 12:34:56 UTC
        failures    tolerates 1 more failure

        NODE  ROLE         STATE  ADDRESS         PRIMARY OF  LAG    KEYS     DATA       LOG   FSYNC      UP
        n1    coordinator  live   127.0.0.1:4401  1             0  66 003  2.7 MiB  11.4 MiB  430 µs  12 min
        n2    replicant    live   127.0.0.1:4402  2           1/2  66 003  2.7 MiB  11.4 MiB  430 µs  12 min
        n3    replicant    live   127.0.0.1:4403  -           2/4  66 003  2.7 MiB  11.4 MiB  430 µs  12 min

        SHARD    PRIMARY  TERM  REVISION    KEYS     DATA  VOTERS, LAG
        control  n1          4         -       -        -  n1 0  n2 1/2  n3 2/4
        1        n1          4     1 000  33 001  1.3 MiB  n1 0  n2 1/2  n3 2/4
        2        n2          4     1 000  33 002  1.3 MiB  n1 0  n2 0  n3 2/4
        lag: entries behind the primary's log, of the replica's log/of its state
    "#]].assert_eq(&shown(&network(&[1, 2, 3]), 120));
}

#[test]
fn eighty_columns_are_enough() {
    expect![[r#"
        network     abcdef01
        server      127.0.0.1:4400  up  version 0.1.0, up 12 min, last report 120 ms ago
        coordinator n1  term 4  confirmed by the server at 2026-03-01 12:34:56 UTC
        failures    tolerates 1 more failure

        NODE  ROLE         STATE  ADDRESS         PRIMARY OF  LAG    KEYS   FSYNC
        n1    coordinator  live   127.0.0.1:4401  1             0  66 003  430 µs
        n2    replicant    live   127.0.0.1:4402  2           1/2  66 003  430 µs
        n3    replicant    live   127.0.0.1:4403  -           2/4  66 003  430 µs

        SHARD    PRIMARY  TERM  REVISION    KEYS     DATA  VOTERS, LAG
        control  n1          4         -       -        -  n1 0  n2 1/2  n3 2/4
        1        n1          4     1 000  33 001  1.3 MiB  n1 0  n2 1/2  n3 2/4
        2        n2          4     1 000  33 002  1.3 MiB  n1 0  n2 0  n3 2/4
        lag: entries behind the primary's log, of the replica's log/of its state
    "#]]
    .assert_eq(&shown(&network(&[1, 2, 3]), 80));
}

#[test]
fn regions_are_shown_if_there_are_any() {
    let mut status = network(&[1, 2, 3]);
    for ((node, _), region) in status.nodes.iter_mut().zip(["us-east", "singapore"]) {
        node.region = Some(region.parse().unwrap());
    }
    expect![[r#"
        NODE  REGION     ROLE         STATE  ADDRESS         PRIMARY OF  LAG    KEYS       LOG   FSYNC
        n1    us-east    coordinator  live   127.0.0.1:4401  1             0  66 003  11.4 MiB  430 µs
        n2    singapore  replicant    live   127.0.0.1:4402  2           1/2  66 003  11.4 MiB  430 µs
        n3    -          replicant    live   127.0.0.1:4403  -           2/4  66 003  11.4 MiB  430 µs
    "#]].assert_eq(&render_nodes(&report(&status, "a"), Some(100), false));
    let json = serde_json::to_value(report(&status, "a")).unwrap();
    assert_eq!(json["nodes"][0]["region"], "us-east");
    assert_eq!(json["nodes"][2]["region"], serde_json::Value::Null);
}

#[test]
fn one_node_has_failed() {
    expect![[r#"
        network     abcdef01
        server      127.0.0.1:4400  up  version 0.1.0, up 12 min, last report 120 ms ago
        coordinator n1  term 4  confirmed by the server at 2026-03-01 12:34:56 UTC
        failures    tolerates no further failures
        !           n3 does not answer: no answer within 1 s

        NODE  ROLE         STATE        ADDRESS         PRIMARY OF  LAG    KEYS       LOG   FSYNC      UP
        n1    coordinator  live         127.0.0.1:4401  1             0  66 003  11.4 MiB  430 µs  12 min
        n2    replicant    live         127.0.0.1:4402  2           1/2  66 003  11.4 MiB  430 µs  12 min
        n3    replicant    unreachable  127.0.0.1:4403  -             2       -         -       -       -

        SHARD    PRIMARY  TERM  REVISION    KEYS     DATA  VOTERS, LAG
        control  n1          4         -       -        -  n1 0  n2 1/2  n3 unreachable
        1        n1          4     1 000  33 001  1.3 MiB  n1 0  n2 1/2  n3 unreachable
        2        n2          4     1 000  33 002  1.3 MiB  n1 0  n2 0  n3 unreachable
        lag: entries behind the primary's log, of the replica's log/of its state
    "#]].assert_eq(&shown(&network(&[1, 2]), 100));
}

#[test]
fn the_coordinator_has_failed_and_nobody_follows_it_yet() {
    let status = network(&[2, 3]);
    let report = report(&status, "127.0.0.1:4400");
    assert_eq!(report.may_fail, Some(0));
    assert!(report.available);
    assert_eq!(report.groups[1].primary, None);
    expect![[r#"
        network     abcdef01
        server      127.0.0.1:4400  up  version 0.1.0, up 12 min, last report 120 ms ago
        coordinator n1  term 4  not responding; last confirmed 2026-03-01 12:34:56 UTC
        failures    tolerates no further failures
        !           control group: no leader answers; an election may be under way
        !           shard 1: no leader answers; an election may be under way
        !           n1 does not answer: no answer within 1 s

        NODE  ROLE         STATE        ADDRESS         PRIMARY OF  LAG    KEYS       LOG   FSYNC      UP
        n1    coordinator  unreachable  127.0.0.1:4401  -             0       -         -       -       -
        n2    replicant    live         127.0.0.1:4402  2           0/1  66 003  11.4 MiB  430 µs  12 min
        n3    replicant    live         127.0.0.1:4403  -           2/4  66 003  11.4 MiB  430 µs  12 min

        SHARD    PRIMARY  TERM  REVISION    KEYS     DATA  VOTERS, LAG
        control  none        4         -       -        -  n1 unreachable  n2 0/1  n3 1/3
        1        none        4     1 000  33 001  1.3 MiB  n1 unreachable  n2 0/1  n3 1/3
        2        n2          4     1 000  33 002  1.3 MiB  n1 unreachable  n2 0  n3 2/4
        lag: entries behind the primary's log, of the replica's log/of its state
    "#]].assert_eq(&shown(&status, 100));
}

#[test]
fn two_of_three_have_failed_and_the_server_too() {
    let mut status = network(&[2]);
    status.server = Err("connection refused".into());
    status.nodes[0].0.state = NodeState::Down;
    let report = report(&status, "127.0.0.1:4400");
    assert_eq!((report.may_fail, report.available), (Some(0), false));
    expect![[r#"
        network     abcdef01
        server      127.0.0.1:4400  not responding
        coordinator n1  term 4  not responding
        failures    too many have failed: no majority in control group, shard 1, shard 2
        !           the server does not answer (connection refused); reads and writes go
                    on without it, joining waits
        !           control group: 1 of 3 voters answer, 1 more is needed
        !           shard 1: 1 of 3 voters answer, 1 more is needed
        !           shard 2: 1 of 3 voters answer, 1 more is needed
        !           n1 does not answer: no answer within 1 s
        !           n3 does not answer: no answer within 1 s

        NODE  ROLE         STATE        ADDRESS         PRIMARY OF  LAG    KEYS   FSYNC
        n1    coordinator  down         127.0.0.1:4401  -             0       -       -
        n2    replicant    live         127.0.0.1:4402  2           0/1  66 003  430 µs
        n3    replicant    unreachable  127.0.0.1:4403  -             2       -       -

        SHARD    PRIMARY  TERM  REVISION    KEYS  VOTERS, LAG
        control  none        4         -       -  n1 unreachable  n2 0/1  n3 unreachable
        1        none        4     1 000  33 001  n1 unreachable  n2 0/1  n3 unreachable
        2        n2          4     1 000  33 002  n1 unreachable  n2 0  n3 unreachable
        lag: entries behind the primary's log, of the replica's log/of its state
    "#]]
    .assert_eq(&shown(&status, 80));
}

#[test]
fn nobody_has_registered() {
    let mut status = network(&[]);
    status.nodes.clear();
    status.view = None;
    let server = status.server.as_mut().unwrap();
    (server.coordinator, server.confirmed_at_ms, server.report_age_ms) = (None, None, None);
    expect![[r#"
        network     abcdef01
        server      127.0.0.1:4400  up  version 0.1.0, up 12 min
        coordinator no node has registered yet
        failures    not known: no group of nodes answers
    "#]]
    .assert_eq(&shown(&status, 80));
    let report = report(&status, "a");
    assert_eq!(report.may_fail, None);
    assert!(render_nodes(&report, None, false).starts_with("no nodes have registered"));
}

#[test]
fn an_old_leader_is_not_believed() {
    let mut status = network(&[1, 2, 3]);
    for (_, answer) in status.nodes.iter_mut().skip(1) {
        for group in &mut answer.as_mut().unwrap().groups {
            group.term = Term(5);
            group.leader = Some(id(3));
        }
    }
    let leads = &mut status.nodes[2].1.as_mut().unwrap().groups;
    leads.iter_mut().for_each(|group| group.role = GroupRole::Leader);
    let report = report(&status, "a");
    let coordinator = report.coordinator.unwrap();
    assert_eq!((coordinator.name.as_str(), coordinator.term), ("n3", 5));
    assert!(!coordinator.confirmed);
    assert_eq!(report.groups[1].primary.as_deref(), Some("n3"));
    assert!(report.warnings[0].contains("has not confirmed n3 in term 5"));
}

#[test]
fn replicas_that_differ_are_reported() {
    let mut status = network(&[1, 2, 3]);
    for index in [0, 1] {
        let group = &mut status.nodes[index].1.as_mut().unwrap().groups[1];
        group.applied_index = 1000;
        group.state_hash = index as u64;
    }
    let report = report(&status, "a");
    assert!(report.warnings[0].starts_with("shard 1: n1 and n2 differ after the same entries"));
}

#[test]
fn five_voters_let_two_fail_and_the_weakest_group_counts() {
    let voters: Vec<NodeId> = (1..=5).map(id).collect();
    let mut status = network(&[1, 2, 3]);
    status.view = None;
    status.nodes = (1..=5)
        .map(|number| {
            let leads = if number == 1 { vec![0, 1] } else { vec![] };
            (info(number, NodeState::Live), Ok(answer(number, &voters, &[0, 1], &leads)))
        })
        .collect();
    assert_eq!(report(&status, "a").may_fail, Some(2));
    // Shard 2 lives on the first three only.
    for (_, answer) in status.nodes.iter_mut().take(3) {
        let answer = answer.as_mut().unwrap();
        let mut replica = answer.groups[1].clone();
        replica.group = GroupId(2);
        replica.voters.truncate(3);
        answer.groups.push(replica);
    }
    assert_eq!(report(&status, "a").may_fail, Some(1));
}

#[test]
fn the_document_keeps_its_fields() {
    let report = report(&network(&[1, 2]), "127.0.0.1:4400");
    let mut document = serde_json::to_value(&report).unwrap();
    document["nodes"].as_array_mut().unwrap().drain(1..2);
    document["groups"].as_array_mut().unwrap().drain(1..);
    expect![[r#"
        {
          "available": true,
          "coordinator": {
            "confirmed": true,
            "confirmed_at_ms": 1772368496000,
            "id": "00000000-0000-0000-0000-000000000001",
            "name": "n1",
            "reachable": true,
            "term": 4
          },
          "groups": [
            {
              "data_bytes": 1400000,
              "group": 0,
              "keys": 33000,
              "learners": [],
              "primary": "n1",
              "revision": 1000,
              "spare": 0,
              "term": 4,
              "voters": [
                {
                  "applied_lag": 0,
                  "id": "00000000-0000-0000-0000-000000000001",
                  "leader": true,
                  "log_lag": 0,
                  "name": "n1",
                  "reachable": true,
                  "silent_ms": null
                },
                {
                  "applied_lag": 2,
                  "id": "00000000-0000-0000-0000-000000000002",
                  "leader": false,
                  "log_lag": 1,
                  "name": "n2",
                  "reachable": true,
                  "silent_ms": 7
                },
                {
                  "applied_lag": null,
                  "id": "00000000-0000-0000-0000-000000000003",
                  "leader": false,
                  "log_lag": 2,
                  "name": "n3",
                  "reachable": false,
                  "silent_ms": 7
                }
              ]
            }
          ],
          "may_fail": 0,
          "moves": [],
          "network": "abcdef01-0000-0000-0000-000000000000",
          "nodes": [
            {
              "address": "127.0.0.1:4401",
              "applied_lag": 0,
              "data_bytes": 2800000,
              "disk_full": false,
              "draining": false,
              "error": null,
              "fsync_us": 430,
              "id": "00000000-0000-0000-0000-000000000001",
              "keys": 66003,
              "log_bytes": 12000000,
              "log_lag": 0,
              "may_stop": null,
              "name": "n1",
              "pending": 0,
              "primaries": [
                1
              ],
              "reachable": true,
              "region": null,
              "replicas": 2,
              "retiring": false,
              "role": "coordinator",
              "server_seen_ms": 20,
              "state": "live",
              "uptime_ms": 754000,
              "version": "0.1.0"
            },
            {
              "address": "127.0.0.1:4403",
              "applied_lag": null,
              "data_bytes": null,
              "disk_full": false,
              "draining": false,
              "error": "no answer within 1 s",
              "fsync_us": null,
              "id": "00000000-0000-0000-0000-000000000003",
              "keys": null,
              "log_bytes": null,
              "log_lag": 2,
              "may_stop": null,
              "name": "n3",
              "pending": null,
              "primaries": [],
              "reachable": false,
              "region": null,
              "replicas": 0,
              "retiring": false,
              "role": "replicant",
              "server_seen_ms": null,
              "state": "live",
              "uptime_ms": null,
              "version": null
            }
          ],
          "server": {
            "address": "127.0.0.1:4400",
            "confirmed_at_ms": 1772368496000,
            "confirmed_coordinator": "n1",
            "confirmed_term": 4,
            "error": null,
            "reachable": true,
            "report_age_ms": 120,
            "uptime_ms": 755000,
            "version": "0.1.0"
          },
          "warnings": [
            "n3 does not answer: no answer within 1 s"
          ]
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&document).unwrap());
}

#[test]
fn nothing_is_to_spare_where_nobody_leads_or_a_replica_is_missing() {
    let spare = |change: &dyn Fn(&mut NodeStatus)| {
        let mut status = network(&[1, 2, 3]);
        change(status.nodes[0].1.as_mut().unwrap());
        report(&status, "a").may_fail
    };
    assert_eq!(spare(&|_| ()), Some(1));
    assert_eq!(spare(&|node| node.groups[1].role = GroupRole::Candidate), Some(0));
    assert_eq!(spare(&|node| drop(node.groups.remove(2))), Some(0));
}
