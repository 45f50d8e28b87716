//! The status of a replica, as it sees itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use dkv_base::id::{GroupId, NodeId, Term};
use dkv_base::sync::lock;
use dkv_wire::message::{GroupRole, GroupStatus, LedGroup, MemberProgress, ReplicaStatus};
use tokio::time::Instant;

use super::Replica;
use crate::common::unix_time::unix_ms;
use crate::raft::{self, Metrics, ServerState};

/// Figures of one group on this node.
#[derive(Clone, Debug)]
pub struct GroupFigures {
    /// The group.
    pub group: GroupId,
    /// Index of the last entry that this node knows to be committed.
    pub committed_index: u64,
    /// Number of times that another leader, or the same in another term, was seen since the start.
    pub leader_changes: u64,
    /// Writes that wait for a batch.
    pub writes_waiting: usize,
    /// Reads that wait for a round.
    pub reads_waiting: usize,
}

/// Returns the term in which a replica leads and has applied an entry, if it does.
pub(crate) fn leading(metrics: &Metrics) -> Option<Term> {
    let is_own = metrics.last_applied.is_some_and(|last| *last.leader_id == metrics.current_term);
    let leads = metrics.state == ServerState::Leader && is_own;
    leads.then_some(Term(metrics.current_term))
}

impl Replica {
    /// The figures that only this node can know.
    pub(crate) fn figures(&self) -> GroupFigures {
        GroupFigures {
            group: self.id,
            committed_index: index(self.metrics().borrow().local_committed),
            leader_changes: self.leaders_seen.load(Ordering::Relaxed).saturating_sub(1),
            writes_waiting: self.writes.max_capacity() - self.writes.capacity(),
            reads_waiting: self.reads.max_capacity() - self.reads.capacity(),
        }
    }

    /// Records the current leader, for [`figures`](Self::figures) and
    /// [`turnovers`](Self::turnovers), and how far the log is, for [`measure`](Self::measure). Call
    /// it periodically.
    pub(crate) fn note_leader(&self) {
        let (seen, last_index) = {
            let metrics = self.metrics();
            let metrics = metrics.borrow();
            let seen = metrics.current_leader.map(|leader| (Term(metrics.current_term), leader));
            (seen, metrics.last_log_index.unwrap_or_default())
        };
        lock(&self.log_samples).note(last_index, Instant::now());
        if let Some(seen) = seen {
            let now = (Instant::now(), unix_ms());
            if self.turnovers().note(self.id, seen, self.me, now) {
                self.leaders_seen.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// The report on the group to the coordinator, if this replica leads.
    pub(crate) fn measure(&self) -> Option<LedGroup> {
        // Before the metrics are borrowed: a thread that borrows them twice waits for ever if they
        // are to be changed in between.
        let silence = self.silence();
        let metrics = self.metrics();
        let metrics = metrics.borrow();
        if metrics.state != ServerState::Leader {
            return None;
        }
        let configured = raft::configured(&metrics);
        let last_index = metrics.last_log_index.unwrap_or_default();
        let others = metrics.replication.iter().flatten().filter(|(node, _)| **node != self.me);
        let (samples, now) = (lock(&self.log_samples), Instant::now());
        let members = others.map(|(node, matched)| {
            let matched_index = index(*matched);
            let live = silence.get(node).is_some_and(|silent| *silent <= self.live_within_ms());
            let is_ready = live && samples.is_caught_up(matched_index, last_index, now);
            MemberProgress { node: *node, matched_index, is_ready }
        });
        Some(LedGroup {
            group: self.id,
            term: Term(metrics.current_term),
            voters: configured.voters.iter().copied().collect(),
            learners: configured.others.iter().copied().collect(),
            is_joint: configured.is_joint,
            bytes: self.state_machine().summary().bytes,
            last_index,
            members: members.collect(),
            is_changing: !configured.is_applied || configured.is_joint,
        })
    }

    /// Returns whether this replica has heard the leader that it follows lately. openraft goes on
    /// naming one that died, as long as no other is elected.
    fn hears_leader(&self) -> bool {
        let heard = self.state_machine().followed_at();
        heard.is_some_and(|at| is_heard(Some(at.elapsed().as_millis() as u64), self.unheard_ms()))
    }

    /// The status of this replica.
    pub(crate) fn status(&self) -> GroupStatus {
        // As above.
        let silence = self.silence();
        let metrics = self.metrics();
        let metrics = metrics.borrow();
        let membership = metrics.membership_config.membership();
        let summary = self.state_machine().summary();
        GroupStatus {
            group: self.id,
            role: role(metrics.state),
            term: Term(metrics.current_term),
            leader: metrics
                .current_leader
                .filter(|leader| *leader == self.me || self.hears_leader()),
            voters: membership.voter_ids().collect(),
            halves: halves(membership.get_joint_config()),
            learners: membership.learner_ids().collect(),
            last_index: metrics.last_log_index.unwrap_or_default(),
            applied_index: summary.applied_index,
            checkpoint_index: index(metrics.snapshot),
            purged_index: index(metrics.purged),
            keys: summary.keys,
            bytes: summary.bytes,
            revision: summary.revision,
            state_hash: summary.hash,
            replicas: replicas(&metrics, self.me, &silence, self.unheard_ms()),
        }
    }
}

pub(super) fn index(log_id: Option<raft::LogId>) -> u64 {
    log_id.map_or(0, |log_id| log_id.index)
}

/// The halves of a joint configuration; none of any other.
fn halves(halves: &[BTreeSet<NodeId>]) -> Vec<Vec<NodeId>> {
    if halves.len() < 2 {
        return Vec::new();
    }
    halves.iter().map(|half| half.iter().copied().collect()).collect()
}

fn role(state: ServerState) -> GroupRole {
    match state {
        ServerState::Leader => GroupRole::Leader,
        ServerState::Follower => GroupRole::Follower,
        ServerState::Candidate => GroupRole::Candidate,
        ServerState::Learner | ServerState::Shutdown => GroupRole::Learner,
    }
}

fn replicas(
    metrics: &Metrics,
    me: NodeId,
    silent: &BTreeMap<NodeId, u64>,
    unheard_ms: u64,
) -> Vec<ReplicaStatus> {
    let Some(replication) = &metrics.replication else { return Vec::new() };
    replication
        .iter()
        .filter(|(node, _)| **node != me)
        .map(|(node, matched)| ReplicaStatus {
            node: *node,
            matched_index: index(*matched),
            silent_ms: silent.get(node).copied(),
            is_heard: is_heard(silent.get(node).copied(), unheard_ms),
        })
        .collect()
}

/// Returns whether a member that has been silent for so long still counts as heard.
fn is_heard(silent_ms: Option<u64>, unheard_ms: u64) -> bool {
    silent_ms.is_some_and(|ms| ms < unheard_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_joint_configuration_has_halves() {
        let [one, other] = [(); 2].map(|()| NodeId::random());
        assert!(halves(&[BTreeSet::from([one, other])]).is_empty());
        let joint = [BTreeSet::from([one]), BTreeSet::from([other])];
        assert_eq!(halves(&joint), [vec![one], vec![other]]);
    }

    #[test]
    fn a_member_that_is_silent_for_long_is_not_heard() {
        assert!(is_heard(Some(2999), 3000));
        assert!(!is_heard(Some(3000), 3000));
        assert!(!is_heard(None, 3000));
    }
}
