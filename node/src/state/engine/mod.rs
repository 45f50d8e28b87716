//! What the state keeps on disk: a store of rows for each group of this node, all in one fjall
//! database.
//!
//! The Raft log is the journal of the state; the engine holds checkpoints of it. A checkpoint is one
//! atomic batch of the rows that changed and of the meta row that says which moment they lead to. It
//! is durable when the call returns, and only then may the log up to that moment be purged.
//!
//! ```text
//! keyspace "groups"               group u32 be -> generation u64 le, stored u8
//! keyspace "g<group>-<generation>"  table u8, key -> value; 'm' -> meta
//! ```
//!
//! A snapshot from the leader goes into a keyspace of the next generation, beside the one that
//! stands. The record in "groups" is what switches, once all of the rows are durable: before it the
//! old state stands, after it the new one, whatever happens in between. A keyspace that no record
//! names is a leftover, and is deleted when the engine is opened.
//!
//! The journal of fjall is cut off where it is torn or malformed, without a word, which takes a state
//! back to an earlier checkpoint. The owner must therefore compare the loaded position with the first entry
//! that its log still has, and refuse to start if there is a gap.
//!
//! All calls may block on the disk; none belongs on an async thread. Room on the disk is looked at
//! before anything is written, since fjall takes no more writes after one has failed.
//!
//! Deliberately missing: reading single keys. All keys of a group are in memory.

mod chunk;
mod error;
mod install;
mod snapshot;
mod store;

pub use error::EngineError;
pub use install::{Completed, Installer};
pub use snapshot::SnapshotReader;
pub use store::GroupStore;
pub(super) use store::Rows;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dkv_wire::id::GroupId;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};

use super::rows::Generation;
use store::Group;

/// Name of the keyspace of records.
const RECORDS: &str = "groups";
/// Blocks of tables that are kept in memory, in bytes. Nothing is read twice while a node runs.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;
/// A memtable larger than this goes to disk, in bytes. Each group has at least one.
const MEMTABLE_BYTES: u64 = 8 * 1024 * 1024;
/// Journals that are kept before memtables are made to go to disk, in bytes: fjall's minimum.
const JOURNAL_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Threads that write memtables and merge tables. Of several, one hands merges on, and spins while the
/// others merge.
const WORKERS: usize = 1;
/// Files that are kept open.
const OPEN_FILES_MAX: usize = 128;

/// How an engine is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Room that is left on the disk for merging tables and for the log, in bytes. What would go
    /// below it is refused.
    pub reserve_bytes: u64,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { reserve_bytes: 128 * 1024 * 1024 }
    }
}

/// The database of one node. Cloning gives another handle to it.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

/// What all stores of an engine share.
pub(in crate::state) struct Shared {
    // Declared before the database, so that a drop lets go of all keyspaces first.
    groups: Mutex<HashMap<GroupId, Arc<Group>>>,
    records: Keyspace,
    database: Database,
    path: PathBuf,
    reserve_bytes: AtomicU64,
}

/// What "groups" says of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    generation: Generation,
    /// Whether there is a state; not if the group was removed.
    stored: bool,
}

impl Engine {
    /// Opens the engine in that directory, creating it if there is none, and deletes what an
    /// interrupted installation left behind.
    ///
    /// # Errors
    /// [`EngineError::InUse`], [`EngineError::Damaged`], [`EngineError::NoSpace`], or
    /// [`EngineError::Failed`].
    pub fn open(path: &Path, options: EngineOptions) -> Result<Self, EngineError> {
        let guard = Guard { path };
        fs::create_dir_all(path).map_err(|error| guard.io(error))?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            // Without this the directory itself may be gone after a power failure.
            File::open(parent)
                .and_then(|parent| parent.sync_all())
                .map_err(|error| guard.io(error))?;
        }
        guard.room(options.reserve_bytes, 0)?;
        let database = guard.call(|| {
            Database::builder(path)
                .manual_journal_persist(true)
                .cache_size(CACHE_BYTES)
                .max_journaling_size(JOURNAL_BYTES_MAX)
                .max_cached_files(Some(OPEN_FILES_MAX))
                .worker_threads(WORKERS)
                .open()
        })?;
        let records = guard.call(|| database.keyspace(RECORDS, keyspace_options))?;
        let reserve_bytes = AtomicU64::new(options.reserve_bytes);
        let path = path.to_owned();
        let shared = Shared { groups: Mutex::default(), records, database, path, reserve_bytes };
        let engine = Self { shared: Arc::new(shared) };
        engine.recover()?;
        Ok(engine)
    }

    /// The store of a group, which may be empty.
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

    /// Bytes on disk, journals included.
    pub fn disk_bytes(&self) -> u64 {
        // The size of a file that is just being deleted cannot be read; the next call gets it.
        self.shared.database.disk_space().unwrap_or(0)
    }

    /// Changes how much room is left on the disk, in bytes.
    pub fn set_reserve(&self, reserve_bytes: u64) {
        self.shared.reserve_bytes.store(reserve_bytes, Ordering::Relaxed);
    }

    /// Deletes keyspaces that no record names, and checks that those which one names are there.
    fn recover(&self) -> Result<(), EngineError> {
        let shared = &self.shared;
        let mut expected = HashMap::new();
        for entry in shared.records.iter() {
            let (key, value) = shared.guard().call(|| entry.into_inner())?;
            let group = key.as_ref().try_into().map(u32::from_be_bytes).map(GroupId);
            let (Ok(group), Some(record)) = (group, Record::decode(&value)) else {
                return Err(shared.guard().damaged("the record of a group is malformed"));
            };
            if record.stored {
                expected.insert(keyspace_name(group, record.generation), group);
            }
        }
        for name in shared.database.list_keyspace_names() {
            if expected.remove(&*name).is_some() || &*name == RECORDS {
                continue;
            }
            tracing::info!(keyspace = &*name, "deleting what an interrupted installation left");
            let keyspace =
                shared.guard().call(|| shared.database.keyspace(&name, keyspace_options))?;
            shared.guard().call(|| shared.database.delete_keyspace(keyspace.clone()))?;
        }
        match expected.into_values().next() {
            None => Ok(()),
            Some(group) => {
                Err(shared.guard().damaged(&format!("the rows of group {group} are gone")))
            }
        }
    }
}

impl Shared {
    fn guard(&self) -> Guard<'_> {
        Guard { path: &self.path }
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
    /// It goes straight into a table, not through the journal, so that no damage to the journal can
    /// make a state look as if it had never been.
    fn set_record(&self, group: GroupId, record: Record) -> Result<(), EngineError> {
        self.guard().call(|| {
            let mut table = self.records.start_ingestion()?;
            table.write(group.0.to_be_bytes(), record.encode())?;
            table.finish()
        })
    }

    fn keyspace(&self, group: GroupId, generation: Generation) -> Result<Keyspace, EngineError> {
        let name = keyspace_name(group, generation);
        self.guard().call(|| self.database.keyspace(&name, keyspace_options))
    }

    /// Refuses what would leave too little room, before anything is written.
    fn require_room(&self, bytes: usize) -> Result<(), EngineError> {
        // Once in the journal and once in a table.
        self.guard().room(self.reserve_bytes.load(Ordering::Relaxed), 2 * bytes as u64)
    }

    /// Writes a batch, all of it or nothing, and returns once it is durable.
    fn commit_durably(&self, batch: OwnedWriteBatch) -> Result<(), EngineError> {
        self.guard().call(|| {
            batch.commit()?;
            self.database.persist(PersistMode::SyncAll)
        })
    }
}

/// Turns what fjall does into our errors.
struct Guard<'a> {
    path: &'a Path,
}

impl Guard<'_> {
    /// Runs a call into fjall. Some kinds of damage make it panic instead of answering; that is
    /// damage all the same, and the process can still say so and stop in good order.
    fn call<T>(&self, call: impl FnOnce() -> fjall::Result<T>) -> Result<T, EngineError> {
        match panic::catch_unwind(AssertUnwindSafe(call)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.engine(error)),
            Err(_) => Err(self.damaged("the storage engine gave up on what it read")),
        }
    }

    fn engine(&self, error: fjall::Error) -> EngineError {
        use fjall::{Error, LsmError};
        match error {
            Error::Locked => EngineError::InUse { path: self.path.to_owned() },
            Error::Io(error) | Error::Storage(LsmError::Io(error)) => self.io(error),
            Error::Poisoned | Error::KeyspaceDeleted => self.failed(io::Error::other(error)),
            // The rest is about formats and checksums.
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

    fn room(&self, reserve_bytes: u64, bytes: u64) -> Result<(), EngineError> {
        let disk = rustix::fs::statvfs(self.path).map_err(|error| self.failed(error.into()))?;
        let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
        let needed_bytes = reserve_bytes.saturating_add(bytes);
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

fn keyspace_name(group: GroupId, generation: Generation) -> String {
    format!("g{group}-{}", generation.0)
}

fn keyspace_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .manual_journal_persist(true)
        .max_memtable_size(MEMTABLE_BYTES)
        // Keys are looked up in memory: filters for those that are not there would lie idle.
        .expect_point_read_hits(true)
}

/// Locks a mutex whose data cannot be left half-changed by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
