//! Which values leave memory: those that a checkpoint has, while the node exceeds its limit.
//!
//! A hand goes round the table of keys. It gives a value that was used since it came by last a
//! second chance, and evicts the others. Values of the history go first.

use std::ops::Bound;
use std::sync::Arc;

use super::ShardState;
use crate::digest::key_hash;
use crate::value_cache::Place;

impl ShardState {
    /// Returns whether the node has more values in memory than its limit allows.
    pub fn memory_is_exceeded(&self) -> bool {
        self.cached_values.memory().is_exceeded()
    }

    /// Evicts values that are in a checkpoint while the node exceeds its memory limit, past ones
    /// first. The hand passes at most `keys_max` keys or changes. Returns whether it reached the
    /// end of the table.
    pub fn evict(&mut self, keys_max: usize) -> bool {
        if !self.past_is_evicted {
            self.past_is_evicted =
                self.history.evict(keys_max, self.stored, &mut self.cached_values);
            return false;
        }
        let from = self.hand.take().map_or(Bound::Unbounded, Bound::Included);
        for (passed, (key, slot)) in self.keys.range_mut((from, Bound::Unbounded)).enumerate() {
            if passed == keys_max || !self.cached_values.memory().is_exceeded() {
                self.hand = Some(Arc::clone(key));
                return false;
            }
            let Place::Here { value, used } = &mut slot.value else { continue };
            if slot.origin.revision > self.stored || std::mem::take(used.get_mut()) {
                continue;
            }
            let Ok(bytes) = u32::try_from(value.len()) else { continue };
            let hash = key_hash(key, slot.origin, value);
            self.cached_values.went(value);
            slot.value = Place::Stored { bytes, hash };
        }
        self.past_is_evicted = false;
        true
    }
}
