use std::time::Duration;

use dkv_wire::codec::encode;
use dkv_wire::limits::FRAME_BYTES_MAX;
use dkv_wire::message::Acknowledged;
use dkv_wire::seal::Seal;
use openraft::EntryPayload;
use openraft::raft::{TransferLeaderRequest, VoteRequest};
use tokio::io::DuplexStream;

use super::super::adapter::initialize;
use super::super::codec::{encode_append, log_id};
use super::super::test_replica::{Sent, TestReplica, puts, snapshot};
use super::super::{Entry, LogId, MetricsWatch, Proposal, ServerState, SnapshotMeta};
use super::*;

/// Bytes of a snapshot that may be in flight; everything written beyond them has been read.
const PIPE_BYTES: usize = 64;
/// Time that is ample for everything done here.
const PATIENCE: Duration = Duration::from_secs(20);

/// The sender of snapshots to one replica.
struct Leader {
    id: NodeId,
    vote: Vote,
}

impl Leader {
    fn new(term: u64) -> Self {
        let id = NodeId::random();
        Self { id, vote: Vote::new_committed(term, id) }
    }

    fn head(&self, sent: &Sent) -> SnapshotHead {
        SnapshotHead { vote: self.vote, meta: sent.meta.clone(), store: sent.store.clone() }
    }

    /// Sends a complete snapshot; runs `before_end` once all rows were read.
    async fn send(
        &self,
        to: &TestReplica,
        sent: &Sent,
        chunks: &[Bytes],
        before_end: impl FnOnce(),
    ) -> Result<Vote, NotTaken> {
        let (writing, reading) = tokio::io::duplex(PIPE_BYTES);
        let mut reader = FrameReader::new(reading, FRAME_BYTES_MAX);
        let (member, raft_peer) = (to.member(), RaftPeer::voter(self.id));
        let taking = take_snapshot(&member, &raft_peer, &mut reader);
        let sending = async {
            let mut writer = FrameWriter::new(writing);
            writer.send(&self.head(sent)).await.unwrap();
            for chunk in chunks {
                send_rows(&mut writer, chunk).await;
            }
            before_end();
            let _ = writer.send(&SnapshotFrame::End).await;
        };
        let both = async { tokio::join!(taking, sending).0 };
        tokio::time::timeout(PATIENCE, both).await.unwrap()
    }
}

async fn send_rows(writer: &mut FrameWriter<DuplexStream>, rows: &Bytes) {
    assert!(rows.len() > 2 * PIPE_BYTES);
    // Fails once the replica has refused an earlier part.
    let _ = writer.send(&SnapshotFrame::Rows(rows.clone())).await;
}

fn refused(taken: Result<Vote, NotTaken>) -> String {
    match taken {
        Err(NotTaken::Refused(why)) => why.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_bad_snapshot_is_refused_and_the_replica_lives_on() {
    let replica = TestReplica::start().await;
    let leader = Leader::new(1);
    let sent = snapshot(20, 40);
    let before = replica.state_machine.summary().hash;

    let mut damaged = sent.chunks[0].to_vec();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let taken = leader.send(&replica, &sent, &[damaged.into()], || {}).await;
    assert_eq!(
        refused(taken),
        "invalid snapshot: the hash of the rows is not the one stored with them"
    );
    let taken = leader.send(&replica, &sent, &[], || {}).await;
    assert_eq!(refused(taken), "invalid snapshot: rows are missing or there are too many");
    let mut other = snapshot(20, 40);
    other.meta.last_log_id = snapshot(21, 1).meta.last_log_id;
    let taken = leader.send(&replica, &other, &other.chunks, || {}).await;
    assert_eq!(refused(taken), "the snapshot does not match its header");
    replica.assert_runs();
    assert_eq!(replica.state_machine.summary().hash, before);

    // The sender tries again.
    leader.send(&replica, &sent, &sent.chunks, || {}).await.unwrap();
    replica.assert_runs();
    let summary = replica.state_machine.summary();
    assert_eq!((summary.applied_index, summary.hash), (20, sent.hash));
}

#[tokio::test]
async fn a_snapshot_that_ends_on_a_full_disk_is_refused_until_there_is_room() {
    let replica = TestReplica::start().await;
    let leader = Leader::new(1);
    let sent = snapshot(20, 40);
    for _ in 0..2 {
        let fills = || replica.engine.set_reserve(u64::MAX / 4);
        let why = refused(leader.send(&replica, &sent, &sent.chunks, fills).await);
        assert!(why.starts_with("no space left"), "{why}");
        replica.assert_runs();
        replica.engine.set_reserve(0);
    }
    leader.send(&replica, &sent, &sent.chunks, || {}).await.unwrap();
    assert_eq!(replica.state_machine.summary().hash, sent.hash);
    // A restart would find the same state, and the shard's clock has continued from the snapshot's,
    // whatever the wall clock shows.
    let clock_ms = replica.state_machine.clock_ms();
    assert!((sent.clock_ms..sent.clock_ms + 60_000).contains(&clock_ms), "{clock_ms}");
    let (loaded, _) = dkv_state::GroupState::load(&replica.store()).unwrap();
    assert_eq!(loaded.hash(), sent.hash);
}

#[tokio::test]
async fn of_two_snapshots_at_once_the_later_stands_and_the_other_is_refused() {
    let replica = TestReplica::start().await;
    let (old, new) = (Leader::new(1), Leader::new(2));
    let (early, late) = (snapshot(20, 40), snapshot(30, 50));

    let mut incoming = replica.state_machine.receive(early.store.clone()).await.unwrap();
    incoming.rows(early.chunks[0].clone()).await.unwrap();
    new.send(&replica, &late, &late.chunks, || {}).await.unwrap();
    let taken = incoming.complete(&old.head(&early).meta).await.map(|_| new.vote);
    assert_eq!(refused(taken), "superseded by a later snapshot");

    // A complete snapshot keeps others from completing until it is installed or given up.
    let begin = async |sent: &Sent| {
        let mut incoming = replica.state_machine.receive(sent.store.clone()).await.unwrap();
        incoming.rows(sent.chunks[0].clone()).await.unwrap();
        incoming
    };
    let sent = snapshot(40, 60);
    let (first, second) = (begin(&sent).await, begin(&sent).await);
    let first = first.complete(&sent.meta).await.unwrap();
    let mut waiting = std::pin::pin!(second.complete(&sent.meta));
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    drop(first);
    tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap();
    replica.assert_runs();
    assert_eq!(replica.state_machine.summary().hash, late.hash);
}

fn append(vote: Vote, leader_commit: Option<LogId>) -> AppendEntriesRequest<Types> {
    AppendEntriesRequest { vote, prev_log_id: None, leader_commit, entries: Vec::new() }
}

/// Returns one call of every kind that carries a vote.
fn calls(vote: Vote, last: Option<LogId>) -> Vec<Call> {
    let append = Bytes::from(encode_append(&append(vote, last)).concat());
    vec![
        Call::Heartbeat { append, confirmed: None, acknowledged: None, is_quiescent: false },
        Call::Vote(VoteRequest::new(vote, last)),
        Call::PreVote(VoteRequest::new(vote, last)),
        Call::Transfer(TransferLeaderRequest::new(vote, NodeId::random(), last)),
        Call::Follow { vote, acknowledged: None },
    ]
}

fn term(replica: &TestReplica) -> u64 {
    MetricsWatch::of(&replica.raft).borrow().current_term
}

/// Returns why a message was refused together with its stream.
fn for_good(answered: Answered) -> String {
    match answered {
        Err(Refused::ForGood { why, .. }) => why.to_string(),
        Err(Refused::Now(why)) => panic!("refused for now: {why}"),
        Ok(_) => panic!("answered"),
    }
}

/// Returns the answer on a stream of entries to one request, if there is one.
async fn answered(
    replica: &TestReplica,
    raft_peer: RaftPeer,
    request: AppendEntriesRequest<Types>,
) -> Option<Bytes> {
    let (ours, theirs) = tokio::io::duplex(1024 * 1024);
    let (reading, writing) = tokio::io::split(theirs);
    let (reader, writer) = (FrameReader::new(reading, FRAME_BYTES_MAX), FrameWriter::new(writing));
    let serving = serve_append(replica.member(), raft_peer, reader, writer);
    let (reading, writing) = tokio::io::split(ours);
    let asking = async {
        let mut writer = FrameWriter::new(writing);
        writer.push_bytes(&encode_append(&request).concat());
        writer.flush().await.unwrap();
        let answer = FrameReader::new(reading, FRAME_BYTES_MAX).next().await.unwrap();
        drop(writer);
        answer
    };
    let answered = async {
        tokio::select! {
            answer = asking => answer,
            () = serving => None,
        }
    };
    tokio::time::timeout(PATIENCE, answered).await.unwrap()
}

/// The sender's certificate is valid and names it; the messages it sends name another node.
#[tokio::test]
async fn nobody_leads_or_stands_in_anothers_name() {
    let replica = TestReplica::start().await;
    let (sender, other) = (NodeId::random(), Leader::new(7));
    for vote in [other.vote, Vote::new(7, other.id)] {
        for call in calls(vote, Some(log_id(7, 100))) {
            let raft_peer = RaftPeer::voter(sender);
            let answer = answer_call(&replica.member(), &raft_peer, &encode(&call)).await;
            let why = for_good(answer);
            assert!(why.contains("denied: a vote for"), "{why}");
        }
    }
    let sent = snapshot(20, 40);
    let (writing, reading) = tokio::io::duplex(1024 * 1024);
    let mut reader = FrameReader::new(reading, FRAME_BYTES_MAX);
    FrameWriter::new(writing).send(&other.head(&sent)).await.unwrap();
    let raft_peer = RaftPeer::voter(sender);
    let taken = take_snapshot(&replica.member(), &raft_peer, &mut reader).await;
    assert!(refused(taken).contains("denied: a vote for"));

    // Entries get no answer at all: the stream ends.
    let answered =
        async |from| answered(&replica, RaftPeer::voter(from), append(other.vote, None)).await;
    assert_eq!(answered(sender).await, None);
    assert_eq!(term(&replica), 0);
    assert_eq!(replica.state_machine.summary().applied_index, 0);

    // In its own name a node may lead.
    assert!(answered(other.id).await.is_some());
    assert_eq!(term(&replica), 7);
    replica.assert_runs();
}

/// Such a node may have been removed from the group without having learned of it.
#[tokio::test]
async fn a_node_that_is_no_member_and_asks_for_votes_disturbs_nobody() {
    let replica = TestReplica::start().await;
    initialize(&replica.raft, &[replica.id].into()).await.unwrap();
    let mut metrics = MetricsWatch::of(&replica.raft);
    let leads = metrics.wait_for(|metrics| metrics.state == ServerState::Leader);
    tokio::time::timeout(PATIENCE, leads).await.unwrap().unwrap();
    let before = term(&replica);
    let outsider = NodeId::random();
    for round in 1..200 {
        let vote = Vote::new(before + round, outsider);
        let last = Some(log_id(before + round, 1_000_000));
        for call in
            [Call::PreVote(VoteRequest::new(vote, last)), Call::Vote(VoteRequest::new(vote, last))]
        {
            let call = encode(&call);
            let raft_peer = RaftPeer::voter(outsider);
            let answer = answer_call(&replica.member(), &raft_peer, &call).await;
            let Ok(CallAnswer::Vote(answer)) = answer else { panic!("no answer") };
            assert!(!answer.vote_granted);
        }
    }
    assert_eq!(term(&replica), before);
    assert!(metrics.borrow().state == ServerState::Leader);
}

/// Returns entries that a shard can apply, from index `first` on.
fn batches(term: u64, first: u64, count: u64) -> Vec<Entry> {
    let entry = |index| Entry {
        log_id: log_id(term, index),
        payload: EntryPayload::Normal(Proposal(puts(1))),
    };
    (first..first + count).map(entry).collect()
}

/// A node's certificate alone changes nothing: no term, no entry, no state.
#[tokio::test]
async fn a_stranger_is_refused_whatever_it_says() {
    let replica = TestReplica::start().await;
    let leader = Leader::new(7);
    let member = replica.member();
    for call in calls(leader.vote, Some(log_id(7, 100))) {
        let answer = answer_call(&member, &RaftPeer::stranger(leader.id), &encode(&call)).await;
        let Err(Refused::Now(why)) = answer else { panic!("not refused") };
        assert!(why.to_string().contains("no voter of group 1"), "{why}");
    }
    let entries = AppendEntriesRequest { entries: batches(7, 0, 3), ..append(leader.vote, None) };
    assert_eq!(answered(&replica, RaftPeer::stranger(leader.id), entries.clone()).await, None);
    let (writing, reading) = tokio::io::duplex(1024 * 1024);
    let mut reader = FrameReader::new(reading, FRAME_BYTES_MAX);
    FrameWriter::new(writing).send(&leader.head(&snapshot(20, 40))).await.unwrap();
    let raft_peer = RaftPeer::stranger(leader.id);
    let why = refused(take_snapshot(&member, &raft_peer, &mut reader).await);
    assert!(why.contains("no voter of group 1"), "{why}");
    assert_eq!((term(&replica), replica.state_machine.summary().applied_index), (0, 0));

    // The same is accepted from a member.
    assert!(answered(&replica, RaftPeer::voter(leader.id), entries).await.is_some());
    assert_eq!(term(&replica), 7);
    replica.assert_runs();
}

/// A member whose key was stolen sends messages that can never be true: they are refused, and have
/// no other consequence.
#[tokio::test]
async fn what_cannot_be_is_refused_from_members_too() {
    let replica = TestReplica::start().await;
    let leader = Leader::new(7);
    let entries = AppendEntriesRequest {
        entries: batches(7, 0, 5),
        ..append(leader.vote, Some(log_id(7, 4)))
    };
    assert!(answered(&replica, RaftPeer::voter(leader.id), entries).await.is_some());
    let mut applied = replica.state_machine.applied();
    tokio::time::timeout(PATIENCE, applied.wait_for(|at| *at == 4)).await.unwrap().unwrap();
    let before = replica.state_machine.summary().hash;

    let member = replica.member();
    let far = Leader { id: leader.id, vote: Vote::new_committed(u64::MAX, leader.id) };
    let call =
        async |call: Call| answer_call(&member, &RaftPeer::voter(leader.id), &encode(&call)).await;
    let lies =
        calls(far.vote, None).into_iter().filter(|call| !matches!(call, Call::Follow { .. }));
    for lie in lies {
        let why = for_good(call(lie).await);
        assert!(why.contains("the term leaps"), "{why}");
    }
    let acknowledged =
        Some(Acknowledged { term: Term(u64::MAX), index: u64::MAX, seal: Seal([0; 16]) });
    let heartbeat = |vote, last, acknowledged| Call::Heartbeat {
        append: Bytes::from(encode_append(&append(vote, last)).concat()),
        confirmed: Some(Confirmed { age_us: u64::MAX, applied: u64::MAX }),
        acknowledged,
        is_quiescent: false,
    };
    for lie in [
        heartbeat(leader.vote, None, acknowledged),
        heartbeat(leader.vote, Some(log_id(7, u64::MAX)), None),
        heartbeat(leader.vote, Some(log_id(8, 9)), None),
        Call::Follow { vote: leader.vote, acknowledged },
        Call::Vote(VoteRequest::new(Vote::new(8, leader.id), Some(log_id(8, u64::MAX)))),
        Call::Transfer(TransferLeaderRequest::new(
            leader.vote,
            replica.id,
            Some(log_id(7, u64::MAX)),
        )),
    ] {
        for_good(call(lie).await);
    }
    for_good(answer_call(&member, &RaftPeer::voter(leader.id), &Bytes::from_static(&[255])).await);

    // Entries at impossible positions, of impossible terms, and entries that no replica can apply.
    let next = Some(log_id(7, 4));
    let entry = |at, payload| Entry { log_id: at, payload };
    let blank = |at| entry(at, EntryPayload::Blank);
    let rubbish = Proposal(Bytes::from_static(b"rubbish"));
    let none = openraft::Membership::<NodeId, openraft::EmptyNode>::default();
    for (vote, prev, entries) in [
        (leader.vote, Some(log_id(7, u64::MAX)), vec![]),
        (leader.vote, next, vec![blank(log_id(7, 6))]),
        (leader.vote, next, vec![blank(log_id(9, 5))]),
        (Vote::new_committed(9, leader.id), next, vec![blank(log_id(6, 5))]),
        (leader.vote, next, vec![entry(log_id(7, 5), EntryPayload::Normal(rubbish))]),
        (leader.vote, next, vec![entry(log_id(7, 5), EntryPayload::Membership(none))]),
        // Entries that would replace committed ones.
        (Vote::new_committed(9, leader.id), Some(log_id(8, 4)), vec![]),
        (Vote::new_committed(9, leader.id), None, vec![blank(log_id(0, 0))]),
        (Vote::new_committed(9, leader.id), Some(log_id(7, 3)), vec![blank(log_id(9, 4))]),
        (Vote::new(7, leader.id), next, vec![]),
    ] {
        let request =
            AppendEntriesRequest { vote, prev_log_id: prev, leader_commit: None, entries };
        assert_eq!(answered(&replica, RaftPeer::voter(leader.id), request).await, None);
    }

    // Snapshots of other terms, at other positions, or without committed entries.
    for (vote, last) in [
        (far.vote, Some(log_id(7, 20))),
        (leader.vote, Some(log_id(9, 20))),
        (leader.vote, Some(log_id(7, u64::MAX))),
        (Vote::new_committed(9, leader.id), Some(log_id(9, 3))),
        (leader.vote, None),
    ] {
        let sent = snapshot(20, 40);
        let head = SnapshotHead {
            vote,
            meta: SnapshotMeta { last_log_id: last, ..sent.meta },
            store: sent.store,
        };
        let (writing, reading) = tokio::io::duplex(1024 * 1024);
        let mut reader = FrameReader::new(reading, FRAME_BYTES_MAX);
        FrameWriter::new(writing).send(&head).await.unwrap();
        let raft_peer = RaftPeer::voter(leader.id);
        refused(take_snapshot(&member, &raft_peer, &mut reader).await);
    }

    // The messages have had no effect, and the group continues.
    assert_eq!((term(&replica), replica.state_machine.summary().hash), (7, before));
    let broken = tokio::time::timeout(Duration::ZERO, replica.durability.broken());
    assert!(broken.await.is_err(), "it was taken for damaged");
    let entries = AppendEntriesRequest {
        prev_log_id: next,
        entries: batches(7, 5, 3),
        ..append(leader.vote, Some(log_id(7, 7)))
    };
    assert!(answered(&replica, RaftPeer::voter(leader.id), entries).await.is_some());
    tokio::time::timeout(PATIENCE, applied.wait_for(|at| *at == 7)).await.unwrap().unwrap();
    replica.assert_runs();
}

/// A removed member is refused within a moment, on the stream that it already has.
#[tokio::test]
async fn a_member_that_is_none_any_more_is_cut_off() {
    let replica = TestReplica::start().await;
    let leader = Leader::new(7);
    let is_member = Arc::new(AtomicBool::new(true));
    let looked_up = Arc::clone(&is_member);
    let raft_peer = RaftPeer {
        may_speak: Arc::new(move |_| looked_up.load(std::sync::atomic::Ordering::Relaxed)),
        ..RaftPeer::voter(leader.id)
    };
    let (ours, theirs) = tokio::io::duplex(1024 * 1024);
    let (reading, writing) = tokio::io::split(theirs);
    let (reader, writer) = (FrameReader::new(reading, FRAME_BYTES_MAX), FrameWriter::new(writing));
    let serving = tokio::spawn(serve_append(replica.member(), raft_peer, reader, writer));
    let (reading, writing) = tokio::io::split(ours);
    let mut answers = FrameReader::new(reading, FRAME_BYTES_MAX);
    let mut writer = FrameWriter::new(writing);
    let request = encode_append(&append(leader.vote, None)).concat();
    writer.push_bytes(&request);
    writer.flush().await.unwrap();
    assert!(answers.next().await.unwrap().is_some());
    is_member.store(false, std::sync::atomic::Ordering::Relaxed);
    let ended = async {
        loop {
            writer.push_bytes(&request);
            if writer.flush().await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, async { tokio::join!(ended, serving).1 })
        .await
        .unwrap()
        .unwrap();
}

/// A hint that a leader is gone may be wrong. Once the replica hears that leader again, it gives no
/// vote against it.
#[tokio::test]
async fn a_leader_that_was_forgotten_and_is_heard_again_is_kept_to() {
    let replica = TestReplica::start().await;
    let (member, leader, other) = (replica.member(), Leader::new(7), NodeId::random());
    let beat = async || {
        let append = Bytes::from(encode_append(&append(leader.vote, None)).concat());
        let call =
            Call::Heartbeat { append, confirmed: None, acknowledged: None, is_quiescent: false };
        let answer = answer_call(&member, &RaftPeer::voter(leader.id), &encode(&call)).await;
        assert!(matches!(answer, Ok(CallAnswer::Heartbeat(AppendEntriesResponse::Success))));
    };
    let votes = async |transfers: bool| {
        let mut request = VoteRequest::new(Vote::new(8, other), Some(log_id(7, 100)));
        request.leadership_transfer = transfers;
        let call = if transfers { Call::Vote(request) } else { Call::PreVote(request) };
        match answer_call(&member, &RaftPeer::voter(other), &encode(&call)).await {
            Ok(CallAnswer::Vote(answer)) => answer.vote_granted,
            _ => panic!("no answer"),
        }
    };
    // The replica does not vote against a leader that it hears, unless it has forgotten it.
    beat().await;
    assert!(!votes(false).await);
    member.forget_leader(leader.id).await;
    assert!(votes(false).await);
    beat().await;
    assert!(!votes(false).await, "the promise is taken back for good");
    member.forget_leader(leader.id).await;
    assert!(votes(false).await);
    // It votes all the same for a node that the leader itself has named.
    beat().await;
    assert!(votes(true).await);
    replica.assert_runs();
}
