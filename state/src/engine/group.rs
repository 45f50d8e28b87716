//! A group in the engine: its generations of rows, and the keys of rows in their tables.

use std::sync::{Mutex, RwLock};

use dkv_base::id::GroupId;
use dkv_base::sync::write;

use super::tables;
use super::{EngineError, EngineInner, Record};
use crate::rows::{Generation, Meta, RowSink, Table};
use crate::value_cache::ValueCache;

/// Key of the meta row; no table has this byte.
pub(super) const META_KEY: [u8; 1] = *b"m";

/// The data shared by all handles to one store.
pub(super) struct Group {
    pub(super) id: GroupId,
    /// Locked while a checkpoint is written and while generations switch, so that a snapshot sees
    /// one or the other and a checkpoint never writes to the wrong one.
    pub(super) current: Mutex<Current>,
    /// The current rows, for looking up single keys.
    pub(super) readable: RwLock<Option<tables::TableHandle>>,
}

/// The current generation.
pub(super) struct Current {
    pub(super) generation: Generation,
    /// Its rows; `None` if nothing is stored yet.
    pub(super) table: Option<tables::TableHandle>,
    /// The generation of the next installation. Each installation gets its own, even one that
    /// begins before another has ended.
    pub(super) next: Generation,
}

impl Group {
    pub(super) fn open(shared: &EngineInner, id: GroupId) -> Result<Self, EngineError> {
        let record = shared.record(id)?;
        let generation = record.map_or(Generation(0), |record| record.generation);
        let table = match record {
            Some(Record { stored: true, .. }) => Some(shared.table(id, generation)?),
            _ => None,
        };
        let next = Generation(generation.0 + 1);
        let readable = RwLock::new(table.clone());
        Ok(Self { id, current: Mutex::new(Current { generation, table, next }), readable })
    }

    /// Makes these rows the current ones for lookups.
    pub(super) fn set_readable(&self, table: Option<tables::TableHandle>) {
        *write(&self.readable) = table;
    }
}

/// Rows of one group that a state can be loaded from: the current ones, or those of a complete
/// snapshot.
pub(crate) trait Rows {
    /// Returns the group that the rows belong to.
    fn group(&self) -> GroupId;

    /// Returns the engine that stores the rows.
    fn shared(&self) -> &EngineInner;

    /// Returns the generation and the table of the rows; no table if nothing is stored yet.
    fn stored(&self) -> (Generation, Option<tables::TableHandle>);

    /// Returns the cache that the values are charged to.
    fn value_memory(&self) -> ValueCache {
        self.shared().value_memory.clone()
    }

    /// Feeds all rows into `sink` and returns the moment they belong to, with their generation; no
    /// moment if there is no checkpoint. It compares the rows with the hash and the counts that
    /// were stored with them.
    ///
    /// # Errors
    /// [`EngineError::Damaged`] if they differ, or [`EngineError::Failed`].
    fn load(&self, sink: &mut impl RowSink) -> Result<(Option<Meta>, Generation), EngineError> {
        let (generation, table) = self.stored();
        let Some(table) = table else { return Ok((None, generation)) };
        let guard = self.shared().guard();
        let (meta, mut rows) = guard.call(|| self.shared().tables.snapshot(&table, &META_KEY))?;
        let meta = self.decode_meta(meta.as_deref())?;
        while let Some((key, value)) = guard.call(|| rows.next_row())? {
            if *key == META_KEY {
                continue;
            }
            let (table, key) = split_key(&key).ok_or_else(|| self.damaged("a row of no table"))?;
            sink.row(table, key, &value).map_err(|error| self.damaged(error.0))?;
        }
        meta.check(sink).map_err(|error| self.damaged(error.0))?;
        Ok((Some(meta), generation))
    }

    /// Returns the error for impossible rows of this group.
    fn damaged(&self, problem: &str) -> EngineError {
        self.shared().guard().damaged(&format!("group {}: {problem}", self.group()))
    }

    /// Decodes the meta row.
    fn decode_meta(&self, encoded: Option<&[u8]>) -> Result<Meta, EngineError> {
        let encoded = encoded.ok_or_else(|| self.damaged("the meta row is gone"))?;
        Meta::decode(encoded).map_err(|error| self.damaged(error.0))
    }
}

/// Joins a table and the key of one of its rows into the stored key.
pub(super) fn join_key(table: Table, key: &[u8]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(1 + key.len());
    joined.push(table.byte());
    joined.extend_from_slice(key);
    joined
}

/// Splits a stored key into the table and the key of the row.
pub(super) fn split_key(joined: &[u8]) -> Option<(Table, &[u8])> {
    let (table, key) = joined.split_first()?;
    Some((Table::from_byte(*table)?, key))
}
