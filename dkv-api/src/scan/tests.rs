//! The merge, compared with a sorted list.

use std::collections::BTreeMap;

use dkv_base::id::Revision;
use proptest::prelude::*;

use super::*;

/// The page that a shard returns.
fn answer(keys: &BTreeMap<Vec<u8>, usize>, shard: usize, span: &Span, most: usize) -> Page {
    let mut matching = keys
        .iter()
        .filter(|(_, home)| **home == shard)
        .map(|(key, _)| key)
        .filter(|key| key.starts_with(&span.prefix) && key[..] > span.after[..]);
    let most = most.min(span.keys_max as usize);
    let pair = |key: &Vec<u8>| {
        let value = span.values.then(|| Bytes::from_static(b"v"));
        Pair::new(key.clone().into(), Revision(1), value)
    };
    let pairs = matching.by_ref().take(most).map(pair).collect();
    Page { pairs, more: matching.next().is_some() }
}

proptest! {
    #[test]
    fn all_keys_come_in_order_for_any_page_sizes(
        keys in prop::collection::btree_map(
            prop::collection::vec(0..4_u8, 1..5),
            0..7_usize,
            0..60,
        ),
        prefix in prop::collection::vec(0..4_u8, 0..2),
        after in prop::collection::vec(0..4_u8, 0..4),
        limit in prop::option::of(0..30_u64),
        most in 1..9_usize,
        values: bool,
    ) {
        let options = ScanOptions {
            prefix: prefix.clone().into(),
            after: after.clone().into(),
            limit,
            values,
            ..ScanOptions::default()
        };
        let mut merge = Merge::new(&options, (0..7).map(GroupId));
        let mut found = Vec::new();
        loop {
            for (shard, span) in merge.needed_pages() {
                let page = answer(&keys, shard.0 as usize, &span, most);
                merge.add_page(shard, Some(u64::from(shard.0)), page).unwrap();
            }
            if !merge.needed_pages().is_empty() {
                continue;
            }
            let more = merge.has_more();
            let Some(pair) = merge.pop() else {
                prop_assert!(!more);
                break;
            };
            prop_assert_eq!(pair.value.is_some(), values);
            found.push(pair.key.to_vec());
        }
        let expected: Vec<Vec<u8>> = keys
            .into_keys()
            .filter(|key| key.starts_with(&prefix) && *key > after)
            .take(limit.unwrap_or(u64::MAX) as usize)
            .collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(merge.staleness_ms(), if limit == Some(0) { Some(0) } else { Some(6) });
    }
}

#[test]
fn malformed_pages_are_refused() {
    let options = ScanOptions { after: "b".into(), ..ScanOptions::prefix("") };
    let mut merge = Merge::new(&options, std::iter::once(GroupId(1)));
    let pair = |key: &'static str| Pair::new(key.into(), Revision(1), None);
    for (keys, more) in
        [(&["a"][..], false), (&["c", "c"], false), (&["d", "c"], true), (&[], true)]
    {
        let pairs = keys.iter().map(|key| pair(key)).collect();
        assert!(merge.add_page(GroupId(1), None, Page { pairs, more }).is_err(), "{keys:?}");
    }
    assert_eq!((merge.needed_pages().len(), merge.staleness_ms()), (1, Some(0)));
    merge.add_page(GroupId(1), None, Page { pairs: vec![pair("c")], more: false }).unwrap();
    assert_eq!(merge.staleness_ms(), None);
    assert_eq!((merge.pop().unwrap().key, merge.pop()), ("c".into(), None));
}
