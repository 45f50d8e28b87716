//! The members of a group, and whose votes count, as far as this node knows.

use std::collections::BTreeSet;

use dkv_base::id::NodeId;
use dkv_base::mutants::{Mutant, planted};

use super::{LogId, Metrics, Raft};

/// Whether the vote of a member may count, and it may have to stand: it votes by the newest
/// configuration that is known here, or that one is not known to be committed.
///
/// Who votes by the configuration before that only, of either half, may be needed yet. It may have
/// the longest log of all who are left, and be the only one who knows of the new configuration.
/// Which was committed last, openraft knows exactly, and lets nobody stand who is in neither; that
/// it looks costs nothing.
pub(crate) fn may_vote(metrics: &Metrics, member: NodeId) -> bool {
    let newest = &metrics.membership_config;
    let index = |log_id: Option<LogId>| log_id.map(|log_id| log_id.index);
    let is_committed = index(*newest.log_id()) <= index(metrics.local_committed);
    newest.membership().voter_ids().any(|voter| voter == member)
        || !is_committed && !planted(Mutant::ElectByNewest)
}

/// All whose vote may count: who votes by the configuration that was committed last, or by a later
/// one. Empty if the group has stopped.
pub(crate) async fn electorate(raft: &Raft) -> BTreeSet<NodeId> {
    let voters = raft.with_raft_state(|state| {
        let (committed, newest) =
            (state.membership_state.committed(), state.membership_state.effective());
        committed.membership().voter_ids().chain(newest.membership().voter_ids()).collect()
    });
    voters.await.unwrap_or_default()
}

/// The members of a group by the newest configuration that is known here.
pub(crate) struct Configured {
    /// Index of the entry that it is in.
    pub(crate) index: u64,
    /// Whether that entry is applied here, and so committed.
    pub(crate) is_applied: bool,
    /// Nodes whose vote counts; of a joint configuration, those of the newer half.
    pub(crate) voters: BTreeSet<NodeId>,
    /// All other members.
    pub(crate) others: BTreeSet<NodeId>,
    /// Whether it is joint.
    pub(crate) is_joint: bool,
}

/// The members of a group, as its metrics have them.
pub(crate) fn configured(metrics: &Metrics) -> Configured {
    let stored = &metrics.membership_config;
    let index = stored.log_id().as_ref().map_or(0, |log_id| log_id.index);
    let applied = metrics.last_applied.as_ref().map_or(0, |log_id| log_id.index);
    let membership = stored.membership();
    let voters = membership.get_joint_config().last().cloned().unwrap_or_default();
    let all = membership.nodes().map(|(node, _)| *node);
    let others = all.filter(|node| !voters.contains(node)).collect();
    let is_joint = membership.get_joint_config().len() > 1;
    Configured { index, is_applied: index <= applied, voters, others, is_joint }
}
