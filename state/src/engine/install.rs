//! Takes a snapshot in, beside the state that stands, and switches to it once it is whole.
//!
//! Everything that can go wrong with a transfer goes wrong before [`Installer::complete`] has
//! returned: rows that are missing or not what was sent, a disk without room. What it returns is
//! whole and durable, and all that is left is to name it as the state that stands.

use std::sync::Arc;

use dkv_base::id::GroupId;
use dkv_base::mutants::{Mutant, planted};

use super::group::{Group, META_KEY, Rows, join_key};
use super::tables;
use super::{EngineError, Record, Shared, chunk, lock};
use crate::digest::Digest;
use crate::directory::Directory;
use crate::limits;
use crate::rows::{Counts, Generation, MalformedRow, Meta, RowSink, Table};

/// Rows that wait until they are written as one table, in bytes. Less in tests, so that small
/// snapshots have several.
const TABLE_BYTES: usize = if cfg!(test) { 64 * 1024 } else { 8 * 1024 * 1024 };

/// The installation of one snapshot. Dropped before it is complete, it leaves nothing behind, and
/// waits for the disk meanwhile; after a crash the next [`Engine::open`](super::Engine::open)
/// clears up.
pub struct Installer {
    shared: Arc<Shared>,
    group: Arc<Group>,
    generation: Generation,
    /// Where the rows go; taken out once it stands.
    table: Option<tables::Table>,
    sink: Sink,
    /// Rows that are not in a table yet, by their keys in the table.
    rows: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    rows_bytes: usize,
    /// Key of the last row, with its table in front. Rows ascend, so none comes twice.
    last: Vec<u8>,
}

/// Adds up what came in, so that it can be compared with what was sent.
enum Sink {
    Shard(Digest),
    Control(Box<Directory>),
}

impl Installer {
    pub(super) fn new(
        shared: Arc<Shared>,
        group: Arc<Group>,
        generation: Generation,
        table: tables::Table,
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

    /// Takes in one chunk. Chunks come in the order in which they were read.
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

    /// Writes the rows that wait. They go straight into a table, durably: a snapshot needs no
    /// journal, and memtables would take as much memory as the disk is behind.
    fn write_table(&mut self) -> Result<(), EngineError> {
        self.shared.require_room(self.rows_bytes)?;
        let Some(table) = &self.table else { return Err(EngineError::Superseded) };
        let rows = std::mem::take(&mut self.rows);
        self.rows_bytes = 0;
        self.shared.guard().call(|| self.shared.tables.ingest(table, rows))
    }

    /// Ends the transfer: what came in is whole, that is, the rows that `meta` was written with, no
    /// more and no less, and durable. The old state stands until [`Completed::switch`].
    ///
    /// # Errors
    /// [`EngineError::InvalidSnapshot`] if it is not whole, [`EngineError::Superseded`] if a later
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

/// A snapshot that is whole and durable, beside the state that stands. Dropped, it leaves nothing
/// behind.
pub struct Completed {
    installer: Installer,
}

impl Completed {
    /// Makes it the state of the group. When this returns, that is durable.
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
            // The new state stands whether or not this succeeds; the next start tries again.
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

    fn shared(&self) -> &Shared {
        &self.installer.shared
    }

    fn stored(&self) -> (Generation, Option<tables::Table>) {
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
