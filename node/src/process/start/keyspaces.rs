//! Keyspaces on a founder: they come, take writes of their own, have a quota, and go with all that
//! was theirs.

use bytes::Bytes;
use dkv_base::id::{GroupId, HolderId, KeyspaceId, Serial, SessionId, Stamp};
use dkv_wire::codec::encode;
use dkv_wire::message::{Answer, Command, Condition, Operation, Refusal, Write};
use dkv_wire::network::{KeyspaceChange, KeyspaceSettings, Settings};
use tokio::time::Instant;
use uuid::Uuid;

use super::founder::Founder;
use super::*;
use crate::cluster::keyspaces::{self, NewKeyspace};
use crate::net::reply::ReplyTo;
use crate::replica::backlog::Place;
use crate::replica::write_batches::PendingWrite;
use crate::serve::eventual_writes::{self, Deposit};
use dkv_state::{DirectoryCommand, DirectoryResult};

const PATIENCE: Duration = Duration::from_secs(20);
const SESSION: SessionId = SessionId(Uuid::from_u128(7));
/// The first shard of the first keyspace that is created.
const NEW: GroupId = GroupId(2);

async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn order(node: &Node, command: DirectoryCommand) {
    let done = node.change_directory(command).await;
    assert!(matches!(done, Ok(DirectoryResult::Done)), "{done:?}");
}

async fn create(node: &Arc<Node>, name: &str, request: u128) -> Result<(), Refusal> {
    let settings = KeyspaceSettings { shards: 2, ..KeyspaceSettings::default() };
    let new = NewKeyspace { creation: Uuid::from_u128(request), name: name.into(), settings };
    let is_ready = || node.coordination().leader_since().is_some() && node.view().is_some();
    until("nobody coordinates", is_ready).await;
    keyspaces::create(node, new, Instant::now() + PATIENCE).await
}

async fn propose(node: &Node, shard: GroupId, command: &Command<'_>) -> Result<Answer, Refusal> {
    let group = node.group(shard).ok_or_else(|| node.replicas().no_such_shard(shard))?;
    group.check_quota(command)?;
    let (reply, answer) = ReplyTo::here();
    let (holder, place) = (HolderId(Uuid::nil()), Place::default());
    let (command, expires) = (encode(command), Instant::now() + PATIENCE);
    group.write(PendingWrite { holder, command, expires, reply, place });
    answer.await.unwrap()
}

async fn write(
    node: &Node,
    shard: GroupId,
    serial: u64,
    key: &[u8],
    operation: Operation<'_>,
) -> Result<(), Refusal> {
    let (serial, settled, after) = (Serial(serial), Serial(1), Stamp(0));
    let condition = Condition::Always;
    let write = Write { session: SESSION, serial, settled, after, condition, key, operation };
    propose(node, shard, &Command::Write(write)).await.map(drop)
}

/// Returns whether the shard takes another key.
fn has_room(node: &Node) -> bool {
    let command = Write {
        session: SESSION,
        serial: Serial(99),
        settled: Serial(1),
        after: Stamp(0),
        condition: Condition::Always,
        key: b"another",
        operation: Operation::Put(b"v"),
    };
    node.group(NEW).unwrap().check_quota(&Command::Write(command)).is_ok()
}

fn bytes(node: &Node, shard: GroupId) -> u64 {
    node.group(shard).map_or(0, |group| group.state_machine().summary().bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyspace_comes_and_goes_with_all_that_is_its_own() {
    let founder = Founder::new(Settings { shards: 1, ..Settings::default() });
    let Started { node, .. } = start(RealStorage, founder.args()).await.unwrap();
    create(&node, "orders", 1).await.unwrap();
    // Repeated, it has been created; another one of that name cannot be.
    create(&node, "orders", 1).await.unwrap();
    assert!(matches!(create(&node, "orders", 2).await, Err(Refusal::Invalid(_))));
    let shards = [NEW, GroupId(NEW.0 + 1)];
    for shard in shards {
        propose(&node, shard, &Command::OpenSession(SESSION)).await.unwrap();
        write(&node, shard, 1, b"k", Operation::Put(&[7; 100_000])).await.unwrap();
    }
    let used = keyspaces::list(&node, Instant::now() + PATIENCE).await.unwrap();
    assert_eq!(used[1].keyspace.name, "orders");
    assert_eq!((used[1].shards_led, used[1].bytes), (2, 2 * 100_001));

    // Something of it is in the checkpoint, and an outbox has a write for it.
    node.group(NEW).unwrap().checkpoint().await;
    until("no checkpoint", || node.store().engine().stored().unwrap().contains(&NEW)).await;
    let (reply, deposited) = ReplyTo::here();
    let (key, value) = (Bytes::from_static(b"e"), Some(Bytes::from_static(b"v")));
    let (stamp, holder) = (node.clock().stamp(), HolderId(Uuid::nil()));
    let deposit = Deposit { shard: NEW, stamp, again: false, key, value, holder };
    eventual_writes::take(&node, deposit, reply);
    deposited.await.unwrap().unwrap();

    order(&node, DirectoryCommand::DropKeyspace(KeyspaceId(1))).await;
    let is_gone = |node: &Node| {
        let has = |group: GroupId| {
            shards.contains(&group) || shards.map(GroupId::outbox).contains(&group)
        };
        !node.groups().iter().any(|group| has(group.id()))
            && !node.store().wal().groups().into_iter().any(has)
            && !node.store().engine().stored().unwrap().into_iter().any(has)
            && node.outboxes().get(NEW).is_none()
    };
    until("something is left of it", || is_gone(&node)).await;
    assert!(node.outboxes().are_empty());
    let refused = write(&node, NEW, 2, b"k", Operation::Put(b"v")).await;
    assert_eq!(refused, Err(Refusal::Dropped { shard: NEW }));
    assert_eq!(node.view().unwrap().shards.len(), 1);
    // Its name is free, and its ids are not used again.
    create(&node, "orders", 3).await.unwrap();
    assert!(node.group(GroupId(4)).is_some() && node.group(NEW).is_none());

    let ended = Arc::downgrade(&node);
    node.stop(PATIENCE).await;
    drop(node);
    until("the node does not end", || ended.strong_count() == 0).await;
    let Started { node, .. } = start(RealStorage, founder.args()).await.unwrap();
    until("nobody leads", || node.group(GroupId(4)).is_some_and(|group| group.leads())).await;
    until("something is left of it", || is_gone(&node)).await;
    node.stop(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_over_its_quota_takes_what_makes_it_smaller() {
    let founder = Founder::new(Settings { shards: 1, ..Settings::default() });
    let Started { node, .. } = start(RealStorage, founder.args()).await.unwrap();
    create(&node, "small", 1).await.unwrap();
    propose(&node, NEW, &Command::OpenSession(SESSION)).await.unwrap();
    write(&node, NEW, 1, b"a", Operation::Put(&[1; 3000])).await.unwrap();
    // Each of the two shards has half of it, which the first has exceeded already.
    let quota = |quota_bytes| DirectoryCommand::SetKeyspace {
        keyspace: KeyspaceId(1),
        change: KeyspaceChange { quota_bytes: Some(quota_bytes), ..KeyspaceChange::default() },
    };
    order(&node, quota(Some(4000))).await;
    let over = |refused| matches!(refused, Err(Refusal::OverQuota { used: 3001, limit: 2000 }));
    until("the quota does not take effect", || !has_room(&node)).await;
    assert!(over(write(&node, NEW, 2, b"a", Operation::Put(&[2; 3001])).await));
    assert!(over(write(&node, NEW, 9, b"b", Operation::Put(b"v")).await));
    let (reply, deposited) = ReplyTo::here();
    let (key, value) = (Bytes::from_static(b"e"), Some(Bytes::from_static(b"v")));
    let (stamp, holder) = (node.clock().stamp(), HolderId(Uuid::nil()));
    let deposit = Deposit { shard: NEW, stamp, again: false, key, value, holder };
    eventual_writes::take(&node, deposit, reply);
    assert!(matches!(deposited.await.unwrap(), Err(Refusal::OverQuota { .. })));
    // A repetition gets its answer, and smaller values and deletes are taken.
    write(&node, NEW, 1, b"a", Operation::Put(&[1; 3000])).await.unwrap();
    write(&node, NEW, 10, b"a", Operation::Put(&[2; 2500])).await.unwrap();
    assert_eq!(bytes(&node, NEW), 2501);
    write(&node, NEW, 11, b"a", Operation::Delete).await.unwrap();
    // It has cleared by itself.
    write(&node, NEW, 12, b"b", Operation::Put(&[3; 1999])).await.unwrap();
    assert!(write(&node, NEW, 13, b"c", Operation::Put(b"v")).await.is_err());
    order(&node, quota(None)).await;
    until("the quota stays", || has_room(&node)).await;
    node.stop(PATIENCE).await;
}
