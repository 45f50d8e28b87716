//! Outboxes: eventual writes that this node has taken, until the primary has them.
//!
//! A node takes an eventual write to any shard, whether or not it has a replica and whether or not
//! the primary can be reached. It makes the write durable in its own log, beside the entries of its
//! groups and with the same sync, and answers. From then on eventual reads here show it, if it is
//! the latest known write of its key. A task for each shard (`tasks/outbox_relay.rs`) delivers the
//! writes to the primary, in the order in which they were taken, as soon and as often as needed;
//! the shard takes each number of an outbox once (see `dkv_state::tombstones`). A write leaves the
//! outbox when this node's replica has applied it.
//!
//! The decisions are made in [`ledger`], which is plain data.
//!
//! Bounds: [`BYTES_MAX`], and an eighth of the log, for all outboxes of a node together. Writes
//! that are not durable yet wait in the log like everything else. A full outbox refuses writes; it
//! never drops one that it accepted.
//!
//! Deliberately missing: outboxes for another node. Writes that a node has taken and not yet
//! delivered are on its disk alone.

mod ledger;
mod write_gate;
mod quota;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::{GroupId, NodeId, Number, Stamp};
use dkv_base::sync::{lock, read, write};
use dkv_wire::message::{Refusal, Span};
use tokio::sync::{Notify, oneshot};
use tracing::debug;

pub(crate) use ledger::DurableWrite;
pub(crate) use write_gate::{
    State as WriteGateState, WriteGate, WriteGateError, refused as draining,
};

use self::ledger::{Append, Ledger, Malformed};
use self::quota::OwnerQuotas;
use dkv_state::Waiting;
use dkv_wal::{GroupLog, Wal};

/// Most bytes that the outboxes of a node may contain together, however long its log may be.
pub(crate) const BYTES_MAX: usize = 32 * 1024 * 1024;
/// Divisor of the log: the outboxes may fill one part in this many.
const LOG_SHARE: u64 = 8;
/// Bytes moved to the end of the log at once.
const MOVED_BYTES: usize = 1024 * 1024;

/// Reason why an outbox does not open. At a start, the node must not go on without it; later, the
/// write that needs it is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutboxError {
    /// Its log cannot be read.
    #[error("the outbox of shard {shard} cannot be read: {source}")]
    Log {
        /// The shard.
        shard: GroupId,
        /// The error of the log.
        source: std::io::Error,
    },
    /// Its log contains something else.
    #[error("the outbox of shard {shard} cannot be read: {source}")]
    Malformed {
        /// The shard.
        shard: GroupId,
        /// The record that is none.
        source: Malformed,
    },
}

/// The outboxes of a node.
pub(crate) struct Outboxes {
    me: NodeId,
    wal: Wal,
    shards: RwLock<BTreeMap<GroupId, Arc<Outbox>>>,
    /// Bytes of all of them; zero while all are empty.
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
    /// The gate that decides whether they take writes.
    write_gate: WriteGate,
    /// When the process started, since 1970, by the wall clock.
    started: Duration,
    owners: Arc<OwnerQuotas>,
}

/// The outbox of one shard.
pub(crate) struct Outbox {
    shard: GroupId,
    log: GroupLog,
    ledger: Mutex<Ledger>,
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
    write_gate: WriteGate,
    owners: Arc<OwnerQuotas>,
    /// Signals that there is something to send.
    news: Notify,
    /// Whether part of it is being moved to the end of the log.
    moving: AtomicBool,
    /// Whether the shard was dropped, and the outbox with it. Set while the ledger is locked.
    discarded: AtomicBool,
}

impl Outboxes {
    /// Opens the outboxes that the log has. `started` is when the process started, since 1970, by
    /// the wall clock.
    ///
    /// # Errors
    /// If the log of an outbox cannot be read.
    pub(crate) fn open(
        me: NodeId,
        wal: Wal,
        log_bytes_max: u64,
        write_gate: WriteGate,
        started: Duration,
    ) -> Result<Self, OutboxError> {
        let share = usize::try_from(log_bytes_max / LOG_SHARE).unwrap_or(usize::MAX);
        let (bytes_max, shards) = (BYTES_MAX.min(share), RwLock::default());
        let (bytes, owners) = Default::default();
        let outboxes = Self { me, wal, shards, bytes, bytes_max, write_gate, started, owners };
        for id in outboxes.wal.groups() {
            if let Some(shard) = id.outbox_shard() {
                outboxes.load(shard)?;
            }
        }
        Ok(outboxes)
    }

    /// The outbox of a shard, if there has been one.
    pub(crate) fn get(&self, shard: GroupId) -> Option<Arc<Outbox>> {
        read(&self.shards).get(&shard).cloned()
    }

    /// The owners of the waiting writes, and the number of bytes that may wait.
    pub(crate) fn owners(&self) -> (&Arc<OwnerQuotas>, usize) {
        (&self.owners, self.bytes_max)
    }

    /// Discards the outbox of a shard that was dropped, and returns the number of writes in it. Its
    /// log is to be deleted next.
    pub(crate) fn discard(&self, outbox: &Outbox) -> usize {
        let mut shards = write(&self.shards);
        shards.remove(&outbox.shard);
        let ledger = outbox.ledger();
        if outbox.discarded.swap(true, Ordering::AcqRel) {
            return 0;
        }
        self.bytes.fetch_sub(ledger.bytes(), Ordering::AcqRel);
        self.owners.forget(outbox.shard);
        outbox.news.notify_one();
        ledger.len()
    }

    /// The outbox of a shard, if anything at all waits in an outbox of this node.
    pub(crate) fn busy(&self, shard: GroupId) -> Option<Arc<Outbox>> {
        if self.are_empty() { None } else { self.get(shard) }
    }

    /// The gate that decides whether they take writes.
    pub(crate) fn write_gate(&self) -> &WriteGate {
        &self.write_gate
    }

    /// Returns whether nothing at all waits in an outbox or is on its way to the log.
    pub(crate) fn are_empty(&self) -> bool {
        self.bytes.load(Ordering::Acquire) == 0
    }

    /// The latest stamp of the waiting writes.
    pub(crate) fn last_stamp(&self) -> Stamp {
        let stamps = self.all().into_iter().filter_map(|outbox| outbox.ledger().last_stamp());
        stamps.max().unwrap_or_default()
    }

    /// All outboxes.
    pub(crate) fn all(&self) -> Vec<Arc<Outbox>> {
        read(&self.shards).values().cloned().collect()
    }

    /// Returns the outbox of a shard, which it opens if need be, and whether the outbox is new.
    ///
    /// # Errors
    /// If the log of an outbox cannot be read.
    pub(crate) fn open_for(&self, shard: GroupId) -> Result<(Arc<Outbox>, bool), OutboxError> {
        if let Some(outbox) = self.get(shard) {
            return Ok((outbox, false));
        }
        self.load(shard)
    }

    fn load(&self, shard: GroupId) -> Result<(Arc<Outbox>, bool), OutboxError> {
        let mut shards = write(&self.shards);
        if let Some(outbox) = shards.get(&shard) {
            return Ok((Arc::clone(outbox), false));
        }
        let log = self.wal.group(shard.outbox());
        let state = log.state();
        let records = log.read(..).map_err(|source| OutboxError::Log { shard, source })?;
        let next_index = state.next_index.unwrap_or(1);
        let mark = state.purged.as_ref().map(|(_, mark)| mark.as_ref());
        let ledger = Ledger::load(self.me, next_index, records, mark, self.started);
        let ledger = ledger.map_err(|source| OutboxError::Malformed { shard, source })?;
        self.bytes.fetch_add(ledger.bytes(), Ordering::AcqRel);
        let bytes = Arc::clone(&self.bytes);
        let outbox = Arc::new(Outbox {
            shard,
            log,
            ledger: Mutex::new(ledger),
            bytes,
            bytes_max: self.bytes_max,
            write_gate: self.write_gate.clone(),
            owners: Arc::clone(&self.owners),
            news: Notify::new(),
            moving: AtomicBool::new(false),
            discarded: AtomicBool::new(false),
        });
        shards.insert(shard, Arc::clone(&outbox));
        Ok((outbox, true))
    }
}

impl Outbox {
    /// The shard whose outbox this is.
    pub(crate) fn shard(&self) -> GroupId {
        self.shard
    }

    /// Returns whether the shard was dropped, and the outbox with it.
    pub(crate) fn is_discarded(&self) -> bool {
        self.discarded.load(Ordering::Acquire)
    }

    /// Makes a write durable, and then returns its number.
    ///
    /// # Errors
    /// Returns the reason why the write was not taken.
    pub(crate) async fn deposit(
        self: Arc<Self>,
        stamp: Stamp,
        key: Bytes,
        value: Option<Bytes>,
    ) -> Result<Number, Refusal> {
        let (told, durable) = oneshot::channel();
        let number = {
            let mut ledger = self.ledger();
            if let Some(number) = ledger.again(&key, stamp, value.as_ref()) {
                return Ok(number);
            }
            if self.is_discarded() {
                return Err(Refusal::Dropped { shard: self.shard });
            }
            // Held until the write counts: a caller that closes the gate afterwards finds it.
            let _entered = self.write_gate.enter()?;
            let taken = self.bytes.load(Ordering::Acquire);
            if taken + key.len() + value.as_ref().map_or(0, Bytes::len) > self.bytes_max {
                return Err(Refusal::Unavailable(format!(
                    "the outbox of this node is full: {} KiB wait for primaries that cannot be \
                     reached",
                    self.bytes_max / 1024
                )));
            }
            let before = ledger.bytes();
            let Append { index, number, command } = ledger.stage(stamp, &key, value.as_ref());
            let outbox = Arc::clone(&self);
            let done = Box::new(move |result: std::io::Result<()>| {
                if result.is_ok() {
                    outbox.ledger().durable();
                    outbox.news.notify_one();
                }
                // The caller may be gone; the write stays.
                let _ = told.send(result);
            });
            if let Err(error) = self.log.append(vec![(index, command)], done) {
                ledger.unstage();
                return Err(match error.kind() {
                    std::io::ErrorKind::WouldBlock => Refusal::Overloaded { retry_after_ms: 20 },
                    _ => Refusal::Unavailable(error.to_string()),
                });
            }
            self.account(before, &ledger);
            number
        };
        match durable.await {
            Ok(Ok(())) => Ok(number),
            Ok(Err(error)) => Err(Refusal::Unknown(error.to_string())),
            Err(_) => Err(Refusal::Unknown("the node is stopping".into())),
        }
    }

    /// The latest waiting write of a key.
    pub(crate) fn find(&self, key: &[u8]) -> Option<DurableWrite> {
        self.ledger().find(key).cloned()
    }

    /// The latest waiting write of each key in a span.
    pub(crate) fn list(&self, span: &Span) -> Vec<Waiting> {
        self.ledger().list(span)
    }

    /// Returns whether every write up to `number` waits here, or is in a state that has taken all
    /// up to `taken`.
    pub(crate) fn shows(&self, number: Number, taken: Number) -> bool {
        self.ledger().shows(number, taken)
    }

    /// Bytes of the writes that wait here, approximately.
    pub(crate) fn bytes(&self) -> u64 {
        self.ledger().bytes() as u64
    }

    /// Number of writes that wait here.
    pub(crate) fn len(&self) -> usize {
        self.ledger().len()
    }

    /// Writes the oldest waiting writes again at the end of the log, so that the log before them
    /// can go.
    pub(crate) fn rewrite(self: &Arc<Self>) {
        if self.moving.swap(true, Ordering::AcqRel) {
            return;
        }
        let outbox = Arc::clone(self);
        let done = Box::new(move |durable: std::io::Result<()>| {
            if durable.is_ok() {
                let ledger = outbox.ledger();
                let (upto, mark) = ledger.purgeable();
                outbox.purge(upto, mark);
            }
            outbox.moving.store(false, Ordering::Release);
        });
        let mut ledger = self.ledger();
        if self.is_discarded() {
            return;
        }
        let moved = ledger.rewrite(MOVED_BYTES);
        let records: Vec<_> = moved.iter().map(|it| (it.to, it.command.clone())).collect();
        debug!(shard = %self.shard, writes = records.len(), "moving an outbox to the end of the log");
        if records.is_empty() || self.log.append(records, done).is_err() {
            // Another attempt follows as long as the log is too long.
            ledger.stay(moved);
            self.moving.store(false, Ordering::Release);
        }
    }

    /// Waits for a new write, or for something else that the relay has to look at.
    pub(crate) async fn wait_for_news(&self) {
        self.news.notified().await;
    }

    /// Removes the writes up to `upto`, which have reached their destination.
    pub(crate) fn settle(&self, upto: Number) {
        let mut ledger = self.ledger();
        if self.is_discarded() {
            return;
        }
        self.owners.settled(self.shard, upto);
        let before = ledger.bytes();
        let Some((upto, mark)) = ledger.settle(upto) else { return };
        self.account(before, &ledger);
        self.purge(upto, mark);
    }

    /// Has all writes sent again. If the shard has lost what came before the write `lost`, that one
    /// becomes the first of the outbox; returns whether it did.
    pub(crate) fn start_over(&self, lost: Option<Number>) -> bool {
        let mut ledger = self.ledger();
        ledger.start_over();
        let before = ledger.bytes();
        let skipped = lost.is_some_and(|first| ledger.skip_lost(first));
        self.account(before, &ledger);
        skipped
    }

    /// Purges the log while the ledger is locked.
    fn purge(&self, upto: u64, mark: Bytes) {
        if self.is_discarded() {
            return;
        }
        if let Err(error) = self.log.purge(upto, mark, Box::new(|_| ())) {
            debug!(shard = %self.shard, %error, "the log of an outbox was not purged");
        }
    }

    fn account(&self, before: usize, ledger: &Ledger) {
        let now = ledger.bytes();
        if now >= before {
            self.bytes.fetch_add(now - before, Ordering::AcqRel);
        } else {
            self.bytes.fetch_sub(before - now, Ordering::AcqRel);
        }
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }
}

#[cfg(test)]
mod tests;
