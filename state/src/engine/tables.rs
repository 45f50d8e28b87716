//! What the engine asks of a database: named tables of rows, changed atomically and durably, and
//! read as of one moment.
//!
//! [`Tables`] is a fjall database, or one in memory for tests and simulation ([`MemoryStore`]),
//! which a simulation can take the power from. Both promise the same: a call that has returned is
//! durable, one that has not has happened or it has not. The engine's own tests and a twin test
//! hold them against each other.

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

/// Blocks of tables that are kept in memory, in bytes. Nothing is read twice while a node runs.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;
/// A memtable larger than this goes to disk, in bytes. Each group has at least one.
const MEMTABLE_BYTES: u64 = 8 * 1024 * 1024;
/// Values from this many bytes on are kept beside the tables, so that merging these does not write
/// them again.
pub(super) const SEPARATED_BYTES: u32 = 16 * 1024;
/// Journals that are kept before memtables are made to go to disk, in bytes: fjall's minimum.
const JOURNAL_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes that go to a journal before fjall is made to look whether it should begin another, or
/// delete one.
const JOURNAL_LOOK_BYTES: u64 = 16 * 1024 * 1024;
/// Threads that write memtables and merge tables. Of several, one hands merges on, and spins while
/// the others merge.
const WORKERS: usize = 1;
/// Files that are kept open.
const OPEN_FILES_MAX: usize = 128;

/// A key and its value.
pub(super) type Pair = (Slice, Slice);

/// Name of the table that only moves fjall's sequence numbers on.
const SEQUENCE: &str = "sequence";
/// Sequence numbers that tables which were made or deleted may have taken just before a crash.
const SEQUENCE_GAP: usize = 4096;

/// A database.
pub(super) enum Tables {
    Fjall(Database, Sequence),
    Memory(MemoryTables),
}

/// Keeps what fjall knows of its tables ahead of what it knew before.
///
/// Names of tables are rows with sequence numbers of their own, and fjall 3.1 does not take these
/// into account when it opens a database and goes on counting. The name of a new table could then
/// have a number below that of the deletion of another, whose place it takes, and be taken for
/// deleted at the next start, rows and all. So each table that is made or deleted is followed by a
/// durable row of a later number, and each start skips what may lack that.
///
/// It is also how the journal comes to an end: see [`Self::journaled`].
#[derive(Clone)]
pub(super) struct Sequence {
    keyspace: Keyspace,
    /// Bytes that went to the journal since fjall was last made to look at it.
    journal_bytes: Arc<AtomicU64>,
}

/// One table. Clones are the same table; it can be read for as long as one is kept, deleted or not.
#[derive(Clone)]
pub(crate) enum Table {
    Fjall(Keyspace),
    Memory(MemoryTable),
}

/// Changes of tables that happen together or not at all.
pub(super) enum Batch {
    /// With the bytes of its rows.
    Fjall(OwnedWriteBatch, u64),
    Memory(Vec<(MemoryTable, Slice, Option<Slice>)>),
}

/// The rows of one table at one moment, ascending. Later changes do not change what it yields.
pub(super) enum Rows {
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

    /// The table of that name, which is made if there is none.
    pub(super) fn table(&self, name: &str) -> fjall::Result<Table> {
        match self {
            Self::Fjall(database, sequence) => {
                let is_new = !database.keyspace_exists(name);
                let keyspace = database.keyspace(name, table_options)?;
                if is_new {
                    sequence.advance(database, 1)?;
                }
                Ok(Table::Fjall(keyspace))
            }
            Self::Memory(tables) => Ok(Table::Memory(tables.table(name)?)),
        }
    }

    /// The names of all tables.
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
    pub(super) fn delete(&self, table: Table) -> fjall::Result<()> {
        match (self, table) {
            (Self::Fjall(database, sequence), Table::Fjall(keyspace)) => {
                database.delete_keyspace(keyspace)?;
                sequence.advance(database, 1)
            }
            (Self::Memory(tables), Table::Memory(table)) => tables.delete(&table),
            _ => unreachable!("{OTHER}"),
        }
    }

    /// A batch without changes.
    pub(super) fn batch(&self) -> Batch {
        match self {
            Self::Fjall(database, _) => Batch::Fjall(database.batch(), 0),
            Self::Memory(_) => Batch::Memory(Vec::new()),
        }
    }

    /// Makes the changes of a batch, durably.
    pub(super) fn commit(&self, batch: Batch) -> fjall::Result<()> {
        match (self, batch) {
            (Self::Fjall(database, sequence), Batch::Fjall(batch, bytes)) => {
                batch.commit()?;
                database.persist(PersistMode::SyncAll)?;
                sequence.journaled(database, bytes)
            }
            (Self::Memory(tables), Batch::Memory(changes)) => tables.commit(changes),
            _ => unreachable!("{OTHER}"),
        }
    }

    /// Writes rows, which ascend, to a table and removes those that have no value, together,
    /// durably, and without the journal.
    pub(super) fn ingest(
        &self,
        table: &Table,
        rows: impl IntoIterator<Item = (Vec<u8>, Option<Vec<u8>>)>,
    ) -> fjall::Result<()> {
        match (self, table) {
            (Self::Fjall(..), Table::Fjall(keyspace)) => {
                let mut ingestion = keyspace.start_ingestion()?;
                for (key, value) in rows {
                    match value {
                        Some(value) => ingestion.write(key, value)?,
                        None => ingestion.write_tombstone(key)?,
                    }
                }
                ingestion.finish()
            }
            (Self::Memory(tables), Table::Memory(table)) => {
                let changes = rows.into_iter();
                let changes =
                    changes.map(|(key, value)| (table.clone(), key.into(), value.map(Slice::from)));
                tables.commit(changes.collect())
            }
            _ => unreachable!("{OTHER}"),
        }
    }

    /// The value of one key and all rows of a table, both as of now.
    pub(super) fn snapshot(
        &self,
        table: &Table,
        key: &[u8],
    ) -> fjall::Result<(Option<Slice>, Rows)> {
        match (self, table) {
            (Self::Fjall(database, _), Table::Fjall(keyspace)) => {
                let snapshot = database.snapshot();
                Ok((snapshot.get(keyspace, key)?, Rows::Fjall(snapshot.iter(keyspace))))
            }
            (Self::Memory(_), Table::Memory(table)) => {
                Ok((table.get(key), Rows::Memory(table.rows())))
            }
            _ => unreachable!("{OTHER}"),
        }
    }

    /// Bytes on disk, journals included.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            // The size of a file that is just being deleted cannot be read; the next call gets it.
            Self::Fjall(database, _) => database.disk_space().unwrap_or(0),
            Self::Memory(tables) => tables.bytes(),
        }
    }

    /// Bytes that are free where the database is.
    pub(super) fn free_bytes(&self, path: &Path) -> std::io::Result<u64> {
        match self {
            Self::Fjall(..) => free_bytes(path),
            Self::Memory(tables) => Ok(tables.free_bytes()),
        }
    }
}

/// Tables, batches and databases go together by how they are made.
const OTHER: &str = "a table of another kind of database";

/// Bytes that are free where a directory is.
pub(super) fn free_bytes(path: &Path) -> std::io::Result<u64> {
    let disk = rustix::fs::statvfs(path)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

impl Sequence {
    /// Takes that many numbers, durably.
    fn advance(&self, database: &Database, count: usize) -> fjall::Result<()> {
        for _ in 0..count {
            self.keyspace.insert(b"last", b"")?;
        }
        database.persist(PersistMode::SyncAll)
    }

    /// Takes note of what went to the journal, and has fjall look at its journals if that was much.
    ///
    /// It does so only as it writes a memtable that is full. Those of our tables may never be:
    /// an ingestion writes them, whatever they hold, and the journal would grow without bound.
    fn journaled(&self, database: &Database, bytes: u64) -> fjall::Result<()> {
        let journal_bytes = self.journal_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if journal_bytes < JOURNAL_LOOK_BYTES {
            return Ok(());
        }
        self.journal_bytes.store(0, Ordering::Relaxed);
        // An empty memtable would not be written.
        self.advance(database, 1)?;
        self.keyspace.rotate_memtable().map(drop)
    }
}

impl Table {
    /// The value of a key.
    pub(super) fn get(&self, key: impl AsRef<[u8]>) -> fjall::Result<Option<Slice>> {
        match self {
            Self::Fjall(keyspace) => keyspace.get(key),
            Self::Memory(table) => Ok(table.get(key.as_ref())),
        }
    }

    /// All rows.
    pub(super) fn rows(&self) -> Rows {
        match self {
            Self::Fjall(keyspace) => Rows::Fjall(keyspace.iter()),
            Self::Memory(table) => Rows::Memory(table.rows()),
        }
    }
}

impl Batch {
    /// Has a row in a table.
    pub(super) fn insert(&mut self, table: &Table, key: impl Into<Slice>, value: impl Into<Slice>) {
        match (self, table) {
            (Self::Fjall(batch, bytes), Table::Fjall(keyspace)) => {
                let (key, value) = (key.into(), value.into());
                *bytes += (key.len() + value.len()) as u64;
                batch.insert(keyspace, key, value);
            }
            (Self::Memory(changes), Table::Memory(table)) => {
                changes.push((table.clone(), key.into(), Some(value.into())));
            }
            _ => unreachable!("{OTHER}"),
        }
    }

    /// Has no row of that key in a table.
    pub(super) fn remove(&mut self, table: &Table, key: impl Into<Slice>) {
        match (self, table) {
            (Self::Fjall(batch, bytes), Table::Fjall(keyspace)) => {
                let key = key.into();
                *bytes += key.len() as u64;
                batch.remove(keyspace, key);
            }
            (Self::Memory(changes), Table::Memory(table)) => {
                changes.push((table.clone(), key.into(), None));
            }
            _ => unreachable!("{OTHER}"),
        }
    }
}

impl Rows {
    /// The next row; nothing after the last.
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
        // Keys are looked up in memory: filters for those that are not there would lie idle.
        .expect_point_read_hits(true)
}

#[cfg(test)]
mod tests;

#[cfg(test)]
impl Tables {
    /// Changes one row.
    pub(super) fn tamper(&self, table: &Table, key: Vec<u8>, value: Option<&[u8]>) {
        let mut batch = self.batch();
        match value {
            Some(value) => batch.insert(table, key, value),
            None => batch.remove(table, key),
        }
        self.commit(batch).expect("written");
    }
}

#[cfg(test)]
impl Table {
    /// Has all rows written to the files of the table.
    pub(super) fn flush(&self) {
        if let Self::Fjall(keyspace) = self {
            keyspace.rotate_memtable_and_wait().expect("flushed");
        }
    }
}
