//! Reads all rows of one checkpoint, a chunk at a time, while later checkpoints are written.

use std::sync::Arc;

use bytes::Bytes;

use super::group::{META_KEY, split_key};
use super::tables::{Rows, Table};
use super::{EngineError, Shared, chunk};
use crate::limits;
use crate::rows::Meta;

/// The rows of one checkpoint. Files that it still has to read stay on disk until it is dropped, so
/// it should not be kept for long.
pub struct SnapshotReader {
    // Let go of in this order: the rows before what they are read from.
    rows: Rows,
    _table: Table,
    shared: Arc<Shared>,
    meta: Meta,
    done: bool,
}

impl SnapshotReader {
    pub(super) fn new(shared: Arc<Shared>, table: Table, rows: Rows, meta: Meta) -> Self {
        Self { rows, _table: table, shared, meta, done: false }
    }

    /// The moment that the rows are of; the receiver needs it last.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The next chunk of about [`limits::SNAPSHOT_CHUNK_BYTES`], or nothing after the last.
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
