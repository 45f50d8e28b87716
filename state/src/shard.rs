//! The state of a shard: a table of keys, the sessions, a clock and a counter.
//!
//! Only [`ShardState::apply`] changes the state, and its effect depends only on the state and the
//! batch: it reads no clock, draws no random number, and follows no hash order. Replicas that
//! applied the same entries are therefore equal, which [`ShardState::hash`] verifies.
//!
//! Time comes from the log. The primary stamps each batch by the shard's clock (`clock`), which it
//! took over from the state and advances by what it measures. The state's clock adopts a stamp that
//! is later and otherwise stays where it is, so no primary can turn time back.
//!
//! The state is in memory and records which rows changed. From time to time its owner takes these
//! with [`ShardState::take_changes`] and has the engine write them, which blocks neither applying
//! nor reading.
//!
//! Values that are in a checkpoint may be evicted from memory; the checkpoint then serves them. See
//! `value_cache`.
//!
//! Deliberately missing: disks, locks, and the position in the log, which the owner tracks and
//! passes in where it is to be stored.

mod admission;
pub(super) mod budget;
pub(super) mod commit;
mod eviction;
mod growth;
mod loading;
mod store;

pub(super) mod leases;
pub(super) mod needed;
pub(super) mod path;
pub(super) mod transactions;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use dkv_base::id::{HolderId, NodeId, Number, Revision, Stamp};
use dkv_base::mutants::{Mutant, planted};
use dkv_wire::message::{
    Attach, Command, Condition, Deposited, LeaseCommand, Transact, Write, WriteAttached,
};
use uuid::Uuid;

use needed::{MissingValue, Needed, Supply};

use super::attachments::Attachments;
use super::attempts::Attempts;
use super::batch::{Batch, CorruptBatch};
use super::command::{self, CommandResult};
use super::digest::{Digest, Moment, key_hash};
use super::history::History;
use super::limits;
use super::rows::{Attachment, Changes, Counts, Generation, Meta, Row};
use super::session::Outcome;
use super::sessions::{Admission, SessionTable};
use super::tombstones::{self, DepositOrder, OutboxPositions, Tombstones};
use super::value_cache::{CachedValues, Found, Place, Slot, ValueCache};

/// Changes that each batch sweeps at least, if compaction has raised the floor above them; besides
/// twice as many as it has made.
const SWEPT_PER_BATCH: usize = 64;
/// The same for each command to compact.
const SWEPT_PER_COMMAND: usize = 2048;

/// What a put attaches its key to. A delete attaches it to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attaching {
    Nothing,
    To(Attachment),
    /// To what it is attached to already.
    AsBefore,
}

/// The state of one replica of a shard.
#[derive(Debug, Default)]
pub struct ShardState {
    keys: BTreeMap<Arc<[u8]>, Slot>,
    cached_values: CachedValues,
    /// Rows of this revision or an earlier one are in a checkpoint.
    stored: Revision,
    /// The key that the clock hand of the eviction has reached.
    hand: Option<Arc<[u8]>>,
    /// Whether the hand has been through the history in this round, and goes through the keys.
    past_is_evicted: bool,
    history: History,
    sessions: SessionTable,
    tombstones: Tombstones,
    outboxes: OutboxPositions,
    attempts: Attempts,
    attachments: Attachments,
    /// The latest stamp of a write.
    stamp: Stamp,
    digest: Digest,
    revision: Revision,
    clock_ms: u64,
    generation: Generation,
    /// Rows that changed since the changes were last taken; `None` for deleted keys. They are
    /// shared with the table, so taking them is a single move. Nothing depends on their hash order.
    changed: HashMap<Arc<[u8]>, Option<Row>>,
    changed_bytes: usize,
}

impl ShardState {
    /// Creates the state before the first entry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies one batch of the log and returns the result of each command, in order. All values
    /// that its transactions need must be in memory.
    ///
    /// # Errors
    /// As for [`Self::apply_with`].
    pub fn apply(&mut self, batch: &[u8]) -> Result<Vec<CommandResult>, CorruptBatch> {
        self.apply_with(batch, &Needed::default())
    }

    /// Applies one batch of the log and returns the result of each command, in order, with the
    /// values that its transactions need ([`Self::needed`]).
    ///
    /// # Errors
    /// If the bytes are not a batch, or a transaction needs a value that is neither in memory nor
    /// in `needed`. The replica cannot go on then.
    pub fn apply_with(
        &mut self,
        batch: &[u8],
        needed: &Needed,
    ) -> Result<Vec<CommandResult>, CorruptBatch> {
        let batch = Batch::decode(batch)?;
        self.clock_ms = self.clock_ms.max(batch.time_ms());
        self.sessions.expire(self.clock_ms, &mut self.digest);
        self.follow_ended_sessions();
        self.tombstones.expire(self.clock_ms, &mut self.digest);
        let commands = batch.commands();
        let supply = Supply { needed, value_bytes_max: batch.value_bytes_max() };
        let execute = |command| self.execute(command, batch.stamp(), supply);
        let results = commands.map(execute).collect::<Result<_, _>>()?;
        // More than the batch has added: one command may have made many changes.
        let swept = SWEPT_PER_BATCH + 2 * self.history.take_added();
        self.history.sweep(swept, &mut self.cached_values, &mut self.digest);
        Ok(results)
    }

    /// Looks a key up. The result shares the value.
    pub fn get(&self, key: &[u8]) -> Option<Found> {
        self.keys.get(key).map(Slot::find)
    }

    /// Returns when an absent key was deleted; zero if that is not known.
    pub fn deleted_at(&self, key: &[u8]) -> Stamp {
        self.tombstones.get(key).unwrap_or_default()
    }

    /// Returns when a key was last written or deleted, if known, and whether it exists.
    pub fn last_written(&self, key: &[u8]) -> (Stamp, bool) {
        match self.keys.get(key) {
            Some(slot) => (slot.origin.stamp, true),
            None => (self.deleted_at(key), false),
        }
    }

    /// Returns the position up to which the shard has taken a node's outbox.
    pub fn taken(&self, node: NodeId) -> Number {
        self.outboxes.taken(node)
    }

    /// Returns the latest stamp of a write.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Returns all keys in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Found)> {
        self.keys.iter().map(|(key, slot)| (key.as_ref(), slot.find()))
    }

    pub(super) fn history(&self) -> &History {
        &self.history
    }

    pub(super) fn attachments(&self) -> &Attachments {
        &self.attachments
    }

    pub(super) fn keys(&self) -> &BTreeMap<Arc<[u8]>, Slot> {
        &self.keys
    }

    /// Returns the latest revision; zero before the first write.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Returns the log's clock, in milliseconds.
    pub fn clock_ms(&self) -> u64 {
        self.clock_ms
    }

    /// Returns the size of the state.
    pub fn counts(&self) -> Counts {
        self.digest.counts()
    }

    /// Returns a hash of the whole state, for the cost of one short hash. Replicas that applied the
    /// same entries have the same hash.
    pub fn hash(&self) -> u64 {
        self.digest.hash(Moment {
            revision: self.revision,
            clock_ms: self.clock_ms,
            stamp: self.stamp,
            floor: self.history.floor(),
            swept: self.history.swept(),
        })
    }

    /// Returns the number of rows that the next checkpoint will write.
    pub fn changed_rows(&self) -> usize {
        let small = tombstones::changed_len(&self.tombstones, &self.outboxes);
        let small = small + self.attempts.changed_len();
        self.changed.len()
            + self.history.changed_len()
            + small
            + self.attachments.changed_len()
            + self.sessions.changed_len()
    }

    /// Returns the bytes of keys and values written since the changes were last taken. A key that
    /// was written twice counts twice, so the next checkpoint is at most this large, sessions
    /// aside.
    pub fn changed_bytes(&self) -> usize {
        self.changed_bytes
    }

    /// Takes the changes since the last call. The cost is that of the changed sessions; keys cost
    /// nothing. `applied` is the caller's name for the last entry that was applied.
    pub fn take_changes(&mut self, applied: Bytes) -> Changes {
        self.changed_bytes = 0;
        let mut small = tombstones::take_changed(&mut self.tombstones, &mut self.outboxes);
        small.extend(self.attempts.take_changed());
        small.append(&mut self.attachments.take_changed());
        small.append(&mut self.sessions.take_changed_ended());
        Changes {
            generation: self.generation,
            keys: std::mem::take(&mut self.changed),
            history: self.history.take_changed(),
            small,
            sessions: self.sessions.take_changed(),
            directory: None,
            meta: Meta {
                applied,
                revision: self.revision,
                clock_ms: self.clock_ms,
                stamp: self.stamp,
                floor: self.history.floor(),
                swept: self.history.swept(),
                hash: self.hash(),
                counts: self.counts(),
            },
        }
    }

    /// Puts back changes that could not be written: the next ones will include these rows, unless
    /// they have changed again since.
    pub fn restore_changes(&mut self, changes: Changes) {
        self.changed_bytes += changes.bytes();
        for (key, row) in changes.keys {
            self.changed.entry(key).or_insert(row);
        }
        self.history.restore_changed(changes.history);
        let small = self.attempts.restore_changed(changes.small);
        for (table, key, _) in &small {
            self.attachments.restore_changed(*table, key);
            self.sessions.restore_changed_ended(*table, key);
        }
        tombstones::restore_changed(&mut self.tombstones, &mut self.outboxes, small);
        self.sessions.restore_changed(changes.sessions.into_iter().map(|(id, _)| id));
    }

    /// Assigns the changes of an empty state to this generation of its store.
    pub(super) fn set_generation(&mut self, generation: Generation) {
        self.generation = generation;
    }

    /// Charges the values to this memory, whose limit then bounds them. To be called before there
    /// are any values.
    pub(super) fn set_memory(&mut self, memory: ValueCache) {
        self.cached_values = CachedValues::of(memory);
    }

    /// Records that a checkpoint of changes of this generation, up to this revision, is durable:
    /// its values no longer have to stay in memory.
    pub fn checkpointed(&mut self, generation: Generation, revision: Revision) {
        if generation == self.generation {
            self.stored = self.stored.max(revision);
        }
    }

    /// Puts a value that was read from the checkpoint back into memory, unless it has been
    /// overwritten since. Returns whether the row is the one that was stored there.
    pub fn promote(&mut self, key: &[u8], row: &Row) -> bool {
        let Some(slot) = self.keys.get_mut(key) else { return true };
        let Place::Stored { hash, .. } = slot.value else { return true };
        if slot.origin.revision != row.origin.revision {
            return true;
        }
        if key_hash(key, row.origin, &row.value) != hash {
            return false;
        }
        self.cached_values.came(&row.value);
        *slot = Slot::new(row.origin, Arc::clone(&row.value));
        true
    }

    fn execute(
        &mut self,
        encoded: &[u8],
        now: Stamp,
        supply: Supply<'_>,
    ) -> Result<CommandResult, CorruptBatch> {
        Ok(match command::decode_logged(encoded) {
            None => CommandResult::Invalid,
            // The session has no holder: all such sessions share the allowance of a single holder.
            Some(Command::OpenSession(session)) => {
                self.open_session(session, HolderId(Uuid::nil()))
            }
            Some(Command::OpenSessionOf { session, holder }) => self.open_session(session, holder),
            Some(Command::Deposited(deposited)) => self.deposit(&deposited),
            Some(Command::Compact { floor }) => {
                let before = self.history.floor();
                self.history.compact(floor.min(self.revision));
                self.history.sweep(SWEPT_PER_COMMAND, &mut self.cached_values, &mut self.digest);
                CommandResult::Compacted { revision: self.revision, before }
            }
            Some(Command::Cut { moment }) => {
                // A part that is prepared from now on gets a later stamp: no cut waits for it.
                self.note_stamp(moment);
                match self.cut_at(moment) {
                    _ if self.is_undecided_at(moment) => CommandResult::Locked,
                    Some(cut) => CommandResult::Cut(cut),
                    None => CommandResult::Invalid,
                }
            }
            Some(Command::Write(write)) => self.write_once(&write, None, now),
            Some(Command::WriteAttached(WriteAttached { write, attach })) => {
                self.write_once(&write, Some(attach), now)
            }
            Some(Command::Lease(change)) => {
                let LeaseCommand { session, serial, settled, .. } = change;
                match self.admit(session, serial, settled) {
                    Admission::Answer(answer) => answer,
                    Admission::Execute => {
                        let outcome = self.change_lease(&change, now);
                        self.record(session, serial, outcome)
                    }
                }
            }
            Some(Command::Expire(expire)) => self.expire(&expire, now),
            Some(Command::Transact(transact)) => {
                let Transact { session, serial, settled, .. } = transact;
                match self.admit(session, serial, settled) {
                    Admission::Answer(answer) if !planted(Mutant::ForgetOutcomes) => answer,
                    Admission::Execute if self.blocks_transaction(transact.body) => {
                        CommandResult::Locked
                    }
                    Admission::Answer(_) | Admission::Execute => {
                        let outcome = self.transact(&transact, now, supply);
                        self.record(session, serial, outcome.map_err(missing)?)
                    }
                }
            }
            // Its home's primary turns it into those that follow.
            Some(Command::TransactOver(_)) => CommandResult::Invalid,
            Some(Command::Prepare(prepare)) => self.prepare(&prepare, supply).map_err(missing)?,
            Some(Command::Decide(decide)) => {
                self.decide(&decide, now, supply.needed).map_err(missing)?
            }
            Some(Command::Finish { id, committed }) => {
                self.finish(id, committed, supply.needed).map_err(missing)?
            }
            Some(Command::Resolve { id, abort }) => self.resolve(id, abort),
            Some(Command::Forget(id)) => self.forget(id),
        })
    }

    /// Returns the stamp of a write that takes effect now: it is later than that of every write
    /// before it, and than `after`.
    pub(super) fn stamp_after(&mut self, now: Stamp, after: Stamp) -> Stamp {
        self.stamp = now.max(self.stamp.next()).max(after.next());
        self.stamp
    }

    /// Records that a write has this stamp.
    pub(super) fn note_stamp(&mut self, stamp: Stamp) {
        self.stamp = self.stamp.max(stamp);
    }

    /// Applies an eventual write from an outbox. The write with the later stamp wins, whichever
    /// arrived first.
    fn deposit(&mut self, deposited: &Deposited<'_>) -> CommandResult {
        let Deposited { node, number, after, stamp, key, operation } = *deposited;
        if self.attempts.locks().is_locked(key) && number > self.outboxes.taken(node) {
            return CommandResult::Locked;
        }
        match self.outboxes.take(node, number, after, &mut self.digest) {
            DepositOrder::Now => {}
            DepositOrder::Before => return self.nothing_new(),
            DepositOrder::Later => return CommandResult::TooEarly,
            DepositOrder::Never => {
                return CommandResult::Overloaded { retry_after_ms: limits::SESSION_RETRY_MS };
            }
        }
        self.stamp = self.stamp.max(stamp);
        let (current, _) = self.last_written(key);
        if current >= stamp && !planted(Mutant::LastArrivalWins) {
            return self.nothing_new();
        }
        self.store(key, operation, stamp, Attaching::Nothing).into()
    }

    fn nothing_new(&self) -> CommandResult {
        CommandResult::Written { revision: self.revision, existed: true }
    }

    fn write(&mut self, write: &Write<'_>, attach: Option<Attach>, now: Stamp) -> Outcome {
        let attaching = match attach.map(|attach| self.attachment(attach)) {
            None => Attaching::Nothing,
            Some(Ok(attachment)) => Attaching::To(attachment),
            Some(Err(lease)) => return Outcome::NoLease { lease },
        };
        if write.condition != Condition::Always {
            let current = self.keys.get(write.key).map(|slot| slot.origin.revision);
            let holds = match write.condition {
                Condition::Always => true,
                Condition::Absent => current.is_none(),
                Condition::Present => current.is_some(),
                Condition::Revision(revision) => current == Some(revision),
            };
            if !holds {
                return Outcome::Conflict { current };
            }
        }
        let stamp = self.stamp_after(now, write.after);
        self.store(write.key, write.operation, stamp, attaching)
    }
}

fn missing(MissingValue: MissingValue) -> CorruptBatch {
    CorruptBatch { offset: 0, problem: "a transaction needs a value that is not there" }
}

#[cfg(test)]
impl ShardState {
    /// Creates a state whose session table has other bounds than in production.
    pub(super) fn with_bounds(bounds: super::sessions::Bounds) -> Self {
        Self { sessions: SessionTable::new(bounds), ..Self::default() }
    }

    /// Returns a row that is in memory.
    pub(super) fn row(&self, key: &[u8]) -> Option<Row> {
        self.get(key).map(|found| match found {
            Found::Row(row) => row,
            Found::Stored(_) => panic!("it is in the checkpoint only"),
        })
    }
}
