use dkv_wire::certificate::Credentials;
use dkv_wire::codec::encode;
use dkv_wire::quic::Endpoint;
use dkv_wire::tls::Admit;
use openraft::EntryPayload;
use tokio::sync::mpsc;

use super::super::adapter::{initialize, propose, take_step};
use super::super::codec::{AppendAnswer, decode_append};
use super::super::test_replica::{TestReplica, credentials, new_authority};
use super::*;
use dkv_state::BatchBuilder;
use dkv_state::reconciler::Step;

/// Time that is ample for everything done here.
const PATIENCE: Duration = Duration::from_secs(20);
/// Time that the learner takes for each request.
const PAUSE: Duration = Duration::from_secs(1);
const ENTRIES: u64 = 40;
const ENTRY_BYTES: usize = 700 * 1024;

/// Starts a learner that is alive and acknowledges, but is always slower than the writes. Returns a
/// channel with the openings of its leader's streams.
fn slow_learner(credentials: &Credentials) -> (Endpoint, mpsc::UnboundedReceiver<Opening>) {
    let address = ([127, 0, 0, 1], 0).into();
    let endpoint =
        Endpoint::listen(address, credentials.clone(), Admit::Certified, b"learner").unwrap();
    let (openings, opened) = mpsc::unbounded_channel();
    let accepting = endpoint.clone();
    tokio::spawn(async move {
        while let Some(incoming) = accepting.quinn().accept().await {
            let connection = incoming.await.unwrap();
            let openings = openings.clone();
            tokio::spawn(async move {
                while let Ok((send, receive)) = connection.accept_bi().await {
                    tokio::spawn(slow_stream(send, receive, openings.clone()));
                }
            });
        }
    });
    (endpoint, opened)
}

async fn slow_stream(
    send: quinn::SendStream,
    receive: quinn::RecvStream,
    openings: mpsc::UnboundedSender<Opening>,
) {
    let mut reader = FrameReader::new(receive, FRAME_BYTES_MAX);
    let mut writer = FrameWriter::new(send);
    let Ok(Some(opening)) = reader.next().await else { return };
    let opening: Opening = decode(&opening).unwrap();
    let appends = matches!(opening, Opening::RaftAppend { .. });
    openings.send(opening).unwrap();
    while let (true, Ok(Some(frame))) = (appends, reader.next().await) {
        let request = decode_append(&frame).unwrap();
        if request.entries.iter().any(|entry| matches!(entry.payload, EntryPayload::Normal(_))) {
            tokio::time::sleep(PAUSE).await;
        }
        let last = request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id);
        let answer = AppendAnswer::Taken { last, seal: None };
        writer.push_bytes(&encode(&answer));
        if writer.flush().await.is_err() {
            return;
        }
    }
}

async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_learner_that_is_left_behind_gets_a_snapshot_and_the_log_is_purged() {
    let authority = new_authority();
    let leader = TestReplica::start_as(&credentials(&authority)).await;
    let learner = credentials(&authority);
    let (endpoint, mut opened) = slow_learner(&learner);
    let id = learner.identity.as_node().unwrap();
    leader.peers.learn(id, endpoint.local_address().unwrap());

    initialize(&leader.raft, &[leader.id].into()).await.unwrap();
    let metrics = MetricsWatch::of(&leader.raft);
    until("it has no members", || metrics.borrow().last_applied.is_some()).await;
    until("it does not lead", || metrics.borrow().current_leader == Some(leader.id)).await;
    take_step(&leader.raft, &Step::AddLearners([id].into())).await.unwrap();
    let matched = || {
        let metrics = metrics.borrow();
        let matched = metrics.replication.as_ref().and_then(|members| *members.get(&id)?);
        matched.map_or(0, |log_id| log_id.index)
    };
    let begun = metrics.borrow().last_log_index.unwrap();
    until("the learner is not reached", || matched() >= begun).await;
    for _ in 0..ENTRIES {
        let mut batch = BatchBuilder::new(0, dkv_base::id::Stamp(1));
        batch.push(&vec![0; ENTRY_BYTES]);
        propose(&leader.raft, &leader.time_scale, batch.finish()).await.unwrap();
    }
    let last = metrics.borrow().last_log_index.unwrap();
    leader.raft.trigger().snapshot().await.unwrap();
    let checkpoint = || metrics.borrow().snapshot.map_or(0, |log_id| log_id.index);
    until("no checkpoint is taken", || checkpoint() >= last).await;

    // The learner acknowledges now and then, so the leader keeps its log for it.
    leader.raft.trigger().purge_log(last).await.unwrap();
    let purged = || metrics.borrow().purged.map_or(0, |log_id| log_id.index);
    until("the learner does not live", || matched() > begun).await;
    assert!(purged() < last, "nothing keeps the log, so this test shows nothing");

    leader.append_streams.leave_behind(last);
    until("the log is kept for the learner", || purged() == last).await;
    let snapshot = async {
        while let Some(opening) = opened.recv().await {
            if matches!(opening, Opening::RaftSnapshot { .. }) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, snapshot).await.unwrap();
}
