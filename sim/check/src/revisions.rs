//! What revisions alone tell of a history, in one pass over it by time.
//!
//! - No revision of a shard belongs to two writes.
//! - What is read at a revision is what the write of that revision stored.
//! - A write that began after another was answered has a later revision, if both are in a shard.
//! - A strong read that began after a write of its key was answered, or after a read of it, shows
//!   nothing older. If the later read was of the same client, that one went back in time.
//! - A key that was written is there until something deletes it.
//!
//! A read that shows too little is *stale*; if it is the last one of its key, the write that it
//! does not know counts as *lost*.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::history::{Action, History, Level, Operation, Outcome};
use crate::report::{Finding, Kind, Options};

/// Looks for what contradicts the revisions of a history.
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
    /// What each revision of each shard was: the operation that told first.
    written: HashMap<(u32, u64), usize>,
    /// Values that may have been stored without anybody being told.
    open: HashMap<(&'a str, &'a str), u64>,
    deletes: HashMap<&'a str, Deletes>,
    findings: Vec<Finding>,
}

/// Deletes of one key.
#[derive(Default)]
struct Deletes {
    revisions: Vec<u64>,
    /// Beginning of the first whose outcome or revision is not known.
    open_from_ns: Option<u64>,
}

/// What is known of a key at one moment.
#[derive(Clone, Copy, Default)]
struct Known {
    /// The latest revision, and who was told.
    latest: (u64, Option<usize>),
    /// The same of values only.
    put: (u64, Option<usize>),
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
                        let places = vec![*entry.get(), place];
                        self.findings.push(Finding::new(
                            Kind::Reused,
                            text,
                            self.operations,
                            &places,
                        ));
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
                    // From here on this is what the revision is.
                    told.map(|told| self.written.insert(told, place));
                    continue;
                }
                None => (Kind::NeverWritten, "a value was read that nobody wrote there", None),
            };
            let places: Vec<usize> = other.into_iter().chain([place]).collect();
            self.findings.push(Finding::new(kind, text.to_owned(), self.operations, &places));
        }
    }

    /// Goes through all beginnings and answers by time.
    fn sweep(&mut self) {
        let mut events = Vec::new();
        for (place, operation) in self.operations.iter().enumerate() {
            if operation.counts() && !operation.is_open() {
                // Beginnings first: what begins at the moment of an answer may not know of it.
                events.push((operation.start_ns, false, place));
                events.push((operation.end_ns, true, place));
            }
        }
        events.sort_unstable();
        let mut keys: HashMap<&str, Known> = HashMap::new();
        let mut shards: HashMap<u32, (u64, Option<usize>)> = HashMap::new();
        let mut own: HashMap<(u64, &str), (u64, Option<usize>)> = HashMap::new();
        let mut at_start: HashMap<usize, AtStart> = HashMap::new();
        // The last read of a key that shows too little, and whether a later one does not.
        let mut last_read: HashMap<&str, usize> = HashMap::new();
        let mut stale: Vec<(usize, usize, bool)> = Vec::new();
        for (_, answered, place) in events {
            let operation = &self.operations[place];
            let key = operation.key.as_ref();
            if !answered {
                let start = AtStart {
                    key: keys.get(key).copied().unwrap_or_default(),
                    shard: shards.get(&operation.shard).copied().unwrap_or_default(),
                    own: own.get(&(operation.client, key)).copied().unwrap_or_default(),
                };
                at_start.insert(place, start);
                continue;
            }
            let start = at_start.remove(&place).unwrap_or_default();
            if let Some(revision) = told_revision(operation) {
                if revision <= start.shard.0 {
                    let text = "a write has an earlier revision than one that was answered before \
                                it began"
                        .to_owned();
                    let places: Vec<usize> = start.shard.1.into_iter().chain([place]).collect();
                    self.findings.push(Finding::new(
                        Kind::OutOfOrder,
                        text,
                        self.operations,
                        &places,
                    ));
                }
                raise(shards.entry(operation.shard).or_default(), revision, place);
                let known = keys.entry(key).or_default();
                raise(&mut known.latest, revision, place);
                if matches!(operation.action, Action::Put { .. }) {
                    raise(&mut known.put, revision, place);
                }
                raise(own.entry((operation.client, key)).or_default(), revision, place);
            }
            if operation.action != Action::Get(Level::Strong) {
                continue;
            }
            last_read.insert(key, place);
            match &operation.outcome {
                Outcome::Value { revision: Some(revision), .. } => {
                    if *revision < start.key.latest.0 {
                        let is_own = *revision < start.own.0;
                        let newer = if is_own { start.own.1 } else { start.key.latest.1 };
                        stale.push((place, newer.unwrap_or(place), is_own));
                    }
                    let known = keys.entry(key).or_default();
                    raise(&mut known.latest, *revision, place);
                    raise(&mut known.put, *revision, place);
                    raise(own.entry((operation.client, key)).or_default(), *revision, place);
                }
                Outcome::Absent { revision } => {
                    let is_behind = revision.is_some_and(|revision| revision < start.key.latest.0);
                    let put = start.key.put;
                    let is_gone = put.1.is_some() && !self.may_be_deleted(operation, put.0);
                    if is_behind || is_gone {
                        let newer = if is_gone { put.1 } else { start.key.latest.1 };
                        let is_own = start.own.0 >= put.0 && start.own.1.is_some();
                        stale.push((place, newer.unwrap_or(place), is_own));
                    }
                }
                _ => {}
            }
        }
        for (place, newer, is_own) in stale {
            let is_last = last_read.get(self.operations[place].key.as_ref()) == Some(&place);
            let is_write = !matches!(self.operations[newer].action, Action::Get(_));
            let (kind, text) = match (is_last && is_write, is_own) {
                (true, _) => (Kind::Lost, "an acknowledged write is not there any more"),
                (false, true) => (Kind::WentBack, "a client read what is older than it knew"),
                (false, false) => (Kind::Stale, "a read is older than what was known before it"),
            };
            let places = [newer, place];
            self.findings.push(Finding::new(kind, text.to_owned(), self.operations, &places));
        }
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

#[derive(Default)]
struct AtStart {
    key: Known,
    shard: (u64, Option<usize>),
    own: (u64, Option<usize>),
}

fn raise(latest: &mut (u64, Option<usize>), revision: u64, place: usize) {
    if latest.1.is_none() || revision > latest.0 {
        *latest = (revision, Some(place));
    }
}

/// The revision that a write was told to be.
fn told_revision(operation: &Operation) -> Option<u64> {
    match (&operation.action, &operation.outcome) {
        (Action::Get(_), _) => None,
        (_, Outcome::Written { revision, .. }) => *revision,
        _ => None,
    }
}

/// Whether an operation says that this value was stored under this key.
fn stores(operation: &Operation, key: &str, expected: &str) -> bool {
    let stored = match (&operation.action, &operation.outcome) {
        (Action::Put { value, .. }, _) | (Action::Get(_), Outcome::Value { value, .. }) => value,
        _ => return false,
    };
    operation.key.as_ref() == key && stored.as_ref() == expected
}

#[cfg(test)]
mod tests;
