//! Checks the revisions of a history in one pass over it, in order of time.
//!
//! - No revision of a shard belongs to two writes.
//! - A read at a revision returns what the write of that revision stored.
//! - A write that began after another one of the same shard was answered has a later revision.
//! - A strong read that began after a write or read of its key was answered shows nothing older. If
//!   the same client made both, it went back in time. A session read shows nothing older than any
//!   answer to its own client, at whatever level.
//! - A key that was written exists until something deletes it.
//!
//! A read that shows too little is *stale*. If it is the last read of its key, the write that it
//! does not show counts as *lost*.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::finding::{Finding, Kind};
use crate::history::{Action, History, Level, Operation, Outcome};
use crate::options::Options;

/// Finds the contradictions between the revisions of a history.
pub fn check(history: &History, options: Options) -> Vec<Finding> {
    let mut pass = Pass { operations: &history.operations, ..Pass::default() };
    pass.note_written();
    pass.check_reads(options);
    pass.sweep();
    pass.findings
}

#[derive(Default)]
struct Pass<'a> {
    operations: &'a [Operation],
    /// The first operation that reported each revision, by shard and revision.
    written: HashMap<(u32, u64), usize>,
    /// Values that may have been stored without an acknowledgement, with the earliest start.
    open: HashMap<(&'a str, &'a str), u64>,
    deletes: HashMap<&'a str, Deletes>,
    findings: Vec<Finding>,
}

/// Deletes of one key.
#[derive(Default)]
struct Deletes {
    revisions: Vec<u64>,
    /// Start of the first delete with an unknown outcome or revision.
    open_from_ns: Option<u64>,
}

/// The knowledge of a key at one moment.
#[derive(Clone, Copy, Default)]
struct Known {
    /// The latest revision, and the operation that reported it.
    latest: Latest,
    /// The same without deletes.
    put: Latest,
}

impl<'a> Pass<'a> {
    fn note_written(&mut self) {
        for (place, operation) in self.operations.iter().enumerate() {
            let is_delete = matches!(operation.action, Action::Delete(_));
            let told = told_revision(operation);
            if let Some(revision) = told {
                match self.written.entry((operation.shard, revision)) {
                    Entry::Vacant(entry) => _ = entry.insert(place),
                    Entry::Occupied(entry) => {
                        let text = format!("revision {revision} was given to two writes");
                        let places = [*entry.get(), place];
                        self.find(Kind::Reused, &text, &places);
                    }
                }
            }
            let counts = operation.is_open()
                || (matches!(operation.outcome, Outcome::Written { .. }) && told.is_none());
            match &operation.action {
                Action::Put { value, .. } if counts => {
                    let from = self.open.entry((&operation.key, value)).or_insert(u64::MAX);
                    *from = operation.start_ns.min(*from);
                }
                Action::Delete(_) if counts => {
                    let deletes = self.deletes.entry(&operation.key).or_default();
                    let from = deletes.open_from_ns.get_or_insert(u64::MAX);
                    *from = operation.start_ns.min(*from);
                }
                _ => {}
            }
            if let (true, Some(revision)) = (is_delete, told) {
                self.deletes.entry(&operation.key).or_default().revisions.push(revision);
            }
        }
        self.deletes.values_mut().for_each(|deletes| deletes.revisions.sort_unstable());
    }

    /// Compares what was read with what was written.
    fn check_reads(&mut self, options: Options) {
        for (place, operation) in self.operations.iter().enumerate() {
            let Outcome::Value { value, revision } = &operation.outcome else { continue };
            let open = self.open.get(&(operation.key.as_ref(), value.as_ref()));
            let is_open = open.is_some_and(|from_ns| *from_ns <= operation.end_ns);
            let told = revision.map(|revision| (operation.shard, revision));
            let (kind, text, other) = match told.and_then(|told| self.written.get(&told)) {
                Some(other) if stores(&self.operations[*other], &operation.key, value) => continue,
                Some(other) => {
                    (Kind::Mismatch, "a revision does not hold what was written", Some(*other))
                }
                None if is_open || options.any_start => {
                    // From here on the revision stands for this value.
                    told.map(|told| self.written.insert(told, place));
                    continue;
                }
                None => (Kind::NeverWritten, "a value was read that nobody wrote there", None),
            };
            let places: Vec<usize> = other.into_iter().chain([place]).collect();
            self.find(kind, text, &places);
        }
    }

    /// Goes through all starts and ends in order of time.
    fn sweep(&mut self) {
        let mut events = Vec::new();
        for (place, operation) in self.operations.iter().enumerate() {
            if operation.counts() && !operation.is_open() {
                // Starts first: an operation that starts at the moment of an answer need not know
                // it.
                events.push((operation.start_ns, false, place));
                events.push((operation.end_ns, true, place));
            }
        }
        events.sort_unstable();
        let mut sweep = Sweep::default();
        for (_, answered, place) in events {
            let operation = &self.operations[place];
            if answered {
                let before = sweep.begun.remove(&place).unwrap_or_default();
                self.check_write(operation, place, &before);
                self.check_read(operation, place, &before, &mut sweep);
                sweep.learn(operation, place);
            } else {
                sweep.begin(operation, place);
            }
        }
        for Behind { read, newer, is_own } in std::mem::take(&mut sweep.behind) {
            let is_last = sweep.last_read.get(&*self.operations[read].key) == Some(&read);
            let is_write = !matches!(self.operations[newer].action, Action::Get(_));
            let (kind, text) = match (is_last && is_write, is_own) {
                (true, _) => (Kind::Lost, "an acknowledged write is not there any more"),
                (false, true) => (Kind::WentBack, "a client read what is older than it knew"),
                (false, false) => (Kind::Stale, "a read is older than what was known before it"),
            };
            self.find(kind, text, &[newer, read]);
        }
    }

    /// Checks that a write has a later revision than all that was answered before it began.
    fn check_write(&mut self, operation: &Operation, place: usize, before: &Before) {
        let (latest, who) = before.shard;
        if told_revision(operation).is_some_and(|revision| revision <= latest) {
            let text = "a write has an earlier revision than one that was answered before it began";
            let places: Vec<usize> = who.into_iter().chain([place]).collect();
            self.find(Kind::OutOfOrder, text, &places);
        }
    }

    /// Checks that a read shows what was known before it began.
    fn check_read(
        &self,
        operation: &'a Operation,
        place: usize,
        before: &Before,
        sweep: &mut Sweep<'a>,
    ) {
        let known = match operation.action {
            Action::Get(Level::Strong) => {
                sweep.last_read.insert(&operation.key, place);
                before.key
            }
            Action::Get(Level::Session) => before.own,
            _ => return,
        };
        let (latest, put, own) = (known.latest, known.put, before.own.latest);
        let (newer, is_own) = match operation.outcome {
            Outcome::Value { revision: Some(revision), .. } if revision < latest.0 => {
                let is_own = revision < own.0;
                (if is_own { own.1 } else { latest.1 }, is_own)
            }
            Outcome::Absent { revision } => {
                let is_gone = put.1.is_some() && !self.may_be_deleted(operation, put.0);
                if !is_gone && revision.is_none_or(|revision| revision >= latest.0) {
                    return;
                }
                let is_own = own.1.is_some() && own.0 >= put.0;
                (if is_gone { put.1 } else { latest.1 }, is_own)
            }
            _ => return,
        };
        sweep.behind.push(Behind { read: place, newer: newer.unwrap_or(place), is_own });
    }

    fn find(&mut self, kind: Kind, text: &str, places: &[usize]) {
        self.findings.push(Finding::new(kind, text.to_owned(), self.operations, places));
    }

    /// Whether a value of that revision may have been deleted before the read was answered.
    fn may_be_deleted(&self, read: &Operation, put: u64) -> bool {
        let Some(deletes) = self.deletes.get(read.key.as_ref()) else { return false };
        if deletes.open_from_ns.is_some_and(|from_ns| from_ns <= read.end_ns) {
            return true;
        }
        let later = deletes.revisions.partition_point(|revision| *revision <= put);
        let seen = match read.outcome {
            Outcome::Absent { revision: Some(revision) } => revision,
            _ => u64::MAX,
        };
        deletes.revisions.get(later).is_some_and(|revision| *revision <= seen)
    }
}

/// A revision, and the operation that reported it.
type Latest = (u64, Option<usize>);

/// The knowledge at the moment when an operation began.
#[derive(Clone, Copy, Default)]
struct Before {
    key: Known,
    shard: Latest,
    /// What its own client knew of its key.
    own: Known,
}

/// A read that does not show what was known before it began.
struct Behind {
    read: usize,
    /// The operation that reported something newer.
    newer: usize,
    /// Whether its own client knew.
    is_own: bool,
}

/// The knowledge at one moment of the history.
#[derive(Default)]
struct Sweep<'a> {
    keys: HashMap<&'a str, Known>,
    shards: HashMap<u32, Latest>,
    own: HashMap<(u64, &'a str), Known>,
    /// The knowledge at the start of each operation without an answer yet.
    begun: HashMap<usize, Before>,
    last_read: HashMap<&'a str, usize>,
    behind: Vec<Behind>,
}

impl<'a> Sweep<'a> {
    fn begin(&mut self, operation: &'a Operation, place: usize) {
        let key = operation.key.as_ref();
        let before = Before {
            key: self.keys.get(key).copied().unwrap_or_default(),
            shard: self.shards.get(&operation.shard).copied().unwrap_or_default(),
            own: self.own.get(&(operation.client, key)).copied().unwrap_or_default(),
        };
        self.begun.insert(place, before);
    }

    /// Takes in the revision that an answer reports.
    fn learn(&mut self, operation: &'a Operation, place: usize) {
        let (written, read) = match &operation.outcome {
            Outcome::Value { revision, .. } => (None, *revision),
            _ => (told_revision(operation), None),
        };
        let Some(revision) = written.or(read) else { return };
        let key = operation.key.as_ref();
        self.own.entry((operation.client, key)).or_default().learn(operation, revision, place);
        if let Action::Get(Level::Eventual | Level::Session) = operation.action {
            return;
        }
        self.keys.entry(key).or_default().learn(operation, revision, place);
        if written.is_some() {
            raise(self.shards.entry(operation.shard).or_default(), revision, place);
        }
    }
}

impl Known {
    fn learn(&mut self, operation: &Operation, revision: u64, place: usize) {
        raise(&mut self.latest, revision, place);
        if !matches!(operation.action, Action::Delete(_)) {
            raise(&mut self.put, revision, place);
        }
    }
}

fn raise(latest: &mut Latest, revision: u64, place: usize) {
    if latest.1.is_none() || revision > latest.0 {
        *latest = (revision, Some(place));
    }
}

/// The revision that the answer to a write reports.
fn told_revision(operation: &Operation) -> Option<u64> {
    match (&operation.action, &operation.outcome) {
        (Action::Get(_), _) => None,
        (_, Outcome::Written { revision, .. }) => *revision,
        _ => None,
    }
}

/// Whether an operation shows that this value was stored under this key.
fn stores(operation: &Operation, key: &str, expected: &str) -> bool {
    let stored = match (&operation.action, &operation.outcome) {
        (Action::Put { value, .. }, _) | (Action::Get(_), Outcome::Value { value, .. }) => value,
        _ => return false,
    };
    operation.key.as_ref() == key && stored.as_ref() == expected
}

#[cfg(test)]
mod tests;
