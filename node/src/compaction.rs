//! Keeps the log within its bytes.
//!
//! The log of all groups is one, and its oldest segment can go only when no group needs it any
//! more. So when the log has grown past half of what it may have, the groups that hold on to the
//! oldest segment are made to let go of it: first a checkpoint, and once that is durable, a purge
//! up to where the segment ends. What a member that was away still lacks and the log no longer has,
//! it gets as a snapshot.

use std::sync::Arc;
use std::time::Duration;

use tracing::debug;

use crate::node::Node;

/// How often the log is looked at.
const TICK: Duration = Duration::from_millis(200);

/// Runs for the life of the node.
pub(crate) async fn run(node: Arc<Node>) {
    loop {
        tokio::time::sleep(TICK).await;
        let stats = node.wal().stats();
        node.set_disk_full(stats.short_of_room || stats.waiting_for_room);
        if stats.bytes_on_disk <= node.settings().log_bytes_max / 2 {
            continue;
        }
        for (id, last) in stats.oldest {
            let Some(group) = node.group(id) else { continue };
            if group.checkpoint_index() >= last {
                debug!(group = %id, upto = last, "purging the log");
                group.purge(last).await;
            } else {
                debug!(group = %id, "taking a checkpoint to purge the log");
                group.checkpoint().await;
            }
        }
    }
}
