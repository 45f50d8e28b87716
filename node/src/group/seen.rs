//! How a replica is, as it sees itself.

use std::sync::atomic::Ordering;

use dkv_wire::id::{NodeId, Term};
use dkv_wire::message::{GroupRole, GroupStatus, ReplicaStatus};

use super::Group;
use crate::observer::GroupFigures;
use crate::raft::{self, Metrics, ServerState};

impl Group {
    /// What only this node can know.
    pub(crate) fn figures(&self) -> GroupFigures {
        GroupFigures {
            group: self.id,
            leader_changes: self.leaders_seen.load(Ordering::Relaxed).saturating_sub(1),
            writes_waiting: self.writes.max_capacity() - self.writes.capacity(),
            reads_waiting: self.reads.max_capacity() - self.reads.capacity(),
        }
    }

    /// Looks who leads, for [`figures`](Self::figures). To be called now and then.
    pub(crate) fn note_leader(&self) {
        let metrics = self.metrics();
        let metrics = metrics.borrow();
        if metrics.current_leader.is_some() {
            let term = metrics.current_term;
            if self.led_term.swap(term, Ordering::Relaxed) != term {
                self.leaders_seen.fetch_add(1, Ordering::Relaxed);
            }
        }
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
}

pub(super) fn index(log_id: Option<raft::LogId>) -> u64 {
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
