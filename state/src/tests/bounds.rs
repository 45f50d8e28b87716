//! What one transaction may need at most.

use std::sync::Arc;

use bytes::Bytes;
use dkv_base::id::{GroupId, Revision, Serial, Stamp};
use dkv_wire::codec;
use dkv_wire::limits::{KEY_BYTES_MAX, TRANSACTION_BYTES_MAX, VERSION_OVERHEAD_BYTES};
use dkv_wire::message::{
    Command, Compare, Condition, Keys, Operation, PutAttach, RangeOptions, RangePart, Relation,
    Test, Transact, Transaction, TransactionOperation, Unfit,
};

use super::super::{
    Applied, BatchBuilder, CommandResult, Engine, EngineOptions, FoundResult, GroupState,
    GroupStore, MemoryStore, Needed,
};
use super::{open, results, session, write};

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

fn range<'a>(prefix: &'a [u8], options: RangeOptions) -> TransactionOperation<'a> {
    TransactionOperation::Range { keys: Keys::Prefix(prefix), options }
}

#[test]
fn all_that_a_transaction_looks_at_counts() {
    const KEYS: usize = 5000;
    let mut shard = Shard::new();
    for number in 0..KEYS {
        shard.put(format!("k{number:04}").as_bytes(), b"v");
        shard.put(b"hot", b"v");
    }
    let most = TRANSACTION_BYTES_MAX / VERSION_OVERHEAD_BYTES / KEYS;
    let too_much = Err((most as u32, Unfit::TooMuch));
    let all = range(b"k", RangeOptions::default());
    assert_eq!(shard.transact(&then(vec![all; 10])), Ok(true));
    // No key passes the filter.
    let none = RangeOptions { written: (Revision(1), Revision(0)), ..RangeOptions::default() };
    assert_eq!(shard.transact(&then(vec![range(b"k", none); most])), Ok(true));
    assert_eq!(shard.transact(&then(vec![range(b"k", none); most + 1])), too_much);
    // One key with as many versions after the revision, which is when it was written first.
    let early = RangeOptions { at: Some(Revision(2)), ..RangeOptions::default() };
    assert_eq!(shard.transact(&then(vec![range(b"hot", early); most - 1])), Ok(true));
    assert_eq!(shard.transact(&then(vec![range(b"hot", early); most + 1])), too_much);
    // A count looks at nothing before the results are read.
    let count = RangeOptions { part: RangePart::Count, ..RangeOptions::default() };
    assert_eq!(shard.transact(&then(vec![range(b"k", count); 128])), Ok(true));
}

#[test]
fn results_are_read_step_by_step() {
    const KEYS: usize = 5000;
    let mut shard = Shard::new();
    for number in 0..KEYS {
        shard.put(format!("k{number:04}").as_bytes(), b"v");
        shard.put(b"hot", b"v");
    }
    let state = shard.state.as_shard().expect("a shard");
    let read = |operation| {
        let body = codec::encode_vec(&then(vec![operation; 3]));
        let read = results(state, &body, state.revision(), (true, 0), false);
        let (results, steps) = read.expect("kept");
        assert!(results.iter().all(|result| *result == results[0]));
        let FoundResult::Ranged { range, .. } = &results[0] else { panic!("{results:?}") };
        (range.keys.len(), range.more, range.count, steps)
    };
    let first = RangeOptions { keys_max: 1, ..RangeOptions::default() };
    assert_eq!(read(range(b"k", first)), (1, true, KEYS as u64, 4));
    let early = RangeOptions { at: Some(Revision(2)), ..RangeOptions::default() };
    assert_eq!(read(range(b"hot", early)), (1, false, 1, 4));
}

/// What a read finds in place of what the transaction itself has changed counts too.
#[test]
fn other_keys_in_the_place_of_changed_ones_count() {
    let mut shard = Shard::new();
    let small: Vec<Vec<u8>> = (0..16).map(|number| format!("a{number:02}").into_bytes()).collect();
    for key in &small {
        shard.put(key, b"");
    }
    let long = vec![7; 60 << 10];
    for number in 0..16 {
        shard.put(format!("b{number:02}").as_bytes(), &long);
    }
    let now = shard.state.revision();
    let most = TRANSACTION_BYTES_MAX / (16 * long.len());
    let is_too_much = |result| {
        let Err((operation, Unfit::TooMuch)) = result else { panic!("{result:?}") };
        (most..most + 20).contains(&(operation as usize))
    };
    let (delete, list) = (
        TransactionOperation::DeleteAll(Keys::Prefix(b"a")),
        TransactionOperation::List { keys: Keys::Prefix(b""), keys_max: 16 },
    );
    let lists = |number| then([vec![delete], vec![list; number]].concat());
    assert!(is_too_much(shard.transact(&lists(127))));
    // They no longer pass the filter.
    let older =
        RangeOptions { keys_max: 16, written: (Revision(0), now), ..RangeOptions::default() };
    let mut operations: Vec<_> =
        small.iter().map(|key| TransactionOperation::Put(key, b"")).collect();
    operations.resize(128, range(b"", older));
    assert!(is_too_much(shard.transact(&then(operations))));
    // There is nothing beyond the greatest limit.
    let unlimited = RangeOptions { keys_max: u64::MAX, ..RangeOptions::default() };
    let operations = vec![delete, range(b"", unlimited)];
    assert_eq!(shard.transact(&then(operations)), Ok(true));
    assert_eq!(shard.transact(&lists(most - 1)), Ok(true));
}

#[test]
fn what_is_replaced_and_what_nested_transactions_compare_counts() {
    let mut shard = Shard::new();
    let keys: Vec<Vec<u8>> = (0..20).map(|number| format!("k{number:02}").into_bytes()).collect();
    for key in &keys {
        shard.put(key, &vec![7; 2 * MIB]);
    }
    let before = shard.state.revision();
    let most = TRANSACTION_BYTES_MAX / (2 * MIB) - 1;
    let too_much = Err((most as u32, Unfit::TooMuch));
    let (value, attach) = (Some(&b""[..]), PutAttach::Nothing);
    let put = |key| TransactionOperation::PutWith { key, value, attach, previous: true };
    assert_eq!(shard.transact(&then(keys.iter().map(|key| put(&key[..])).collect())), too_much);
    let delete = |keys| TransactionOperation::DeleteWith { keys, previous: true };
    let deletes = keys.iter().map(|key| delete(Keys::Key(&key[..])));
    assert_eq!(shard.transact(&then(deletes.collect())), too_much);
    let all = then(vec![delete(Keys::Prefix(b"k"))]);
    assert_eq!(shard.transact(&all), Err((0, Unfit::TooMuch)));
    let test = Test::Value(Relation::NotEqual, b"x");
    let compares = vec![Compare { keys: Keys::Prefix(b"k"), test }];
    let nested = codec::encode_vec(&Transaction { compares, ..Transaction::default() });
    let operations = vec![TransactionOperation::Get(b"k"), TransactionOperation::Nested(&nested)];
    assert_eq!(shard.transact(&then(operations)), Err((1, Unfit::TooMuch)));
    assert_eq!(shard.state.revision(), before, "nothing was written");
    let all = TransactionOperation::DeleteWith { keys: Keys::Prefix(b"k"), previous: false };
    assert_eq!(shard.transact(&then(vec![all])), Ok(true));
}

#[test]
fn a_delete_of_too_many_keys_has_no_effect() {
    let mut shard = Shard::new();
    let most = TRANSACTION_BYTES_MAX / (KEY_BYTES_MAX + VERSION_OVERHEAD_BYTES);
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
