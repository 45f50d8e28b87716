//! Everything that is known of the changes of shards.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use crate::finding::{Finding, Kind};
use crate::history::{Action, History, Outcome, WatchEvent};

/// Findings about sources that contradict each other.
const FINDINGS_MAX: usize = 16;

/// The effect of a change on its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen<'a> {
    Value(&'a str),
    Deleted,
}

impl<'a> Seen<'a> {
    pub(super) fn of(value: Option<&'a str>) -> Self {
        value.map_or(Self::Deleted, Self::Value)
    }
}

impl fmt::Display for Seen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => write!(f, "{value:?}"),
            Self::Deleted => write!(f, "deleted"),
        }
    }
}

/// The source of what is known.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    Client(u64),
    Watcher(u64),
    Transaction,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(client) => write!(f, "client {client}"),
            Self::Watcher(watcher) => write!(f, "watcher {watcher}"),
            Self::Transaction => write!(f, "a transaction"),
        }
    }
}

/// A revision, as far as it is known.
#[derive(Debug)]
pub(super) struct Known<'a> {
    pub(super) keys: BTreeMap<&'a str, Seen<'a>>,
    /// Whether these are all changes of the revision.
    pub(super) is_whole: bool,
    /// Who knew it first.
    pub(super) by: Source,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Changes<'a> {
    revisions: BTreeMap<(u32, u64), Known<'a>>,
    keys: HashMap<(u32, &'a str), BTreeMap<u64, Seen<'a>>>,
    floors: HashMap<u32, u64>,
    /// After and through which revision of a shard a watch of all keys has shown everything.
    covered: Vec<(u32, u64, u64)>,
}

impl<'a> Changes<'a> {
    /// Collects what is known, and returns the contradictions among it.
    pub(super) fn of(history: &'a History) -> (Self, Vec<Finding>) {
        let (mut changes, mut findings) = (Self::default(), Vec::new());
        for operation in &history.operations {
            let (shard, key) = (operation.shard, operation.key.as_ref());
            let (revision, seen, is_whole) = match (&operation.action, &operation.outcome) {
                (Action::Put { value, .. }, Outcome::Written { revision, .. }) => {
                    (revision, Seen::Value(value), true)
                }
                (Action::Delete(_), Outcome::Written { revision, .. }) => {
                    (revision, Seen::Deleted, true)
                }
                (Action::Get(_), Outcome::Value { value, revision }) => {
                    (revision, Seen::Value(value), false)
                }
                _ => continue,
            };
            if let Some(revision) = revision {
                let source = Source::Client(operation.client);
                changes.add(shard, *revision, &[(key, seen)], is_whole, source, &mut findings);
            }
        }
        for known in &history.changes {
            let keys: Vec<(&str, Seen<'_>)> = known
                .keys
                .iter()
                .map(|(key, value)| (&**key, Seen::of(value.as_deref())))
                .collect();
            let source = Source::Transaction;
            changes.add(known.shard, known.revision, &keys, true, source, &mut findings);
        }
        for note in &history.watches {
            if let WatchEvent::Change { revision, key, value, .. } = &note.event {
                let keys = [(&**key, Seen::of(value.as_deref()))];
                let source = Source::Watcher(note.watcher);
                // Contradictions are found when the watch is checked.
                changes.add(note.shard, *revision, &keys, false, source, &mut Vec::new());
            }
        }
        changes.cover(history);
        for compaction in &history.compactions {
            let floor = changes.floors.entry(compaction.shard).or_default();
            *floor = compaction.revision.max(*floor);
        }
        findings.truncate(FINDINGS_MAX);
        (changes, findings)
    }

    fn cover(&mut self, history: &History) {
        let mut open: HashMap<(u64, u32), (u64, u64)> = HashMap::new();
        for note in &history.watches {
            let stream = (note.watcher, note.shard);
            match &note.event {
                WatchEvent::Opened { after, keys, .. } => {
                    let before = match keys {
                        None => open.insert(stream, (*after, *after)),
                        Some(_) => open.remove(&stream),
                    };
                    self.covered.extend(before.map(|(after, at)| (note.shard, after, at)));
                }
                WatchEvent::Progress(at) | WatchEvent::Token(at) => {
                    if let Some((_, through)) = open.get_mut(&stream) {
                        *through = (*through).max(*at);
                    }
                }
                WatchEvent::Change { .. } | WatchEvent::Compacted(_) => {}
            }
        }
        self.covered.extend(open.into_iter().map(|((_, shard), (after, at))| (shard, after, at)));
    }

    fn add(
        &mut self,
        shard: u32,
        revision: u64,
        keys: &[(&'a str, Seen<'a>)],
        is_whole: bool,
        by: Source,
        findings: &mut Vec<Finding>,
    ) {
        let new = || Known { keys: BTreeMap::new(), is_whole: false, by };
        let known = self.revisions.entry((shard, revision)).or_insert_with(new);
        let mut find = |what: String| {
            let text = format!("shard {shard}, revision {revision}: {what}");
            findings.push(Finding::of_lines(Kind::Contradiction, text, Vec::new()));
        };
        for (key, seen) in keys {
            match known.keys.get(key) {
                Some(other) if other == seen => {}
                Some(other) => {
                    find(format!("{key:?} is {seen} to {by}, and {other} to {}", known.by));
                }
                None if known.is_whole => {
                    find(format!("{by} knows of {key:?}, and {} of all without it", known.by));
                }
                None => {
                    known.keys.insert(key, *seen);
                    self.keys.entry((shard, key)).or_default().insert(revision, *seen);
                }
            }
        }
        if is_whole {
            if known.keys.len() > keys.len() {
                find(format!("{by} knows of all, and {} of other keys", known.by));
            }
            known.is_whole = true;
        }
    }

    /// Returns what contradicts that a key got this value at a revision.
    pub(super) fn contradiction(
        &self,
        shard: u32,
        revision: u64,
        key: &str,
        value: Option<&str>,
    ) -> Option<String> {
        let known = self.revisions.get(&(shard, revision))?;
        match known.keys.get(key) {
            Some(other) if *other == Seen::of(value) => None,
            Some(other) => {
                Some(format!("{key:?} is {} there, and {other} to {}", Seen::of(value), known.by))
            }
            None if known.is_whole => {
                let keys: Vec<_> = known.keys.keys().collect();
                Some(format!("{} knows that only {keys:?} changed there", known.by))
            }
            None => None,
        }
    }

    /// Returns the last known change of a key before a revision.
    pub(super) fn before(&self, shard: u32, key: &str, revision: u64) -> Option<(u64, Seen<'a>)> {
        let changes = self.keys.get(&(shard, key))?;
        changes.range(..revision).next_back().map(|(at, seen)| (*at, *seen))
    }

    /// Returns the known changes of a key from one revision through another.
    pub(super) fn of_key<'s>(
        &'s self,
        shard: u32,
        key: &'s str,
        from: u64,
        through: u64,
    ) -> impl Iterator<Item = (u64, Seen<'s>)> {
        let changes = self.keys.get(&(shard, key)).filter(|_| from <= through);
        let found = changes.map(|changes| changes.range(from..=through));
        found.into_iter().flatten().map(|(at, seen)| (*at, *seen))
    }

    /// Returns what is known after one revision and through another.
    pub(super) fn between(
        &self,
        shard: u32,
        after: u64,
        through: u64,
    ) -> impl Iterator<Item = (u64, &Known<'a>)> {
        let range = (shard, after.saturating_add(1))..=(shard, through.max(after));
        let is_some = through > after;
        let all = is_some.then(|| self.revisions.range(range)).into_iter().flatten();
        all.map(|((_, revision), known)| (*revision, known))
    }

    /// Returns whether all changes after one revision and through another are known.
    pub(super) fn are_all_known(&self, shard: u32, after: u64, through: u64) -> bool {
        let covers =
            |(of, from, to): &(u32, u64, u64)| *of == shard && *from <= after && through <= *to;
        let whole = self.between(shard, after, through).filter(|(_, known)| known.is_whole);
        self.covered.iter().any(covers) || whole.count() as u64 == through.saturating_sub(after)
    }

    /// Returns the highest floor that was asked for; `None` if nobody asked for any.
    pub(super) fn floor_asked(&self, shard: u32) -> Option<u64> {
        self.floors.get(&shard).copied()
    }
}
