//! How the network and this node look from here.

use std::collections::BTreeMap;
use std::sync::Arc;

use dkv_base::id::{GroupId, NodeId};
use dkv_wire::message::NodeStatus;
use dkv_wire::network::{NetworkView, NodeState};

use super::{Node, lock};
use crate::cluster::coordinator;
use crate::common::counters::Counters;
use crate::node::observer::Figures;
use dkv_state::Observed;

impl Node {
    /// The network as this node sees it; `None` before it has begun.
    pub(crate) fn view(&self) -> Option<NetworkView> {
        let control = self.control.metrics();
        let (term, coordinator) = {
            let control = control.borrow();
            (dkv_base::id::Term(control.current_term), control.current_leader)
        };
        let mut primaries: BTreeMap<GroupId, NodeId> = lock(&self.primaries).clone();
        let mut members = BTreeMap::new();
        if self.reign().is_some() && coordinator == Some(self.me.id) {
            for (group, (leader, led)) in self.heard(|heard, now| heard.led(now)) {
                primaries.insert(group, leader);
                let of = |nodes: Vec<NodeId>| nodes.into_iter().collect();
                members.insert(group, (of(led.voters), of(led.learners)));
            }
        }
        for group in self.groups().into_iter().filter(|group| group.id().is_shard()) {
            let configured = group.configured();
            // Of a group that it is no member of, it knows what was.
            if configured.voters.contains(&self.me.id) {
                match group.leader() {
                    Some(leader) => drop(primaries.insert(group.id(), leader)),
                    None => drop(primaries.remove(&group.id())),
                }
                members.insert(group.id(), (configured.voters, configured.others));
            }
        }
        let states = match self.reign() {
            Some(since) if coordinator == Some(self.me.id) => coordinator::states(self, since),
            // A replicant knows of the coordinator's and its own life only; the rest it assumes.
            _ => self.peers.known().into_iter().map(|(id, _)| (id, NodeState::Live)).collect(),
        };
        let mut observed = Observed { term, coordinator, states, primaries, members };
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
            connections: self.acceptor.open_count(),
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
            pending: self.outboxes.all().iter().map(|outbox| outbox.len() as u64).sum(),
            notes: self.runs.notes(),
        }
    }
}
