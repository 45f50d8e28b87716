//! The status of the network and of this node, as seen from here.

use std::collections::BTreeMap;

use dkv_base::id::{GroupId, NodeId};
use dkv_base::sync::lock;
use dkv_wire::message::NodeStatus;
use dkv_wire::network::{NetworkView, NodeState};

use super::Node;
use crate::node::observer::Figures;
use dkv_state::Observed;

impl Node {
    /// Returns the network as this node sees it; `None` before it has begun.
    pub(crate) fn view(&self) -> Option<NetworkView> {
        let control = self.control().metrics();
        let (term, coordinator) = {
            let control = control.borrow();
            (dkv_base::id::Term(control.current_term), control.current_leader)
        };
        let mut primaries: BTreeMap<GroupId, NodeId> = lock(&self.coordination.primaries).clone();
        let mut members = BTreeMap::new();
        if self.coordination.leader_since().is_some() && coordinator == Some(self.me.id) {
            for (group, (leader, led)) in self.heard(|heard, now| heard.led(now)) {
                primaries.insert(group, leader);
                let of = |nodes: Vec<NodeId>| nodes.into_iter().collect();
                members.insert(group, (of(led.voters), of(led.learners)));
            }
        }
        for group in self.groups().into_iter().filter(|group| group.id().is_shard()) {
            let configured = group.configured();
            // For a group that this node is not a voter of, it knows only the past.
            if configured.voters.contains(&self.me.id) {
                match group.leader() {
                    Some(leader) => drop(primaries.insert(group.id(), leader)),
                    None => drop(primaries.remove(&group.id())),
                }
                members.insert(group.id(), (configured.voters, configured.others));
            }
        }
        let states = match self.coordination.leader_since() {
            Some(since) if coordinator == Some(self.me.id) => self.states(since),
            // A replicant knows only that the coordinator and itself are alive; it assumes so of
            // the rest.
            _ => self
                .connections
                .peers
                .known()
                .into_iter()
                .map(|(id, _)| (id, NodeState::Live))
                .collect(),
        };
        let mut observed = Observed { term, coordinator, states, primaries, members };
        observed.states.insert(self.me.id, NodeState::Live);
        self.replicas
            .control
            .state_machine()
            .with_directory(|directory| directory.to_view(&observed))?
    }

    /// Returns all figures of the node.
    pub(crate) fn figures(&self) -> Figures {
        let (stats, syncs) = (self.store.wal.stats(), self.store.wal.sync_times());
        Figures {
            status: self.status(),
            counted: self.counters.counted(),
            syncs,
            entries_written: stats.entries_written,
            staged_bytes: stats.staged_bytes,
            connections: self.connections.acceptor.open_count(),
            groups: self.groups().iter().map(|group| group.figures()).collect(),
        }
    }

    /// Returns the status of this node.
    pub(crate) fn status(&self) -> NodeStatus {
        let stats = self.store.wal.stats();
        NodeStatus {
            id: self.me.id,
            name: self.me.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: self.started.elapsed().as_millis() as u64,
            server_seen_ms: self.connections.server.seen().map(|seen| seen.as_millis() as u64),
            groups: self.groups().iter().map(|group| group.status()).collect(),
            log_bytes: stats.bytes_on_disk,
            fsync_us: stats.fsync_us_median,
            disk_full: self.store.disk_full(),
            pending: self.store.outboxes.all().iter().map(|outbox| outbox.len() as u64).sum(),
            notes: self.connections.incarnations.notes(),
        }
    }
}
