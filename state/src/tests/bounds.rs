//! What one transaction may need at most.

use std::sync::Arc;

use bytes::Bytes;
use dkv_base::id::{GroupId, Serial, Stamp};
use dkv_wire::codec;
use dkv_wire::limits::{KEY_BYTES_MAX, TRANSACTION_BYTES_MAX};
use dkv_wire::message::{
    Command, Compare, Condition, Keys, Operation, Relation, Test, Transact, Transaction,
    TransactionOperation, Unfit,
};

use super::super::{
    Applied, BatchBuilder, CommandResult, Engine, EngineOptions, GroupState, GroupStore,
    MemoryStore, Needed,
};
use super::{open, session, write};

const MIB: usize = 1 << 20;
/// No value stays in memory that a checkpoint has.
const OPTIONS: EngineOptions = EngineOptions { reserve_bytes: 0, value_bytes: 0 };

/// A shard, and its checkpoint.
struct Shard {
    store: GroupStore,
    state: GroupState,
    serial: u64,
}

impl Shard {
    fn new() -> Self {
        let engine = Engine::in_memory(&MemoryStore::new(), OPTIONS).expect("opened");
        let store = engine.group(GroupId(1)).expect("a group");
        let (state, _) = GroupState::load(&store).expect("empty");
        let mut shard = Self { store, state, serial: 0 };
        shard.apply(BatchBuilder::new(1, Stamp(1)), &open(session('a')));
        shard
    }

    /// Applies a command without any value from the checkpoint at hand.
    fn apply(&mut self, mut batch: BatchBuilder, command: &[u8]) -> CommandResult {
        batch.push(command);
        let needed = Needed::default().or_from(&self.store);
        match self.state.apply_with(&batch.finish(), &needed).expect("applied") {
            Applied::Shard(results) => results[0],
            Applied::Control(_) => panic!("it is a shard"),
        }
    }

    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.serial += 1;
        let operation = Operation::Put(value);
        let (serial, always) = (self.serial, Condition::Always);
        let command = write(session('a'), serial, serial, always, key, operation);
        self.apply(BatchBuilder::new(1, Stamp(1)), &command);
    }

    fn transact_in(
        &mut self,
        batch: BatchBuilder,
        transaction: &Transaction<'_>,
    ) -> Result<bool, (u32, Unfit)> {
        self.serial += 1;
        let body = &codec::encode_vec(transaction);
        let (serial, after) = (Serial(self.serial), Stamp(0));
        let transact = Transact { session: session('a'), serial, settled: serial, after, body };
        match self.apply(batch, &codec::encode_vec(&Command::Transact(transact))) {
            CommandResult::Transacted { succeeded, .. } => Ok(succeeded),
            CommandResult::Unfit { operation, why } => Err((operation, why)),
            other => panic!("{other:?}"),
        }
    }

    fn transact(&mut self, transaction: &Transaction<'_>) -> Result<bool, (u32, Unfit)> {
        self.transact_in(BatchBuilder::new(1, Stamp(1)), transaction)
    }

    /// Stores and evicts everything.
    fn evict(&mut self) {
        let changes = self.state.take_changes(Bytes::new());
        let (generation, revision) = (changes.generation(), changes.meta().revision);
        self.store.checkpoint(&changes).expect("written");
        let shard = self.state.as_shard_mut().expect("a shard");
        shard.checkpointed(generation, revision);
        for _ in 0..6 {
            shard.evict(1000);
        }
    }
}

fn then(then: Vec<TransactionOperation<'_>>) -> Transaction<'_> {
    Transaction { then, ..Transaction::default() }
}

#[test]
fn a_transaction_that_needs_too_much_has_no_effect() {
    let mut shard = Shard::new();
    let keys: Vec<Vec<u8>> = (0..20).map(|number| format!("k{number:02}").into_bytes()).collect();
    let value = vec![7; 2 * MIB];
    for key in &keys {
        shard.put(key, &value);
    }
    for evicted in [false, true] {
        if evicted {
            shard.evict();
        }
        let before = shard.state.hash();
        let gets: Vec<_> = keys.iter().map(|key| TransactionOperation::Get(key)).collect();
        // What fits is what an answer has room for.
        let most = TRANSACTION_BYTES_MAX / (2 * MIB) - 1;
        assert_eq!(shard.transact(&then(gets[..most].to_vec())), Ok(true));
        let too_much = Err((most as u32, Unfit::TooMuch));
        assert_eq!(shard.transact(&then(gets)), too_much);
        let append = |key| TransactionOperation::Append { key, bytes: b"x" };
        let appends = keys.iter().map(|key| append(&key[..]));
        assert_eq!(shard.transact(&then(appends.collect())), too_much);
        let test = Test::Value(Relation::NotEqual, b"x");
        let compares = vec![Compare { keys: Keys::Prefix(b"k"), test }];
        let compared = Transaction { compares, ..Transaction::default() };
        assert_eq!(shard.transact(&compared), Err((0, Unfit::TooMuch)));
        let test = Test::Value(Relation::NotEqual, b"x");
        let compares = vec![Compare { keys: Keys::Prefix(b"k0"), test }];
        let compared = Transaction { compares, ..Transaction::default() };
        assert_eq!(shard.transact(&compared), Ok(true));
        // A list is no longer than a page, whatever it is of.
        let list = TransactionOperation::List { keys: Keys::Prefix(b"k"), keys_max: 1000 };
        assert_eq!(shard.transact(&then(vec![list])), Ok(true));
        assert_eq!(shard.transact(&then(vec![list; 17])), Err((15, Unfit::TooMuch)));
        assert_ne!(shard.state.hash(), before, "outcomes are remembered");
        let revision = shard.state.revision();
        assert_eq!(revision.0, 20, "nothing was written");
    }
}

#[test]
fn a_delete_of_too_many_keys_has_no_effect() {
    let mut shard = Shard::new();
    let most = TRANSACTION_BYTES_MAX / (KEY_BYTES_MAX + 64);
    let key = |number: usize| {
        let mut key = vec![b'k'; KEY_BYTES_MAX];
        key[1..9].copy_from_slice(&(number as u64).to_be_bytes());
        key
    };
    for number in 0..=most {
        shard.put(&key(number), b"");
    }
    let all = TransactionOperation::DeleteAll(Keys::Prefix(b"k"));
    assert_eq!(shard.transact(&then(vec![all])), Err((0, Unfit::TooMuch)));
    let first = key(0);
    assert_eq!(shard.transact(&then(vec![TransactionOperation::Delete(&first)])), Ok(true));
    assert_eq!(shard.transact(&then(vec![all])), Ok(true));
    assert_eq!(shard.state.counts().keys, 0);
}

#[test]
fn a_batch_says_how_long_values_may_get() {
    let mut shard = Shard::new();
    shard.put(b"k", b"0123456789");
    let append = then(vec![TransactionOperation::Append { key: b"k", bytes: b"abc" }]);
    let limited = |bytes| BatchBuilder::with_limit(1, Stamp(1), bytes);
    let too_long = Err((0, Unfit::TooLong));
    assert_eq!(shard.transact_in(limited(12), &append), too_long);
    assert_eq!(shard.transact_in(limited(13), &append), Ok(true));
    assert_eq!(shard.transact_in(limited(u64::MAX), &append), Ok(true));
    assert_eq!(shard.transact(&append), Ok(true));
    let value = shard.state.as_shard().and_then(|shard| shard.row(b"k")).map(|row| row.value);
    assert_eq!(value, Some(Arc::from(*b"0123456789abcabcabc")));
}

#[test]
fn compaction_is_faster_than_transactions_with_many_changes() {
    let mut shard = Shard::new();
    let keys: Vec<Vec<u8>> = (0..128).map(|number| format!("{number:03}").into_bytes()).collect();
    let puts = || then(keys.iter().map(|key| TransactionOperation::Put(key, b"v")).collect());
    for _ in 0..100 {
        assert_eq!(shard.transact(&puts()), Ok(true));
    }
    let floor = shard.state.revision();
    shard.apply(BatchBuilder::new(1, Stamp(1)), &codec::encode_vec(&Command::Compact { floor }));
    let is_sweeping =
        |shard: &Shard| shard.state.as_shard().is_some_and(|shard| shard.is_sweeping());
    assert!(is_sweeping(&shard));
    let mut entries = 0;
    while is_sweeping(&shard) {
        entries += 1;
        assert!(entries < 100, "what is to go grows as fast as it goes");
        assert_eq!(shard.transact(&puts()), Ok(true));
    }
}
