use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use dkv_base::id::{GroupId, HolderId, NodeId, Serial, SessionId};
use dkv_wire::codec::encode;
use dkv_wire::identity::Role;
use dkv_wire::limits::FRAME_BYTES_MAX;
use dkv_wire::message::{Answer, Opening, Refusal, Reply, Request, RequestBody};
use dkv_wire::message::{
    Command, Condition, Operation, Transact, Transaction, TransactionOperation, Write,
};
use dkv_wire::network::Settings;
use dkv_wire::rpc::call;
use dkv_wire::tls::{Admit, Expect};
use futures::FutureExt;

use openraft::raft::AppendEntriesRequest;
use openraft::vote::leader_id_std::CommittedLeaderId;
use openraft::{EmptyNode, EntryPayload, Membership};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

use super::founder::Founder;
use super::*;
use crate::net::quota::{Quota, Quotas};
use crate::net::reply::{Begun, Queued, Replies};
use crate::raft::{Entry, LogId, Vote};
use crate::replica::backlog::Place;
use crate::replica::strong_reads::{PendingRead, ReadQuery};
use crate::replica::write_batches::PendingWrite;
use crate::storage::stores::StorageError;
use dkv_state::{Engine, EngineOptions};
use dkv_wal::disk::MemoryDisk;
use dkv_wal::{FatalHook, Wal, WalOptions};

/// Time that is ample for everything in these tests.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until a condition holds.
async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

const MIB: u64 = 1024 * 1024;

/// A name becomes a directory below `data` only if it cannot lead anywhere else.
#[test]
fn not_every_name_is_a_name_of_a_directory() {
    for name in ["a", "node-1", "rack_2.host-3", "A9"] {
        assert!(is_file_name(name), "{name}");
    }
    for name in ["", ".", "..", ".hidden", "../a", "a/b", "/a", "a\\b", "a b", "ä", "a\0"] {
        assert!(!is_file_name(name), "{name:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_task_outlives_its_node() {
    let founder = Founder::new(Settings::default());
    let Started { node, .. } = start(RealStorage, founder.args()).await.unwrap();
    until("the network does not begin", || node.view().is_some()).await;
    let shard = GroupId(1);
    until("nobody leads the shard", || node.group(shard).is_some_and(|group| group.leads())).await;

    // A client with a stream that it leaves open, and one that has been answered.
    let client = Endpoint::dial_only(Some(founder.credentials(Role::Client))).unwrap();
    let connection = client.connect(node.me().address, Expect::AnyNode).await.unwrap();
    let (mut open, _receive) = connection.open_bi().await.unwrap();
    open.write_all(&[0]).await.unwrap();
    let request =
        Request { id: 1, deadline_ms: 5000, forward: false, user: None, body: RequestBody::View };
    let opening = Some(&Opening::Requests);
    let reply: Reply =
        call(&connection, opening, &request, FRAME_BYTES_MAX, PATIENCE).await.unwrap();
    assert!(matches!(reply.result, Ok(Answer::View(_))));

    let stopped = Arc::downgrade(&node);
    node.stop(PATIENCE).await;
    drop(node);
    let gone = || stopped.strong_count() == 0;
    until("somebody goes on with a node that was stopped", gone).await;
}

const SHARD: GroupId = GroupId(1);

/// Client of a node's shard that bypasses all connections.
struct Writer {
    node: Arc<Node>,
    serial: u64,
    replies: Replies,
    answers: UnboundedReceiver<Queued>,
    quota: Quota,
}

impl Writer {
    async fn new(node: &Arc<Node>) -> Self {
        let leads = || node.group(SHARD).is_some_and(|group| group.leads());
        until("nobody leads the shard", leads).await;
        let (replies, answers) = Replies::collected();
        let quota = Quotas::default().of(HolderId::random());
        let mut writer = Self { node: Arc::clone(node), serial: 0, replies, answers, quota };
        writer.propose(&Command::OpenSession(Self::session()), PATIENCE);
        assert_eq!(writer.answer().await, Ok(Answer::Done));
        writer
    }

    fn session() -> SessionId {
        SessionId(uuid::Uuid::from_u128(7))
    }

    fn propose(&self, command: &Command<'_>, patience: Duration) {
        let part = self.quota.take(0).now_or_never().flatten().unwrap();
        let reply = self.replies.to(self.serial, part, Begun::now());
        let expires = Instant::now() + patience;
        let (command, holder) = (encode(command), HolderId(uuid::Uuid::nil()));
        let write = PendingWrite { command, holder, expires, reply, place: Place::default() };
        self.node.group(SHARD).unwrap().write(write);
    }

    /// Writes a large value over an older one.
    fn write(&mut self, patience: Duration) {
        let key = format!("key {}", self.serial % 16);
        self.put(key.as_bytes(), &[7; 512 * 1024], patience);
    }

    fn put(&mut self, key: &[u8], value: &[u8], patience: Duration) {
        self.serial += 1;
        let write = Write {
            session: Self::session(),
            serial: Serial(self.serial),
            settled: Serial(self.serial),
            after: dkv_base::id::Stamp(0),
            condition: Condition::Always,
            key,
            operation: Operation::Put(value),
        };
        self.propose(&Command::Write(write), patience);
    }

    fn append(&mut self, key: &[u8], bytes: &[u8], patience: Duration) {
        self.serial += 1;
        let then = vec![TransactionOperation::Append { key, bytes }];
        let body = &encode(&Transaction { then, ..Transaction::default() });
        let (session, serial) = (Self::session(), Serial(self.serial));
        let after = dkv_base::id::Stamp(0);
        let transact = Transact { session, serial, settled: serial, after, body };
        self.propose(&Command::Transact(transact), patience);
    }

    async fn read(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        let part = self.quota.take(0).now_or_never().flatten().unwrap();
        let reply = self.replies.to(0, part, Begun::now());
        let key = Bytes::copy_from_slice(key);
        self.node.group(SHARD).unwrap().read(PendingRead {
            query: ReadQuery::Key(key),
            anywhere: false,
            reply,
        });
        match self.answer().await {
            Ok(Answer::Value(_, stored)) => stored.map(|stored| stored.value.to_vec()),
            other => panic!("{other:?}"),
        }
    }

    async fn answer(&mut self) -> Result<Answer, Refusal> {
        let answer = tokio::time::timeout(2 * PATIENCE, self.answers.recv()).await;
        answer.unwrap().unwrap().0.result
    }
}

/// The log stays short, so it does not tell that a checkpoint is due.
#[tokio::test(flavor = "multi_thread")]
async fn appends_to_a_long_value_go_on_with_the_shortest_log() {
    let log_bytes_max = 16 * MIB;
    let founder = Founder::new(Settings { log_bytes_max, ..Settings::default() });
    let Started { node, .. } = start(RealStorage, founder.args()).await.unwrap();
    let mut writer = Writer::new(&node).await;
    writer.put(b"key", &[7; MIB as usize], PATIENCE);
    assert!(matches!(writer.answer().await, Ok(Answer::Written { .. })));
    for _ in 0..40 {
        writer.append(b"key", b"x", Duration::from_secs(5));
        let answer = writer.answer().await;
        assert!(matches!(answer, Ok(Answer::Transacted { .. })), "{answer:?}");
    }
    drop(writer);
    node.stop(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_wait_while_the_log_is_as_long_as_it_may_be() {
    let log_bytes_max = 16 * MIB;
    let founder = Founder::new(Settings { log_bytes_max, ..Settings::default() });
    let Started { node, .. } = start(RealStorage, founder.args()).await.unwrap();
    let mut writer = Writer::new(&node).await;
    // No checkpoint is taken any more, so nothing can be purged.
    node.store().engine().set_reserve(u64::MAX / 4);
    let mut longest = 0;
    let refusal = loop {
        writer.write(Duration::from_millis(500));
        match writer.answer().await {
            Ok(Answer::Written { .. }) => {}
            Err(refusal) => break refusal,
            other => panic!("{other:?}"),
        }
        longest = longest.max(node.store().wal().stats().bytes_on_disk);
        assert!(longest < 2 * log_bytes_max, "a log of {longest} bytes");
    };
    assert!(longest > log_bytes_max / 2, "a log of {longest} bytes");
    assert!(longest <= log_bytes_max + 4 * MIB, "a log of {longest} bytes");
    let Refusal::Unavailable(why) = refusal else { panic!("{refusal:?}") };
    assert_eq!(why, "the primary's log was full, or its checkpoint overdue, for too long");

    // The waiting writes go on once the log is shorter, and many more after them.
    for _ in 0..8 {
        writer.write(2 * PATIENCE);
    }
    node.store().engine().set_reserve(0);
    for _ in 0..8 {
        assert!(matches!(writer.answer().await, Ok(Answer::Written { .. })));
    }
    for _ in 0..64 {
        writer.write(2 * PATIENCE);
        assert!(matches!(writer.answer().await, Ok(Answer::Written { .. })));
        longest = longest.max(node.store().wal().stats().bytes_on_disk);
    }
    assert!(longest <= log_bytes_max + 4 * MIB, "a log of {longest} bytes");
    drop(writer);
    node.stop(PATIENCE).await;
}

/// The log on that disk, the checkpoints in a real directory.
struct OnDisk(MemoryDisk);

impl Storage for OnDisk {
    fn open_log(
        &self,
        path: &Path,
        options: WalOptions,
        on_fatal: FatalHook,
    ) -> Result<Wal, StorageError> {
        let opened = Wal::open(Arc::new(self.0.clone()), options, on_fatal);
        opened.map_err(|error| StorageError::of_log(&error, path))
    }

    fn open_engine(&self, path: &Path, options: EngineOptions) -> Result<Engine, StorageError> {
        RealStorage.open_engine(path, options)
    }
}

/// A value that identifies the write it came from.
fn value(serial: u64) -> Vec<u8> {
    format!("value {serial}").into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_fails_ends_the_node_and_loses_nothing_acknowledged() {
    for seed in 0..4 {
        let founder = Founder::new(Settings::default());
        let disk = MemoryDisk::new();
        let Started { node, mut failure } =
            start(OnDisk(disk.clone()), founder.args()).await.unwrap();
        let mut writer = Writer::new(&node).await;
        // After some more syncs, in the middle of writes, one fails; the next would succeed.
        disk.fail_sync_after(30 + seed);
        let mut acknowledged = 0;
        let refusal = loop {
            let serial = writer.serial + 1;
            writer.put(format!("key {serial}").as_bytes(), &value(serial), PATIENCE);
            match writer.answer().await {
                Ok(Answer::Written { .. }) => acknowledged = serial,
                other => break other.unwrap_err(),
            }
            assert!(acknowledged < 1000, "no sync has failed");
        };
        // The write may be on the disk; its outcome is unknown.
        assert!(matches!(refusal, Refusal::Unknown(_)), "{refusal:?}");
        assert!(acknowledged > 10, "only {acknowledged} writes were acknowledged");
        let failed = tokio::time::timeout(PATIENCE, failure.wait_for(Option::is_some)).await;
        let why = failed.unwrap().unwrap().clone().unwrap();
        assert!(why.starts_with("the log cannot be written any more: "), "{why}");
        assert!(why.ends_with("; see to the disk, then start the node again"), "{why}");

        // The node takes no more writes; then the machine loses its power.
        writer.put(b"late", b"value", PATIENCE);
        assert!(writer.answer().await.is_err());
        drop(writer);
        let ended = Arc::downgrade(&node);
        let crashed = disk.crash(seed);
        node.stop(Duration::from_millis(100)).await;
        drop(node);
        until("the node does not end", || ended.strong_count() == 0).await;

        founder.pretend_log();
        let Started { node, .. } = start(OnDisk(crashed), founder.args()).await.unwrap();
        let mut reader = Writer::new(&node).await;
        for serial in 1..=acknowledged {
            let stored = reader.read(format!("key {serial}").as_bytes()).await;
            assert_eq!(stored, Some(value(serial)), "of {acknowledged}, seed {seed}");
        }
        drop(reader);
        node.stop(PATIENCE).await;
    }
}

/// The entry that removes a voter has reached that voter alone, and its leader is gone for good. No
/// other node can be elected: of the joint configuration, which is all that the others know, they
/// need this one's vote, and its log is longer than theirs. So it has to stand itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_voter_that_alone_knows_that_it_is_taken_out_still_stands() {
    let founder = Founder::new(Settings::default());
    let Started { node, .. } = start(RealStorage, founder.args()).await.unwrap();
    let shard = GroupId(1);
    until("nobody leads the shard", || node.group(shard).is_some_and(|group| group.leads())).await;
    let group = node.group(shard).unwrap();
    let me = node.id();
    let [a, b, d] = [(); 3].map(|()| NodeId::random());
    until("nothing is applied", || group.metrics().borrow().last_applied.is_some()).await;
    let before = group.metrics().borrow().last_applied.expect("it has begun");
    let term = 100;
    let log_id = |index| LogId { leader_id: CommittedLeaderId::new(term), index };
    let nodes: BTreeMap<NodeId, EmptyNode> = [me, a, b, d].map(|node| (node, EmptyNode {})).into();
    let members = |index: u64, configs: Vec<BTreeSet<NodeId>>| Entry {
        log_id: log_id(before.index + index),
        payload: EntryPayload::Membership(Membership::new(configs, nodes.clone()).unwrap()),
    };
    let (old, new) = (BTreeSet::from([a, b, me]), BTreeSet::from([a, b, d]));
    // The joint configuration is committed, the last one is not yet.
    let request = AppendEntriesRequest {
        vote: Vote::new_committed(term, a),
        prev_log_id: Some(before),
        leader_commit: Some(log_id(before.index + 1)),
        entries: vec![members(1, vec![old, new.clone()]), members(2, vec![new])],
    };
    let answer = group.raft().append_entries(request).await.unwrap();
    assert!(answer.is_success(), "{answer:?}");
    let applied = |index| group.state_machine().applied_index() == before.index + index;
    until("the joint one is not applied", || applied(1)).await;
    // The election timer and the failure detector go by this.
    assert!(!group.only_follows(), "it votes in the configuration that is committed");
    assert_eq!(group.electorate().await, BTreeSet::from([me, a, b, d]));

    // Once the last one is committed, it is out.
    let request = AppendEntriesRequest {
        vote: Vote::new_committed(term, a),
        prev_log_id: Some(log_id(before.index + 2)),
        leader_commit: Some(log_id(before.index + 2)),
        entries: Vec::new(),
    };
    group.raft().append_entries(request).await.unwrap();
    until("it still stands", || group.only_follows()).await;
    assert_eq!(group.electorate().await, BTreeSet::from([a, b, d]));
    node.stop(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_do_not_hold_a_sound_node_back() {
    let founder = Founder::new(Settings { replication: 1, ..Settings::default() });
    let Started { node, failure: _failure } = start(RealStorage, founder.args()).await.unwrap();
    let mut liars = Vec::new();
    for _ in 0..2 {
        let credentials = founder.credentials(Role::Node);
        let id = credentials.identity.as_node().unwrap();
        let anywhere = ([127, 0, 0, 1], 0).into();
        let endpoint =
            Endpoint::listen(anywhere, credentials, Admit::Certified, b"stranger").unwrap();
        // The server names every registered node like this.
        node.peers().learn(id, endpoint.local_address().unwrap());
        liars.push((id, tokio::spawn(incarnations::refuse_all(endpoint))));
    }
    for vouches in [false, true] {
        if vouches {
            node.incarnations().hear_server(dkv_wire::incarnation::Verdict::Sound);
        }
        for (id, _) in &liars {
            assert!(!node.replicas().is_listed(*id));
            let met = node.peers().connection(*id, crate::net::peers::Lane::Urgent).await;
            assert!(met.is_err(), "a stranger refuses it");
        }
        let doubted = node.incarnations().doubted();
        assert!(doubted.is_none(), "{doubted:?}");
    }
    for (_, liar) in liars {
        liar.abort();
    }
    node.stop(PATIENCE).await;
}
