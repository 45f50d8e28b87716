//! Reports and tables of fixed networks.

mod fixture;

use dkv_api::{GroupId, NetworkStatus, NodeId, NodeState, NodeStatus, StatusError, Term};
use dkv_wire::message::{GroupRole, ReplicaStatus};
use expect_test::expect;

use self::fixture::{answer, id, info, network};
use super::*;

fn shown(status: &NetworkStatus, width: usize) -> String {
    let text = render(&report(status, "127.0.0.1:4400"), Some(width), false);
    for line in text.lines() {
        assert!(line.chars().count() <= width, "{line:?} is too long");
    }
    text
}

#[test]
fn a_healthy_network() {
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
fn the_coordinator_has_failed_without_a_successor_yet() {
    let status = network(&[2, 3]);
    let report = report(&status, "127.0.0.1:4400");
    assert_eq!((report.may_fail, report.available), (Some(0), false));
    assert_eq!(
        crate::run::available(&report).unwrap_err().message,
        "the network is unavailable: no leader in control group, shard 1: an election is under \
         way, or the nodes do not reach each other, or this machine does not reach n1"
    );
    assert_eq!((report.groups[1].primary.as_ref(), report.groups[1].spare), (None, Some(0)));
    expect![[r#"
        network     abcdef01
        server      127.0.0.1:4400  up  version 0.1.0, up 12 min, last report 120 ms ago
        coordinator n1  term 4  not responding; last confirmed 2026-03-01 12:34:56 UTC
        failures    none may fail now: no leader in control group, shard 1
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
fn a_leader_that_hears_nobody_leads_nobody() {
    let mut status = network(&[1, 2, 3]);
    let leader = status.nodes[0].1.as_mut().unwrap();
    for replica in leader.groups.iter_mut().flat_map(|group| &mut group.replicas) {
        (replica.silent_ms, replica.is_heard) = (Some(12_000), false);
    }
    let cut_off = report(&status, "a");
    let why = crate::run::available(&cut_off).unwrap_err().message;
    assert!(why.ends_with("the nodes do not reach each other"), "{why}");
    assert_eq!((cut_off.may_fail, cut_off.available), (Some(0), false));
    let primaries: Vec<_> = cut_off.groups.iter().map(|group| group.primary.as_deref()).collect();
    assert_eq!(primaries, [None, None, Some("n2")]);
    let why = "shard 1: n1 leads and hears no majority of the voters; see whether the nodes reach \
               each other";
    assert!(cut_off.warnings.iter().any(|warning| warning == why), "{:?}", cut_off.warnings);

    // It hears one of two: that one must not fail.
    for group in [0, 1] {
        status.nodes[0].1.as_mut().unwrap().groups[group].replicas[0].is_heard = true;
    }
    let heard = report(&status, "a");
    assert_eq!((heard.may_fail, heard.available), (Some(0), true));

    // It is the client that does not reach the followers.
    let mut alone = network(&[1]);
    for group in &mut alone.nodes[0].1.as_mut().unwrap().groups {
        group.replicas.iter_mut().for_each(|replica| replica.is_heard = true);
    }
    let alone = report(&alone, "a");
    let spares: Vec<_> = alone.groups.iter().map(|group| (&group.primary, group.spare)).collect();
    assert_eq!(spares[1], (&Some("n1".to_owned()), Some(0)));
}

#[test]
fn both_halves_of_a_changing_group_need_a_majority() {
    let with = |halves: &[&[u8]], answering: &[u8]| {
        let mut status = network(answering);
        let halves: Vec<Vec<NodeId>> =
            halves.iter().map(|half| half.iter().map(|it| id(*it)).collect()).collect();
        for group in status.nodes.iter_mut().flat_map(|(_, it)| it).flat_map(|it| &mut it.groups) {
            group.halves = halves.clone();
        }
        report(&status, "a").groups.iter().map(|group| group.spare).collect::<Vec<_>>()
    };
    assert_eq!(with(&[&[1, 2], &[1, 3]], &[1, 2, 3]), [Some(0); 3]);
    assert_eq!(with(&[&[1, 2, 3], &[1, 2]], &[1, 2, 3]), [Some(0); 3]);
    assert_eq!(with(&[&[1, 2, 3], &[1, 3]], &[1, 2]), [Some(-1); 3]);
    assert_eq!(with(&[], &[1, 2, 3]), [Some(1); 3]);
}

#[test]
fn two_of_three_have_failed_and_the_server_too() {
    let mut status = network(&[2]);
    status.server = Err(StatusError::Silent("connection refused".into()));
    status.nodes[0].0.state = NodeState::Down;
    let report = report(&status, "127.0.0.1:4400");
    assert_eq!((report.may_fail, report.available), (Some(0), false));
    expect![[r#"
        network     abcdef01
        server      127.0.0.1:4400  not responding
        coordinator n1  term 4  not responding
        failures    too many have failed: no majority in control group, shard 1, shard 2
        !           the server does not answer (connection refused); reads and writes
                    continue, but nothing can join
        !           control group: 1 of 3 voters answer, 1 more is needed
        !           shard 1: 1 of 3 voters answer, 1 more is needed
        !           shard 2: 1 of 3 voters answer, 1 more is needed
        !           n1 does not answer: no answer within 1 s
        !           n3 does not answer: no answer within 1 s

        NODE  ROLE         STATE        ADDRESS         PRIMARY OF  LAG    KEYS   FSYNC
        n1    coordinator  down         127.0.0.1:4401  -             -       -       -
        n2    replicant    live         127.0.0.1:4402  -           0/1  66 003  430 µs
        n3    replicant    unreachable  127.0.0.1:4403  -             -       -       -

        SHARD    PRIMARY  TERM  REVISION    KEYS  VOTERS, LAG
        control  none        4         -       -  n1 unreachable  n2 0/1  n3 unreachable
        1        none        4     1 000  33 001  n1 unreachable  n2 0/1  n3 unreachable
        2        none        4     1 000  33 002  n1 unreachable  n2 0  n3 unreachable
        lag: entries behind the primary's log, of the replica's log/of its state
    "#]]
    .assert_eq(&shown(&status, 80));
}

#[test]
fn no_node_has_registered() {
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
fn an_old_leader_is_ignored() {
    let mut status = network(&[1, 2, 3]);
    for (_, answer) in status.nodes.iter_mut().skip(1) {
        for group in &mut answer.as_mut().unwrap().groups {
            group.term = Term(5);
            group.leader = Some(id(3));
        }
    }
    let leads = &mut status.nodes[2].1.as_mut().unwrap().groups;
    let heard = |number| ReplicaStatus {
        node: id(number),
        matched_index: 990,
        silent_ms: Some(7),
        is_heard: true,
    };
    for group in leads {
        (group.role, group.replicas) = (GroupRole::Leader, [1, 2].map(heard).to_vec());
    }
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
    // Shard 2 is only on the first three.
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
fn the_json_document_keeps_its_fields() {
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
          "servers": [],
          "warnings": [
            "n3 does not answer: no answer within 1 s"
          ]
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&document).unwrap());
}

#[test]
fn no_failure_is_tolerated_without_a_leader_or_a_replica() {
    let spare = |change: &dyn Fn(&mut NodeStatus)| {
        let mut status = network(&[1, 2, 3]);
        change(status.nodes[0].1.as_mut().unwrap());
        report(&status, "a").may_fail
    };
    assert_eq!(spare(&|_| ()), Some(1));
    assert_eq!(spare(&|node| node.groups[1].role = GroupRole::Candidate), Some(0));
    assert_eq!(spare(&|node| drop(node.groups.remove(2))), Some(0));
}
