//! Which nodes the coordinator sees as live, suspect, down or joining.

use std::collections::BTreeMap;

use dkv_base::id::NodeId;
use dkv_state::placement::down_after_ms;
use dkv_wire::network::NodeState;
use tokio::time::Instant;

use super::Node;

impl Node {
    /// Returns for each node in the directory how long ago it was last heard, in milliseconds. A
    /// node that was never heard counts as silent since this node became the coordinator.
    pub(crate) fn silence(&self, since: Instant) -> BTreeMap<NodeId, u64> {
        let leader_ms = since.elapsed().as_millis() as u64;
        let heard = self.control().silence();
        let ids = self
            .control()
            .state_machine()
            .with_directory(|directory| directory.nodes().keys().copied().collect::<Vec<_>>());
        ids.unwrap_or_default()
            .into_iter()
            .map(|id| match heard.get(&id) {
                _ if id == self.id() => (id, 0),
                Some(silent_ms) => (id, *silent_ms),
                None => (id, leader_ms),
            })
            .collect()
    }

    /// Returns the states of the nodes as this coordinator sees them, for display.
    pub(crate) fn states(&self, since: Instant) -> BTreeMap<NodeId, NodeState> {
        let suspect_ms = self.control().live_within_ms();
        let down_ms = down_after_ms(suspect_ms);
        let metrics = self.control().metrics();
        let metrics = metrics.borrow();
        let membership = metrics.membership_config.membership();
        let heard = self.control().silence();
        let members: Vec<NodeId> = membership.nodes().map(|(id, _)| *id).collect();
        let voters: Vec<NodeId> = membership.voter_ids().collect();
        drop(metrics);
        self.silence(since)
            .into_iter()
            .map(|(id, silent_ms)| {
                let joined = id == self.id() || (members.contains(&id) && heard.contains_key(&id));
                // A voter has joined long ago, whether or not this coordinator has ever heard it.
                let known = joined || voters.contains(&id);
                let state = match silent_ms {
                    silent_ms if silent_ms > down_ms => NodeState::Down,
                    silent_ms if silent_ms > suspect_ms && known => NodeState::Suspect,
                    _ if joined => NodeState::Live,
                    _ => NodeState::Joining,
                };
                (id, state)
            })
            .collect()
    }
}
