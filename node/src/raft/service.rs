//! Raft's messages from the other members.
//!
//! Whoever speaks Raft has shown a node's certificate, and says in its stream's opening who it is;
//! both were compared by the time a stream gets here. What remains is checked here: that the vote
//! in every message is the sender's own. Nobody can lead, or stand, in another's name.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dkv_wire::codec::decode;
use dkv_wire::frame::{FrameError, FrameReader, FrameWriter};
use dkv_wire::id::{GroupId, NodeId};
use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt, unfold};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::codec::{
    AppendAnswer, Call, CallAnswer, CallResult, SnapshotAnswer, SnapshotFrame, SnapshotHead,
    decode_append,
};
use super::pulse::{Pulse, PulseAnswer};
use super::snapshot::NotTaken;
use super::{MachineHandle, Pace, Promises, Raft, Snapshot, SnapshotData, Types, Vote};
use crate::hearing::Hearing;

type Reader = FrameReader<quinn::RecvStream>;
type Writer = FrameWriter<quinn::SendStream>;

/// Time that a call may wait for the group, whose disk may have stalled.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Time that a heartbeat may wait for what was given to the disk before it.
const SYNC_PATIENCE: Duration = Duration::from_millis(5);
/// Heartbeats of a group that were answered before the disk was ready for openraft's own answer.
const LATE_MAX: usize = 16;

/// Pulses that wait for their answers at once; more are left in the stream.
const PULSES_MAX: usize = 16;

/// A replica of this node, as the other members see it.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) raft: Raft,
    pub(crate) machine: MachineHandle,
    pub(crate) promises: Promises,
    pub(crate) pace: Pace,
    late: Arc<Semaphore>,
}

impl Member {
    pub(crate) fn new(raft: Raft, machine: MachineHandle, promises: Promises, pace: Pace) -> Self {
        Self { raft, machine, promises, pace, late: Arc::new(Semaphore::new(LATE_MAX)) }
    }
}

/// Answers calls until the peer ends the stream.
pub(crate) async fn serve_calls(
    member: Member,
    from: NodeId,
    hearing: Hearing,
    mut reader: Reader,
    mut writer: Writer,
) {
    while let Ok(Some(frame)) = reader.next().await {
        hearing.heard(Instant::now());
        let answered = answer_call(&member, from, &frame);
        let answer = match tokio::time::timeout(ANSWER_TIMEOUT, answered).await {
            Ok(answer) => answer,
            Err(_) => Err("no answer in time".to_owned()),
        };
        if writer.send(&answer).await.is_err() {
            return;
        }
    }
}

async fn answer_call(member: &Member, from: NodeId, frame: &Bytes) -> CallResult {
    let call = decode::<Call>(frame).map_err(|error| error.to_string())?;
    answer(member, from, call).await
}

async fn answer(member: &Member, from: NodeId, call: Call) -> CallResult {
    let Member { raft, promises, .. } = member;
    let elects = matches!(call, Call::Vote(_) | Call::PreVote(_) | Call::Transfer(_));
    if elects && !promises.are_known() {
        return Err("this replica is new and is being filled".into());
    }
    if elects {
        // Whoever is elected by this must not be missed for longer than at any other time.
        member.pace.told(false);
    }
    match call {
        Call::Heartbeat { append, quorum_age_ms, acknowledged, rests } => {
            let request = decode_append(&append).map_err(|error| error.to_string())?;
            own(&request.vote, from)?;
            promises.check(from, acknowledged)?;
            let vote = request.vote;
            let hearing = hear(member.clone(), request, quorum_age_ms, rests);
            let mut hearing = Box::pin(hearing);
            if let Ok(heard) = tokio::time::timeout(SYNC_PATIENCE, &mut hearing).await {
                return heard;
            }
            // It waits for the disk.
            if !promises.follows(&vote) {
                return hearing.await;
            }
            if let Ok(permit) = Arc::clone(&member.late).try_acquire_owned() {
                tokio::spawn(async move {
                    let _ = hearing.await;
                    drop(permit);
                });
            }
            Ok(CallAnswer::Heartbeat(AppendEntriesResponse::Success))
        }
        Call::Vote(request) => {
            own(&request.vote, from)?;
            raft.vote(request).await.map(CallAnswer::Vote).map_err(|error| error.to_string())
        }
        Call::PreVote(request) => {
            own(&request.vote, from)?;
            raft.pre_vote(request).await.map(CallAnswer::Vote).map_err(|error| error.to_string())
        }
        Call::Transfer(request) => {
            own(request.from_leader(), from)?;
            let answer = raft.handle_transfer_leader(request).await;
            answer.map(CallAnswer::Transfer).map_err(|error| error.to_string())
        }
        Call::Follow { vote, acknowledged } => {
            own(&vote, from)?;
            promises.check(from, acknowledged)?;
            Ok(CallAnswer::Follow(promises.follows(&vote)))
        }
    }
}

/// Hands a heartbeat to openraft.
async fn hear(
    member: Member,
    request: AppendEntriesRequest<Types>,
    quorum_age_ms: Option<u64>,
    rests: bool,
) -> CallResult {
    let Member { raft, machine, pace, .. } = member;
    let committed = committed_by_leader(&request);
    let answer = raft.append_entries(request).await.map_err(|error| error.to_string())?;
    if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
        machine.follow_leader();
        pace.told(rests);
    }
    if let (true, Some(committed), Some(age_ms)) = (answer.is_success(), committed, quorum_age_ms) {
        machine.heard_leader(Duration::from_millis(age_ms), committed);
    }
    Ok(CallAnswer::Heartbeat(answer))
}

/// What a leader has committed, if that is all there is: one that has committed nothing of its own
/// term yet may not know of what the one before it committed last.
fn committed_by_leader(request: &AppendEntriesRequest<Types>) -> Option<u64> {
    let committed = request.leader_commit?;
    (*committed.leader_id == request.vote.leader_id.term).then_some(committed.index)
}

/// Answers pulses until the peer ends the stream; `group` finds a group of this node, and `marks` is told
/// how far the peer's log is on disk and says how far this node's is.
pub(crate) async fn serve_pulse(
    group: impl Fn(GroupId) -> Option<Member>,
    from: NodeId,
    hearing: Hearing,
    marks: impl Fn(u64) -> u64,
    mut reader: Reader,
    mut writer: Writer,
) {
    let mut answering = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            frame = reader.next(), if answering.len() < PULSES_MAX => {
                let Ok(Some(frame)) = frame else { return };
                hearing.heard(Instant::now());
                let Ok(Pulse { number, calls, mark }) = decode::<Pulse>(&frame) else { return };
                let mark = marks(mark);
                let answers = calls.into_iter().map(|(id, call)| {
                    let group = group(id);
                    async move {
                        let Some(member) = group else {
                            return Err(format!("group {id} is not here"));
                        };
                        let answered = answer(&member, from, call);
                        let answered = tokio::time::timeout(ANSWER_TIMEOUT, answered).await;
                        answered.unwrap_or_else(|_| Err("no answer in time".to_owned()))
                    }
                });
                let answers = join_all(answers);
                answering.push(async move { PulseAnswer { number, answers: answers.await, mark } });
            }
            Some(answer) = answering.next() => {
                if writer.send(&answer).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Takes entries from a leader, pipelined, and acknowledges them in order.
pub(crate) async fn serve_append<R, W>(
    member: Member,
    from: NodeId,
    hearing: Hearing,
    reader: FrameReader<R>,
    mut writer: FrameWriter<W>,
) where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin,
{
    let Member { raft, pace, .. } = member;
    // Ends at the first frame that is not a request of the sender's own: so does the stream.
    let requests = unfold((reader, hearing, pace), move |(mut reader, hearing, pace)| async move {
        let frame = match reader.next().await {
            Ok(frame) => frame?,
            Err(error) => {
                log_broken(from, &error);
                return None;
            }
        };
        hearing.heard(Instant::now());
        let request = match decode_append(&frame) {
            Ok(request) => request,
            Err(error) => {
                warn!(?from, %error, "malformed entries");
                return None;
            }
        };
        if let Err(error) = own(&request.vote, from) {
            warn!(?from, %error, "entries refused");
            return None;
        }
        pace.told(false);
        Some((request, (reader, hearing, pace)))
    });
    let mut answers = std::pin::pin!(raft.stream_append(requests));
    while let Some(answer) = answers.next().await {
        let answer: AppendAnswer = match answer {
            Ok(answer) => answer,
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

/// Takes a snapshot from a leader and answers when it is installed.
///
/// # Errors
/// If this node must stop, with the reason.
pub(crate) async fn serve_snapshot(
    raft: Raft,
    machine: MachineHandle,
    from: NodeId,
    mut reader: Reader,
    mut writer: Writer,
) -> Result<(), String> {
    let taken = take_snapshot(&raft, &machine, from, &mut reader).await;
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
    raft: &Raft,
    machine: &MachineHandle,
    from: NodeId,
    reader: &mut FrameReader<R>,
) -> Result<Vote, NotTaken> {
    let cut = || "the stream ended inside the snapshot".to_owned();
    let head = reader.next().await.map_err(|error| error.to_string())?.ok_or_else(cut)?;
    let head: SnapshotHead = decode(&head).map_err(|error| error.to_string())?;
    own(&head.vote, from)?;
    let mut incoming = machine.receive(head.store).await?;
    loop {
        let frame = reader.next().await.map_err(|error| error.to_string())?.ok_or_else(cut)?;
        match decode(&frame).map_err(|error| error.to_string())? {
            SnapshotFrame::Rows(rows) => incoming.rows(rows).await?,
            SnapshotFrame::End => break,
        }
    }
    let arrived = incoming.complete(&head.meta).await?;
    let snapshot = Snapshot { meta: head.meta, snapshot: SnapshotData::Arrived(arrived) };
    let answer = raft.install_full_snapshot(head.vote, snapshot).await;
    Ok(answer.map_err(|error| error.to_string())?.vote)
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

#[cfg(test)]
mod tests;
