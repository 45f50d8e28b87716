//! Tells each group how far its members are.
//!
//! The distance is measured by the connections that carry the group's messages. A connection shows
//! how far its other end is as soon as it is made, so that a group knows before it says anything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dkv_wire::id::NodeId;

use crate::node::Node;

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Runs for the life of the node.
pub(crate) async fn run(node: Arc<Node>) {
    loop {
        node.rhythm().pause(LOOK_EVERY).await;
        let mut measured: BTreeMap<NodeId, Option<Duration>> = BTreeMap::new();
        for group in node.groups() {
            let others = group.members().into_iter().filter(|member| *member != node.id());
            let distances = others.filter_map(|member| {
                *measured.entry(member).or_insert_with(|| node.peers().round_trip(member))
            });
            // Where nobody can be reached just now, the last that is known is the best guess.
            if let Some(farthest) = distances.max() {
                group.pace().set_round_trip(farthest);
            }
        }
    }
}
