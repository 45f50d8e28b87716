//! The contents of an outbox: plain data, the same after a restart as before.
//!
//! A write is *staged* while it is on its way to the log, and *kept* once it is durable. It is
//! *sent* once the primary has acknowledged it, and *settled*, that is gone, once this node's own
//! replica has it too, so that an eventual read here never goes back.
//!
//! Numbers grow by one. When the node starts, they begin anew at a number derived from the wall
//! clock, far above all that can have been given before. Should the end of an outbox have been
//! lost, to a disk that lied or an old copy that was restored, no new write gets the number of an
//! earlier one, which the shard would take it for and therefore drop. Each write names its
//! predecessor, so that none is taken out of order.
//!
//! In the log each write is a record under an index of its own. When the log has to be shortened
//! and the primary cannot be reached, the kept writes are written again at the end of the log,
//! under the same numbers; after a crash in between a number may be there twice.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::{NodeId, Number, Stamp};
use dkv_wire::codec;
use dkv_wire::message::{Command, Deposited, Operation, Span};

use dkv_state::Waiting;

/// Approximate number of bytes that a write takes besides its key and value.
const OVERHEAD_BYTES: usize = 200;
/// Bits of a number that count within a second of the wall clock at the start: more writes than an
/// outbox can take in a second. Numbers stay below 2^53, which JSON can represent.
const NUMBERS_A_SECOND_BITS: u32 = 20;

/// A write in an outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DurableWrite {
    pub(crate) number: Number,
    /// The number of the write before it.
    after: Number,
    pub(crate) stamp: Stamp,
    pub(crate) key: Bytes,
    /// The value; `None` for a delete.
    pub(crate) value: Option<Bytes>,
    /// The command for the shard's log, encoded.
    pub(crate) command: Bytes,
    index: u64,
}

impl DurableWrite {
    fn bytes(&self) -> usize {
        self.command.len() + OVERHEAD_BYTES
    }
}

/// A log record that does not belong to an outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record of an outbox is malformed")]
pub(crate) struct Malformed;

/// A record to append to the log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Append {
    pub(crate) index: u64,
    pub(crate) number: Number,
    pub(crate) command: Bytes,
}

/// A write that moves to another place in the log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Moved {
    number: Number,
    from: u64,
    pub(crate) to: u64,
    pub(crate) command: Bytes,
}

/// The outbox of one shard.
#[derive(Debug)]
pub(crate) struct Ledger {
    me: NodeId,
    /// The last number given.
    last: Number,
    /// Lower bound on the numbers given from now on.
    next_least: u64,
    /// All writes up to this number have left, or may have: only the state of a replica can tell.
    settled: Number,
    next_index: u64,
    staged: VecDeque<DurableWrite>,
    kept: BTreeMap<Number, DurableWrite>,
    by_key: BTreeMap<Bytes, BTreeSet<(Stamp, Number)>>,
    /// The places of the kept writes in the log.
    by_index: BTreeMap<u64, Number>,
    sent: Number,
    bytes: usize,
}

impl Ledger {
    /// Loads the outbox from its records in the log, the index that follows them and the mark of
    /// the last purge. `started` is the time at which the process started, since 1970.
    ///
    /// # Errors
    /// Fails if a record does not belong to an outbox of this node.
    pub(crate) fn load(
        me: NodeId,
        next_index: u64,
        records: Vec<(u64, Bytes)>,
        mark: Option<&[u8]>,
        started: Duration,
    ) -> Result<Self, Malformed> {
        let last = match mark {
            None => Number(0),
            Some(mark) => codec::decode(mark).map_err(|_| Malformed)?,
        };
        let mut ledger = Self {
            me,
            last,
            next_least: started.as_secs() << NUMBERS_A_SECOND_BITS,
            settled: Number(0),
            next_index,
            staged: VecDeque::new(),
            kept: BTreeMap::new(),
            by_key: BTreeMap::new(),
            by_index: BTreeMap::new(),
            sent: Number(0),
            bytes: 0,
        };
        for (index, command) in records {
            let kept = decode(me, index, &command)?;
            ledger.last = ledger.last.max(kept.number);
            // The later record of a number is the one that stays when the log is shortened.
            ledger.remove(kept.number);
            ledger.bytes += kept.bytes();
            ledger.keep(kept);
        }
        // Settled writes may be here again if their purge was lost; but then they have gaps.
        ledger.settled = ledger.last;
        while let Some(kept) = ledger.kept.get(&ledger.settled) {
            ledger.settled = kept.after;
        }
        Ok(ledger)
    }

    /// Stages a write, and returns what to append to the log. Call [`durable`](Self::durable) in
    /// the same order once that is durable.
    pub(crate) fn stage(&mut self, stamp: Stamp, key: &Bytes, value: Option<&Bytes>) -> Append {
        let after = self.last;
        self.last = Number((after.0 + 1).max(self.next_least));
        let (number, index) = (self.last, self.next_index);
        self.next_index += 1;
        let operation = value.map_or(Operation::Delete, |value| Operation::Put(value));
        let deposited = Deposited { node: self.me, number, after, stamp, key, operation };
        let command = codec::encode(&Command::Deposited(deposited));
        // The staged write shares the bytes of the command.
        let kept = shared((number, after), stamp, key, value, command.clone(), index);
        self.bytes += kept.bytes();
        self.staged.push_back(kept);
        Append { index, number, command }
    }

    /// Takes back the write that was staged last: the log did not take it.
    pub(crate) fn unstage(&mut self) {
        if let Some(kept) = self.staged.pop_back() {
            self.bytes -= kept.bytes();
            self.last = kept.after;
            self.next_index -= 1;
        }
    }

    /// Marks the oldest staged write as durable: it shows from now on.
    pub(crate) fn durable(&mut self) {
        if let Some(kept) = self.staged.pop_front() {
            self.keep(kept);
        }
    }

    /// The latest write of a key that is here.
    pub(crate) fn find(&self, key: &[u8]) -> Option<&DurableWrite> {
        let (_, number) = self.by_key.get(key)?.last()?;
        self.kept.get(number)
    }

    /// The latest write of each key of a span that is here, in the order of keys.
    pub(crate) fn list(&self, span: &Span) -> Vec<Waiting> {
        let keys = self.by_key.range::<[u8], _>(span.range());
        keys.take_while(|(key, _)| key.starts_with(&span.prefix))
            .filter_map(|(_, writes)| self.kept.get(&writes.last()?.1))
            .map(|DurableWrite { key, number, stamp, value, .. }| Waiting {
                key: key.clone(),
                number: *number,
                stamp: *stamp,
                value: value.clone(),
            })
            .collect()
    }

    /// The latest stamp of the kept writes.
    pub(crate) fn last_stamp(&self) -> Option<Stamp> {
        self.kept.values().map(|kept| kept.stamp).max()
    }

    /// Returns the number of the same write, if it is here: its client sends it again. Another
    /// write of that key may have the same stamp.
    pub(crate) fn again(&self, key: &[u8], stamp: Stamp, value: Option<&Bytes>) -> Option<Number> {
        let moment = (stamp, Number(0))..=(stamp, Number(u64::MAX));
        let mut numbers = self.by_key.get(key)?.range(moment).map(|(_, number)| *number);
        numbers
            .find(|number| self.kept.get(number).is_some_and(|kept| kept.value.as_ref() == value))
    }

    /// The writes to send next, in order: at most `writes_max` of them and, except for the first,
    /// at most `bytes_max` bytes.
    pub(crate) fn window(&self, writes_max: usize, bytes_max: usize) -> Vec<(Number, Bytes)> {
        let mut bytes = 0;
        let unsent = self.kept.range(Number(self.sent.0 + 1)..);
        let unsent = unsent.map(|(number, kept)| (*number, kept.command.clone()));
        unsent
            .take(writes_max)
            .take_while(|(_, command)| {
                let first = bytes == 0;
                bytes += command.len();
                first || bytes <= bytes_max
            })
            .collect()
    }

    /// Records that the primary has all writes up to `number`.
    pub(crate) fn sent(&mut self, number: Number) {
        self.sent = self.sent.max(number);
    }

    /// Has all writes sent again: the primary lacks some that it seemed to have.
    pub(crate) fn start_over(&mut self) {
        self.sent = Number(0);
    }

    /// Makes the oldest kept write the first one of this outbox, for a shard that lacks the writes
    /// before it: they had settled, so it has lost them, and no node can send them again. `number`
    /// is the oldest one that was sent. Returns whether it is still here.
    ///
    /// A restart before the write moves in the log undoes that; the shard then asks for the same.
    pub(crate) fn skip_lost(&mut self, number: Number) -> bool {
        let Some(mut first) = self.kept.first_entry() else { return false };
        if *first.key() != number {
            return false;
        }
        let kept = first.get_mut();
        kept.after = Number(0);
        let operation = kept.value.as_deref().map_or(Operation::Delete, Operation::Put);
        let deposited = Deposited {
            node: self.me,
            number,
            after: kept.after,
            stamp: kept.stamp,
            key: &kept.key,
            operation,
        };
        let command = codec::encode(&Command::Deposited(deposited));
        self.bytes -= kept.bytes();
        *kept = shared(
            (number, kept.after),
            kept.stamp,
            &kept.key,
            kept.value.as_ref(),
            command,
            kept.index,
        );
        self.bytes += kept.bytes();
        // No caller may wait for what cannot come.
        self.settled = Number(0);
        true
    }

    /// The number of the oldest write that is kept.
    pub(crate) fn first_kept(&self) -> Option<Number> {
        self.kept.keys().next().copied()
    }

    /// The last number that the primary has.
    pub(crate) fn last_sent(&self) -> Number {
        self.sent
    }

    /// Returns whether no write is kept.
    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Number of kept writes.
    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Returns whether every write up to `number` is here, or in a state that has taken all up to
    /// `taken`.
    pub(crate) fn shows(&self, number: Number, taken: Number) -> bool {
        taken >= number || (number <= self.last_durable() && self.settled <= taken)
    }

    fn last_durable(&self) -> Number {
        self.staged.front().map_or(self.last, |kept| kept.after)
    }

    /// Approximate number of bytes of everything here.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Removes the writes up to `upto`, which have reached their destination. Returns how much of
    /// the log may be purged then: its last index, and the mark to purge it with.
    pub(crate) fn settle(&mut self, upto: Number) -> Option<(u64, Bytes)> {
        let mut settled = false;
        while let Some((&number, _)) = self.kept.first_key_value() {
            if number > upto {
                break;
            }
            self.remove(number);
            self.settled = self.settled.max(number);
            settled = true;
        }
        settled.then(|| self.purgeable())
    }

    /// Moves the oldest writes to the end of the log, and returns what to append to it: at most
    /// `bytes_max` bytes, except for the first. Moves nothing while staged writes are on their way
    /// there anyway. Once the records are durable, [`purgeable`](Self::purgeable) says what may go.
    pub(crate) fn rewrite(&mut self, bytes_max: usize) -> Vec<Moved> {
        let mut moved = Vec::new();
        if !self.staged.is_empty() {
            return moved;
        }
        let (mut bytes, end) = (0, self.next_index);
        while let Some((&from, &number)) = self.by_index.first_key_value() {
            let Some(kept) = self.kept.get_mut(&number) else { break };
            bytes += kept.bytes();
            if from >= end || (bytes > bytes_max && !moved.is_empty()) {
                break;
            }
            kept.index = self.next_index;
            moved.push(Moved { number, from, to: kept.index, command: kept.command.clone() });
            self.by_index.remove(&from);
            self.by_index.insert(self.next_index, number);
            self.next_index += 1;
        }
        moved
    }

    /// Undoes a move that the log did not take.
    pub(crate) fn stay(&mut self, moved: Vec<Moved>) {
        for Moved { number, from, to, .. } in moved.into_iter().rev() {
            self.by_index.remove(&to);
            self.by_index.insert(from, number);
            if let Some(kept) = self.kept.get_mut(&number) {
                kept.index = from;
            }
            self.next_index = to;
        }
    }

    /// The index up to which nothing in the log is needed, and the mark to purge it with.
    pub(crate) fn purgeable(&self) -> (u64, Bytes) {
        let kept = self.by_index.first_key_value().map(|(index, _)| *index);
        let first = kept.or(self.staged.front().map(|kept| kept.index)).unwrap_or(self.next_index);
        // Writes that are not durable yet do not count.
        (first.saturating_sub(1), codec::encode(&self.last_durable()))
    }

    fn keep(&mut self, kept: DurableWrite) {
        self.by_key.entry(kept.key.clone()).or_default().insert((kept.stamp, kept.number));
        self.by_index.insert(kept.index, kept.number);
        self.kept.insert(kept.number, kept);
    }

    fn remove(&mut self, number: Number) {
        let Some(kept) = self.kept.remove(&number) else { return };
        self.bytes -= kept.bytes();
        self.by_index.remove(&kept.index);
        if let Some(numbers) = self.by_key.get_mut(&kept.key) {
            numbers.remove(&(kept.stamp, kept.number));
            if numbers.is_empty() {
                self.by_key.remove(&kept.key);
            }
        }
    }
}

fn decode(me: NodeId, index: u64, command: &Bytes) -> Result<DurableWrite, Malformed> {
    let Ok(Command::Deposited(deposited)) = codec::decode::<Command<'_>>(command) else {
        return Err(Malformed);
    };
    let Deposited { node, number, after, stamp, key, operation } = deposited;
    if node != me {
        return Err(Malformed);
    }
    let value = match operation {
        Operation::Put(value) => Some(command.slice_ref(value)),
        Operation::Delete => None,
    };
    let key = command.slice_ref(key);
    Ok(DurableWrite { number, after, stamp, key, value, command: command.clone(), index })
}

fn shared(
    (number, after): (Number, Number),
    stamp: Stamp,
    key: &Bytes,
    value: Option<&Bytes>,
    command: Bytes,
    index: u64,
) -> DurableWrite {
    // The key and the value lie at the end of the command, in this order, with the value's length
    // between.
    let value_bytes = value.map_or(0, Bytes::len);
    let value = value.map(|_| command.slice(command.len() - value_bytes..));
    DurableWrite { number, after, stamp, key: Bytes::copy_from_slice(key), value, command, index }
}

#[cfg(test)]
mod tests;
