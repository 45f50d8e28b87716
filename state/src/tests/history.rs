//! The history compared with a naive model that never forgets: at every revision from the floor on
//! both read the same, whatever was compacted, evicted, stored and loaded in between.

use std::collections::BTreeMap;

use bytes::Bytes;
use dkv_base::id::{GroupId, Revision, Stamp};
use dkv_wire::codec;
use dkv_wire::message::{Command, Condition, Cut, KeyRange, Operation, Span};
use proptest::prelude::*;

use super::super::rows::Row;
use super::super::{
    Changed, Engine, EngineOptions, FoundVersion, GroupState, GroupStore, ListingAt, MemoryStore,
    NotKept, ShardState, Sought, VersionValue,
};
use super::{batch_at, list_at, open, session, write};

/// No value stays in memory that a checkpoint has.
const OPTIONS: EngineOptions = EngineOptions { reserve_bytes: 0, value_bytes: 0 };
const SHARD: GroupId = GroupId(1);
const KEYS: [&[u8]; 4] = [b"a", b"aa", b"b", b"ab"];

#[derive(Clone, Debug)]
enum Step {
    Put {
        key: usize,
        value: u8,
    },
    Delete {
        key: usize,
    },
    /// Raises the floor to this part of the way to the latest revision, in percent.
    Compact {
        percent: u64,
    },
    Checkpoint,
    /// Takes changes, and puts them back as after a failed write.
    FailedCheckpoint,
    Evict,
    /// Loads the state from the last checkpoint and applies what came after.
    Reload,
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0..KEYS.len();
    prop_oneof![
        8 => (key(), any::<u8>()).prop_map(|(key, value)| Step::Put { key, value }),
        3 => key().prop_map(|key| Step::Delete { key }),
        2 => (0..=100_u64).prop_map(|percent| Step::Compact { percent }),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::FailedCheckpoint),
        2 => Just(Step::Evict),
        1 => Just(Step::Reload),
    ]
}

/// A change: its revision, its key, and the value, unless it deleted the key.
type Write = (u64, usize, Option<u8>);

/// A change as a watch sees it: its revision, its key, the value, and the version before it.
type Seen = (u64, Vec<u8>, Option<u8>, Option<(u64, Option<u8>)>);

struct Pair {
    store: GroupStore,
    _engine: Engine,
    state: GroupState,
    /// The same entries, and nothing else.
    plain: GroupState,
    since_checkpoint: Vec<Bytes>,
    entries: u64,
    writes: Vec<Write>,
    floor: u64,
}

impl Pair {
    fn new() -> Self {
        let engine = Engine::in_memory(&MemoryStore::default(), OPTIONS).expect("an engine");
        let store = engine.group(SHARD).expect("a store");
        let state = GroupState::load(&store).expect("empty").0;
        let plain = GroupState::new(SHARD);
        let (since_checkpoint, writes) = Default::default();
        Self {
            store,
            _engine: engine,
            state,
            plain,
            since_checkpoint,
            entries: 0,
            writes,
            floor: 0,
        }
    }

    fn apply(&mut self, command: Vec<u8>) {
        self.entries += 1;
        let entry =
            batch_at(self.entries, Stamp(self.entries << 20), &[open(session('s')), command]);
        self.state.apply(&entry).expect("a batch");
        self.plain.apply(&entry).expect("a batch");
        self.since_checkpoint.push(entry);
    }

    fn write(&mut self, key: usize, value: Option<u8>) {
        let value_bytes = value.map(|value| [value; 3]);
        let operation = value_bytes.as_ref().map_or(Operation::Delete, |v| Operation::Put(v));
        let serial = self.entries + 1;
        let command = write(session('s'), serial, serial, Condition::Always, KEYS[key], operation);
        let exists = self.value_at(key, u64::MAX).is_some();
        self.apply(command);
        if value.is_some() || exists {
            self.writes.push((self.writes.len() as u64 + 1, key, value));
        }
    }

    fn checkpoint(&mut self) {
        let changes = self.state.take_changes(Bytes::new());
        let generation = changes.generation();
        let revision = changes.meta().revision;
        self.store.checkpoint(&changes).expect("written");
        self.shard_mut().checkpointed(generation, revision);
        self.since_checkpoint.clear();
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Put { key, value } => self.write(*key, Some(*value)),
            Step::Delete { key } => self.write(*key, None),
            Step::Compact { percent } => {
                let floor = self.latest() * percent / 100;
                self.apply(codec::encode_vec(&Command::Compact { floor: Revision(floor) }));
                self.floor = self.floor.max(floor);
            }
            Step::Checkpoint => self.checkpoint(),
            Step::FailedCheckpoint => {
                let changes = self.state.take_changes(Bytes::new());
                self.state.restore_changes(changes);
            }
            Step::Evict => {
                self.shard_mut().evict(3);
            }
            Step::Reload => {
                let (mut state, _) = GroupState::load(&self.store).expect("whole");
                if let Some(shard) = state.as_shard_mut() {
                    let revision = shard.revision();
                    let generation = shard.take_changes(Bytes::new()).generation();
                    shard.checkpointed(generation, revision);
                }
                for entry in &self.since_checkpoint {
                    state.apply(entry).expect("a batch");
                }
                self.state = state;
            }
        }
    }

    fn shard(&self) -> &ShardState {
        self.state.as_shard().expect("a shard")
    }

    fn shard_mut(&mut self) -> &mut ShardState {
        self.state.as_shard_mut().expect("a shard")
    }

    fn latest(&self) -> u64 {
        self.writes.len() as u64
    }

    fn write_at(&self, key: usize, at: u64) -> Option<Write> {
        let mut writes = self.writes.iter().filter(|write| write.0 <= at && write.1 == key);
        writes.next_back().copied()
    }

    fn value_at(&self, key: usize, at: u64) -> Option<(u64, u8)> {
        let (revision, _, value) = self.write_at(key, at)?;
        Some((revision, value?))
    }

    /// Returns the revision and the value of a version; reads the checkpoint if need be.
    fn resolved(&self, found: &FoundVersion) -> (u64, Option<u8>) {
        let read = |row: &Row| row.value[0];
        let value = match &found.value {
            VersionValue::Deleted | VersionValue::Omitted => None,
            VersionValue::Here(value) => Some(value[0]),
            VersionValue::Stored { .. } => {
                let revision = found.origin.revision;
                let row = self.store.get_past(&found.key, revision).expect("readable");
                let row = row.expect("what is stored is in the checkpoint");
                assert!(found.is(&row));
                Some(read(&row))
            }
        };
        (found.origin.revision.0, value)
    }

    fn check(&self) {
        let (shard, latest) = (self.shard(), self.latest());
        assert_eq!(self.state.hash(), self.plain.hash());
        assert_eq!((shard.revision().0, shard.floor().0), (latest, self.floor));
        for at in self.floor..=latest {
            let revision = Revision(at);
            for (key, name) in KEYS.iter().enumerate() {
                let found = shard.get_at(name, revision).expect("kept");
                let found = found.map(|found| self.resolved(&found));
                let expected = self.value_at(key, at).map(|(at, value)| (at, Some(value)));
                assert_eq!(found, expected, "{name:?} at {at}");
            }
            self.check_list(revision);
            self.check_changes(at, &KeyRange::Prefix(Bytes::new()));
            self.check_changes(at, &KeyRange::Prefix(Bytes::from("a")));
            self.check_changes(at, &KeyRange::Key(Bytes::from("aa")));
            self.check_changed_keys(revision);
        }
        for after in 0..=latest {
            self.check_changes_of(after, &KeyRange::Prefix(Bytes::from("a")));
            self.check_changes_of(after, &KeyRange::Key(Bytes::from("aa")));
        }
        for (key, name) in KEYS.iter().enumerate() {
            self.check_versions(key, name);
        }
        let not_yet = NotKept::NotYet { latest: Revision(latest) };
        assert_eq!(shard.get_at(b"a", Revision(latest + 1)), Err(not_yet));
        if self.floor > 0 {
            let compacted = NotKept::Compacted { floor: Revision(self.floor) };
            let below = Revision(self.floor - 1);
            assert_eq!(shard.get_at(b"a", below), Err(compacted));
            let all = KeyRange::Prefix(Bytes::new());
            // The changes at the floor are still there.
            assert!(shard.changes(&all, below, false, 1).is_ok());
            if let Some(earlier) = below.0.checked_sub(1) {
                assert_eq!(shard.changes(&all, Revision(earlier), false, 1), Err(compacted));
            }
        }
    }

    fn check_changed_keys(&self, after: Revision) {
        let (mut through, mut found) = (after, Vec::new());
        loop {
            let changed = self.shard().changed_keys(through, 2).expect("not removed");
            assert!(changed.more == (changed.through < self.shard().revision()));
            found.extend(changed.keys.iter().map(|(revision, key)| (revision.0, key.to_vec())));
            through = changed.through;
            if !changed.more {
                break;
            }
        }
        let writes = self.writes.iter().filter(|write| write.0 > after.0);
        let expected: Vec<_> = writes.map(|write| (write.0, KEYS[write.1].to_vec())).collect();
        assert_eq!(found, expected, "after {after}");
    }

    fn check_list(&self, at: Revision) {
        let (mut span, mut listed) = (span(1), Vec::new());
        loop {
            let page = list_at(self.shard(), &span, at).expect("kept");
            listed.extend(page.keys.iter().map(|key| (key.key.to_vec(), key.revision.0)));
            let Some(last) = page.keys.last().filter(|_| page.more) else { break };
            span.after = Bytes::copy_from_slice(&last.key);
        }
        let expected: BTreeMap<Vec<u8>, u64> = KEYS
            .iter()
            .enumerate()
            .filter_map(|(key, name)| Some((name.to_vec(), self.value_at(key, at.0)?.0)))
            .collect();
        assert_eq!(listed, expected.into_iter().collect::<Vec<_>>(), "at {at}");
    }

    fn check_changes(&self, after: u64, keys: &KeyRange) {
        let (seen, through) = self.seen(keys, after, None).expect("kept");
        assert_eq!(through, self.latest());
        assert_eq!(seen, self.expected(keys, after), "after {after}");
    }

    /// Checks that what is known to come at some revisions is all there as long as these are kept,
    /// however far before them the floor was passed.
    fn check_changes_of(&self, after: u64, keys: &KeyRange) {
        let expected = self.expected(keys, after);
        let revisions: Vec<_> = expected.iter().map(|seen| Revision(seen.0)).collect();
        let Some(first) = revisions.first() else { return };
        let found = self.seen(keys, after, Some(revisions.clone()));
        if first.0 < self.floor {
            assert_eq!(found, Err(NotKept::Compacted { floor: Revision(self.floor) }));
        } else {
            let through = revisions.last().map_or(after, |last| last.0);
            assert_eq!(found, Ok((expected, through)), "after {after}, floor {}", self.floor);
        }
    }

    /// Reads the changes after a revision as a watch does, in the shortest pages: all, or those at
    /// some revisions. Returns them and the revision up to which they are all.
    fn seen(
        &self,
        keys: &KeyRange,
        after: u64,
        mut at: Option<Vec<Revision>>,
    ) -> Result<(Vec<Seen>, u64), NotKept> {
        let (mut position, mut seen) = (Revision(after), Vec::new());
        loop {
            let page = match &at {
                Some(at) => self.shard().changes_of(keys, position, at, true, 1)?,
                None => self.shard().changes(keys, position, true, 1)?,
            };
            let Changed { changes, through, more } = page;
            for change in &changes {
                let at = change.version.origin.revision;
                assert!(at > position && at <= through);
                let previous = change.previous.as_ref().map(|found| self.resolved(found));
                let (revision, value) = self.resolved(&change.version);
                seen.push((revision, change.version.key.to_vec(), value, previous));
            }
            position = through;
            if let Some(at) = &mut at {
                at.retain(|revision| *revision > through);
            }
            if !more {
                return Ok((seen, position.0));
            }
        }
    }

    fn expected(&self, keys: &KeyRange, after: u64) -> Vec<Seen> {
        let writes = self
            .writes
            .iter()
            .filter(|(revision, key, _)| *revision > after && keys.contains(KEYS[*key]));
        writes
            .map(|(revision, key, value)| {
                let previous = self.value_at(*key, revision - 1);
                let previous = previous.map(|(at, value)| (at, Some(value)));
                (*revision, KEYS[*key].to_vec(), *value, previous)
            })
            .collect()
    }

    fn check_versions(&self, key: usize, name: &[u8]) {
        let mut expected: Vec<(u64, Option<u8>)> = self
            .writes
            .iter()
            .filter(|write| write.1 == key && write.0 > self.floor)
            .map(|(revision, _, value)| (*revision, *value))
            .collect();
        if let Some((revision, value)) = self.value_at(key, self.floor) {
            expected.insert(0, (revision, Some(value)));
        }
        expected.reverse();
        let (mut seen, mut before) = (Vec::new(), Revision(0));
        loop {
            let (found, more) = self.shard().versions(name, before, 2);
            seen.extend(found.iter().map(|found| self.resolved(found)));
            let Some(last) = found.last().filter(|_| more) else { break };
            before = last.origin.revision;
        }
        assert_eq!(seen, expected, "{name:?} from {}", self.floor);
    }
}

fn span(keys_max: u32) -> Span {
    let (prefix, after) = Default::default();
    Span { prefix, after, keys_max, bytes_max: u32::MAX, values: true }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_past_reads_as_it_was(steps in prop::collection::vec(step(), 1..60)) {
        let mut pair = Pair::new();
        for step in &steps {
            pair.take(step);
            pair.check();
        }
    }
}

#[test]
fn a_version_counts_from_the_creation_of_its_key() {
    let mut pair = Pair::new();
    for value in [Some(1), Some(2), None, Some(3), Some(4)] {
        pair.write(0, value);
    }
    let (versions, more) = pair.shard().versions(b"a", Revision(0), 10);
    let counted: Vec<_> = versions
        .iter()
        .map(|found| (found.origin.revision.0, found.origin.created.0, found.origin.version))
        .collect();
    assert_eq!(counted, [(5, 4, 2), (4, 4, 1), (3, 3, 0), (2, 1, 2), (1, 1, 1)]);
    assert!(!more);
}

#[test]
fn compaction_is_spread_over_later_batches() {
    let mut pair = Pair::new();
    for value in 0..100_u32 {
        for _ in 0..100 {
            pair.write(value as usize % KEYS.len(), Some(value as u8));
        }
    }
    let (bytes, versions) = pair.shard().history_size();
    assert_eq!(versions, 10_000 - KEYS.len());
    pair.write(0, None);
    assert!(bytes / 10_000 < 48 + 88 + 4, "{bytes}");
    pair.take(&Step::Compact { percent: 100 });
    assert!(pair.shard().is_sweeping());
    let mut entries = 0;
    while pair.shard().is_sweeping() {
        pair.take(&Step::Compact { percent: 0 });
        entries += 1;
    }
    assert!(entries >= 3, "{entries}");
    // The value that was deleted at the floor, and the deletion.
    assert_eq!(pair.shard().history_size().1, 2);
    assert_eq!(pair.state.hash(), pair.plain.hash());
}

#[test]
fn what_is_to_go_is_found_by_size_and_by_age() {
    let mut pair = Pair::new();
    for value in 0..50 {
        pair.write(0, Some(value));
    }
    let shard = pair.shard();
    assert_eq!(shard.compactable(0, Stamp(0)), None);
    // A change, and the version before it.
    assert_eq!(shard.compactable(48 + 1, Stamp(0)), Some(Revision(3)));
    assert_eq!(shard.compactable(0, Stamp(10 << 20)), Some(Revision(10)));
    assert_eq!(shard.compactable(u64::MAX, Stamp(0)), Some(Revision(50)));
}

/// No call looks at more than a few thousand keys or versions, however long the history is.
#[test]
fn a_read_of_the_past_goes_step_by_step() {
    let mut pair = Pair::new();
    for value in 0..10_000_u32 {
        pair.write(0, Some(value as u8));
    }
    let shard = pair.shard();
    let (mut steps, mut from) = (0, None);
    let found = loop {
        steps += 1;
        match shard.seek_at(KEYS[0], Revision(1).into(), from).expect("kept") {
            Sought::Found(found) => break found,
            Sought::Before(revision) => from = Some(revision),
        }
    };
    assert_eq!((found.map(|found| found.origin.revision), steps), (Some(Revision(1)), 3));
    assert_eq!(shard.get_at(KEYS[0], Revision(1)).unwrap().unwrap().origin.revision, Revision(1));

    let (first, mut steps) = (Cut::at(Revision(1)), 1);
    let mut listing = ListingAt::new(&span(10));
    while !shard.list_more_at(&span(10), first, &mut listing).expect("kept") {
        steps += 1;
    }
    assert_eq!((listing.listed.keys.len(), steps), (1, 3));

    let mut shard = ShardState::new();
    shard.apply(&batch_at(1, Stamp(1), &[open(session('s'))])).expect("a batch");
    for number in 1..=10_000_u64 {
        let key = format!("{:05}", 10_000 - number);
        let (always, put) = (Condition::Always, Operation::Put(b"v"));
        let command = write(session('s'), number, number, always, key.as_bytes(), put);
        shard.apply(&batch_at(1, Stamp(1), &[command])).expect("a batch");
    }
    // Only the last key in order is that old.
    let mut steps = 1;
    let mut listing = ListingAt::new(&span(10));
    while !shard.list_more_at(&span(10), first, &mut listing).expect("kept") {
        steps += 1;
    }
    assert_eq!((listing.listed.keys.len(), steps), (1, 3));
    assert_eq!(listing.listed, list_at(&shard, &span(10), first).expect("kept"));
}
