use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dkv_wire::certificate::Authority;
use dkv_wire::codec::{decode, encode};
use dkv_wire::frame::{FrameReader, FrameWriter};
use dkv_wire::limits::FRAME_BYTES_MAX;
use dkv_wire::message::Opening;
use dkv_wire::quic::Endpoint;
use dkv_wire::tls::Admit;
use openraft::raft::AppendEntriesResponse;
use tokio::sync::{Semaphore, mpsc};
use uuid::Uuid;

use super::super::HeartbeatCoalescer;
use super::super::adapter::{initialize, propose, take_step};
use super::super::codec::{AppendAnswer, Call, CallAnswer, decode_append};
use super::super::test_replica::{SHARD, TestReplica, credentials, new_authority, puts};
use super::*;
use crate::raft::heartbeat::coalescing::{HeartbeatBatch, HeartbeatBatchAnswer};
use dkv_state::reconciler::Step;

/// Time that is ample for everything done here.
const DONE_WITHIN: Duration = Duration::from_secs(20);

fn nodes(numbers: &[u128]) -> BTreeSet<NodeId> {
    numbers.iter().map(|number| NodeId(Uuid::from_u128(*number))).collect()
}

fn confirmed(voters: &[&[u128]], by: &[u128]) -> bool {
    let vote = Vote::new_committed(3, NodeId(Uuid::from_u128(1)));
    let voters = voters.iter().map(|voters| nodes(voters)).collect();
    Claim { vote, voters, committed: 7 }.is_confirmed_by(&nodes(by))
}

#[test]
fn a_majority_confirms_and_nobody_else_counts() {
    assert!(confirmed(&[&[1]], &[1]));
    for (voters, by, is_enough) in [
        (&[1, 2, 3][..], &[1][..], false),
        (&[1, 2, 3], &[1, 3], true),
        (&[1, 2, 3, 4], &[1, 4], false),
        (&[1, 2, 3, 4], &[1, 2, 4], true),
        // A leader that is being removed has no vote of its own.
        (&[2, 3, 4], &[1, 2], false),
        (&[2, 3, 4], &[1, 2, 4], true),
        (&[1, 2, 3], &[1, 5, 6, 7], false),
    ] {
        assert_eq!(confirmed(&[voters], by), is_enough, "{by:?} of {voters:?}");
    }
}

#[test]
fn of_a_joint_configuration_both_halves_confirm() {
    let (old, new) = (&[1, 2, 3][..], &[3, 4, 5][..]);
    assert!(!confirmed(&[old, new], &[1, 2]));
    assert!(!confirmed(&[old, new], &[1, 4, 5]));
    assert!(confirmed(&[old, new], &[1, 3, 4]));
}

/// A voter that acknowledges entries late, from some moment on, as over a connection that outlives
/// a network partition. It answers no heartbeats and no questions until the test allows it.
#[derive(Clone)]
struct Voter {
    endpoint: Endpoint,
    id: NodeId,
    seen: Arc<Seen>,
}

struct Seen {
    /// Index of the last entry that it received, and of the last that its leader reported as
    /// committed.
    received: AtomicU64,
    committed: AtomicU64,
    /// Number of questions whether it follows the leader.
    asked: AtomicU64,
    is_late: AtomicBool,
    answers: AtomicBool,
    /// Number of acknowledgements that it may send while it is late.
    late: Semaphore,
}

impl Voter {
    fn start(authority: &Authority) -> Self {
        let credentials = credentials(authority);
        let id = credentials.identity.as_node().unwrap();
        let address = ([127, 0, 0, 1], 0).into();
        let endpoint = Endpoint::listen(address, credentials, Admit::Certified, b"voter").unwrap();
        let (received, committed, asked, is_late, answers) = Default::default();
        let late = Semaphore::new(0);
        let seen = Arc::new(Seen { received, committed, asked, is_late, answers, late });
        let voter = Self { endpoint, id, seen };
        tokio::spawn(voter.clone().accept());
        voter
    }

    async fn accept(self) {
        while let Some(incoming) = self.endpoint.quinn().accept().await {
            let connection = incoming.await.unwrap();
            let seen = Arc::clone(&self.seen);
            tokio::spawn(async move {
                while let Ok((send, receive)) = connection.accept_bi().await {
                    tokio::spawn(Self::stream(send, receive, Arc::clone(&seen)));
                }
            });
        }
    }

    async fn stream(send: quinn::SendStream, receive: quinn::RecvStream, seen: Arc<Seen>) {
        let mut reader = FrameReader::new(receive, FRAME_BYTES_MAX);
        let Ok(Some(opening)) = reader.next().await else { return };
        let opening: Opening = decode(&opening).unwrap();
        // Frames are recorded on arrival, however late they are answered.
        let (answers, answering) = mpsc::unbounded_channel();
        tokio::spawn(Self::answer(send, answering, Arc::clone(&seen)));
        while let Ok(Some(frame)) = reader.next().await {
            let is_late = seen.is_late.load(Ordering::SeqCst);
            let answer = match opening {
                Opening::RaftAppend { .. } => Some((encode(&seen.append(&frame)), is_late)),
                Opening::RaftHeartbeats { .. } => {
                    seen.heartbeat_batch(&frame).map(|it| (encode(&it), false))
                }
                _ => return,
            };
            if answer.is_some_and(|answer| answers.send(answer).is_err()) {
                return;
            }
        }
    }

    async fn answer(
        send: quinn::SendStream,
        mut answering: mpsc::UnboundedReceiver<(bytes::Bytes, bool)>,
        seen: Arc<Seen>,
    ) {
        let mut writer = FrameWriter::new(send);
        while let Some((answer, is_late)) = answering.recv().await {
            if is_late {
                seen.late.acquire().await.unwrap().forget();
            }
            writer.push_bytes(&answer);
            if writer.flush().await.is_err() {
                return;
            }
        }
    }

    fn has(&self, index: u64) -> bool {
        self.seen.received.load(Ordering::SeqCst) >= index
    }

    fn was_told(&self, index: u64) -> bool {
        self.has(index) && self.seen.committed.load(Ordering::SeqCst) >= index
    }

    fn asked(&self) -> u64 {
        self.seen.asked.load(Ordering::SeqCst)
    }
}

impl Seen {
    fn append(&self, frame: &bytes::Bytes) -> AppendAnswer {
        let request = decode_append(frame).unwrap();
        let last = request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id);
        let index = |log_id: Option<super::super::LogId>| log_id.map_or(0, |last| last.index);
        self.received.store(index(last), Ordering::SeqCst);
        self.committed.store(index(request.leader_commit), Ordering::SeqCst);
        AppendAnswer::Taken { last, seal: None }
    }

    fn heartbeat_batch(&self, frame: &bytes::Bytes) -> Option<HeartbeatBatchAnswer> {
        let HeartbeatBatch { number, calls, .. } = decode(frame).unwrap();
        let answers = calls.into_iter().map(|(_, call)| match call {
            Call::Follow { .. } => {
                self.asked.fetch_add(1, Ordering::SeqCst);
                Ok(CallAnswer::Follow(true))
            }
            _ => Ok(CallAnswer::Heartbeat(AppendEntriesResponse::Success)),
        });
        let answers = answers.collect();
        let answer = HeartbeatBatchAnswer { number, at_us: 0, answers, mark: 0 };
        self.answers.load(Ordering::SeqCst).then_some(answer)
    }
}

async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DONE_WITHIN;
    while !so() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// An acknowledgement from before the read began does not show which leader the voter has followed
/// since.
#[tokio::test(flavor = "multi_thread")]
async fn late_acknowledgements_of_older_entries_confirm_no_leader() {
    let authority = new_authority();
    let leader = TestReplica::start_as(&credentials(&authority)).await;
    let (one, other) = (Voter::start(&authority), Voter::start(&authority));
    let voters = [&one, &other];
    for voter in voters {
        leader.peers.learn(voter.id, voter.endpoint.local_address().unwrap());
    }
    initialize(&leader.raft, &[leader.id].into()).await.unwrap();
    let metrics = MetricsWatch::of(&leader.raft);
    until("it does not lead", || metrics.borrow().current_leader == Some(leader.id)).await;
    until("it has begun nothing", || metrics.borrow().local_committed.is_some()).await;
    take_step(&leader.raft, &Step::AddLearners([one.id, other.id].into())).await.unwrap();
    let members = [leader.id, one.id, other.id].into();
    take_step(&leader.raft, &Step::ChangeVoters(members)).await.unwrap();
    let before = metrics.borrow().last_log_index.unwrap();
    until("more is under way", || voters.iter().all(|voter| voter.was_told(before))).await;

    // An entry reaches both voters, and their acknowledgements are late. Meanwhile they might elect
    // one of themselves.
    let entry = before + 1;
    voters.iter().for_each(|voter| voter.seen.is_late.store(true, Ordering::SeqCst));
    let (raft, time_scale) = (leader.raft.clone(), leader.time_scale.clone());
    let _writing = tokio::spawn(async move { propose(&raft, &time_scale, puts(1)).await });
    until("they get no entry", || voters.iter().all(|voter| voter.has(entry))).await;

    // The read begins only now.
    let heartbeats = HeartbeatCoalescer::new(leader.id, leader.peers.clone());
    let (append_streams, time_scale) = (leader.append_streams.clone(), leader.time_scale.clone());
    let network = Network::new(
        SHARD,
        leader.id,
        leader.peers.clone(),
        heartbeats,
        append_streams,
        time_scale,
    );
    network.told_by(&leader.raft);
    let (raft, state_machine, asking) =
        (leader.raft.clone(), leader.state_machine.clone(), network.clone());
    let reading =
        tokio::spawn(async move { confirm_leadership(&raft, &state_machine, &asking).await });
    until("nobody is asked", || voters.iter().all(|voter| voter.asked() > 0)).await;
    assert!(!reading.is_finished());

    // Only the acknowledgements of that entry arrive, one after the other. The first commits the
    // entry; the leader reports that to the other voter in a request that ends with the same entry.
    one.seen.late.add_permits(1);
    until("it is not committed", || leader.state_machine.applied_index() >= entry).await;
    until("the other voter does not learn of it", || other.was_told(entry)).await;
    other.seen.late.add_permits(1);
    let has_acknowledged = || {
        let metrics = metrics.borrow();
        let matched = metrics.replication.as_ref().and_then(|members| *members.get(&other.id)?);
        matched.is_some_and(|matched| matched.index >= entry)
    };
    until("it acknowledges nothing", has_acknowledged).await;
    // The leader keeps asking voters that have not answered, however often.
    for _ in 0..2 {
        let asked = one.asked();
        until("nobody is asked again", || reading.is_finished() || one.asked() > asked).await;
        assert!(!reading.is_finished(), "a late acknowledgement has confirmed the leader");
    }
    assert_eq!(network.quorum_at(), None, "nobody has answered a question");

    // Now the voters answer.
    let answering = Instant::now();
    voters.iter().for_each(|voter| voter.seen.answers.store(true, Ordering::SeqCst));
    until("it is not confirmed", || reading.is_finished()).await;
    match reading.await.unwrap() {
        Ok(term) => assert_eq!(term, Term(metrics.borrow().current_term)),
        // On a busy machine the read may have timed out meanwhile.
        Err(ProposeError::Unavailable(_)) => {
            let confirmed = confirm_leadership(&leader.raft, &leader.state_machine, &network).await;
            confirmed.unwrap();
        }
        Err(error) => panic!("{error}"),
    }
    // The confirmation dates from when the voters were asked.
    let confirmed = network.quorum_at().unwrap();
    assert!(confirmed >= answering - network.time_scale().patience(), "{confirmed:?}");
    assert!(confirmed <= Instant::now());
}
