//! How the network and this node look from here.

use std::sync::Arc;

use dkv_wire::message::NodeStatus;
use dkv_wire::network::{NetworkView, NodeState};

use super::Node;
use crate::coordinator;
use crate::counters::Counters;
use crate::observer::Figures;
use crate::state::Observed;

impl Node {
    /// The network as this node sees it; `None` before it has begun.
    pub(crate) fn view(&self) -> Option<NetworkView> {
        let control = self.control.metrics();
        let (term, coordinator) = {
            let control = control.borrow();
            (dkv_wire::id::Term(control.current_term), control.current_leader)
        };
        let primaries = self.groups().into_iter().filter(|group| group.id().is_shard());
        let primaries = primaries.filter_map(|group| Some((group.id(), group.leader()?))).collect();
        let states = match self.reign() {
            Some(since) if coordinator == Some(self.me.id) => coordinator::states(self, since),
            // A replicant knows of the coordinator's and its own life only; the rest it assumes.
            _ => self.peers.known().into_iter().map(|(id, _)| (id, NodeState::Live)).collect(),
        };
        let mut observed = Observed { term, coordinator, states, primaries };
        observed.states.insert(self.me.id, NodeState::Live);
        self.control.machine().with_directory(|directory| directory.to_view(&observed))?
    }

    /// What it counts.
    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// All its figures.
    pub(crate) fn figures(&self) -> Figures {
        let (stats, syncs) = (self.wal.stats(), self.wal.sync_times());
        Figures {
            status: self.status(),
            counted: self.counters.counted(),
            syncs,
            entries_written: stats.entries_written,
            staged_bytes: stats.staged_bytes,
            connections: self.gate.open_count(),
            groups: self.groups().iter().map(|group| group.figures()).collect(),
        }
    }

    /// How this node is.
    pub(crate) fn status(&self) -> NodeStatus {
        let stats = self.wal.stats();
        NodeStatus {
            id: self.me.id,
            name: self.me.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: self.started.elapsed().as_millis() as u64,
            server_seen_ms: self.server.seen().map(|seen| seen.as_millis() as u64),
            groups: self.groups().iter().map(|group| group.status()).collect(),
            log_bytes: stats.bytes_on_disk,
            fsync_us: stats.fsync_us_median,
            disk_full: self.disk_full(),
        }
    }
}
