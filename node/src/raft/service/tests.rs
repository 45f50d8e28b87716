use std::time::Duration;

use dkv_wire::codec::encode;
use dkv_wire::limits::FRAME_BYTES_MAX;
use openraft::raft::{TransferLeaderRequest, VoteRequest};
use tokio::io::DuplexStream;

use super::super::codec::{encode_append, log_id};
use super::super::drive::initialize;
use super::super::rig::{Replica, Sent, snapshot};
use super::super::{LogId, MetricsWatch, ServerState};
use super::*;

/// Bytes of a snapshot that may be on their way; what was written beyond them has been read.
const PIPE_BYTES: usize = 64;
/// Time in which everything here is done, by far.
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

    /// Sends a snapshot whole, but for what `before_end` does when all rows were read.
    async fn send(
        &self,
        to: &Replica,
        sent: &Sent,
        chunks: &[Bytes],
        before_end: impl FnOnce(),
    ) -> Result<Vote, NotTaken> {
        let (writing, reading) = tokio::io::duplex(PIPE_BYTES);
        let mut reader = FrameReader::new(reading, FRAME_BYTES_MAX);
        let taking = take_snapshot(&to.raft, &to.machine, self.id, &mut reader);
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
    // Fails once the replica has refused what came before.
    let _ = writer.send(&SnapshotFrame::Rows(rows.clone())).await;
}

fn refused(taken: Result<Vote, NotTaken>) -> String {
    match taken {
        Err(NotTaken::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_bad_snapshot_is_refused_and_the_replica_lives_on() {
    let replica = Replica::start().await;
    let leader = Leader::new(1);
    let sent = snapshot(20, 40);
    let before = replica.machine.summary().hash;

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
    assert_eq!(refused(taken), "the snapshot is of another moment than its head says");
    replica.assert_runs();
    assert_eq!(replica.machine.summary().hash, before);

    // The sender tries again.
    leader.send(&replica, &sent, &sent.chunks, || {}).await.unwrap();
    replica.assert_runs();
    let summary = replica.machine.summary();
    assert_eq!((summary.applied_index, summary.hash), (20, sent.hash));
}

#[tokio::test]
async fn a_snapshot_that_ends_on_a_full_disk_is_refused_until_there_is_room() {
    let replica = Replica::start().await;
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
    assert_eq!(replica.machine.summary().hash, sent.hash);
    // It is what a restart would find.
    // And its clock has gone on from there, whatever the clock on the wall shows.
    let clock_ms = replica.machine.clock_ms();
    assert!((sent.clock_ms..sent.clock_ms + 60_000).contains(&clock_ms), "{clock_ms}");
    let (loaded, _) = crate::state::GroupState::load(&replica.store()).unwrap();
    assert_eq!(loaded.hash(), sent.hash);
}

#[tokio::test]
async fn of_two_snapshots_at_once_the_later_stands_and_the_other_is_refused() {
    let replica = Replica::start().await;
    let (old, new) = (Leader::new(1), Leader::new(2));
    let (early, late) = (snapshot(20, 40), snapshot(30, 50));

    let mut incoming = replica.machine.receive(early.store.clone()).await.unwrap();
    incoming.rows(early.chunks[0].clone()).await.unwrap();
    new.send(&replica, &late, &late.chunks, || {}).await.unwrap();
    let taken = incoming.complete(&old.head(&early).meta).await.map(|_| new.vote);
    assert_eq!(refused(taken), "superseded by a later snapshot");

    // One that is complete lets no other become so before it is installed or given up.
    let begin = async |sent: &Sent| {
        let mut incoming = replica.machine.receive(sent.store.clone()).await.unwrap();
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
    assert_eq!(replica.machine.summary().hash, late.hash);
}

fn append(vote: Vote, leader_commit: Option<LogId>) -> AppendEntriesRequest<Types> {
    AppendEntriesRequest { vote, prev_log_id: None, leader_commit, entries: Vec::new() }
}

/// Every call that carries a vote.
fn calls(vote: Vote, last: Option<LogId>) -> Vec<Call> {
    let append = Bytes::from(encode_append(&append(vote, last)).concat());
    vec![
        Call::Heartbeat { append, confirmed: None, acknowledged: None, rests: false },
        Call::Vote(VoteRequest::new(vote, last)),
        Call::PreVote(VoteRequest::new(vote, last)),
        Call::Transfer(TransferLeaderRequest::new(vote, NodeId::random(), last)),
        Call::Follow { vote, acknowledged: None },
    ]
}

fn term(replica: &Replica) -> u64 {
    MetricsWatch::of(&replica.raft).borrow().current_term
}

/// Its certificate is good and says who it is; what it sends says that it is another.
#[tokio::test]
async fn nobody_leads_or_stands_in_anothers_name() {
    let replica = Replica::start().await;
    let (sender, other) = (NodeId::random(), Leader::new(7));
    for vote in [other.vote, Vote::new(7, other.id)] {
        for call in calls(vote, Some(log_id(7, 100))) {
            let answer = answer_call(&replica.member(), sender, &encode(&call)).await;
            let why = answer.map(|_| ()).unwrap_err();
            assert!(why.starts_with("denied: a vote for"), "{why}");
        }
    }
    let sent = snapshot(20, 40);
    let (writing, reading) = tokio::io::duplex(1024 * 1024);
    let mut reader = FrameReader::new(reading, FRAME_BYTES_MAX);
    FrameWriter::new(writing).send(&other.head(&sent)).await.unwrap();
    let taken = take_snapshot(&replica.raft, &replica.machine, sender, &mut reader).await;
    assert!(refused(taken).starts_with("denied: a vote for"));

    // Entries are not even answered: the stream ends.
    let answered = async |from| {
        let (ours, theirs) = tokio::io::duplex(1024 * 1024);
        let (reading, writing) = tokio::io::split(theirs);
        let reader = FrameReader::new(reading, FRAME_BYTES_MAX);
        let serving = serve_append(
            replica.member(),
            from,
            Hearing::default(),
            reader,
            FrameWriter::new(writing),
        );
        let (reading, writing) = tokio::io::split(ours);
        let asking = async {
            let mut writer = FrameWriter::new(writing);
            writer.push_bytes(&encode_append(&append(other.vote, None)).concat());
            writer.flush().await.unwrap();
            let answer = FrameReader::new(reading, FRAME_BYTES_MAX).next().await.unwrap();
            drop(writer);
            answer
        };
        tokio::select! {
            answer = asking => answer,
            () = serving => None,
        }
    };
    assert_eq!(answered(sender).await, None);
    assert_eq!(term(&replica), 0);
    assert_eq!(replica.machine.summary().applied_index, 0);

    // In its own name it may.
    assert!(answered(other.id).await.is_some());
    assert_eq!(term(&replica), 7);
    replica.assert_runs();
}

/// Such as one that was taken out and has not heard of it.
#[tokio::test]
async fn a_node_that_is_no_member_and_asks_for_votes_disturbs_nobody() {
    let replica = Replica::start().await;
    initialize(&replica.raft, replica.id).await.unwrap();
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
            let answer = answer_call(&replica.member(), outsider, &call).await;
            let Ok(CallAnswer::Vote(answer)) = answer else { panic!("no answer") };
            assert!(!answer.vote_granted);
        }
    }
    assert_eq!(term(&replica), before);
    assert!(metrics.borrow().state == ServerState::Leader);
}

/// A hint that a leader is gone may be wrong. Once that leader is heard again, nobody gets a vote against it.
#[tokio::test]
async fn a_leader_that_was_forsaken_and_is_heard_again_is_kept_to() {
    let replica = Replica::start().await;
    let (member, leader, other) = (replica.member(), Leader::new(7), NodeId::random());
    let beat = async || {
        let append = Bytes::from(encode_append(&append(leader.vote, None)).concat());
        let call = Call::Heartbeat { append, confirmed: None, acknowledged: None, rests: false };
        let answer = answer_call(&member, leader.id, &encode(&call)).await;
        assert!(matches!(answer, Ok(CallAnswer::Heartbeat(AppendEntriesResponse::Success))));
    };
    let votes = async |transfers: bool| {
        let mut request = VoteRequest::new(Vote::new(8, other), Some(log_id(7, 100)));
        request.leadership_transfer = transfers;
        let call = if transfers { Call::Vote(request) } else { Call::PreVote(request) };
        match answer_call(&member, other, &encode(&call)).await {
            Ok(CallAnswer::Vote(answer)) => answer.vote_granted,
            _ => panic!("no answer"),
        }
    };
    // As long as it is heard it is not voted against, but once it was forsaken.
    beat().await;
    assert!(!votes(false).await);
    member.forsake(leader.id).await;
    assert!(votes(false).await);
    beat().await;
    assert!(!votes(false).await, "the promise is taken back for good");
    member.forsake(leader.id).await;
    assert!(votes(false).await);
    // Whom the leader itself has named is voted for all the same.
    beat().await;
    assert!(votes(true).await);
    replica.assert_runs();
}
