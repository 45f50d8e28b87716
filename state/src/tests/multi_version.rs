//! Nested transactions, ranges, leases and compaction compared with a naive model: one copy of all
//! keys for each revision, and the list of its events.

mod generated;
mod model;

use bytes::Bytes;
use dkv_base::id::{GroupId, LeaseId, Revision, Serial, Stamp};
use dkv_wire::codec;
use dkv_wire::message::{
    Command, Compare, KeyRange, Keys, LeaseAction, LeaseCommand, RangeOptions, RangePart, Transact,
    TransactionOperation,
};
use proptest::prelude::*;

use self::generated::act;
use self::model::{All, Kept, Model, Said, delete, encoded, ranged};
use super::super::{
    Applied, CommandResult, Engine, EngineOptions, FoundRange, FoundResult, FoundVersion,
    GroupState, GroupStore, MemoryStore, NotKept, VersionValue, validate,
};
use super::{batch_at, open, range_at, results, session};

/// No value stays in memory that a checkpoint has.
const OPTIONS: EngineOptions = EngineOptions { reserve_bytes: 0, value_bytes: 0 };
const SHARD: GroupId = GroupId(1);
const KEYS: [&str; 5] = ["a", "ab", "b", "c", "cd"];
const LEASES: [u64; 3] = [1 << 40, 2 << 40, 3 << 40];

/// A transaction that owns its nested ones.
#[derive(Clone, Debug)]
struct Plan {
    compares: Vec<Compare<'static>>,
    then: Vec<Part>,
    otherwise: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Operation(TransactionOperation<'static>),
    Nested(Plan),
}

#[derive(Clone, Debug)]
enum Act {
    Transact(Plan),
    Grant(usize),
    Revoke(usize),
    /// Raises the floor to this part of the way to the latest revision, in percent.
    Compact(u64),
    /// Stores and evicts everything.
    Evict,
    /// Loads the state from a checkpoint.
    Reload,
}

struct Pair {
    store: GroupStore,
    _engine: Engine,
    state: GroupState,
    model: Model,
    serial: u64,
    evicted: bool,
}

impl Pair {
    fn new() -> Self {
        let engine = Engine::in_memory(&MemoryStore::default(), OPTIONS).expect("an engine");
        let store = engine.group(SHARD).expect("a store");
        let state = GroupState::load(&store).expect("empty").0;
        let mut model = Model::default();
        model.states.push(All::new());
        model.events.push(Vec::new());
        Self { store, _engine: engine, state, model, serial: 0, evicted: false }
    }

    fn shard(&self) -> &super::super::ShardState {
        self.state.as_shard().expect("a shard")
    }

    fn apply(&mut self, command: &[u8]) -> CommandResult {
        let entry = batch_at(1, Stamp(1), &[open(session('s')), command.to_vec()]);
        let mut needed = self.shard().needed(&entry).expect("a batch");
        for key in std::mem::take(&mut needed.stored) {
            let row = self.store.get(&key).expect("readable").expect("stored");
            needed.rows.insert(key, row);
        }
        match self.state.apply_with(&entry, &needed).expect("a batch") {
            Applied::Shard(results) => results[1],
            Applied::Control(_) => unreachable!("it is a shard"),
        }
    }

    fn evict(&mut self) {
        let changes = self.state.take_changes(Bytes::new());
        let (generation, revision) = (changes.generation(), changes.meta().revision);
        self.store.checkpoint(&changes).expect("written");
        let shard = self.state.as_shard_mut().expect("a shard");
        shard.checkpointed(generation, revision);
        for _ in 0..6 {
            shard.evict(100);
        }
        self.evicted = true;
    }

    fn kept(&self, found: &FoundVersion) -> Kept {
        let value = match &found.value {
            VersionValue::Deleted => panic!("a deletion is not listed"),
            VersionValue::Omitted => Vec::new(),
            VersionValue::Here(value) => value.to_vec(),
            VersionValue::Stored { .. } => {
                let row = self.store.get_past(&found.key, found.origin.revision);
                row.expect("readable").expect("stored").value.to_vec()
            }
        };
        Kept {
            value,
            lease: found.lease.0,
            created: found.origin.created.0,
            revision: found.origin.revision.0,
            version: found.origin.version,
        }
    }

    fn pairs(&self, found: &[FoundVersion]) -> Vec<(Vec<u8>, Kept)> {
        found.iter().map(|found| (found.key.to_vec(), self.kept(found))).collect()
    }

    fn said(&self, result: &FoundResult) -> Said {
        match result {
            FoundResult::Got(found) => Said::Got(found.as_ref().map(|found| self.kept(found))),
            FoundResult::Put(_) => Said::Put,
            FoundResult::Replaced(found) => {
                Said::Replaced(found.as_ref().map(|found| self.kept(found)))
            }
            FoundResult::Removed { deleted, previous, revision } => {
                Said::Removed(*deleted, self.pairs(previous), revision.0)
            }
            FoundResult::Ranged { range, revision } => {
                let FoundRange { keys, more, count, .. } = range;
                Said::Ranged(self.pairs(keys), *more, *count, revision.0)
            }
            FoundResult::Nested { succeeded, results } => {
                Said::Nested(*succeeded, *results as usize)
            }
            other => panic!("{other:?}"),
        }
    }

    fn transact(&mut self, plan: &Plan) {
        self.serial += 1;
        let body = encoded(plan);
        let (serial, settled, after) = (Serial(self.serial), Serial(1), Stamp(0));
        let command = Transact { session: session('s'), serial, settled, after, body: &body };
        let command = codec::encode_vec(&Command::Transact(command));
        if validate(&command, 1024).is_err() {
            assert_eq!(self.apply(&command), CommandResult::Invalid);
            return;
        }
        let before = self.model.latest();
        let (succeeded, said) = self.model.transact(plan);
        let result = self.apply(&command);
        match (said, result) {
            (Err((operation, why)), result) => {
                assert_eq!(result, CommandResult::Unfit { operation, why });
            }
            (Ok(said), CommandResult::Transacted { revision, succeeded: held, changed, path }) => {
                let latest = self.model.latest();
                assert_eq!((revision.0, held, changed), (latest, succeeded, latest > before));
                let results = results(self.shard(), &body, revision, (held, path), changed);
                let (results, _) = results.expect("kept");
                let results: Vec<Said> = results.iter().map(|result| self.said(result)).collect();
                assert_eq!(results, said);
            }
            (Ok(_), result) => panic!("{result:?}"),
        }
        // Repeated, it has the same outcome and no effect.
        assert_eq!(self.apply(&command), result);
    }

    fn lease(&mut self, lease: u64, action: LeaseAction) -> CommandResult {
        self.serial += 1;
        let (serial, settled) = (Serial(self.serial), Serial(1));
        let (session, lease) = (session('s'), LeaseId(lease));
        let command = LeaseCommand { session, serial, settled, lease, action };
        self.apply(&codec::encode_vec(&Command::Lease(command)))
    }

    fn run(&mut self, act: &Act) {
        match act {
            Act::Transact(plan) => self.transact(plan),
            Act::Grant(which) => {
                let result = self.lease(LEASES[*which], LeaseAction::Grant { ttl_ms: 10_000 });
                let is_new = self.model.leases.insert(LEASES[*which]);
                assert_eq!(matches!(result, CommandResult::Granted { .. }), is_new);
            }
            Act::Revoke(which) => {
                let lease = LEASES[*which];
                let result = self.lease(lease, LeaseAction::Revoke);
                let is_there = self.model.leases.remove(&lease);
                assert_eq!(matches!(result, CommandResult::Revoked { .. }), is_there);
                let mut all = self.model.now().clone();
                let of = |(_, kept): &(&Vec<u8>, &Kept)| kept.lease == lease;
                let gone = all.iter().filter(of).map(|(key, _)| key.clone()).collect();
                let mut events = Vec::new();
                delete(&mut all, &mut events, gone);
                self.model.add(all, events);
            }
            Act::Compact(percent) => {
                let floor = self.model.latest() * percent / 100;
                let result =
                    self.apply(&codec::encode_vec(&Command::Compact { floor: Revision(floor) }));
                let (revision, before) =
                    (Revision(self.model.latest()), Revision(self.model.floor));
                assert_eq!(result, CommandResult::Compacted { revision, before });
                self.model.floor = self.model.floor.max(floor);
            }
            Act::Evict => self.evict(),
            Act::Reload => {
                self.evict();
                let (state, _) = GroupState::load(&self.store).expect("whole");
                assert_eq!(state.hash(), self.state.hash());
                self.state = state;
            }
        }
        self.check();
    }

    /// Compares everything that can be read.
    fn check(&self) {
        let (shard, model) = (self.shard(), &self.model);
        let latest = model.latest();
        assert_eq!((shard.revision().0, shard.floor().0), (latest, model.floor));
        for at in model.floor..=latest {
            let all = &model.states[at as usize];
            for keys in [Keys::Prefix(b""), Keys::Range(b"ab", b"cd"), Keys::Key(b"b")] {
                let options = RangeOptions { keys_max: 2, ..RangeOptions::default() };
                let (mut after, mut found) = (Vec::new(), Vec::new());
                loop {
                    let page = range_at(shard, keys, &after, options, Revision(at), 1 << 20);
                    let page = page.expect("kept");
                    found.extend(self.pairs(&page.keys));
                    if !page.more {
                        break;
                    }
                    after = found.last().expect("a page has a key").0.clone();
                }
                let (expected, _, count) = ranged(all, &keys, &RangeOptions::default());
                assert_eq!(found, expected, "{keys:?} at {at}");
                let options = RangeOptions { part: RangePart::Count, ..RangeOptions::default() };
                let counted = range_at(shard, keys, b"", options, Revision(at), 0).expect("kept");
                let counted = counted.count;
                assert_eq!(counted, count, "{keys:?} at {at}");
            }
        }
        let all = Keys::Prefix(b"");
        let read = |at| range_at(shard, all, b"", RangeOptions::default(), Revision(at), 9);
        let not_yet = NotKept::NotYet { latest: Revision(latest) };
        assert_eq!(read(latest + 1).map(|_| ()), Err(not_yet));
        if model.floor > 0 {
            let compacted = NotKept::Compacted { floor: Revision(model.floor) };
            assert_eq!(read(model.floor - 1).map(|_| ()), Err(compacted));
        }
        // A watch may begin with the floor.
        for from in model.floor.max(1)..=latest + 1 {
            self.check_events(from);
        }
        if model.floor > 1 {
            let keys = KeyRange::Prefix(Bytes::new());
            let result = shard.changes(&keys, Revision(model.floor - 2), true, 1);
            assert_eq!(result, Err(NotKept::Compacted { floor: Revision(model.floor) }));
        }
    }

    /// Compares the events from a revision on.
    fn check_events(&self, from: u64) {
        let (shard, model) = (self.shard(), &self.model);
        let keys = KeyRange::Range("a".into(), "cd".into());
        let mut after = Revision(from - 1);
        let mut seen = Vec::new();
        loop {
            let changed = shard.changes(&keys, after, true, 1).expect("kept");
            for change in &changed.changes {
                let made = &change.version;
                let key = made.key.to_vec();
                let is_deletion = made.value == VersionValue::Deleted;
                let now = (!is_deletion).then(|| self.kept(made));
                let old = change.previous.as_ref().map(|previous| self.kept(previous));
                seen.push((made.origin.revision.0, (key, now, old)));
            }
            after = changed.through;
            if !changed.more {
                break;
            }
        }
        let mut expected = Vec::new();
        for (revision, events) in model.events.iter().enumerate().skip(from as usize) {
            let inside = events.iter().filter(|(key, ..)| keys.contains(key));
            expected.extend(inside.map(|event| (revision as u64, event.clone())));
        }
        assert_eq!(seen, expected, "from {from}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_state_is_what_the_copies_of_all_revisions_say(
        acts in prop::collection::vec(act(), 1..20),
    ) {
        let mut pair = Pair::new();
        // Most puts find their lease.
        pair.run(&Act::Grant(0));
        pair.run(&Act::Grant(1));
        for act in &acts {
            pair.run(act);
        }
    }
}
