//! A database in memory, **for tests and simulation only**.
//!
//! As with the real one, every call is durable when it returns. The database can be made to die at
//! a call, which then has happened or not, as the seed decides. Durable data outlives the process
//! that wrote it: [`MemoryStore::restart`] returns it as the next process finds it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use dkv_base::sync::lock;
use fjall::Slice;

use super::Pair;

type Contents = BTreeMap<Slice, Slice>;

/// The contents of a database in memory. Clones share them.
#[derive(Clone, Default)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    tables: BTreeMap<String, MemoryTable>,
    dead: bool,
    calls: u64,
    /// The last call that gets an answer, and whether the call after it still takes effect.
    last_call: Option<(u64, bool)>,
    free_bytes: Option<u64>,
}

impl MemoryStore {
    /// Creates a store without tables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the process that uses the store. Returns a store with the same contents; this one fails
    /// every call from now on.
    pub fn restart(&self) -> Self {
        let copy = self.copy();
        self.lock().dead = true;
        copy
    }

    /// Returns another store with the same contents.
    pub fn copy(&self) -> Self {
        let state = self.lock();
        let mut tables = BTreeMap::new();
        for (name, table) in &state.tables {
            // Copied, not shared: the remains of the dead process must not reach it.
            let rows = Arc::clone(&table.lock());
            tables.insert(name.clone(), MemoryTable::new(name, rows));
        }
        let next = State { tables, free_bytes: state.free_bytes, ..State::default() };
        Self { state: Arc::new(Mutex::new(next)) }
    }

    /// Lets `count` more changes through. The one after them fails, having taken effect or not, and
    /// so do all later ones.
    pub fn die_after(&self, count: u64, happens: bool) {
        let mut state = self.lock();
        state.last_call = Some((state.calls + count, happens));
    }

    /// Returns whether a call has failed.
    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// Limits the free space to `bytes`, or lifts the limit. Rows do not use it up.
    pub fn set_free_bytes(&self, bytes: Option<u64>) {
        self.lock().free_bytes = bytes;
    }

    pub(super) fn open(&self) -> MemoryTables {
        MemoryTables { store: self.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Makes one change.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> fjall::Result<T> {
        let gone = || fjall::Error::Io(io::Error::other("the simulated disk is gone"));
        let mut state = self.lock();
        if state.dead {
            return Err(gone());
        }
        state.calls += 1;
        match state.last_call {
            Some((last, happens)) if state.calls > last => {
                state.dead = true;
                if happens {
                    change(&mut state);
                }
                Err(gone())
            }
            _ => Ok(change(&mut state)),
        }
    }
}

/// A database, as the engine uses it.
pub(in crate::engine) struct MemoryTables {
    store: MemoryStore,
}

/// A table of such a database.
#[derive(Clone)]
pub(crate) struct MemoryTable {
    name: Arc<str>,
    rows: Arc<Mutex<Arc<Contents>>>,
}

/// The rows of a table at one moment.
pub(in crate::engine) struct MemoryRows {
    rows: Arc<Contents>,
    last: Option<Slice>,
}

impl MemoryTables {
    pub(super) fn table(&self, name: &str) -> fjall::Result<MemoryTable> {
        if let Some(table) = self.store.lock().tables.get(name) {
            return Ok(table.clone());
        }
        self.store.change(|state| {
            let new = || MemoryTable::new(name, Arc::default());
            state.tables.entry(name.to_owned()).or_insert_with(new).clone()
        })
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.store.lock().tables.keys().cloned().collect()
    }

    pub(super) fn delete(&self, table: &MemoryTable) -> fjall::Result<()> {
        self.store.change(|state| drop(state.tables.remove(&*table.name)))
    }

    pub(super) fn commit(
        &self,
        changes: Vec<(MemoryTable, Slice, Option<Slice>)>,
    ) -> fjall::Result<()> {
        self.store.change(|_| {
            for (table, key, value) in changes {
                let mut rows = table.lock();
                let rows = Arc::make_mut(&mut rows);
                match value {
                    Some(value) => drop(rows.insert(key, value)),
                    None => drop(rows.remove(&key)),
                }
            }
        })
    }

    pub(super) fn bytes(&self) -> u64 {
        let state = self.store.lock();
        let bytes = |table: &MemoryTable| -> usize {
            table.lock().iter().map(|(key, value)| key.len() + value.len()).sum()
        };
        state.tables.values().map(bytes).sum::<usize>() as u64
    }

    pub(super) fn free_bytes(&self) -> u64 {
        self.store.lock().free_bytes.unwrap_or(u64::MAX)
    }
}

impl MemoryTable {
    fn new(name: &str, rows: Arc<Contents>) -> Self {
        Self { name: name.into(), rows: Arc::new(Mutex::new(rows)) }
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Slice> {
        self.lock().get(key).cloned()
    }

    pub(super) fn rows(&self) -> MemoryRows {
        MemoryRows { rows: Arc::clone(&self.lock()), last: None }
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Contents>> {
        lock(&self.rows)
    }
}

impl MemoryRows {
    pub(super) fn next_row(&mut self) -> Option<Pair> {
        use std::ops::Bound;
        let from = self.last.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let (key, value) = self.rows.range((from, Bound::Unbounded)).next()?;
        let row = (key.clone(), value.clone());
        self.last = Some(row.0.clone());
        Some(row)
    }
}
