use dkv_api::{
    GroupId, NetworkStatus, NodeId, NodeInfo, NodeState, NodeStatus, Revision, Term, Uuid,
};
use dkv_base::id::NetworkId;
use dkv_check::{Action, Condition, Operation, Outcome};
use dkv_console::Buffer;
use dkv_local::error::StartError;
use dkv_wire::message::{GroupRole, GroupStatus, ReplicaStatus};
use dkv_wire::network::{NetworkView, Settings, ShardInfo};

use super::*;
use crate::testbed::Event;
use crate::workload::{Followed, Tenancies, longest_wait};

const MS: u64 = 1_000_000;

fn operation(start_ms: u64, action: Action, outcome: Outcome) -> Operation {
    let (start_ns, end_ns) = (start_ms * MS, (start_ms + 4) * MS);
    Operation { client: 1, shard: 1, key: "k".into(), start_ns, end_ns, action, outcome }
}

fn put(start_ms: u64, value: &str, revision: u64) -> Operation {
    let action = Action::Put { value: value.into(), condition: Condition::Always };
    operation(start_ms, action, Outcome::Written { revision: Some(revision), existed: None })
}

fn get(start_ms: u64, value: &str, revision: u64) -> Operation {
    let outcome = Outcome::Value { value: value.into(), revision: Some(revision) };
    operation(start_ms, Action::Get(dkv_check::Level::Strong), outcome)
}

fn judged(operations: Vec<Operation>, failure: Option<DrillError>) -> DrillResult {
    let event = |at_ms: u64, text: &str| Event { at_ns: at_ms * MS, text: text.to_owned() };
    let mut finished = FinishedRun {
        history: dkv_check::History { operations, ..dkv_check::History::default() },
        events: vec![event(30, "killed <n1>"), event(60, "started n1 again")],
        followed: Followed { changes: 1234, resumed: 3, is_equal: true },
        tenancies: Tenancies { leases: 4, locks: 5 },
        end_ns: 100 * MS,
        problems: Vec::new(),
        local: None,
        clients: Vec::new(),
        _environment: environment::Environment::default(),
    };
    DrillResult::judge(Fault::CoordinatorKill, &mut finished, failure.as_ref())
}

fn told(result: &DrillResult) -> String {
    let out = Buffer::default();
    result.print(&mut Console::of(out.clone(), std::io::sink())).unwrap();
    out.text()
}

#[test]
fn a_result_is_printed_in_figures() {
    let failed = operation(
        40,
        Action::Put { value: "x".into(), condition: Condition::Always },
        Outcome::Unknown,
    );
    let outcome = judged(vec![put(10, "a", 1), failed, put(70, "b", 2), get(80, "b", 2)], None);
    assert!(outcome.holds());
    let expected = "\
coordinator-kill: all promises held
  time without service  44.0 ms
  operations            4 on 1 keys
  errors                0 failed without effect, 1 of unknown outcome
  writes acknowledged   2
  of these lost         0
  stale reads           0
  transactions          0, 0 of unknown outcome; strictly serializable
  watch                 1 234 changes, resumed 3 times; its replay equals a scan
  leases                4 ended, none early; the lock was held 5 times
  checkers              linearizable, and all revisions agree
";
    assert_eq!(told(&outcome), expected);
}

#[test]
fn a_broken_promise_is_printed_with_its_evidence() {
    let stale = vec![put(10, "a", 1), put(20, "b", 2), get(50, "a", 1), get(70, "b", 2)];
    let outcome = judged(stale, None);
    assert!(!outcome.holds());
    let told = told(&outcome);
    for part in ["NOT all promises held", "stale reads           1", "VIOLATED", "-> \"a\""] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let lost = judged(vec![put(10, "a", 1), put(20, "b", 2), get(50, "a", 1)], None);
    assert!(lost.facts().contains(&("of these lost", "1".to_owned())));
    let ended = Violation::NotRunning("n1".into());
    assert!(!judged(vec![put(10, "a", 1)], Some(ended.into())).holds());
    // A network that never served has kept no promise.
    assert!(!judged(Vec::new(), None).holds());
}

#[test]
fn waits_are_measured_for_each_shard() {
    let other = |mut operation: Operation| {
        operation.shard = 2;
        operation
    };
    let operations = vec![put(0, "a", 1), other(put(5, "b", 1)), put(50, "c", 2), put(90, "d", 3)];
    let history = dkv_check::History { operations, ..dkv_check::History::default() };
    // The second shard acknowledged nothing after 9 ms.
    assert_eq!(longest_wait(&history, 0, 100 * MS), (91 * MS, 9 * MS));
    assert_eq!(longest_wait(&history, 60 * MS, 100 * MS), (40 * MS, 60 * MS));
    assert_eq!(longest_wait(&dkv_check::History::default(), 0, 5), (5, 0));
}

#[test]
fn the_page_is_self_contained() {
    let outcome = judged(vec![put(10, "a", 1), put(70, "b", 2)], None);
    let unheld =
        Unheld { fault: Fault::ClockJump, problem: "no <library>".into(), is_excused: true };
    let page = html(&[outcome], &[unheld], "today");
    let without_names = page.replace("http://www.w3.org/2000/svg", "");
    for outside in ["http:", "https:", "src=", "@import", "url("] {
        assert!(!without_names.contains(outside), "{outside}");
    }
    for part in ["killed &lt;n1&gt;", "prefers-color-scheme:dark", "no &lt;library&gt;", "<svg"] {
        assert!(page.contains(part), "{part}");
    }
    for tag in ["svg", "table", "tr", "td", "th", "div", "ol", "li", "p", "h2", "text", "figure"] {
        let opened = page.matches(&format!("<{tag}>")).count();
        let opened = opened + page.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
}

#[test]
fn an_empty_history_has_a_chart() {
    let empty = judged(Vec::new(), None);
    let chart = chart::svg(&empty);
    assert!(chart.starts_with("<svg") && chart.ends_with("</svg>\n"));
    assert!(!chart.contains("NaN") && !chart.contains("inf"), "{chart}");
}

#[test]
fn a_network_has_not_recovered_while_a_node_is_missing() {
    let lacks = |answering: &[u8], before: &[&str]| {
        let before: Vec<String> = before.iter().map(ToString::to_string).collect();
        testbed::missing(&network(answering), &before)
    };
    assert_eq!(lacks(&[1, 2, 3], &[]), None);
    let why = "n3 does not respond: no answer within 1 s".to_owned();
    assert_eq!(lacks(&[1, 2], &[]), Some(why.clone()));
    assert_eq!(lacks(&[1, 2], &["n2"]), Some(why));
    // A node that was missing before may still be missing, but every group needs a leader.
    assert_eq!(lacks(&[1, 2], &["n3"]), None);
    assert_eq!(lacks(&[1, 3], &["n2"]), Some("shard 2 has no leader".to_owned()));
    assert!(lacks(&[], &["n1", "n2", "n3"]).is_some());
    // A removed node is no longer part of the network.
    let mut status = network(&[1, 2]);
    status.view.as_mut().unwrap().nodes.pop();
    assert_eq!(testbed::missing(&status, &[]), None);
}

#[test]
fn a_page_without_drills_shows_no_success() {
    let problem = "no small disks".to_owned();
    let unheld = [Unheld { fault: Fault::DiskFull, problem, is_excused: true }];
    assert!(!html(&[], &unheld, "today").contains("dkv drill: <span class=\"good\""));
    assert!(!succeeds(&[], &unheld));
}

#[test]
fn only_what_the_machine_lacks_excuses_a_drill_that_was_not_held() {
    let machine: [DrillError; 3] = [
        Obstacle::NoFaketime.into(),
        Obstacle::SmallDisks("unshare: Operation not permitted".to_owned()).into(),
        Obstacle::Tracing(nix::errno::Errno::EPERM).into(),
    ];
    for error in &machine {
        assert!(error.is_of_machine(), "{error}");
    }
    let started = StartError::Ended("node n1 ended".to_owned());
    let network: [DrillError; 6] = [
        started.into(),
        Violation::NoCoordinator.into(),
        Violation::NotRunning("n1".to_owned()).into(),
        DrillError::Request(dkv_api::Error::Unavailable("no primary".into())),
        Obstacle::NoRun.into(),
        Obstacle::Task.into(),
    ];
    for error in &network {
        assert!(!error.is_of_machine(), "{error}");
    }
    // One drill that failed before its fault outweighs ten that were held.
    let held = [judged(vec![put(10, "a", 1), put(70, "b", 2), get(80, "b", 2)], None)];
    let of = |is_excused| {
        [Unheld { fault: Fault::Pause, problem: "there is no coordinator".to_owned(), is_excused }]
    };
    assert!(succeeds(&held, &of(true)) && !succeeds(&held, &of(false)));
    let page = html(&held, &of(false), "today");
    assert!(page.contains("dkv drill: <span class=\"bad\""), "{page}");
}

/// Three nodes and two shards, of which `answering` answer; n1 leads the control group and shard 1,
/// n2 leads shard 2.
fn network(answering: &[u8]) -> NetworkStatus {
    let id = |number: u8| NodeId(Uuid::from_u128(u128::from(number)));
    let info = |number: u8| NodeInfo {
        id: id(number),
        name: format!("n{number}"),
        address: ([127, 0, 0, 1], 4400 + u16::from(number)).into(),
        region: None,
        state: NodeState::Live,
    };
    let voters = vec![id(1), id(2), id(3)];
    let shard = |group: u32| ShardInfo {
        group: GroupId(group),
        keyspace: Default::default(),
        first_hash: u64::from(group - 1) << 63,
        primary: Some(id(1)),
        voters: voters.clone(),
        learners: Vec::new(),
    };
    let replica = |group: u32, leader: u8, number: u8| GroupStatus {
        group: GroupId(group),
        role: if number == leader { GroupRole::Leader } else { GroupRole::Follower },
        term: Term(4),
        leader: Some(id(leader)),
        voters: voters.clone(),
        halves: Vec::new(),
        learners: Vec::new(),
        last_index: 10,
        applied_index: 10,
        checkpoint_index: 0,
        purged_index: 0,
        keys: 0,
        bytes: 0,
        revision: Revision(10),
        state_hash: 77,
        replicas: voters
            .iter()
            .filter(|_| number == leader)
            .map(|node| ReplicaStatus {
                node: *node,
                matched_index: 10,
                silent_ms: Some(7),
                is_heard: true,
            })
            .collect(),
    };
    let answer = |number: u8| NodeStatus {
        id: id(number),
        name: format!("n{number}"),
        version: "0.1.0".into(),
        uptime_ms: 1000,
        server_seen_ms: Some(20),
        groups: [(0, 1), (1, 1), (2, 2)]
            .map(|(group, leader)| replica(group, leader, number))
            .into(),
        log_bytes: 0,
        fsync_us: 430,
        disk_full: false,
        pending: 0,
        notes: Vec::new(),
    };
    let answers = (1..=3).map(|number| match answering.contains(&number) {
        true => (info(number), Ok(answer(number))),
        false => {
            (info(number), Err(dkv_api::StatusError::Silent("no answer within 1 s".to_owned())))
        }
    });
    NetworkStatus {
        servers: Vec::new(),
        server: Err(dkv_api::StatusError::Silent("no answer".into())),
        nodes: answers.collect(),
        view: Some(NetworkView {
            network: NetworkId(Uuid::from_u128(1)),
            term: Term(4),
            coordinator: Some(id(1)),
            nodes: (1..=3).map(info).collect(),
            revision: Default::default(),
            keyspaces: Vec::new(),
            shards: vec![shard(1), shard(2)],
            settings: Settings::default(),
            denied: Vec::new(),
            servers: Vec::new(),
        }),
        placement: None,
    }
}
