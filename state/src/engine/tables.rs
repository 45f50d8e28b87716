//! The engine's view of a database: named tables of rows, changed atomically and durably, and read
//! as of one moment.
//!
//! [`Tables`] is a fjall database, or one in memory for tests and simulation ([`MemoryStore`]),
//! which a simulation can cut off from power. Both promise the same: a call that has returned is
//! durable, and one that has not returned has either happened or not. The engine's own tests and a
//! twin test check them against each other.

mod memory;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fjall::{
    Database, Iter, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, OwnedWriteBatch,
    PersistMode,
};
use fjall::{Readable, Slice};

pub use memory::MemoryStore;
use memory::{MemoryRows, MemoryTable, MemoryTables};

/// Bytes of the block cache for tables. It is small because a running node reads nothing twice.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;
/// Size from which a memtable is written to disk, in bytes. Each group has at least one memtable.
const MEMTABLE_BYTES: u64 = 8 * 1024 * 1024;
/// Size from which values are stored beside the tables, in bytes, so that merging the tables does
/// not write them again.
pub(super) const SEPARATED_BYTES: u32 = 16 * 1024;
/// Size of the journals from which memtables are forced to disk, in bytes: fjall's minimum.
const JOURNAL_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes written to a journal before we make fjall check whether to begin another, or to delete
/// one.
const JOURNAL_LOOK_BYTES: u64 = 16 * 1024 * 1024;
/// Threads that write memtables and merge tables. With several, one of them hands merges on, and
/// spins while the others merge.
const WORKERS: usize = 1;
/// Files that fjall keeps open.
const OPEN_FILES_MAX: usize = 128;

/// A key and its value.
pub(super) type Pair = (Slice, Slice);

/// Name of the table whose only purpose is to advance fjall's sequence numbers.
const SEQUENCE: &str = "sequence";
/// Upper bound on the sequence numbers that creating or deleting tables can have used just before a
/// crash.
const SEQUENCE_GAP: usize = 4096;

/// A database.
pub(super) enum Tables {
    Fjall(Database, Sequence),
    Memory(MemoryTables),
}

/// A guard that keeps fjall's sequence numbers ahead of those in its records of tables.
///
/// fjall stores the names of tables as rows with sequence numbers of their own, and version 3.1
/// ignores these when it opens a database and continues counting. The name of a new table could
/// then get a number below that of the deletion of the table it replaces, and be taken for deleted
/// at the next start, along with its rows. We therefore follow each creation or deletion of a table
/// with a durable row of a later number, and skip at each start the numbers whose row may be
/// missing.
///
/// The guard also bounds the size of the journal: see [`Self::journaled`].
#[derive(Clone)]
pub(super) struct Sequence {
    keyspace: Keyspace,
    /// Bytes written to the journal since fjall last checked it.
    journal_bytes: Arc<AtomicU64>,
}

/// One table. Clones are the same table, which stays readable while any clone exists, even once
/// deleted.
#[derive(Clone)]
pub(crate) enum TableHandle {
    Fjall(Keyspace),
    Memory(MemoryTable),
}

/// Changes of tables that are made together or not at all.
pub(super) enum TableBatch {
    /// A batch with the total size of its rows in bytes.
    Fjall(OwnedWriteBatch, u64),
    Memory(Vec<(MemoryTable, Slice, Option<Slice>)>),
}

/// The rows of one table at one moment, ascending. Later changes do not affect what it yields.
pub(super) enum TableRows {
    Fjall(Iter),
    Memory(MemoryRows),
}

impl Tables {
    /// Opens the database in a directory that exists.
    pub(super) fn open(path: &Path) -> fjall::Result<Self> {
        let database = Database::builder(path)
            .manual_journal_persist(true)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .max_cached_files(Some(OPEN_FILES_MAX))
            .worker_threads(WORKERS)
            .open()?;
        let keyspace = database.keyspace(SEQUENCE, table_options)?;
        let sequence = Sequence { keyspace, journal_bytes: Arc::default() };
        sequence.advance(&database, SEQUENCE_GAP)?;
        Ok(Self::Fjall(database, sequence))
    }

    /// Opens a database in memory.
    pub(super) fn in_memory(store: &MemoryStore) -> Self {
        Self::Memory(store.open())
    }

    /// Returns the table of this name, and creates it if there is none.
    pub(super) fn table(&self, name: &str) -> fjall::Result<TableHandle> {
        match self {
            Self::Fjall(database, sequence) => {
                let is_new = !database.keyspace_exists(name);
                let keyspace = database.keyspace(name, table_options)?;
                if is_new {
                    sequence.advance(database, 1)?;
                }
                Ok(TableHandle::Fjall(keyspace))
            }
            Self::Memory(tables) => Ok(TableHandle::Memory(tables.table(name)?)),
        }
    }

    /// Returns the names of all tables.
    pub(super) fn names(&self) -> Vec<String> {
        match self {
            Self::Fjall(database, _) => {
                let names = database.list_keyspace_names();
                let names = names.iter().map(|name| name.to_string());
                names.filter(|name| name != SEQUENCE).collect()
            }
            Self::Memory(tables) => tables.names(),
        }
    }

    /// Deletes a table.
    pub(super) fn delete(&self, table: TableHandle) -> fjall::Result<()> {
        match (self, table) {
            (Self::Fjall(database, sequence), TableHandle::Fjall(keyspace)) => {
                database.delete_keyspace(keyspace)?;
                sequence.advance(database, 1)
            }
            (Self::Memory(tables), TableHandle::Memory(table)) => tables.delete(&table),
            _ => unreachable!("{OTHER}"),
        }
    }

    /// Returns an empty batch.
    pub(super) fn batch(&self) -> TableBatch {
        match self {
            Self::Fjall(database, _) => TableBatch::Fjall(database.batch(), 0),
            Self::Memory(_) => TableBatch::Memory(Vec::new()),
        }
    }

    /// Makes the changes of a batch, durably.
    pub(super) fn commit(&self, batch: TableBatch) -> fjall::Result<()> {
        match (self, batch) {
            (Self::Fjall(database, sequence), TableBatch::Fjall(batch, bytes)) => {
                batch.commit()?;
                database.persist(PersistMode::SyncAll)?;
                sequence.journaled(database, bytes)
            }
            (Self::Memory(tables), TableBatch::Memory(changes)) => tables.commit(changes),
            _ => unreachable!("{OTHER}"),
        }
    }

    /// Writes rows to a table and removes those that have no value, all at once, durably, and
    /// without the journal. The rows must ascend.
    pub(super) fn ingest(
        &self,
        table: &TableHandle,
        rows: impl IntoIterator<Item = (Vec<u8>, Option<Vec<u8>>)>,
    ) -> fjall::Result<()> {
        match (self, table) {
            (Self::Fjall(..), TableHandle::Fjall(keyspace)) => {
                let mut ingestion = keyspace.start_ingestion()?;
                for (key, value) in rows {
                    match value {
                        Some(value) => ingestion.write(key, value)?,
                        None => ingestion.write_tombstone(key)?,
                    }
                }
                ingestion.finish()
            }
            (Self::Memory(tables), TableHandle::Memory(table)) => {
                let changes = rows.into_iter();
                let changes =
                    changes.map(|(key, value)| (table.clone(), key.into(), value.map(Slice::from)));
                tables.commit(changes.collect())
            }
            _ => unreachable!("{OTHER}"),
        }
    }

    /// Returns the value of one key and all rows of a table, both as of now.
    pub(super) fn snapshot(
        &self,
        table: &TableHandle,
        key: &[u8],
    ) -> fjall::Result<(Option<Slice>, TableRows)> {
        match (self, table) {
            (Self::Fjall(database, _), TableHandle::Fjall(keyspace)) => {
                let snapshot = database.snapshot();
                Ok((snapshot.get(keyspace, key)?, TableRows::Fjall(snapshot.iter(keyspace))))
            }
            (Self::Memory(_), TableHandle::Memory(table)) => {
                Ok((table.get(key), TableRows::Memory(table.rows())))
            }
            _ => unreachable!("{OTHER}"),
        }
    }

    /// Returns the size on disk in bytes, journals included.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            // The size of a file that is being deleted cannot be read; the next call will succeed.
            Self::Fjall(database, _) => database.disk_space().unwrap_or(0),
            Self::Memory(tables) => tables.bytes(),
        }
    }

    /// Returns the free space at the location of the database, in bytes.
    pub(super) fn free_bytes(&self, path: &Path) -> std::io::Result<u64> {
        match self {
            Self::Fjall(..) => free_bytes(path),
            Self::Memory(tables) => Ok(tables.free_bytes()),
        }
    }
}

/// Tables and batches are used only with the kind of database that created them.
const OTHER: &str = "a table of another kind of database";

/// Returns the free space at the location of a directory, in bytes.
pub(super) fn free_bytes(path: &Path) -> std::io::Result<u64> {
    let disk = rustix::fs::statvfs(path)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

impl Sequence {
    /// Uses up this many sequence numbers, durably.
    fn advance(&self, database: &Database, count: usize) -> fjall::Result<()> {
        for _ in 0..count {
            self.keyspace.insert(b"last", b"")?;
        }
        database.persist(PersistMode::SyncAll)
    }

    /// Counts the bytes written to the journal, and makes fjall check its journals once there are
    /// many.
    ///
    /// fjall checks them only when it writes a full memtable. Our tables may never fill one:
    /// ingestions write memtables out whatever they contain, and the journal would grow without
    /// bound.
    fn journaled(&self, database: &Database, bytes: u64) -> fjall::Result<()> {
        let journal_bytes = self.journal_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if journal_bytes < JOURNAL_LOOK_BYTES {
            return Ok(());
        }
        self.journal_bytes.store(0, Ordering::Relaxed);
        // fjall would not write an empty memtable.
        self.advance(database, 1)?;
        self.keyspace.rotate_memtable().map(drop)
    }
}

impl TableHandle {
    /// Returns the value of a key.
    pub(super) fn get(&self, key: impl AsRef<[u8]>) -> fjall::Result<Option<Slice>> {
        match self {
            Self::Fjall(keyspace) => keyspace.get(key),
            Self::Memory(table) => Ok(table.get(key.as_ref())),
        }
    }

    /// Returns all rows.
    pub(super) fn rows(&self) -> TableRows {
        match self {
            Self::Fjall(keyspace) => TableRows::Fjall(keyspace.iter()),
            Self::Memory(table) => TableRows::Memory(table.rows()),
        }
    }
}

impl TableBatch {
    /// Inserts a row into a table, or replaces it.
    pub(super) fn insert(
        &mut self,
        table: &TableHandle,
        key: impl Into<Slice>,
        value: impl Into<Slice>,
    ) {
        match (self, table) {
            (Self::Fjall(batch, bytes), TableHandle::Fjall(keyspace)) => {
                let (key, value) = (key.into(), value.into());
                *bytes += (key.len() + value.len()) as u64;
                batch.insert(keyspace, key, value);
            }
            (Self::Memory(changes), TableHandle::Memory(table)) => {
                changes.push((table.clone(), key.into(), Some(value.into())));
            }
            _ => unreachable!("{OTHER}"),
        }
    }

    /// Removes the row of a key from a table.
    pub(super) fn remove(&mut self, table: &TableHandle, key: impl Into<Slice>) {
        match (self, table) {
            (Self::Fjall(batch, bytes), TableHandle::Fjall(keyspace)) => {
                let key = key.into();
                *bytes += key.len() as u64;
                batch.remove(keyspace, key);
            }
            (Self::Memory(changes), TableHandle::Memory(table)) => {
                changes.push((table.clone(), key.into(), None));
            }
            _ => unreachable!("{OTHER}"),
        }
    }
}

impl TableRows {
    /// Returns the next row; `None` after the last.
    pub(super) fn next_row(&mut self) -> fjall::Result<Option<Pair>> {
        match self {
            Self::Fjall(rows) => rows.next().map(|row| row.into_inner()).transpose(),
            Self::Memory(rows) => Ok(rows.next_row()),
        }
    }
}

fn table_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .manual_journal_persist(true)
        .max_memtable_size(MEMTABLE_BYTES)
        .with_kv_separation(Some(
            KvSeparationOptions::default().separation_threshold(SEPARATED_BYTES),
        ))
        // Keys are looked up in memory first, so filters for absent keys would be useless.
        .expect_point_read_hits(true)
}

#[cfg(test)]
mod tests;

#[cfg(test)]
impl Tables {
    /// Changes one row.
    pub(super) fn tamper(&self, table: &TableHandle, key: Vec<u8>, value: Option<&[u8]>) {
        let mut batch = self.batch();
        match value {
            Some(value) => batch.insert(table, key, value),
            None => batch.remove(table, key),
        }
        self.commit(batch).expect("written");
    }
}

#[cfg(test)]
impl TableHandle {
    /// Forces all rows into the files of the table.
    pub(super) fn flush(&self) {
        if let Self::Fjall(keyspace) = self {
            keyspace.rotate_memtable_and_wait().expect("flushed");
        }
    }
}
