//! Writes checkpoints, and evicts values that one has.

use std::io;
use std::time::Duration;

use dkv_base::platform::run_blocking;
use dkv_state::{Changes, EngineError};
use openraft::storage::RaftSnapshotBuilder;
use tracing::{debug, warn};

use super::{StateMachineHandle, index};
use crate::raft::snapshot::{Position, outgoing};
use crate::raft::{Snapshot, SnapshotData, Types};

/// Time between two attempts to write a checkpoint to a full disk.
const ROOM_RETRY: Duration = Duration::from_millis(500);
/// Keys examined under one lock of the state when values are evicted from memory.
const EVICT_KEYS: usize = 256;

/// One checkpoint to write.
pub(crate) struct Checkpoint {
    pub(super) handle: StateMachineHandle,
    pub(super) work: Option<(Position, Changes)>,
}

impl RaftSnapshotBuilder<Types> for Checkpoint {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let store = self.handle.shared.store.clone();
        if let Some((position, mut changes)) = self.work.take() {
            loop {
                let writer = store.clone();
                let written = run_blocking(move || {
                    let result = writer.checkpoint(&changes);
                    (result, changes)
                });
                let (result, kept) = written.await?;
                match result {
                    Ok(()) => {
                        self.handle.checkpointed(&kept).await?;
                        break;
                    }
                    // An installed snapshot has overtaken this checkpoint.
                    Err(EngineError::Superseded) => break,
                    Err(error @ EngineError::NoSpace { .. }) => {
                        warn!(group = %self.handle.shared.group, %error, "waiting for room");
                        changes = kept;
                        tokio::time::sleep(ROOM_RETRY).await;
                    }
                    Err(error) => return Err(io::Error::other(error)),
                }
            }
            let index = index(position.applied);
            debug!(group = %self.handle.shared.group, index, "checkpoint written");
        }
        let snapshot = outgoing(store).await?;
        if let Some(snapshot) = &snapshot {
            self.handle.shared.checkpointed.note(snapshot.meta.last_log_id);
        }
        snapshot.ok_or_else(|| io::Error::other("the checkpoint that was written is gone"))
    }
}

impl StateMachineHandle {
    /// Marks these changes as durable.
    async fn checkpointed(&self, changes: &Changes) -> io::Result<()> {
        let exceeded = match self.write().state.as_shard_mut() {
            Some(shard) => {
                shard.checkpointed(changes.generation(), changes.meta().revision);
                shard.memory_is_exceeded()
            }
            None => false,
        };
        if exceeded {
            let handle = self.clone();
            run_blocking(move || handle.evict(usize::MAX)).await?;
        }
        Ok(())
    }

    /// Evicts values from memory if they exceed the limit.
    pub(super) fn evict(&self, steps_max: usize) {
        let mut ends = 0;
        for _ in 0..steps_max {
            let mut current = self.write();
            let Some(shard) = current.state.as_shard_mut() else { return };
            if !shard.memory_is_exceeded() {
                return;
            }
            ends += usize::from(shard.evict(EVICT_KEYS));
            // Two full passes, since the first may have found all values in use.
            if ends > 2 {
                return;
            }
        }
    }
}
