//! One Raft group on this node: its log, its state, and the tasks that serve it.

pub(crate) mod attempt_registry;
pub(crate) mod blocked_writes;
pub(crate) mod pending_write;
pub(crate) mod write_batches;
pub(crate) mod backlog;
pub(crate) mod strong_reads;
pub(crate) mod quorum_rounds;
pub(crate) mod in_flight;
pub(crate) mod recovery_mark;
pub(crate) mod tombstone;

pub(crate) mod watch_hub;

mod leader_transfer;
mod log_samples;
mod quota;
mod proposer;
mod status;

pub(crate) use proposer::{Proposer, UNSTAMPED};
pub use status::GroupFigures;
pub(crate) use status::leading;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dkv_base::id::{GroupId, NodeId, Revision, Stamp, Term};
use dkv_base::mutants::{Mutant, planted};
use dkv_base::supervise::Failure;
use dkv_wire::codec::encode;
use dkv_wire::message::{Answer, Command, Cut, Expire, KeyRange, Level, Refusal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

use self::attempt_registry::AttemptRegistry;
use self::backlog::Backlog;
use self::log_samples::LogSamples;
use self::quota::ShardQuota;
use self::strong_reads::{PendingRead, ReadQuery, ReplicaName};
use self::watch_hub::{WatchHub, Watcher};
use self::write_batches::{Brakes, Hold, PendingWrite};
use crate::common::task_set::TaskSet;
use crate::common::timeline::Stage;
use crate::common::turnovers::Turnovers;
use crate::net::peers::Peers;
use crate::net::reply::ReplyTo;
use crate::raft::{
    self, AppendStreams, Configured, DurabilityCheck, HeartbeatCoalescer, LeaseQuery, MetricsWatch,
    Network, OperationError, Outcome, ProposeError, QUIESCENT_SLOWDOWN, Raft, ReplicaHandle,
    ServerState, StateMachine, StateMachineHandle, TimeScale,
};
use dkv_state::reconciler::Step;
use dkv_state::{BatchBuilder, CommandResult, DirectoryEntry, DirectoryResult};
use dkv_wal::GroupLog;

/// Time after which a cut is tried again that waits for a transaction.
const CUT_AGAIN: Duration = Duration::from_millis(100);

/// Most cuts that are made at once: each is an entry of its own.
const CUTS_MAX: usize = 64;

/// Longest silences of a live member after which it counts as unheard.
const UNHEARD_FACTOR: u64 = 3;
/// Least silence after which a member counts as unheard, in milliseconds.
const UNHEARD_MS_MIN: u64 = 3000;

/// This node's replica of one group.
pub(crate) struct Replica {
    id: GroupId,
    me: NodeId,
    /// Silence after which a nearby member no longer counts as alive, in milliseconds.
    live_within_ms: u64,
    proposer: Arc<Proposer>,
    append_streams: AppendStreams,
    member: ReplicaHandle,
    writes: mpsc::Sender<PendingWrite>,
    backlog: Backlog,
    reads: mpsc::Sender<PendingRead>,
    leaders_seen: AtomicU64,
    log_samples: Mutex<LogSamples>,
    holds: mpsc::Sender<Hold>,
    watch_hub: WatchHub,
    quota: ShardQuota,
    attempts: AttemptRegistry,
    cuts: Arc<Semaphore>,
    tasks: TaskSet,
}

/// The parts that [`Replica::start`] assembles into a replica.
pub(crate) struct ReplicaParts {
    pub(crate) id: GroupId,
    pub(crate) me: NodeId,
    pub(crate) config: Arc<raft::Config>,
    pub(crate) log: GroupLog,
    /// Index of the entry that the replica must have before it takes part in elections.
    pub(crate) owed: u64,
    pub(crate) state_machine: StateMachine,
    pub(crate) peers: Peers,
    pub(crate) heartbeats: HeartbeatCoalescer,
    /// Limit on the size of the node's log in bytes, for all groups together.
    pub(crate) log_bytes_max: u64,
    /// Limit on the length of a value, in bytes.
    pub(crate) value_bytes_max: u64,
    /// The reason why the process must stop, once a task reports one.
    pub(crate) failure: Failure,
}

impl Replica {
    /// Starts a group from its log and its state on disk.
    pub(crate) async fn start(parts: ReplicaParts) -> Result<Self, OperationError> {
        let ReplicaParts { id, me, config, log, owed, state_machine, peers, heartbeats, .. } =
            parts;
        let ReplicaParts { log_bytes_max, value_bytes_max, failure, .. } = parts;
        let handle = state_machine.handle();
        let live_within_ms = config.election_timeout_max;
        let brake_log = log.clone();
        let durability = DurabilityCheck::new(log.clone(), handle.clone(), owed, &peers.secret());
        let append_streams = AppendStreams::default();
        let time_scale =
            TimeScale::new(Duration::from_millis(config.heartbeat_interval), heartbeats.ticks());
        let network = Network::new(
            id,
            me,
            peers.clone(),
            heartbeats,
            append_streams.clone(),
            time_scale.clone(),
        );
        let elects = durability.are_known();
        let raft =
            raft::start(me, config, log, state_machine, network.clone(), &time_scale, elects)
                .await?;
        let member = ReplicaHandle::new(
            raft.clone(),
            handle.clone(),
            durability.clone(),
            time_scale.clone(),
        );
        let proposer = Arc::new(Proposer {
            raft,
            state_machine: handle,
            durability,
            network,
            peers,
            time_scale,
        });
        let (writes, write_queue) = mpsc::channel(write_batches::QUEUE_MAX);
        let (reads, read_queue) = mpsc::channel(strong_reads::QUEUE_MAX);
        let (holds, hold_queue) = mpsc::channel(1);
        let (tasks, backlog) = (TaskSet::default(), Backlog::default());
        if id.is_shard() {
            let (holds, log) = (hold_queue, brake_log);
            let brakes = Brakes { holds, log, log_bytes_max, value_bytes_max };
            let writing = Arc::clone(&proposer);
            let write = write_batches::run(id, me, writing, write_queue, brakes, backlog.clone());
            tasks.spawn(failure.if_panicked("a shard's task of writes", write));
        }
        let who = ReplicaName { shard: id, node: me };
        // The control group has a read task too: nodes ask how far it is committed.
        let read = strong_reads::run(who, Arc::clone(&proposer), read_queue);
        tasks.spawn(failure.if_panicked("a group's task of reads", read));
        let watch_hub = WatchHub::new(failure);
        Ok(Self {
            id,
            me,
            live_within_ms,
            proposer,
            append_streams,
            member,
            writes,
            backlog,
            reads,
            leaders_seen: AtomicU64::default(),
            log_samples: Mutex::default(),
            holds,
            watch_hub,
            quota: ShardQuota::default(),
            attempts: AttemptRegistry::default(),
            cuts: Arc::new(Semaphore::new(CUTS_MAX)),
            tasks,
        })
    }

    /// The group's id.
    pub(crate) fn id(&self) -> GroupId {
        self.id
    }

    /// openraft's handle, for its own messages.
    pub(crate) fn raft(&self) -> &Raft {
        &self.proposer.raft
    }

    /// The distance to the members, and the factor by which it stretches the group's timeouts.
    pub(crate) fn time_scale(&self) -> &TimeScale {
        self.proposer.time_scale()
    }

    /// Silence after which a member no longer counts as alive, in milliseconds.
    pub(crate) fn live_within_ms(&self) -> u64 {
        self.time_scale().stretch_ms(self.live_within_ms)
    }

    /// Silence after which a member counts as unheard, in milliseconds: as many heartbeats of a
    /// group at rest as leave no doubt.
    pub(crate) fn unheard_ms(&self) -> u64 {
        (UNHEARD_FACTOR * self.live_within_ms()).max(UNHEARD_MS_MIN)
    }

    /// The handle of the state machine.
    pub(crate) fn state_machine(&self) -> &StateMachineHandle {
        &self.proposer.state_machine
    }

    /// The check of what this replica has promised to keep.
    pub(crate) fn durability(&self) -> &DurabilityCheck {
        &self.member.durability
    }

    /// The replica as the other members see it.
    pub(crate) fn as_replica_handle(&self) -> ReplicaHandle {
        self.member.clone()
    }

    /// Hands a validated command to the next batch, or refuses it.
    pub(crate) fn write(&self, mut write: PendingWrite) {
        let now = Instant::now();
        match self.backlog.enter(write.holder, write.command.len(), write.expires, now) {
            Ok(place) => {
                write.place = place;
                write.reply.enter(Stage::Batch, now);
            }
            Err(retry_after) => {
                let retry_after_ms = retry_after.as_millis() as u32; // at most one second
                return write.reply.refuse(Refusal::Overloaded { retry_after_ms });
            }
        }
        if let Err(error) = self.writes.try_send(write) {
            error.into_inner().reply.refuse(Refusal::Overloaded { retry_after_ms: 20 });
        }
    }

    /// Hands a strong read to the next quorum round, or refuses it.
    pub(crate) fn read(&self, read: PendingRead) {
        if planted(Mutant::KeepAliveUnconfirmed)
            && matches!(read.query, ReadQuery::Lease(LeaseQuery::KeepAlive(_)))
            && let Some(term) = self.leading_term()
        {
            let receipt = self.who().receipt(term, Level::Strong, Some(0));
            return strong_reads::serve(self.state_machine(), std::iter::once(read), receipt);
        }
        hand_in(&self.reads, read);
    }

    /// Reports how far the shard is committed: at once if the asker, which names the term in which
    /// it follows this replica, forms a quorum with it, otherwise after the next round.
    pub(crate) fn tell_committed(&self, asker: Option<(NodeId, Term)>, reply: ReplyTo) {
        let (proposer, reads) = (Arc::clone(&self.proposer), self.reads.clone());
        self.tasks.spawn(async move {
            if let Some((voter, term)) = asker
                && let Some(index) = proposer.confirmed_by(voter, term).await
            {
                return reply.send(Ok(Answer::Committed { index, term }));
            }
            hand_in(&reads, PendingRead { query: ReadQuery::Committed, anywhere: false, reply });
        });
    }

    /// Registers a watcher of keys. What it reads afterwards is complete together with its news.
    pub(crate) fn watch(&self, keys: KeyRange) -> Watcher {
        let (watcher, starts) = self.watch_hub.register(keys, self.revision());
        if starts {
            self.tasks.spawn(self.watch_hub.follow(self.state_machine().clone()));
        }
        watcher
    }

    /// The transactions over several shards that this replica drives as their home's primary.
    pub(crate) fn attempts(&self) -> &AttemptRegistry {
        &self.attempts
    }

    /// The last changes of leader.
    pub(crate) fn turnovers(&self) -> &Turnovers {
        &self.member.turnovers
    }

    /// Upper bound on the age of the state here, in milliseconds.
    pub(crate) fn staleness_ms(&self) -> Option<u64> {
        self.proposer.staleness_ms()
    }

    /// The latest revision here.
    pub(crate) fn revision(&self) -> Revision {
        self.state_machine().revision()
    }

    /// This replica's name, as receipts carry it.
    pub(crate) fn who(&self) -> ReplicaName {
        ReplicaName { shard: self.id, node: self.me }
    }

    /// The other nodes.
    pub(crate) fn peers(&self) -> &Peers {
        self.proposer.peers()
    }

    /// Spawns a task that ends with the group at the latest.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Proposes a change to the directory and waits until it is applied. Control group only.
    pub(crate) async fn propose_directory(
        &self,
        entry: &DirectoryEntry,
    ) -> Result<DirectoryResult, ProposeError> {
        self.time_scale().wake();
        match raft::propose(self.raft(), self.time_scale(), entry.encode()).await? {
            (_, Outcome::Directory(result)) => Ok(result),
            (_, other) => Err(ProposeError::Unknown(format!("the directory answered {other}"))),
        }
    }

    /// Proposes to forget the shard's history before a revision, and waits until that is applied.
    /// Only the leader can. A floor above the latest revision counts as that.
    pub(crate) async fn compact(
        &self,
        floor: Revision,
    ) -> Result<Option<(Revision, Revision)>, ProposeError> {
        let state_machine = self.state_machine();
        let mut batch = BatchBuilder::new(UNSTAMPED, state_machine.stamp());
        batch.push(&encode(&Command::Compact { floor }));
        let (_, results) = self.proposer.propose_batch(batch.finish()).await?;
        Ok(match results.first() {
            Some(CommandResult::Compacted { revision, before }) => Some((*revision, *before)),
            _ => None,
        })
    }

    /// Returns the permit to make a cut; `None` if too many are being made.
    pub(crate) fn may_cut(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.cuts).try_acquire_owned().ok()
    }

    /// Proposes to cut the shard's history at a moment, and waits until that is applied and no
    /// transaction is prepared any more that may belong to the cut. Only the
    /// leader can. `None` if the shard has written too much since the moment.
    pub(crate) async fn cut(&self, moment: Stamp) -> Result<Option<(Term, Cut)>, ProposeError> {
        let state_machine = self.state_machine();
        let mut released = state_machine.released();
        loop {
            let mut batch = BatchBuilder::new(UNSTAMPED, state_machine.stamp());
            batch.push(&encode(&Command::Cut { moment }));
            let (term, results) = self.proposer.propose_batch(batch.finish()).await?;
            match results.first() {
                Some(CommandResult::Cut(cut)) => return Ok(Some((term, *cut))),
                // A prepared transaction may belong to the cut.
                Some(CommandResult::Locked) => {
                    _ = tokio::time::timeout(CUT_AGAIN, released.changed()).await;
                }
                _ => return Ok(None),
            }
        }
    }

    /// Proposes to end what has ended, and waits until that is applied. Returns whether any keys
    /// were deleted, or nothing is left to be deleted. Only the leader can.
    pub(crate) async fn expire(&self, ends: &[Expire]) -> Result<bool, ProposeError> {
        let state_machine = self.state_machine();
        let mut batch = BatchBuilder::new(UNSTAMPED, state_machine.stamp());
        for expire in ends {
            batch.push(&encode(&Command::Expire(*expire)));
        }
        let (_, results) = self.proposer.propose_batch(batch.finish()).await?;
        Ok(results.iter().any(|result| match result {
            CommandResult::Expired { deleted, more } => *deleted > 0 || !more,
            _ => true,
        }))
    }

    /// The term in which this replica leads and has applied an entry, if it does.
    pub(crate) fn leading(&self) -> Option<Term> {
        leading(&self.metrics().borrow())
    }

    /// A watch on openraft's metrics of the group.
    pub(crate) fn metrics(&self) -> MetricsWatch {
        MetricsWatch::of(self.raft())
    }

    /// The group's current term, as this replica sees it.
    pub(crate) fn term(&self) -> Term {
        Term(self.metrics().borrow().current_term)
    }

    /// The current leader, if this replica knows one.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.metrics().borrow().current_leader
    }

    /// Returns whether this replica leads.
    pub(crate) fn leads(&self) -> bool {
        self.metrics().borrow().state == ServerState::Leader
    }

    /// Returns whether this replica leads, and has applied all that was committed before its term:
    /// an entry of its own comes after that.
    pub(crate) fn knows_all(&self) -> bool {
        let metrics = self.metrics();
        let metrics = metrics.borrow();
        let applied = metrics.last_applied.map(|last| *last.leader_id);
        metrics.state == ServerState::Leader && applied == Some(metrics.current_term)
    }

    /// The term in which this replica leads, if it does.
    pub(crate) fn leading_term(&self) -> Option<Term> {
        let metrics = self.metrics();
        let metrics = metrics.borrow();
        (metrics.state == ServerState::Leader).then(|| Term(metrics.current_term))
    }

    /// Confirms that this replica leads and has applied everything committed before the call.
    pub(crate) async fn confirm_leadership(&self) -> Result<Term, ProposeError> {
        self.proposer.confirm_leadership().await
    }

    /// The voters of the newest configuration known here.
    pub(crate) fn voters(&self) -> BTreeSet<NodeId> {
        self.metrics().borrow().membership_config.membership().voter_ids().collect()
    }

    /// All nodes whose vote may count in the next election.
    pub(crate) async fn electorate(&self) -> BTreeSet<NodeId> {
        raft::electorate(self.raft()).await
    }

    /// Withdraws the promise to `leader` to vote for no other node as long as it is heard from.
    pub(crate) async fn forget_leader(&self, leader: NodeId) {
        self.member.forget_leader(leader).await;
    }

    /// Asks the other voters whether they would vote for this node, and stands for election if so.
    pub(crate) async fn stand(&self) {
        if !self.durability().are_known() {
            return;
        }
        // Fails only if the group has stopped.
        let _ = self.raft().trigger().elect(true).await;
    }

    /// Sends a heartbeat to each other member, if this replica leads.
    pub(crate) async fn send_heartbeats(&self) {
        // Fails only if the group has stopped.
        let _ = self.raft().trigger().heartbeat().await;
    }

    /// Returns whether this replica neither leads nor has a vote that counts.
    pub(crate) fn only_follows(&self) -> bool {
        let metrics = self.metrics();
        let metrics = metrics.borrow();
        metrics.state != ServerState::Leader && !raft::may_vote(&metrics, self.me)
    }

    /// Time since each other member last answered this leader, in milliseconds. Empty on a
    /// follower.
    pub(crate) fn silence(&self) -> BTreeMap<NodeId, u64> {
        self.proposer.silence()
    }

    /// Runs openraft's election timer only while it matters: not while this replica leads or has no
    /// vote, and not while it hears from its leader, which sends heartbeats at the interval `every`
    /// unless the group is quiescent.
    pub(crate) fn mind_elections(&self, every: Duration) {
        self.raft().runtime_config().elect(self.durability().are_known());
        let leads = self.leads();
        if !leads {
            self.time_scale().miss(self.state_machine().followed_at(), every);
        }
        let every = if self.time_scale().is_slow() { every * QUIESCENT_SLOWDOWN } else { every };
        let heard =
            || self.state_machine().followed_at().is_some_and(|at| at.elapsed() <= every * 3 / 2);
        let at_rest = leads || self.only_follows() || heard();
        self.raft().runtime_config().tick(!at_rest);
    }

    /// Sets whether this replica has still to begin its group; see
    /// [`initialize`](Self::initialize).
    pub(crate) fn set_to_begin(&self, is_to_begin: bool) {
        self.member.set_to_begin(is_to_begin);
    }

    /// Begins the group with these voters, of which this node is one, unless it has begun.
    pub(crate) async fn initialize(&self, voters: &BTreeSet<NodeId>) -> Result<(), OperationError> {
        raft::initialize(self.raft(), voters).await
    }

    /// Takes one step toward the wanted membership. Only the leader can.
    pub(crate) async fn take_step(&self, step: &Step) -> Result<(), OperationError> {
        self.time_scale().wake();
        raft::take_step(self.raft(), step).await
    }

    /// All members of the newest configuration known here.
    pub(crate) fn members(&self) -> BTreeSet<NodeId> {
        let Configured { mut voters, others, .. } = self.configured();
        voters.extend(others);
        voters
    }

    /// Returns whether a node is a member in that configuration, or in the last one applied.
    pub(crate) fn has_member(&self, node: NodeId) -> bool {
        let newest = self.metrics().borrow().membership_config.get_node(&node).is_some();
        newest || self.state_machine().has_member(node)
    }

    /// Returns whether a node is a voter in that configuration, or in the last one applied, in
    /// either half.
    pub(crate) fn has_voter(&self, node: NodeId) -> bool {
        self.voters().contains(&node) || self.state_machine().has_voter(node)
    }

    /// The newest membership configuration known here.
    pub(crate) fn configured(&self) -> Configured {
        raft::configured(&self.metrics().borrow())
    }

    /// Requests a checkpoint of the state.
    pub(crate) async fn checkpoint(&self) {
        // Fails only if the group has stopped; the watcher of the group learns of that.
        let _ = self.raft().trigger().snapshot().await;
    }

    /// Requests a purge of the log up to an entry that a checkpoint covers.
    pub(crate) async fn purge(&self, upto: u64) {
        let _ = self.raft().trigger().purge_log(upto).await;
    }

    /// Stops waiting for members that lack entries up to `upto`, which are to be purged: they get a
    /// snapshot.
    pub(crate) fn leave_behind(&self, upto: u64) {
        self.append_streams.leave_behind(upto);
    }

    /// Index of the last purged entry.
    pub(crate) fn purged_index(&self) -> u64 {
        status::index(self.metrics().borrow().purged)
    }

    /// Index of the last entry that the newest checkpoint covers.
    pub(crate) fn checkpoint_index(&self) -> u64 {
        status::index(self.metrics().borrow().snapshot)
    }

    /// Stops the group. Everything acknowledged is durable already.
    pub(crate) async fn stop(&self) {
        self.tasks.end().await;
        // In a separate task: a caller that asks openraft to shut down and does not wait for it
        // leaves it in a state in which the next request to it panics.
        let raft = self.raft().clone();
        let _ = tokio::spawn(async move { raft.shutdown().await }).await;
    }
}

/// Hands a strong read to the next round, or refuses it.
fn hand_in(reads: &mpsc::Sender<PendingRead>, mut read: PendingRead) {
    read.reply.enter(Stage::Majority, Instant::now());
    if let Err(error) = reads.try_send(read) {
        error.into_inner().reply.refuse(Refusal::Overloaded { retry_after_ms: 20 });
    }
}
