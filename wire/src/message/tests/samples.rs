//! Samples of all messages: each variant of each enum is in one of them.

use std::net::SocketAddr;

use bytes::Bytes;
use dkv_base::id::{
    GroupId, HolderId, KeyspaceId, LeaseId, NetworkId, NodeId, Number, Revision, Stamp, Term,
};
use uuid::Uuid;

use super::super::*;
use crate::bearer::Rights;
use crate::identity::Role;
use crate::incarnation::{BootId, Incarnation, PastIncarnation, Ruling, Verdict};
use crate::network::{NetworkView, NodeInfo, NodeState, ServerInfo, Settings, ShardInfo};
use crate::region::Region;
use crate::seal::Seal;

mod books;
mod commands;
mod commit;
mod diagnosis;
mod history;
mod keyspaces;
mod lease;
mod placement;
mod policies;

pub(super) use commands::{commands, conditions, operations};
use history::{cut, operation_results, version, versions};
pub(super) use history::{transactions, watch_frames, watch_requests};
use placement::{measures, placement};

fn uuid(letter: char) -> Uuid {
    Uuid::from_bytes([letter as u8; 16])
}

fn node(letter: char) -> NodeId {
    NodeId(uuid(letter))
}

fn region() -> Region {
    "us-east".parse().unwrap()
}

fn v4() -> SocketAddr {
    ([192, 0, 2, 1], 4401).into()
}

fn v6() -> SocketAddr {
    "[2001:db8::1]:4402".parse().unwrap()
}

pub(super) fn openings() -> Vec<Opening> {
    let (group, from) = (GroupId(300), node('a'));
    let acknowledged = Acknowledged { term: Term(7), index: 1000, seal: Seal([7; 16]) };
    vec![
        Opening::Requests,
        Opening::RaftCalls { group, from },
        Opening::RaftHeartbeats { from },
        Opening::RaftAppend { group, from, acknowledged: None },
        Opening::RaftAppend { group, from, acknowledged: Some(acknowledged) },
        Opening::RaftSnapshot { group, from },
        Opening::Run { from },
        Opening::Watch,
    ]
}

pub(super) fn levels() -> Vec<Level> {
    vec![Level::Strong, Level::Eventual, Level::Session, Level::All]
}

pub(super) fn request_bodies() -> Vec<RequestBody> {
    let read = |mode| RequestBody::Read { shard: GroupId(1), key: Bytes::from("key"), mode };
    let span = |values| Span {
        prefix: Bytes::from("k"),
        after: Bytes::from("key"),
        keys_max: 1000,
        bytes_max: 65_536,
        values,
    };
    let scan = |values, mode| RequestBody::Scan { shard: GroupId(1), span: span(values), mode };
    let bounds = ReadBounds {
        max_staleness_ms: Some(300),
        at_least: Revision(1 << 40),
        deposits: vec![(node('d'), Number(7))],
    };
    vec![
        RequestBody::View,
        RequestBody::Status,
        read(ReadMode::Primary),
        read(ReadMode::Replica),
        read(ReadMode::Eventual(ReadBounds::default())),
        read(ReadMode::Eventual(bounds)),
        read(ReadMode::All),
        scan(true, ReadMode::Primary),
        scan(false, ReadMode::Primary),
        scan(true, ReadMode::Held),
        RequestBody::Propose {
            shard: GroupId(2),
            everywhere: true,
            command: Bytes::from("command"),
        },
        RequestBody::Deposit {
            shard: GroupId(3),
            stamp: Stamp(1 << 59),
            again: true,
            key: Bytes::from("key"),
            value: Some(Bytes::from("value")),
        },
        RequestBody::Committed { shard: GroupId(2), followed: None },
        RequestBody::Committed { shard: GroupId(2), followed: Some(Term(3)) },
        RequestBody::Reach { shard: GroupId(2), index: 1 << 33 },
        RequestBody::Announce { name: "näme".into(), address: v6(), region: None },
        RequestBody::Announce { name: "name".into(), address: v4(), region: Some(region()) },
        RequestBody::Leaving,
        RequestBody::RemoveNode(node('b')),
        RequestBody::ExpelNode(node('b')),
        RequestBody::Revoke(HolderId(uuid('c'))),
        RequestBody::Measures(Box::new(measures())),
        RequestBody::Departed(GroupId(3)),
        RequestBody::HandOver { shard: GroupId(3), to: node('a') },
        RequestBody::Drain { node: node('a'), on: true },
        RequestBody::Rebalance,
        RequestBody::MovePrimary { shard: GroupId(3), to: node('a') },
        RequestBody::Placement { forecast: true },
        RequestBody::Member { group: GroupId(0), node: node('a') },
        RequestBody::MayLead { group: GroupId(0), node: node('a') },
        RequestBody::Remainder { applied: 1 << 20 },
        RequestBody::ReadAt { shard: GroupId(1), key: Bytes::from("key"), at: cut() },
        RequestBody::ScanAt { shard: GroupId(1), span: span(true), at: Cut::at(Revision(7)) },
        RequestBody::History {
            shard: GroupId(1),
            key: Bytes::from("key"),
            before: Revision(9),
            versions_max: 100,
        },
        RequestBody::Compact { shard: GroupId(1), floor: Revision(1 << 40) },
        RequestBody::Cut { shard: GroupId(1), moment: Stamp(1 << 60) },
        RequestBody::Range {
            shard: GroupId(1),
            keys: KeyRange::Range(Bytes::from("a"), Bytes::from("b")),
            after: Bytes::from("aa"),
            options: history::range_options(),
            bytes_max: 1 << 20,
            count: true,
            mode: ReadMode::Primary,
        },
    ]
    .into_iter()
    .chain(lease::request_bodies())
    .chain(keyspaces::requests())
    .chain(diagnosis::requests())
    .chain(books::requests())
    .chain(policies::requests())
    .collect()
}

pub(super) fn requests() -> Vec<Request> {
    let user = Some("alice".parse().unwrap());
    let request = |body| Request { id: 1 << 40, deadline_ms: 10_000, forward: true, user, body };
    request_bodies().into_iter().map(request).collect()
}

fn receipt(level: Level, staleness_ms: Option<u64>) -> Receipt {
    let (shard, revision) = (GroupId(1), Revision(1000));
    let (stamp, pending) = (Stamp(99), staleness_ms.map(Number));
    Receipt { shard, revision, level, node: node('a'), term: Term(3), staleness_ms, stamp, pending }
}

pub(super) fn node_states() -> Vec<NodeState> {
    use NodeState::{Down, Joining, Left, Live, Suspect};
    vec![Joining, Live, Suspect, Down, Left]
}

fn view() -> NetworkView {
    let shard = |number: u32| ShardInfo {
        group: GroupId(number),
        keyspace: KeyspaceId(3),
        first_hash: u64::from(number) << 62,
        primary: (number == 1).then(|| node('a')),
        voters: vec![node('a'), node('b'), node('c')],
        learners: vec![node('d')],
    };
    let info = |(state, letter)| NodeInfo {
        id: node(letter),
        name: letter.to_string(),
        address: if letter == 'a' { v6() } else { v4() },
        region: (letter == 'a').then(region),
        state,
    };
    NetworkView {
        network: NetworkId(uuid('n')),
        term: Term(4),
        coordinator: Some(node('b')),
        nodes: node_states().into_iter().zip('a'..).map(info).collect(),
        revision: Revision(77),
        keyspaces: vec![keyspaces::keyspace()],
        shards: vec![shard(1), shard(2)],
        settings: Settings::default(),
        denied: vec![HolderId(uuid('x'))],
        servers: vec![ServerInfo { id: HolderId(uuid('s')), address: v4() }],
    }
}

pub(super) fn group_roles() -> Vec<GroupRole> {
    vec![GroupRole::Leader, GroupRole::Follower, GroupRole::Candidate, GroupRole::Learner]
}

fn status() -> NodeStatus {
    let group = |role| GroupStatus {
        group: GroupId(0),
        role,
        term: Term(4),
        leader: Some(node('a')),
        voters: vec![node('a'), node('b')],
        halves: vec![vec![node('a'), node('b')], vec![node('a')]],
        learners: vec![node('c')],
        last_index: 100,
        applied_index: 99,
        checkpoint_index: 50,
        purged_index: 40,
        keys: 10,
        bytes: 1000,
        revision: Revision(12),
        state_hash: u64::MAX,
        replicas: vec![
            ReplicaStatus {
                node: node('b'),
                matched_index: 98,
                silent_ms: Some(3),
                is_heard: true,
            },
            ReplicaStatus { node: node('c'), matched_index: 0, silent_ms: None, is_heard: false },
        ],
    };
    NodeStatus {
        id: node('a'),
        name: "a".into(),
        version: "0.1.0".into(),
        uptime_ms: 1,
        server_seen_ms: None,
        groups: group_roles().into_iter().map(group).collect(),
        log_bytes: 4096,
        fsync_us: 300,
        disk_full: true,
        pending: 3,
        notes: vec!["held back".into()],
    }
}

pub(super) fn page() -> Page {
    let pair = |key: &'static str, value| Pair {
        key: key.into(),
        revision: Revision(9),
        value,
        created: Revision(7),
        version: 2,
        lease: LeaseId(3),
        expiry: Some(VersionExpiry { ttl_ms: 1000, remaining_ms: 10 }),
    };
    Page { pairs: vec![pair("k1", Some(Bytes::from("value"))), pair("k2", None)], more: true }
}

pub(super) fn answers() -> Vec<Answer> {
    let stored = Stored { value: Bytes::from("value"), revision: Revision(9) };
    let reach = Reach { mended: vec![node('b')], missing: vec![node('c'), node('d')] };
    let mut answers = vec![
        Answer::View(Box::new(view())),
        Answer::Status(Box::new(status())),
        Answer::Value(receipt(Level::Eventual, Some(12)), Some(stored)),
        Answer::Value(receipt(Level::Eventual, None), None),
        Answer::Page(receipt(Level::Strong, Some(0)), page()),
        Answer::Written { receipt: receipt(Level::Strong, Some(0)), existed: true },
        Answer::ValueEverywhere(receipt(Level::All, Some(0)), None, reach.clone()),
        Answer::WrittenEverywhere { receipt: receipt(Level::All, Some(0)), existed: true, reach },
        Answer::Committed { index: 12, term: Term(2) },
        Answer::Reached { was_behind: true },
        Answer::Done,
        Answer::Departed { index: 99, term: Term(5) },
        Answer::Placement(Box::new(placement())),
        Answer::Member(true),
        Answer::NotEverywhere(vec![node('b')]),
        Answer::Remainder(Remainder { takes_writes: false, keeps_writes: true, shards: 3 }),
        Answer::VersionAt(receipt(Level::Strong, Some(0)), Some(version(true))),
        Answer::VersionAt(receipt(Level::Eventual, None), None),
        Answer::Versions(receipt(Level::Strong, Some(0)), versions()),
        Answer::Transacted {
            receipt: receipt(Level::Strong, Some(0)),
            succeeded: true,
            changed: true,
            results: Some(operation_results()),
            path: 5,
        },
        Answer::Ranged(
            receipt(Level::Strong, Some(0)),
            RangePage {
                keys: vec![(Bytes::from("k"), version(true))],
                more: true,
                count: 12,
                at: Revision(7),
            },
        ),
        Answer::Compacted { receipt: receipt(Level::Strong, Some(0)), before: Revision(5) },
        Answer::Cut(receipt(Level::Strong, Some(0)), cut()),
    ];
    answers.extend(lease::answers());
    answers.extend(keyspaces::answers());
    answers.extend(diagnosis::answers());
    answers.extend(books::answers());
    answers.extend(policies::answers());
    answers.extend(commit::answers(receipt(Level::Strong, Some(0))));
    answers
}

pub(super) fn refusals() -> Vec<Refusal> {
    let conflict =
        |current| Refusal::Conflict { receipt: receipt(Level::Strong, Some(0)), current };
    vec![
        Refusal::NotPrimary { primary: Some(node('a')) },
        Refusal::NotPrimary { primary: None },
        conflict(Some(Revision(3))),
        conflict(None),
        Refusal::Clock { now: Stamp(1 << 58) },
        Refusal::Behind { revision: Revision(5), staleness_ms: None },
        Refusal::SessionExpired,
        Refusal::Invalid("empty key".into()),
        Refusal::TooLarge { what: "value".into(), bytes: 1 << 40, limit: 1 << 20 },
        Refusal::Overloaded { retry_after_ms: 100 },
        Refusal::Unavailable("no quorum".into()),
        Refusal::Unknown("no answer".into()),
        Refusal::Denied("a client".into()),
        Refusal::Lost { node: node('a'), number: Number(12) },
        Refusal::Compacted { floor: Revision(1 << 40) },
        Refusal::NotYet { asked: Revision(9), latest: Revision(8) },
        Refusal::Unfit { operation: 0, why: Unfit::NotANumber },
    ]
    .into_iter()
    .chain(lease::refusals())
    .chain(keyspaces::refusals())
    .chain(policies::refusals())
    .collect()
}

pub(super) fn replies() -> Vec<Reply> {
    let answers = answers().into_iter().map(Ok);
    let refusals = refusals().into_iter().map(Err);
    answers.chain(refusals).map(|result| Reply { id: 77, result }).collect()
}

pub(super) fn roles() -> Vec<Role> {
    vec![Role::Server, Role::Node, Role::Client, Role::Admin, Role::Reader]
}

fn control() -> ControlGroup {
    let voters = vec![node('a'), node('b')];
    ControlGroup { term: Term(4), leader: Some(node('a')), index: 300, voters }
}

pub(super) fn server_requests() -> Vec<ServerRequest> {
    let create = |(role, life_s)| {
        let name = (role == Role::Node).then(|| "name".to_owned());
        ServerRequest::CreateToken { role, life_s, uses: Some(3), name, user: None }
    };
    let user = Some("alice".parse().unwrap());
    let bearer = |rights, life, name| ServerRequest::CreateBearer { rights, life, name, user };
    let mut requests = vec![
        ServerRequest::Lookup,
        ServerRequest::Status,
        ServerRequest::Register {
            name: Some("a".into()),
            address: v4(),
            region: Some(region()),
            control: Some(control()),
        },
        ServerRequest::Register { name: None, address: v6(), region: None, control: None },
        ServerRequest::Report(CoordinatorReport {
            term: Term(4),
            view: view(),
            control: control(),
        }),
        ServerRequest::Renew { public_key: Bytes::from("key") },
        bearer(Rights::Read, BearerLife::Seconds(3600), Some("name".into())),
        bearer(Rights::Write, BearerLife::Usual, None),
        bearer(Rights::Write, BearerLife::Endless, None),
        ServerRequest::ListTokens,
        ServerRequest::RevokeToken(uuid('t')),
        ServerRequest::ListHolders,
        ServerRequest::BearersSeen(vec![(HolderId(uuid('h')), 1_700_000_000_000)]),
        ServerRequest::Stand(Box::new(Stand {
            run: run(),
            address: v4(),
            ends: true,
            answers: None,
        })),
        ServerRequest::Stand(Box::new(Stand {
            run: run(),
            address: v6(),
            ends: false,
            answers: Some(Question { server: u64::MAX, number: 3 }),
        })),
        ServerRequest::Keep { node: node('a'), run: RunChoice::Address(v4()) },
        ServerRequest::Keep { node: node('a'), run: RunChoice::Start(300) },
    ];
    requests.push(ServerRequest::Enlist);
    requests.extend(diagnosis::server_requests());
    requests
        .extend(roles().into_iter().zip([None, Some(0), Some(3600), None, Some(60)]).map(create));
    requests
}

fn run() -> Incarnation {
    let past = vec![
        PastIncarnation { boot: BootId(1), left: Some(300) },
        PastIncarnation { boot: BootId(2), left: None },
    ];
    Incarnation { start: 300, boot: BootId(u64::MAX), past, opened: 300, mark: 4096 }
}

pub(super) fn verdicts() -> Vec<Verdict> {
    vec![
        Verdict::Sound,
        Verdict::Older { start: 4, mark: 5000 },
        Verdict::Twice { start: 2 },
        Verdict::Dismissed { start: 300 },
    ]
}

pub(super) fn confirmations() -> Vec<Confirmation> {
    vec![Confirmation::Confirmed, Confirmation::Outdated { confirmed: Term(5) }]
}

pub(super) fn server_refusals() -> Vec<ServerRefusal> {
    vec![
        ServerRefusal::Denied("a client".into()),
        ServerRefusal::Invalid("name".into()),
        ServerRefusal::NameTaken("a".into()),
        ServerRefusal::Storage("disk full".into()),
        ServerRefusal::Waiting("no majority".into()),
    ]
}

pub(super) fn server_answers() -> Vec<ServerAnswer> {
    let status = ServerStatus {
        network: NetworkId(uuid('n')),
        version: "0.1.0".into(),
        uptime_ms: 5,
        bootstrap: Some(node('a')),
        coordinator: Some((node('b'), Term(4))),
        confirmed_at_ms: Some(1_700_000_000_000),
        report_age_ms: None,
        nodes: vec![NodeReport {
            id: node('a'),
            name: "a".into(),
            address: v4(),
            region: Some(region()),
            coordinator: true,
            state: NodeState::Live,
            last_report_ms: 1_700_000_000_000,
        }],
        view: Some(view()),
        settings: Settings::default(),
        runs: verdicts()
            .into_iter()
            .map(|verdict| RunReport {
                node: node('a'),
                name: "a".into(),
                address: v4(),
                start: 3,
                mark: 500,
                verdict,
                heard_ms: 1_700_000_000_000,
            })
            .collect(),
        now_ms: 1_700_000_000_500,
        server: HolderId(uuid('s')),
        books: Some(7),
    };
    let admission = Admission {
        network: NetworkId(uuid('n')),
        name: "a".into(),
        bootstrap: false,
        settings: Settings::default(),
        view: None,
        peers: vec![(node('b'), v6())],
        vouched: vec![node('a')],
    };
    let token = TokenInfo {
        id: uuid('t'),
        role: Role::Node,
        user: None,
        name: Some("name".into()),
        expires_ms: None,
        used: 2,
        uses: Some(3),
        admitted: vec![HolderId(uuid('h'))],
    };
    let holder = |kind, revoked: bool| HolderInfo {
        id: HolderId(uuid('h')),
        kind,
        name: revoked.then(|| "name".into()),
        user: None,
        token: (!revoked).then(|| uuid('t')),
        made_by: revoked.then(|| HolderId(uuid('a'))),
        since_ms: Some(1_700_000_000_000),
        ends_ms: (!revoked).then_some(1_700_000_000_001),
        seen_ms: None,
        revoked,
    };
    let holders = vec![
        holder(HolderKind::Certificate(Role::Reader), false),
        holder(HolderKind::Bearer(Rights::Read), true),
    ];
    let mut answers = vec![
        ServerAnswer::Holders(holders),
        ServerAnswer::View(Some(Box::new(view()))),
        ServerAnswer::View(None),
        ServerAnswer::Status(Box::new(status)),
        ServerAnswer::Admitted(Box::new(admission)),
        ServerAnswer::Certificate(Bytes::from("certificate")),
        ServerAnswer::Token("dkv1.".into()),
        ServerAnswer::Bearer("dkvb1.".into(), HolderId(uuid('h'))),
        ServerAnswer::Tokens(vec![token]),
        ServerAnswer::Done,
    ];
    answers.push(ServerAnswer::Enlisted(Box::new(Enlistment {
        authority_key: Bytes::from_static(b"key"),
        view: view(),
        bootstrap: Some(node('a')),
        coordinator: (node('b'), Term(4)),
        voters: vec![node('a'), node('b')],
        voters_index: 300,
    })));
    answers.extend(confirmations().into_iter().map(ServerAnswer::Confirmed));
    answers.extend(server_refusals().into_iter().map(ServerAnswer::Refused));
    let ruling = Ruling { number: 1, kept: run(), dismissed: vec![BootId(1), BootId(u64::MAX)] };
    answers.extend(verdicts().into_iter().map(|verdict| {
        ServerAnswer::Stands(Box::new(Standing {
            verdict,
            question: Question { server: 7, number: 300 },
            ask_again: true,
            wait: false,
            rulings: vec![(node('b'), ruling.clone())],
        }))
    }));
    answers.extend(diagnosis::server_answers());
    answers
}

pub(super) fn joinings() -> Vec<Joining> {
    let public_key = Bytes::from("key");
    vec![
        Joining::Join(JoinRequest { token: uuid('t'), secret: [0x5e; 32], public_key }),
        Joining::Recertify(RecertifyRequest {
            certificate: Bytes::from("certificate"),
            proof: Bytes::from("proof"),
        }),
        Joining::Readmit(ReadmitRequest {
            again: RecertifyRequest {
                certificate: Bytes::from("certificate"),
                proof: Bytes::from("proof"),
            },
            token: uuid('t'),
            secret: [0x5e; 32],
        }),
    ]
}

pub(super) fn join_refusals() -> Vec<JoinRefusal> {
    vec![
        JoinRefusal::Unknown,
        JoinRefusal::Expired,
        JoinRefusal::UsedUp,
        JoinRefusal::Key,
        JoinRefusal::Certificate,
        JoinRefusal::Denied,
        JoinRefusal::Busy,
        JoinRefusal::Storage("disk full".into()),
        JoinRefusal::Lapsed,
        JoinRefusal::Full,
        JoinRefusal::Waiting("no majority".into()),
        JoinRefusal::Crowded(4097),
    ]
}

pub(super) fn join_results() -> Vec<Result<JoinAnswer, JoinRefusal>> {
    let answer = JoinAnswer {
        network: NetworkId(uuid('n')),
        role: Role::Node,
        holder: HolderId(uuid('h')),
        certificate: Bytes::from("certificate"),
    };
    std::iter::once(Ok(answer)).chain(join_refusals().into_iter().map(Err)).collect()
}
