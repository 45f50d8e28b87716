//! The sessions that have ended: none of them is opened again.
//!
//! A message can be late by any time, for example in a node that was suspended. If a session that
//! has ended were opened again by an old message, its writes could be executed a second time by
//! others that come with it, long after later writes of the same keys. So a shard remembers the ids
//! of ended sessions for a day by the clock of the log, and as many as its sessions could end in a
//! while.
//!
//! They are part of the state: equal on all replicas, and in every checkpoint and snapshot.

use std::collections::{BTreeMap, BTreeSet};

use dkv_base::id::SessionId;
use uuid::Uuid;

use super::digest::{Digest, small_number};
use super::limits::{ENDED_SESSION_LIFE_MS, ENDED_SESSIONS_MAX};
use super::rows::{MalformedRow, Table};
use super::tombstones::SmallRows;

/// The ended sessions of a shard. Methods that change it take the digest that has to follow.
#[derive(Debug, Default)]
pub(super) struct EndedSessions {
    /// When each ended, in milliseconds of the log's clock.
    ended: BTreeMap<SessionId, u64>,
    by_time: BTreeSet<(u64, SessionId)>,
    changed: BTreeSet<SessionId>,
}

impl EndedSessions {
    /// Returns whether a session has ended, as far as that is remembered.
    pub(super) fn contains(&self, id: SessionId) -> bool {
        self.ended.contains_key(&id)
    }

    /// Records that a session has ended; forgets the oldest if there are too many.
    pub(super) fn add(&mut self, id: SessionId, now_ms: u64, digest: &mut Digest) {
        self.forget(id, digest);
        self.insert(id, now_ms, digest);
        self.changed.insert(id);
        while self.ended.len() > ENDED_SESSIONS_MAX {
            self.forget_oldest(digest);
        }
    }

    /// Forgets those that ended long ago.
    pub(super) fn expire(&mut self, now_ms: u64, digest: &mut Digest) {
        let limit = now_ms.saturating_sub(ENDED_SESSION_LIFE_MS);
        while self.by_time.first().is_some_and(|(ended_ms, _)| *ended_ms < limit) {
            self.forget_oldest(digest);
        }
    }

    fn forget_oldest(&mut self, digest: &mut Digest) {
        if let Some((_, id)) = self.by_time.first().copied() {
            self.forget(id, digest);
        }
    }

    fn forget(&mut self, id: SessionId, digest: &mut Digest) {
        let Some(ended_ms) = self.ended.remove(&id) else { return };
        self.by_time.remove(&(ended_ms, id));
        digest.remove_small(Table::EndedSessions, id.0.as_bytes(), ended_ms);
        self.changed.insert(id);
    }

    fn insert(&mut self, id: SessionId, ended_ms: u64, digest: &mut Digest) {
        digest.add_small(Table::EndedSessions, id.0.as_bytes(), ended_ms);
        self.ended.insert(id, ended_ms);
        self.by_time.insert((ended_ms, id));
    }

    /// Adds a row that was read back.
    ///
    /// # Errors
    /// If it is none.
    pub(super) fn load(
        &mut self,
        key: &[u8],
        value: &[u8],
        digest: &mut Digest,
    ) -> Result<(), MalformedRow> {
        let id = id_of(key).ok_or(MalformedRow("a session id is not of 16 bytes"))?;
        self.insert(id, small_number(value)?, digest);
        Ok(())
    }

    /// Returns the rows that changed since the last call, encoded; `None` for removed ones.
    pub(super) fn take_changed(&mut self) -> SmallRows {
        let rows = std::mem::take(&mut self.changed).into_iter().map(|id| {
            let row = self.ended.get(&id).map(|ended_ms| ended_ms.to_le_bytes().to_vec());
            (Table::EndedSessions, id.0.as_bytes().to_vec(), row)
        });
        rows.collect()
    }

    /// Marks a row as changed again, if it is of this table.
    pub(super) fn restore_changed(&mut self, table: Table, key: &[u8]) {
        if let (Table::EndedSessions, Some(id)) = (table, id_of(key)) {
            self.changed.insert(id);
        }
    }

    /// Returns the number of changed rows.
    pub(super) fn changed_len(&self) -> usize {
        self.changed.len()
    }
}

fn id_of(key: &[u8]) -> Option<SessionId> {
    Some(SessionId(Uuid::from_bytes(key.try_into().ok()?)))
}
