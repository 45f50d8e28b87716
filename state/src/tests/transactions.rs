//! Transactions compared with a naive model: a map from keys to values, and a list of its copies.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use dkv_base::id::{GroupId, Revision, Serial, Stamp};
use dkv_wire::codec;
use dkv_wire::message::{
    Command, Compare, Keys, Refusal, Relation, Test, Transact, Transaction, TransactionOperation,
    Unfit,
};
use proptest::prelude::*;

use super::super::{
    Applied, CommandResult, Engine, EngineOptions, FoundResult, FoundVersion, GroupState,
    GroupStore, MemoryStore, VersionValue, validate,
};
use super::{batch_at, open, results, session};

/// No value stays in memory that a checkpoint has.
const OPTIONS: EngineOptions = EngineOptions { reserve_bytes: 0, value_bytes: 0 };
const SHARD: GroupId = GroupId(1);
const KEYS: [&[u8]; 4] = [b"a", b"aa", b"ab", b"b"];
const VALUES: [&[u8]; 4] = [b"1", b"-7", b"x", b"9223372036854775807"];

/// A key with its value, the revision of its creation, its last revision, and its version.
type Model = BTreeMap<Vec<u8>, (Vec<u8>, u64, u64, u64)>;

fn keys() -> impl Strategy<Value = Keys<'static>> {
    let key = || prop::sample::select(&KEYS[..]);
    prop_oneof![
        4 => key().prop_map(Keys::Key),
        1 => Just(Keys::Prefix(b"a")),
        1 => Just(Keys::Prefix(b"")),
        1 => Just(Keys::Range(b"aa", b"b")),
        1 => Just(Keys::Range(b"ab", b"")),
    ]
}

fn compare() -> impl Strategy<Value = Compare<'static>> {
    let relation = prop::sample::select(vec![
        Relation::Equal,
        Relation::NotEqual,
        Relation::Less,
        Relation::Greater,
    ]);
    let test = (0..5_u8, any::<bool>(), relation, 0..8_u64, prop::sample::select(&VALUES[..]));
    (keys(), test).prop_map(|(keys, (kind, exists, relation, number, value))| {
        let test = match kind {
            0 => Test::Exists(exists),
            1 => Test::Revision(relation, Revision(number)),
            2 => Test::Created(relation, Revision(number)),
            3 => Test::Version(relation, number / 2),
            _ => Test::Value(relation, value),
        };
        Compare { keys, test }
    })
}

fn operation() -> impl Strategy<Value = TransactionOperation<'static>> {
    let key = || prop::sample::select(&KEYS[..]);
    let value = || prop::sample::select(&VALUES[..]);
    prop_oneof![
        2 => key().prop_map(TransactionOperation::Get),
        1 => (keys(), 1..4_u32)
            .prop_map(|(keys, keys_max)| TransactionOperation::List { keys, keys_max }),
        4 => (key(), value()).prop_map(|(key, value)| TransactionOperation::Put(key, value)),
        1 => key().prop_map(TransactionOperation::Delete),
        1 => keys().prop_map(TransactionOperation::DeleteAll),
        2 => (key(), -2..3_i64)
            .prop_map(|(key, by)| TransactionOperation::Increment { key, by }),
        1 => (key(), value())
            .prop_map(|(key, bytes)| TransactionOperation::Append { key, bytes }),
    ]
}

fn transaction() -> impl Strategy<Value = Transaction<'static>> {
    let operations = || prop::collection::vec(operation(), 0..4);
    (prop::collection::vec(compare(), 0..3), operations(), operations())
        .prop_map(|(compares, then, otherwise)| Transaction { compares, then, otherwise })
}

fn related<T: Ord>(a: T, relation: Relation, b: T) -> bool {
    match relation {
        Relation::Equal => a == b,
        Relation::NotEqual => a != b,
        Relation::Less => a < b,
        Relation::Greater => a > b,
    }
}

fn holds(model: &Model, compare: &Compare<'_>) -> bool {
    let found: Vec<_> = model.iter().filter(|(key, _)| compare.keys.contains(key)).collect();
    if let Test::Exists(exists) = compare.test {
        return found.is_empty() != exists;
    }
    let one = |value: Option<&[u8]>, created, revision, version| match compare.test {
        Test::Exists(_) => unreachable!("judged above"),
        Test::Revision(relation, other) => related(revision, relation, other.0),
        Test::Created(relation, other) => related(created, relation, other.0),
        Test::Version(relation, other) => related(version, relation, other),
        Test::Value(relation, other) => value.is_some_and(|value| related(value, relation, other)),
        Test::Lease(..) => unreachable!("there are no leases"),
    };
    if found.is_empty() {
        return one(None, 0, 0, 0);
    }
    found.iter().all(|(_, (value, created, revision, version))| {
        one(Some(value), *created, *revision, *version)
    })
}

/// What the model says of one operation.
#[derive(Clone, Debug, PartialEq)]
enum Said {
    Got(Option<Vec<u8>>),
    Listed(Vec<Vec<u8>>, bool),
    Put,
    Deleted(u64),
    Changed(Vec<u8>),
}

/// Executes operations one after another on the model, all at one revision.
fn execute(
    model: &mut Model,
    revision: u64,
    operations: &[TransactionOperation<'_>],
) -> Result<Vec<Said>, (usize, Unfit)> {
    let put = |model: &mut Model, key: &[u8], value: Vec<u8>| {
        let (created, version) =
            model.get(key).map_or((revision, 0), |(_, created, _, version)| (*created, *version));
        model.insert(key.to_vec(), (value, created, revision, version + 1));
    };
    let mut said = Vec::new();
    for (index, operation) in operations.iter().enumerate() {
        said.push(match *operation {
            TransactionOperation::Get(key) => Said::Got(model.get(key).map(|it| it.0.clone())),
            TransactionOperation::List { keys, keys_max } => {
                let mut found = model.keys().filter(|key| keys.contains(key)).cloned();
                let first = found.by_ref().take(keys_max as usize).collect();
                Said::Listed(first, found.next().is_some())
            }
            TransactionOperation::Put(key, value)
            | TransactionOperation::PutAttached { key, value, .. } => {
                put(model, key, value.to_vec());
                Said::Put
            }
            TransactionOperation::Delete(key) => {
                Said::Deleted(u64::from(model.remove(key).is_some()))
            }
            TransactionOperation::DeleteAll(keys) => {
                let before = model.len();
                model.retain(|key, _| !keys.contains(key));
                Said::Deleted((before - model.len()) as u64)
            }
            TransactionOperation::Increment { key, by } => {
                let value = match model.get(key) {
                    Some((value, ..)) => {
                        let text = String::from_utf8_lossy(value);
                        text.parse::<i64>().map_err(|_| (index, Unfit::NotANumber))?
                    }
                    None => 0,
                };
                let sum = value.checked_add(by).ok_or((index, Unfit::Overflow))?;
                put(model, key, sum.to_string().into_bytes());
                Said::Changed(sum.to_string().into_bytes())
            }
            TransactionOperation::PutWith { .. }
            | TransactionOperation::DeleteWith { .. }
            | TransactionOperation::Range { .. }
            | TransactionOperation::Nested(_) => unreachable!("not generated here"),
            TransactionOperation::Append { key, bytes } => {
                let mut value = model.get(key).map(|it| it.0.clone()).unwrap_or_default();
                value.extend_from_slice(bytes);
                put(model, key, value.clone());
                Said::Changed(value)
            }
        });
    }
    Ok(said)
}

struct Pair {
    store: GroupStore,
    _engine: Engine,
    state: GroupState,
    model: Model,
    revision: u64,
    serial: u64,
}

impl Pair {
    fn new() -> Self {
        let engine = Engine::in_memory(&MemoryStore::default(), OPTIONS).expect("an engine");
        let store = engine.group(SHARD).expect("a store");
        let state = GroupState::load(&store).expect("empty").0;
        Self { store, _engine: engine, state, model: Model::new(), revision: 0, serial: 0 }
    }

    /// Applies a command as a replica does: it first reads the values that are not in memory.
    fn apply(&mut self, command: &[u8]) -> CommandResult {
        let entry = batch_at(1, Stamp(1), &[open(session('s')), command.to_vec()]);
        let shard = self.state.as_shard().expect("a shard");
        let mut needed = shard.needed(&entry).expect("a batch");
        for key in std::mem::take(&mut needed.stored) {
            let row = self.store.get(&key).expect("readable").expect("stored");
            needed.rows.insert(key, row);
        }
        match self.state.apply_with(&entry, &needed).expect("a batch") {
            Applied::Shard(results) => results[1],
            Applied::Control(_) => unreachable!("it is a shard"),
        }
    }

    fn command(&self, body: &[u8]) -> Vec<u8> {
        let (serial, settled, after) = (Serial(self.serial), Serial(1), Stamp(0));
        let session = session('s');
        codec::encode_vec(&Command::Transact(Transact { session, serial, settled, after, body }))
    }

    /// Stores and evicts everything.
    fn evict(&mut self) {
        let changes = self.state.take_changes(Bytes::new());
        let (generation, revision) = (changes.generation(), changes.meta().revision);
        self.store.checkpoint(&changes).expect("written");
        let shard = self.state.as_shard_mut().expect("a shard");
        shard.checkpointed(generation, revision);
        // The first round passes what was read since.
        for _ in 0..6 {
            shard.evict(100);
        }
    }

    fn value(&self, found: &FoundVersion) -> Vec<u8> {
        match &found.value {
            VersionValue::Deleted | VersionValue::Omitted => panic!("it is listed with a value"),
            VersionValue::Here(value) => value.to_vec(),
            VersionValue::Stored { .. } => {
                let row = self.store.get_past(&found.key, found.origin.revision);
                row.expect("readable").expect("stored").value.to_vec()
            }
        }
    }

    fn said(&self, result: &FoundResult) -> Said {
        match result {
            FoundResult::Got(found) => Said::Got(found.as_ref().map(|found| self.value(found))),
            FoundResult::Listed { keys, more } => {
                Said::Listed(keys.iter().map(|found| found.key.to_vec()).collect(), *more)
            }
            FoundResult::Put(_) => Said::Put,
            FoundResult::Deleted(count) => Said::Deleted(*count),
            FoundResult::Changed(found) => Said::Changed(self.value(found)),
            other => panic!("{other:?}"),
        }
    }

    fn run(&mut self, transaction: &Transaction<'_>) {
        self.serial += 1;
        let body = codec::encode_vec(transaction);
        let command = self.command(&body);
        if validate(&command, 1024).is_err() {
            // A key is written twice: refused, and nothing is done if it comes all the same.
            assert_eq!(self.apply(&command), CommandResult::Invalid);
            return;
        }
        let succeeded = transaction.compares.iter().all(|compare| holds(&self.model, compare));
        let operations = if succeeded { &transaction.then } else { &transaction.otherwise };
        let mut after = self.model.clone();
        let expected = execute(&mut after, self.revision + 1, operations);
        let result = self.apply(&command);
        match expected {
            Err((operation, why)) => {
                let operation = operation as u32;
                assert_eq!(result, CommandResult::Unfit { operation, why });
            }
            Ok(expected) => {
                let changed = after != self.model;
                self.revision += u64::from(changed);
                let revision = Revision(self.revision);
                let path = 0;
                assert_eq!(
                    result,
                    CommandResult::Transacted { revision, succeeded, changed, path }
                );
                self.model = after;
                self.check_results(&body, revision, succeeded, changed, &expected);
            }
        }
        // Repeated, it has the same outcome and no effect.
        assert_eq!(self.apply(&command), result);
        self.check();
    }

    fn check_results(
        &self,
        body: &[u8],
        revision: Revision,
        succeeded: bool,
        changed: bool,
        expected: &[Said],
    ) {
        let shard = self.state.as_shard().expect("a shard");
        let found = results(shard, body, revision, (succeeded, 0), changed).expect("kept").0;
        let said: Vec<Said> = found.iter().map(|result| self.said(result)).collect();
        assert_eq!(said, expected);
    }

    fn check(&self) {
        let shard = self.state.as_shard().expect("a shard");
        assert_eq!(shard.revision().0, self.revision);
        for key in KEYS {
            let found = shard.get_at(key, shard.revision()).expect("now");
            let found = found.map(|found| {
                let origin = found.origin;
                (self.value(&found), origin.created.0, origin.revision.0, origin.version)
            });
            assert_eq!(found, self.model.get(key).cloned(), "{key:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_transaction_does_what_the_model_does(
        steps in prop::collection::vec((transaction(), prop::bool::weighted(0.3)), 1..25),
    ) {
        let mut pair = Pair::new();
        let mut run = Vec::new();
        for (transaction, evict) in &steps {
            if *evict {
                pair.evict();
            }
            let before = pair.revision;
            pair.run(transaction);
            run.push((transaction, before));
        }
        let (state, _) = {
            pair.evict();
            GroupState::load(&pair.store).expect("whole")
        };
        prop_assert_eq!(state.hash(), pair.state.hash());
    }
}

fn refusal(transaction: &Transaction<'_>, limit: u64) -> String {
    let mut pair = Pair::new();
    pair.serial = 1;
    match validate(&pair.command(&codec::encode_vec(transaction)), limit) {
        Err(Refusal::Invalid(why)) => why,
        Err(other) => other.to_string(),
        Ok(_) => panic!("it is valid"),
    }
}

#[test]
fn an_impossible_transaction_is_refused_with_the_reason() {
    let put = |key| TransactionOperation::Put(key, b"v");
    let then = |then| Transaction { then, ..Transaction::default() };
    let delete = TransactionOperation::DeleteAll;
    for (transaction, why) in [
        (
            then(vec![TransactionOperation::Get(b"k"); 129]),
            "a transaction has at most 128 operations, not 129",
        ),
        (then(vec![put(b"k"), put(b"k")]), "the transaction writes key \"k\" twice"),
        (
            then(vec![delete(Keys::Prefix(b"k")), put(b"key")]),
            "the transaction writes key \"key\" twice",
        ),
        (
            then(vec![put(b"key"), delete(Keys::Prefix(b"k"))]),
            "the transaction writes key \"key\" twice",
        ),
        (then(vec![put(b"")]), "the key is empty"),
        (then(vec![delete(Keys::Range(b"b", b"a"))]), "the range ends before it begins"),
        (
            then(vec![TransactionOperation::Put(b"k", &[0; 101])]),
            "value of 101 bytes is over the limit of 100",
        ),
        (
            then(vec![
                TransactionOperation::Put(b"k", &[0; 80]),
                TransactionOperation::Put(b"l", &[0; 80]),
            ]),
            "transaction of 171 bytes is over the limit of 150",
        ),
    ] {
        let limit = if transaction.then.len() > 128 { 1000 } else { 100 };
        assert_eq!(refusal(&transaction, limit), why);
    }
}

#[test]
fn all_changes_of_a_transaction_have_one_revision() {
    let mut pair = Pair::new();
    let puts = KEYS.map(|key| TransactionOperation::Put(key, b"1"));
    pair.run(&Transaction { then: puts.to_vec(), ..Transaction::default() });
    let all = dkv_wire::message::KeyRange::Prefix(Bytes::new());
    let shard = pair.state.as_shard().expect("a shard");
    // They come together, however small the page.
    let changed = shard.changes(&all, Revision(0), false, 1).expect("kept");
    let keys: Vec<Arc<[u8]>> =
        changed.changes.iter().map(|change| Arc::clone(&change.version.key)).collect();
    assert_eq!((keys.len(), changed.through, changed.more), (4, Revision(1), false));
    assert!(keys.is_sorted());
}
