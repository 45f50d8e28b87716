//! Attempts at transactions over several shards: the parts that are prepared here, what this shard
//! has decided as a home, and what it has finished of other homes.
//!
//! A *part* is the share of this shard in an attempt; its keys are locked until it is finished. A
//! *record* says what has become of a transaction whose home this is. A record of an attempt that
//! is not committed lives as long as its serial may still be used; that of a committed one lives at
//! least until all other shards have finished it.
//!
//! Messages can be late or come twice. A home therefore never takes an attempt up again once it has
//! answered that it is aborted, and a shard remembers the attempts that it has executed until their
//! home says that all attempts up to a later one are over.
//!
//! All of it is part of the state: equal on all replicas, and in every checkpoint and snapshot.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use dkv_base::id::{GroupId, Revision, Serial, SessionId, Stamp};
use dkv_wire::codec;
use dkv_wire::message::{Attempt, AttemptId};
use xxhash_rust::xxh3::xxh3_64;

use super::attempt_rows::{
    Decoded, Finished, PartRow, Record, RowName, decode, name_of, part_key, record_key,
};
use super::command::transaction::validate_part;
use super::digest::Digest;
use super::limits;
use super::locks::{Locks, PartKeys};
use super::rows::{MalformedRow, Table};
use super::tombstones::SmallRows;

/// A prepared part.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// The writes of the part get a later stamp than this.
    pub(super) after: Stamp,
    /// When it was prepared, in milliseconds of the log's clock.
    pub(super) since_ms: u64,
    /// The shard's latest revision then.
    pub(super) at: Revision,
    /// The latest stamp that the shard had given then; the transaction gets a later one.
    pub(super) stamp: Stamp,
    /// An encoded transaction.
    pub(super) body: Arc<[u8]>,
    /// What the digest has of it.
    number: u64,
}

/// A row, and what the digest has of it.
#[derive(Debug)]
struct Kept<T> {
    row: T,
    number: u64,
}

/// The verdict on preparing a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Locking {
    /// The keys are locked.
    Done,
    /// Another transaction has locked one.
    Locked,
    /// There are too many prepared parts.
    NoRoom,
}

/// All attempts that a shard knows. Methods that change a row take the digest that has to follow.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    parts: BTreeMap<AttemptId, Part>,
    parts_bytes: usize,
    locks: Locks,
    records: BTreeMap<(SessionId, Serial), Kept<Record>>,
    /// The number of records of each session that has some.
    records_of: HashMap<SessionId, usize>,
    finished: BTreeMap<GroupId, Kept<Finished>>,
    changed: BTreeSet<RowName>,
}

impl Attempts {
    /// Returns the locks on keys.
    pub(super) fn locks(&self) -> &Locks {
        &self.locks
    }

    /// Returns the prepared parts.
    pub(super) fn parts(&self) -> &BTreeMap<AttemptId, Part> {
        &self.parts
    }

    /// Returns the records of this home.
    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values().map(|kept| &kept.row)
    }

    /// Returns what this home knows of a transaction.
    pub(super) fn record(&self, session: SessionId, serial: Serial) -> Option<&Record> {
        self.records.get(&(session, serial)).map(|kept| &kept.row)
    }

    /// Returns whether there is room for the record of one more transaction of a session; `own` are
    /// all sessions of its holder.
    pub(super) fn has_room(
        &self,
        session: SessionId,
        serial: Serial,
        own: impl Iterator<Item = SessionId>,
    ) -> bool {
        if self.records.contains_key(&(session, serial)) {
            return true;
        }
        let all = self.records.len();
        all < limits::RECORDS_MAX / 2 || all < limits::RECORDS_MAX && !self.is_share_used(own)
    }

    /// Returns whether a holder has as many records as it may while others need room.
    fn is_share_used(&self, own: impl Iterator<Item = SessionId>) -> bool {
        let mut counts = own.map(|session| self.records_of.get(&session).copied().unwrap_or(0));
        let mut left = limits::HOLDER_RECORDS_MAX;
        counts.any(|count| {
            left = left.saturating_sub(count);
            left == 0
        })
    }

    /// Returns whether there is room for the record that an attempt is aborted.
    pub(super) fn may_fence(&self, session: SessionId, serial: Serial) -> bool {
        self.records.len() < limits::RECORDS_MAX + limits::RECORDS_RESERVED
            || self.records.contains_key(&(session, serial))
    }

    /// Locks the keys of a part and stores it.
    pub(super) fn lock(
        &mut self,
        id: AttemptId,
        (after, since_ms, at, stamp): (Stamp, u64, Revision, Stamp),
        body: &[u8],
        digest: &mut Digest,
    ) -> Locking {
        if self.parts.len() >= limits::PARTS_MAX
            || self.parts_bytes + cost(body) > limits::PARTS_BYTES_MAX && !self.parts.is_empty()
        {
            return Locking::NoRoom;
        }
        let Some(transaction) = validate_part(body) else { return Locking::Locked };
        let Some(keys) = PartKeys::of(&transaction) else { return Locking::Locked };
        if !self.locks.acquire(&keys, at) {
            return Locking::Locked;
        }
        let row = PartRow { after, since_ms, at, stamp, body };
        let number = xxh3_64(&codec::encode_vec(&row));
        digest.add_small(Table::Parts, &part_key(id), number);
        self.parts_bytes += cost(body);
        let body = Arc::from(body);
        self.parts.insert(id, Part { after, since_ms, at, stamp, body, number });
        self.changed.insert(RowName::Part(id));
        Locking::Done
    }

    /// Removes a part, and unlocks its keys.
    pub(super) fn unlock(&mut self, id: AttemptId, digest: &mut Digest) {
        let Some(part) = self.parts.remove(&id) else { return };
        if let Some(keys) = validate_part(&part.body).as_ref().and_then(PartKeys::of) {
            self.locks.release(&keys);
        }
        self.parts_bytes -= cost(&part.body);
        digest.remove_small(Table::Parts, &part_key(id), part.number);
        self.changed.insert(RowName::Part(id));
    }

    /// Changes what this home knows of a transaction; `None` to forget it.
    pub(super) fn set_record(
        &mut self,
        (session, serial): (SessionId, Serial),
        record: Option<Record>,
        digest: &mut Digest,
    ) {
        let (name, key) = ((session, serial), record_key(session, serial));
        if let Some(before) = self.records.remove(&name) {
            digest.remove_small(Table::Records, &key, before.number);
            if let Entry::Occupied(mut count) = self.records_of.entry(session) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
        if let Some(row) = record {
            *self.records_of.entry(session).or_default() += 1;
            let number = xxh3_64(&codec::encode_vec(&row));
            digest.add_small(Table::Records, &key, number);
            self.records.insert(name, Kept { row, number });
        }
        self.changed.insert(RowName::Record(session, serial));
    }

    /// Forgets what depends on the serials of a session below `settled`, or on all of them: what is
    /// undecided is aborted.
    pub(super) fn release(
        &mut self,
        session: SessionId,
        settled: Option<Serial>,
        digest: &mut Digest,
    ) {
        if self.records.is_empty() {
            return;
        }
        let of_session = (session, Serial(0))..=(session, Serial(u64::MAX));
        let is_over = |serial: Serial| settled.is_none_or(|settled| serial < settled);
        let over: Vec<_> = self
            .records
            .range(of_session)
            .take_while(|((_, serial), _)| is_over(*serial))
            .filter(|(_, kept)| !matches!(kept.row, Record::Committed { finished: false, .. }))
            .map(|(name, kept)| (*name, kept.row.pending()))
            .collect();
        for (name, pending) in over {
            if let Some(id) = pending {
                self.unlock(id, digest);
            }
            self.set_record(name, None, digest);
        }
    }

    /// Returns whether a part of another home may be prepared here; `over` is what the home says.
    pub(super) fn may_prepare(
        &mut self,
        id: AttemptId,
        over: Attempt,
        digest: &mut Digest,
    ) -> bool {
        let mut of_home = self.finished_of(id.home);
        if over > of_home.over {
            of_home.over = over;
            of_home.executed.retain(|attempt| *attempt >= over);
            self.set_finished(id.home, of_home.clone(), digest);
        }
        id.attempt >= of_home.over && of_home.executed.binary_search(&id.attempt).is_err()
    }

    /// Remembers that a part was executed here.
    pub(super) fn executed(&mut self, id: AttemptId, digest: &mut Digest) {
        let mut of_home = self.finished_of(id.home);
        if id.attempt >= of_home.over
            && let Err(place) = of_home.executed.binary_search(&id.attempt)
        {
            of_home.executed.insert(place, id.attempt);
            self.set_finished(id.home, of_home, digest);
        }
    }

    /// Returns whether the memory of what was executed for a home is full.
    pub(super) fn is_full_of(&self, home: GroupId) -> bool {
        let kept = self.finished.get(&home);
        kept.is_some_and(|kept| kept.row.executed.len() >= limits::EXECUTED_MAX)
    }

    fn finished_of(&self, home: GroupId) -> Finished {
        self.finished.get(&home).map(|kept| kept.row.clone()).unwrap_or_default()
    }

    fn set_finished(&mut self, home: GroupId, row: Finished, digest: &mut Digest) {
        let key = home.0.to_be_bytes();
        let number = xxh3_64(&codec::encode_vec(&row));
        if let Some(before) = self.finished.insert(home, Kept { row, number }) {
            digest.remove_small(Table::Finished, &key, before.number);
        }
        digest.add_small(Table::Finished, &key, number);
        self.changed.insert(RowName::Finished(home));
    }

    /// Adds a row that was read back.
    pub(super) fn load(
        &mut self,
        table: Table,
        key: &[u8],
        value: &[u8],
        digest: &mut Digest,
    ) -> Result<(), MalformedRow> {
        match decode(table, key, value)? {
            Decoded::Part(id, PartRow { after, since_ms, at, stamp, body }) => {
                let locking = self.lock(id, (after, since_ms, at, stamp), body, digest);
                if locking != Locking::Done {
                    return Err(MalformedRow("two transactions have locked a key"));
                }
            }
            Decoded::Record(session, serial, record) => {
                self.set_record((session, serial), Some(record), digest);
            }
            Decoded::Finished(home, finished) => self.set_finished(home, finished, digest),
        }
        self.changed.clear();
        Ok(())
    }

    /// Returns the rows that changed since the last call.
    pub(super) fn take_changed(&mut self) -> SmallRows {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|name| self.encoded(name)).collect()
    }

    fn encoded(&self, name: RowName) -> (Table, Vec<u8>, Option<Vec<u8>>) {
        match name {
            RowName::Part(id) => {
                let row = self.parts.get(&id).map(|part| {
                    let Part { after, since_ms, at, stamp, ref body, .. } = *part;
                    codec::encode_vec(&PartRow { after, since_ms, at, stamp, body })
                });
                (Table::Parts, part_key(id), row)
            }
            RowName::Record(session, serial) => {
                let row = self.record(session, serial).map(codec::encode_vec);
                (Table::Records, record_key(session, serial), row)
            }
            RowName::Finished(home) => {
                let row = self.finished.get(&home).map(|kept| codec::encode_vec(&kept.row));
                (Table::Finished, home.0.to_be_bytes().to_vec(), row)
            }
        }
    }

    /// Marks these rows as changed again; passes on those of other tables.
    pub(super) fn restore_changed(&mut self, rows: SmallRows) -> SmallRows {
        let mut others = SmallRows::new();
        for row in rows {
            match name_of(row.0, &row.1) {
                Some(name) => _ = self.changed.insert(name),
                None => others.push(row),
            }
        }
        others
    }

    /// Returns the number of changed rows.
    pub(super) fn changed_len(&self) -> usize {
        self.changed.len()
    }
}

fn cost(body: &[u8]) -> usize {
    body.len() + limits::PART_OVERHEAD_BYTES
}
