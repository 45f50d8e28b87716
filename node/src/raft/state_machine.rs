//! Raft's state machine, backed by the node's state.
//!
//! Applying touches memory only. What openraft calls a snapshot is a checkpoint here: the changes
//! since the last one go to the engine in one atomic batch, in the background, and the log may then
//! be purged up to it. A member that is too far behind for the log receives the rows of the newest
//! checkpoint.
//!
//! Every checkpoint includes the position of the last applied entry and the membership in force
//! there, so that state and position can never diverge.

mod apply;
mod checkpoint;
mod history;
mod leases;
mod locks;
mod range;
mod times;

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::{GroupId, NodeId, Number, Revision, Stamp};
use dkv_base::platform;
use dkv_base::sync::{lock, read, write};
use dkv_wire::codec::encode;
use dkv_wire::message::{Level, Page, Pair, Receipt, Refusal, Span, Stored};
use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use tokio::time::Instant;
use tracing::{error, info};

use super::checkpointed::Checkpointed;
use super::entry_times::EntryTimes;
use super::fifo_watch;
use super::lease_times::LeaseTimes;
use super::snapshot::{Incoming, NotTaken, OffThread, Position, outgoing};
use super::staleness::Staleness;
use super::{LogId, Snapshot, SnapshotData, SnapshotMeta, StoredMembership, Types};
use crate::common::clock::NodeClock;
use dkv_state::{
    Directory, EngineError, Found, GroupState, GroupStore, Listed, ListedKey, LogClock, Row,
    ShardState, Waiting,
};

use checkpoint::Checkpoint;

pub(crate) use history::{HistoryQuery, RangeQuery, WatchPage};
pub(crate) use leases::LeaseQuery;
pub(crate) use range::borrowed;

/// Keys that one thread looks up in the checkpoint, one after the other.
const LOOK_UPS_TOGETHER: usize = 16;
/// Most attempts to look up a key whose value was just removed.
pub(crate) const LOOK_UPS_MAX: usize = 8;
/// Most batches of keys examined after values were read back.
const EVICT_STEPS: usize = 64;

/// The result of looking up a key, or why there is none.
pub(crate) type LookupResult = Result<Lookup, LookupError>;

/// Reason why a replica cannot read its state. The asker may ask again, or ask another replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LookupError {
    /// The replica is being deleted.
    #[error("the shard is leaving this node")]
    Leaving,
    /// A transaction over several shards may write a key that is read.
    #[error("a transaction over several shards that is not decided has locked a key")]
    Locked,
    /// Values were replaced as often as they were looked up.
    #[error("the scanned keys change too fast")]
    Changing,
    /// A value on disk cannot be read, or is not what was written. The cause is in the log.
    #[error("a value of this node's checkpoint cannot be read")]
    Unreadable,
}

impl From<LookupError> for Refusal {
    fn from(error: LookupError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// A shard's entry for a key.
pub(crate) struct Lookup {
    /// The revision of the write that stored the value; if the key does not exist, the shard's
    /// latest.
    pub(crate) revision: Revision,
    /// When the value was stored, or deleted as far as that is known.
    pub(crate) stamp: Stamp,
    pub(crate) stored: Option<Stored>,
}

impl Lookup {
    fn found(row: &Row) -> Self {
        Self {
            revision: row.origin.revision,
            stamp: row.origin.stamp,
            stored: Some(row.to_stored()),
        }
    }

    fn nothing(shard: &ShardState, key: &[u8]) -> Self {
        Self { revision: shard.revision(), stamp: shard.deleted_at(key), stored: None }
    }
}

/// The state machine of one group, as openraft drives it.
pub(crate) struct StateMachine {
    handle: StateMachineHandle,
}

/// Handle to the state of one group, for the rest of the node.
#[derive(Clone)]
pub(crate) struct StateMachineHandle {
    shared: Arc<StateMachineInner>,
}

struct StateMachineInner {
    group: GroupId,
    store: GroupStore,
    current: RwLock<Current>,
    staleness: Mutex<Staleness>,
    /// The shard's clock, and (in `began`) the time from which its readings count.
    clock: Mutex<LogClock>,
    began: Instant,
    /// The time that is left of leases, while this replica leads. Locked after the state.
    lease_times: Mutex<LeaseTimes>,
    /// The number of the news about leases, for the task that ends them.
    lease_news: fifo_watch::Sender<u64>,
    /// The network's clock.
    stamps: NodeClock,
    /// When this replica last followed a leader, in microseconds since `began`; zero if it never
    /// did.
    followed_us: AtomicU64,
    /// Index of the last applied entry, for tasks that wait for changes.
    applied: fifo_watch::Sender<u64>,
    /// Counts the entries that released locks of transactions, for those who wait for one.
    released: fifo_watch::Sender<u64>,
    /// When the last entries were on disk and committed.
    entry_times: EntryTimes,
    /// How far the durable checkpoint reaches.
    checkpointed: Checkpointed,
    /// Locked by the one snapshot that is complete and not installed yet.
    installing: Arc<tokio::sync::Mutex<()>>,
}

struct Current {
    state: GroupState,
    position: Position,
}

/// Key figures of a state.
pub(crate) struct Summary {
    pub(crate) applied_index: u64,
    pub(crate) keys: u64,
    pub(crate) bytes: u64,
    pub(crate) revision: Revision,
    pub(crate) hash: u64,
}

impl StateMachine {
    /// Loads the state from the engine.
    pub(crate) fn load(store: GroupStore, stamps: NodeClock) -> Result<Self, EngineError> {
        let (state, meta) = GroupState::load(&store)?;
        stamps.observe(state.stamp());
        let position = match &meta {
            Some(meta) => Position::decode(&meta.applied)
                .map_err(|_| store.damaged("the applied position is malformed"))?,
            None => Position::default(),
        };
        let checkpointed = Checkpointed::default();
        checkpointed.note(position.applied);
        let applied = fifo_watch::Sender::new(index(position.applied));
        let clock = LogClock::new(state.clock_ms(), Duration::ZERO);
        let shared = StateMachineInner {
            group: store.id(),
            store,
            current: RwLock::new(Current { state, position }),
            staleness: Mutex::default(),
            clock: Mutex::new(clock),
            began: Instant::now(),
            lease_times: Mutex::default(),
            lease_news: fifo_watch::Sender::new(0),
            stamps,
            followed_us: AtomicU64::new(0),
            applied,
            released: fifo_watch::Sender::new(0),
            entry_times: EntryTimes::default(),
            checkpointed,
            installing: Arc::default(),
        };
        Ok(Self { handle: StateMachineHandle { shared: Arc::new(shared) } })
    }

    /// Returns a handle to the state, for the rest of the node.
    pub(crate) fn handle(&self) -> StateMachineHandle {
        self.handle.clone()
    }
}

impl StateMachineHandle {
    /// Looks up keys and answers each with its value, or with the latest revision and no value.
    /// Keys whose values are in memory are answered before this returns.
    pub(crate) fn read_keys<F>(&self, keys: impl Iterator<Item = (Bytes, F)>)
    where
        F: FnOnce(LookupResult) + Send + 'static,
    {
        let mut stored = Vec::new();
        {
            let current = self.read();
            let Some(shard) = current.state.as_shard() else { return };
            for (key, answer) in keys {
                match shard.get(&key) {
                    Some(Found::Row(row)) => answer(Ok(Lookup::found(&row))),
                    None => answer(Ok(Lookup::nothing(shard, &key))),
                    Some(Found::Stored(_)) => stored.push((key, answer)),
                }
            }
        }
        let mut stored = stored.into_iter();
        while stored.len() > 0 {
            let some: Vec<_> = stored.by_ref().take(LOOK_UPS_TOGETHER).collect();
            let handle = self.clone();
            platform::spawn_blocking(move || {
                for (key, answer) in some {
                    answer(handle.look_up(&key));
                }
                handle.evict(EVICT_STEPS);
            });
        }
    }

    /// Looks up a key whose value may be in the checkpoint only. Waits for the disk.
    fn look_up(&self, key: &[u8]) -> LookupResult {
        let shared = &*self.shared;
        for _ in 0..LOOK_UPS_MAX {
            let least = {
                let current = self.read();
                let Some(shard) = current.state.as_shard() else { break };
                match shard.get(key) {
                    Some(Found::Row(row)) => return Ok(Lookup::found(&row)),
                    None => return Ok(Lookup::nothing(shard, key)),
                    Some(Found::Stored(revision)) => revision,
                }
            };
            let row = match shared.store.get(key) {
                // A later row comes from a write that this reader need not see, but may.
                Ok(Some(row)) if row.origin.revision >= least => row,
                // The value was removed meanwhile, by a delete or together with the whole group.
                Ok(_) => continue,
                Err(error) => return Err(self.unreadable(&error)),
            };
            let mut current = self.write();
            if !current.state.as_shard_mut().is_none_or(|shard| shard.promote(key, &row)) {
                return Err(self.unreadable(&"it is not what was written"));
            }
            return Ok(Lookup::found(&row));
        }
        Err(LookupError::Leaving)
    }

    /// Returns a page of the shard's keys merged with the writes in `waiting`, all as of one
    /// moment, and `receipt` completed with that moment's revision, stamp and pending writes. Waits
    /// for the disk if some values are only there.
    pub(crate) fn scan(
        &self,
        span: &Span,
        waiting: &[Waiting],
        receipt: Receipt,
    ) -> Result<(Receipt, Page), LookupError> {
        for _ in 0..LOOK_UPS_MAX {
            let (revision, listed) = {
                let current = self.read();
                let Some(shard) = current.state.as_shard() else { break };
                let listed = shard.list(span, waiting);
                if receipt.level == Level::Strong && locks::is_page_locked(shard, span, &listed) {
                    return Err(LookupError::Locked);
                }
                (shard.revision(), listed)
            };
            let Listed { keys, more, stamp, pending } = listed;
            let store = &self.shared.store;
            if let Some(pairs) = self.fill(&keys, span.values, |listed| store.get(&listed.key))? {
                let receipt = Receipt { revision, stamp, pending, ..receipt };
                return Ok((receipt, Page { pairs, more }));
            }
        }
        Err(LookupError::Changing)
    }

    /// Returns the values of keys; `None` if the checkpoint no longer has the same values, because
    /// a later checkpoint was written or it was replaced. `stored` reads one from there.
    fn fill(
        &self,
        keys: &[ListedKey],
        values: bool,
        stored: impl Fn(&ListedKey) -> Result<Option<Row>, EngineError>,
    ) -> Result<Option<Vec<Pair>>, LookupError> {
        let mut pairs = Vec::with_capacity(keys.len());
        for listed in keys {
            let value = match listed.value.here() {
                _ if !values => None,
                Some(value) => Some(value),
                None => {
                    let row = stored(listed).map_err(|error| self.unreadable(&error))?;
                    match row {
                        Some(row) if listed.is(&row) => Some(Bytes::from_owner(row.value)),
                        Some(row) if row.origin.revision == listed.revision => {
                            return Err(self.unreadable(&"it is not what was written"));
                        }
                        _ => return Ok(None),
                    }
                }
            };
            let key = Bytes::from_owner(Arc::clone(&listed.key));
            let ListedKey { revision, created, version, lease, expiry, .. } = *listed;
            pairs.push(Pair { key, revision, value, created, version, lease, expiry });
        }
        Ok(Some(pairs))
    }

    fn unreadable(&self, problem: &dyn std::fmt::Display) -> LookupError {
        error!(group = %self.shared.group, %problem, "a value cannot be read back");
        LookupError::Unreadable
    }

    /// Calls `look` with the directory. Returns `None` if this group is a shard.
    pub(crate) fn with_directory<T>(&self, look: impl FnOnce(&Directory) -> T) -> Option<T> {
        self.read().state.as_directory().map(look)
    }

    /// Returns a receiver for the index of the last applied entry and its changes.
    pub(crate) fn applied(&self) -> fifo_watch::Receiver<u64> {
        self.shared.applied.receiver()
    }

    /// Returns the id of the last applied entry.
    pub(super) fn applied_log_id(&self) -> Option<LogId> {
        self.read().position.applied
    }

    /// Returns the voters of the last applied configuration, and the index of the entry that
    /// contains it.
    pub(crate) fn voters(&self) -> (u64, BTreeSet<NodeId>) {
        let current = self.read();
        let stored = &current.position.membership;
        (index(*stored.log_id()), stored.voter_ids().collect())
    }

    /// Returns whether that configuration has a node as a member.
    pub(crate) fn has_member(&self, node: NodeId) -> bool {
        self.read().position.membership.get_node(&node).is_some()
    }

    /// Returns whether a node is a voter in the last configuration applied, in either half.
    pub(crate) fn has_voter(&self, node: NodeId) -> bool {
        self.read().position.membership.voter_ids().any(|voter| voter == node)
    }

    /// Returns the index of the last applied entry.
    pub(crate) fn applied_index(&self) -> u64 {
        self.shared.applied.get()
    }

    /// Returns the latest revision.
    pub(crate) fn revision(&self) -> Revision {
        self.read().state.revision()
    }

    /// Returns the number of the last write that was taken from a node's outbox.
    pub(crate) fn taken(&self, node: NodeId) -> Number {
        self.read().state.as_shard().map(|shard| shard.taken(node)).unwrap_or_default()
    }

    /// Returns when a key was last written or deleted, as far as that is known, and whether it
    /// exists.
    pub(crate) fn last_written(&self, key: &[u8]) -> (Stamp, bool) {
        let current = self.read();
        current.state.as_shard().map(|shard| shard.last_written(key)).unwrap_or_default()
    }

    /// Returns key figures of the state.
    pub(crate) fn summary(&self) -> Summary {
        let current = self.read();
        let counts = current.state.counts();
        Summary {
            applied_index: index(current.position.applied),
            keys: counts.keys,
            bytes: counts.bytes,
            revision: current.state.revision(),
            hash: current.state.hash(),
        }
    }

    /// Returns the number of bytes that the next checkpoint would write.
    pub(crate) fn changed_bytes(&self) -> usize {
        self.read().state.changed_bytes()
    }

    /// Records a leader's statement, sent no earlier than `sent`: a quorum had confirmed the leader
    /// `quorum_age` before it was sent, and the leader has applied the index `applied`.
    pub(crate) fn heard_leader(&self, sent: Instant, quorum_age: Duration, applied: u64) {
        lock(&self.shared.staleness).heard(sent, quorum_age, applied);
        self.note_staleness();
    }

    /// Records that this replica follows a leader that it has just heard.
    pub(crate) fn follow_leader(&self) {
        let us = self.shared.began.elapsed().as_micros() as u64;
        self.shared.followed_us.store(us.max(1), Ordering::Relaxed);
    }

    /// Returns when this replica last heard the leader that it follows.
    pub(crate) fn followed_at(&self) -> Option<Instant> {
        let us = self.shared.followed_us.load(Ordering::Relaxed);
        (us > 0).then(|| self.shared.began + Duration::from_micros(us))
    }

    /// Returns how old the state may be, in milliseconds; `None` if no leader was heard since the
    /// start.
    pub(crate) fn staleness_ms(&self) -> Option<u64> {
        let age = lock(&self.shared.staleness).age(Instant::now())?;
        Some(age.as_millis() as u64)
    }

    /// Begins to receive a snapshot from the leader.
    pub(crate) async fn receive(&self, meta: Bytes) -> Result<Incoming, NotTaken> {
        let installing = Arc::clone(&self.shared.installing);
        Incoming::begin(self.shared.store.clone(), meta, installing).await
    }

    fn note_staleness(&self) {
        let applied = self.shared.applied.get();
        lock(&self.shared.staleness).applied(applied);
    }

    fn read(&self) -> RwLockReadGuard<'_, Current> {
        read(&self.shared.current)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Current> {
        write(&self.shared.current)
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Checkpoint;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let current = self.handle.read();
        Ok((current.position.applied, current.position.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + Send,
    {
        while let Some(entry) = entries.next().await {
            let (entry, responder) = entry?;
            if responder.is_some() {
                self.handle.shared.entry_times.committed(entry.log_id.index, Instant::now());
            }
            let outcome = self.handle.apply(entry.log_id, entry.payload)?;
            self.handle.shared.applied.set(entry.log_id.index);
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        self.handle.note_staleness();
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Checkpoint {
        // openraft calls this between two applies, so the changes lead to exactly this position.
        let mut current = self.handle.write();
        let position = current.position.clone();
        let changes = current.state.take_changes(encode(&position));
        Checkpoint { handle: self.handle.clone(), work: Some((position, changes)) }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> io::Result<()> {
        let SnapshotData::Arrived(arrived) = snapshot else {
            // At a start openraft offers our own checkpoint; the state has already been loaded from
            // it.
            return Ok(());
        };
        let (state, position) = arrived.switch().await?;
        self.handle.shared.checkpointed.note(position.applied);
        if position.applied != meta.last_log_id {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the state that was installed is not at the position of its snapshot",
            ));
        }
        self.handle.note_clock(position.applied, state.clock_ms());
        self.handle.shared.stamps.observe(state.stamp());
        let old = std::mem::replace(&mut *self.handle.write(), Current { state, position });
        drop(OffThread::new(old));
        // Whatever the number was before: this state counts by itself.
        let news = self.handle.with_shard(ShardState::lease_news).unwrap_or_default();
        self.handle.shared.lease_news.set(news);
        self.handle.note_released();
        self.handle.shared.applied.set(index(meta.last_log_id));
        let group = self.handle.shared.group;
        info!(%group, index = index(meta.last_log_id), "snapshot installed");
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        outgoing(self.handle.shared.store.clone()).await
    }
}

fn index(log_id: Option<LogId>) -> u64 {
    log_id.map_or(0, |log_id| log_id.index)
}
