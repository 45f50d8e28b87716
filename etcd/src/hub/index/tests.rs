//! Tests of the index: it finds what a look at every watcher finds.

use std::collections::BTreeMap;

use bytes::Bytes;
use dkv_api::KeyRange;
use proptest::prelude::*;

use super::{Index, Tree};

fn keys() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), Just(u8::MAX)], 1..4)
        .prop_map(Bytes::from)
}

fn ranges() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        keys().prop_map(KeyRange::Key),
        keys().prop_map(KeyRange::Prefix),
        Just(KeyRange::Prefix(Bytes::new())),
        keys().prop_map(|from| KeyRange::Range(from, Bytes::new())),
        (keys(), keys()).prop_map(|(a, b)| match a.cmp(&b) {
            std::cmp::Ordering::Less => KeyRange::Range(a, b),
            std::cmp::Ordering::Equal => KeyRange::Key(a),
            std::cmp::Ordering::Greater => KeyRange::Range(b, a),
        }),
    ]
}

fn depth(tree: &Tree) -> usize {
    tree.as_ref().map_or(0, |node| 1 + depth(&node.left).max(depth(&node.right)))
}

proptest! {
    #[test]
    fn it_finds_what_a_look_at_every_watcher_finds(
        steps in proptest::collection::vec((any::<bool>(), 0_u64..20, ranges()), 1..80),
        asked in proptest::collection::vec(keys(), 1..20),
    ) {
        let (mut index, mut model) = (Index::default(), BTreeMap::new());
        for (joins, watcher, keys) in steps {
            if let Some(before) = model.remove(&watcher) {
                index.remove(&before, watcher);
            }
            if joins {
                index.insert(&keys, watcher);
                model.insert(watcher, keys);
            }
            for key in &asked {
                let mut found = Vec::new();
                index.find(key, &mut found);
                found.sort_unstable();
                let expected: Vec<u64> = model
                    .iter()
                    .filter(|(_, keys)| keys.contains(key))
                    .map(|(watcher, _)| *watcher)
                    .collect();
                prop_assert_eq!(found, expected);
            }
        }
        for (watcher, keys) in model {
            index.remove(&keys, watcher);
        }
        prop_assert!(index.keys.is_empty() && index.ranges.is_none());
    }
}

#[test]
fn thousands_of_nested_ranges_leave_it_shallow() {
    let mut index = Index::default();
    for watcher in 0..8192_u64 {
        let from = Bytes::from(format!("{watcher:05}"));
        index.insert(
            &KeyRange::Range(from, Bytes::from(format!("9{:05}", 8192 - watcher))),
            watcher,
        );
    }
    assert!(depth(&index.ranges) < 64, "{}", depth(&index.ranges));
    let mut found = Vec::new();
    index.find(&Bytes::from("00002"), &mut found);
    assert_eq!(found, [0, 1, 2]);
}
