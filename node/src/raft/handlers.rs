//! Raft's messages from the other members.
//!
//! Whoever speaks Raft has shown a node's certificate, and says in its stream's opening who it is;
//! both were compared by the time a stream gets here. What remains is checked here, for each
//! message: that its sender is a member of the group (see `members`), that the vote in it is the
//! sender's own, so that nobody can lead, or stand, in another's name, and that it can be true (see
//! [`plausible`]). A message that cannot be ends its stream, is told to the operator with its
//! sender, and has no other consequence: it neither stops this node nor makes its data suspect.
//!
//! [`plausible`]: super::validation

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::{GroupId, NodeId, Term};
use dkv_base::platform::run_blocking;
use dkv_wire::codec::decode;
use dkv_wire::frame::{FrameError, FrameReader, FrameWriter};
use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt, unfold};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteResponse};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::adapter::forget_leader;
use super::codec::{
    AppendAnswer, Call, CallAnswer, CallResult, Confirmed, SnapshotAnswer, SnapshotFrame,
    SnapshotHead, decode_append, decode_entry,
};
use super::forget_leader::ForgottenLeader;
use super::snapshot::NotTaken;
use super::{
    DurabilityCheck, LogId, MetricsWatch, Raft, Snapshot, SnapshotData, SnapshotMeta,
    StateMachineHandle, TimeScale, Types, Vote,
};
use crate::net::denials::DenialLog;
use crate::net::liveness::Liveness;
use crate::raft::heartbeat::coalescing::{HeartbeatBatch, HeartbeatBatchAnswer};
use dkv_wal::GroupLog;

type Reader = FrameReader<quinn::RecvStream>;
type Writer = FrameWriter<quinn::SendStream>;

/// Time that a call may wait for the group, whose disk may have stalled.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Time that a heartbeat may wait for what was given to the disk before it.
const SYNC_PATIENCE: Duration = Duration::from_millis(5);
/// Heartbeats of a group that were answered before the disk was ready for openraft's own answer.
const LATE_MAX: usize = 16;

/// Batches of heartbeats that wait for their answers at once; more are left in the stream.
const HEARTBEAT_BATCHES_MAX: usize = 16;

/// How often it is looked up whether the sender of a stream of entries is still a member.
const MEMBER_CHECK_EVERY: Duration = Duration::from_millis(100);

/// Says whether somebody is a member of a group, as far as this node knows.
pub(crate) type IsMember = Arc<dyn Fn(GroupId) -> bool + Send + Sync>;

/// Who sends.
#[derive(Clone)]
pub(crate) struct RaftPeer {
    pub(crate) id: NodeId,
    pub(crate) liveness: Liveness,
    pub(crate) is_member: IsMember,
    pub(crate) denials: DenialLog,
}

impl RaftPeer {
    /// Refuses what it sends to a group that it is no member of.
    fn check_member(&self, group: GroupId) -> Result<(), Refused> {
        if (self.is_member)(group) {
            return Ok(());
        }
        let why = format!("denied: node {:?} is no member of group {group}", self.id);
        self.denials.note(self.id, &why);
        Err(Refused::Now(why))
    }

    /// Notes that a message cannot be.
    fn refuse(&self, member: &ReplicaHandle, why: String) -> Refused {
        let why = format!("group {}: {why}", member.durability.group());
        self.denials.note(self.id, &why);
        Refused::ForGood(why)
    }
}

#[cfg(test)]
impl RaftPeer {
    /// A member.
    fn member(id: NodeId) -> Self {
        let (liveness, denials) = Default::default();
        Self { id, liveness, is_member: Arc::new(|_| true), denials }
    }

    /// Somebody with a node's certificate and no more.
    fn stranger(id: NodeId) -> Self {
        Self { is_member: Arc::new(|_| false), ..Self::member(id) }
    }
}

/// Why a message was not answered as asked.
#[derive(Debug)]
enum Refused {
    /// It may be answered another time.
    Now(String),
    /// It, or what comes after it, can never be: the stream ends.
    ForGood(String),
}

impl From<String> for Refused {
    fn from(why: String) -> Self {
        Self::Now(why)
    }
}

type Answered = Result<CallAnswer, Refused>;

/// What is sent back, and whether the stream goes on.
fn told(answered: Answered) -> (CallResult, bool) {
    match answered {
        Ok(answer) => (Ok(answer), true),
        Err(Refused::Now(why)) => (Err(why), true),
        Err(Refused::ForGood(why)) => (Err(why), false),
    }
}

/// A replica of this node, as the other members see it.
#[derive(Clone)]
pub(crate) struct ReplicaHandle {
    pub(crate) raft: Raft,
    pub(crate) state_machine: StateMachineHandle,
    pub(crate) durability: DurabilityCheck,
    pub(crate) time_scale: TimeScale,
    late: Arc<Semaphore>,
    forgotten: ForgottenLeader,
}

impl ReplicaHandle {
    pub(crate) fn new(
        raft: Raft,
        state_machine: StateMachineHandle,
        durability: DurabilityCheck,
        time_scale: TimeScale,
    ) -> Self {
        let (late, forgotten) = (Arc::new(Semaphore::new(LATE_MAX)), ForgottenLeader::default());
        Self { raft, state_machine, durability, time_scale, late, forgotten }
    }

    /// Takes back the promise to `leader` not to vote for anybody else as long as it is heard. It
    /// is given again as soon as that leader is heard again.
    pub(crate) async fn forget_leader(&self, leader: NodeId) {
        // First, as what is heard meanwhile may be of later.
        self.forgotten.forget(Instant::now());
        forget_leader(&self.raft, leader).await;
    }

    /// Whether a vote would break the promise to a leader that was forsaken and has been heard
    /// since.
    ///
    /// openraft takes such a promise back for the whole term, so it is kept here. It lasts as long
    /// as openraft's.
    fn keeps_to_leader(&self) -> bool {
        let lease = Duration::from_millis(self.raft.config().election_timeout_max);
        let heard = self.state_machine.followed_at();
        self.forgotten.keeps(heard, self.time_scale.stretch(lease), Instant::now())
    }

    /// The answer to one who asks for a vote and does not get it.
    fn refuse_vote(&self) -> VoteResponse<Types> {
        let metrics = MetricsWatch::of(&self.raft);
        let vote = metrics.borrow().vote;
        VoteResponse::new(vote, None, false)
    }

    /// The last entry that is known to be committed.
    fn committed(&self) -> Option<LogId> {
        let told = MetricsWatch::of(&self.raft).borrow().local_committed;
        told.max(self.state_machine.applied_log_id())
    }
}

/// Answers calls until the peer ends the stream, or sends what cannot be.
pub(crate) async fn serve_calls(
    member: ReplicaHandle,
    raft_peer: RaftPeer,
    mut reader: Reader,
    mut writer: Writer,
) {
    while let Ok(Some(frame)) = reader.next().await {
        raft_peer.liveness.heard(Instant::now());
        let answered = answer_call(&member, &raft_peer, &frame);
        let (answer, goes_on) = match tokio::time::timeout(ANSWER_TIMEOUT, answered).await {
            Ok(answered) => told(answered),
            Err(_) => (Err("no answer in time".to_owned()), true),
        };
        if writer.send(&answer).await.is_err() {
            return;
        }
        if !goes_on {
            let _ = writer.into_inner().finish();
            return;
        }
    }
}

async fn answer_call(member: &ReplicaHandle, raft_peer: &RaftPeer, frame: &Bytes) -> Answered {
    match decode::<Call>(frame) {
        Ok(call) => answer(member, raft_peer, call, None).await,
        Err(error) => Err(raft_peer.refuse(member, error.to_string())),
    }
}

/// Answers a call that was sent at `sent` at the earliest, if that is known.
async fn answer(
    member: &ReplicaHandle,
    raft_peer: &RaftPeer,
    call: Call,
    sent: Option<Instant>,
) -> Answered {
    let ReplicaHandle { raft, durability, .. } = member;
    let from = raft_peer.id;
    raft_peer.check_member(durability.group())?;
    let elects = matches!(call, Call::Vote(_) | Call::PreVote(_) | Call::Transfer(_));
    if elects && !durability.are_known() {
        return Err("this replica is new and is being filled".to_owned().into());
    }
    let known = durability.known();
    let text = |error: &dyn std::error::Error| Refused::Now(error.to_string());
    let refuse = |why: String| raft_peer.refuse(member, why);
    match call {
        Call::Heartbeat { append, confirmed, acknowledged, is_quiescent } => {
            let request = decode_append(&append).map_err(|error| refuse(error.to_string()))?;
            own(&request.vote, from).map_err(refuse)?;
            if !request.entries.is_empty() {
                return Err(refuse("entries in a heartbeat".into()));
            }
            known.append(durability.group(), &request).map_err(refuse)?;
            contradicts(member, &request).await.map_err(refuse)?;
            durability.check(from, acknowledged).map_err(refuse)?;
            let vote = request.vote;
            let liveness = hear(member.clone(), request, sent.zip(confirmed), is_quiescent);
            let mut liveness = Box::pin(liveness);
            if let Ok(heard) = tokio::time::timeout(SYNC_PATIENCE, &mut liveness).await {
                return heard.map_err(Refused::Now);
            }
            // It waits for the disk.
            if !durability.follows(&vote) {
                return liveness.await.map_err(Refused::Now);
            }
            if let Ok(permit) = Arc::clone(&member.late).try_acquire_owned() {
                tokio::spawn(async move {
                    let _ = liveness.await;
                    drop(permit);
                });
            }
            Ok(CallAnswer::Heartbeat(AppendEntriesResponse::Success))
        }
        Call::Vote(request) => {
            own(&request.vote, from).map_err(refuse)?;
            known.vote_request(&request).map_err(refuse)?;
            member.time_scale.told(false);
            if !request.leadership_transfer && member.keeps_to_leader() {
                return Ok(CallAnswer::Vote(member.refuse_vote()));
            }
            raft.vote(request).await.map(CallAnswer::Vote).map_err(|error| text(&error))
        }
        Call::PreVote(request) => {
            own(&request.vote, from).map_err(refuse)?;
            known.vote_request(&request).map_err(refuse)?;
            // Whoever is elected by this must not be missed for longer than at any other time.
            member.time_scale.told(false);
            if member.keeps_to_leader() {
                return Ok(CallAnswer::Vote(member.refuse_vote()));
            }
            raft.pre_vote(request).await.map(CallAnswer::Vote).map_err(|error| text(&error))
        }
        Call::Transfer(request) => {
            own(request.from_leader(), from).map_err(refuse)?;
            known.transfer(&request).map_err(refuse)?;
            member.time_scale.told(false);
            let answer = raft.handle_transfer_leader(request).await;
            answer.map(CallAnswer::Transfer).map_err(|error| text(&error))
        }
        Call::Follow { vote, acknowledged } => {
            own(&vote, from).map_err(refuse)?;
            durability.check(from, acknowledged).map_err(refuse)?;
            Ok(CallAnswer::Follow(durability.follows(&vote)))
        }
    }
}

/// Whether a request to append says otherwise of what is committed here already. Nothing can:
/// whoever does is no leader of this group, or this replica is not what it was.
async fn contradicts(
    member: &ReplicaHandle,
    request: &AppendEntriesRequest<Types>,
) -> Result<(), String> {
    let committed = member.committed();
    let Some(committed) = committed else { return Ok(()) };
    let other = |at: &LogId| format!("entry {at} is not the one that is committed here");
    let stated = request.prev_log_id.iter();
    let stated = stated.chain(request.entries.iter().map(|entry| &entry.log_id));
    let stated: Vec<LogId> = stated.filter(|at| at.index <= committed.index).copied().collect();
    if let Some(at) = stated.iter().find(|at| at.leader_id > committed.leader_id) {
        return Err(other(at));
    }
    // Nearly always there is none, or the last one that is committed.
    let stated: Vec<LogId> = stated.into_iter().filter(|at| *at != committed).collect();
    let (Some(first), Some(last)) = (stated.first(), stated.last()) else { return Ok(()) };
    let own = positions(member.durability.log(), first.index, last.index).await?;
    match stated.iter().find(|at| own.iter().any(|own| own.index == at.index && own != *at)) {
        Some(at) => Err(other(at)),
        None => Ok(()),
    }
}

/// Hands a heartbeat to openraft.
async fn hear(
    member: ReplicaHandle,
    request: AppendEntriesRequest<Types>,
    confirmed: Option<(Instant, Confirmed)>,
    is_quiescent: bool,
) -> CallResult {
    let ReplicaHandle { raft, state_machine, time_scale, .. } = member;
    let answer = raft.append_entries(request).await.map_err(|error| error.to_string())?;
    if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
        state_machine.follow_leader();
        time_scale.told(is_quiescent);
    }
    if let (true, Some((sent, Confirmed { age_us, applied }))) = (answer.is_success(), confirmed) {
        state_machine.heard_leader(sent, Duration::from_micros(age_us), applied);
    }
    Ok(CallAnswer::Heartbeat(answer))
}

/// Answers batches of heartbeats until the peer ends the stream; `group` finds a group of this
/// node, and `marks` is told how far the peer's log is on disk and says how far this node's is.
pub(crate) async fn serve_heartbeats(
    group: impl Fn(GroupId) -> Option<ReplicaHandle>,
    raft_peer: RaftPeer,
    marks: impl Fn(u64) -> u64,
    mut reader: Reader,
    mut writer: Writer,
) {
    let mut answering = FuturesUnordered::new();
    let began = Instant::now();
    loop {
        tokio::select! {
            biased;
            frame = reader.next(), if answering.len() < HEARTBEAT_BATCHES_MAX => {
                let Ok(Some(frame)) = frame else { return };
                let now = Instant::now();
                raft_peer.liveness.heard(now);
                let Ok(batch) = decode::<HeartbeatBatch>(&frame) else { return };
                let HeartbeatBatch { number, echo, calls, mark } = batch;
                let sent = echo.map(|echo| echo.sent_at(began, now));
                let mark = marks(mark);
                let answers = calls.into_iter().map(|(id, call)| {
                    let (group, raft_peer) = (group(id), &raft_peer);
                    async move {
                        let Some(member) = group else {
                            return (Err(format!("group {id} is not here")), true);
                        };
                        let answered = answer(&member, raft_peer, call, sent);
                        let answered = tokio::time::timeout(ANSWER_TIMEOUT, answered).await;
                        answered.map_or_else(|_| (Err("no answer in time".to_owned()), true), told)
                    }
                });
                let answers = join_all(answers);
                answering.push(async move { (number, answers.await, mark) });
            }
            Some((number, answers, mark)) = answering.next() => {
                let (answers, go_on): (_, Vec<bool>) = answers.into_iter().unzip();
                let at_us = began.elapsed().as_micros() as u64;
                let answer = HeartbeatBatchAnswer { number, at_us, answers, mark };
                if writer.send(&answer).await.is_err() || go_on.contains(&false) {
                    return;
                }
            }
        }
    }
}

/// Takes entries from a leader, pipelined, and acknowledges them in order.
pub(crate) async fn serve_append<R, W>(
    member: ReplicaHandle,
    raft_peer: RaftPeer,
    reader: FrameReader<R>,
    mut writer: FrameWriter<W>,
) where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin,
{
    let (raft, durability) = (member.raft.clone(), member.durability.clone());
    // Terms of the requests that are under way, in their order.
    let terms = Arc::new(Mutex::new(VecDeque::new()));
    let state = (reader, member, raft_peer, None, Arc::clone(&terms));
    // Ends at the first frame that is not a request of the sender's own: so does the stream.
    let requests =
        unfold(state, move |(mut reader, member, raft_peer, checked, terms)| async move {
            let frame = match reader.next().await {
                Ok(frame) => frame?,
                Err(error) => {
                    log_broken(raft_peer.id, &error);
                    return None;
                }
            };
            let now = Instant::now();
            raft_peer.liveness.heard(now);
            let (request, checked) =
                take_request(&member, &raft_peer, &frame, checked, now).await?;
            member.time_scale.told(false);
            lock(&terms).push_back(Term(request.vote.leader_id.term));
            Some((request, (reader, member, raft_peer, checked, terms)))
        });
    let mut answers = std::pin::pin!(raft.stream_append(requests));
    while let Some(answer) = answers.next().await {
        let term = lock(&terms).pop_front().unwrap_or_default();
        let answer = match answer {
            Ok(Ok(last)) => AppendAnswer::Taken { last, seal: durability.seal(term, last) },
            Ok(Err(refused)) => AppendAnswer::Refused(refused),
            Err(error) => return debug!(%error, "this node stops"),
        };
        writer.push(&answer);
        // Acknowledgements that are ready together go together.
        if writer.flush().await.is_err() {
            return;
        }
    }
    let _ = writer.into_inner().shutdown().await;
}

/// A request to append, if it may be handed to openraft, and when its sender was last looked up.
async fn take_request(
    member: &ReplicaHandle,
    raft_peer: &RaftPeer,
    frame: &Bytes,
    checked: Option<Instant>,
    now: Instant,
) -> Option<(AppendEntriesRequest<Types>, Option<Instant>)> {
    let is_due = |at: Instant| now.saturating_duration_since(at) >= MEMBER_CHECK_EVERY;
    let checked = if checked.is_none_or(is_due) {
        raft_peer.check_member(member.durability.group()).ok()?;
        Some(now)
    } else {
        checked
    };
    let refuse = |why: String| drop(raft_peer.refuse(member, why));
    let request = decode_append(frame).map_err(|error| refuse(error.to_string())).ok()?;
    own(&request.vote, raft_peer.id).map_err(refuse).ok()?;
    let known = member.durability.known();
    known.append(member.durability.group(), &request).map_err(refuse).ok()?;
    contradicts(member, &request).await.map_err(refuse).ok()?;
    Some((request, checked))
}

/// Takes a snapshot from a leader and answers when it is installed.
///
/// # Errors
/// If this node must stop, with the reason.
pub(crate) async fn serve_snapshot(
    member: ReplicaHandle,
    raft_peer: RaftPeer,
    mut reader: Reader,
    mut writer: Writer,
) -> Result<(), String> {
    let from = raft_peer.id;
    let taken = take_snapshot(&member, &raft_peer, &mut reader).await;
    let answer: SnapshotAnswer = match &taken {
        Ok(vote) => Ok(*vote),
        Err(NotTaken::Refused(why) | NotTaken::Unfit(why)) => {
            warn!(?from, error = why, "snapshot not taken");
            Err(why.clone())
        }
    };
    if writer.send(&answer).await.is_ok() {
        let _ = writer.into_inner().finish();
    }
    match taken {
        Err(NotTaken::Unfit(why)) => Err(why),
        _ => Ok(()),
    }
}

async fn take_snapshot<R: AsyncRead + Unpin>(
    member: &ReplicaHandle,
    raft_peer: &RaftPeer,
    reader: &mut FrameReader<R>,
) -> Result<Vote, NotTaken> {
    let ReplicaHandle { raft, state_machine, durability, .. } = member;
    let refuse = |refused: Refused| match refused {
        Refused::Now(why) | Refused::ForGood(why) => NotTaken::Refused(why),
    };
    raft_peer.check_member(durability.group()).map_err(refuse)?;
    let cut = || "the stream ended inside the snapshot".to_owned();
    let head = reader.next().await.map_err(|error| error.to_string())?.ok_or_else(cut)?;
    let head: SnapshotHead = decode(&head).map_err(|error| error.to_string())?;
    let check = |head: &SnapshotHead| {
        own(&head.vote, raft_peer.id)?;
        durability.known().snapshot(&head.vote, &head.meta)?;
        fits(member, &head.meta)
    };
    check(&head).map_err(|why| refuse(raft_peer.refuse(member, why)))?;
    let mut incoming = state_machine.receive(head.store.clone()).await?;
    loop {
        let frame = reader.next().await.map_err(|error| error.to_string())?.ok_or_else(cut)?;
        match decode(&frame).map_err(|error| error.to_string())? {
            SnapshotFrame::Rows(rows) => incoming.rows(rows).await?,
            SnapshotFrame::End => break,
        }
    }
    let arrived = incoming.complete(&head.meta).await?;
    // Time has passed.
    raft_peer.check_member(durability.group()).map_err(refuse)?;
    check(&head).map_err(|why| refuse(raft_peer.refuse(member, why)))?;
    let snapshot = Snapshot { meta: head.meta, snapshot: SnapshotData::Arrived(arrived) };
    let answer = raft.install_full_snapshot(head.vote, snapshot).await;
    Ok(answer.map_err(|error| error.to_string())?.vote)
}

/// Whether a snapshot goes on from what is committed here: openraft takes one that does not for the
/// end.
fn fits(member: &ReplicaHandle, meta: &SnapshotMeta) -> Result<(), String> {
    match (meta.last_log_id, member.committed()) {
        (Some(last), Some(committed))
            if last > committed && last.index <= committed.index
                || last < committed && last.index > committed.index =>
        {
            Err(format!("a snapshot up to {last} leaves out entry {committed}, which is committed"))
        }
        _ => Ok(()),
    }
}

/// The ids of entries of the log, as far as they are there.
async fn positions(log: &GroupLog, first: u64, last: u64) -> Result<Vec<LogId>, String> {
    let reading = log.reading(first, last.saturating_add(1), u64::MAX);
    let entries = if reading.is_in_memory() {
        reading.entries()
    } else {
        run_blocking(move || reading.entries()).await.map_err(|error| error.to_string())?
    };
    let entries = entries.map_err(|error| error.to_string())?;
    let ids = entries.iter().map(|(_, entry)| decode_entry(entry).map(|entry| entry.log_id));
    ids.collect::<Result<_, _>>().map_err(|error| error.to_string())
}

/// Whether a vote is the sender's own.
fn own(vote: &Vote, from: NodeId) -> Result<(), String> {
    if vote.leader_id.voted_for == from {
        Ok(())
    } else {
        Err(format!("denied: a vote for {:?} from {from:?}", vote.leader_id.voted_for))
    }
}

fn log_broken(from: NodeId, error: &FrameError) {
    match error {
        FrameError::TooLong { .. } => warn!(?from, %error, "entries refused"),
        _ => debug!(?from, %error, "stream of entries broke"),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
