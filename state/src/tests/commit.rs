//! Transactions over several shards: states alone, drivers that die at every step, and messages
//! that are lost, doubled and late.

mod world;

use dkv_base::id::{GroupId, HolderId, Revision, Serial, SessionId, Stamp, Term};
use dkv_wire::codec;
use dkv_wire::message::{
    Attempt, AttemptId, Command, Commitment, Compare, Condition, Decide, Decision, Deposited, Keys,
    Operation, PartReceipt, Prepare, PrepareHome, PutAttach, RangeOptions, Relation, Resolution,
    Test, Transact, TransactOver, Transaction, TransactionOperation, Unfit,
};
use proptest::prelude::*;

use super::super::command::Foreseen;
use super::super::limits::RECORDS_MAX;
use super::super::{CommandResult, FoundResult, Needed, ShardState, validate};
use super::{batch, node, open, results, session, write};
use world::World;

const HOME: GroupId = GroupId(1);

fn id(attempt: u64) -> AttemptId {
    id_of(session('s'), 1, attempt)
}

fn id_of(session: SessionId, serial: u64, number: u64) -> AttemptId {
    let attempt = Attempt { term: Term(1), number };
    AttemptId { home: HOME, session, serial: Serial(serial), attempt }
}

fn encode(command: &Command<'_>) -> Vec<u8> {
    codec::encode_vec(command)
}

fn prepare(id: AttemptId, over: u64, at_home: bool, part: &Transaction<'_>) -> Vec<u8> {
    let body = codec::encode_vec(part);
    let home =
        PrepareHome { settled: Serial(1), patience_ms: 1000, participants: vec![GroupId(2)] };
    let over = Attempt { term: Term(1), number: over };
    let at_home = at_home.then_some(home);
    let (after, patient) = (Stamp(0), false);
    encode(&Command::Prepare(Prepare { id, over, after, patient, at_home, body: &body }))
}

fn commit(id: AttemptId, succeeded: bool) -> Vec<u8> {
    let parts = vec![PartReceipt { shard: GroupId(2), not_before: Revision(1) }];
    let after = Stamp(5);
    let decision = Decision::Commit { succeeded, changed: true, after, parts };
    encode(&Command::Decide(Decide { id, decision }))
}

fn finish(id: AttemptId, succeeded: Option<bool>) -> Vec<u8> {
    let committed = succeeded.map(|succeeded| Commitment { succeeded, stamp: Stamp(9) });
    encode(&Command::Finish { id, committed })
}

fn resolve(id: AttemptId, abort: bool) -> Vec<u8> {
    encode(&Command::Resolve { id, abort })
}

fn append<'a>(key: &'a [u8], bytes: &'a [u8]) -> Transaction<'a> {
    let then = vec![TransactionOperation::Append { key, bytes }];
    Transaction { compares: Vec::new(), otherwise: then.clone(), then }
}

fn put(serial: u64, key: &[u8]) -> Vec<u8> {
    write(session('w'), serial, 1, Condition::Always, key, Operation::Put(b"v"))
}

struct Shard {
    state: ShardState,
    now: u64,
}

impl Shard {
    fn new() -> Self {
        let mut shard = Self { state: ShardState::new(), now: 1 };
        shard.apply(open(session('s')));
        shard.apply(open(session('w')));
        shard
    }

    fn apply(&mut self, command: Vec<u8>) -> CommandResult {
        self.state.apply(&batch(self.now, &[command])).unwrap()[0]
    }

    fn value(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.state.row(key).map(|row| row.value.to_vec())
    }
}

fn is_prepared(result: CommandResult) -> bool {
    matches!(result, CommandResult::Prepared { .. })
}

#[test]
fn a_lock_keeps_everything_out_that_would_see_it() {
    let mut shard = Shard::new();
    let part = Transaction {
        compares: vec![Compare { keys: Keys::Key(b"c"), test: Test::Exists(false) }],
        then: vec![TransactionOperation::Get(b"g"), TransactionOperation::Put(b"p", b"1")],
        otherwise: vec![TransactionOperation::Delete(b"d")],
    };
    assert!(is_prepared(shard.apply(prepare(id(1), 1, false, &part))));
    for key in [b"c", b"g", b"p", b"d"] {
        assert_eq!(shard.apply(put(1, key)), CommandResult::Locked, "{key:?}");
        assert!(shard.state.is_locked(key));
    }
    assert_eq!(shard.state.write_locked_at(b"p"), Some(Revision(0)));
    assert_eq!(shard.state.write_locked_at(b"g"), None, "it is only read");
    // The serial is not used up.
    assert!(matches!(shard.apply(put(1, b"other")), CommandResult::Written { .. }));
    let transact = |serial, key| {
        let body = codec::encode_vec(&Transaction {
            then: vec![TransactionOperation::Get(key)],
            ..Transaction::default()
        });
        let (session, settled, after) = (session('w'), Serial(1), Stamp(0));
        let serial = Serial(serial);
        encode(&Command::Transact(Transact { session, serial, settled, after, body: &body }))
    };
    assert_eq!(shard.apply(transact(2, b"p")), CommandResult::Locked);
    let read = shard.apply(transact(3, b"g"));
    assert!(matches!(read, CommandResult::Transacted { .. }), "both read: {read:?}");
    let deposited = |number: u64| {
        let number = dkv_base::id::Number(number);
        encode(&Command::Deposited(Deposited {
            node: node('n'),
            number,
            after: dkv_base::id::Number(number.0 - 1),
            stamp: Stamp(7),
            key: b"p",
            operation: Operation::Put(b"eventual"),
        }))
    };
    assert_eq!(shard.apply(deposited(1)), CommandResult::Locked);
    assert_eq!(shard.state.taken(node('n')).0, 0, "it comes again");
    // Another transaction shares what it only reads.
    let reads =
        |key| Transaction { then: vec![TransactionOperation::Get(key)], ..Transaction::default() };
    let other = |serial| id_of(session('t'), serial, 1);
    assert!(is_prepared(shard.apply(prepare(other(1), 1, false, &reads(b"g")))));
    assert_eq!(shard.apply(prepare(other(2), 1, false, &reads(b"p"))), CommandResult::Locked);
    shard.apply(finish(id(1), Some(true)));
    shard.apply(finish(other(1), None));
    assert_eq!(shard.state.locked_keys(), 0);
    assert_eq!(shard.value(b"p"), Some(b"1".to_vec()));
    assert!(matches!(shard.apply(deposited(1)), CommandResult::Written { .. }));
}

#[test]
fn preparing_foresees_what_finishing_does() {
    let mut shard = Shard::new();
    shard.apply(put(1, b"k"));
    let part = Transaction {
        compares: vec![Compare { keys: Keys::Key(b"k"), test: Test::Value(Relation::Equal, b"v") }],
        then: vec![TransactionOperation::Delete(b"nothing")],
        otherwise: vec![
            TransactionOperation::Get(b"k"),
            TransactionOperation::Increment { key: b"k", by: 1 },
        ],
    };
    let then = Foreseen { unfit: None, changes: false };
    let otherwise = Foreseen { unfit: Some((1, Unfit::NotANumber)), changes: false };
    let revision = Revision(1);
    let stamp = shard.state.stamp();
    let prepared = CommandResult::Prepared { holds: true, revision, stamp, then, otherwise };
    assert_eq!(shard.apply(prepare(id(1), 1, false, &part)), prepared);
    assert_eq!(shard.apply(prepare(id(1), 1, false, &part)), prepared, "it may come twice");
    shard.apply(finish(id(1), Some(true)));
    assert_eq!(shard.state.revision(), Revision(1));
    // A part that cannot be executed is not, and leaves no lock.
    shard.apply(prepare(id(2), 1, false, &part));
    shard.apply(finish(id(2), Some(false)));
    assert_eq!((shard.state.revision(), shard.state.locked_keys()), (Revision(1), 0));
}

/// The results are those that one shard would give.
#[test]
fn results_are_foreseen_in_the_order_of_operations() {
    let mut shard = Shard::new();
    shard.apply(put(1, b"k"));
    let (keys, keys_max) = (Keys::Key(b"k"), 7);
    let operations = vec![
        TransactionOperation::List { keys, keys_max },
        TransactionOperation::Delete(b"k"),
        TransactionOperation::DeleteAll(keys),
        TransactionOperation::Delete(b"k"),
        TransactionOperation::Get(b"k"),
        TransactionOperation::List { keys, keys_max },
    ];
    let part = Transaction { then: operations, ..Transaction::default() };
    assert!(is_prepared(shard.apply(prepare(id(1), 1, false, &part))));
    let body = codec::encode_vec(&part);
    let foreseen = shard.state.foreseen_results(&body, &Needed::default());
    let [then, _] = foreseen.expect("all values are in memory");
    shard.apply(finish(id(1), Some(true)));
    let executed = results(&shard.state, &body, shard.state.revision(), (true, 0), true);
    assert_eq!(then, executed.expect("kept").0);
    let deleted: Vec<_> = then[1..4].to_vec();
    assert_eq!(deleted, [1, 0, 0].map(FoundResult::Deleted));
}

#[test]
fn a_part_is_executed_once_however_often_messages_come() {
    let mut shard = Shard::new();
    let part = append(b"k", b"x");
    for _ in 0..2 {
        shard.apply(prepare(id(3), 2, false, &part));
        shard.apply(finish(id(3), Some(true)));
    }
    assert_eq!(shard.value(b"k"), Some(b"x".to_vec()));
    assert_eq!(shard.apply(prepare(id(3), 2, false, &part)), CommandResult::Over);
    // Its home says that everything before is over, so that it need not be remembered.
    assert!(is_prepared(shard.apply(prepare(id(5), 5, false, &part))));
    shard.apply(finish(id(5), None));
    assert_eq!(shard.apply(prepare(id(3), 2, false, &part)), CommandResult::Over);
    assert_eq!(shard.apply(prepare(id(4), 2, false, &part)), CommandResult::Over);
    assert_eq!(shard.state.locked_keys(), 0);
}

#[test]
fn what_is_aborted_is_never_committed() {
    // Late, early, and in doubt for too long.
    let part = append(b"k", b"x");
    let mut home = Shard::new();
    assert!(is_prepared(home.apply(prepare(id(1), 1, true, &part))));
    let pending = CommandResult::Resolved(Resolution::Pending);
    let aborted = CommandResult::Resolved(Resolution::Aborted);
    assert_eq!(home.apply(resolve(id(1), false)), pending);
    home.now += 999;
    assert_eq!(home.apply(resolve(id(1), false)), pending);
    home.now += 1;
    assert_eq!(home.apply(resolve(id(1), false)), aborted);
    assert_eq!(home.state.locked_keys(), 0);
    assert_eq!(home.apply(commit(id(1), true)), CommandResult::Over);
    assert_eq!(home.apply(prepare(id(1), 1, true, &part)), CommandResult::Over);
    // One that the home has not seen yet.
    assert_eq!(home.apply(resolve(id(3), false)), aborted);
    assert_eq!(home.apply(prepare(id(2), 1, true, &part)), CommandResult::Over);
    assert_eq!(home.apply(prepare(id(3), 1, true, &part)), CommandResult::Over);
    // A later attempt takes the place of an earlier one.
    assert!(is_prepared(home.apply(prepare(id(4), 1, true, &part))));
    assert!(is_prepared(home.apply(prepare(id(5), 1, true, &part))));
    assert_eq!(home.apply(commit(id(4), true)), CommandResult::Over);
    assert_eq!(home.apply(resolve(id(4), false)), aborted);
    let done = home.apply(commit(id(5), true));
    let CommandResult::Decided { revision, changed: true, commitment } = done else {
        panic!("{done:?}")
    };
    assert_eq!(commitment, Commitment { succeeded: true, stamp: Stamp(6) });
    assert_eq!(home.apply(commit(id(5), true)), done, "repeated");
    let again = CommandResult::Transacted { revision, succeeded: true, changed: true, path: 0 };
    assert_eq!(home.apply(prepare(id(6), 1, true, &part)), again, "asked again");
    let committed = CommandResult::Resolved(Resolution::Committed(commitment));
    assert_eq!(home.apply(resolve(id(5), true)), committed);
    assert_eq!(home.apply(resolve(id(4), true)), aborted);
    assert_eq!(home.value(b"k"), Some(b"x".to_vec()));
    home.apply(encode(&Command::Forget(id(5))));
    assert_eq!(home.state.home_records().count(), 0);
    assert_eq!(home.apply(prepare(id(7), 1, true, &part)), again, "still");
}

#[test]
fn an_attempt_that_meets_a_lock_ends_those_before_it() {
    let mut home = Shard::new();
    let (part, other) = (append(b"k", b"x"), append(b"l", b"y"));
    assert!(is_prepared(home.apply(prepare(id(1), 1, true, &part))));
    assert!(is_prepared(home.apply(prepare(id_of(session('t'), 1, 2), 1, false, &other))));
    assert_eq!(home.apply(prepare(id(3), 1, true, &other)), CommandResult::Locked);
    assert!(!home.state.is_locked(b"k"), "nobody decides the first any more");
    assert_eq!(home.apply(prepare(id(1), 1, true, &part)), CommandResult::Over, "a late copy");
    assert_eq!(home.apply(commit(id(1), true)), CommandResult::Over);
}

#[test]
fn a_settled_serial_takes_no_effect_any_more() {
    let part = append(b"k", b"x");
    let mut home = Shard::new();
    assert!(is_prepared(home.apply(prepare(id(1), 1, true, &part))));
    let later = write(session('s'), 2, 2, Condition::Always, b"k", Operation::Put(b"v"));
    // It does not even wait for the lock.
    assert!(matches!(home.apply(later), CommandResult::Written { .. }));
    assert_eq!(home.apply(commit(id(1), true)), CommandResult::Over);
    let aborted = CommandResult::Resolved(Resolution::Aborted);
    assert_eq!(home.apply(resolve(id(1), false)), aborted);
    assert_eq!(home.apply(prepare(id(2), 1, true, &part)), CommandResult::SessionExpired);
    // The same if the session ends.
    let ends = |serial| id_of(session('w'), serial, 9);
    assert!(is_prepared(home.apply(prepare(ends(1), 1, true, &part))));
    home.now += 4_000_000;
    home.apply(open(session('s')));
    assert_eq!(home.state.locked_keys(), 0);
    assert_eq!(home.apply(commit(ends(1), true)), CommandResult::Over);
    assert_eq!(home.apply(resolve(ends(1), false)), aborted);
    assert_eq!(home.state.home_records().count(), 0);
}

#[test]
fn a_committed_transaction_outlives_its_session() {
    let mut home = Shard::new();
    home.apply(prepare(id(1), 1, true, &append(b"k", b"x")));
    home.apply(commit(id(1), false));
    home.now += 4_000_000;
    home.apply(open(session('w')));
    let result = home.apply(resolve(id(1), true));
    assert!(matches!(result, CommandResult::Resolved(Resolution::Committed(_))), "{result:?}");
    assert_eq!(home.state.home_records().count(), 1);
    home.apply(encode(&Command::Forget(id(1))));
    assert_eq!(home.state.home_records().count(), 0);
    assert_eq!(home.apply(resolve(id(1), true)), CommandResult::Resolved(Resolution::Aborted));
}

#[test]
fn a_cut_waits_for_what_may_belong_to_it() {
    let mut shard = Shard::new();
    let cut = |moment| encode(&Command::Cut { moment: Stamp(moment) });
    shard.apply(put(1, b"k"));
    assert!(is_prepared(shard.apply(prepare(id(1), 1, false, &append(b"k", b"x")))));
    assert_eq!(shard.apply(cut(50)), CommandResult::Locked);
    // A part that is prepared from now on comes after the moment, and is not waited for.
    assert!(is_prepared(shard.apply(prepare(id(2), 1, false, &append(b"l", b"y")))));
    let blocked = [cut(50)];
    let unblocked = |shard: &Shard| shard.state.unblocked(blocked.iter().map(|it| &it[..]));
    assert_eq!(unblocked(&shard), [false]);
    // A write that is stamped after the moment, and then the part, stamped before it.
    shard.apply(put(2, b"other"));
    shard.apply(finish(id(1), Some(true)));
    assert_eq!(unblocked(&shard), [true]);
    let CommandResult::Cut(cut) = shard.apply(cut(50)) else { panic!("no cut") };
    let at = |key: &[u8]| shard.state.get_at(key, cut).unwrap().map(|found| found.origin.stamp);
    assert_eq!((at(b"k"), at(b"other")), (Some(Stamp(9)), None));
    assert_eq!(cut.base, Revision(1), "the history before the later write is needed");
}

#[test]
fn parts_have_bounds() {
    let mut shard = Shard::new();
    let value = vec![0; 15 << 20];
    let mut prepared = 0;
    for number in 1..10 {
        let key = [number as u8];
        let part = Transaction {
            then: vec![TransactionOperation::Put(&key, &value)],
            ..Transaction::default()
        };
        match shard.apply(prepare(id(number), 1, false, &part)) {
            CommandResult::Prepared { .. } => prepared += 1,
            CommandResult::Overloaded { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(prepared, 4);
    shard.apply(finish(id(1), None));
    assert!(is_prepared(shard.apply(prepare(id(20), 1, false, &append(b"k", b"x")))));
}

#[test]
fn commands_of_the_second_phase_need_no_first_one() {
    let mut shard = Shard::new();
    let before = shard.state.revision();
    for command in [
        commit(id(1), true),
        finish(id(1), Some(true)),
        finish(id(1), None),
        encode(&Command::Forget(id(1))),
        resolve(id_of(session('?'), 1, 1), false),
    ] {
        shard.apply(command);
    }
    assert_eq!((shard.state.revision(), shard.state.locked_keys()), (before, 0));
    assert_eq!(shard.state.home_records().count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn transactions_are_atomic_whatever_happens(seed in any::<u64>()) {
        World::new(seed).run(1500);
    }

    #[test]
    fn rows_of_transactions_that_are_none(
        table in prop::sample::select(vec![b'a', b'f', b'p']),
        key in proptest::collection::vec(any::<u8>(), 0..50),
        value in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        use super::super::rows::{RowSink, Table};

        let table = Table::from_byte(table).expect("a table");
        let mut state = ShardState::new();
        let mut digest = super::super::digest::Digest::default();
        let taken = RowSink::row(&mut state, table, &key, &value).is_ok();
        prop_assert_eq!(digest.row(table, &key, &value).is_ok(), taken);
    }
}

#[test]
fn most_transactions_take_effect_in_the_end() {
    let committed: usize = (0..10).map(|seed| World::new(seed).run(1500)).sum();
    assert!(committed > 80, "only {committed}");
}

#[test]
fn what_can_never_be_is_refused() {
    let part = append(b"k", b"x");
    let early = prepare(id(1), 2, false, &part);
    assert!(validate(&early, 10).is_err(), "over before it begins");
    let ranges = Transaction {
        then: vec![TransactionOperation::DeleteAll(Keys::Prefix(b"k"))],
        ..Transaction::default()
    };
    assert!(validate(&prepare(id(1), 1, false, &ranges), 10).is_err());
    let (keys, previous) = (Keys::Key(b"k"), true);
    let (value, attach) = (Some(&b"v"[..]), PutAttach::Nothing);
    let nothing = codec::encode_vec(&Transaction::default());
    for needs_one_shard in [
        TransactionOperation::PutWith { key: b"k", value, attach, previous },
        TransactionOperation::DeleteWith { keys, previous },
        TransactionOperation::Range { keys, options: RangeOptions::default() },
        TransactionOperation::Nested(&nothing),
    ] {
        let part = Transaction { then: vec![needs_one_shard], ..Transaction::default() };
        let prepare = prepare(id(1), 1, false, &part);
        assert!(validate(&prepare, 10).is_err(), "{needs_one_shard:?}");
    }
    let over = |shards: Vec<GroupId>, body: &[u8]| {
        let (serial, settled, after) = (Serial(1), Serial(1), Stamp(0));
        let session = session('s');
        let over = TransactOver { session, serial, settled, after, shards, body };
        let command = encode(&Command::TransactOver(over));
        assert_eq!(Shard::new().apply(command.clone()), CommandResult::Invalid, "in a log");
        validate(&command, 10).is_ok()
    };
    let body = codec::encode_vec(&part);
    assert!(over(vec![GroupId(1), GroupId(2)], &body));
    assert!(!over(vec![GroupId(1)], &body));
    assert!(!over(vec![GroupId(1), GroupId(0)], &body));
    assert!(!over(vec![GroupId(1)], &codec::encode_vec(&ranges)));
}

/// A holder that never settles its transactions does not keep others from theirs.
#[test]
fn a_holder_has_a_share_of_the_records() {
    let mut shard = Shard::new();
    let (many, few) = (session('m'), session('f'));
    for (session, letter) in [(many, 'm'), (few, 'f')] {
        let holder = HolderId(super::uuid(letter));
        shard.apply(encode(&Command::OpenSessionOf { session, holder }));
    }
    let part = append(b"k", b"v");
    let prepare_in = |session, serial| prepare(id_of(session, serial, serial), 1, true, &part);
    for serial in 1..=(RECORDS_MAX as u64 / 2) {
        let aborted = shard.apply(resolve(id_of(many, serial, 1), true));
        assert_eq!(aborted, CommandResult::Resolved(Resolution::Aborted));
    }
    let refused = shard.apply(prepare_in(many, 1 << 20));
    assert!(matches!(refused, CommandResult::Overloaded { .. }), "{refused:?}");
    assert!(is_prepared(shard.apply(prepare_in(few, 1))));
    // What another shard has prepared ends, though there is no room to prepare anything.
    for serial in (RECORDS_MAX as u64 / 2 + 1)..=(RECORDS_MAX as u64) {
        shard.apply(resolve(id_of(many, serial, 1), true));
    }
    let refused = shard.apply(prepare_in(few, 2));
    assert!(matches!(refused, CommandResult::Overloaded { .. }), "{refused:?}");
    let aborted = shard.apply(resolve(id_of(few, 3, 3), false));
    assert_eq!(aborted, CommandResult::Resolved(Resolution::Aborted));
}
