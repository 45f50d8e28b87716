//! Commands that have met a lock of a transaction over several shards.
//!
//! They had no effect. Each is proposed again once its keys are free, in the order in which they
//! met their locks, and is refused at its deadline.

use std::collections::VecDeque;
use std::time::Duration;

use dkv_wire::message::Refusal;
use tokio::time::Instant;

use crate::raft::{FifoReceiver, StateMachineHandle};
use crate::replica::pending_write::PendingWrite;
use crate::replica::strong_reads::QUEUE_MAX;

/// Interval at which the task checks the commands though no lock was released.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Time after which commands that are refused as overload may come again, in milliseconds.
const RETRY_MS: u32 = 50;

/// The commands that wait for locks.
pub(crate) struct Blocked {
    state_machine: StateMachineHandle,
    released: FifoReceiver<u64>,
    writes: VecDeque<PendingWrite>,
}

impl Blocked {
    pub(crate) fn new(state_machine: &StateMachineHandle) -> Self {
        let (state_machine, released) = (state_machine.clone(), state_machine.released());
        Self { state_machine, released, writes: VecDeque::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Adds commands that have met locks just now. Those whose locks are released by now go on to
    /// `waiting`.
    pub(crate) fn add(&mut self, writes: Vec<PendingWrite>, waiting: &mut VecDeque<PendingWrite>) {
        if writes.is_empty() {
            return;
        }
        for write in writes {
            if self.writes.len() >= QUEUE_MAX {
                write.reply.refuse(Refusal::Overloaded { retry_after_ms: RETRY_MS });
            } else {
                self.writes.push_back(write);
            }
        }
        self.go_on(waiting);
    }

    /// Returns when locks were released, or after a while.
    pub(crate) async fn may_go_on(&mut self) {
        let _ = tokio::time::timeout(LOOK_EVERY, self.released.changed()).await;
    }

    /// Moves the commands whose keys are free to `waiting`, and refuses those that have waited too
    /// long.
    pub(crate) fn go_on(&mut self, waiting: &mut VecDeque<PendingWrite>) {
        let commands = self.writes.iter().map(|write| &write.command[..]);
        let free = self.state_machine.with_shard(|shard| shard.unblocked(commands));
        let (free, now) = (free.unwrap_or_default(), Instant::now());
        for (index, write) in std::mem::take(&mut self.writes).into_iter().enumerate() {
            if free.get(index).copied().unwrap_or(true) {
                waiting.push_back(write);
            } else if write.expires <= now {
                write.reply.refuse(Refusal::Unavailable(
                    "a transaction over several shards has locked a key for too long".into(),
                ));
            } else {
                self.writes.push_back(write);
            }
        }
    }
}
