//! The locks of transactions over several shards, for those who wait for them.

use bytes::Bytes;
use dkv_base::id::Revision;
use dkv_base::platform::run_blocking;
use dkv_wire::message::{OperationResult, Refusal, Span};

use super::super::fifo_watch;
use super::{LOOK_UPS_MAX, StateMachineHandle};
use dkv_state::{Listed, Needed, ShardState};

impl StateMachineHandle {
    /// Records that locks may have been released.
    pub(super) fn note_released(&self) {
        let released = &self.shared.released;
        released.set(released.get().wrapping_add(1));
    }

    /// Returns a receiver of a number that changes whenever locks are released.
    pub(crate) fn released(&self) -> fifo_watch::Receiver<u64> {
        self.shared.released.receiver()
    }

    /// Returns the revision here when a transaction locked a key that it may write.
    pub(crate) fn write_locked_at(&self, key: &[u8]) -> Option<Revision> {
        self.with_shard(|shard| shard.write_locked_at(key)).flatten()
    }

    /// Returns whether a transaction may write a key of the page that a span begins with.
    pub(crate) fn is_page_locked(&self, span: &Span) -> bool {
        let is_locked = |shard: &ShardState| {
            shard.locked_keys() > 0 && is_page_locked(shard, span, &shard.list(span, &[]))
        };
        self.with_shard(is_locked).unwrap_or(false)
    }

    /// Returns the results that both lists of operations of a prepared part will have; `None` if
    /// they are not known.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] if a value cannot be read.
    pub(crate) async fn foreseen_results(
        &self,
        body: &Bytes,
    ) -> Result<Option<[Vec<OperationResult>; 2]>, Refusal> {
        let needs_disk = |needed: &Needed| !needed.stored.is_empty();
        for _ in 0..LOOK_UPS_MAX {
            let Some(mut needed) = self.with_shard(|shard| shard.needed_by(body)) else { break };
            if needs_disk(&needed) {
                let (store, stored) =
                    (self.shared.store.clone(), std::mem::take(&mut needed.stored));
                let read = run_blocking(move || {
                    let rows = stored.into_iter().map(|key| store.get(&key).map(|row| (key, row)));
                    rows.collect::<Result<Vec<_>, _>>()
                });
                let rows = read.await.map_err(|error| Refusal::Unavailable(error.to_string()))?;
                let rows = rows.map_err(|error| Refusal::from(self.unreadable(&error)))?;
                let rows = rows.into_iter().filter_map(|(key, row)| Some((key, row?)));
                needed.rows.extend(rows);
            }
            let found = self.with_shard(|shard| shard.foreseen_results(body, &needed)).flatten();
            let Some([then, otherwise]) = found else { continue };
            let (then, otherwise) =
                (self.complete_found(then).await?, self.complete_found(otherwise).await?);
            if let (Some(then), Some(otherwise)) = (then, otherwise) {
                return Ok(Some([then, otherwise]));
            }
        }
        Ok(None)
    }
}

/// Returns whether a transaction may write a key of this page.
pub(super) fn is_page_locked(shard: &ShardState, span: &Span, listed: &Listed) -> bool {
    if span.keys_max == 0 {
        return false;
    }
    let last = listed.keys.last().filter(|_| listed.more).map(|last| &last.key[..]);
    shard.is_write_locked_between(&span.prefix, &span.after, last)
}
