//! Keeps the histories of the shards that this node leads within their limits.
//!
//! The primary proposes to compact: replicas agree on the floor of a history because the log raises
//! it, and no replica forgets by its own clock. Nothing is proposed while a history is within its
//! limits, so an idle network stays quiet once its history is gone. To propose seldom, each
//! proposal makes some room.
//!
//! Removal follows the floor bit by bit, with each entry of the log. If there are no other entries,
//! proposals of the same floor take it further.

use std::sync::Arc;
use std::time::Duration;

use dkv_base::id::{GroupId, Revision, Stamp};
use futures::future::join_all;
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::common::clock::wall;
use crate::node::Node;
use crate::raft::StateMachineHandle;
use crate::replica::Replica;
use dkv_state::ShardState;

/// Interval between checks of the histories.
const TICK: Duration = Duration::from_secs(1);
/// Interval between checks while one is over its limit, or is still being removed.
const TICK_WHILE_OVER: Duration = Duration::from_millis(50);
/// Time that a proposal may take. The shards are limited together, so none waits for another for
/// longer.
const PATIENCE: Duration = Duration::from_secs(1);
/// The part of a limit that a proposal makes room for.
const ROOM: u32 = 16;

/// Runs for the life of the node.
pub(crate) async fn run(node: Arc<Node>) {
    let mut is_over = false;
    let mut clock = SteadyClock::new(wall(), Instant::now());
    loop {
        match is_over {
            true => tokio::time::sleep(TICK_WHILE_OVER).await,
            false => node.ticks().pause(TICK).await,
        }
        if may_not_propose(&node) {
            is_over = false;
            continue;
        }
        let (groups, now) = (node.groups(), clock.read(wall(), Instant::now()));
        let led = groups.iter().filter(|group| group.id().is_shard() && group.leads());
        let limited = led.filter_map(|group| Some((group, policy(&node, group.id())?)));
        let limited = limited.map(|(group, policy)| limit(group, policy, now));
        is_over = join_all(limited).await.contains(&true);
    }
}

/// A wall clock that a step does not move far ahead at once. Otherwise a clock that is set ahead,
/// if only for a moment, would end all history, with the watches and snapshots that depend on it.
#[derive(Clone, Copy, Debug)]
struct SteadyClock {
    shown: Duration,
    read_at: Instant,
}

impl SteadyClock {
    /// Creates a clock that shows a time since 1970.
    fn new(wall: Duration, now: Instant) -> Self {
        Self { shown: wall, read_at: now }
    }

    /// Returns the time since 1970. It follows the wall clock at twice the speed of time at most.
    fn read(&mut self, wall: Duration, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.read_at);
        *self = Self::new(wall.min(self.shown + 2 * passed), now);
        self.shown
    }
}

/// The limits of the history of one shard.
#[derive(Clone, Copy, Debug)]
struct HistoryPolicy {
    age_max: Duration,
    bytes_max: u64,
}

/// Returns the limits of the history of a shard: those of its keyspace, of whose bytes it has an
/// equal share, because a node may hold a replica of each.
fn policy(node: &Node, shard: GroupId) -> Option<HistoryPolicy> {
    let policy = node.replicas().with_directory(|directory| {
        let settings = directory.settings_of(shard)?;
        let age_max = Duration::from_millis(settings.history_age_ms);
        Some(HistoryPolicy { age_max, bytes_max: settings.shard_history_bytes() })
    });
    policy.flatten()
}

/// Returns whether the node's proposals would do harm now: its data directory may be a copy, or
/// there is no room for entries, which come before compaction.
fn may_not_propose(node: &Node) -> bool {
    let log_is_full =
        || node.store().wal().stats().bytes_on_disk >= node.settings().log_bytes_max / 8 * 7;
    node.incarnations().held().is_some() || node.store().disk_full() || log_is_full()
}

/// Compacts the history of a shard by one step. Returns whether there may be more to do.
async fn limit(group: &Replica, policy: HistoryPolicy, now: Duration) -> bool {
    let Some(floor) = due(group.state_machine(), policy, now) else { return false };
    debug!(group = %group.id(), %floor, "compacting the history");
    match timeout(PATIENCE, group.compact(floor)).await {
        Ok(Ok(_)) => true,
        // Without a quorum, or deposed: it has time.
        Ok(Err(_)) | Err(_) => false,
    }
}

fn due(
    state_machine: &StateMachineHandle,
    policy: HistoryPolicy,
    now: Duration,
) -> Option<Revision> {
    state_machine.with_shard(|shard| floor_due(shard, policy, now)).flatten()
}

/// Returns the floor to propose; `None` if the history needs nothing. `now` is the wall-clock time
/// since 1970.
fn floor_due(shard: &ShardState, policy: HistoryPolicy, now: Duration) -> Option<Revision> {
    if shard.is_sweeping() {
        // Its size does not count before everything below the floor is removed.
        return Some(shard.floor());
    }
    let HistoryPolicy { age_max, bytes_max } = policy;
    let before = |age: Duration| Stamp::at(now.saturating_sub(age));
    let (bytes, _) = shard.history_size();
    let excess = bytes.saturating_sub(bytes_max);
    let is_old = || shard.compactable(0, before(age_max)).is_some();
    if excess > 0 {
        let more = bytes_max / u64::from(ROOM);
        shard.compactable(excess + more, before(age_max))
    } else if is_old() {
        shard.compactable(0, before(age_max - age_max / ROOM))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use dkv_base::id::{Serial, SessionId};
    use dkv_state::BatchBuilder;
    use dkv_wire::codec::encode;
    use dkv_wire::limits::{HISTORY_AGE_MAX, HISTORY_BYTES_MAX};
    use dkv_wire::message::{Command, Condition, Operation, Write};

    use super::*;

    const START: Duration = Duration::from_secs(1_700_000_000);
    const S: Duration = Duration::from_secs(1);
    const POLICY: HistoryPolicy =
        HistoryPolicy { age_max: HISTORY_AGE_MAX, bytes_max: HISTORY_BYTES_MAX };

    fn batch(command: &Command<'_>, at: Duration) -> Bytes {
        let mut batch = BatchBuilder::new(at.as_millis() as u64, Stamp::at(at));
        batch.push(&encode(command));
        batch.finish()
    }

    struct Shard {
        state: ShardState,
        serial: u64,
    }

    impl Shard {
        fn new() -> Self {
            let mut shard = Self { state: ShardState::new(), serial: 0 };
            shard.apply(&Command::OpenSession(SessionId(uuid::Uuid::from_u128(7))), START);
            shard
        }

        fn apply(&mut self, command: &Command<'_>, at: Duration) {
            self.state.apply(&batch(command, at)).unwrap();
        }

        fn put(&mut self, value: &[u8], at: Duration) {
            self.serial += 1;
            let write = Write {
                session: SessionId(uuid::Uuid::from_u128(7)),
                serial: Serial(self.serial),
                settled: Serial(self.serial),
                after: Stamp(0),
                condition: Condition::Always,
                key: b"k",
                operation: Operation::Put(value),
            };
            self.apply(&Command::Write(write), at);
        }

        /// Compacts until nothing is due, and returns the number of steps.
        fn limit(&mut self, now: Duration) -> usize {
            let mut steps = 0;
            while let Some(floor) = floor_due(&self.state, POLICY, now) {
                self.apply(&Command::Compact { floor }, now);
                steps += 1;
                assert!(steps < 100, "it does not end");
            }
            steps
        }
    }

    #[test]
    fn a_clock_that_is_set_ahead_ends_no_history() {
        let (start, now) = (1000 * S, Instant::now());
        let mut clock = SteadyClock::new(start, now);
        assert_eq!(clock.read(start + S, now + S), start + S);
        assert_eq!(clock.read(start + 3600 * S, now + 2 * S), start + 3 * S);
        assert_eq!(clock.read(start + 3 * S, now + 3 * S), start + 3 * S, "it is set right");
        assert_eq!(clock.read(start - 100 * S, now + 4 * S), start - 100 * S);
        // One that was behind is followed in time.
        assert_eq!(clock.read(start, now + 104 * S), start);
    }

    #[test]
    fn nothing_is_kept_for_longer_than_its_time() {
        let mut shard = Shard::new();
        for second in 0..600 {
            shard.put(b"value", START + second * S);
        }
        assert_eq!(shard.limit(START + HISTORY_AGE_MAX), 0, "nothing is older");
        assert!(shard.limit(START + HISTORY_AGE_MAX + S) > 0);
        // With some room, until the oldest is too old again.
        let floor = shard.state.floor();
        // One more than the last that is gone: the changes at the floor stay.
        assert_eq!(floor, Revision(1 + 600 / u64::from(ROOM) + 2));
        assert_eq!(shard.limit(START + HISTORY_AGE_MAX + 30 * S), 0);
        assert!(shard.limit(START + HISTORY_AGE_MAX + 60 * S) > 0);
        // At last there is nothing left to compact, and nothing more is proposed.
        shard.limit(START + 2 * HISTORY_AGE_MAX);
        assert_eq!(shard.state.floor(), shard.state.revision());
        assert_eq!(shard.limit(START + 3 * HISTORY_AGE_MAX), 0);
    }

    #[test]
    fn no_history_grows_beyond_its_bytes() {
        let mut shard = Shard::new();
        let value = vec![7; 1024 * 1024];
        for number in 1..200 {
            shard.put(&value, START);
            let steps = shard.limit(START + S);
            let (bytes, _) = shard.state.history_size();
            assert!(bytes <= HISTORY_BYTES_MAX, "{bytes} bytes");
            assert!(steps == 0 || bytes >= HISTORY_BYTES_MAX / 10 * 9, "{bytes} of write {number}");
            assert!(number > 63 || steps == 0, "compacted at {number}");
        }
        assert!(shard.state.floor() > Revision(100));
    }
}
