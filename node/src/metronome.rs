//! Gives the time for heartbeats, to all groups at once.
//!
//! openraft has a clock for each group. Heartbeats that each group sends by its own clock are as many
//! packets, answers and wake-ups as there are groups; at one moment for all, those to one node go
//! together (see `raft/pulse.rs`).
//!
//! The clocks of groups that hear their leaders rest meanwhile. One that has not heard its leader for one
//! and a half heartbeats runs again at the next beat: in time, as no election time is shorter than three.
//! A node that neither leads nor votes in anything looks only now and then whether it does.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{MissedTickBehavior, sleep, timeout};

use crate::node::Node;

/// Beats that a node leaves out while it only follows.
const BEATS_LEFT_OUT: u32 = 5;

/// Runs for the life of the node.
pub(crate) async fn run(node: Arc<Node>) {
    let every = Duration::from_millis(node.settings().heartbeat_ms);
    let mut beats = tokio::time::interval(every);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        let groups = node.groups();
        for group in &groups {
            group.mind_elections(every * 3 / 2);
        }
        let led: Vec<_> = groups.iter().filter(|group| group.leads()).collect();
        node.expect_heartbeats(led.len());
        // A group that is behind with its work holds up no other.
        let _ = timeout(every, join_all(led.iter().map(|group| group.send_heartbeats()))).await;
        if node.only_follows() {
            sleep(every * BEATS_LEFT_OUT).await;
        }
    }
}
