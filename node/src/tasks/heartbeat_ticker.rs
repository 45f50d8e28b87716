//! Triggers the heartbeats of all groups at the same moments.
//!
//! openraft has a clock for each group. If each group sent heartbeats by its own clock, there would
//! be as many packets, answers and wake-ups as groups; with one moment for all groups, the
//! heartbeats to one node travel together (see `raft/heartbeat/coalescing.rs`).
//!
//! The clocks of groups that hear their leaders are suspended. A group that has not heard its
//! leader for one and a half heartbeats runs its clock again from the next beat on: in time, as no
//! election time is shorter than three heartbeats. A node that neither leads nor votes in any group
//! checks only now and then whether that has changed, and so does a node whose groups are all
//! quiescent (see `raft/heartbeat/quiescence.rs`): it wakes when one of them wakes.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, timeout};

use crate::node::Node;
use crate::raft::QUIESCENT_SLOWDOWN;

/// Runs for the life of the node.
pub(crate) async fn run(node: Arc<Node>) {
    let every = Duration::from_millis(node.settings().heartbeat_ms);
    let ticks = node.ticks();
    let mut next_whole = Instant::now();
    loop {
        let now = Instant::now();
        // Quiescent groups also beat together.
        let whole = now >= next_whole;
        if whole {
            next_whole = ticks.next(every * QUIESCENT_SLOWDOWN, now);
        }
        let groups = node.groups();
        for group in &groups {
            group.mind_elections(every);
        }
        let beating: Vec<_> = groups
            .iter()
            .filter(|group| group.leads() && group.time_scale().beats(whole))
            .collect();
        node.connections().expect_heartbeats(beating.len());
        // A group that is behind with its work must not delay the others.
        let _ = timeout(every, join_all(beating.iter().map(|group| group.send_heartbeats()))).await;
        let all_quiescent = groups.iter().all(|group| group.time_scale().is_quiescent());
        ticks.set_quiescent(all_quiescent);
        let seldom = all_quiescent || node.replicas().only_follows();
        let until = if seldom { next_whole } else { ticks.next(every, now) };
        ticks.until_beat(until).await;
    }
}
