//! The rows of one group: loaded once at start, then updated by checkpoints.

use std::sync::Arc;

use dkv_base::id::{GroupId, Revision};
use dkv_base::sync::{lock, read};

use super::group::{Group, META_KEY, Rows, join_key};
use super::install::Installer;
use super::snapshot::SnapshotReader;
use super::tables;
use super::{EngineError, EngineInner, Record};
use crate::rows::{Changes, Generation, HistoryRow, HistoryValue, PastRow, Row, Table};

/// Size in bytes from which a checkpoint is written as a table of its own, in one pass. A smaller
/// one goes through the journal, and later becomes a table together with others.
const INGESTED_BYTES: usize = if cfg!(test) { 16 * 1024 } else { 1024 * 1024 };
/// Size in bytes of a value that has its checkpoint written that way too. Every value that is
/// stored beside the tables is at least this large: an ingestion copies such values from a memtable
/// into a table as they are, and merging would then write them again and again.
const INGESTED_VALUE_BYTES: usize = tables::SEPARATED_BYTES as usize / 2;

/// The store of one group. Cloning creates another handle to it.
#[derive(Clone)]
pub struct GroupStore {
    shared: Arc<EngineInner>,
    group: Arc<Group>,
}

impl GroupStore {
    pub(super) fn new(shared: Arc<EngineInner>, group: Arc<Group>) -> Self {
        Self { shared, group }
    }

    /// Returns the group.
    pub fn id(&self) -> GroupId {
        self.group.id
    }

    /// Returns the error for impossible rows of this group.
    pub fn damaged(&self, problem: &str) -> EngineError {
        Rows::damaged(self, problem)
    }

    /// Writes the changes in one atomic batch. They are durable when this returns.
    ///
    /// # Errors
    /// Any [`EngineError`]. Unless it is fatal, nothing was written: give the changes back to the
    /// state, or drop them if they are superseded.
    pub fn checkpoint(&self, changes: &Changes) -> Result<(), EngineError> {
        let shared = &*self.shared;
        let mut current = lock(&self.group.current);
        if changes.generation != current.generation {
            return Err(EngineError::Superseded);
        }
        // Written straight into a table, or once to the journal and once into a table.
        let is_ingested =
            changes.bytes() >= INGESTED_BYTES || changes.has_value_of(INGESTED_VALUE_BYTES);
        shared.require_room(changes.bytes() * if is_ingested { 1 } else { 2 })?;
        let table = match &current.table {
            Some(table) => table.clone(),
            None => shared.table(self.id(), current.generation)?,
        };
        let history = self.history_rows(&table, changes)?;
        if is_ingested {
            shared.guard().call(|| shared.tables.ingest(&table, rows(changes, history)))?;
        } else {
            let mut batch = shared.tables.batch();
            for (key, value) in rows(changes, history) {
                match value {
                    Some(value) => batch.insert(&table, key, value),
                    None => batch.remove(&table, key),
                }
            }
            shared.commit_durably(batch)?;
        }
        if current.table.is_none() {
            let record = Record { generation: current.generation, stored: true };
            shared.set_record(self.id(), record)?;
            self.group.set_readable(Some(table.clone()));
            current.table = Some(table);
        }
        Ok(())
    }

    /// Looks a key up in the last checkpoint. Waits for the disk, but for no checkpoint in
    /// progress.
    ///
    /// # Errors
    /// [`EngineError::Damaged`] or [`EngineError::Failed`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Row>, EngineError> {
        let readable = read(&self.group.readable).clone();
        let Some(table) = readable else { return Ok(None) };
        let stored = self.shared.guard().call(|| table.get(join_key(Table::Keys, key)))?;
        let row = stored.map(|value| {
            let (origin, value) = Row::decode(&value).map_err(|error| self.damaged(error.0))?;
            Ok(Row { origin, value: Arc::from(value) })
        });
        row.transpose()
    }

    /// Looks a past version up in the last checkpoint; `None` if it is not there, or is a deletion.
    /// Waits for the disk, but for no checkpoint in progress.
    ///
    /// # Errors
    /// [`EngineError::Damaged`] or [`EngineError::Failed`].
    pub fn get_past(&self, key: &[u8], revision: Revision) -> Result<Option<Row>, EngineError> {
        // A checkpoint that comes between moves the version from the one table to the other.
        let past = || self.get_history(key, revision);
        if let Some(row) = past()? {
            return Ok(Some(row));
        }
        match self.get(key)?.filter(|row| row.origin.revision == revision) {
            Some(row) => Ok(Some(row)),
            None => past(),
        }
    }

    fn get_history(&self, key: &[u8], revision: Revision) -> Result<Option<Row>, EngineError> {
        let readable = read(&self.group.readable).clone();
        let Some(table) = readable else { return Ok(None) };
        let name = join_key(Table::History, &HistoryRow::key(key, revision));
        let Some(row) = self.shared.guard().call(|| table.get(&name))? else { return Ok(None) };
        let PastRow { origin, value, .. } =
            HistoryRow::decode(revision, &row).map_err(|error| self.damaged(error.0))?;
        Ok(value.map(|value| Row { origin, value: Arc::from(value) }))
    }

    /// Returns the changed rows of past versions, in the order of their keys. Values that are only
    /// in the rows of their keys are copied from there, because this checkpoint replaces those.
    fn history_rows(
        &self,
        table: &tables::TableHandle,
        changes: &Changes,
    ) -> Result<Vec<StoredRow>, EngineError> {
        let changed = changes.history.sorted();
        let mut rows = Vec::with_capacity(changed.len());
        for (name, row) in changed {
            let key = join_key(Table::History, &HistoryRow::key(&name.key, name.revision));
            let Some(HistoryRow { origin, attachment, value }) = row else {
                rows.push((key, None));
                continue;
            };
            let value = match value {
                HistoryValue::Deleted => HistoryRow::encode(*origin, *attachment, None),
                HistoryValue::Here(value) => HistoryRow::encode(*origin, *attachment, Some(value)),
                HistoryValue::InKeys(_) => {
                    let of_key = join_key(Table::Keys, &name.key);
                    let stored = self.shared.guard().call(|| table.get(&of_key))?;
                    let stored = stored.ok_or_else(|| self.damaged("a past value is gone"))?;
                    let (was, value) =
                        Row::decode(&stored).map_err(|error| self.damaged(error.0))?;
                    if was != *origin {
                        return Err(self.damaged("a past value is not that of its version"));
                    }
                    HistoryRow::encode(*origin, *attachment, Some(value))
                }
            };
            rows.push((key, Some(value)));
        }
        rows.sort_unstable();
        Ok(rows)
    }

    /// Returns a reader of the last checkpoint for sending it to another node; `None` if there is
    /// no checkpoint. Later checkpoints and installations do not change what it yields.
    ///
    /// # Errors
    /// [`EngineError::Damaged`] or [`EngineError::Failed`].
    pub fn snapshot(&self) -> Result<Option<SnapshotReader>, EngineError> {
        let current = lock(&self.group.current);
        let Some(table) = current.table.clone() else { return Ok(None) };
        let snapshot = self.shared.guard().call(|| self.shared.tables.snapshot(&table, &META_KEY));
        drop(current);
        let (meta, rows) = snapshot?;
        let meta = self.decode_meta(meta.as_deref())?;
        Ok(Some(SnapshotReader::new(Arc::clone(&self.shared), table, rows, meta)))
    }

    /// Begins the installation of a snapshot. The current state stays until that is finished.
    ///
    /// # Errors
    /// [`EngineError::NoSpace`] or [`EngineError::Failed`].
    pub fn install(&self) -> Result<Installer, EngineError> {
        self.shared.require_room(0)?;
        let generation = {
            let mut current = lock(&self.group.current);
            let generation = current.next;
            current.next.0 += 1;
            generation
        };
        let table = self.shared.table(self.id(), generation)?;
        Ok(Installer::new(Arc::clone(&self.shared), Arc::clone(&self.group), generation, table))
    }

    /// Deletes all rows of the group, durably. From then on the store refuses changes taken before.
    ///
    /// # Errors
    /// [`EngineError::Failed`].
    pub fn remove(&self) -> Result<(), EngineError> {
        let shared = &*self.shared;
        let mut current = lock(&self.group.current);
        let generation = current.next;
        shared.set_record(self.id(), Record { generation, stored: false })?;
        current.next.0 += 1;
        current.generation = generation;
        self.group.set_readable(None);
        match current.table.take() {
            Some(old) => shared.guard().call(|| shared.tables.delete(old.clone())),
            None => Ok(()),
        }
    }
}

impl Rows for GroupStore {
    fn group(&self) -> GroupId {
        self.group.id
    }

    fn shared(&self) -> &EngineInner {
        &self.shared
    }

    fn stored(&self) -> (Generation, Option<tables::TableHandle>) {
        let current = lock(&self.group.current);
        (current.generation, current.table.clone())
    }
}

#[cfg(test)]
impl GroupStore {
    /// Writes or removes a row without the state noticing.
    pub(crate) fn tamper(&self, table: Table, key: &[u8], value: Option<&[u8]>) {
        let current = lock(&self.group.current);
        let stored = current.table.as_ref().expect("something is stored");
        self.shared.tables.tamper(stored, join_key(table, key), value);
    }

    /// Forces all rows into tables.
    pub(crate) fn flush(&self) {
        let current = lock(&self.group.current);
        let table = current.table.as_ref().expect("something is stored");
        table.flush();
    }
}

/// A row with its stored key; `None` if it is removed.
type StoredRow = (Vec<u8>, Option<Vec<u8>>);

/// Returns the rows of a checkpoint in the order of their keys; `None` for removed rows.
fn rows(changes: &Changes, history: Vec<StoredRow>) -> impl Iterator<Item = StoredRow> {
    let directory = changes.directory.iter();
    let directory = directory.map(|row| (join_key(Table::Directory, &[]), Some(row.clone())));
    let mut keys: Vec<_> = changes.keys.iter().collect();
    keys.sort_unstable_by_key(|(key, _)| *key);
    let keys = keys.into_iter();
    let keys = keys.map(|(key, row)| (join_key(Table::Keys, key), row.as_ref().map(Row::encode)));
    let meta = std::iter::once_with(|| (META_KEY.to_vec(), Some(changes.meta.encode())));
    let mut sessions: Vec<_> = changes.sessions.iter().collect();
    sessions.sort_unstable_by_key(|(id, _)| *id);
    let sessions = sessions.into_iter();
    let sessions =
        sessions.map(|(id, row)| (join_key(Table::Sessions, id.0.as_bytes()), row.clone()));
    let mut small: Vec<_> = changes.small.iter().collect();
    small.sort_unstable_by_key(|(table, key, _)| (*table, key));
    // The tables before that of past versions, those after that of keys, and those after the meta
    // row.
    let outboxes = small.partition_point(|(table, ..)| table.byte() < META_KEY[0]);
    let outboxes = small.split_off(outboxes).into_iter();
    let leases = small.partition_point(|(table, ..)| *table < Table::History);
    let leases = small.split_off(leases).into_iter();
    let small_row = |(table, key, row): &(Table, Vec<u8>, Option<Vec<u8>>)| {
        (join_key(*table, key), row.clone())
    };
    // A shard has no directory.
    directory
        .chain(small.into_iter().map(small_row))
        .chain(history)
        .chain(keys)
        .chain(leases.map(small_row))
        .chain(meta)
        .chain(outboxes.map(small_row))
        .chain(sessions)
}
