//! Coalesced heartbeats: those of all groups to one node, sent together.
//!
//! A node that leads many groups has a heartbeat for each member of each group. Sent one by one,
//! each would be a packet, its answer another, and their acknowledgements two more. Instead, all
//! heartbeats due for a peer form one frame on a stream that stays open. Frames are numbered and
//! may be answered in any order, so a group that answers late delays no other. What a strong read
//! waits for is sent at once: a leader's question whether it still leads, which uses the same
//! stream.
//!
//! A frame may be in flight for seconds, over a connection that outlives a network partition, so
//! its receiver cannot tell from the arrival time how old its contents are. So each answer carries
//! its sender's clock, and the next frame states which reading arrived last, and how long ago
//! ([`Echo`]): the frame was sent no earlier than the reading plus that time. No two clocks are
//! compared.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::{GroupId, NodeId};
use dkv_base::sync::lock;
use dkv_wire::codec::decode;
use dkv_wire::frame::{FrameReader, FrameWriter};
use dkv_wire::limits::FRAME_BYTES_MAX;
use dkv_wire::message::Opening;
use dkv_wire::rpc::RpcError;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use crate::common::task_set::TaskSet;
use crate::common::ticks::Ticks;
use crate::net::peers::{Lane, Peers};
use crate::net::rpc::ExchangeError;
use crate::raft::call_error::CallError;
use crate::raft::codec::{Call, CallAnswer, CallResult};

/// Longest time for which heartbeats that no task waits for are gathered, once there is one.
const GATHER: Duration = Duration::from_millis(4);
/// Most heartbeats and questions that may wait for one peer; each group has at most one heartbeat
/// among them.
const WAITING_MAX: usize = 4096;

/// One frame of a batch of heartbeats.
#[derive(Serialize, Deserialize)]
pub(in crate::raft) struct HeartbeatBatch {
    pub(in crate::raft) number: u64,
    /// The time of sending, in terms that the receiver can interpret; `None` before the first
    /// answer on the stream.
    pub(in crate::raft) echo: Option<Echo>,
    pub(in crate::raft) calls: Vec<(GroupId, Call)>,
    /// The position up to which the sender's log is on disk (see `incarnations`).
    pub(in crate::raft) mark: u64,
}

/// The answer to a batch: one answer for each call, in their order.
#[derive(Serialize, Deserialize)]
pub(in crate::raft) struct HeartbeatBatchAnswer {
    pub(in crate::raft) number: u64,
    /// The time of sending, in microseconds since the stream began for the answering node.
    pub(in crate::raft) at_us: u64,
    pub(in crate::raft) answers: Vec<CallResult>,
    /// The position up to which the answering node's log is on disk.
    pub(in crate::raft) mark: u64,
}

/// The last answer that arrived, as a moment that both ends of a stream know.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(in crate::raft) struct Echo {
    /// The time of sending that the answer states.
    pub(in crate::raft) answered_us: u64,
    /// How long ago the answer arrived, in microseconds.
    pub(in crate::raft) since_us: u64,
}

impl Echo {
    /// Returns the earliest moment at which a frame with this echo may have been sent, for the node
    /// that answers on a stream that began at `began`. Never later than `now`, whatever the frame
    /// says.
    pub(in crate::raft) fn sent_at(self, began: Instant, now: Instant) -> Instant {
        let after = Duration::from_micros(self.answered_us.saturating_add(self.since_us));
        began.checked_add(after).map_or(now, |sent| sent.min(now))
    }
}

/// The batches of heartbeats to all peers.
#[derive(Clone)]
pub(crate) struct HeartbeatCoalescer {
    shared: Arc<CoalescerInner>,
}

struct CoalescerInner {
    me: NodeId,
    peers: Peers,
    queues: Mutex<BTreeMap<NodeId, mpsc::Sender<QueuedCall>>>,
    /// Number of quorum rounds that a task waits for.
    rounds: AtomicUsize,
    /// Number of groups whose heartbeats are due together.
    expected: Arc<AtomicUsize>,
    ticks: Ticks,
    tasks: TaskSet,
}

/// Guard that makes heartbeats go out at once while it lives.
pub(crate) struct UrgentGuard<'a> {
    rounds: &'a AtomicUsize,
}

impl Drop for UrgentGuard<'_> {
    fn drop(&mut self) {
        self.rounds.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A heartbeat that waits to be sent.
struct QueuedCall {
    group: GroupId,
    call: Call,
    /// When the call was queued.
    made: Instant,
    /// Whether a task waits for what the call confirms.
    urgent: bool,
    waiter: Waiter,
}

type Waiter = oneshot::Sender<CallResult>;
/// Waiters for the answers to frames, by the frames' numbers.
type Waiting = Arc<Mutex<BTreeMap<u64, Vec<Waiter>>>>;
/// The time of sending that the last answer stated, and when it arrived.
type LastAnswer = Arc<Mutex<Option<(u64, Instant)>>>;

impl HeartbeatCoalescer {
    pub(crate) fn new(me: NodeId, peers: Peers) -> Self {
        let (queues, rounds, expected, ticks, tasks) = Default::default();
        Self {
            shared: Arc::new(CoalescerInner { me, peers, queues, rounds, expected, ticks, tasks }),
        }
    }

    /// Makes heartbeats go out at once while a task waits for a quorum round.
    pub(crate) fn mark_urgent(&self) -> UrgentGuard<'_> {
        let rounds = &self.shared.rounds;
        rounds.fetch_add(1, Ordering::Relaxed);
        UrgentGuard { rounds }
    }

    /// Returns the ticks of the node.
    pub(crate) fn ticks(&self) -> Ticks {
        self.shared.ticks.clone()
    }

    /// Announces the number of groups that will send heartbeats in a moment.
    pub(crate) fn expect(&self, groups: usize) {
        self.shared.expected.store(groups, Ordering::Relaxed);
    }

    /// Sends a heartbeat with the next batch to `target` and waits for its answer.
    pub(in crate::raft) async fn beat(
        &self,
        target: NodeId,
        group: GroupId,
        call: Call,
    ) -> Result<CallAnswer, CallError> {
        let urgent = self.shared.rounds.load(Ordering::Relaxed) > 0;
        self.send(target, group, call, urgent).await
    }

    /// Sends a question to `target` at once, together with the queued heartbeats, and waits for its
    /// answer.
    pub(in crate::raft) async fn ask(
        &self,
        target: NodeId,
        group: GroupId,
        call: Call,
    ) -> Result<CallAnswer, CallError> {
        self.send(target, group, call, true).await
    }

    async fn send(
        &self,
        target: NodeId,
        group: GroupId,
        call: Call,
        urgent: bool,
    ) -> Result<CallAnswer, CallError> {
        let (waiter, answer) = oneshot::channel();
        let beat = QueuedCall { group, call, made: Instant::now(), urgent, waiter };
        self.queue(target).try_send(beat).map_err(|_| CallError::QueueFull)?;
        let answer = answer.await.map_err(|_| CallError::Unanswered)?;
        answer.map_err(CallError::Refused)
    }

    /// Stops sending to all peers.
    pub(crate) async fn end(&self) {
        self.shared.tasks.end().await;
    }

    fn queue(&self, target: NodeId) -> mpsc::Sender<QueuedCall> {
        let mut queues = lock(&self.shared.queues);
        // A queue whose sender has panicked is closed; the next heartbeat gets a new one.
        if let Some(queue) = queues.get(&target).filter(|queue| !queue.is_closed()) {
            return queue.clone();
        }
        let (queue, beats) = mpsc::channel(WAITING_MAX);
        let (me, peers) = (self.shared.me, self.shared.peers.clone());
        let expected = Arc::clone(&self.shared.expected);
        self.shared.tasks.spawn(Sender { me, target, peers, expected }.run(beats));
        queues.insert(target, queue.clone());
        queue
    }
}

/// Sends the heartbeats to one peer.
struct Sender {
    me: NodeId,
    target: NodeId,
    peers: Peers,
    /// Number of groups whose heartbeats are due together.
    expected: Arc<AtomicUsize>,
}

impl Sender {
    /// Sends queued calls, over one stream after another.
    async fn run(self, mut beats: mpsc::Receiver<QueuedCall>) {
        let mut number = 0;
        while let Some(first) = beats.recv().await {
            let begun = Instant::now();
            if let Err(error) = self.converse(first, &mut beats, &mut number).await {
                debug!(target = ?self.target, %error, "the stream of heartbeats broke");
                self.peers.failed(self.target, Lane::Urgent, begun);
            }
        }
    }

    /// Sends heartbeats over one stream until it breaks. Waiters whose answers can no longer arrive
    /// learn it because their channels are dropped.
    async fn converse(
        &self,
        first: QueuedCall,
        beats: &mut mpsc::Receiver<QueuedCall>,
        number: &mut u64,
    ) -> Result<(), ExchangeError> {
        let connection = self.peers.connection(self.target, Lane::Urgent).await?;
        let (send, receive) = connection.open_bi().await.map_err(RpcError::from)?;
        let mut writer = FrameWriter::new(send);
        writer.push(&Opening::RaftHeartbeats { from: self.me });
        let (waiting, last) = (Waiting::default(), LastAnswer::default());
        let reader = FrameReader::new(receive, FRAME_BYTES_MAX);
        let heard = |mark| self.peers.advance(self.target, &connection, mark);
        let reading = read_answers(reader, Arc::clone(&waiting), Arc::clone(&last), heard);
        let writing = async {
            let mut next = Some(first);
            while let Some(beat) = next {
                *number += 1;
                let expected = self.expected.load(Ordering::Relaxed);
                let gathered = gather(beat, beats, expected).await;
                let heartbeat_batch =
                    frame(*number, gathered, &waiting, *lock(&last), Instant::now());
                writer.push(&HeartbeatBatch { mark: self.peers.mark(), ..heartbeat_batch });
                writer.flush().await.map_err(RpcError::from)?;
                next = beats.recv().await;
            }
            Ok(())
        };
        tokio::select! {
            biased;
            ended = writing => ended,
            error = reading => Err(error.into()),
        }
    }
}

/// Gathers the calls to send with `first`, until all expected ones are there or a task waits for
/// one of them.
async fn gather(
    first: QueuedCall,
    beats: &mut mpsc::Receiver<QueuedCall>,
    expected: usize,
) -> Vec<QueuedCall> {
    let (mut urgent, mut gathered) = (first.urgent, vec![first]);
    let deadline = Instant::now() + GATHER;
    while !urgent && gathered.len() < expected {
        let Ok(Some(beat)) = timeout_at(deadline, beats.recv()).await else { break };
        urgent = beat.urgent;
        gathered.push(beat);
    }
    while let Ok(beat) = beats.try_recv() {
        gathered.push(beat);
    }
    gathered
}

/// Builds a frame of heartbeats and records its waiters. Drops the records of older frames whose
/// waiters have all given up.
fn frame(
    number: u64,
    gathered: Vec<QueuedCall>,
    waiting: &Waiting,
    last: Option<(u64, Instant)>,
    now: Instant,
) -> HeartbeatBatch {
    let mut calls = Vec::with_capacity(gathered.len());
    let mut waiters = Vec::with_capacity(gathered.len());
    for QueuedCall { group, mut call, made, waiter, .. } in
        gathered.into_iter().filter(|b| !b.waiter.is_closed())
    {
        call.waited(now.saturating_duration_since(made));
        calls.push((group, call));
        waiters.push(waiter);
    }
    let mut waiting = lock(waiting);
    waiting.retain(|_, waiters| waiters.iter().any(|waiter| !waiter.is_closed()));
    waiting.insert(number, waiters);
    let echo = last.map(|(answered_us, came)| {
        let since_us = now.saturating_duration_since(came).as_micros() as u64;
        Echo { answered_us, since_us }
    });
    HeartbeatBatch { number, echo, calls, mark: 0 }
}

/// Passes answers to their waiters until the stream breaks; returns the reason.
async fn read_answers(
    mut reader: FrameReader<quinn::RecvStream>,
    waiting: Waiting,
    last: LastAnswer,
    heard: impl Fn(u64),
) -> RpcError {
    loop {
        let frame: Bytes = match reader.next().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return RpcError::NoAnswer,
            Err(error) => return error.into(),
        };
        let HeartbeatBatchAnswer { number, at_us, answers, mark } = match decode(&frame) {
            Ok(answer) => answer,
            Err(error) => return error.into(),
        };
        *lock(&last) = Some((at_us, Instant::now()));
        heard(mark);
        let waiters = lock(&waiting).remove(&number).unwrap_or_default();
        for (waiter, answer) in waiters.into_iter().zip(answers) {
            // A waiter that has given up needs no answer.
            let _ = waiter.send(answer);
        }
    }
}

#[cfg(test)]
mod tests;
