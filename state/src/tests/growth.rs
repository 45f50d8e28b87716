//! How much commands add to a shard.

use dkv_base::id::{GroupId, Revision, Serial, SessionId, Stamp, Term};
use dkv_wire::codec::encode;
use dkv_wire::message::{
    Attempt, AttemptId, Command, Condition, Keys, Operation, Prepare, PrepareHome, Transact,
    Transaction, TransactionOperation, Write,
};
use uuid::Uuid;

use crate::batch::BatchBuilder;
use crate::shard::ShardState;

const SESSION: SessionId = SessionId(Uuid::from_u128(7));

fn write<'a>(serial: u64, key: &'a [u8], operation: Operation<'a>) -> Command<'a> {
    let condition = Condition::Always;
    let (serial, settled, after) = (Serial(serial), Serial(1), Stamp(0));
    Command::Write(Write { session: SESSION, serial, settled, after, condition, key, operation })
}

fn apply(shard: &mut ShardState, command: &Command<'_>) {
    let mut batch = BatchBuilder::new(1, Stamp(1 << 20));
    batch.push(&encode(command));
    shard.apply(&batch.finish()).unwrap();
}

fn filled() -> ShardState {
    let mut shard = ShardState::new();
    apply(&mut shard, &Command::OpenSession(SESSION));
    apply(&mut shard, &write(1, b"abc", Operation::Put(b"0123456789")));
    shard
}

#[test]
fn a_write_adds_what_it_stores_beyond_what_was_there() {
    let shard = filled();
    for (key, operation, growth) in [
        (&b"new"[..], Operation::Put(b"12345"), 8),
        (b"abc", Operation::Put(b"0123456789"), 0),
        (b"abc", Operation::Put(b"0123456789x"), 1),
        (b"abc", Operation::Put(b"01"), 0),
        (b"abc", Operation::Delete, 0),
        (b"new", Operation::Delete, 0),
    ] {
        assert_eq!(shard.growth(&write(9, key, operation)), growth, "{key:?} {operation:?}");
    }
    // A repetition is answered from memory.
    assert_eq!(shard.growth(&write(1, b"new", Operation::Put(b"12345"))), 0);
}

#[test]
fn a_transaction_adds_what_its_larger_list_does() {
    let shard = filled();
    let growth = |then: Vec<TransactionOperation<'_>>, otherwise| {
        let body = encode(&Transaction { compares: Vec::new(), then, otherwise });
        let (serial, settled, after) = (Serial(9), Serial(1), Stamp(0));
        let transact = Transact { session: SESSION, serial, settled, after, body: &body };
        shard.growth(&Command::Transact(transact))
    };
    let put = TransactionOperation::Put(b"new", b"12345");
    assert_eq!(growth(vec![put], Vec::new()), 8);
    assert_eq!(growth(Vec::new(), vec![put]), 8);
    assert_eq!(growth(vec![put, TransactionOperation::Delete(b"abc")], Vec::new()), 0);
    assert_eq!(growth(vec![put, TransactionOperation::DeleteAll(Keys::Prefix(b"a"))], vec![]), 0);
    let append = TransactionOperation::Append { key: b"abc", bytes: b"more" };
    assert_eq!(growth(vec![append, TransactionOperation::Get(b"abc")], Vec::new()), 4);
    assert_eq!(shard.revision(), Revision(1));
}

#[test]
fn a_transaction_that_was_decided_or_prepared_adds_nothing() {
    let mut shard = filled();
    let put = TransactionOperation::Put(b"new", b"12345");
    let body = &encode(&Transaction { then: vec![put], ..Transaction::default() });
    let prepare = |serial| {
        let attempt = Attempt { term: Term(1), number: serial };
        let (home, session, serial) = (GroupId(1), SESSION, Serial(serial));
        let id = AttemptId { home, session, serial, attempt };
        let participants = vec![GroupId(2)];
        let at_home = PrepareHome { settled: Serial(1), patience_ms: 1000, participants };
        let (over, after, patient, at_home) = (attempt, Stamp(0), false, Some(at_home));
        Command::Prepare(Prepare { id, over, after, patient, at_home, body })
    };
    // The serial of the put that `filled` has made stands for one that was decided.
    assert_eq!((shard.growth(&prepare(1)), shard.growth(&prepare(2))), (0, 8));
    apply(&mut shard, &prepare(2));
    assert_eq!(shard.growth(&prepare(2)), 0);
}
