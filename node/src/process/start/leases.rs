//! Leases and expiry on a founder, over real connections.

use std::collections::BTreeSet;

use bytes::Bytes;
use dkv_base::id::{GroupId, LeaseId, NodeId, Revision, Serial, SessionId, Stamp, Term};
use dkv_wire::codec::{decode, encode};
use dkv_wire::frame::{FrameReader, FrameWriter};
use dkv_wire::identity::Role;
use dkv_wire::limits::{EXPIRE_KEYS_MAX, FRAME_BYTES_MAX};
use dkv_wire::message::{
    Answer, Attach, Command, Condition, Expire, KeyExpiry, KeyRange, LeaseAction, LeaseCommand,
    LeaseStatus, Opening, Operation, ReadMode, Refusal, Reply, Request, RequestBody, Stored,
    WatchFrame, WatchRequest, Write, WriteAttached,
};
use dkv_wire::network::Settings;
use dkv_wire::rpc::call;
use dkv_wire::tls::Expect;
use futures::StreamExt;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::founder::Founder;
use super::*;
use crate::raft::test_replica::depose;
use dkv_state::reconciler::Step;

const PATIENCE: Duration = Duration::from_secs(30);
const SHARD: GroupId = GroupId(1);
const LEASE: LeaseId = LeaseId(7);

/// A client without the client library.
struct Client {
    connection: quinn::Connection,
    _endpoint: Endpoint,
    session: SessionId,
    serial: u64,
}

impl Client {
    async fn connect(founder: &Founder, node: &Node, role: Role) -> Self {
        let endpoint = Endpoint::dial_only(Some(founder.credentials(role))).unwrap();
        let connecting = endpoint.connect_to_watch(node.me().address, Expect::AnyNode);
        let (connection, session) = (connecting.await.unwrap(), SessionId(Uuid::new_v4()));
        Self { connection, _endpoint: endpoint, session, serial: 0 }
    }

    async fn ask_within(&self, deadline_ms: u32, body: RequestBody) -> Result<Answer, Refusal> {
        let request = Request { id: 1, deadline_ms, forward: false, user: None, body };
        let opening = Some(&Opening::Requests);
        let reply: Result<Reply, _> =
            call(&self.connection, opening, &request, FRAME_BYTES_MAX, PATIENCE).await;
        reply.unwrap().result
    }

    async fn ask(&self, body: RequestBody) -> Result<Answer, Refusal> {
        self.ask_within(5000, body).await
    }

    async fn propose(&self, command: &Command<'_>) -> Result<Answer, Refusal> {
        let command = encode(command);
        self.ask(RequestBody::Propose { shard: SHARD, everywhere: false, command }).await
    }

    async fn next_serial(&mut self) -> Serial {
        if self.serial == 0 {
            self.propose(&Command::OpenSession(self.session)).await.unwrap();
        }
        self.serial += 1;
        Serial(self.serial)
    }

    async fn change(&mut self, action: LeaseAction) -> Result<Answer, Refusal> {
        let serial = self.next_serial().await;
        let (session, lease) = (self.session, LEASE);
        let change = LeaseCommand { session, serial, settled: serial, lease, action };
        self.propose(&Command::Lease(change)).await
    }

    async fn grant(&mut self, ttl: Duration) {
        let granted = self.change(LeaseAction::Grant { ttl_ms: ttl.as_millis() as u64 }).await;
        assert!(matches!(granted, Ok(Answer::Granted(_))), "{granted:?}");
    }

    async fn put(&mut self, key: &str, attach: Attach) -> Result<Answer, Refusal> {
        let serial = self.next_serial().await;
        let write = Write {
            session: self.session,
            serial,
            settled: serial,
            after: Stamp(0),
            condition: Condition::Always,
            key: key.as_bytes(),
            operation: Operation::Put(b"value"),
        };
        self.propose(&Command::WriteAttached(WriteAttached { write, attach })).await
    }

    async fn value(&self, key: &'static str) -> Option<Stored> {
        let (key, mode) = (Bytes::from(key), ReadMode::Primary);
        match self.ask(RequestBody::Read { shard: SHARD, key, mode }).await.unwrap() {
            Answer::Value(_, stored) => stored,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until a key is gone, and returns when that was.
    async fn gone(&self, key: &'static str) -> Instant {
        let deadline = Instant::now() + PATIENCE;
        while self.value(key).await.is_some() {
            assert!(Instant::now() < deadline, "{key} stays");
            sleep(Duration::from_millis(5)).await;
        }
        Instant::now()
    }

    async fn keep_alive(&self) -> Result<Answer, Refusal> {
        self.ask(RequestBody::KeepAlive { shard: SHARD, lease: LEASE }).await
    }

    async fn info(&self) -> Result<(LeaseStatus, Vec<Bytes>, bool), Refusal> {
        let (after, keys_max) = (Bytes::new(), 1);
        let body = RequestBody::LeaseInfo { shard: SHARD, lease: LEASE, after, keys_max };
        match self.ask(body).await? {
            Answer::Lease { status, keys, more, .. } => Ok((status, keys, more)),
            other => panic!("{other:?}"),
        }
    }

    async fn expiry(&self, key: &'static str) -> KeyExpiry {
        match self.ask(RequestBody::KeyTtl { shard: SHARD, key: key.into() }).await {
            Ok(Answer::KeyExpiry(_, expiry)) => expiry,
            other => panic!("{other:?}"),
        }
    }
}

async fn leads(node: &Node) {
    let deadline = Instant::now() + PATIENCE;
    while node.group(SHARD).is_none_or(|group| group.leading().is_none()) {
        assert!(Instant::now() < deadline, "nobody leads the shard");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn begin() -> (Founder, Arc<Node>) {
    let founder = Founder::new(Settings::default());
    let Started { node, .. } = start(RealStorage, founder.args()).await.unwrap();
    leads(&node).await;
    (founder, node)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_lives_as_long_as_it_is_kept_alive() {
    let (founder, node) = begin().await;
    let mut client = Client::connect(&founder, &node, Role::Client).await;
    let reader = Client::connect(&founder, &node, Role::Reader).await;
    let no_lease = Refusal::NoLease { lease: LEASE };
    assert_eq!(client.keep_alive().await, Err(no_lease.clone()));
    assert_eq!(client.put("a", Attach::Lease(LEASE)).await, Err(no_lease.clone()));
    let ttl = Duration::from_millis(1200);
    client.grant(ttl).await;
    client.put("a", Attach::Lease(LEASE)).await.unwrap();
    client.put("b", Attach::Lease(LEASE)).await.unwrap();
    let denied = reader.keep_alive().await;
    assert!(matches!(denied, Err(Refusal::Denied(_))), "{denied:?}");
    let mut kept = Instant::now();
    for _ in 0..6 {
        sleep(ttl / 3).await;
        kept = Instant::now();
        let answer = client.keep_alive().await;
        let expected = ttl.as_millis() as u64;
        assert!(matches!(answer, Ok(Answer::KeptAlive { ttl_ms, .. }) if ttl_ms == expected));
    }
    let (status, keys, more) = reader.info().await.unwrap();
    assert!(status.remaining_ms <= 1200 && status.remaining_ms > 600, "{status:?}");
    assert_eq!((status.keys, keys, more), (2, vec![Bytes::from("a")], true));
    let expiry = reader.expiry("a").await;
    assert!(matches!(expiry, KeyExpiry::Lease(of) if of.lease == LEASE), "{expiry:?}");
    let all = RequestBody::Leases { shard: SHARD, after: LeaseId(0), leases_max: 10 };
    match reader.ask(all).await {
        Ok(Answer::Leases { leases, more: false, .. }) => assert_eq!(leases[0].lease, LEASE),
        other => panic!("{other:?}"),
    }
    let took = client.gone("a").await - kept;
    assert!(took >= ttl, "it ends early, after {took:?}");
    assert_eq!(client.value("b").await, None);
    assert_eq!(client.keep_alive().await, Err(no_lease.clone()));
    assert_eq!(reader.info().await, Err(no_lease));
    node.stop(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_lease_takes_its_keys_along() {
    let (founder, node) = begin().await;
    let mut client = Client::connect(&founder, &node, Role::Client).await;
    client.grant(Duration::from_secs(3600)).await;
    client.put("a", Attach::Lease(LEASE)).await.unwrap();
    client.put("b", Attach::Ttl(3_600_000)).await.unwrap();
    let again = client.change(LeaseAction::Grant { ttl_ms: 5000 }).await;
    assert_eq!(again, Err(Refusal::LeaseExists { lease: LEASE }));
    let revoked = client.change(LeaseAction::Revoke).await;
    assert!(matches!(revoked, Ok(Answer::Revoked { deleted: 1, left: 0, .. })), "{revoked:?}");
    assert_eq!(client.value("a").await, None);
    let expiry = client.expiry("b").await;
    let KeyExpiry::Ttl { ttl_ms: 3_600_000, remaining_ms } = expiry else { panic!("{expiry:?}") };
    assert!(remaining_ms <= 3_600_000 && remaining_ms > 3_500_000);
    let again = client.change(LeaseAction::Revoke).await;
    assert_eq!(again, Err(Refusal::NoLease { lease: LEASE }));

    // What cannot be, and who may not.
    for ttl_ms in [0, 99, 100 * 365 * 24 * 3_600_000] {
        let refused = client.put("a", Attach::Ttl(ttl_ms)).await;
        assert!(matches!(refused, Err(Refusal::Invalid(_))), "{refused:?}");
    }
    let node_only = client.propose(&Command::Expire(Expire::Keys)).await;
    assert!(matches!(node_only, Err(Refusal::Denied(_))), "{node_only:?}");
    node.stop(PATIENCE).await;
}

/// The group has been quiescent for a while when its key ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_ends_in_a_shard_that_rests() {
    let (founder, node) = begin().await;
    let mut client = Client::connect(&founder, &node, Role::Client).await;
    let ttl = Duration::from_secs(4);
    let put = Instant::now();
    client.put("a", Attach::Ttl(4000)).await.unwrap();
    let state_machine = node.group(SHARD).unwrap().state_machine().clone();
    let exists = || state_machine.with_shard(|shard| shard.get(b"a").is_some()).unwrap();
    while exists() {
        assert!(put.elapsed() < PATIENCE, "it stays");
        sleep(Duration::from_millis(10)).await;
    }
    assert!(put.elapsed() >= ttl, "it ends early, after {:?}", put.elapsed());
    assert!(put.elapsed() < ttl + Duration::from_secs(3), "it ends late");
    node.stop(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_primary_gives_a_lease_its_full_time() {
    let (founder, node) = begin().await;
    let mut client = Client::connect(&founder, &node, Role::Client).await;
    let ttl = Duration::from_secs(3);
    client.grant(ttl).await;
    client.put("a", Attach::Lease(LEASE)).await.unwrap();
    sleep(ttl / 2).await;
    node.stop(PATIENCE).await;
    drop((client, node));

    let Started { node, .. } = start(RealStorage, founder.args()).await.unwrap();
    let before = Instant::now();
    leads(&node).await;
    let client = Client::connect(&founder, &node, Role::Client).await;
    let ended = client.gone("a").await;
    assert!(ended - before >= ttl, "it ends early, after {:?}", ended - before);
    node.stop(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_no_lease_is_kept_alive_and_none_ends() {
    let (founder, node) = begin().await;
    let mut client = Client::connect(&founder, &node, Role::Client).await;
    let ttl = Duration::from_secs(1);
    client.grant(ttl).await;
    client.put("a", Attach::Lease(LEASE)).await.unwrap();
    // From here on it needs a voter that does not exist.
    let group = node.group(SHARD).unwrap();
    let ghost = NodeId::random();
    group.take_step(&Step::AddLearners(BTreeSet::from([ghost]))).await.unwrap();
    let changing = Arc::clone(&group);
    let voters = Step::ChangeVoters(BTreeSet::from([node.id(), ghost]));
    tokio::spawn(async move { changing.take_step(&voters).await });
    while !group.voters().contains(&ghost) {
        sleep(Duration::from_millis(5)).await;
    }
    let unanswered = client.keep_alive().await;
    assert!(matches!(unanswered, Err(Refusal::Unavailable(_))), "{unanswered:?}");
    sleep(2 * ttl).await;
    let exists = group.state_machine().with_shard(|shard| shard.lease(LEASE).is_some());
    assert_eq!(exists, Some(true), "it ended though nobody could keep it alive");
    node.stop(PATIENCE).await;
}

/// What a primary measured in its term counts no more once another leads.
#[tokio::test(flavor = "multi_thread")]
async fn a_deposed_primary_keeps_nothing_alive_and_ends_nothing() {
    let (founder, node) = begin().await;
    let mut client = Client::connect(&founder, &node, Role::Client).await;
    let ttl = Duration::from_secs(1);
    client.grant(ttl).await;
    client.put("a", Attach::Lease(LEASE)).await.unwrap();
    assert!(client.keep_alive().await.is_ok());
    let group = node.group(SHARD).unwrap();
    let other = NodeId::random();
    depose(group.raft(), other, Term(100)).await;
    // This node is the only voter, so it may lead again, in another term: at once, if the machine
    // is busy.
    match client.keep_alive().await {
        Ok(Answer::KeptAlive { receipt, .. }) => assert!(receipt.term > Term(100), "{receipt:?}"),
        refused => assert_eq!(refused, Err(Refusal::NotPrimary { primary: Some(other) })),
    }
    let info = client.info().await;
    let leads_again = group.leading() > Some(Term(100));
    assert!(leads_again || matches!(info, Err(Refusal::NotPrimary { .. })), "{info:?}");
    sleep(ttl * 3 / 2).await;
    let term = group.leading();
    let has = group.state_machine().with_shard(|shard| shard.lease(LEASE).is_some());
    assert!(has == Some(true) || term > Some(Term(100)), "it ended in {term:?}");
    node.stop(PATIENCE).await;
}

/// Keys that end together are deleted bit by bit, and writes go on meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn many_keys_that_end_together_hold_nobody_up() {
    let (founder, node) = begin().await;
    let mut client = Client::connect(&founder, &node, Role::Client).await;
    let count = 5 * EXPIRE_KEYS_MAX;
    let session = client.session;
    client.next_serial().await;
    // Enough time to write them all.
    let ttl_ms = 15_000;
    let mut puts = Vec::new();
    for number in 0..count as u64 {
        let key = format!("ends {number}");
        let serial = Serial(number + 2);
        let write = Write {
            session,
            serial,
            settled: Serial(serial.0.saturating_sub(2000)),
            after: Stamp(0),
            condition: Condition::Always,
            key: key.as_bytes(),
            operation: Operation::Put(b"value"),
        };
        let attach = Attach::Ttl(ttl_ms);
        puts.push(encode(&Command::WriteAttached(WriteAttached { write, attach })));
    }
    client.serial += count as u64;
    let asking = &client;
    let put = |command: Bytes| async move {
        let body = RequestBody::Propose { shard: SHARD, everywhere: false, command };
        asking.ask(body).await.unwrap();
    };
    futures::stream::iter(puts).map(put).buffered(64).collect::<Vec<()>>().await;
    let (send, receive) = client.connection.open_bi().await.unwrap();
    let mut writer = FrameWriter::new(send);
    writer.push(&Opening::Watch);
    let keys = KeyRange::Prefix(Bytes::from("ends "));
    let after = node.group(SHARD).map(|group| group.revision());
    writer
        .send(&WatchRequest { shard: SHARD, keys, after, previous: false, user: None })
        .await
        .unwrap();
    let mut reader = FrameReader::new(receive, FRAME_BYTES_MAX);
    let watching = tokio::spawn(async move {
        let mut ended: Vec<(Revision, Bytes)> = Vec::new();
        while ended.len() < count {
            let frame = reader.next().await.unwrap().expect("a frame");
            match decode::<WatchFrame>(&frame).unwrap() {
                WatchFrame::Changes { changes, .. } => {
                    assert!(changes.iter().all(|change| change.version.value.is_none()));
                    ended.extend(changes.into_iter().map(|it| (it.version.revision, it.key)));
                }
                WatchFrame::Ended(refusal) => panic!("{refusal:?}"),
            }
        }
        ended
    });
    let mut slowest = Duration::ZERO;
    while !watching.is_finished() {
        let begun = Instant::now();
        client.put("other", Attach::Ttl(3_600_000)).await.unwrap();
        slowest = slowest.max(begun.elapsed());
        sleep(Duration::from_millis(2)).await;
    }
    assert!(slowest < Duration::from_secs(2), "a write took {slowest:?}");
    let ended = timeout(PATIENCE, watching).await.unwrap().unwrap();
    let keys: BTreeSet<_> = ended.iter().map(|(_, key)| key).collect();
    assert_eq!((ended.len(), keys.len()), (count, count), "each once");
    let together = ended.chunk_by(|(one, _), (next, _)| one == next).map(<[_]>::len).max();
    assert!(together <= Some(EXPIRE_KEYS_MAX), "{together:?} keys in one revision");
    node.stop(PATIENCE).await;
}
