//! Keeps the log within its bytes, and notices when its disk is full or stalls.
//!
//! The log of all groups is one, and its oldest segment can go only when no group needs it any
//! more. So when the log has grown past half of what it may have, the groups that hold on to the
//! oldest segment are made to let go of it: first a checkpoint, and once that is durable, a purge
//! up to where the segment ends. What a member that was away still lacks and the log no longer has,
//! it gets as a snapshot; so does a member that is there and slower than the writes, when the log
//! has grown past three quarters of what it may have and could be purged but for that member. No
//! quorum needs it: what is purged is committed, and in a checkpoint.
//!
//! All of that takes its time, and writes may be faster: then they wait. See `writes`.
//!
//! A disk that stalls without failing leaves a primary that still sends heartbeats and never
//! commits anything of its own. It hands over to a voter whose disk works.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dkv_base::id::GroupId;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::node::Node;

/// How often the log is looked at.
const TICK: Duration = Duration::from_millis(50);
/// How soon again while it is too long. Each time one segment can go at most, and a busy log fills
/// many of them in a second.
const TICK_WHILE_LONG: Duration = Duration::from_millis(10);
/// How seldom while nothing is written.
const TICK_AT_REST: Duration = Duration::from_millis(250);

/// Bytes of changed rows after which a checkpoint is taken: it is one batch, and all of it is in
/// memory while it is written.
const CHANGED_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Time that a purge may wait for a member that is still sent what is to be purged.
const PURGE_PATIENCE: Duration = Duration::from_millis(500);
/// Time in which a write does not end after which the disk is taken to have stalled.
const STALLED_AFTER_MIN: Duration = Duration::from_secs(1);
/// The same as a multiple of the longest election time.
const STALLED_AFTER_ELECTIONS: u32 = 5;

/// Runs for the life of the node.
pub(crate) async fn run(node: Arc<Node>) {
    let mut tick = TICK;
    let mut asked = Asked::default();
    let mut fsyncs = 0;
    loop {
        match tick {
            TICK_WHILE_LONG => tokio::time::sleep(tick).await,
            _ => node.ticks().pause(tick).await,
        }
        let stats = node.wal().stats();
        node.set_disk_full(stats.short_of_room || stats.waiting_for_room);
        let pending = Duration::from_micros(stats.write_pending_us);
        if pending >= stalled_after(&node) {
            step_aside(&node, pending).await;
        }
        for group in node.groups() {
            if group.state_machine().changed_bytes() >= CHANGED_BYTES_MAX {
                debug!(group = %group.id(), "taking a checkpoint of what has changed");
                group.checkpoint().await;
            }
        }
        let log_bytes_max = node.settings().log_bytes_max;
        let is_long = stats.bytes_on_disk > log_bytes_max / 2;
        let at_rest = stats.fsyncs == fsyncs && stats.staged_bytes == 0;
        fsyncs = stats.fsyncs;
        tick = match (is_long, at_rest) {
            (true, _) => TICK_WHILE_LONG,
            (false, false) => TICK,
            (false, true) => TICK_AT_REST,
        };
        if !is_long {
            continue;
        }
        for (id, last) in stats.oldest {
            let Some(group) = node.group(id) else {
                // An outbox whose primary is away: its place in the log can change, its writes
                // stay.
                let outbox = id.outbox_shard().and_then(|shard| node.outboxes().get(shard));
                if let Some(outbox) = outbox {
                    outbox.rewrite();
                }
                continue;
            };
            if group.checkpoint_index() >= last {
                debug!(group = %id, upto = last, "purging the log");
                group.purge(last).await;
                let too_long = stats.bytes_on_disk > log_bytes_max / 4 * 3;
                let (stays, leads) = (group.purged_index() < last, group.leads());
                if stays && (too_long || !leads) && asked.in_vain(id, last, Instant::now()) {
                    if leads {
                        // What a leader still streams to a slow member stays until that has it.
                        info!(group = %id, upto = last, "leaving slow members behind: they get a snapshot");
                        group.leave_behind(last);
                    } else {
                        // openraft put it off while it led and streamed these entries, and as a
                        // follower it does not come back to it before the next checkpoint.
                        debug!(group = %id, upto = last, "asking again, with another checkpoint");
                        group.checkpoint().await;
                    }
                }
            } else if group.state_machine().applied_index() > group.checkpoint_index() {
                debug!(group = %id, "taking a checkpoint to purge the log");
                group.checkpoint().await;
            }
        }
    }
}

/// Which purges were asked for, and since when in vain.
#[derive(Default)]
struct Asked {
    first: BTreeMap<GroupId, (u64, Instant)>,
}

impl Asked {
    /// The log of a group should have been purged up to that entry, and is not. Whether that has
    /// been so for too long; if it goes on, it is so again after as long.
    fn in_vain(&mut self, group: GroupId, upto: u64, now: Instant) -> bool {
        let (asked, since) = *self.first.entry(group).or_insert((upto, now));
        let in_vain = asked == upto && now.saturating_duration_since(since) >= PURGE_PATIENCE;
        if in_vain || asked != upto {
            self.first.insert(group, (upto, now));
        }
        in_vain
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purge_is_in_vain_when_it_was_asked_for_long_ago() {
        let (mut asked, start) = (Asked::default(), Instant::now());
        let ms = |ms| start + Duration::from_millis(ms);
        assert!(!asked.in_vain(GroupId(1), 10, ms(0)));
        assert!(!asked.in_vain(GroupId(1), 10, ms(499)));
        assert!(!asked.in_vain(GroupId(2), 10, ms(500)), "another group's");
        assert!(asked.in_vain(GroupId(1), 10, ms(500)));
        // Those who were left behind have as long again.
        assert!(!asked.in_vain(GroupId(1), 10, ms(510)));
        assert!(asked.in_vain(GroupId(1), 10, ms(1000)));
        // It went on, and stops at another place.
        assert!(!asked.in_vain(GroupId(1), 20, ms(1600)));
        assert!(!asked.in_vain(GroupId(1), 20, ms(2000)));
        assert!(asked.in_vain(GroupId(1), 20, ms(2100)));
    }
}
