//! The on-disk part of the state: a store of rows for each group of this node, all in one fjall
//! database.
//!
//! The Raft log is the journal of the state; the engine stores checkpoints of it. A checkpoint is
//! one atomic batch: the rows that changed, and the meta row that says which moment they lead to.
//! It is durable when the call returns, and only then may the log up to that moment be purged.
//!
//! ```text
//! table "groups"               group u32 be -> generation u64 le, stored u8
//! table "g<group>-<generation>"  kind u8, key -> value; 'm' -> meta
//! ```
//!
//! A snapshot from the leader goes into a table of the next generation, next to the current one.
//! Once all of its rows are durable, the record in "groups" switches between them: before that
//! write the old state is current, after it the new one, whatever happens in between. A table that
//! no record names is a leftover, and is deleted when the engine is opened.
//!
//! fjall silently truncates its journal where it is torn or malformed, which takes a state back to
//! an earlier checkpoint. The owner must therefore compare the loaded position with the first entry
//! that its log still has, and refuse to start if there is a gap.
//!
//! All calls may block on the disk, so none belongs on an async thread. The engine checks for free
//! disk space before it writes anything, since fjall accepts no more writes after one has failed.
//!
//! Deliberately missing: reading single keys. All keys of a group are in memory.

mod chunk;
mod error;
mod files;
mod group;
mod install;
mod snapshot;
mod store;
mod tables;

pub use error::EngineError;
pub use files::is_database_name;
pub(super) use group::Rows;
pub use install::{Completed, Installer};
pub use snapshot::SnapshotReader;
pub use store::GroupStore;
pub use tables::MemoryStore;

use std::collections::HashMap;
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use dkv_base::durable;
use dkv_base::id::GroupId;
use dkv_base::supervise;
use dkv_base::sync::lock;

use super::rows::Generation;
use super::value_cache::ValueCache;
use group::Group;
use tables::{TableBatch, TableHandle, Tables};

/// Name of the table of records.
const RECORDS: &str = "groups";
/// Options for opening an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Disk space to leave free for merging tables and for the log, in bytes. The engine refuses
    /// writes that would go below it.
    pub reserve_bytes: u64,
    /// Limit on the values that the states of all groups keep in memory, in bytes, in addition to
    /// those that no checkpoint has yet.
    pub value_bytes: u64,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { reserve_bytes: 128 * 1024 * 1024, value_bytes: u64::MAX }
    }
}

/// The database of one node. Cloning creates another handle to it.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<EngineInner>,
}

/// The data shared by all stores of an engine.
pub(crate) struct EngineInner {
    // Declared before the database, so that all tables are dropped first.
    groups: Mutex<HashMap<GroupId, Arc<Group>>>,
    records: TableHandle,
    tables: Tables,
    path: PathBuf,
    reserve_bytes: AtomicU64,
    value_memory: ValueCache,
}

/// The entry of a group in "groups".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    generation: Generation,
    /// Whether there is a state; false if the group was removed.
    stored: bool,
}

impl Engine {
    /// Opens the engine in that directory, creating it if there is none, and deletes the leftovers
    /// of an interrupted installation.
    ///
    /// # Errors
    /// [`EngineError::InUse`], [`EngineError::Damaged`], [`EngineError::Missing`],
    /// [`EngineError::NoSpace`], or [`EngineError::Failed`].
    pub fn open(path: &Path, options: EngineOptions) -> Result<Self, EngineError> {
        let guard = Guard { path };
        // Nothing has been read yet, so an error here cannot mean damage.
        durable::create_dir(path).map_err(|error| guard.failed(error))?;
        guard.room(tables::free_bytes(path), options.reserve_bytes)?;
        files::clear_unfinished(path).map_err(|error| guard.failed(error))?;
        let tables = guard.call(|| Tables::open(path)).map_err(|error| match error {
            EngineError::InUse { .. } => error,
            // As after a start as another user.
            EngineError::Failed { path: at, source }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                let source = files::closed(path).unwrap_or(source);
                EngineError::Failed { path: at, source }
            }
            error => files::missing(path).map_or(error, EngineError::Missing),
        })?;
        Self::with_tables(path, tables, options)
    }

    /// Opens the engine on a store in memory, as a simulation does; otherwise like [`Self::open`].
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn in_memory(store: &MemoryStore, options: EngineOptions) -> Result<Self, EngineError> {
        let path = Path::new("memory");
        let tables = Tables::in_memory(store);
        Guard { path }.room(tables.free_bytes(path), options.reserve_bytes)?;
        Self::with_tables(path, tables, options)
    }

    fn with_tables(
        path: &Path,
        tables: Tables,
        options: EngineOptions,
    ) -> Result<Self, EngineError> {
        let records = Guard { path }.call(|| tables.table(RECORDS))?;
        let reserve_bytes = AtomicU64::new(options.reserve_bytes);
        let path = path.to_owned();
        let (groups, value_memory) = (Mutex::default(), ValueCache::new(options.value_bytes));
        let shared = EngineInner { groups, records, tables, path, reserve_bytes, value_memory };
        let engine = Self { shared: Arc::new(shared) };
        engine.recover()?;
        Ok(engine)
    }

    /// Returns the store of a group, which may be empty.
    ///
    /// # Errors
    /// [`EngineError::Damaged`] or [`EngineError::Failed`].
    pub fn group(&self, group: GroupId) -> Result<GroupStore, EngineError> {
        let mut groups = lock(&self.shared.groups);
        let entry = match groups.get(&group) {
            Some(entry) => Arc::clone(entry),
            None => {
                let entry = Arc::new(Group::open(&self.shared, group)?);
                groups.insert(group, Arc::clone(&entry));
                entry
            }
        };
        Ok(GroupStore::new(Arc::clone(&self.shared), entry))
    }

    /// Returns the groups that have a stored state.
    ///
    /// # Errors
    /// [`EngineError::Damaged`] or [`EngineError::Failed`].
    pub fn stored(&self) -> Result<Vec<GroupId>, EngineError> {
        let mut stored = Vec::new();
        self.shared.each_record(|group, record| {
            if record.stored {
                stored.push(group);
            }
        })?;
        Ok(stored)
    }

    /// Returns the free disk space beyond the reserve, in bytes; zero if it cannot be determined.
    pub fn free_bytes(&self) -> u64 {
        let free = self.shared.tables.free_bytes(&self.shared.path).unwrap_or(0);
        free.saturating_sub(self.shared.reserve_bytes.load(Ordering::Relaxed))
    }

    /// Returns the size on disk in bytes, journals included.
    pub fn disk_bytes(&self) -> u64 {
        self.shared.tables.bytes()
    }

    /// Changes the disk space to leave free, in bytes.
    pub fn set_reserve(&self, reserve_bytes: u64) {
        self.shared.reserve_bytes.store(reserve_bytes, Ordering::Relaxed);
    }

    /// Deletes tables that no record names, and checks that every table named by a record exists.
    fn recover(&self) -> Result<(), EngineError> {
        let shared = &self.shared;
        let mut expected = HashMap::new();
        shared.each_record(|group, record| {
            if record.stored {
                expected.insert(table_name(group, record.generation), group);
            }
        })?;
        for name in shared.tables.names() {
            if expected.remove(&name).is_some() || name == RECORDS {
                continue;
            }
            tracing::info!(name, "deleting what an interrupted installation left");
            shared.guard().call(|| shared.tables.delete(shared.tables.table(&name)?))?;
        }
        match expected.into_values().next() {
            None => Ok(()),
            Some(group) => {
                Err(shared.guard().damaged(&format!("the rows of group {group} are gone")))
            }
        }
    }
}

impl EngineInner {
    fn guard(&self) -> Guard<'_> {
        Guard { path: &self.path }
    }

    fn each_record(&self, mut look: impl FnMut(GroupId, Record)) -> Result<(), EngineError> {
        let mut records = self.records.rows();
        while let Some((key, value)) = self.guard().call(|| records.next_row())? {
            let group = key.as_ref().try_into().map(u32::from_be_bytes).map(GroupId);
            let (Ok(group), Some(record)) = (group, Record::decode(&value)) else {
                return Err(self.guard().damaged("the record of a group is malformed"));
            };
            look(group, record);
        }
        Ok(())
    }

    fn record(&self, group: GroupId) -> Result<Option<Record>, EngineError> {
        let key = group.0.to_be_bytes();
        let Some(value) = self.guard().call(|| self.records.get(key))? else { return Ok(None) };
        match Record::decode(&value) {
            Some(record) => Ok(Some(record)),
            None => Err(self.guard().damaged("the record of a group is malformed")),
        }
    }

    /// Replaces the record of a group, atomically and durably.
    ///
    /// The record goes straight into a table, not through the journal, so that no damage to the
    /// journal can make a state look as if it had never existed.
    fn set_record(&self, group: GroupId, record: Record) -> Result<(), EngineError> {
        let row = (group.0.to_be_bytes().to_vec(), record.encode());
        self.guard().call(|| self.tables.ingest(&self.records, [(row.0, Some(row.1))]))
    }

    fn table(&self, group: GroupId, generation: Generation) -> Result<TableHandle, EngineError> {
        let name = table_name(group, generation);
        self.guard().call(|| self.tables.table(&name))
    }

    /// Refuses to write this many bytes if that would leave too little room.
    fn require_room(&self, bytes: usize) -> Result<(), EngineError> {
        let needed_bytes = self.reserve_bytes.load(Ordering::Relaxed).saturating_add(bytes as u64);
        self.guard().room(self.tables.free_bytes(&self.path), needed_bytes)
    }

    /// Writes a batch, all of it or nothing, and returns once it is durable.
    fn commit_durably(&self, batch: TableBatch) -> Result<(), EngineError> {
        self.guard().call(|| self.tables.commit(batch))
    }
}

/// A wrapper for calls into fjall that maps failures to our errors.
struct Guard<'a> {
    path: &'a Path,
}

impl Guard<'_> {
    /// Runs a call into fjall. Some kinds of damage make fjall panic instead of returning an error;
    /// this reports them as damage too, so that the process can still log it and stop in good
    /// order.
    fn call<T>(&self, call: impl FnOnce() -> fjall::Result<T>) -> Result<T, EngineError> {
        match supervise::caught_in_silence(AssertUnwindSafe(call)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.engine(error)),
            Err(panicked) => {
                Err(self
                    .damaged(&format!("the storage engine gave up on what it read ({panicked})")))
            }
        }
    }

    fn engine(&self, error: fjall::Error) -> EngineError {
        use fjall::{Error, LsmError};
        match error {
            Error::Locked => EngineError::InUse { path: self.path.to_owned() },
            Error::Io(error) | Error::Storage(LsmError::Io(error)) => self.io(error),
            Error::Poisoned | Error::KeyspaceDeleted => self.failed(io::Error::other(error)),
            Error::Storage(LsmError::Unrecoverable) => {
                self.damaged("a file of it is missing, or is not what was written")
            }
            // The other errors are about formats and checksums.
            error => self.damaged(&error.to_string()),
        }
    }

    fn io(&self, error: io::Error) -> EngineError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::NotFound => {
                self.damaged(&error.to_string())
            }
            _ => self.failed(error),
        }
    }

    fn failed(&self, source: io::Error) -> EngineError {
        EngineError::Failed { path: self.path.to_owned(), source }
    }

    fn damaged(&self, problem: &str) -> EngineError {
        EngineError::Damaged { path: self.path.to_owned(), problem: problem.to_owned() }
    }

    fn room(&self, free_bytes: io::Result<u64>, needed_bytes: u64) -> Result<(), EngineError> {
        let free_bytes = free_bytes.map_err(|error| self.failed(error))?;
        if free_bytes >= needed_bytes {
            return Ok(());
        }
        Err(EngineError::NoSpace { path: self.path.to_owned(), needed_bytes, free_bytes })
    }
}

impl Record {
    fn encode(self) -> Vec<u8> {
        let mut encoded = self.generation.0.to_le_bytes().to_vec();
        encoded.push(u8::from(self.stored));
        encoded
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let (generation, stored) = value.split_first_chunk::<8>()?;
        let stored = match stored {
            [0] => false,
            [1] => true,
            _ => return None,
        };
        Some(Self { generation: Generation(u64::from_le_bytes(*generation)), stored })
    }
}

fn table_name(group: GroupId, generation: Generation) -> String {
    format!("g{group}-{}", generation.0)
}
