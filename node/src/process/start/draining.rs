//! A founder that is to be drained, and one whose shard has a replica that never answers.

use bytes::Bytes;
use dkv_base::id::{GroupId, HolderId, NodeId, Stamp};
use dkv_wire::message::{Answer, Command, Condition, Operation, Refusal, Write};
use dkv_wire::network::Settings;
use tokio::time::Instant;
use uuid::Uuid;

use super::founder::Founder;
use super::*;
use crate::net::reply::ReplyTo;
use crate::outbox::{self, WriteGate, WriteGateState};
use crate::replica::backlog::Place;
use crate::replica::write_batches::PendingWrite;
use crate::serve::eventual_writes::{self, Deposit};
use crate::serve::level_all;
use dkv_state::{Announcement, DirectoryCommand, DirectoryResult};

const PATIENCE: Duration = Duration::from_secs(20);
const SHARD: GroupId = GroupId(1);

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

/// Announces another node, which cannot be reached.
async fn announce_another(node: &Node) -> NodeId {
    until("the network does not begin", || node.view().is_some()).await;
    let has_begun = || {
        let begun = node.replicas().with_directory(|directory| {
            directory.groups().get(&SHARD).is_some_and(|plan| plan.started)
        });
        begun.unwrap_or_default()
    };
    until("the shard does not begin", has_begun).await;
    let (id, address) = (NodeId::random(), SocketAddr::from(([127, 0, 0, 1], 9)));
    let other = Announcement { id, name: "other".into(), address, region: None };
    order(node, DirectoryCommand::Announce(other)).await;
    id
}

async fn deposit(node: &Arc<Node>) -> Result<Answer, Refusal> {
    let (reply, answer) = ReplyTo::here();
    let (key, value) = (Bytes::from_static(b"k"), Some(Bytes::from_static(b"v")));
    let stamp = node.clock().stamp();
    eventual_writes::take(
        node,
        Deposit { shard: SHARD, stamp, again: false, key, value, holder: HolderId(Uuid::nil()) },
        reply,
    );
    answer.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_to_be_emptied_takes_no_eventual_write_after_a_restart_either() {
    let founder = Founder::new(Settings { shards: 1, ..Settings::default() });
    let Started { node, .. } = start(RealStorage, founder.args()).await.unwrap();
    announce_another(&node).await;
    assert!(matches!(deposit(&node).await, Ok(Answer::Written { .. })));
    let me = node.id();
    order(&node, DirectoryCommand::Drain { node: me, on: true }).await;
    assert_eq!(deposit(&node).await, Err(outbox::draining()));
    until("it goes on taking writes", || !node.remainder().takes_writes).await;
    until("it keeps what it took", || !node.remainder().keeps_writes).await;
    assert_eq!(node.remainder().shards, 1);

    let directory = node.store().data_dir().path().to_owned();
    let ended = Arc::downgrade(&node);
    node.stop(PATIENCE).await;
    drop(node);
    until("the node does not end", || ended.strong_count() == 0).await;
    // The node starts with this state, whatever it has read of the directory.
    let closed = WriteGate::load(&directory).unwrap().state();
    assert!(matches!(closed, WriteGateState::Closed { .. }), "{closed:?}");

    let Started { node, .. } = start(RealStorage, founder.args()).await.unwrap();
    assert_eq!(node.outboxes().write_gate().state(), closed);
    let leads = || node.group(SHARD).is_some_and(|group| group.leads());
    until("nobody leads", leads).await;
    assert_eq!(deposit(&node).await, Err(outbox::draining()));
    let leads = || node.control().leads();
    until("nobody leads", leads).await;
    order(&node, DirectoryCommand::Drain { node: me, on: false }).await;
    let open = || node.outboxes().write_gate().state() == WriteGateState::Open;
    until("it takes no writes again", open).await;
    assert!(matches!(deposit(&node).await, Ok(Answer::Written { .. })));
    // That it was empty once does not decide the removal.
    assert!(node.keeps_writes());
    node.stop(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_that_does_not_answer_is_missing_at_level_all() {
    let founder = Founder::new(Settings { shards: 1, ..Settings::default() });
    let Started { node, .. } = start(RealStorage, founder.args()).await.unwrap();
    let other = announce_another(&node).await;
    let (voters, learners) = ([node.id(), other].into(), [].into());
    order(&node, DirectoryCommand::SetMembers { group: SHARD, voters, learners }).await;
    let group = node.group(SHARD).unwrap();
    until("there is no learner", || group.configured().others.contains(&other)).await;
    let session = dkv_base::id::SessionId(Uuid::from_u128(7));
    let serial = dkv_base::id::Serial(1);
    let write = Command::Write(Write {
        session,
        serial,
        settled: serial,
        after: Stamp(0),
        condition: Condition::Always,
        key: b"k",
        operation: Operation::Put(b"v"),
    });
    for command in [Command::OpenSession(session), write] {
        let (reply, answer) = ReplyTo::here();
        let (here, done) = ReplyTo::here();
        level_all::answer(&group, done, 1000, reply);
        let expires = Instant::now() + PATIENCE;
        let command = dkv_wire::codec::encode(&command);
        group.write(PendingWrite {
            holder: HolderId(Uuid::nil()),
            command,
            expires,
            reply: here,
            place: Place::default(),
        });
        match answer.await.unwrap() {
            Ok(Answer::Done) => {}
            Ok(Answer::WrittenEverywhere { reach, .. }) => {
                assert_eq!((reach.missing, reach.mended), (vec![other], Vec::new()));
            }
            other => panic!("{other:?}"),
        }
    }
    node.stop(PATIENCE).await;
}
