//! Checks watches, and reads of the past, against what is known of the changes of each shard.
//!
//! A change is known from the answer to a write, from a strong read, from what is known of a whole
//! revision, and from any watch. A watch keeps the promises of etcd's:
//!
//! - *ordered*: its changes come in the order of revisions;
//! - *unique*: none comes twice;
//! - *reliable*: it shows every change of its keys after its position, and none that is not one.
//!   A watch of all keys shows at least one change at each revision, for each has one;
//! - *atomic*: it shows all changes of its keys at a revision, or has not come that far;
//! - *resumable*: its token is exactly at the end of what it has shown, and what is opened at a
//!   revision shows nothing at or before that;
//! - *bookmarkable*: when it says that it has come to a revision, it has shown all up to it.
//!
//! If asked for, the version before a change is the one that there was. A watch may end because the
//! history is forgotten only below the floor, and the floor is no higher than was asked for.
//!
//! A watch that stops to show anything breaks no promise here, for nobody can say when it should
//! have shown more.

mod table;
mod past;

use std::collections::{BTreeMap, HashSet};

use crate::finding::{Finding, Kind};
use crate::history::{History, PreviousVersion, WatchEvent, WatchedKeys};
use table::{Changes, Seen};

/// Findings that are reported; more say nothing new.
const FINDINGS_MAX: usize = 64;
/// Revisions of which a watch shows nothing that are named.
const NAMED_MAX: usize = 8;

/// Finds what watches, reads at revisions and lists of versions contradict.
pub fn check(history: &History) -> Vec<Finding> {
    let (changes, mut findings) = Changes::of(history);
    let mut streams: BTreeMap<(u64, u32), Vec<&WatchEvent>> = BTreeMap::new();
    for note in &history.watches {
        streams.entry((note.watcher, note.shard)).or_default().push(&note.event);
    }
    for ((watcher, shard), events) in streams {
        let mut stream = Stream::new(watcher, shard, &changes);
        events.into_iter().for_each(|event| stream.handle(event));
        findings.extend(stream.findings);
    }
    past::check(history, &changes, &mut findings);
    findings.truncate(FINDINGS_MAX);
    findings
}

/// A watch of one shard.
struct Stream<'a> {
    watcher: u64,
    shard: u32,
    changes: &'a Changes<'a>,
    is_open: bool,
    keys: Option<&'a WatchedKeys>,
    previous: bool,
    /// It was opened after this revision.
    after: u64,
    /// It has shown all up to this revision, as far as is checked.
    through: u64,
    /// The revision of its last change.
    last: u64,
    seen: HashSet<(u64, &'a str)>,
    findings: Vec<Finding>,
}

impl<'a> Stream<'a> {
    fn new(watcher: u64, shard: u32, changes: &'a Changes<'a>) -> Self {
        Self {
            watcher,
            shard,
            changes,
            is_open: false,
            keys: None,
            previous: false,
            after: 0,
            through: 0,
            last: 0,
            seen: HashSet::new(),
            findings: Vec::new(),
        }
    }

    fn find(&mut self, kind: Kind, what: &str, lines: Vec<String>) {
        let Self { watcher, shard, after, .. } = self;
        let text = format!("watcher {watcher}, shard {shard}, opened after {after}: {what}");
        self.findings.push(Finding::of_lines(kind, text, lines));
    }

    fn handle(&mut self, event: &'a WatchEvent) {
        match event {
            WatchEvent::Opened { after, keys, previous } => {
                (self.is_open, self.after, self.through, self.last) =
                    (true, *after, *after, *after);
                (self.keys, self.previous) = (keys.as_ref(), *previous);
                self.seen.clear();
            }
            _ if !self.is_open => {
                self.is_open = true;
                self.find(Kind::WatchWrong, "it shows something before it is opened", Vec::new());
            }
            WatchEvent::Change { revision, key, value, previous } => {
                self.change(*revision, key, value.as_deref(), previous.as_ref());
            }
            WatchEvent::Progress(through) => {
                if *through < self.last {
                    let what = format!("it is at {through} after a change at {}", self.last);
                    self.find(Kind::WatchReordered, &what, Vec::new());
                }
                self.complete(*through);
            }
            WatchEvent::Token(token) => self.token(*token),
            WatchEvent::Compacted(floor) => self.compacted(*floor),
        }
    }

    fn watches(&self, key: &str) -> bool {
        self.keys.is_none_or(|keys| keys.contains(key))
    }

    fn change(
        &mut self,
        revision: u64,
        key: &'a str,
        value: Option<&'a str>,
        previous: Option<&'a PreviousVersion>,
    ) {
        let what = format!("a change of {key:?} at revision {revision}");
        if !self.watches(key) {
            self.find(Kind::WatchWrong, &format!("{what} is not of its keys"), Vec::new());
        }
        if revision <= self.after {
            return self.find(Kind::WatchEarly, &format!("{what} comes too early"), Vec::new());
        }
        if !self.seen.insert((revision, key)) {
            return self.find(Kind::WatchDoubled, &format!("{what} comes twice"), Vec::new());
        }
        if revision < self.last || revision <= self.through {
            let last = self.last.max(self.through);
            let what = format!("{what} comes after it has come to {last}");
            return self.find(Kind::WatchReordered, &what, Vec::new());
        }
        if revision > self.last {
            self.complete(revision - 1);
            self.last = revision;
        }
        if let Some(problem) = self.changes.contradiction(self.shard, revision, key, value) {
            self.find(Kind::WatchWrong, &what, vec![problem]);
        }
        self.check_previous(revision, key, previous);
    }

    fn check_previous(&mut self, revision: u64, key: &'a str, shown: Option<&'a PreviousVersion>) {
        if !self.previous {
            return;
        }
        let what = format!("a change of {key:?} at revision {revision} comes with ");
        let before = self.changes.before(self.shard, key, revision);
        match (shown, before) {
            (Some(shown), _) if shown.revision >= revision => {
                let what = format!("{what}a version of revision {}", shown.revision);
                self.find(Kind::WatchPrevious, &what, Vec::new());
            }
            (Some(shown), Some((at, _))) if shown.revision < at => {
                let what = format!(
                    "{what}the version of revision {}, and it changed at {at}",
                    shown.revision
                );
                self.find(Kind::WatchPrevious, &what, Vec::new());
            }
            (Some(PreviousVersion { revision: at, value }), _) => {
                if let Some(problem) = self.changes.contradiction(self.shard, *at, key, Some(value))
                {
                    let what = format!("{what}the version {value:?} of revision {at}");
                    self.find(Kind::WatchPrevious, &what, vec![problem]);
                }
            }
            // Between its opening and now the watch has shown every change of the key.
            (None, Some((at, Seen::Value(value)))) if at > self.after => {
                let what = format!("{what}no version, and it was {value:?} since revision {at}");
                self.find(Kind::WatchPrevious, &what, Vec::new());
            }
            (None, _) => {}
        }
    }

    /// Checks that everything up to a revision has been shown.
    fn complete(&mut self, through: u64) {
        let (mut lost, mut split, mut named) = (Vec::new(), Vec::new(), 0);
        let mut next = self.through + 1;
        for (revision, known) in self.changes.between(self.shard, self.through, through) {
            let keys = known.keys.keys().filter(|key| self.watches(key));
            let missing: Vec<&&str> =
                keys.filter(|key| !self.seen.contains(&(revision, **key))).collect();
            let is_part = known.keys.keys().any(|key| self.seen.contains(&(revision, *key)));
            if !missing.is_empty() {
                named += 1;
                if named <= NAMED_MAX {
                    let line = format!("revision {revision}: {missing:?}, known by {}", known.by);
                    if is_part { split.push(line) } else { lost.push(line) }
                }
            }
            if self.keys.is_none() && revision > next {
                lost.extend(nothing_at(next, revision - 1));
            }
            next = revision + 1;
        }
        if self.keys.is_none() && next <= through {
            lost.extend(nothing_at(next, through));
        }
        for (kind, what, lines) in [
            (Kind::WatchLost, "does not show", lost),
            (Kind::WatchSplit, "shows other changes of the revision, but not", split),
        ] {
            if !lines.is_empty() {
                self.find(kind, &format!("it has come to {through}, and {what}"), lines);
            }
        }
        self.through = self.through.max(through);
    }

    fn token(&mut self, token: u64) {
        self.complete(token);
        if token >= self.last {
            return;
        }
        // A revision of which more is to come is not in the token yet.
        let known = self.changes.between(self.shard, token, self.last);
        let shown: Vec<u64> = known
            .filter(|(revision, known)| {
                let all = known.keys.keys().filter(|key| self.watches(key));
                let mut seen = all.map(|key| self.seen.contains(&(*revision, *key)));
                *revision < self.last || known.is_whole && seen.all(|seen| seen)
            })
            .map(|(revision, _)| revision)
            .collect();
        let is_shown = |revision: &u64| self.seen.iter().any(|(seen, _)| seen == revision);
        if let Some(first) = shown.iter().find(|revision| is_shown(revision)) {
            let what = format!("its token is at {token}, and it has shown all of {first}");
            self.find(Kind::WatchToken, &what, Vec::new());
        }
    }

    fn compacted(&mut self, floor: u64) {
        let at = self.last.saturating_sub(1).max(self.through);
        if at >= floor {
            let what = format!("it ends at {at}, and the history begins at {floor}");
            self.find(Kind::Compacted, &what, Vec::new());
        }
        if let Some(asked) = self.changes.floor_asked(self.shard).filter(|asked| *asked < floor) {
            let what =
                format!("the history begins at {floor}, and no compaction went beyond {asked}");
            self.find(Kind::Compacted, &what, Vec::new());
        }
        self.is_open = false;
    }
}

fn nothing_at(from: u64, to: u64) -> Option<String> {
    match to.checked_sub(from)? {
        0 => Some(format!("revision {from}: any change")),
        _ => Some(format!("revisions {from} to {to}: any change")),
    }
}

#[cfg(test)]
mod tests;
