//! The data of a node: its directory, its log, its checkpoints, and what waits in its outboxes.

use std::sync::atomic::{AtomicBool, Ordering};

use dkv_base::id::NodeId;
use tracing::{info, warn};

use super::error::StartError;
use crate::common::clock::{self, NodeClock};
use crate::outbox::{Outboxes, WriteGate};
use crate::storage::data_dir::DataDir;
use dkv_state::Engine;
use dkv_wal::Wal;

/// The data of a node.
pub(crate) struct Store {
    pub(super) data_dir: DataDir,
    pub(super) wal: Wal,
    pub(super) engine: Engine,
    /// The node's copy of the network's clock, which stamps what it stores.
    pub(super) clock: NodeClock,
    pub(super) outboxes: Outboxes,
    disk_full: AtomicBool,
}

impl Store {
    /// Opens the outboxes that the log has. `log_bytes_max` is the longest that the log may become.
    pub(super) fn open(
        me: NodeId,
        data_dir: DataDir,
        wal: Wal,
        engine: Engine,
        log_bytes_max: u64,
    ) -> Result<Self, StartError> {
        let clock = NodeClock::default();
        let write_gate = WriteGate::load(data_dir.path())?;
        let outboxes = Outboxes::open(me, wal.clone(), log_bytes_max, write_gate, clock::wall());
        let outboxes = outboxes.map_err(|problem| data_dir.damaged(problem.to_string()))?;
        clock.observe(outboxes.last_stamp());
        Ok(Self { data_dir, wal, engine, clock, outboxes, disk_full: AtomicBool::new(false) })
    }

    /// Returns the data directory.
    pub(crate) fn data_dir(&self) -> &DataDir {
        &self.data_dir
    }

    /// Returns the node's log.
    pub(crate) fn wal(&self) -> &Wal {
        &self.wal
    }

    /// Returns the store of checkpoints.
    #[cfg(test)]
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Returns the number of bytes that this node could take in.
    pub(crate) fn free_bytes(&self) -> u64 {
        if self.disk_full() { 0 } else { self.engine.free_bytes() }
    }

    /// Returns whether writes are refused because the disk is full.
    pub(crate) fn disk_full(&self) -> bool {
        self.disk_full.load(Ordering::Relaxed)
    }

    /// Sets whether the disk is full.
    pub(crate) fn set_disk_full(&self, full: bool) {
        if self.disk_full.swap(full, Ordering::Relaxed) != full {
            if full {
                warn!("the disk is full: writes are refused until there is room again");
            } else {
                info!("there is room on the disk again: writes are taken");
            }
        }
    }
}
