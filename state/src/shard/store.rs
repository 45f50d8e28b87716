//! The one way in which a key changes: its row, its history, its attachment, and all that counts
//! them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use dkv_base::id::{Revision, Stamp};
use dkv_wire::message::Operation;

use super::{Attaching, ShardState};
use crate::history::Replaced;
use crate::rows::{Origin, Row, Tombstone};
use crate::session::Outcome;
use crate::value_cache::Slot;

impl ShardState {
    /// Stores or removes a key, as the next revision.
    pub(super) fn store(
        &mut self,
        key: &[u8],
        operation: Operation<'_>,
        stamp: Stamp,
        attaching: Attaching,
    ) -> Outcome {
        self.store_at((Revision(self.revision.0 + 1), 0), key, operation, stamp, attaching)
    }

    /// Stores or removes a key at a revision: the next one, or that of an earlier write of the same
    /// command, with its position among the changes of the revision.
    pub(super) fn store_at(
        &mut self,
        (revision, position): (Revision, u16),
        key: &[u8],
        operation: Operation<'_>,
        stamp: Stamp,
        attaching: Attaching,
    ) -> Outcome {
        let attachment = self.attachments.get(key);
        let found = find(&mut self.keys, key);
        let existed = found.is_some();
        let tombstone = Tombstone { stamp, deleted_ms: self.clock_ms };
        match (operation, found) {
            (Operation::Delete, None) => {
                self.tombstones.dig(Arc::from(key), tombstone, &mut self.digest);
                return Outcome::Written { revision: self.revision, existed };
            }
            (Operation::Delete, Some((key, row))) => {
                let key = Arc::clone(key);
                let hash = self.digest.remove_key(&key, row);
                self.revision = revision;
                if let Some(slot) = self.keys.remove(&key) {
                    let replaced = Replaced { slot, hash, attachment };
                    let at = (stamp, position);
                    self.history.delete(&key, revision, at, replaced, &mut self.digest);
                }
                self.attach(&key, None);
                self.note_changed(&key, None);
                self.tombstones.dig(key, tombstone, &mut self.digest);
            }
            (Operation::Put(value), found) => {
                self.revision = revision;
                // A copy, so that a small value does not keep the whole batch in memory.
                let (created, version) = match &found {
                    Some((_, slot)) => (slot.origin.created, slot.origin.version + 1),
                    None => (revision, 1),
                };
                let origin = Origin { revision, stamp, created, version, position };
                let new = Row { origin, value: Arc::from(value) };
                self.digest.add_key(key, origin, value);
                self.cached_values.came(value);
                let slot = Slot::new(origin, Arc::clone(&new.value));
                let (key, replaced) = match found {
                    Some((key, row)) => {
                        let hash = self.digest.remove_key(key, row);
                        let slot = std::mem::replace(row, slot);
                        (Arc::clone(key), Some(Replaced { slot, hash, attachment }))
                    }
                    None => {
                        self.tombstones.fill(key, &mut self.digest);
                        let key = match self.history.deletion(key) {
                            Some((key, _)) => Arc::clone(key),
                            None => Arc::from(key),
                        };
                        self.keys.insert(Arc::clone(&key), slot);
                        (key, None)
                    }
                };
                self.history.put(&key, revision, stamp, replaced, &mut self.digest);
                match attaching {
                    Attaching::Nothing => self.attach(&key, None),
                    Attaching::To(attachment) => self.attach(&key, Some(attachment)),
                    Attaching::AsBefore => {}
                }
                self.note_changed(&key, Some(new));
            }
        }
        Outcome::Written { revision: self.revision, existed }
    }

    fn note_changed(&mut self, key: &Arc<[u8]>, row: Option<Row>) {
        self.changed_bytes += key.len() + row.as_ref().map_or(0, |row| row.value.len());
        match self.changed.get_mut(key) {
            Some(changed) => *changed = row,
            None => {
                self.changed.insert(Arc::clone(key), row);
            }
        }
    }
}

/// Returns the row of a key together with the allocation of the key itself, which the changed rows
/// share. (`get_mut` returns the row alone.)
fn find<'a>(
    keys: &'a mut BTreeMap<Arc<[u8]>, Slot>,
    key: &[u8],
) -> Option<(&'a Arc<[u8]>, &'a mut Slot)> {
    // A second bound would be compared with as many keys as the first one.
    let mut from = keys.range_mut::<[u8], _>((Bound::Included(key), Bound::Unbounded));
    from.next().filter(|(found, _)| ***found == *key)
}
