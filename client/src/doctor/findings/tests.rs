use dkv_api::{
    DiskFacts, GroupId, KeyspaceId, KeyspaceInfo, KeyspaceSettings, LeaderChange, NodeId, Term,
    Uuid,
};
use dkv_gateway::status::{Group, ListedServer, Node, Replica, Role, Server};

use super::*;

const NOW_MS: u64 = 1_800_000_000_000;

fn id(number: u128) -> NodeId {
    NodeId(Uuid::from_u128(number))
}

fn replica(number: u128) -> Replica {
    Replica {
        id: id(number),
        name: format!("n{number}"),
        reachable: true,
        leader: number == 1,
        log_lag: Some(0),
        applied_lag: Some(0),
        silent_ms: None,
    }
}

fn group(number: u32, spare: i64) -> Group {
    Group {
        group: number,
        primary: Some("n1".into()),
        term: Some(1),
        revision: Some(9),
        keys: Some(1),
        data_bytes: Some(1),
        voters: (1..=3).map(replica).collect(),
        learners: Vec::new(),
        spare: Some(spare),
    }
}

fn node(number: u128) -> Node {
    Node {
        id: id(number),
        name: format!("n{number}"),
        role: Role::Replicant,
        state: NodeState::Live,
        reachable: true,
        error: None,
        address: ([127, 0, 0, 1], 4401).into(),
        region: None,
        version: Some("0.1.0".into()),
        uptime_ms: Some(1),
        primaries: Vec::new(),
        replicas: 1,
        log_lag: Some(0),
        applied_lag: Some(0),
        keys: Some(1),
        data_bytes: Some(1),
        log_bytes: Some(1),
        fsync_us: Some(900),
        disk_full: false,
        pending: Some(0),
        server_seen_ms: Some(1),
        draining: false,
        retiring: false,
        may_stop: Some(false),
    }
}

/// A network in which nothing is wrong.
fn report() -> Report {
    Report {
        network: None,
        servers: Vec::new(),
        server: Server {
            address: "127.0.0.1:4400".into(),
            reachable: true,
            error: None,
            version: None,
            uptime_ms: None,
            confirmed_coordinator: None,
            confirmed_term: None,
            confirmed_at_ms: None,
            report_age_ms: None,
        },
        coordinator: None,
        may_fail: Some(1),
        available: true,
        warnings: Vec::new(),
        nodes: (1..=3).map(node).collect(),
        groups: vec![group(0, 1), group(1, 1)],
        moves: Vec::new(),
    }
}

fn diagnosis() -> Diagnosis {
    Diagnosis {
        clock_ms: NOW_MS,
        certificate_ends_ms: Some(NOW_MS + 13 * DAY_MS),
        disk: Some(DiskFacts { bytes: 100 * GIB, free_bytes: 50 * GIB, is_memory: false }),
        files: Some((100, 65536)),
        ..Diagnosis::default()
    }
}

fn examined(number: u128, diagnosis: Diagnosis) -> Examined {
    let ahead_ms = Some(0);
    let name = format!("n{number}");
    Examined { name, diagnosis: Ok(diagnosis), ahead_ms, trip_ms: 2 }
}

/// Returns all findings. The sections that they name exist.
fn all(snapshot: &Snapshot<'_>) -> Vec<Finding> {
    let operations = include_str!("../../../../docs/operations.md");
    let found = super::all(snapshot);
    for finding in &found {
        let Some((_, name)) = finding.help.split_once("docs/operations.md, ") else { continue };
        let name = name.split('"').nth(1).expect("the name of a section");
        assert!(operations.contains(&format!("# {name}\n")), "no such section: {finding:?}");
    }
    found
}

fn find(report: &Report, nodes: &[Examined]) -> Vec<(Severity, &'static str)> {
    let snapshot = Snapshot { report, view: None, nodes, keyspaces: Ok(Vec::new()), servers: 2 };
    all(&snapshot).into_iter().map(|finding| (finding.severity, finding.about)).collect()
}

fn healthy() -> Vec<Examined> {
    (1..=3).map(|number| examined(number, diagnosis())).collect()
}

#[test]
fn nothing_is_found_in_a_healthy_network() {
    assert_eq!(find(&report(), &healthy()), []);
}

#[test]
fn what_was_not_examined_is_no_good_news() {
    let mut nodes = healthy();
    nodes[1].diagnosis = Err("it did not answer in time".into());
    assert_eq!(find(&report(), &nodes), [(Severity::Warning, "unexamined")]);
    let (report, keyspaces) = (report(), Err("no quorum".to_owned()));
    let snapshot =
        Snapshot { report: &report, view: None, nodes: &healthy(), keyspaces, servers: 2 };
    let found = all(&snapshot);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].what.contains("quotas were not examined: no quorum"), "{found:?}");
}

#[test]
fn what_the_status_says_is_found_and_the_worst_comes_first() {
    let mut ill = report();
    ill.groups[0].spare = Some(0);
    ill.groups[1].spare = Some(-1);
    ill.groups.push(Group { primary: None, ..group(2, 1) });
    ill.nodes[1].reachable = false;
    ill.nodes[2].version = Some("0.2.0".into());
    ill.server.error = Some("silent".into());
    ill.warnings = vec![
        "shard 1: 1 of 3 voters answer, 1 more is needed".into(),
        "shard 2: n1 and n2 differ after the same entries (index 7); stop".into(),
        "n2 runs twice".into(),
    ];
    assert_eq!(
        find(&ill, &healthy()),
        [
            (Severity::Critical, "majority"),
            (Severity::Critical, "leader"),
            (Severity::Critical, "status"),
            (Severity::Warning, "failures"),
            (Severity::Warning, "node"),
            (Severity::Warning, "server"),
            (Severity::Warning, "status"),
            (Severity::Hint, "versions"),
        ]
    );
}

#[test]
fn a_second_server_that_is_silent_is_found_once() {
    let listed = |number: u8, error: Option<&str>| ListedServer {
        id: format!("{number}").repeat(32),
        address: format!("10.0.0.{number}:4400"),
        reachable: error.is_none(),
        error: error.map(str::to_owned),
        version: None,
        uptime_ms: None,
        report_age_ms: None,
    };
    let mut ill = report();
    ill.servers = vec![listed(1, None), listed(2, Some("connection refused"))];
    // As the status has it.
    ill.warnings = vec![
        "the registration server 22222222 at 10.0.0.2:4400 does not answer \
        (connection refused); others admit meanwhile"
            .into(),
    ];
    let nodes = healthy();
    let found = |report: &Report| {
        all(&Snapshot { report, view: None, nodes: &nodes, keyspaces: Ok(Vec::new()), servers: 2 })
    };
    let once = found(&ill);
    assert_eq!(once.len(), 1, "{once:?}");
    assert_eq!((once[0].severity, once[0].about), (Severity::Warning, "server"));
    let parts = ["22222222 at 10.0.0.2:4400 does not answer", "connection refused"];
    assert!(parts.iter().all(|part| once[0].what.contains(part)), "{once:?}");
    let help = |name| format!("docs/operations.md, \"{name}\"");
    assert_eq!(once[0].help, help("A server is lost, and another one runs"));
    // The one that is asked is silent.
    ill.server.error = Some("silent".into());
    for (another_answers, name) in
        [(true, "A server is lost, and another one runs"), (false, "The only server is lost")]
    {
        ill.servers[0].reachable = another_answers;
        let once = found(&ill);
        assert!(once.len() == 1 && once[0].help == help(name), "{once:?}");
    }
}

#[test]
fn what_a_machine_lacks_is_found() {
    let low = DiskFacts { bytes: 100 * GIB, free_bytes: 5 * GIB, is_memory: true };
    let lacking = Diagnosis {
        disk: Some(low),
        certificate_ends_ms: Some(NOW_MS + DAY_MS),
        files: Some((900, 1024)),
        leases: vec![(GroupId(1), LEASES_MAX as u64 * 9 / 10)],
        slow_requests: vec![("sync".into(), 3), ("batch".into(), 1)],
        ..diagnosis()
    };
    let expected = [
        (Severity::Critical, "certificate"),
        (Severity::Critical, "files"),
        (Severity::Warning, "disk"),
        (Severity::Warning, "memory"),
        (Severity::Warning, "leases"),
        (Severity::Hint, "slow"),
    ];
    assert_eq!(find(&report(), &[examined(1, lacking.clone())]), expected);
    let full = DiskFacts { free_bytes: GIB / 8, is_memory: false, ..low };
    let full = Diagnosis { disk: Some(full), files: Some((10, 1024)), ..diagnosis() };
    let expected = [(Severity::Critical, "disk"), (Severity::Hint, "files")];
    assert_eq!(find(&report(), &[examined(1, full)]), expected);
}

#[test]
fn clocks_are_apart_only_beyond_the_way_of_the_answers() {
    let clocks = |ahead: [i64; 3], trip_ms| {
        let mut nodes = healthy();
        for (node, ahead) in nodes.iter_mut().zip(ahead) {
            (node.ahead_ms, node.trip_ms) = (Some(ahead), trip_ms);
        }
        find(&report(), &nodes)
    };
    assert_eq!(clocks([0, 900, -50], 2), []);
    assert_eq!(clocks([0, 1200, 0], 2), [(Severity::Warning, "clock")]);
    assert_eq!(clocks([0, 1200, 0], 400), []);
    assert_eq!(clocks([-1_000_000, 0, 0], 2), [(Severity::Critical, "clock")]);
    // All nodes agree, and this machine does not.
    assert_eq!(clocks([-5000, -5000, -5000], 2), [(Severity::Warning, "clock")]);
}

#[test]
fn a_quota_that_is_nearly_reached_is_found() {
    let (whole, nodes) = (report(), healthy());
    let used = |bytes| {
        let settings = KeyspaceSettings { quota_bytes: Some(1000), ..KeyspaceSettings::default() };
        let keyspace = KeyspaceInfo { id: KeyspaceId(3), name: "k8s".into(), settings };
        let keyspaces = Ok(vec![KeyspaceUse { keyspace, shards_led: 1, bytes }]);
        let snapshot =
            Snapshot { report: &whole, view: None, nodes: &nodes, keyspaces, servers: 2 };
        all(&snapshot)
    };
    assert_eq!(used(840), []);
    let found = used(850);
    assert_eq!((found[0].severity, found[0].about), (Severity::Warning, "quota"));
    assert!(found[0].help.contains("keyspace set k8s --quota"), "{found:?}");
    assert_eq!(used(1000)[0].severity, Severity::Critical);
}

#[test]
fn failovers_count_if_they_are_recent_and_nobody_wanted_them() {
    let change = |why, at_ms| LeaderChange {
        group: GroupId(1),
        term: Term(1),
        leader: id(1),
        before: None,
        at_ms,
        why,
    };
    let seen = |why, at_ms| {
        let leader_changes = vec![change(why, at_ms); CHANGES];
        find(&report(), &[examined(1, Diagnosis { leader_changes, ..diagnosis() })])
    };
    assert_eq!(seen(ChangeReason::Silent, NOW_MS - 1000), [(Severity::Warning, "failovers")]);
    assert_eq!(seen(ChangeReason::Moved, NOW_MS - 1000), []);
    assert_eq!(seen(ChangeReason::Silent, NOW_MS - 2 * HOUR_MS), []);
}

#[test]
fn a_long_list_of_names_is_cut() {
    let names: Vec<String> = (1..=9).map(|number| format!("shard {number}")).collect();
    assert_eq!(listed(&names), "shard 1, shard 2, shard 3 and 6 more");
    assert_eq!(listed(&names[..4]), "shard 1, shard 2, shard 3, shard 4");
}
