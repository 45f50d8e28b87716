use dkv_base::id::{Serial, SessionId};
use dkv_wire::message::{Compare, Keys, Test};

use super::*;

const HOME: GroupId = GroupId(1);
const OTHER: GroupId = GroupId(2);

/// A transaction that compares a key of one shard and puts a key of another if that holds.
fn compared_elsewhere() -> DividedTransaction {
    let compare = |key| Compare { keys: Keys::Key(key), test: Test::Exists(true) };
    let then = vec![TransactionOperation::Get(b"c"), TransactionOperation::Put(b"a", b"1")];
    let transaction = Transaction { compares: vec![compare(b"b")], then, otherwise: Vec::new() };
    let body = codec::encode_vec(&transaction);
    let over = TransactOver {
        session: SessionId(uuid::Uuid::from_u128(7)),
        serial: Serial(1),
        settled: Serial(1),
        after: Stamp(0),
        shards: vec![OTHER, HOME, HOME],
        body: &body,
    };
    DividedTransaction::of(&over, HOME).expect("a transaction")
}

fn prepared(holds: bool, unfit: [Option<(u32, Unfit)>; 2]) -> PreparedPart {
    let prospects = unfit.map(|unfit| Prospect { unfit, changes: false, results: None });
    PreparedPart { holds, revision: Revision(1), stamp: Stamp(1), prospects }
}

#[test]
fn compares_that_need_too_much_are_told_though_their_shard_has_no_operation() {
    let divided = compared_elsewhere();
    let too_much = Some((0, Unfit::TooMuch));
    let home = prepared(true, [None, None]);
    let other = prepared(false, [too_much, too_much]);
    let all = BTreeMap::from([(HOME, home), (OTHER, other)]);
    assert_eq!(divided.unfit(&all, false), too_much);
}

#[test]
fn the_place_of_an_unfit_operation_is_that_in_the_whole_transaction() {
    let divided = compared_elsewhere();
    let home = prepared(true, [Some((1, Unfit::NoKey)), None]);
    let all = BTreeMap::from([(HOME, home), (OTHER, prepared(true, [None, None]))]);
    assert_eq!(divided.unfit(&all, true), Some((1, Unfit::NoKey)));
    assert_eq!(divided.unfit(&all, false), None);
}
