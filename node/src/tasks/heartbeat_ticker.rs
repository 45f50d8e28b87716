//! Gives the time for heartbeats, to all groups at once.
//!
//! openraft has a clock for each group. Heartbeats that each group sends by its own clock are as
//! many packets, answers and wake-ups as there are groups; at one moment for all, those to one node
//! go together (see `raft/heartbeat/coalescing.rs`).
//!
//! The clocks of groups that hear their leaders rest meanwhile. One that has not heard its leader
//! for one and a half heartbeats runs again at the next beat: in time, as no election time is
//! shorter than three. A node that neither leads nor votes in anything looks only now and then
//! whether it does, and so does one whose groups all rest (see `raft/rest.rs`): it is woken when
//! one of them wakes.

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
        // All groups that rest beat at one moment too.
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
        node.expect_heartbeats(beating.len());
        // A group that is behind with its work holds up no other.
        let _ = timeout(every, join_all(beating.iter().map(|group| group.send_heartbeats()))).await;
        let all_rest = groups.iter().all(|group| group.time_scale().is_quiescent());
        ticks.set_rests(all_rest);
        let seldom = all_rest || node.only_follows();
        let until = if seldom { next_whole } else { ticks.next(every, now) };
        ticks.until_beat(until).await;
    }
}
