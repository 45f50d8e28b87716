//! The members of a group and the nodes whose votes count, as far as this node knows.

use std::collections::BTreeSet;

use dkv_base::id::{NodeId, Term};
use dkv_base::mutants::{Mutant, planted};

use super::{LogId, Metrics, Raft};

/// Returns whether a member's vote may count, so that it may have to stand for election.
///
/// It may if the member is a voter in the newest configuration known here, or if that configuration
/// is not known to be committed.
///
/// A voter of only the previous configuration, in either half, may still be needed. It may have the
/// longest log of all remaining members, and be the only one that knows of the new configuration.
/// openraft knows exactly which configuration was committed last, and lets no node stand that is in
/// neither; its check costs nothing.
pub(crate) fn may_vote(metrics: &Metrics, member: NodeId) -> bool {
    let newest = &metrics.membership_config;
    let index = |log_id: Option<LogId>| log_id.map(|log_id| log_id.index);
    let is_committed = index(*newest.log_id()) <= index(metrics.local_committed);
    newest.membership().voter_ids().any(|voter| voter == member)
        || !is_committed && !planted(Mutant::ElectByNewest)
}

/// Returns all nodes whose vote may count: the voters of the configuration that was committed last,
/// and of any later one. Empty if the group has stopped.
pub(crate) async fn electorate(raft: &Raft) -> BTreeSet<NodeId> {
    let voters = raft.with_raft_state(|state| {
        let (committed, newest) =
            (state.membership_state.committed(), state.membership_state.effective());
        committed.membership().voter_ids().chain(newest.membership().voter_ids()).collect()
    });
    voters.await.unwrap_or_default()
}

/// The members of a group in the newest configuration known here.
pub(crate) struct Configured {
    /// Index of the entry that contains the configuration.
    pub(crate) index: u64,
    /// Term of the leader that proposed that entry.
    pub(crate) term: Term,
    /// Whether this replica has applied that entry, which implies that it is committed.
    pub(crate) is_applied: bool,
    /// Nodes whose vote counts; in a joint configuration, those of the newer half.
    pub(crate) voters: BTreeSet<NodeId>,
    /// All other members.
    pub(crate) others: BTreeSet<NodeId>,
    /// Whether the configuration is joint.
    pub(crate) is_joint: bool,
}

/// Returns the members of a group according to its metrics.
pub(crate) fn configured(metrics: &Metrics) -> Configured {
    let stored = &metrics.membership_config;
    let index = stored.log_id().as_ref().map_or(0, |log_id| log_id.index);
    let term = stored.log_id().as_ref().map_or(0, |log_id| *log_id.leader_id);
    let applied = metrics.last_applied.as_ref().map_or(0, |log_id| log_id.index);
    let membership = stored.membership();
    let voters = membership.get_joint_config().last().cloned().unwrap_or_default();
    let all = membership.nodes().map(|(node, _)| *node);
    let others = all.filter(|node| !voters.contains(node)).collect();
    let is_joint = membership.get_joint_config().len() > 1;
    let (term, is_applied) = (Term(term), index <= applied);
    Configured { index, term, is_applied, voters, others, is_joint }
}
