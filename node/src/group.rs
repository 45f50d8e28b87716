//! One Raft group on this node: its log, its state, and the tasks that serve it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dkv_wire::id::{GroupId, NodeId, Term};
use dkv_wire::message::{GroupRole, GroupStatus, Refusal, ReplicaStatus};
use tokio::sync::{mpsc, oneshot};

use crate::peers::Peers;
use crate::raft::{
    self, Machine, MachineHandle, Metrics, MetricsWatch, Network, Outcome, Pulses, Raft,
    ServerState, Sessions,
};
use crate::reads::{self, PendingRead};
use crate::state::steward::Step;
use crate::state::{CommandResult, DirectoryEntry, DirectoryResult};
use crate::tasks::Tasks;
use crate::wal::GroupLog;
use crate::writes::{self, Brakes, Hold, PendingWrite};

/// Why something that was proposed to a group did not come to an answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ProposeError {
    /// This replica does not lead. No effect.
    #[error("not the leader")]
    NotLeader(Option<NodeId>),
    /// No quorum answers. No effect.
    #[error("{0}")]
    Unavailable(String),
    /// It is in a log, and whether it stays there is for another leader to say.
    #[error("{0}")]
    Unknown(String),
}

impl From<ProposeError> for Refusal {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NotLeader(primary) => Self::NotPrimary { primary },
            ProposeError::Unavailable(why) => Self::Unavailable(why),
            ProposeError::Unknown(why) => Self::Unknown(why),
        }
    }
}

/// What the tasks of a group propose and confirm through.
pub(crate) struct Proposer {
    raft: Raft,
    machine: MachineHandle,
    pulses: Pulses,
}

impl Proposer {
    /// Proposes a batch to a shard and waits until it is applied.
    pub(crate) async fn propose_batch(
        &self,
        batch: Bytes,
    ) -> Result<(Term, Vec<CommandResult>), ProposeError> {
        match raft::propose(&self.raft, batch).await? {
            (term, Outcome::Shard(results)) => Ok((term, results)),
            (_, other) => Err(ProposeError::Unknown(format!("a shard answered {other}"))),
        }
    }

    /// Makes sure that this replica leads and has applied what was committed before the call.
    pub(crate) async fn confirm_leadership(&self) -> Result<Term, ProposeError> {
        let _hurry = self.pulses.hurry();
        raft::confirm_leadership(&self.raft).await
    }

    /// How old this replica's state may be, in milliseconds: of a leader, since a quorum last
    /// confirmed it; of others, since a quorum confirmed the leader that they heard, provided that
    /// they have all that it had committed.
    pub(crate) fn staleness_ms(&self) -> Option<u64> {
        let metrics = MetricsWatch::of(&self.raft);
        let metrics = metrics.borrow();
        // A leader may lack the last of what the one before it committed, until it has applied an
        // entry of its own.
        let applied_own =
            metrics.last_applied.is_some_and(|last| *last.leader_id == metrics.current_term);
        match metrics.state {
            ServerState::Leader if applied_own => raft::since_quorum_ms(&metrics),
            _ => self.machine.staleness_ms(),
        }
    }

    /// The state.
    pub(crate) fn machine(&self) -> &MachineHandle {
        &self.machine
    }
}

/// One group on this node.
pub(crate) struct Group {
    id: GroupId,
    me: NodeId,
    /// Silence after which a member is not taken to be alive, in milliseconds.
    live_within_ms: u64,
    proposer: Arc<Proposer>,
    sessions: Sessions,
    writes: mpsc::Sender<PendingWrite>,
    reads: mpsc::Sender<PendingRead>,
    holds: mpsc::Sender<Hold>,
    tasks: Tasks,
}

/// What a group is made of.
pub(crate) struct GroupParts {
    pub(crate) id: GroupId,
    pub(crate) me: NodeId,
    pub(crate) config: Arc<raft::Config>,
    pub(crate) log: GroupLog,
    pub(crate) machine: Machine,
    pub(crate) peers: Peers,
    pub(crate) pulses: Pulses,
    /// Bytes that the log of the node may have, for all groups together.
    pub(crate) log_bytes_max: u64,
}

impl Group {
    /// Starts a group from what its log and its state on disk say.
    pub(crate) async fn start(parts: GroupParts) -> Result<Self, String> {
        let GroupParts { id, me, config, log, machine, peers, pulses, log_bytes_max } = parts;
        let handle = machine.handle();
        let live_within_ms = config.election_timeout_max;
        let brake_log = log.clone();
        let sessions = Sessions::default();
        let network = Network::new(id, me, peers, pulses.clone(), sessions.clone());
        let raft = raft::start(me, config, log, machine, network).await?;
        let proposer = Arc::new(Proposer { raft, machine: handle, pulses });
        let (writes, write_queue) = mpsc::channel(writes::QUEUE_MAX);
        let (reads, read_queue) = mpsc::channel(reads::QUEUE_MAX);
        let (holds, hold_queue) = mpsc::channel(1);
        let tasks = Tasks::default();
        if id.is_shard() {
            let brakes = Brakes { holds: hold_queue, log: brake_log, log_bytes_max };
            tasks.spawn(writes::run(id, me, Arc::clone(&proposer), write_queue, brakes));
            tasks.spawn(reads::run(id, me, Arc::clone(&proposer), read_queue));
        }
        Ok(Self { id, me, live_within_ms, proposer, sessions, writes, reads, holds, tasks })
    }

    /// Which group.
    pub(crate) fn id(&self) -> GroupId {
        self.id
    }

    /// openraft's handle, for its own messages.
    pub(crate) fn raft(&self) -> &Raft {
        &self.proposer.raft
    }

    /// The state.
    pub(crate) fn machine(&self) -> &MachineHandle {
        &self.proposer.machine
    }

    /// Hands a validated command to the next batch, or refuses it.
    pub(crate) fn write(&self, write: PendingWrite) {
        if let Err(error) = self.writes.try_send(write) {
            error.into_inner().reply.refuse(Refusal::Overloaded { retry_after_ms: 20 });
        }
    }

    /// Hands a strong read to the next quorum round, or refuses it.
    pub(crate) fn read(&self, read: PendingRead) {
        if let Err(error) = self.reads.try_send(read) {
            error.into_inner().reply.refuse(Refusal::Overloaded { retry_after_ms: 20 });
        }
    }

    /// Answers an eventual read at once.
    pub(crate) fn read_eventual(&self, read: PendingRead) {
        reads::eventual(self.id, self.me, self.term(), &self.proposer, read);
    }

    /// Proposes a change of the directory and waits until it is applied. Control group only.
    pub(crate) async fn propose_directory(
        &self,
        entry: &DirectoryEntry,
    ) -> Result<DirectoryResult, ProposeError> {
        match raft::propose(self.raft(), entry.encode()).await? {
            (_, Outcome::Directory(result)) => Ok(result),
            (_, other) => Err(ProposeError::Unknown(format!("the directory answered {other}"))),
        }
    }

    /// What openraft says of the group, and when it changes.
    pub(crate) fn metrics(&self) -> MetricsWatch {
        MetricsWatch::of(self.raft())
    }

    /// The group's term here.
    pub(crate) fn term(&self) -> Term {
        Term(self.metrics().borrow().current_term)
    }

    /// Who leads, as far as is known here.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.metrics().borrow().current_leader
    }

    /// Whether this replica leads.
    pub(crate) fn leads(&self) -> bool {
        self.metrics().borrow().state == ServerState::Leader
    }

    /// Who votes, by the newest configuration that is known here.
    pub(crate) fn voters(&self) -> BTreeSet<NodeId> {
        self.metrics().borrow().membership_config.membership().voter_ids().collect()
    }

    /// Takes back the promise to `leader` not to vote for anybody else as long as it is heard.
    pub(crate) async fn forsake(&self, leader: NodeId) {
        raft::forsake(self.raft(), leader).await;
    }

    /// Asks the other voters whether they would vote for this node, and stands if they would.
    pub(crate) async fn stand(&self) {
        // It fails only if the group has stopped.
        let _ = self.raft().trigger().elect(true).await;
    }

    /// Sends a heartbeat to each other member, if this replica leads.
    pub(crate) async fn send_heartbeats(&self) {
        // It fails only if the group has stopped.
        let _ = self.raft().trigger().heartbeat().await;
    }

    /// Makes this node the only member of a group that has none.
    pub(crate) async fn initialize(&self) -> Result<(), String> {
        raft::initialize(self.raft(), self.me).await
    }

    /// Takes one step toward the wanted members; only the leader can.
    pub(crate) async fn take_step(&self, step: &Step) -> Result<(), String> {
        raft::take_step(self.raft(), step).await
    }

    /// All members of the newest configuration that is known here.
    pub(crate) fn members(&self) -> BTreeSet<NodeId> {
        let metrics = self.metrics();
        let metrics = metrics.borrow();
        metrics.membership_config.membership().nodes().map(|(node, _)| *node).collect()
    }

    /// Hands leadership to the voter that has most of the log, and waits until that is done.
    ///
    /// Returns whether this replica leads no more.
    pub(crate) async fn hand_over(&self, patience: Duration) -> bool {
        let mut metrics = self.metrics();
        let Some(successor) = successor(&metrics.borrow(), self.me, self.live_within_ms) else {
            return !self.leads();
        };
        // Held until the end of this function.
        let _hold = self.hold(patience / 2).await;
        if self.raft().trigger().transfer_leader(successor).await.is_err() {
            return false;
        }
        let gone = metrics.wait_for(|metrics| {
            metrics.state != ServerState::Leader && metrics.current_leader != Some(self.me)
        });
        matches!(tokio::time::timeout(patience, gone).await, Ok(Ok(_)))
    }

    /// Lets no batch begin until what is returned is dropped, and waits, with patience, until those
    /// under way are done. What is not done by then is in doubt for a moment, as after a crash.
    async fn hold(&self, patience: Duration) -> Option<oneshot::Sender<()>> {
        let (drained, when_drained) = oneshot::channel();
        let (hold, released) = oneshot::channel();
        // The control group has no such task, and needs none.
        self.holds.send(Hold { drained, released }).await.ok()?;
        let _ = tokio::time::timeout(patience, when_drained).await;
        Some(hold)
    }

    /// Asks for a checkpoint of the state.
    pub(crate) async fn checkpoint(&self) {
        // It fails only if the group has stopped; whoever watches the group learns of that.
        let _ = self.raft().trigger().snapshot().await;
    }

    /// Asks to purge the log up to an entry that a checkpoint holds.
    pub(crate) async fn purge(&self, upto: u64) {
        let _ = self.raft().trigger().purge_log(upto).await;
    }

    /// Waits no more for members that lack what was asked to be purged up to that entry: they get a
    /// snapshot.
    pub(crate) fn leave_behind(&self, upto: u64) {
        self.sessions.leave_behind(upto);
    }

    /// Last entry that was purged.
    pub(crate) fn purged_index(&self) -> u64 {
        index(self.metrics().borrow().purged)
    }

    /// Last entry that the newest checkpoint holds.
    pub(crate) fn checkpoint_index(&self) -> u64 {
        index(self.metrics().borrow().snapshot)
    }

    /// How this replica is.
    pub(crate) fn status(&self) -> GroupStatus {
        let metrics = self.metrics();
        let metrics = metrics.borrow();
        let membership = metrics.membership_config.membership();
        let summary = self.machine().summary();
        GroupStatus {
            group: self.id,
            role: role(metrics.state),
            term: Term(metrics.current_term),
            leader: metrics.current_leader,
            voters: membership.voter_ids().collect(),
            learners: membership.learner_ids().collect(),
            last_index: metrics.last_log_index.unwrap_or_default(),
            applied_index: summary.applied_index,
            checkpoint_index: index(metrics.snapshot),
            purged_index: index(metrics.purged),
            keys: summary.keys,
            bytes: summary.bytes,
            revision: summary.revision,
            state_hash: summary.hash,
            replicas: replicas(&metrics, self.me),
        }
    }

    /// Stops the group. What was acknowledged is durable already.
    pub(crate) async fn stop(&self) {
        self.tasks.end().await;
        let _ = self.raft().shutdown().await;
    }
}

fn index(log_id: Option<raft::LogId>) -> u64 {
    log_id.map_or(0, |log_id| log_id.index)
}

fn role(state: ServerState) -> GroupRole {
    match state {
        ServerState::Leader => GroupRole::Leader,
        ServerState::Follower => GroupRole::Follower,
        ServerState::Candidate => GroupRole::Candidate,
        ServerState::Learner | ServerState::Shutdown => GroupRole::Learner,
    }
}

/// Of the other voters, one that answers and of these the one that has most of the log.
fn successor(metrics: &Metrics, me: NodeId, live_within_ms: u64) -> Option<NodeId> {
    let silence = raft::silence(metrics);
    let live = |node: &NodeId| silence.get(node).is_some_and(|ms| *ms <= live_within_ms);
    let voters: BTreeSet<NodeId> = metrics.membership_config.membership().voter_ids().collect();
    let replication = metrics.replication.as_ref()?;
    replication
        .iter()
        .filter(|(node, _)| **node != me && voters.contains(node))
        .max_by_key(|(node, matched)| (live(node), **matched))
        .map(|(node, _)| *node)
}

fn replicas(metrics: &Metrics, me: NodeId) -> Vec<ReplicaStatus> {
    let Some(replication) = &metrics.replication else { return Vec::new() };
    let silent = raft::silence(metrics);
    replication
        .iter()
        .filter(|(node, _)| **node != me)
        .map(|(node, matched)| ReplicaStatus {
            node: *node,
            matched_index: index(*matched),
            silent_ms: silent.get(node).copied(),
        })
        .collect()
}
