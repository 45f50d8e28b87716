//! Loading a state from the rows of a checkpoint or a snapshot.

use std::sync::Arc;

use dkv_base::id::Number;

use super::ShardState;
use crate::digest::{key_hash, small_number};
use crate::history::{PastValue, PastVersion};
use crate::lease::Lease;
use crate::rows::{
    Attachment, Counts, Generation, HistoryRow, MalformedRow, Meta, PastRow, Row, RowSink, Table,
    Tombstone,
};
use crate::session::Session;
use crate::tombstones;
use crate::value_cache::{Place, Slot};

impl ShardState {
    /// Completes the loading of rows: the state is now that of the moment in `meta`.
    ///
    /// # Errors
    /// If the rows are not exactly those that `meta` was written with.
    pub(crate) fn finish_load(
        &mut self,
        meta: &Meta,
        generation: Generation,
    ) -> Result<(), MalformedRow> {
        meta.check(self)?;
        self.stored = meta.revision;
        self.revision = meta.revision;
        self.clock_ms = meta.clock_ms;
        self.stamp = meta.stamp;
        self.generation = generation;
        let keys = &self.keys;
        self.attachments.finish_load(|key| Some(Arc::clone(keys.get_key_value(key)?.0)))?;
        let newest = |key: &[u8]| {
            let (key, slot) = keys.get_key_value(key)?;
            Some((Arc::clone(key), slot.origin.revision))
        };
        let all = keys.iter().map(|(key, slot)| (key, slot.origin));
        self.history.finish_load(meta.floor, meta.swept, meta.stamp, newest, all)
    }
}

/// Takes rows read back from the engine. They do not count as changed.
impl RowSink for ShardState {
    fn row(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), MalformedRow> {
        match table {
            Table::Keys => {
                let (origin, value) = Row::decode(value)?;
                self.digest.add_key(key, origin, value);
                let slot = match u32::try_from(value.len()) {
                    Ok(bytes) if self.cached_values.memory().is_exceeded() => {
                        let hash = key_hash(key, origin, value);
                        Slot { origin, value: Place::Stored { bytes, hash } }
                    }
                    _ => {
                        self.cached_values.came(value);
                        Slot::new(origin, Arc::from(value))
                    }
                };
                self.keys.insert(Arc::from(key), slot);
            }
            Table::History => {
                let (key, revision) = HistoryRow::split_key(key)?;
                let PastRow { origin, attachment, value } = HistoryRow::decode(revision, value)?;
                let value = match value {
                    None => PastValue::Deleted,
                    Some(value) => match u32::try_from(value.len()) {
                        Ok(bytes) if self.cached_values.memory().is_exceeded() => {
                            let hash = key_hash(key, origin, value);
                            PastValue::Stored { bytes, hash }
                        }
                        _ => {
                            self.cached_values.came(value);
                            PastValue::Here(Arc::from(value))
                        }
                    },
                };
                let past = PastVersion { origin, value, attachment };
                // The keys come after their history, and share nothing with it until then.
                self.history.load(Arc::from(key), past, &mut self.digest);
            }
            Table::Tombstones => {
                self.tombstones.load(Arc::from(key), Tombstone::decode(value)?, &mut self.digest);
            }
            Table::OutboxPositions => {
                let (node, number) = (tombstones::node_of(key)?, Number(small_number(value)?));
                self.outboxes.load(node, number, &mut self.digest);
            }
            Table::Attachments => {
                let attachment = Attachment::decode(value)?;
                self.attachments.load_key(Arc::from(key), attachment, &mut self.digest);
            }
            Table::Leases => {
                let (id, lease) = Lease::decode(key, value)?;
                self.attachments.load_lease(id, lease, &mut self.digest);
            }
            Table::Sessions => {
                let (id, session) = Session::decode(key, value)?;
                self.sessions.load(id, session, &mut self.digest);
            }
            Table::EndedSessions => self.sessions.load_ended(key, value, &mut self.digest)?,
            Table::Records | Table::Finished | Table::Parts => {
                self.attempts.load(table, key, value, &mut self.digest)?;
            }
            Table::Directory => return Err(MalformedRow("a shard has no directory")),
        }
        Ok(())
    }

    fn hash_with(&self, meta: &Meta) -> u64 {
        self.digest.hash_with(meta)
    }

    fn counts(&self) -> Counts {
        self.digest.counts()
    }
}
