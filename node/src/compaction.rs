//! Keeps the log within its bytes, and notices when its disk is full or stalls.
//!
//! The log of all groups is one, and its oldest segment can go only when no group needs it any
//! more. So when the log has grown past half of what it may have, the groups that hold on to the
//! oldest segment are made to let go of it: first a checkpoint, and once that is durable, a purge
//! up to where the segment ends. What a member that was away still lacks and the log no longer has,
//! it gets as a snapshot.
//!
//! A disk that stalls without failing leaves a primary that still sends heartbeats and never
//! commits anything of its own. It hands over to a voter whose disk works.

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, warn};

use crate::node::Node;

/// How often the log is looked at.
const TICK: Duration = Duration::from_millis(200);
/// How soon again while it is too long. Each time one segment can go at most, and a busy log fills
/// many of them in a second.
const TICK_WHILE_LONG: Duration = Duration::from_millis(10);

/// Bytes of changed rows after which a checkpoint is taken: it is one batch, and all of it is in
/// memory while it is written.
const CHANGED_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Time in which a write does not end after which the disk is taken to have stalled.
const STALLED_AFTER_MIN: Duration = Duration::from_secs(1);
/// The same as a multiple of the longest election time.
const STALLED_AFTER_ELECTIONS: u32 = 5;

/// Runs for the life of the node.
pub(crate) async fn run(node: Arc<Node>) {
    let mut tick = TICK;
    loop {
        tokio::time::sleep(tick).await;
        let stats = node.wal().stats();
        node.set_disk_full(stats.short_of_room || stats.waiting_for_room);
        let pending = Duration::from_micros(stats.write_pending_us);
        if pending >= stalled_after(&node) {
            step_aside(&node, pending).await;
        }
        for group in node.groups() {
            if group.machine().changed_bytes() >= CHANGED_BYTES_MAX {
                debug!(group = %group.id(), "taking a checkpoint of what has changed");
                group.checkpoint().await;
            }
        }
        let is_long = stats.bytes_on_disk > node.settings().log_bytes_max / 2;
        tick = if is_long { TICK_WHILE_LONG } else { TICK };
        if !is_long {
            continue;
        }
        for (id, last) in stats.oldest {
            let Some(group) = node.group(id) else { continue };
            if group.checkpoint_index() >= last {
                debug!(group = %id, upto = last, "purging the log");
                group.purge(last).await;
            } else if *group.machine().applied().borrow() > group.checkpoint_index() {
                debug!(group = %id, "taking a checkpoint to purge the log");
                group.checkpoint().await;
            }
        }
    }
}

fn stalled_after(node: &Node) -> Duration {
    let election = Duration::from_millis(node.settings().election_max_ms);
    (election * STALLED_AFTER_ELECTIONS).max(STALLED_AFTER_MIN)
}

/// Hands over whatever this node leads.
async fn step_aside(node: &Node, pending: Duration) {
    for group in node.groups() {
        if group.leads() {
            warn!(group = %group.id(), ?pending, "the disk has stalled: handing over");
            if !group.hand_over(TICK).await {
                // Nobody takes over; to ask again at once would not help.
                tokio::time::sleep(STALLED_AFTER_MIN).await;
            }
        }
    }
}
