//! What an outbox holds: plain data, the same after a restart as before.
//!
//! A write is *staged* when it is on its way to the log, and *kept* once it is durable. It is
//! *sent* once the primary has acknowledged it, and *settled*, that is gone, once this node's own
//! replica has it too, so that an eventual read here never goes back.
//!
//! Numbers grow by one. When the node starts they begin anew at one that the clock on the wall
//! gives, far above all that can have been given before: should the end of an outbox have been
//! lost, by a disk that lied or an old copy that was put back, no number is given to a second
//! write, which the shard would take for the first one and drop. Each write names the one before
//! it, so that none is taken out of order.
//!
//! In the log each write is a record under an index of its own. When the log has to be shortened
//! and the primary cannot be reached, what is kept is written again at the end of the log, under
//! the same numbers; after a crash in between a number may be there twice.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::{NodeId, Number, Stamp};
use dkv_wire::codec;
use dkv_wire::message::{Command, Deposited, Operation, Span};

use dkv_state::Waiting;

/// Bytes that a write takes besides its key and value, about.
const OVERHEAD_BYTES: usize = 200;
/// Bits of a number that count within a second of the clock on the wall at the start: more writes
/// than an outbox can take in a second. Numbers stay below 2^53, which JSON can name.
const NUMBERS_A_SECOND_BITS: u32 = 20;

/// A write in an outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DurableWrite {
    pub(crate) number: Number,
    /// The write before it.
    after: Number,
    pub(crate) stamp: Stamp,
    pub(crate) key: Bytes,
    /// The value; nothing for a delete.
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

/// A record of the log that is none of an outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record of an outbox is malformed")]
pub(crate) struct Malformed;

/// What is to be appended to the log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Append {
    pub(crate) index: u64,
    pub(crate) number: Number,
    pub(crate) command: Bytes,
}

/// A write that gets another place in the log.
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
    /// The last number that was given.
    last: Number,
    /// No number below this one is given any more.
    next_least: u64,
    /// All up to that number has left, or may have: only a replica's state tells of it.
    settled: Number,
    next_index: u64,
    staged: VecDeque<DurableWrite>,
    kept: BTreeMap<Number, DurableWrite>,
    by_key: BTreeMap<Bytes, BTreeSet<(Stamp, Number)>>,
    /// Where in the log what is kept lies.
    by_index: BTreeMap<u64, Number>,
    sent: Number,
    bytes: usize,
}

impl Ledger {
    /// The outbox as the log has it: its records, and the index and the mark of the last purge.
    /// `started` is the time at which the process started, since 1970.
    ///
    /// # Errors
    /// If a record is not one of an outbox of this node.
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
        // What was settled may be here again, its purge having been lost; but it has gaps then.
        ledger.settled = ledger.last;
        while let Some(kept) = ledger.kept.get(&ledger.settled) {
            ledger.settled = kept.after;
        }
        Ok(ledger)
    }

    /// Takes a write in: what to append to the log. Call [`durable`](Self::durable) in the same
    /// order once that is durable.
    pub(crate) fn stage(&mut self, stamp: Stamp, key: &Bytes, value: Option<&Bytes>) -> Append {
        let after = self.last;
        self.last = Number((after.0 + 1).max(self.next_least));
        let (number, index) = (self.last, self.next_index);
        self.next_index += 1;
        let operation = value.map_or(Operation::Delete, |value| Operation::Put(value));
        let deposited = Deposited { node: self.me, number, after, stamp, key, operation };
        let command = codec::encode(&Command::Deposited(deposited));
        // All of them share the bytes of the command.
        let kept = shared((number, after), stamp, key, value, command.clone(), index);
        self.bytes += kept.bytes();
        self.staged.push_back(kept);
        Append { index, number, command }
    }

    /// Takes the last write that was staged back: the log did not take it.
    pub(crate) fn unstage(&mut self) {
        if let Some(kept) = self.staged.pop_back() {
            self.bytes -= kept.bytes();
            self.last = kept.after;
            self.next_index -= 1;
        }
    }

    /// The oldest write that is staged is durable: it shows from now on.
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

    /// The latest stamp that is kept.
    pub(crate) fn last_stamp(&self) -> Option<Stamp> {
        self.kept.values().map(|kept| kept.stamp).max()
    }

    /// The same write, if it is here: a client sends it again. Another write of that key may have
    /// the same stamp.
    pub(crate) fn again(&self, key: &[u8], stamp: Stamp, value: Option<&Bytes>) -> Option<Number> {
        let moment = (stamp, Number(0))..=(stamp, Number(u64::MAX));
        let mut numbers = self.by_key.get(key)?.range(moment).map(|(_, number)| *number);
        numbers
            .find(|number| self.kept.get(number).is_some_and(|kept| kept.value.as_ref() == value))
    }

    /// What is to be sent next, in order: so many writes at most, and so many bytes but for the
    /// first.
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

    /// The primary has all up to that number.
    pub(crate) fn sent(&mut self, number: Number) {
        self.sent = self.sent.max(number);
    }

    /// The primary lacks what it seemed to have: all is sent again.
    pub(crate) fn start_over(&mut self) {
        self.sent = Number(0);
    }

    /// The last number that the primary has.
    pub(crate) fn last_sent(&self) -> Number {
        self.sent
    }

    /// Whether nothing is kept.
    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Writes that are kept.
    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether every write up to that number is here, or in a state that has taken so many.
    pub(crate) fn shows(&self, number: Number, taken: Number) -> bool {
        taken >= number || (number <= self.last_durable() && self.settled <= taken)
    }

    fn last_durable(&self) -> Number {
        self.staged.front().map_or(self.last, |kept| kept.after)
    }

    /// Bytes of all that is here, about.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// All up to that number is where it is to be, and goes. What may be purged from the log then:
    /// up to which index, and the mark to purge it with.
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

    /// What to append to the log so that the oldest of it lies at its end: so many bytes at most,
    /// but for the first. Nothing while writes are on their way there anyhow. Once it is durable,
    /// [`purgeable`](Self::purgeable) says what may go.
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

    /// The log did not take what was to be moved.
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

    /// Up to which index nothing in the log is needed, and the mark to purge it with.
    pub(crate) fn purgeable(&self) -> (u64, Bytes) {
        let kept = self.by_index.first_key_value().map(|(index, _)| *index);
        let first = kept.or(self.staged.front().map(|kept| kept.index)).unwrap_or(self.next_index);
        // What is not durable yet is not to be counted on.
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
    // Key and value lie at the end of the command, in this order, with the value's length between.
    let value_bytes = value.map_or(0, Bytes::len);
    let value = value.map(|_| command.slice(command.len() - value_bytes..));
    DurableWrite { number, after, stamp, key: Bytes::copy_from_slice(key), value, command, index }
}

#[cfg(test)]
mod tests;
