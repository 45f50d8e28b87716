//! The records that let a shard accept eventual writes late: when keys were deleted, and how far
//! the shard has taken each node's outbox.
//!
//! Eventual writes are ordered by stamp, not by arrival. The shard must therefore remember when a
//! key was deleted: a put with an earlier stamp that arrives later must not bring the key back.
//! Such a *tombstone* lives for one hour, or less if room runs out; a write that was away for
//! longer wins over the delete. The hour is measured by the log's clock, which advances by what
//! primaries measure, so a wall clock that is set ahead ends no tombstone. Each outbox is taken in
//! the order of its numbers, so that a single number per node records, for good, how much of its
//! outbox has arrived.
//!
//! Both are part of the state: equal on all replicas, and in every checkpoint and snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dkv_base::id::{NodeId, Number, Stamp};

use super::digest::Digest;
use super::limits;
use super::rows::{MalformedRow, Table, Tombstone};

/// The tombstones of a shard.
#[derive(Debug, Default)]
pub(super) struct Tombstones {
    tombstones: BTreeMap<Arc<[u8]>, Tombstone>,
    by_age: BTreeSet<(u64, Arc<[u8]>)>,
    bytes: usize,
    changed: BTreeSet<Arc<[u8]>>,
}

impl Tombstones {
    /// Returns when a key was deleted, if that is known.
    pub(super) fn get(&self, key: &[u8]) -> Option<Stamp> {
        self.tombstones.get(key).map(|tombstone| tombstone.stamp)
    }

    /// Records that a key was deleted; drops the oldest tombstones if there are too many bytes.
    pub(super) fn dig(&mut self, key: Arc<[u8]>, tombstone: Tombstone, digest: &mut Digest) {
        self.fill(&key, digest);
        self.load(Arc::clone(&key), tombstone, digest);
        self.changed.insert(key);
        while self.bytes > limits::TOMBSTONES_BYTES_MAX {
            self.fill_oldest(digest);
        }
    }

    /// Removes the tombstone of a key that exists again.
    pub(super) fn fill(&mut self, key: &[u8], digest: &mut Digest) {
        let Some((key, tombstone)) = self.tombstones.remove_entry(key) else { return };
        self.bytes -= cost(&key);
        digest.remove_small(Table::Tombstones, &key, tombstone.number());
        self.by_age.remove(&(tombstone.deleted_ms, Arc::clone(&key)));
        self.changed.insert(key);
    }

    /// Drops the tombstones that have expired at this time of the log's clock.
    pub(super) fn expire(&mut self, clock_ms: u64, digest: &mut Digest) {
        let limit = clock_ms.saturating_sub(limits::TOMBSTONE_LIFE_MS);
        while self.by_age.first().is_some_and(|(deleted_ms, _)| *deleted_ms < limit) {
            self.fill_oldest(digest);
        }
    }

    fn fill_oldest(&mut self, digest: &mut Digest) {
        if let Some((_, key)) = self.by_age.first().cloned() {
            self.fill(&key, digest);
        }
    }

    /// Adds a row that was read back.
    pub(super) fn load(&mut self, key: Arc<[u8]>, tombstone: Tombstone, digest: &mut Digest) {
        digest.add_small(Table::Tombstones, &key, tombstone.number());
        self.bytes += cost(&key);
        self.by_age.insert((tombstone.deleted_ms, Arc::clone(&key)));
        self.tombstones.insert(key, tombstone);
    }
}

fn cost(key: &[u8]) -> usize {
    key.len() + limits::TOMBSTONE_OVERHEAD_BYTES
}

/// The position up to which the shard has taken each node's outbox.
#[derive(Debug, Default)]
pub(super) struct OutboxPositions {
    taken: BTreeMap<NodeId, Number>,
    changed: BTreeSet<NodeId>,
}

/// The decision on an eventual write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DepositOrder {
    /// Take it.
    Now,
    /// The shard already has it.
    Before,
    /// Its predecessors have to come first.
    Later,
    /// There is no room for another outbox.
    Never,
}

impl OutboxPositions {
    /// Returns the position up to which the shard has taken the node's outbox.
    pub(super) fn taken(&self, node: NodeId) -> Number {
        self.taken.get(&node).copied().unwrap_or_default()
    }

    /// Decides whether a write is the next one of its outbox, where `after` is the number of its
    /// predecessor; if so, marks it as taken. If more than `after` has been taken already, the node
    /// has lost the end of its outbox, and everything it has accepted since then is new.
    pub(super) fn take(
        &mut self,
        node: NodeId,
        number: Number,
        after: Number,
        digest: &mut Digest,
    ) -> DepositOrder {
        let taken = self.taken(node);
        if number <= taken {
            return DepositOrder::Before;
        }
        if after > taken {
            return DepositOrder::Later;
        }
        if taken == Number(0) && self.taken.len() >= limits::OUTBOXES_MAX {
            return DepositOrder::Never;
        }
        self.load(node, number, digest);
        self.changed.insert(node);
        DepositOrder::Now
    }

    /// Adds a row that was read back.
    pub(super) fn load(&mut self, node: NodeId, number: Number, digest: &mut Digest) {
        if let Some(before) = self.taken.insert(node, number) {
            digest.remove_small(Table::OutboxPositions, node.0.as_bytes(), before.0);
        }
        digest.add_small(Table::OutboxPositions, node.0.as_bytes(), number.0);
    }
}

/// Changed rows of both tables, encoded.
pub(super) type SmallRows = Vec<(Table, Vec<u8>, Option<Vec<u8>>)>;

/// Returns the rows that changed since the last call.
pub(super) fn take_changed(
    tombstones: &mut Tombstones,
    outboxes: &mut OutboxPositions,
) -> SmallRows {
    let number = |number: u64| number.to_le_bytes().to_vec();
    let deleted = std::mem::take(&mut tombstones.changed).into_iter().map(|key| {
        let row = tombstones.tombstones.get(&key).map(|tombstone| tombstone.encode());
        (Table::Tombstones, key.to_vec(), row)
    });
    let mut rows: SmallRows = deleted.collect();
    for node in std::mem::take(&mut outboxes.changed) {
        let row = Some(number(outboxes.taken(node).0));
        rows.push((Table::OutboxPositions, node.0.as_bytes().to_vec(), row));
    }
    rows
}

/// Marks these rows as changed again.
pub(super) fn restore_changed(
    tombstones: &mut Tombstones,
    outboxes: &mut OutboxPositions,
    rows: SmallRows,
) {
    for (table, key, _) in rows {
        match (table, node_of(&key)) {
            (Table::Tombstones, _) => _ = tombstones.changed.insert(Arc::from(key)),
            (Table::OutboxPositions, Ok(node)) => _ = outboxes.changed.insert(node),
            _ => {}
        }
    }
}

/// Returns the number of changed rows.
pub(super) fn changed_len(tombstones: &Tombstones, outboxes: &OutboxPositions) -> usize {
    tombstones.changed.len() + outboxes.changed.len()
}

/// Returns the node that a row of [`Table::OutboxPositions`] belongs to.
pub(super) fn node_of(key: &[u8]) -> Result<NodeId, MalformedRow> {
    let id = key.try_into().map_err(|_| MalformedRow("a node id is not of 16 bytes"))?;
    Ok(NodeId(uuid::Uuid::from_bytes(id)))
}
