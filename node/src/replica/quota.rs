//! The quota of a shard: the primary refuses commands that would make it grow beyond its share of
//! its keyspace's quota.
//!
//! It looks at the state that it has applied. Commands on their way into the log do not count, so
//! a shard may exceed its share by those that are under way at once. Deletes and writes that make
//! it smaller are always taken, and so are the writes that outboxes of other nodes bring, which
//! were acknowledged before.

use std::sync::atomic::{AtomicU64, Ordering};

use dkv_wire::message::{Command, Refusal};

use super::Replica;

/// The share of a shard in its keyspace's quota, in bytes; the greatest number for none.
pub(super) struct ShardQuota(AtomicU64);

impl Default for ShardQuota {
    fn default() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }
}

impl ShardQuota {
    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed) != u64::MAX
    }
}

impl Replica {
    /// Sets the share of the shard in its keyspace's quota; `None` for no limit.
    pub(crate) fn set_quota(&self, bytes: Option<u64>) {
        self.quota.0.store(bytes.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Checks that the shard has room for what a command adds. Only the primary can tell: the state
    /// of another replica may lack deletes that were acknowledged.
    ///
    /// # Errors
    /// [`Refusal::OverQuota`].
    pub(crate) fn check_quota(&self, command: &Command<'_>) -> Result<(), Refusal> {
        if !self.quota.is_set() || self.leading().is_none() {
            return Ok(());
        }
        self.check_growth(0, |shard| shard.growth(command))
    }

    /// Checks that the shard has room for an eventual write besides `waiting` bytes of others, as
    /// far as this replica knows.
    ///
    /// # Errors
    /// [`Refusal::OverQuota`].
    pub(crate) fn check_quota_of_put(
        &self,
        key: &[u8],
        value_bytes: usize,
        waiting: u64,
    ) -> Result<(), Refusal> {
        let growth = |shard: &dkv_state::ShardState| {
            u64::try_from(shard.growth_of_put(key, value_bytes)).unwrap_or_default()
        };
        self.check_growth(waiting, growth)
    }

    fn check_growth(
        &self,
        waiting: u64,
        growth: impl FnOnce(&dkv_state::ShardState) -> u64,
    ) -> Result<(), Refusal> {
        let limit = self.quota.0.load(Ordering::Relaxed);
        if limit == u64::MAX {
            return Ok(());
        }
        let checked = self.state_machine().with_shard(|shard| {
            let used = shard.counts().bytes.saturating_add(waiting);
            match growth(shard) {
                0 => Ok(()),
                growth if used.saturating_add(growth) <= limit => Ok(()),
                _ => Err(Refusal::OverQuota { used, limit }),
            }
        });
        checked.unwrap_or(Ok(()))
    }
}
