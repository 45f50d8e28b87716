//! Raft messages from the other members.
//!
//! A peer that speaks Raft has presented a node's certificate and named itself in the opening of
//! its stream; by the time a stream reaches this module, the two have been compared. This module
//! checks the rest, for each message: that the sender is a voter of the group (see
//! `node/peer_access.rs`); that the vote in the message is the sender's own, so that no node can
//! lead or stand for election in another's name; and that the message is plausible (see
//! [`validation`]). A message that cannot be true ends its stream, is reported to the operator with
//! its sender, and has no other consequence: it neither stops this node nor makes its data suspect.
//!
//! [`validation`]: super::validation

mod votes;

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::{GroupId, NodeId, Term};
use dkv_base::platform::run_blocking;
use dkv_base::sync::lock;
use dkv_wire::codec::decode;
use dkv_wire::frame::{FrameError, FrameReader, FrameWriter};
use dkv_wire::message::ChangeReason;
use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt, unfold};
use openraft::errors::RaftError;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::codec::{
    AppendAnswer, Call, CallAnswer, CallResult, Confirmed, SnapshotAnswer, SnapshotFrame,
    SnapshotHead, decode_append, decode_entry, invalid,
};
use super::forget_leader::ForgottenLeader;
use super::refusal::{NotNow, PromiseError, Refused, Untrue};
use super::snapshot::{NotTaken, TransferError, Unfit};
use super::validation::Implausible;
use super::{
    DurabilityCheck, LogId, MetricsWatch, Raft, Snapshot, SnapshotData, SnapshotMeta,
    StateMachineHandle, TimeScale, Types, Vote,
};
use crate::common::turnovers::Turnovers;
use crate::net::denials::DenialLog;
use crate::net::liveness::Liveness;
use crate::raft::heartbeat::coalescing::{HeartbeatBatch, HeartbeatBatchAnswer};
use dkv_wal::GroupLog;

type Reader = FrameReader<quinn::RecvStream>;
type Writer = FrameWriter<quinn::SendStream>;

/// Time that a call may wait for the group, whose disk may have stalled.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Time that a heartbeat may wait for earlier writes to reach the disk.
const SYNC_PATIENCE: Duration = Duration::from_millis(5);
/// Most heartbeats of a group answered before the disk was ready for openraft's own answer.
const LATE_MAX: usize = 16;

/// Most batches of heartbeats that wait for their answers at once; further ones stay in the stream.
const HEARTBEAT_BATCHES_MAX: usize = 16;

/// Interval at which the sender of a stream of entries is checked for still being a voter.
const VOTER_CHECK_EVERY: Duration = Duration::from_millis(100);

/// Function that reports whether a peer may send messages of a group, as far as this node knows.
pub(crate) type MaySpeak = Arc<dyn Fn(GroupId) -> bool + Send + Sync>;

/// The sender of a message.
#[derive(Clone)]
pub(crate) struct RaftPeer {
    pub(crate) id: NodeId,
    pub(crate) liveness: Liveness,
    pub(crate) may_speak: MaySpeak,
    pub(crate) denials: DenialLog,
}

impl RaftPeer {
    /// Refuses a message to a group that the sender is no voter of.
    fn check_sender(&self, group: GroupId) -> Result<(), Refused> {
        if (self.may_speak)(group) {
            return Ok(());
        }
        let why = NotNow::NoVoter { node: self.id, group };
        self.denials.note(self.id, &why.to_string());
        Err(why.into())
    }

    /// Reports a message that cannot be true and returns its refusal.
    fn refuse(&self, member: &ReplicaHandle, why: impl Into<Untrue>) -> Refused {
        let refused = Refused::ForGood { group: member.durability.group(), why: why.into() };
        self.denials.note(self.id, &refused.to_string());
        refused
    }
}

#[cfg(test)]
impl RaftPeer {
    /// Returns a voter of every group.
    fn voter(id: NodeId) -> Self {
        let (liveness, denials) = Default::default();
        Self { id, liveness, may_speak: Arc::new(|_| true), denials }
    }

    /// Returns a peer that has a node's certificate but a vote in no group.
    fn stranger(id: NodeId) -> Self {
        Self { may_speak: Arc::new(|_| false), ..Self::voter(id) }
    }
}

type Answered = Result<CallAnswer, Refused>;

/// Returns the result to send back, and whether the stream continues.
fn told(answered: Answered) -> (CallResult, bool) {
    match answered {
        Ok(answer) => (Ok(answer), true),
        Err(refused) => (Err(refused.to_string()), matches!(refused, Refused::Now(_))),
    }
}

/// A replica on this node, as the other members see it.
#[derive(Clone)]
pub(crate) struct ReplicaHandle {
    pub(crate) raft: Raft,
    pub(crate) state_machine: StateMachineHandle,
    pub(crate) durability: DurabilityCheck,
    pub(crate) time_scale: TimeScale,
    late: Arc<Semaphore>,
    forgotten: ForgottenLeader,
    is_to_begin: Arc<AtomicBool>,
    pub(crate) turnovers: Turnovers,
}

impl ReplicaHandle {
    pub(crate) fn new(
        raft: Raft,
        state_machine: StateMachineHandle,
        durability: DurabilityCheck,
        time_scale: TimeScale,
    ) -> Self {
        let (late, forgotten) = (Arc::new(Semaphore::new(LATE_MAX)), ForgottenLeader::default());
        let is_to_begin = Arc::default();
        let turnovers = Turnovers::default();
        Self {
            raft,
            state_machine,
            durability,
            time_scale,
            late,
            forgotten,
            is_to_begin,
            turnovers,
        }
    }

    /// Returns the last entry known to be committed.
    fn committed(&self) -> Option<LogId> {
        let told = MetricsWatch::of(&self.raft).borrow().local_committed;
        told.max(self.state_machine.applied_log_id())
    }
}

/// Answers calls until the peer ends the stream or sends a message that cannot be true.
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
            Err(_) => told(Err(NotNow::Timeout.into())),
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
        Err(error) => Err(raft_peer.refuse(member, error)),
    }
}

/// Answers a call; `sent` is the earliest time at which it may have been sent, if known.
async fn answer(
    member: &ReplicaHandle,
    raft_peer: &RaftPeer,
    call: Call,
    sent: Option<Instant>,
) -> Answered {
    let ReplicaHandle { raft, durability, .. } = member;
    let from = raft_peer.id;
    raft_peer.check_sender(durability.group())?;
    let elects = matches!(call, Call::Vote(_) | Call::PreVote(_) | Call::Transfer(_));
    if elects && !durability.are_known() {
        return Err(NotNow::Filling.into());
    }
    let known = durability.known();
    let refuse = |why: Untrue| raft_peer.refuse(member, why);
    let implausible = |why: Implausible| raft_peer.refuse(member, why);
    let unkept = |why: PromiseError| raft_peer.refuse(member, why);
    let stopped = |error: RaftError<Types>| Refused::from(NotNow::from(error));
    match call {
        Call::Heartbeat { append, confirmed, acknowledged, is_quiescent } => {
            let request = decode_append(&append).map_err(|error| refuse(error.into()))?;
            own(&request.vote, from).map_err(refuse)?;
            if !request.entries.is_empty() {
                return Err(refuse(Untrue::EntriesInHeartbeat));
            }
            known.append(durability.group(), &request).map_err(implausible)?;
            contradicts(member, &request).await.map_err(refuse)?;
            durability.check(from, acknowledged).map_err(unkept)?;
            let vote = request.vote;
            let liveness = hear(member.clone(), request, sent.zip(confirmed), is_quiescent);
            let mut liveness = Box::pin(liveness);
            if let Ok(heard) = tokio::time::timeout(SYNC_PATIENCE, &mut liveness).await {
                return Ok(heard?);
            }
            // openraft's answer waits for the disk.
            if !durability.follows(&vote) {
                return Ok(liveness.await?);
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
            known.vote_request(&request).map_err(implausible)?;
            member.time_scale.told(false);
            if !request.leadership_transfer && member.keeps_to_leader()
                || member.has_to_begin_first()
            {
                return Ok(CallAnswer::Vote(member.refuse_vote()));
            }
            raft.vote(request).await.map(CallAnswer::Vote).map_err(stopped)
        }
        Call::PreVote(request) => {
            own(&request.vote, from).map_err(refuse)?;
            known.vote_request(&request).map_err(implausible)?;
            // Wake the group: a leader elected by this must not be missed for longer than at any
            // other time.
            member.time_scale.told(false);
            if member.keeps_to_leader() || member.has_to_begin_first() {
                return Ok(CallAnswer::Vote(member.refuse_vote()));
            }
            raft.pre_vote(request).await.map(CallAnswer::Vote).map_err(stopped)
        }
        Call::Transfer(request) => {
            own(request.from_leader(), from).map_err(refuse)?;
            known.transfer(&request).map_err(implausible)?;
            member.time_scale.told(false);
            member.turnovers.expect(ChangeReason::HandedOver, Instant::now());
            let answer = raft.handle_transfer_leader(request).await;
            answer.map(CallAnswer::Transfer).map_err(|error| stopped(error.into()))
        }
        Call::Follow { vote, acknowledged } => {
            own(&vote, from).map_err(refuse)?;
            durability.check(from, acknowledged).map_err(unkept)?;
            Ok(CallAnswer::Follow(durability.follows(&vote)))
        }
    }
}

/// Returns an error if a request to append contradicts what is committed on this replica. No valid
/// request can: either the sender is not a leader of this group, or this replica is no longer
/// intact.
async fn contradicts(
    member: &ReplicaHandle,
    request: &AppendEntriesRequest<Types>,
) -> Result<(), Untrue> {
    let committed = member.committed();
    let Some(committed) = committed else { return Ok(()) };
    let other = |at: &LogId| Untrue::Contradiction(*at);
    let stated = request.prev_log_id.iter();
    let stated = stated.chain(request.entries.iter().map(|entry| &entry.log_id));
    let stated: Vec<LogId> = stated.filter(|at| at.index <= committed.index).copied().collect();
    if let Some(at) = stated.iter().find(|at| at.leader_id > committed.leader_id) {
        return Err(other(at));
    }
    // Nearly always the request names no such entry, or only the last committed one.
    let stated: Vec<LogId> = stated.into_iter().filter(|at| *at != committed).collect();
    let (Some(first), Some(last)) = (stated.first(), stated.last()) else { return Ok(()) };
    let own = positions(member.durability.log(), first.index, last.index).await?;
    match stated.iter().find(|at| own.iter().any(|own| own.index == at.index && own != *at)) {
        Some(at) => Err(other(at)),
        None => Ok(()),
    }
}

/// Passes a heartbeat to openraft.
async fn hear(
    member: ReplicaHandle,
    request: AppendEntriesRequest<Types>,
    confirmed: Option<(Instant, Confirmed)>,
    is_quiescent: bool,
) -> Result<CallAnswer, NotNow> {
    let ReplicaHandle { raft, state_machine, time_scale, .. } = member;
    let answer = raft.append_entries(request).await?;
    if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
        state_machine.follow_leader();
        time_scale.told(is_quiescent);
    }
    if let (true, Some((sent, Confirmed { age_us, applied }))) = (answer.is_success(), confirmed) {
        state_machine.heard_leader(sent, Duration::from_micros(age_us), applied);
    }
    Ok(CallAnswer::Heartbeat(answer))
}

/// Answers batches of heartbeats until the peer ends the stream. `group` finds a group on this
/// node; `marks` takes the position up to which the peer's log is on disk and returns this node's.
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
                            return told(Err(NotNow::NotHere(id).into()));
                        };
                        let answered = answer(&member, raft_peer, call, sent);
                        let answered = tokio::time::timeout(ANSWER_TIMEOUT, answered).await;
                        told(answered.unwrap_or_else(|_| Err(NotNow::Timeout.into())))
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

/// Takes pipelined entries from a leader and acknowledges them in order.
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
    // Terms of the requests in flight, in their order.
    let terms = Arc::new(Mutex::new(VecDeque::new()));
    let state = (reader, member, raft_peer, None, Arc::clone(&terms));
    // The request stream, and with it the QUIC stream, ends at the first frame that is not a
    // request of the sender's own.
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
        // Acknowledgements that are ready together are sent together.
        if writer.flush().await.is_err() {
            return;
        }
    }
    let _ = writer.into_inner().shutdown().await;
}

/// Returns a request to append if it may be passed to openraft, and the time at which its sender's
/// membership was last checked.
async fn take_request(
    member: &ReplicaHandle,
    raft_peer: &RaftPeer,
    frame: &Bytes,
    checked: Option<Instant>,
    now: Instant,
) -> Option<(AppendEntriesRequest<Types>, Option<Instant>)> {
    let is_due = |at: Instant| now.saturating_duration_since(at) >= VOTER_CHECK_EVERY;
    let checked = if checked.is_none_or(is_due) {
        raft_peer.check_sender(member.durability.group()).ok()?;
        Some(now)
    } else {
        checked
    };
    match valid_request(member, raft_peer.id, frame).await {
        Ok(request) => Some((request, checked)),
        Err(why) => {
            // Reported to the operator; the sender finds its stream ended.
            let _ = raft_peer.refuse(member, why);
            None
        }
    }
}

/// Decodes a request to append and checks everything but its sender's membership.
async fn valid_request(
    member: &ReplicaHandle,
    from: NodeId,
    frame: &Bytes,
) -> Result<AppendEntriesRequest<Types>, Untrue> {
    let request = decode_append(frame)?;
    own(&request.vote, from)?;
    member.durability.known().append(member.durability.group(), &request)?;
    contradicts(member, &request).await?;
    Ok(request)
}

/// Takes a snapshot from a leader and answers once it is installed.
///
/// # Errors
/// Returns the reason if this node must stop.
pub(crate) async fn serve_snapshot(
    member: ReplicaHandle,
    raft_peer: RaftPeer,
    mut reader: Reader,
    mut writer: Writer,
) -> Result<(), Unfit> {
    let from = raft_peer.id;
    let taken = take_snapshot(&member, &raft_peer, &mut reader).await;
    let answer: SnapshotAnswer = match &taken {
        Ok(vote) => Ok(*vote),
        Err(error) => {
            warn!(?from, %error, "snapshot not taken");
            Err(error.to_string())
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
    raft_peer.check_sender(durability.group()).map_err(TransferError::from)?;
    let head: SnapshotHead = next_frame(reader).await?;
    let check = |head: &SnapshotHead| {
        own(&head.vote, raft_peer.id)?;
        durability.known().snapshot(&head.vote, &head.meta)?;
        fits(member, &head.meta)
    };
    let refuse = |why: Untrue| TransferError::from(raft_peer.refuse(member, why));
    check(&head).map_err(refuse)?;
    let mut incoming = state_machine.receive(head.store.clone()).await?;
    while let SnapshotFrame::Rows(rows) = next_frame(reader).await? {
        incoming.rows(rows).await?;
    }
    let arrived = incoming.complete(&head.meta).await?;
    // Check again: the transfer took time.
    raft_peer.check_sender(durability.group()).map_err(TransferError::from)?;
    check(&head).map_err(refuse)?;
    let snapshot = Snapshot { meta: head.meta, snapshot: SnapshotData::Arrived(arrived) };
    let answer = raft.install_full_snapshot(head.vote, snapshot).await;
    Ok(answer.map_err(TransferError::from)?.vote)
}

/// Reads the next frame of a snapshot.
async fn next_frame<T: DeserializeOwned, R: AsyncRead + Unpin>(
    reader: &mut FrameReader<R>,
) -> Result<T, TransferError> {
    let frame = reader.next().await?.ok_or(TransferError::Cut)?;
    Ok(decode(&frame)?)
}

/// Returns an error unless a snapshot continues what is committed here. openraft treats a snapshot
/// that does not as fatal.
fn fits(member: &ReplicaHandle, meta: &SnapshotMeta) -> Result<(), Untrue> {
    match (meta.last_log_id, member.committed()) {
        (Some(last), Some(committed))
            if last > committed && last.index <= committed.index
                || last < committed && last.index > committed.index =>
        {
            Err(Untrue::LeavesOut { last, committed })
        }
        _ => Ok(()),
    }
}

/// Returns the ids of the entries of the log in this range, as far as they exist.
async fn positions(log: &GroupLog, first: u64, last: u64) -> io::Result<Vec<LogId>> {
    let reading = log.reading(first, last.saturating_add(1), u64::MAX);
    let entries = if reading.is_in_memory() {
        reading.entries()
    } else {
        run_blocking(move || reading.entries()).await?
    };
    let entries = entries?;
    let ids = entries.iter().map(|(_, entry)| decode_entry(entry).map(|entry| entry.log_id));
    ids.collect::<Result<_, _>>().map_err(invalid)
}

/// Returns an error unless a vote is the sender's own.
fn own(vote: &Vote, from: NodeId) -> Result<(), Untrue> {
    let voted_for = vote.leader_id.voted_for;
    if voted_for == from { Ok(()) } else { Err(Untrue::ForeignVote { voted_for, from }) }
}

fn log_broken(from: NodeId, error: &FrameError) {
    match error {
        FrameError::TooLong { .. } => warn!(?from, %error, "entries refused"),
        _ => debug!(?from, %error, "stream of entries broke"),
    }
}

#[cfg(test)]
mod tests;
