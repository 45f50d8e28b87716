//! The write path of a shard's primary: commands into batches, batches into the log.
//!
//! Batches form by themselves, never by a timer: a command that finds fewer than [`IN_FLIGHT_MAX`]
//! batches under way becomes a batch at once, alone or with whatever waits beside it; commands that
//! come while that many are under way wait and leave together. So an idle primary answers in one
//! round trip and a busy one spends its fsyncs and its messages on hundreds of commands each. Where
//! members are far from each other, a batch is a long time under way while neither disk nor
//! processor is busy: there more begin before the others have ended (see
//! [`window`](crate::replica::in_flight)).
//!
//! The log of the node is shortened in the background, by checkpoints and purges (`compaction`).
//! When writes are faster, no batch begins until there is room: they wait, each no longer than its
//! deadline. What is under way goes on, and nothing that shortens the log needs a batch that is
//! held back.
//!
//! More than can be taken in time is refused at the door: see `backlog`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::{GroupId, HolderId, NodeId, Revision, Stamp, Term};
use dkv_wire::message::{Answer, Level, Receipt, Refusal};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::net::quota::HOLDER_PARTS;
use crate::net::reply::ReplyTo;
use crate::raft::ProposeError;
use crate::replica::Proposer;
use crate::replica::backlog::{Backlog, IN_FLIGHT_MAX, Place};
use crate::replica::in_flight::{InFlightWindow, NextStart, UNDER_WAY_MAX, until};
use dkv_state::{BatchBuilder, CommandResult};
use dkv_wal::GroupLog;

/// Distance of the farthest member, there and back, from which more are under way: farther than it
/// seems when a near member's machine is busy, as more and smaller batches would make it busier.
const FAR: Duration = Duration::from_millis(100);
/// Commands that wait for a batch; more are refused as overload.
/// One holder fills half of it at the most.
pub(crate) const QUEUE_MAX: usize = 2 * HOLDER_PARTS;
/// How often writes that wait behind stuck batches are looked through.
const EXPIRE_EVERY: Duration = Duration::from_millis(100);
/// How often it is looked whether a log that was full has been shortened.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Commands that are taken from the queue together.
const TAKE_MAX: usize = 1024;

/// A validated command that waits for its batch.
pub(crate) struct PendingWrite {
    pub(crate) command: Bytes,
    /// Who sent it.
    pub(crate) holder: HolderId,
    pub(crate) expires: Instant,
    pub(crate) reply: ReplyTo,
    /// Its place among those that wait; the group gives it.
    pub(crate) place: Place,
}

/// A wish that no batch begins for a while, so that leadership can change hands with nothing under
/// way: whatever waits is then sent on to the successor, with its outcome in no doubt.
pub(crate) struct Hold {
    /// Told when the last batch is done.
    pub(crate) drained: oneshot::Sender<()>,
    /// Batches begin again once its other end is dropped.
    pub(crate) released: oneshot::Receiver<()>,
}

/// What keeps batches from beginning. Commands wait meanwhile, each until its deadline.
pub(crate) struct Brakes {
    /// Leadership is to change hands.
    pub(crate) holds: mpsc::Receiver<Hold>,
    /// The log of the node, which all its groups share.
    pub(crate) log: GroupLog,
    /// Bytes that it may have.
    pub(crate) log_bytes_max: u64,
}

impl Brakes {
    /// Whether the log is so long that it has to be shortened first. The segment in use and the
    /// next one do not count: nothing can make them go, and there is room left for them.
    fn log_is_full(&self) -> bool {
        self.log.bytes_held() >= self.log_bytes_max / 8 * 7
    }
}

/// When the next batch may begin: among near members not before one ends.
fn next_turn(window: &InFlightWindow, farthest: Duration) -> NextStart {
    let most = if farthest >= FAR { UNDER_WAY_MAX } else { IN_FLIGHT_MAX };
    window.next(most, Instant::now())
}

/// Runs until the queue closes.
pub(crate) async fn run(
    group: GroupId,
    me: NodeId,
    proposer: Arc<Proposer>,
    mut queue: mpsc::Receiver<PendingWrite>,
    mut brakes: Brakes,
    backlog: Backlog,
) {
    let mut waiting: VecDeque<PendingWrite> = VecDeque::new();
    let mut taken = Vec::new();
    let mut in_flight = FuturesUnordered::new();
    let mut window = InFlightWindow::new(IN_FLIGHT_MAX);
    let mut open = true;
    let mut held: Option<Held> = None;
    while open || !waiting.is_empty() || !in_flight.is_empty() {
        if let Some(held) = held.as_mut().filter(|_| in_flight.is_empty()) {
            held.tell_drained();
        }
        let mut log_full = false;
        let mut turn = NextStart::Later;
        while held.is_none() && !waiting.is_empty() {
            turn = next_turn(&window, proposer.time_scale().round_trip());
            if turn != NextStart::Now {
                break;
            }
            log_full = brakes.log_is_full();
            if log_full {
                break;
            }
            let state_machine = proposer.state_machine();
            let (time_ms, stamp) = (state_machine.clock_ms(), state_machine.stamp());
            let Some((batch, replies)) = next_batch(&mut waiting, time_ms, stamp) else { break };
            let proposer = Arc::clone(&proposer);
            let begun = Instant::now();
            backlog.begin(begun);
            window.begins(begun);
            in_flight.push(async move { (proposer.propose_batch(batch).await, replies, begun) });
        }
        let room = waiting.len() < TAKE_MAX;
        tokio::select! {
            // First whatever has come: the next batch takes all of it. It is bounded by the room.
            biased;
            count = queue.recv_many(&mut taken, TAKE_MAX), if open && room => {
                open = count > 0;
                waiting.extend(taken.drain(..));
            }
            Some((outcome, replies, begun)) = in_flight.next(), if !in_flight.is_empty() => {
                let ended = Instant::now();
                backlog.end(begun, ended);
                window.ends(ended - begun);
                answer(group, me, proposer.state_machine().last_stamp(), outcome, replies);
            }
            Some(hold) = brakes.holds.recv(), if held.is_none() => held = Some(Held::from(hold)),
            () = released(&mut held), if held.is_some() => held = None,
            () = until(turn.at()), if turn.at().is_some() => {}
            () = tokio::time::sleep(if log_full { LOOK_AGAIN } else { EXPIRE_EVERY }),
                if !waiting.is_empty() =>
            {
                refuse_expired(&mut waiting, log_full);
            }
        }
    }
}

struct Held {
    drained: Option<oneshot::Sender<()>>,
    released: oneshot::Receiver<()>,
}

impl From<Hold> for Held {
    fn from(Hold { drained, released }: Hold) -> Self {
        Self { drained: Some(drained), released }
    }
}

impl Held {
    fn tell_drained(&mut self) {
        if let Some(drained) = self.drained.take() {
            // Whoever asked may have lost patience; then it releases too.
            let _ = drained.send(());
        }
    }
}

async fn released(held: &mut Option<Held>) {
    if let Some(held) = held {
        let _ = (&mut held.released).await;
    }
}

/// Tells those that waited too long for a batch that nothing was done.
fn refuse_expired(waiting: &mut VecDeque<PendingWrite>, log_full: bool) {
    let now = Instant::now();
    for write in std::mem::take(waiting) {
        if write.expires <= now {
            write.reply.refuse(if log_full { not_shortened() } else { expired() });
        } else {
            waiting.push_back(write);
        }
    }
}

fn not_shortened() -> Refusal {
    Refusal::Unavailable("the log of the primary is full and was not shortened in time".into())
}

fn expired() -> Refusal {
    Refusal::Unavailable("no quorum took it before its deadline".into())
}

/// Takes what fits into one batch off the front of the queue, and refuses what has waited too long.
/// `time_ms` is what the shard's clock shows, `stamp` what the network's does.
fn next_batch(
    waiting: &mut VecDeque<PendingWrite>,
    time_ms: u64,
    stamp: Stamp,
) -> Option<(Bytes, Vec<ReplyTo>)> {
    let now = Instant::now();
    let mut batch = BatchBuilder::new(time_ms, stamp);
    let mut replies = Vec::new();
    while let Some(write) = waiting.front() {
        if !batch.takes(write.command.len()) {
            break;
        }
        let Some(write) = waiting.pop_front() else { break };
        if write.expires <= now {
            write.reply.refuse(expired());
            continue;
        }
        batch.push(&write.command);
        replies.push(write.reply);
    }
    if replies.is_empty() { None } else { Some((batch.finish(), replies)) }
}

fn answer(
    group: GroupId,
    me: NodeId,
    stamp: Stamp,
    outcome: Result<(Term, Vec<CommandResult>), ProposeError>,
    replies: Vec<ReplyTo>,
) {
    match outcome {
        Ok((term, results)) => {
            debug_assert_eq!(results.len(), replies.len());
            let receipt = |revision| Receipt {
                shard: group,
                revision,
                level: Level::Strong,
                node: me,
                term,
                staleness_ms: Some(0),
                stamp,
                pending: None,
            };
            for (reply, result) in replies.into_iter().zip(results) {
                reply.send(to_answer(result, receipt));
            }
        }
        Err(error) => {
            for reply in replies {
                reply.refuse(error.clone().into());
            }
        }
    }
}

fn to_answer(
    result: CommandResult,
    receipt: impl Fn(Revision) -> Receipt,
) -> Result<Answer, Refusal> {
    match result {
        CommandResult::Written { revision, existed } => {
            Ok(Answer::Written { receipt: receipt(revision), existed })
        }
        CommandResult::Conflict { current } => {
            Err(Refusal::Conflict { receipt: receipt(current.unwrap_or_default()), current })
        }
        CommandResult::SessionOpened => Ok(Answer::Done),
        CommandResult::SessionExpired => Err(Refusal::SessionExpired),
        CommandResult::Overloaded { retry_after_ms } => Err(Refusal::Overloaded { retry_after_ms }),
        CommandResult::TooEarly => Err(too_early()),
        CommandResult::Invalid => Err(Refusal::Invalid("the command is malformed".into())),
    }
}

/// What a shard says to a number whose predecessors it does not have.
pub(crate) fn too_early() -> Refusal {
    Refusal::Unavailable("the writes before it in its outbox have not come yet".into())
}

#[cfg(test)]
mod tests;
