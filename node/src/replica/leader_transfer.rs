//! Transfer of leadership with no batch in flight.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dkv_base::id::NodeId;
use tokio::sync::oneshot;

use super::Replica;
use crate::raft::{Metrics, ServerState};
use crate::replica::write_batches::Hold;

/// Time to wait for news of the new leader once the old one no longer leads.
const SUCCESSOR_WAIT: Duration = Duration::from_millis(10);

impl Replica {
    /// Transfers leadership to the voter that has most of the log, and waits until that is done.
    ///
    /// Returns whether this replica no longer leads.
    pub(crate) async fn hand_over(&self, patience: Duration) -> bool {
        let successor = successor(&self.metrics().borrow(), &self.silence(), self.live_within_ms());
        match successor {
            Some(successor) => self.hand_over_to(successor, patience).await,
            None => !self.leads(),
        }
    }

    /// Transfers leadership to `successor`, and waits until that is done.
    ///
    /// Returns whether this replica no longer leads.
    pub(crate) async fn hand_over_to(&self, successor: NodeId, patience: Duration) -> bool {
        self.time_scale().wake();
        // The request, the vote and the word of the new leader take this long to travel.
        let patience = patience.max(self.time_scale().round_trip() * 4);
        let mut metrics = self.metrics();
        // Held until the end of this function.
        let _hold = self.hold(patience / 2).await;
        if self.raft().trigger().transfer_leader(successor).await.is_err() {
            return false;
        }
        let gone = metrics.wait_for(|metrics| {
            metrics.state != ServerState::Leader && metrics.current_leader != Some(self.me)
        });
        if !matches!(tokio::time::timeout(patience, gone).await, Ok(Ok(()))) {
            return false;
        }
        // The refusals of waiting requests best name the new leader; but clients find it by
        // themselves too.
        let known = metrics.wait_for(|metrics| metrics.current_leader.is_some());
        let _ = tokio::time::timeout(SUCCESSOR_WAIT, known).await;
        true
    }

    /// Lets no batch begin until the returned sender is dropped, and waits at most `patience` until
    /// those in flight are done. A batch that is not done by then is in doubt for a moment, as
    /// after a crash.
    async fn hold(&self, patience: Duration) -> Option<oneshot::Sender<()>> {
        let (drained, when_drained) = oneshot::channel();
        let (hold, released) = oneshot::channel();
        // The control group has no write task, and needs none.
        self.holds.send(Hold { drained, released }).await.ok()?;
        let _ = tokio::time::timeout(patience, when_drained).await;
        Some(hold)
    }
}

/// Returns the voter that has most of the log among the other voters that answer, or among all of
/// them if none answers.
fn successor(
    metrics: &Metrics,
    silence: &BTreeMap<NodeId, u64>,
    live_within_ms: u64,
) -> Option<NodeId> {
    let live = |node: &NodeId| silence.get(node).is_some_and(|ms| *ms <= live_within_ms);
    let voters: BTreeSet<NodeId> = metrics.membership_config.membership().voter_ids().collect();
    let replication = metrics.replication.as_ref()?;
    replication
        .iter()
        .filter(|(node, _)| **node != metrics.id && voters.contains(node))
        .max_by_key(|(node, matched)| (live(node), **matched))
        .map(|(node, _)| *node)
}
