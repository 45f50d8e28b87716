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
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteResponse};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::codec::{
    AppendAnswer, Call, CallAnswer, CallResult, Confirmed, SnapshotAnswer, SnapshotFrame,
    SnapshotHead, decode_append,
};
use super::drive::forsake;
use super::forgotten::Forgotten;
use super::pulse::{Pulse, PulseAnswer};
use super::snapshot::NotTaken;
use super::{
    MachineHandle, MetricsWatch, Pace, Promises, Raft, Snapshot, SnapshotData, Types, Vote,
};
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
    forgotten: Forgotten,
}

impl Member {
    pub(crate) fn new(raft: Raft, machine: MachineHandle, promises: Promises, pace: Pace) -> Self {
        let (late, forgotten) = (Arc::new(Semaphore::new(LATE_MAX)), Forgotten::default());
        Self { raft, machine, promises, pace, late, forgotten }
    }

    /// Takes back the promise to `leader` not to vote for anybody else as long as it is heard. It is given
    /// again as soon as that leader is heard again.
    pub(crate) async fn forsake(&self, leader: NodeId) {
        // First, as what is heard meanwhile may be of later.
        self.forgotten.forget(Instant::now());
        forsake(&self.raft, leader).await;
    }

    /// Whether a vote would break the promise to a leader that was forsaken and has been heard since.
    ///
    /// openraft takes such a promise back for the whole term, so it is kept here. It lasts as long as
    /// openraft's.
    fn keeps_to_leader(&self) -> bool {
        let lease = Duration::from_millis(self.raft.config().election_timeout_max);
        let heard = self.machine.followed_at();
        self.forgotten.keeps(heard, self.pace.stretch(lease), Instant::now())
    }

    /// The answer to one who asks for a vote and does not get it.
    fn refuse_vote(&self) -> VoteResponse<Types> {
        let metrics = MetricsWatch::of(&self.raft);
        let vote = metrics.borrow().vote;
        VoteResponse::new(vote, None, false)
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
    answer(member, from, call, None).await
}

/// Answers a call that was sent at `sent` at the earliest, if that is known.
async fn answer(member: &Member, from: NodeId, call: Call, sent: Option<Instant>) -> CallResult {
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
        Call::Heartbeat { append, confirmed, acknowledged, rests } => {
            let request = decode_append(&append).map_err(|error| error.to_string())?;
            own(&request.vote, from)?;
            promises.check(from, acknowledged)?;
            let vote = request.vote;
            let hearing = hear(member.clone(), request, sent.zip(confirmed), rests);
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
            if !request.leadership_transfer && member.keeps_to_leader() {
                return Ok(CallAnswer::Vote(member.refuse_vote()));
            }
            raft.vote(request).await.map(CallAnswer::Vote).map_err(|error| error.to_string())
        }
        Call::PreVote(request) => {
            own(&request.vote, from)?;
            if member.keeps_to_leader() {
                return Ok(CallAnswer::Vote(member.refuse_vote()));
            }
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
    confirmed: Option<(Instant, Confirmed)>,
    rests: bool,
) -> CallResult {
    let Member { raft, machine, pace, .. } = member;
    let answer = raft.append_entries(request).await.map_err(|error| error.to_string())?;
    if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
        machine.follow_leader();
        pace.told(rests);
    }
    if let (true, Some((sent, Confirmed { age_us, applied }))) = (answer.is_success(), confirmed) {
        machine.heard_leader(sent, Duration::from_micros(age_us), applied);
    }
    Ok(CallAnswer::Heartbeat(answer))
}

/// Answers pulses until the peer ends the stream; `group` finds a group of this node.
pub(crate) async fn serve_pulse(
    group: impl Fn(GroupId) -> Option<Member>,
    from: NodeId,
    hearing: Hearing,
    mut reader: Reader,
    mut writer: Writer,
) {
    let mut answering = FuturesUnordered::new();
    let began = Instant::now();
    loop {
        tokio::select! {
            biased;
            frame = reader.next(), if answering.len() < PULSES_MAX => {
                let Ok(Some(frame)) = frame else { return };
                let now = Instant::now();
                hearing.heard(now);
                let Ok(Pulse { number, echo, calls }) = decode::<Pulse>(&frame) else { return };
                let sent = echo.map(|echo| echo.sent_at(began, now));
                let answers = calls.into_iter().map(|(id, call)| {
                    let group = group(id);
                    async move {
                        let Some(member) = group else {
                            return Err(format!("group {id} is not here"));
                        };
                        let answered = answer(&member, from, call, sent);
                        let answered = tokio::time::timeout(ANSWER_TIMEOUT, answered).await;
                        answered.unwrap_or_else(|_| Err("no answer in time".to_owned()))
                    }
                });
                let answers = join_all(answers);
                answering.push(async move { (number, answers.await) });
            }
            Some((number, answers)) = answering.next() => {
                let at_us = began.elapsed().as_micros() as u64;
                let answer = PulseAnswer { number, at_us, answers };
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
