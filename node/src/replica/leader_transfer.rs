//! Handing leadership over with nothing under way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dkv_base::id::NodeId;
use tokio::sync::oneshot;

use super::Group;
use crate::raft::{Metrics, ServerState};
use crate::replica::write_batches::Hold;

/// Time in which a new leader is heard of once the old one leads no more.
const SUCCESSOR_WAIT: Duration = Duration::from_millis(10);

impl Group {
    /// Hands leadership to the voter that has most of the log, and waits until that is done.
    ///
    /// Returns whether this replica leads no more.
    pub(crate) async fn hand_over(&self, patience: Duration) -> bool {
        let successor = successor(&self.metrics().borrow(), &self.silence(), self.live_within_ms());
        match successor {
            Some(successor) => self.hand_over_to(successor, patience).await,
            None => !self.leads(),
        }
    }

    /// Hands leadership to that voter, and waits until that is done.
    ///
    /// Returns whether this replica leads no more.
    pub(crate) async fn hand_over_to(&self, successor: NodeId, patience: Duration) -> bool {
        self.pace().stir();
        // The request, the vote and the word of the new leader are on their way for as long.
        let patience = patience.max(self.pace().round_trip() * 4);
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
        // Whoever is held here is best told whom to go to; but they find out by themselves too.
        let known = metrics.wait_for(|metrics| metrics.current_leader.is_some());
        let _ = tokio::time::timeout(SUCCESSOR_WAIT, known).await;
        true
    }

    /// Lets no batch begin until what is returned is dropped, and waits, with patience, until those
    /// under way are done. What is not done by then is in doubt for a moment, as after a crash.
    async fn hold(&self, patience: Duration) -> Option<oneshot::Sender<()>> {
        let (drained, when_drained) = oneshot::channel();
        let (hold, released) = oneshot::channel();
        // The control group has no such task, and needs none.
        self.holds.send(Hold { drained, released }).await.ok()?;
        let _ = tokio::time::timeout(patience, when_drained).await;
        Some(hold)
    }
}

/// Of the other voters, one that answers and of these the one that has most of the log.
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
