//! Opening of replicas from their state on disk.

use std::sync::Arc;

use dkv_base::id::{GroupId, NodeId};
use dkv_base::platform::run_blocking;
use dkv_base::supervise::Failure;
use dkv_wire::codec::encode;
use tokio::sync::oneshot;

use super::connections::Connections;
use super::error::GroupError;
use super::store::Store;
use crate::raft::{self, StateMachine, Vote};
use crate::replica::tombstone::{ReplicaTombstone, TombstoneError};
use crate::replica::{Replica, ReplicaParts};
use dkv_state::EngineError;
use dkv_wal::{GroupLog, LogState};

/// The parts of a node that opening a group requires.
pub(super) struct GroupOpener<'a> {
    pub(super) me: NodeId,
    pub(super) store: &'a Store,
    pub(super) connections: &'a Connections,
    pub(super) config: &'a Arc<raft::Config>,
    pub(super) log_bytes_max: u64,
    pub(super) value_bytes_max: u64,
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
            value_bytes_max: self.value_bytes_max,
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
