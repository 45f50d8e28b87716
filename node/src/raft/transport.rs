//! Raft messages to the other members.
//!
//! Calls with a single answer (votes, heartbeats, leadership transfers) each use their own stream
//! on the urgent connection. Entries use the bulk connection, on one long stream per session: the
//! session writes requests as fast as the log yields them and reads acknowledgements as they
//! arrive, so that no request waits for a round trip; QUIC's flow control bounds what is in flight.
//! A snapshot has its own stream with a lower priority, so that it never delays entries.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::{GroupId, NodeId, Term};
use dkv_base::sync::lock;
use dkv_wire::codec::decode;
use dkv_wire::frame::{FrameReader, FrameWriter};
use dkv_wire::limits::FRAME_BYTES_MAX;
use dkv_wire::message::{Acknowledged, Opening};
use dkv_wire::rpc::{RpcError, call};
use futures::future::BoxFuture;
use futures::stream::{BoxStream, Stream};
use openraft::RaftNetworkFactory;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError};
use openraft::network::{RPCOption, RaftNetworkV2, stream_append_sequential};
use openraft::raft::StreamAppendResult;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse};
use openraft::raft::{TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse};
use tokio::time::Instant;

use super::call_error::CallError;
use super::codec::{
    Call, CallAnswer, CallResult, Confirmed, SnapshotAnswer, SnapshotFrame, SnapshotHead,
    encode_append,
};
use super::last_contact::LastContact;
use super::membership::may_vote;
use super::validation::{Implausible, Known};
use super::{
    HeartbeatCoalescer, MetricsWatch, Raft, ServerState, Snapshot, SnapshotData,
    StateMachineHandle, TimeScale, Types, Vote,
};
use crate::net::peers::{Lane, Peers};
use crate::raft::heartbeat::coalescing::UrgentGuard;

mod append_stream;

use super::heartbeat::learners::{LEARNER_SILENCE_MAX, LearnerHeartbeats};
use append_stream::AppendStream;
pub(crate) use append_stream::AppendStreams;

/// Priority of a snapshot's stream; entries use the default, zero.
const SNAPSHOT_PRIORITY: i32 = -10;
/// Pause after an append stream that failed to start.
const APPEND_STREAM_PAUSE: Duration = Duration::from_millis(30);
/// Time that the receiver of a snapshot has to install it once it has received all of it.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(120);

/// Creates the network clients of one group.
#[derive(Clone)]
pub(crate) struct Network {
    group: GroupId,
    me: NodeId,
    peers: Peers,
    heartbeats: HeartbeatCoalescer,
    append_streams: AppendStreams,
    time_scale: TimeScale,
    /// The metrics that openraft reports for the group, once it has started.
    metrics: Arc<OnceLock<MetricsWatch>>,
    /// The replica's state, once the replica has started.
    state_machine: Arc<OnceLock<StateMachineHandle>>,
    confirmations: Arc<Mutex<LastContact>>,
}

impl Network {
    pub(crate) fn new(
        group: GroupId,
        me: NodeId,
        peers: Peers,
        heartbeats: HeartbeatCoalescer,
        append_streams: AppendStreams,
        time_scale: TimeScale,
    ) -> Self {
        let (metrics, state_machine, confirmations) = Default::default();
        Self {
            group,
            me,
            peers,
            heartbeats,
            append_streams,
            time_scale,
            metrics,
            state_machine,
            confirmations,
        }
    }

    /// Sets the metrics to those of `raft`; the caller that starts openraft with this network calls
    /// it afterwards.
    pub(super) fn told_by(&self, raft: &Raft) {
        // Only the first call counts: the openraft instance never changes.
        let _ = self.metrics.set(MetricsWatch::of(raft));
    }

    /// Sets the replica's state; the caller that starts the replica with this state calls it.
    pub(super) fn shows(&self, state_machine: StateMachineHandle) {
        let _ = self.state_machine.set(state_machine);
    }

    /// Returns the id of the node that this network belongs to.
    pub(super) fn me(&self) -> NodeId {
        self.me
    }

    /// Returns the group's time scale, which reflects how far away its members are.
    pub(super) fn time_scale(&self) -> &TimeScale {
        &self.time_scale
    }

    /// Makes heartbeats go out at once for as long as the guard lives.
    pub(super) fn mark_urgent(&self) -> UrgentGuard<'_> {
        self.heartbeats.mark_urgent()
    }

    /// Asks a voter whether it still follows the leader that has this vote. No answer counts as no
    /// confirmation.
    pub(super) async fn follows(&self, voter: NodeId, vote: Vote) -> bool {
        let call = Call::Follow { vote, acknowledged: self.acknowledged(voter) };
        let asked = Instant::now();
        let answer = self.heartbeats.ask(voter, self.group, call).await;
        let follows = matches!(answer, Ok(CallAnswer::Follow(true)));
        if follows {
            self.confirmations().confirm(voter, Term(vote.leader_id.term), asked);
        }
        follows
    }

    fn confirmations(&self) -> MutexGuard<'_, LastContact> {
        lock(&self.confirmations)
    }

    /// Returns the time as of which a quorum last confirmed that this replica leads, if it does.
    pub(crate) fn quorum_at(&self) -> Option<Instant> {
        let metrics = self.metrics.get()?.borrow();
        if metrics.state != ServerState::Leader {
            return None;
        }
        let voters = metrics.membership_config.membership().get_joint_config();
        let term = Term(metrics.current_term);
        self.confirmations().quorum_at(self.me, term, voters, Instant::now())
    }

    /// Returns how complete a state is that has applied as much as this leader. Returns `None`
    /// until the leader has applied an entry of its own term, because until then it may lack the
    /// last entries that were acknowledged before.
    fn confirmed(&self) -> Option<Confirmed> {
        let at = self.quorum_at()?;
        let applied_own = {
            let metrics = self.metrics.get()?.borrow();
            metrics.last_applied.is_some_and(|last| *last.leader_id == metrics.current_term)
        };
        // Read the index only after the time: everything acknowledged by that time was applied by
        // then.
        let applied = self.state_machine.get().filter(|_| applied_own)?.applied_index();
        Some(Confirmed { age_us: at.elapsed().as_micros() as u64 + 1, applied })
    }

    /// Returns the time since each other member last answered this leader, in milliseconds,
    /// excluding the time in which a learner is sent no heartbeat. Empty on a follower.
    pub(crate) fn silence(&self) -> BTreeMap<NodeId, u64> {
        let Some(metrics) = self.metrics.get().map(MetricsWatch::borrow) else {
            return BTreeMap::new();
        };
        if metrics.state != ServerState::Leader {
            return BTreeMap::new();
        }
        let silence = |(member, asked): (NodeId, Instant)| {
            let age = asked.elapsed();
            let age = if may_vote(&metrics, member) {
                age
            } else {
                age.saturating_sub(LEARNER_SILENCE_MAX)
            };
            (member, age.as_millis() as u64)
        };
        self.confirmations().last_asked(Term(metrics.current_term)).map(silence).collect()
    }

    /// Returns the last acknowledgement that this leader has from a voter.
    fn acknowledged(&self, target: NodeId) -> Option<Acknowledged> {
        let metrics = self.metrics.get()?.borrow();
        metrics.replication.as_ref().filter(|_| may_vote(&metrics, target))?;
        self.append_streams.word(target, Term(metrics.current_term))
    }

    /// Forgets the acknowledgements of nodes that are no longer members.
    fn forget_others(&self) {
        let Some(metrics) = self.metrics.get() else { return };
        let metrics = metrics.borrow();
        let members = metrics.membership_config.membership().nodes().map(|(node, _)| *node);
        self.append_streams.forget_others(&members.collect());
    }

    /// Returns this replica's own term and last index, against which it validates answers.
    fn known(&self) -> Known {
        let Some(metrics) = self.metrics.get() else { return Known::default() };
        let metrics = metrics.borrow();
        let last = metrics.last_log_index.unwrap_or_default();
        Known { term: Some(Term(metrics.current_term)), last }
    }

    /// Reports an impossible answer to the operator; the caller does not pass it on.
    fn refuse(&self, target: NodeId, why: &dyn std::error::Error) {
        let why = format!("group {}, an answer: {why}", self.group);
        self.peers.denials().note(target, &why);
    }

    /// Returns the answer if `judge` accepts it.
    fn judged<T>(
        &self,
        target: NodeId,
        answer: T,
        judge: impl FnOnce(&Known, &T) -> Result<(), Implausible>,
    ) -> Result<T, CallError> {
        match judge(&self.known(), &answer) {
            Ok(()) => Ok(answer),
            Err(why) => {
                self.refuse(target, &why);
                Err(why.into())
            }
        }
    }

    /// Returns whether a member may vote: true unless it is known not to.
    fn may_vote(&self, target: NodeId) -> bool {
        self.metrics.get().is_none_or(|metrics| may_vote(&metrics.borrow(), target))
    }

    fn client(&self, target: NodeId, purpose: Purpose) -> NetworkClient {
        NetworkClient {
            network: self.clone(),
            target,
            purpose,
            learner_heartbeats: LearnerHeartbeats::default(),
        }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = NetworkClient;

    async fn new_client(&mut self, target: NodeId, _: &openraft::EmptyNode) -> NetworkClient {
        self.client(target, Purpose::Entries)
    }

    async fn new_heartbeat_client(
        &mut self,
        target: NodeId,
        _: &openraft::EmptyNode,
    ) -> NetworkClient {
        self.client(target, Purpose::Heartbeats)
    }
}

/// The kind of requests that a client sends. openraft passes heartbeats through its stream of
/// requests too, but each is sent separately, because heartbeats must not wait for one another.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Entries,
    Heartbeats,
}

/// Client of one member of one group.
pub(crate) struct NetworkClient {
    network: Network,
    target: NodeId,
    purpose: Purpose,
    learner_heartbeats: LearnerHeartbeats,
}

impl NetworkClient {
    async fn call(&self, request: Call, option: &RPCOption) -> Result<CallAnswer, CallError> {
        let opening = Opening::RaftCalls { group: self.network.group, from: self.network.me };
        let peers = &self.network.peers;
        let limit = self.network.time_scale.stretch(option.hard_ttl());
        let asked = Instant::now();
        let conversation = async {
            let connection = peers.connection(self.target, Lane::Urgent).await?;
            let answer: CallResult =
                call(&connection, Some(&opening), &request, FRAME_BYTES_MAX, limit).await?;
            answer.map_err(CallError::Refused)
        };
        // openraft gives up at its own limit; this one ends a little earlier, so that openraft
        // receives the error.
        let answered = tokio::time::timeout(self.patience(option), conversation).await;
        let answered = answered.unwrap_or(Err(CallError::Timeout));
        match &answered {
            Ok(_) => peers.answered(self.target, Lane::Urgent),
            Err(_) => peers.failed(self.target, Lane::Urgent, asked),
        }
        answered
    }

    /// Returns the time within which an answer must arrive. openraft's own limit, stretched by the
    /// same factor, ends a little later.
    fn patience(&self, option: &RPCOption) -> Duration {
        self.network.time_scale.stretch(option.hard_ttl()) * 15 / 16
    }

    async fn open_bulk(&self) -> Result<(quinn::SendStream, quinn::RecvStream), CallError> {
        let connection = self.network.peers.connection(self.target, Lane::Bulk).await?;
        Ok(connection.open_bi().await.map_err(RpcError::from)?)
    }

    async fn send_snapshot(&self, vote: Vote, snapshot: Snapshot) -> Result<Vote, CallError> {
        let (send, receive) = self.open_bulk().await?;
        let _ = send.set_priority(SNAPSHOT_PRIORITY);
        let mut writer = FrameWriter::new(send);
        writer.push(&Opening::RaftSnapshot { group: self.network.group, from: self.network.me });
        let SnapshotData::Outgoing(mut source) = snapshot.snapshot else {
            return Err(CallError::NotOurs);
        };
        writer.push(&SnapshotHead { vote, meta: snapshot.meta, store: source.meta() });
        while let Some(rows) = source.next_rows().await.map_err(CallError::Checkpoint)? {
            writer.send(&SnapshotFrame::Rows(rows)).await.map_err(RpcError::from)?;
        }
        writer.send(&SnapshotFrame::End).await.map_err(RpcError::from)?;
        let mut reader = FrameReader::new(receive, FRAME_BYTES_MAX);
        let answer = tokio::time::timeout(INSTALL_TIMEOUT, reader.next());
        let answer = answer.await.map_err(|_| CallError::NotInstalled)?;
        let answer = answer.map_err(RpcError::from)?.ok_or(RpcError::NoAnswer)?;
        let answer: SnapshotAnswer = decode(&answer).map_err(RpcError::from)?;
        let vote = answer.map_err(CallError::Refused)?;
        self.network.judged(self.target, vote, Known::vote)
    }
}

impl RaftNetworkV2<Types> for NetworkClient {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let now = Instant::now();
        if self.learner_heartbeats.may_skip(self.network.may_vote(self.target), now) {
            // openraft treats this heartbeat as lost and takes no further action.
            return Err(CallError::Spared.into());
        }
        let sent = request.prev_log_id;
        let append = Bytes::from(encode_append(&request).concat());
        let term = Term(request.vote.leader_id.term);
        let confirmed = self.network.confirmed();
        let acknowledged = self.network.acknowledged(self.target);
        let is_quiescent = self.network.time_scale.says_quiescence();
        let request = Call::Heartbeat { append, confirmed, acknowledged, is_quiescent };
        let peers = &self.network.peers;
        let beat = self.network.heartbeats.beat(self.target, self.network.group, request);
        // openraft's worker gives up at its own limit; this one ends a little earlier.
        match tokio::time::timeout(self.patience(&option), beat).await {
            Ok(Ok(CallAnswer::Heartbeat(answer))) => {
                peers.answered(self.target, Lane::Urgent);
                self.learner_heartbeats.answered(now);
                let answer = self.network.judged(self.target, answer, |known, answer| {
                    known.heartbeat_response(answer, sent.as_ref())
                })?;
                if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
                    self.network.confirmations().confirm(self.target, term, now);
                }
                Ok(answer)
            }
            Ok(Ok(_)) => Err(CallError::WrongAnswer.into()),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => {
                peers.failed(self.target, Lane::Urgent, now);
                Err(CallError::Timeout.into())
            }
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
    {
        if self.purpose == Purpose::Heartbeats {
            return stream_append_sequential(self, input, option);
        }
        Box::pin(async move {
            // A session that cannot even start must not keep the log from being purged either.
            let mut left_behind = self.network.append_streams.left_behind();
            let opened = tokio::select! {
                biased;
                opened = self.open_bulk() => opened,
                Ok(()) = left_behind.changed() => Err(CallError::LeftBehind),
            };
            let (send, receive) = match opened {
                Ok(streams) => streams,
                Err(error) => {
                    // openraft pauses between the requests of a stream, but not between streams.
                    tokio::time::sleep(APPEND_STREAM_PAUSE).await;
                    return Err(error.into());
                }
            };
            self.network.forget_others();
            let opening = Opening::RaftAppend {
                group: self.network.group,
                from: self.network.me,
                acknowledged: self.network.acknowledged(self.target),
            };
            let session = AppendStream {
                opening,
                append_streams: &self.network.append_streams,
                network: &self.network,
                target: self.target,
            };
            Ok(session.run(send, receive, input))
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.call(Call::Vote(request), &option).await? {
            CallAnswer::Vote(answer) => {
                Ok(self.network.judged(self.target, answer, Known::vote_response)?)
            }
            _ => Err(CallError::WrongAnswer.into()),
        }
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.call(Call::PreVote(request), &option).await? {
            CallAnswer::Vote(answer) => {
                Ok(self.network.judged(self.target, answer, Known::vote_response)?)
            }
            _ => Err(CallError::WrongAnswer.into()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(vote, snapshot) => match sent {
                Ok(vote) => Ok(SnapshotResponse::new(vote)),
                Err(error) => Err(StreamingError::Unreachable(error.into())),
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        match self.call(Call::Transfer(request), &option).await? {
            CallAnswer::Transfer(answer) => Ok(answer),
            _ => Err(CallError::WrongAnswer.into()),
        }
    }
}

#[cfg(test)]
mod tests;
