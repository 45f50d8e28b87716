//! What a shard keeps so that eventual writes can come late: when keys were deleted, and how far
//! the outbox of each node was taken.
//!
//! An eventual write is ordered by its stamp, not by its arrival. So a key that was deleted must
//! still know when: a put of an earlier moment that comes later must not bring it back. Such a
//! *tombstone* is kept for an hour, and no longer than there is room; then a write that was away
//! for longer wins over the delete. The hour is one of the log's clock, which moves by what
//! primaries measure: a clock on the wall that is set ahead ends no tombstone. And each outbox is
//! taken in the order of its numbers, so that one number for each node tells what of it is here,
//! for good.
//!
//! Both are part of the state: equal on all replicas, in every checkpoint and snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dkv_base::id::{NodeId, Number, Stamp};

use super::digest::Digest;
use super::limits;
use super::rows::{MalformedRow, Table, Tombstone};

/// When keys were deleted.
#[derive(Debug, Default)]
pub(super) struct Tombstones {
    tombstones: BTreeMap<Arc<[u8]>, Tombstone>,
    by_age: BTreeSet<(u64, Arc<[u8]>)>,
    bytes: usize,
    changed: BTreeSet<Arc<[u8]>>,
}

impl Tombstones {
    /// When a key was deleted, if that is known.
    pub(super) fn get(&self, key: &[u8]) -> Option<Stamp> {
        self.tombstones.get(key).map(|tombstone| tombstone.stamp)
    }

    /// A key is deleted.
    pub(super) fn dig(&mut self, key: Arc<[u8]>, tombstone: Tombstone, digest: &mut Digest) {
        self.fill(&key, digest);
        self.load(Arc::clone(&key), tombstone, digest);
        self.changed.insert(key);
        while self.bytes > limits::TOMBSTONES_BYTES_MAX {
            self.fill_oldest(digest);
        }
    }

    /// A key is there again.
    pub(super) fn fill(&mut self, key: &[u8], digest: &mut Digest) {
        let Some((key, tombstone)) = self.tombstones.remove_entry(key) else { return };
        self.bytes -= cost(&key);
        digest.remove_small(Table::Tombstones, &key, tombstone.number());
        self.by_age.remove(&(tombstone.dug_ms, Arc::clone(&key)));
        self.changed.insert(key);
    }

    /// Forgets what is too old to be of use, at that time of the log's clock.
    pub(super) fn expire(&mut self, clock_ms: u64, digest: &mut Digest) {
        let limit = clock_ms.saturating_sub(limits::TOMBSTONE_LIFE_MS);
        while self.by_age.first().is_some_and(|(dug_ms, _)| *dug_ms < limit) {
            self.fill_oldest(digest);
        }
    }

    fn fill_oldest(&mut self, digest: &mut Digest) {
        if let Some((_, key)) = self.by_age.first().cloned() {
            self.fill(&key, digest);
        }
    }

    /// Takes in a row that was read back.
    pub(super) fn load(&mut self, key: Arc<[u8]>, tombstone: Tombstone, digest: &mut Digest) {
        digest.add_small(Table::Tombstones, &key, tombstone.number());
        self.bytes += cost(&key);
        self.by_age.insert((tombstone.dug_ms, Arc::clone(&key)));
        self.tombstones.insert(key, tombstone);
    }
}

fn cost(key: &[u8]) -> usize {
    key.len() + limits::TOMBSTONE_OVERHEAD_BYTES
}

/// How far the outbox of each node was taken.
#[derive(Debug, Default)]
pub(super) struct OutboxPositions {
    taken: BTreeMap<NodeId, Number>,
    changed: BTreeSet<NodeId>,
}

/// What to do with an eventual write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExpiryTurn {
    /// Take it.
    Now,
    /// It is here.
    Before,
    /// Others come first.
    Later,
    /// There is no room for another outbox.
    Never,
}

impl OutboxPositions {
    /// How far that node's was taken.
    pub(super) fn taken(&self, node: NodeId) -> Number {
        self.taken.get(&node).copied().unwrap_or_default()
    }

    /// Whether a write is the next one of its outbox, where `after` comes before it; if so it
    /// counts as taken. That `after` and more was taken means that the node has lost the end of its
    /// outbox: what it has taken since then is new.
    pub(super) fn take(
        &mut self,
        node: NodeId,
        number: Number,
        after: Number,
        digest: &mut Digest,
    ) -> ExpiryTurn {
        let taken = self.taken(node);
        if number <= taken {
            return ExpiryTurn::Before;
        }
        if after > taken {
            return ExpiryTurn::Later;
        }
        if taken == Number(0) && self.taken.len() >= limits::OUTBOXES_MAX {
            return ExpiryTurn::Never;
        }
        self.load(node, number, digest);
        self.changed.insert(node);
        ExpiryTurn::Now
    }

    /// Takes in a row that was read back.
    pub(super) fn load(&mut self, node: NodeId, number: Number, digest: &mut Digest) {
        if let Some(before) = self.taken.insert(node, number) {
            digest.remove_small(Table::OutboxPositions, node.0.as_bytes(), before.0);
        }
        digest.add_small(Table::OutboxPositions, node.0.as_bytes(), number.0);
    }
}

/// Rows of both that changed, encoded.
pub(super) type SmallRows = Vec<(Table, Vec<u8>, Option<Vec<u8>>)>;

/// The rows that changed since this was last asked.
pub(super) fn take_changed(
    tombstones: &mut Tombstones,
    outboxes: &mut OutboxPositions,
) -> SmallRows {
    let number = |number: u64| number.to_le_bytes().to_vec();
    let dug = std::mem::take(&mut tombstones.changed).into_iter().map(|key| {
        let row = tombstones.tombstones.get(&key).map(|tombstone| tombstone.encode());
        (Table::Tombstones, key.to_vec(), row)
    });
    let mut rows: SmallRows = dug.collect();
    for node in std::mem::take(&mut outboxes.changed) {
        let row = Some(number(outboxes.taken(node).0));
        rows.push((Table::OutboxPositions, node.0.as_bytes().to_vec(), row));
    }
    rows
}

/// Has these rows count as changed again.
pub(super) fn restore_changed(
    tombstones: &mut Tombstones,
    outboxes: &mut OutboxPositions,
    rows: SmallRows,
) {
    for (table, key, _) in rows {
        match (table, node_of(&key)) {
            (Table::Tombstones, _) => _ = tombstones.changed.insert(Arc::from(key)),
            (_, Ok(node)) => _ = outboxes.changed.insert(node),
            _ => {}
        }
    }
}

/// How many rows changed.
pub(super) fn changed_len(tombstones: &Tombstones, outboxes: &OutboxPositions) -> usize {
    tombstones.changed.len() + outboxes.changed.len()
}

/// The node that a row of [`Table::OutboxPositions`] is about.
pub(super) fn node_of(key: &[u8]) -> Result<NodeId, MalformedRow> {
    let id = key.try_into().map_err(|_| MalformedRow("a node id is not of 16 bytes"))?;
    Ok(NodeId(uuid::Uuid::from_bytes(id)))
}
