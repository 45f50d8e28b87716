//! Values that transactions need and that may be in the checkpoint only.

use std::collections::HashMap;
use std::sync::Arc;

use dkv_wire::limits;
use dkv_wire::message::{Compare, Test};

use crate::engine::GroupStore;
use crate::rows::{Origin, Row};
use crate::value_cache::{Found, Place, Slot};

/// Most bytes of values that are read before a batch is applied. Those beyond are read one by one
/// while it is.
const NEEDED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Values that a batch needs, by key.
#[derive(Default)]
pub struct Needed {
    /// Those that were read from the checkpoint.
    pub rows: HashMap<Arc<[u8]>, Row>,
    /// The keys whose values are in the checkpoint only, as far as they are to be read together.
    pub stored: Vec<Arc<[u8]>>,
    /// Length of the values of these keys, in bytes.
    stored_bytes: usize,
    /// The checkpoint, for all other values.
    store: Option<GroupStore>,
}

impl Needed {
    /// Adds the checkpoint, from which values are read that are not here.
    #[must_use]
    pub fn or_from(self, store: &GroupStore) -> Self {
        Self { store: Some(store.clone()), ..self }
    }

    /// Returns a row that is not in memory.
    fn row(&self, key: &Arc<[u8]>, origin: Origin) -> Option<Row> {
        let is_it = |row: &Row| row.origin == origin;
        if let Some(row) = self.rows.get(key).filter(|row| is_it(row)) {
            return Some(row.clone());
        }
        self.store.as_ref()?.get(key).ok().flatten().filter(is_it)
    }

    /// Notes that the value of a key is needed. Returns whether there is room for more.
    pub(super) fn note(&mut self, key: &Arc<[u8]>, slot: &Slot) -> bool {
        match &slot.value {
            // Marks the value as used, so that it stays in memory if possible.
            Place::Here { .. } => _ = slot.find(),
            Place::Stored { bytes, .. } => {
                self.stored_bytes = self.stored_bytes.saturating_add(*bytes as usize);
                if self.stored_bytes > NEEDED_BYTES_MAX {
                    return false;
                }
                self.stored.push(Arc::clone(key));
            }
        }
        true
    }
}

impl std::fmt::Debug for Needed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Needed")
            .field("rows", &self.rows.len())
            .field("stored", &self.stored.len())
            .finish_non_exhaustive()
    }
}

/// What a transaction is executed with, besides the state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Supply<'a> {
    /// Values that are not in memory.
    pub(crate) needed: &'a Needed,
    /// Longest value that an append may make, in bytes.
    pub(crate) value_bytes_max: usize,
}

impl<'a> Supply<'a> {
    /// For a transaction that was judged before, or is judged again for its results.
    pub(crate) fn of(needed: &'a Needed) -> Self {
        Self { needed, value_bytes_max: limits::VALUE_BYTES_MAX }
    }
}

/// A value that a transaction needs is not at hand. The replica cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MissingValue;

pub(super) fn value_of(
    key: &Arc<[u8]>,
    slot: &Slot,
    needed: &Needed,
) -> Result<Arc<[u8]>, MissingValue> {
    match slot.find() {
        Found::Row(row) => Ok(row.value),
        Found::Stored(_) => needed.row(key, slot.origin).map(|row| row.value).ok_or(MissingValue),
    }
}

pub(super) fn value_bytes(slot: &Slot) -> usize {
    match &slot.value {
        Place::Here { value, .. } => value.len(),
        Place::Stored { bytes, .. } => *bytes as usize,
    }
}

/// Returns whether a compare needs the values of its keys.
pub(super) fn needs_values(compare: &Compare<'_>) -> bool {
    matches!(compare.test, Test::Value(..))
}
