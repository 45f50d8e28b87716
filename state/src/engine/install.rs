//! Installation of a snapshot: it takes the rows in next to the current state, and switches once
//! they are complete.
//!
//! Everything that can go wrong with a transfer goes wrong before [`Installer::complete`] returns:
//! rows that are missing or differ from what was sent, a full disk. Its result is whole and
//! durable, and all that remains is to make it the current state.

use std::sync::Arc;

use dkv_base::id::GroupId;
use dkv_base::mutants::{Mutant, planted};
use dkv_base::sync::lock;

use super::group::{Group, META_KEY, Rows, join_key};
use super::tables;
use super::{EngineError, EngineInner, Record, chunk};
use crate::digest::Digest;
use crate::directory::Directory;
use crate::limits;
use crate::rows::{Counts, Generation, MalformedRow, Meta, RowSink, Table};

/// Size at which buffered rows are written as one table, in bytes. Smaller in tests, so that small
/// snapshots have several.
const TABLE_BYTES: usize = if cfg!(test) { 64 * 1024 } else { 8 * 1024 * 1024 };

/// The installation of one snapshot. If it is dropped before it is complete, it leaves nothing
/// behind, and waits for the disk meanwhile; after a crash the next
/// [`Engine::open`](super::Engine::open) cleans up.
pub struct Installer {
    shared: Arc<EngineInner>,
    group: Arc<Group>,
    generation: Generation,
    /// The table for the rows; taken out once it is current.
    table: Option<tables::TableHandle>,
    sink: Sink,
    /// Rows that are not in a table yet, by their stored keys.
    rows: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    rows_bytes: usize,
    /// Stored key of the last row, which begins with its table. Rows ascend, so none comes twice.
    last: Vec<u8>,
}

/// A running digest of the received rows, to compare with what was sent.
enum Sink {
    Shard(Digest),
    Control(Box<Directory>),
}

impl Installer {
    pub(super) fn new(
        shared: Arc<EngineInner>,
        group: Arc<Group>,
        generation: Generation,
        table: tables::TableHandle,
    ) -> Self {
        let sink = if group.id.is_shard() {
            Sink::Shard(Digest::default())
        } else {
            Sink::Control(Box::new(Directory::new()))
        };
        Self {
            shared,
            group,
            generation,
            table: Some(table),
            sink,
            rows: Vec::new(),
            rows_bytes: 0,
            last: Vec::new(),
        }
    }

    /// Takes one chunk. Chunks come in the order in which they were read.
    ///
    /// # Errors
    /// [`EngineError::InvalidSnapshot`] if it is not a chunk of this group's rows,
    /// [`EngineError::NoSpace`], or [`EngineError::Failed`].
    pub fn write_chunk(&mut self, chunk: &[u8]) -> Result<(), EngineError> {
        if chunk.len() > limits::SNAPSHOT_CHUNK_BYTES_MAX {
            return Err(MalformedRow("a chunk is over its limit").into());
        }
        let mut rest = chunk;
        while !rest.is_empty() {
            let (row, after) = chunk::split_row(rest)?;
            rest = after;
            let joined = join_key(row.table, row.key);
            if joined <= self.last {
                return Err(MalformedRow("rows are out of order").into());
            }
            self.sink.row(row.table, row.key, row.value)?;
            self.rows_bytes += joined.len() + row.value.len();
            self.rows.push((joined.clone(), Some(row.value.to_vec())));
            self.last = joined;
        }
        if self.rows_bytes >= TABLE_BYTES { self.write_table() } else { Ok(()) }
    }

    /// Writes the buffered rows. They go straight into a table, durably: a snapshot needs no
    /// journal, and memtables would take up as much memory as the disk lags behind.
    fn write_table(&mut self) -> Result<(), EngineError> {
        self.shared.require_room(self.rows_bytes)?;
        let Some(table) = &self.table else { return Err(EngineError::Superseded) };
        let rows = std::mem::take(&mut self.rows);
        self.rows_bytes = 0;
        self.shared.guard().call(|| self.shared.tables.ingest(table, rows))
    }

    /// Ends the transfer and makes the snapshot durable. The received rows must be exactly those
    /// that `meta` was written with. The old state stays current until [`Completed::switch`].
    ///
    /// # Errors
    /// [`EngineError::InvalidSnapshot`] if the rows differ, [`EngineError::Superseded`] if a later
    /// installation was faster, [`EngineError::NoSpace`], or [`EngineError::Failed`].
    pub fn complete(mut self, meta: &Meta) -> Result<Completed, EngineError> {
        if meta.applied.len() > limits::APPLIED_BYTES_MAX {
            return Err(MalformedRow("the applied position is over its limit").into());
        }
        meta.check(&self.sink)?;
        if planted(Mutant::HalfSnapshot) {
            self.rows.truncate(self.rows.len() / 2);
        }
        self.write_table()?;
        let shared = &*self.shared;
        shared.require_room(meta.applied.len())?;
        if self.generation <= lock(&self.group.current).generation {
            return Err(EngineError::Superseded);
        }
        let Some(table) = &self.table else { return Err(EngineError::Superseded) };
        let mut batch = shared.tables.batch();
        batch.insert(table, META_KEY, meta.encode());
        shared.commit_durably(batch)?;
        Ok(Completed { installer: self })
    }
}

/// A snapshot that is whole and durable, next to the current state. If it is dropped, it leaves
/// nothing behind.
pub struct Completed {
    installer: Installer,
}

impl Completed {
    /// Makes the snapshot the state of the group. The switch is durable when this returns.
    ///
    /// # Errors
    /// [`EngineError::Superseded`] if a later installation was faster, or [`EngineError::Failed`].
    pub fn switch(self) -> Result<(), EngineError> {
        let mut installer = self.installer;
        let shared = &*installer.shared;
        let mut current = lock(&installer.group.current);
        if installer.generation <= current.generation {
            return Err(EngineError::Superseded);
        }
        let record = Record { generation: installer.generation, stored: true };
        shared.set_record(installer.group.id, record)?;
        current.generation = installer.generation;
        installer.group.set_readable(installer.table.clone());
        let old = std::mem::replace(&mut current.table, installer.table.take());
        drop(current);
        if let Some(old) = old {
            // The new state is current whether or not this succeeds; the next start tries again.
            if let Err(error) = shared.guard().call(|| shared.tables.delete(old.clone())) {
                tracing::warn!(%error, "the state before the snapshot could not be deleted");
            }
        }
        Ok(())
    }
}

impl Rows for Completed {
    fn group(&self) -> GroupId {
        self.installer.group.id
    }

    fn shared(&self) -> &EngineInner {
        &self.installer.shared
    }

    fn stored(&self) -> (Generation, Option<tables::TableHandle>) {
        (self.installer.generation, self.installer.table.clone())
    }
}

impl Drop for Installer {
    fn drop(&mut self) {
        if let Some(table) = self.table.take() {
            let tables = &self.shared.tables;
            let deleted = self.shared.guard().call(|| tables.delete(table.clone()));
            if let Err(error) = deleted {
                tracing::warn!(%error, "an unfinished snapshot could not be deleted");
            }
        }
    }
}

impl RowSink for Sink {
    fn row(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), MalformedRow> {
        match self {
            Self::Shard(digest) => digest.row(table, key, value),
            Self::Control(directory) => directory.row(table, key, value),
        }
    }

    fn hash_with(&self, meta: &Meta) -> u64 {
        match self {
            Self::Shard(digest) => digest.hash_with(meta),
            Self::Control(directory) => directory.hash_with(meta),
        }
    }

    fn counts(&self) -> Counts {
        match self {
            Self::Shard(digest) => RowSink::counts(digest),
            Self::Control(directory) => directory.counts(),
        }
    }
}
