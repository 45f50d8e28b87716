//! Keeps the log within its size limit, and notices when its disk is full or stalls.
//!
//! All groups share one log, and its oldest segment can be deleted only when no group needs it any
//! more. When the log has grown past half of its limit, this task makes the groups that still need
//! the oldest segment release it: it takes a checkpoint first, and once that is durable, it purges
//! up to the end of the segment. A member that was away receives a snapshot in place of the entries
//! that the log no longer has. So does a member that is present but slower than the writes, when
//! the log has grown past three quarters of its limit and only that member prevents a purge. No
//! quorum needs the purged entries: they are committed, and in a checkpoint.
//!
//! All of this takes time, and writes may be faster: then they wait. See `write_batches`.
//!
//! A disk that stalls without failing leaves a primary that still sends heartbeats but never
//! commits anything of its own. Such a primary hands over to a voter whose disk works.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dkv_base::id::GroupId;
use dkv_wire::message::ChangeReason;
use dkv_wire::network::Settings;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::node::{Node, Replicas};

/// Interval between checks of the log.
const TICK: Duration = Duration::from_millis(50);
/// Interval between checks while the log is too long. Each check frees one segment at most, and a
/// busy log fills many of them in a second.
const TICK_WHILE_LONG: Duration = Duration::from_millis(10);
/// Interval between checks while nothing is written.
const TICK_WHILE_IDLE: Duration = Duration::from_millis(250);

/// Most bytes of changed rows after which the task takes a checkpoint: a checkpoint is one batch,
/// and all of it is in memory while it is written.
const CHANGED_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Time that a purge may wait for a member to which the entries are still being sent.
const PURGE_PATIENCE: Duration = Duration::from_millis(500);
/// Least duration of a pending write after which the disk counts as stalled.
const STALLED_AFTER_MIN: Duration = Duration::from_secs(1);
/// The same limit as a multiple of the longest election time.
const STALLED_AFTER_ELECTIONS: u32 = 5;

/// Runs for the life of the node.
pub(crate) async fn run(node: Arc<Node>) {
    let mut tick = TICK;
    let mut asked = RequestedPurges::default();
    let mut fsyncs = 0;
    loop {
        match tick {
            TICK_WHILE_LONG => tokio::time::sleep(tick).await,
            _ => node.ticks().pause(tick).await,
        }
        let stats = node.store().wal().stats();
        node.store().set_disk_full(stats.short_of_room || stats.waiting_for_room);
        let pending = Duration::from_micros(stats.write_pending_us);
        if pending >= stalled_after(&node.settings()) {
            step_aside(node.replicas(), pending).await;
        }
        let log_bytes_max = node.settings().log_bytes_max;
        for group in node.groups() {
            if group.state_machine().changed_bytes() >= changed_bytes_max(log_bytes_max) {
                debug!(group = %group.id(), "taking a checkpoint of what has changed");
                group.checkpoint().await;
            }
        }
        let is_long = stats.bytes_on_disk > log_bytes_max / 2;
        let is_idle = stats.fsyncs == fsyncs && stats.staged_bytes == 0;
        fsyncs = stats.fsyncs;
        tick = match (is_long, is_idle) {
            (true, _) => TICK_WHILE_LONG,
            (false, false) => TICK,
            (false, true) => TICK_WHILE_IDLE,
        };
        if !is_long {
            continue;
        }
        for (id, last) in stats.oldest {
            let Some(group) = node.group(id) else {
                // An outbox whose primary is away: it can move its writes to the end of the log,
                // but keeps them.
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
                        // A leader keeps the entries that it is still sending to a slow member
                        // until that member has them.
                        info!(group = %id, upto = last, "leaving slow members behind: they get a snapshot");
                        group.leave_behind(last);
                    } else {
                        // openraft put off the purge while it led and sent these entries, and as a
                        // follower it does not return to it before the next checkpoint.
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

/// Purges that were asked for, and since when each has had no effect.
#[derive(Default)]
struct RequestedPurges {
    first: BTreeMap<GroupId, (u64, Instant)>,
}

impl RequestedPurges {
    /// Records that the log of a group should have been purged up to `upto`, and is not. Returns
    /// whether this has lasted too long; if it goes on, it returns true again after the same time.
    fn in_vain(&mut self, group: GroupId, upto: u64, now: Instant) -> bool {
        let (asked, since) = *self.first.entry(group).or_insert((upto, now));
        let in_vain = asked == upto && now.saturating_duration_since(since) >= PURGE_PATIENCE;
        if in_vain || asked != upto {
            self.first.insert(group, (upto, now));
        }
        in_vain
    }
}

/// Returns the bytes of changed rows after which a checkpoint is taken. Writes wait once they are
/// as many as the log may have, and the log need not be long then: a command that appends is
/// shorter than the value that it makes.
fn changed_bytes_max(log_bytes_max: u64) -> usize {
    CHANGED_BYTES_MAX.min(usize::try_from(log_bytes_max / 2).unwrap_or(usize::MAX))
}

fn stalled_after(settings: &Settings) -> Duration {
    let election = Duration::from_millis(settings.election_max_ms);
    (election * STALLED_AFTER_ELECTIONS).max(STALLED_AFTER_MIN)
}

/// Hands over all groups that this node leads.
async fn step_aside(replicas: &Replicas, pending: Duration) {
    for group in replicas.all() {
        if group.leads() {
            warn!(group = %group.id(), ?pending, "the disk has stalled: handing over");
            group.turnovers().expect(ChangeReason::DiskStalled, Instant::now());
            if !group.hand_over(TICK).await {
                // No voter takes over; asking again at once would not help.
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
        let (mut asked, start) = (RequestedPurges::default(), Instant::now());
        let ms = |ms| start + Duration::from_millis(ms);
        assert!(!asked.in_vain(GroupId(1), 10, ms(0)));
        assert!(!asked.in_vain(GroupId(1), 10, ms(499)));
        assert!(!asked.in_vain(GroupId(2), 10, ms(500)), "another group's");
        assert!(asked.in_vain(GroupId(1), 10, ms(500)));
        // The members that were left behind have the same time again.
        assert!(!asked.in_vain(GroupId(1), 10, ms(510)));
        assert!(asked.in_vain(GroupId(1), 10, ms(1000)));
        // The purge went on, and stops at another entry.
        assert!(!asked.in_vain(GroupId(1), 20, ms(1600)));
        assert!(!asked.in_vain(GroupId(1), 20, ms(2000)));
        assert!(asked.in_vain(GroupId(1), 20, ms(2100)));
    }
}
