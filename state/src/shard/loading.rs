//! Loading a state from the rows of a checkpoint or a snapshot.

use std::sync::Arc;

use dkv_base::id::Number;

use super::ShardState;
use crate::digest::{key_hash, small_number};
use crate::history::{PastValue, PastVersion};
use crate::rows::{Counts, HistoryRow, MalformedRow, Meta, Row, RowSink, Table, Tombstone};
use crate::session::Session;
use crate::tombstones;
use crate::value_cache::{Place, Slot};

/// Takes rows read back from the engine. They do not count as changed.
impl RowSink for ShardState {
    fn row(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), MalformedRow> {
        match table {
            Table::Keys => {
                let (origin, value) = Row::decode(value)?;
                self.digest.add_key(key, origin, value);
                let slot = match u32::try_from(value.len()) {
                    Ok(bytes) if self.residents.memory().is_exceeded() => {
                        let hash = key_hash(key, origin, value);
                        Slot { origin, value: Place::Stored { bytes, hash } }
                    }
                    _ => {
                        self.residents.came(value);
                        Slot::new(origin, Arc::from(value))
                    }
                };
                self.keys.insert(Arc::from(key), slot);
            }
            Table::History => {
                let (key, revision) = HistoryRow::split_key(key)?;
                let (origin, value) = HistoryRow::decode(revision, value)?;
                let value = match value {
                    None => PastValue::Deleted,
                    Some(value) => match u32::try_from(value.len()) {
                        Ok(bytes) if self.residents.memory().is_exceeded() => {
                            let hash = key_hash(key, origin, value);
                            PastValue::Stored { bytes, hash }
                        }
                        _ => {
                            self.residents.came(value);
                            PastValue::Here(Arc::from(value))
                        }
                    },
                };
                let past = PastVersion { origin, value };
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
            Table::Sessions => {
                let (id, session) = Session::decode(key, value)?;
                self.sessions.load(id, session, &mut self.digest);
            }
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
