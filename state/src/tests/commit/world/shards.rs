//! The shards of the world, and its chance.

use bytes::Bytes;
use dkv_base::id::{GroupId, Stamp};
use dkv_wire::message::AttemptId;

use crate::tests::batch_at;
use crate::{
    Applied, CommandResult, Engine, EngineOptions, GroupState, GroupStore, HomeRecord, MemoryStore,
};

/// No value stays in memory that a checkpoint has.
const OPTIONS: EngineOptions = EngineOptions { reserve_bytes: 0, value_bytes: 0 };

/// A sequence of numbers that look random.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    pub(super) fn one_in(&mut self, sides: usize) -> bool {
        self.roll(sides) == 0
    }
}

/// One shard: a state that stays in memory, and one that is stored, evicted and loaded again.
pub(super) struct Shard {
    pub(super) state: GroupState,
    twin: GroupState,
    store: GroupStore,
    _engine: Engine,
    pub(super) now: u64,
    pub(super) term: u64,
}

impl Shard {
    pub(super) fn new(number: u32) -> Self {
        let engine = Engine::in_memory(&MemoryStore::default(), OPTIONS).expect("an engine");
        let store = engine.group(GroupId(number)).expect("a store");
        let state = GroupState::new(GroupId(number));
        let twin = GroupState::load(&store).expect("empty").0;
        Self { state, twin, store, _engine: engine, now: 1, term: 1 }
    }

    pub(super) fn apply(&mut self, command: &[u8]) -> CommandResult {
        let entry = batch_at(self.now, Stamp(1), &[command.to_vec()]);
        let shard = self.twin.as_shard().expect("a shard");
        let mut needed = shard.needed(&entry).expect("a batch");
        for key in std::mem::take(&mut needed.stored) {
            let row = self.store.get(&key).expect("readable").expect("stored");
            needed.rows.insert(key, row);
        }
        let twin = self.twin.apply_with(&entry, &needed).expect("a batch");
        let applied = self.state.apply(&entry).expect("a batch");
        assert_eq!(applied, twin);
        assert_eq!(self.state.hash(), self.twin.hash());
        match applied {
            Applied::Shard(results) => results[0],
            Applied::Control(_) => unreachable!("it is a shard"),
        }
    }

    /// Stores the second state; loads it again, or evicts its values.
    pub(super) fn store(&mut self, reload: bool) {
        let changes = self.twin.take_changes(Bytes::new());
        let (generation, revision) = (changes.generation(), changes.meta().revision);
        self.store.checkpoint(&changes).expect("written");
        if reload {
            self.twin = GroupState::load(&self.store).expect("whole").0;
        } else {
            let shard = self.twin.as_shard_mut().expect("a shard");
            shard.checkpointed(generation, revision);
            for _ in 0..6 {
                shard.evict(100);
            }
        }
        assert_eq!(self.state.hash(), self.twin.hash());
    }

    pub(super) fn value(&self, key: u8) -> String {
        let row = self.state.as_shard().expect("a shard").row(&[key]);
        row.map(|row| String::from_utf8_lossy(&row.value).into_owned()).unwrap_or_default()
    }
}

pub(super) fn prepared(shard: &Shard) -> Vec<AttemptId> {
    shard.state.as_shard().expect("a shard").prepared().map(|(id, _)| id).collect()
}

pub(super) fn records(shard: &Shard) -> Vec<HomeRecord> {
    shard.state.as_shard().expect("a shard").home_records().collect()
}
