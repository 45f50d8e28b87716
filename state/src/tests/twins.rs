//! The engine in memory against the one on disk: the same calls return the same results.

use bytes::Bytes;
use dkv_base::id::GroupId;
use dkv_wire::message::{Condition, Operation};
use proptest::prelude::*;

use super::super::{Engine, EngineOptions, GroupState, GroupStore, MemoryStore, Meta};
use super::{batch, install, open, session, write};

const OPTIONS: EngineOptions = EngineOptions { reserve_bytes: 0, value_bytes: u64::MAX };
const SHARD: GroupId = GroupId(1);

#[derive(Clone, Debug)]
enum Step {
    /// Writes or deletes a key, and optionally takes a checkpoint.
    Apply { key: u8, delete: bool, bytes: usize, checkpoint: bool },
    /// Sends the newest checkpoint to an engine of the same kind, which then replaces the one in
    /// use.
    Transfer,
    /// Begins to install a snapshot, and gives up.
    GiveUp,
    /// Removes the group.
    Remove,
    /// Opens the engine anew; entries applied since the checkpoint are lost.
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let apply = (0..12_u8, any::<bool>(), 0..3000_usize, any::<bool>()).prop_map(
        |(key, delete, bytes, checkpoint)| Step::Apply { key, delete, bytes, checkpoint },
    );
    prop_oneof![
        8 => apply,
        1 => Just(Step::Transfer),
        1 => Just(Step::GiveUp),
        1 => Just(Step::Remove),
        2 => Just(Step::Reopen),
    ]
}

/// One engine with a replica on it.
struct Replica {
    open: Box<dyn FnMut() -> Engine>,
    engine: Option<Engine>,
    store: GroupStore,
    state: GroupState,
    round: u64,
}

impl Replica {
    fn new(mut open: Box<dyn FnMut() -> Engine>) -> Self {
        let engine = open();
        let store = engine.group(SHARD).expect("a store");
        Self { open, engine: Some(engine), store, state: GroupState::new(SHARD), round: 0 }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Apply { key, delete, bytes, checkpoint } => {
                self.round += 1;
                let value = vec![*key; *bytes];
                let operation =
                    if *delete { Operation::Delete } else { Operation::Put(value.as_slice()) };
                let (session, round) = (session('s'), self.round);
                let commands = [
                    open(session),
                    write(session, round, 0, Condition::Always, &[*key], operation),
                ];
                self.state.apply(&batch(round, &commands)).expect("a batch");
                if *checkpoint {
                    let changes = self.state.take_changes(Bytes::from(round.to_string()));
                    self.store.checkpoint(&changes).expect("written");
                }
            }
            Step::Transfer => {
                let Some((chunks, meta)) = self.rows() else { return };
                let mut installer = self.store.install().expect("begun");
                for chunk in &chunks {
                    installer.write_chunk(chunk).expect("taken");
                }
                install(installer, &meta).expect("installed");
                self.load();
            }
            Step::GiveUp => drop(self.store.install().expect("begun")),
            Step::Remove => {
                self.store.remove().expect("removed");
                self.load();
            }
            Step::Reopen => {
                let engine = self.engine.take();
                // Drop all handles first: a directory has one owner.
                let next = GroupState::new(SHARD);
                self.state = next;
                let engine = {
                    drop(engine);
                    let placeholder = Engine::in_memory(&MemoryStore::new(), OPTIONS);
                    self.store = placeholder.expect("empty").group(SHARD).expect("a store");
                    (self.open)()
                };
                self.store = engine.group(SHARD).expect("a store");
                self.engine = Some(engine);
                self.load();
            }
        }
    }

    fn load(&mut self) {
        self.state = GroupState::load(&self.store).expect("whole").0;
    }

    fn rows(&self) -> Option<(Vec<Bytes>, Meta)> {
        let mut reader = self.store.snapshot().expect("readable")?;
        let mut chunks = Vec::new();
        while let Some(chunk) = reader.next_chunk().expect("readable") {
            chunks.push(chunk);
        }
        Some((chunks, reader.meta().clone()))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn both_kinds_of_engine_do_the_same(steps in prop::collection::vec(step(), 1..40)) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().to_owned();
        let on_disk = move || Engine::open(&path, OPTIONS).expect("it opens");
        let mut store = MemoryStore::new();
        let in_memory = move || {
            store = store.restart();
            Engine::in_memory(&store, OPTIONS).expect("it opens")
        };
        let mut disk = Replica::new(Box::new(on_disk));
        let mut memory = Replica::new(Box::new(in_memory));
        for step in &steps {
            disk.take(step);
            memory.take(step);
            prop_assert_eq!(disk.state.hash(), memory.state.hash());
            prop_assert_eq!(disk.rows(), memory.rows());
        }
    }
}

/// fjall reuses the number of a deleted table, and must not take the new table for deleted.
#[test]
fn a_snapshot_that_was_given_up_costs_nothing() {
    let checkpoint = Step::Apply { key: 0, delete: false, bytes: 0, checkpoint: true };
    let steps = [Step::GiveUp, Step::Reopen, checkpoint, Step::GiveUp, Step::Reopen, Step::Remove];
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_owned();
    let mut disk = Replica::new(Box::new(move || Engine::open(&path, OPTIONS).expect("it opens")));
    steps.iter().for_each(|step| disk.take(step));
}

#[test]
fn a_store_in_memory_dies_where_it_is_told_to() {
    for happens in [false, true] {
        let store = MemoryStore::new();
        let engine = Engine::in_memory(&store, OPTIONS).expect("it opens");
        let group = engine.group(SHARD).expect("a store");
        let mut state = GroupState::new(SHARD);
        let mut checkpoint = |round: u64| {
            state.apply(&batch(round, &[open(session('s'))])).expect("a batch");
            group.checkpoint(&state.take_changes(Bytes::from(round.to_string())))
        };
        checkpoint(1).expect("written");
        store.die_after(0, happens);
        assert!(checkpoint(2).expect_err("dead").is_fatal() && store.is_dead());
        assert!(checkpoint(3).is_err(), "it stays dead");
        let engine = Engine::in_memory(&store.restart(), OPTIONS).expect("it opens");
        let (_, meta) = GroupState::load(&engine.group(SHARD).expect("a store")).expect("whole");
        let expected = if happens { "2" } else { "1" };
        assert_eq!(meta.expect("stored").applied, expected);
    }
}
