//! Reading a checkpoint chunk by chunk while later checkpoints are written.

use std::sync::Arc;

use bytes::Bytes;

use super::group::{META_KEY, split_key};
use super::tables::{TableHandle, TableRows};
use super::{EngineError, EngineInner, chunk};
use crate::limits;
use crate::rows::Meta;

/// A reader of the rows of one checkpoint. The files that it still has to read stay on disk until
/// it is dropped, so it should be short-lived.
pub struct SnapshotReader {
    // Dropped in this order: the rows before what they are read from.
    rows: TableRows,
    _table: TableHandle,
    shared: Arc<EngineInner>,
    meta: Meta,
    done: bool,
}

impl SnapshotReader {
    pub(super) fn new(
        shared: Arc<EngineInner>,
        table: TableHandle,
        rows: TableRows,
        meta: Meta,
    ) -> Self {
        Self { rows, _table: table, shared, meta, done: false }
    }

    /// Returns the moment that the rows belong to; the receiver needs it last.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Returns the next chunk of about [`limits::SNAPSHOT_CHUNK_BYTES`], or `None` after the last.
    ///
    /// # Errors
    /// [`EngineError::Damaged`] or [`EngineError::Failed`].
    pub fn next_chunk(&mut self) -> Result<Option<Bytes>, EngineError> {
        let guard = self.shared.guard();
        let mut rows = Vec::new();
        while !self.done && rows.len() < limits::SNAPSHOT_CHUNK_BYTES {
            let Some((key, value)) = guard.call(|| self.rows.next_row())? else {
                self.done = true;
                break;
            };
            if *key == META_KEY {
                continue;
            }
            let (table, key) = split_key(&key).ok_or_else(|| guard.damaged("a row of no table"))?;
            chunk::push_row(&mut rows, table, key, &value);
        }
        Ok((!rows.is_empty()).then(|| Bytes::from(rows)))
    }
}
