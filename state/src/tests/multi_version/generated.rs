//! Random transactions.

use dkv_base::id::{LeaseId, Revision};
use dkv_wire::message::{
    Attach, Compare, Keys, PutAttach, RangeOptions, RangePart, Relation, Test, TransactionOperation,
};
use proptest::prelude::*;

use super::{Act, KEYS, LEASES, Part, Plan};

fn keys() -> impl Strategy<Value = Keys<'static>> {
    prop_oneof![
        4 => prop::sample::select(&KEYS[..]).prop_map(|key| Keys::Key(key.as_bytes())),
        1 => Just(Keys::Range(b"a", b"b")),
        1 => Just(Keys::Range(b"ab", b"cd")),
        1 => Just(Keys::Range(b"b", b"")),
        1 => Just(Keys::Range(b"x", b"y")),
        1 => Just(Keys::Prefix(b"")),
    ]
}

fn compare() -> impl Strategy<Value = Compare<'static>> {
    let relation = prop::sample::select(vec![
        Relation::Equal,
        Relation::NotEqual,
        Relation::Less,
        Relation::Greater,
    ]);
    (keys(), 0..5_u8, relation, 0..6_u64).prop_map(|(keys, kind, relation, number)| {
        let test = match kind {
            0 => Test::Revision(relation, Revision(number)),
            1 => Test::Created(relation, Revision(number)),
            2 => Test::Version(relation, number / 2),
            3 => Test::Lease(relation, if number < 3 { 0 } else { LEASES[number as usize - 3] }),
            _ => Test::Value(relation, [b"1", b"2", b"3"][number as usize % 3]),
        };
        Compare { keys, test }
    })
}

fn options() -> impl Strategy<Value = RangeOptions> {
    let part = prop::sample::select(vec![RangePart::Values, RangePart::Keys, RangePart::Count]);
    let revisions = || {
        prop_oneof![
            3 => Just((0, u64::MAX)),
            1 => (0..6_u64, 0..12_u64),
        ]
    };
    let at = prop::option::weighted(0.2, 0..12_u64);
    (0..4_u64, part, at, revisions(), revisions()).prop_map(
        |(keys_max, part, at, written, created)| {
            let of = |(least, most)| (Revision(least), Revision(most));
            let (written, created) = (of(written), of(created));
            RangeOptions { keys_max, part, at: at.map(Revision), written, created }
        },
    )
}

fn operation() -> impl Strategy<Value = TransactionOperation<'static>> {
    let key = || prop::sample::select(&KEYS[..]).prop_map(str::as_bytes);
    let value = || prop::sample::select(vec![&b"1"[..], b"2", b"3"]);
    let lease = || prop::sample::select(&LEASES[..]).prop_map(|id| Attach::Lease(LeaseId(id)));
    let attach = prop_oneof![
        3 => Just(PutAttach::Nothing),
        3 => lease().prop_map(PutAttach::To),
        1 => Just(PutAttach::AsBefore),
    ];
    prop_oneof![
        6 => (key(), prop::option::weighted(0.8, value()), attach, any::<bool>()).prop_map(
            |(key, value, attach, previous)| {
                TransactionOperation::PutWith { key, value, attach, previous }
            }
        ),
        2 => (keys(), any::<bool>())
            .prop_map(|(keys, previous)| TransactionOperation::DeleteWith { keys, previous }),
        3 => (keys(), options())
            .prop_map(|(keys, options)| TransactionOperation::Range { keys, options }),
        1 => key().prop_map(TransactionOperation::Get),
        1 => (key(), value()).prop_map(|(key, value)| TransactionOperation::Put(key, value)),
    ]
}

fn plan() -> impl Strategy<Value = Plan> {
    let list = |part: BoxedStrategy<Part>| prop::collection::vec(part, 0..3);
    let leaf = operation().prop_map(Part::Operation).boxed();
    let made = |(compares, then, otherwise)| Plan { compares, then, otherwise };
    let flat = (prop::collection::vec(compare(), 0..2), list(leaf.clone()), list(leaf.clone()))
        .prop_map(made)
        .boxed();
    flat.prop_recursive(3, 12, 3, move |inner| {
        let part = prop_oneof![3 => leaf.clone(), 1 => inner.prop_map(Part::Nested)].boxed();
        let compares = prop::collection::vec(compare(), 0..2);
        (compares, list(part.clone()), list(part)).prop_map(made).boxed()
    })
}

pub(super) fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        12 => plan().prop_map(Act::Transact),
        2 => (0..LEASES.len()).prop_map(Act::Grant),
        1 => (0..LEASES.len()).prop_map(Act::Revoke),
        1 => (0..=100_u64).prop_map(Act::Compact),
        1 => Just(Act::Evict),
        1 => Just(Act::Reload),
    ]
}
