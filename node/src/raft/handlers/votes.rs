//! Votes that a replica does not give, beyond what openraft decides.

use std::sync::atomic::Ordering;
use std::time::Duration;

use dkv_base::id::NodeId;
use openraft::raft::VoteResponse;
use tokio::time::Instant;

use super::ReplicaHandle;
use crate::raft::adapter::forget_leader;
use crate::raft::{MetricsWatch, Types};

impl ReplicaHandle {
    /// Withdraws the promise not to vote against `leader` while the replica hears it. The promise
    /// holds again as soon as the replica hears that leader again.
    pub(crate) async fn forget_leader(&self, leader: NodeId) {
        // Note the time first: a heartbeat that arrives meanwhile may be a later one.
        self.forgotten.forget(Instant::now());
        forget_leader(&self.raft, leader).await;
    }

    /// Returns whether a vote would break the promise to a leader that this replica had forgotten
    /// and has heard again since.
    ///
    /// openraft withdraws such a promise for the whole term, so this module keeps it instead. It
    /// lasts as long as openraft's.
    pub(super) fn keeps_to_leader(&self) -> bool {
        let lease = Duration::from_millis(self.raft.config().election_timeout_max);
        let heard = self.state_machine.followed_at();
        self.forgotten.keeps(heard, self.time_scale.stretch(lease), Instant::now())
    }

    /// Sets whether this replica has still to begin the group, as each of its first voters does.
    pub(crate) fn set_to_begin(&self, is_to_begin: bool) {
        self.is_to_begin.store(is_to_begin, Ordering::Release);
    }

    /// Returns whether a vote would keep this replica from beginning the group: openraft begins
    /// none once it has voted. If the candidate died then, nobody would ever begin it.
    pub(super) fn has_to_begin_first(&self) -> bool {
        if !self.is_to_begin.load(Ordering::Acquire) {
            return false;
        }
        let metrics = MetricsWatch::of(&self.raft);
        let metrics = metrics.borrow();
        metrics.last_log_index.is_none() && metrics.vote.leader_id.term == 0
    }

    /// Returns the answer to a candidate that does not get this replica's vote.
    pub(super) fn refuse_vote(&self) -> VoteResponse<Types> {
        let metrics = MetricsWatch::of(&self.raft);
        let vote = metrics.borrow().vote;
        VoteResponse::new(vote, None, false)
    }
}
