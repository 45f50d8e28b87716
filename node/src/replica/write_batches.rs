//! The write path of a shard's primary: commands into batches, batches into the log.
//!
//! Batches form without a timer: a command that finds fewer than [`IN_FLIGHT_MAX`] batches in
//! flight becomes a batch at once, alone or with the commands that wait beside it; commands that
//! arrive while that many are in flight wait and leave together. So an idle primary answers in one
//! round trip, and a busy one spends each fsync and each message on hundreds of commands. Where
//! members are far apart, a batch is in flight for a long time while neither disk nor processor is
//! busy: there more batches begin before the others have ended (see
//! [`window`](crate::replica::in_flight)).
//!
//! Checkpoints and purges shorten the node's log in the background (`log_retention`). When writes
//! outpace them, no batch begins until there is room: commands wait, none longer than its deadline.
//! Batches in flight go on, and nothing that shortens the log depends on a batch that waits.
//!
//! Writes that cannot be taken in time are refused on arrival: see `backlog`.
//!
//! A command that has met a lock of a transaction over several shards had no effect. It waits aside
//! and is proposed again once the lock is released.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::{GroupId, NodeId, Revision, Stamp, Term};
use dkv_wire::limits;
use dkv_wire::message::{Answer, Commitment, Level, PrepareAnswer, Prospect, Receipt, Refusal};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::common::timeline::Stage;
use crate::net::quota::HOLDER_PARTS;
use crate::raft::{BatchTimes, ProposeError};
use crate::replica::backlog::{Backlog, IN_FLIGHT_MAX, Place};
use crate::replica::blocked_writes::Blocked;
use crate::replica::in_flight::{InFlightWindow, NextStart, UNDER_WAY_MAX, until};
pub(crate) use crate::replica::pending_write::PendingWrite;
use crate::replica::{Proposer, UNSTAMPED};
use dkv_state::{AtLock, BatchBuilder, CommandResult, Foreseen};
use dkv_wal::GroupLog;

/// Round trip to the farthest member from which on more batches are in flight. It is longer than
/// the round trip that a nearby member seems to have when its machine is busy, as more and smaller
/// batches would make that machine busier.
const FAR: Duration = Duration::from_millis(100);
/// Most commands that wait for a batch; more are refused as overload. One holder fills at most half
/// of the queue.
pub(crate) const QUEUE_MAX: usize = 2 * HOLDER_PARTS;
/// Interval at which writes that wait behind stuck batches are checked for expiry.
const EXPIRE_EVERY: Duration = Duration::from_millis(100);
/// Interval at which a full log is checked for having been shortened.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Most commands taken from the queue at once.
const TAKE_MAX: usize = 1024;

/// A request to begin no batch for a while, so that leadership can change hands with none in
/// flight: the waiting commands then go to the successor, with no doubt about their outcome.
pub(crate) struct Hold {
    /// Signalled when the last batch is done.
    pub(crate) drained: oneshot::Sender<()>,
    /// Batches begin again once its other end is dropped.
    pub(crate) released: oneshot::Receiver<()>,
}

/// Conditions that keep batches from beginning. Commands wait meanwhile, each until its deadline.
pub(crate) struct Brakes {
    /// Requests to hold batches while leadership changes hands.
    pub(crate) holds: mpsc::Receiver<Hold>,
    /// The node's log, which all its groups share.
    pub(crate) log: GroupLog,
    /// Limit on the size of that log, in bytes.
    pub(crate) log_bytes_max: u64,
    /// Limit on the length of a value, in bytes.
    pub(crate) value_bytes_max: u64,
}

impl Brakes {
    /// Returns whether the log is so long that it must be shortened first. The segment in use and
    /// the next one do not count: nothing can remove them, and there is room left for them.
    fn log_is_full(&self) -> bool {
        self.log.bytes_held() >= self.log_bytes_max / 8 * 7
    }

    /// Returns whether so much waits for a checkpoint that it must be written first. The log does
    /// not tell: a short command can make a long value out of others.
    fn memory_is_full(&self, changed_bytes: usize) -> bool {
        changed_bytes as u64 >= self.log_bytes_max
    }
}

/// Returns when the next batch may begin: among nearby members, not before one ends once
/// [`IN_FLIGHT_MAX`] are in flight.
fn next_turn(window: &InFlightWindow, farthest: Duration) -> NextStart {
    let most = if farthest >= FAR { UNDER_WAY_MAX } else { IN_FLIGHT_MAX };
    window.next(most, Instant::now())
}

/// Proposes writes in batches until the queue closes.
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
    let mut held: Option<ActiveHold> = None;
    let mut blocked = Blocked::new(proposer.state_machine());
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
            let state_machine = proposer.state_machine();
            log_full = brakes.log_is_full() || brakes.memory_is_full(state_machine.changed_bytes());
            if log_full {
                break;
            }
            let state_machine = proposer.state_machine();
            let stamp = state_machine.stamp();
            let batch = BatchBuilder::with_limit(UNSTAMPED, stamp, brakes.value_bytes_max);
            let Some((batch, writes)) = next_batch(&mut waiting, batch) else { break };
            let proposer = Arc::clone(&proposer);
            let begun = Instant::now();
            backlog.begin(begun);
            window.begins(begun);
            in_flight.push(async move { (proposer.propose_timed(batch).await, writes, begun) });
        }
        let room = waiting.len() < TAKE_MAX;
        tokio::select! {
            // The queue comes first: the next batch takes everything that has arrived, as far as
            // there is room.
            biased;
            count = queue.recv_many(&mut taken, TAKE_MAX), if open && room => {
                open = count > 0;
                waiting.extend(taken.drain(..));
            }
            Some((outcome, mut writes, begun)) = in_flight.next(), if !in_flight.is_empty() => {
                let ended = Instant::now();
                backlog.end(begun, ended);
                window.ends(ended - begun);
                let times = outcome.as_ref().map(|(_, _, times)| *times).unwrap_or_default();
                note_times(&mut writes, begun, times, ended);
                let outcome = outcome.map(|(term, results, _)| (term, results));
                let stamp = proposer.state_machine().last_stamp();
                let locked = answer(group, me, stamp, outcome, writes);
                blocked.add(locked, &mut waiting);
            }
            () = blocked.may_go_on(), if !blocked.is_empty() => blocked.go_on(&mut waiting),
            Some(hold) = brakes.holds.recv(), if held.is_none() => held = Some(hold.into()),
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

/// Notes where the time of the writes of a batch went.
fn note_times(writes: &mut [PendingWrite], begun: Instant, times: BatchTimes, ended: Instant) {
    // One that failed was not committed.
    let committed = times.committed.unwrap_or(ended);
    // A majority may have it before the disk of this node.
    let synced = times.synced.unwrap_or(committed).min(committed);
    for write in writes {
        write.reply.enter(Stage::Sync, begun);
        write.reply.enter(Stage::Majority, synced);
        write.reply.enter(Stage::Apply, committed);
    }
}

struct ActiveHold {
    drained: Option<oneshot::Sender<()>>,
    released: oneshot::Receiver<()>,
}

impl From<Hold> for ActiveHold {
    fn from(Hold { drained, released }: Hold) -> Self {
        Self { drained: Some(drained), released }
    }
}

impl ActiveHold {
    fn tell_drained(&mut self) {
        if let Some(drained) = self.drained.take() {
            // The caller may have lost patience; then it releases too.
            let _ = drained.send(());
        }
    }
}

async fn released(held: &mut Option<ActiveHold>) {
    if let Some(held) = held {
        let _ = (&mut held.released).await;
    }
}

/// Refuses the writes that waited too long for a batch, as not done.
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
    Refusal::Unavailable(
        "the primary's log was full, or its checkpoint overdue, for too long".into(),
    )
}

fn expired() -> Refusal {
    Refusal::Unavailable("no quorum accepted it before its deadline".into())
}

/// Takes the commands that fit into one batch off the front of the queue, and refuses those that
/// have waited too long.
fn next_batch(
    waiting: &mut VecDeque<PendingWrite>,
    mut batch: BatchBuilder,
) -> Option<(Bytes, Vec<PendingWrite>)> {
    let now = Instant::now();
    let mut writes = Vec::new();
    while let Some(write) = waiting.front() {
        if !batch.takes(write.command.len()) {
            break;
        }
        let Some(mut write) = waiting.pop_front() else { break };
        if write.expires <= now {
            write.reply.refuse(expired());
            continue;
        }
        batch.push(&write.command);
        write.place = Place::default();
        writes.push(write);
    }
    if writes.is_empty() { None } else { Some((batch.finish(), writes)) }
}

/// Answers writes; returns those that are to be proposed again because they have met a lock.
fn answer(
    group: GroupId,
    me: NodeId,
    stamp: Stamp,
    outcome: Result<(Term, Vec<CommandResult>), ProposeError>,
    writes: Vec<PendingWrite>,
) -> Vec<PendingWrite> {
    let mut locked = Vec::new();
    match outcome {
        Ok((term, results)) => {
            assert_eq!(results.len(), writes.len(), "a batch has one result for each command");
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
            for (mut write, result) in writes.into_iter().zip(results) {
                let is_locked = result == CommandResult::Locked;
                match is_locked.then(|| AtLock::of(&write.command)) {
                    Some(AtLock::Waits) => {
                        write.reply.enter(Stage::Lock, Instant::now());
                        locked.push(write);
                    }
                    Some(AtLock::Refuses) => write.reply.refuse(key_locked()),
                    Some(AtLock::Tells) | None => write.reply.send(to_answer(result, receipt)),
                }
            }
        }
        Err(error) => {
            for write in writes {
                write.reply.refuse(error.clone().into());
            }
        }
    }
    locked
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
        // Its results are read separately.
        CommandResult::Transacted { revision, succeeded, changed, path } => {
            let (receipt, results) = (receipt(revision), None);
            Ok(Answer::Transacted { receipt, succeeded, changed, results, path })
        }
        CommandResult::Compacted { revision, before } => {
            Ok(Answer::Compacted { receipt: receipt(revision), before })
        }
        CommandResult::Unfit { operation, why } => Err(Refusal::Unfit { operation, why }),
        CommandResult::Cut(cut) => Ok(Answer::Cut(receipt(cut.revision), cut)),
        CommandResult::Granted { revision } => Ok(Answer::Granted(receipt(revision))),
        CommandResult::Revoked { revision, deleted, left } => Ok(Answer::Revoked {
            receipt: receipt(revision),
            deleted: u64::from(deleted),
            left: u64::from(left),
        }),
        CommandResult::NoLease { lease } => Err(Refusal::NoLease { lease }),
        CommandResult::LeaseExists { lease } => Err(Refusal::LeaseExists { lease }),
        CommandResult::TooManyLeases { own } => {
            let limit = if own { limits::HOLDER_LEASES_MAX } else { limits::LEASES_MAX };
            Err(Refusal::TooManyLeases { own, limit: limit as u64 })
        }
        CommandResult::Expired { .. } | CommandResult::SessionOpened => Ok(Answer::Done),
        CommandResult::SessionExpired => Err(Refusal::SessionExpired),
        CommandResult::Overloaded { retry_after_ms } => Err(Refusal::Overloaded { retry_after_ms }),
        CommandResult::Locked => Ok(Answer::Prepared(PrepareAnswer::Locked)),
        // The other shards need exactly this stamp.
        CommandResult::Decided { revision, changed, commitment } => {
            let Commitment { succeeded, stamp } = commitment;
            let (receipt, results) = (Receipt { stamp, ..receipt(revision) }, None);
            Ok(Answer::Transacted { receipt, succeeded, changed, results, path: 0 })
        }
        CommandResult::Over => Ok(Answer::Prepared(PrepareAnswer::Over)),
        CommandResult::Resolved(resolution) => Ok(Answer::Resolved(resolution)),
        CommandResult::Prepared { holds, revision, stamp, then, otherwise } => {
            let (then, otherwise) = (to_prospect(then), to_prospect(otherwise));
            let prepared = PrepareAnswer::Prepared { holds, revision, stamp, then, otherwise };
            Ok(Answer::Prepared(prepared))
        }
        CommandResult::TooEarly => Err(too_early()),
        CommandResult::Invalid => Err(Refusal::Invalid("the command is malformed".into())),
    }
}

/// Its results are read separately.
fn to_prospect(Foreseen { unfit, changes }: Foreseen) -> Prospect {
    Prospect { unfit, changes, results: None }
}

/// The refusal of an outbox's number whose predecessors the shard does not have.
pub(crate) fn too_early() -> Refusal {
    Refusal::Unavailable("earlier writes of its outbox have not arrived yet".into())
}

/// The refusal of an outbox's number whose key a transaction has locked. It comes again, with those
/// after it.
pub(crate) fn key_locked() -> Refusal {
    Refusal::Unavailable("a transaction has locked its key".into())
}

#[cfg(test)]
mod tests;
