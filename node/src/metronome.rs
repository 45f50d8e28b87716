//! Gives the time for heartbeats, to all groups at once.
//!
//! openraft has a clock for each group. Heartbeats that each group sends by its own clock are as many
//! packets, answers and wake-ups as there are groups; at one moment for all, those to one node go
//! together (see `raft/pulse.rs`).

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{MissedTickBehavior, timeout};

use crate::node::Node;

/// Runs for the life of the node.
pub(crate) async fn run(node: Arc<Node>) {
    let every = Duration::from_millis(node.settings().heartbeat_ms);
    let mut beats = tokio::time::interval(every);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        let groups = node.groups();
        let led = groups.iter().filter(|group| group.leads());
        // A group that is behind with its work holds up no other.
        let _ = timeout(every, join_all(led.map(|group| group.send_heartbeats()))).await;
    }
}
