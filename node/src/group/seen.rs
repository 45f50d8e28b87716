//! How a replica is, as it sees itself.

use dkv_wire::id::{NodeId, Term};
use dkv_wire::message::{GroupRole, GroupStatus, ReplicaStatus};

use super::Group;
use crate::raft::{self, Metrics, ServerState};

impl Group {
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
