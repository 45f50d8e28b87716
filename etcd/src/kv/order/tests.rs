//! Tests of the order, against a model that sorts everything and then cuts.

use bytes::Bytes;
use proptest::prelude::*;

use super::Sorted;
use crate::kv::plan::Order;
use crate::limits::{KEY_OVERHEAD_BYTES, SORT_SLACK_BYTES};
use crate::proto::etcdserverpb::range_request::SortTarget;
use crate::proto::mvccpb::KeyValue;

fn keys() -> impl Strategy<Value = Vec<KeyValue>> {
    let numbers = (0..4_i64, 0..4_i64, 0..4_i64, 0..4_u8);
    proptest::collection::vec(numbers, 0..4000).prop_map(|all| {
        let with_key = |(index, (create_revision, mod_revision, version, value)): (usize, _)| {
            let value: u8 = value;
            KeyValue {
                key: Bytes::from(format!("{index:05}")),
                create_revision,
                mod_revision,
                version,
                value: Bytes::from(vec![value]),
                lease: 0,
            }
        };
        all.into_iter().enumerate().map(with_key).collect()
    })
}

fn orders() -> impl Strategy<Value = Order> {
    let targets = [
        SortTarget::Key,
        SortTarget::Version,
        SortTarget::Create,
        SortTarget::Mod,
        SortTarget::Value,
    ];
    (proptest::sample::select(targets.to_vec()), any::<bool>())
        .prop_map(|(target, descending)| Order { target, descending })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_first_of_an_order_are_those_of_a_whole_sort(
        keys in keys(),
        order in orders(),
        limit in proptest::option::of(0..3000_usize),
        page in 1..700_usize,
    ) {
        let mut sorted = Sorted::new(order, limit);
        for page in keys.chunks(page) {
            sorted.add(page.iter().cloned());
        }
        let (found, more) = sorted.finish();

        // In the model, the place among the keys decides what the order does not.
        let mut model: Vec<(usize, &KeyValue)> = keys.iter().enumerate().collect();
        model.sort_by(|(place, one), (other_place, other)| {
            let number = |key: &KeyValue| match order.target {
                SortTarget::Key => key.key.to_vec(),
                SortTarget::Version => vec![key.version as u8],
                SortTarget::Create => vec![key.create_revision as u8],
                SortTarget::Mod => vec![key.mod_revision as u8],
                SortTarget::Value => key.value.to_vec(),
            };
            let (one, other) = (number(one), number(other));
            let by_target = if order.descending { other.cmp(&one) } else { one.cmp(&other) };
            by_target.then(place.cmp(other_place))
        });
        let limit = limit.unwrap_or(usize::MAX);
        let expected: Vec<KeyValue> =
            model.iter().take(limit).map(|(_, key)| (*key).clone()).collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(more, model.len() > limit);
    }
}

#[test]
fn long_values_beyond_the_limit_are_not_kept() {
    static VALUE: [u8; 1 << 20] = [0; 1 << 20];
    let order = Order { target: SortTarget::Create, descending: true };
    let mut sorted = Sorted::new(order, Some(2));
    for create_revision in 0..200 {
        let value = Bytes::from_static(&VALUE);
        sorted.add([KeyValue { create_revision, value, ..KeyValue::default() }]);
        assert!(sorted.bytes() < SORT_SLACK_BYTES + 3 * (VALUE.len() + KEY_OVERHEAD_BYTES));
    }
    let (found, more) = sorted.finish();
    let found: Vec<i64> = found.iter().map(|key| key.create_revision).collect();
    assert_eq!((found, more), (vec![199, 198], true));
}
