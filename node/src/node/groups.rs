//! Opening and closing of groups, and detection of broken ones.

use std::collections::BTreeSet;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use dkv_base::id::{GroupId, NodeId};
use dkv_base::platform::run_blocking;
use dkv_base::supervise::Failure;
use dkv_wire::codec::{decode, encode};
use tokio::sync::oneshot;
use tracing::{debug, info, warn};

use super::{Connections, Node, Store};
use crate::outbox::{Outbox, OutboxError};
use crate::raft::{self, OperationError, StateMachine, Vote};
use crate::replica::tombstone::{ReplicaTombstone, TombstoneError};
use crate::replica::{Replica, ReplicaParts};
use crate::storage::data_dir::{self, DataDirError};
use dkv_state::EngineError;
use dkv_wal::{GroupLog, LogState};

impl Node {
    /// Opens a group, unless it is open.
    pub(super) async fn open_group(self: &Arc<Self>, id: GroupId) -> Result<(), GroupError> {
        let mut leftovers = self.replicas.opening.lock().await;
        if self.group(id).is_some() {
            return Ok(());
        }
        if leftovers.contains(&id) {
            // Leftovers of an earlier replica would be taken for the state of this one.
            if let Err(error) = self.delete_rows(id).await {
                debug!(group = %id, %error, "not opened yet: what is left of a replica cannot be deleted");
                return Ok(());
            }
            leftovers.remove(&id);
        }
        let opener = GroupOpener {
            me: self.me.id,
            store: &self.store,
            connections: &self.connections,
            config: &self.replicas.config,
            log_bytes_max: self.settings().log_bytes_max,
            failure: &self.tasks.failure,
        };
        let group = Arc::new(opener.open(id).await?);
        self.adopt_group(group);
        Ok(())
    }

    /// Registers a group that was opened.
    pub(super) fn adopt_group(self: &Arc<Self>, group: Arc<Replica>) {
        self.replicas.insert(Arc::clone(&group));
        self.attend(&group);
    }

    /// Returns the outbox of a shard, and makes sure that a task empties it.
    pub(crate) fn outbox(self: &Arc<Self>, shard: GroupId) -> Result<Arc<Outbox>, OutboxError> {
        let (outbox, is_new) = self.store.outboxes.open_for(shard)?;
        if is_new {
            self.tasks.guard(
                "an outbox's task",
                (self.tasks.factories.relay)(Arc::clone(self), Arc::clone(&outbox)),
            );
        }
        Ok(outbox)
    }

    /// Closes a group that does not count on this node any more, and deletes everything that is
    /// here of it except for the tombstone that a later replica needs. `departed` is the entry of
    /// the group's log that let this replica go, and `leader` the vote of the leader that said so.
    pub(crate) async fn close_group(
        self: &Arc<Self>,
        id: GroupId,
        departed: u64,
        leader: Vote,
    ) -> Result<(), GroupError> {
        let mut leftovers = self.replicas.opening.lock().await;
        let Some(group) = self.group(id) else { return Ok(()) };
        // From here on no task finds the group, and requests in progress in it end with it.
        self.replicas.remove(id);
        group.stop().await;
        let configured = group.configured();
        // The replica stays if its log has a change of members that is later than the one that let
        // it go. A later change of an earlier leader, which the log of this leader does not have,
        // was in vain.
        let mut stays = configured.index > departed && configured.term.0 >= leader.leader_id.term;
        drop(group);
        // The tombstone comes first: if it cannot be saved, nothing is deleted, and the attempt is
        // repeated later.
        if !stays && let Err(error) = self.save_tombstone(id, departed, leader).await {
            warn!(group = %id, %error, "the replica is not deleted yet");
            stays = true;
        }
        if !stays {
            self.delete_log(id).await?;
            info!(group = %id, "the replica was deleted: the shard has others");
            self.delete_leftover(id, &mut leftovers).await;
        }
        drop(leftovers);
        if stays {
            self.open_group(id).await?;
        }
        // The directory may have wanted the group again while it was still open.
        self.follow_directory().await
    }

    async fn save_tombstone(&self, id: GroupId, departed: u64, leader: Vote) -> io::Result<()> {
        let own = self.store.wal.group(id).state().vote;
        let own = own.map(|vote| decode::<Vote>(&vote)).transpose().map_err(io::Error::other)?;
        let tombstone = ReplicaTombstone::new(departed, leader, own);
        let data_dir = self.store.data_dir.path().to_owned();
        run_blocking(move || tombstone.save(&data_dir, id)).await.flatten()
    }

    /// Deletes the log of a group that is not open. The log goes first, because rows without a log
    /// are recognised as leftovers.
    async fn delete_log(&self, id: GroupId) -> Result<(), GroupError> {
        let (done, forgotten) = oneshot::channel();
        let told = Box::new(move |result| drop(done.send(result)));
        self.store.wal.group(id).forget(told).map_err(GroupError::Log)?;
        forgotten.await.map_err(|_| GroupError::LogStopped)?.map_err(GroupError::Log)
    }

    /// Deletes the rows of a group that has no log any more. On a full disk this may have to wait.
    async fn delete_leftover(&self, id: GroupId, leftovers: &mut BTreeSet<GroupId>) {
        match self.delete_rows(id).await {
            Ok(()) => _ = leftovers.remove(&id),
            Err(error) if leftovers.insert(id) => {
                warn!(group = %id, %error, "what is left of a replica is not deleted yet");
            }
            Err(error) => debug!(group = %id, %error, "nor is it now"),
        }
    }

    async fn delete_rows(&self, id: GroupId) -> Result<(), GroupError> {
        let engine = self.store.engine.clone();
        let removed = run_blocking(move || engine.group(id)?.remove()).await;
        Ok(removed.map_err(GroupError::Thread)??)
    }

    /// Deletes the rows of groups whose log was deleted just before a crash.
    pub(super) async fn find_leftovers(&self) -> Result<(), GroupError> {
        let mut leftovers = self.replicas.opening.lock().await;
        let known = self.store.wal.groups();
        let stored = self.store.engine.stored()?;
        for id in stored.into_iter().filter(|id| id.is_shard() && !known.contains(id)) {
            info!(group = %id, "deleting what is left of a replica");
            self.delete_leftover(id, &mut leftovers).await;
        }
        Ok(())
    }

    /// Retries the deletion of leftovers, and opens the groups that had to wait for it.
    pub(crate) async fn delete_leftovers(self: &Arc<Self>) -> Result<(), GroupError> {
        let mut leftovers = self.replicas.opening.lock().await;
        if leftovers.is_empty() {
            return Ok(());
        }
        for id in leftovers.clone() {
            self.delete_leftover(id, &mut leftovers).await;
        }
        drop(leftovers);
        self.follow_directory().await
    }

    /// Starts the tasks that go with every group: its reconciler, and those that detect its
    /// failure.
    pub(super) fn attend(self: &Arc<Self>, group: &Arc<Replica>) {
        // The tasks end with the group: a group that is closed is not broken.
        let guard = |what, task: Pin<Box<dyn Future<Output = ()> + Send>>| {
            group.spawn(self.tasks.failure.if_panicked(what, task));
        };
        guard(
            "the reconciler of a group",
            (self.tasks.factories.reconcile)(Arc::clone(self), Arc::clone(group)),
        );
        let (node, replica) = (Arc::clone(self), Arc::clone(group));
        let durability = async move {
            let problem = replica.durability().broken().await;
            let data_dir = node.store.data_dir.path().to_owned();
            let marked = run_blocking(move || data_dir::condemn(&data_dir, &problem.to_string()));
            match marked.await {
                Ok(why) => node.tasks().fail(why),
                Err(error) => node.tasks().fail(error),
            }
        };
        guard("the task that watches a group's promises", Box::pin(durability));
        let (node, watched) = (Arc::clone(self), Arc::clone(group));
        let state = async move {
            let group = watched;
            let mut metrics = group.metrics();
            let broken = metrics.wait_for(|metrics| metrics.running_state.is_err()).await;
            let why = match broken {
                Ok(()) => metrics.borrow().running_state.as_ref().err().map(ToString::to_string),
                // A clean stop leaves a final state in the metrics.
                Err(_) => Some("it panicked".to_owned()),
            };
            if let Some(why) = why {
                node.tasks().fail(format!("group {} has stopped: {why}", group.id()));
            }
        };
        guard("the task that watches a group", Box::pin(state));
    }
}

/// The parts of a node that opening a group requires.
pub(super) struct GroupOpener<'a> {
    pub(super) me: NodeId,
    pub(super) store: &'a Store,
    pub(super) connections: &'a Connections,
    pub(super) config: &'a Arc<raft::Config>,
    pub(super) log_bytes_max: u64,
    pub(super) failure: &'a Failure,
}

impl GroupOpener<'_> {
    /// Opens a group from its state on disk.
    pub(super) async fn open(&self, id: GroupId) -> Result<Replica, GroupError> {
        self.begin(self.prepare(id).await?).await
    }

    /// Reads a group's state on disk without starting anything.
    pub(super) async fn prepare(&self, id: GroupId) -> Result<StoredReplica, GroupError> {
        let (engine, clock) = (self.store.engine.clone(), self.store.clock.clone());
        let loaded = run_blocking(move || StateMachine::load(engine.group(id)?, clock));
        let state_machine =
            loaded.await.map_err(GroupError::Thread)?.map_err(|error| match error {
                EngineError::Damaged { .. } => {
                    self.store.data_dir.damaged(error.to_string()).into()
                }
                error => GroupError::Engine(error),
            })?;
        let log = self.store.wal.group(id);
        check_fit(id, &state_machine, &log)
            .map_err(|gap| self.store.data_dir.damaged(gap.to_string()))?;
        let tombstone = ReplicaTombstone::load(self.store.data_dir.path(), id).map_err(
            |error| match error {
                TombstoneError::Malformed(_) => self.store.data_dir.damaged(error.to_string()),
                TombstoneError::Io(_) => self.store.data_dir.unusable(&error),
            },
        )?;
        if let Some(tombstone) = tombstone.as_ref().filter(|_| log.state() == LogState::default()) {
            save_vote(&log, &tombstone.vote).await?;
        }
        let owed = tombstone.map_or(0, |tombstone| tombstone.index);
        Ok(StoredReplica { id, log, owed, state_machine })
    }

    /// Starts taking part in a group.
    pub(super) async fn begin(&self, replica: StoredReplica) -> Result<Replica, GroupError> {
        let StoredReplica { id, log, owed, state_machine } = replica;
        let started = Replica::start(ReplicaParts {
            id,
            me: self.me,
            config: Arc::clone(self.config),
            log,
            owed,
            state_machine,
            peers: self.connections.peers.clone(),
            heartbeats: self.connections.heartbeats.clone(),
            log_bytes_max: self.log_bytes_max,
            failure: self.failure.clone(),
        });
        Ok(started.await?)
    }
}

/// The state of a group on disk.
pub(super) struct StoredReplica {
    id: GroupId,
    log: GroupLog,
    owed: u64,
    state_machine: StateMachine,
}

impl StoredReplica {
    /// Returns whether this node could lead the group alone: as its only voter, or as a founder
    /// that has not begun it.
    pub(super) async fn is_led_alone(&mut self, me: NodeId, founder: bool) -> bool {
        let voters = raft::voters(&self.log, &mut self.state_machine).await;
        let begins = founder && self.id == GroupId::CONTROL && voters.is_empty();
        begins || voters.into_iter().eq([me])
    }
}

async fn save_vote(log: &GroupLog, vote: &Vote) -> Result<(), GroupError> {
    let (done, saved) = oneshot::channel();
    let told = Box::new(move |result| drop(done.send(result)));
    log.save_vote(encode(vote), told).map_err(GroupError::Log)?;
    saved.await.map_err(|_| GroupError::LogStopped)?.map_err(GroupError::Log)
}

/// Checks that no entries are missing between the state and the log.
fn check_fit(id: GroupId, state_machine: &StateMachine, log: &GroupLog) -> Result<(), LogGap> {
    let applied = state_machine.handle().summary().applied_index;
    match log.state().purged {
        Some((purged, _)) if purged > applied => Err(LogGap { group: id, applied, purged }),
        _ => Ok(()),
    }
}

/// A log that begins after the state ends: it has lost entries.
#[derive(Debug, thiserror::Error)]
#[error(
    "the checkpoint of group {group} in state ends at entry {applied}, and its log begins after \
     entry {purged}"
)]
struct LogGap {
    group: GroupId,
    applied: u64,
    purged: u64,
}

/// Reason why the node cannot open a replica, or delete it. Except where a deletion can be repeated
/// later, the node must stop: a group may count on its replica.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GroupError {
    /// The data directory is damaged, or cannot be used now.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The engine cannot read or delete the rows of a group.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The log was not changed.
    #[error(transparent)]
    Log(io::Error),
    /// The log ended before it had stored a change.
    #[error("the log has stopped")]
    LogStopped,
    /// A thread that used the disk ended without an answer.
    #[error(transparent)]
    Thread(io::Error),
    /// openraft did not start the group.
    #[error(transparent)]
    Start(#[from] OperationError),
}
