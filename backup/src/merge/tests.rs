//! The merge against a model: the log of a shard, applied up to the cut.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const STAMP: u64 = 1000;

fn put(key: u8, value: u64) -> Put {
    let (key, value) = (Bytes::from(vec![key]), Bytes::from(value.to_string()));
    Put { key, value, attachment: None }
}

/// A write of a key in a shard; its revision is its place in the log.
#[derive(Clone, Debug)]
struct Write {
    key: u8,
    is_delete: bool,
    /// The write is stamped after the moment of the cut.
    late: bool,
}

fn write() -> impl Strategy<Value = Write> {
    let one = (0_u8..12, any::<bool>(), prop::bool::weighted(0.1));
    one.prop_map(|(key, is_delete, late)| Write { key, is_delete, late })
}

/// Returns the keys after the first `length` writes; without those that came late, if they are not
/// to count.
fn state(log: &[Write], length: usize, with_late: bool) -> BTreeMap<u8, u64> {
    let mut keys = BTreeMap::new();
    for (index, write) in log[..length].iter().enumerate() {
        match write {
            Write { late: true, .. } if !with_late => {}
            Write { key, is_delete: true, .. } => _ = keys.remove(key),
            Write { key, .. } => _ = keys.insert(*key, index as u64 + 1),
        }
    }
    keys
}

proptest! {
    #[test]
    fn pages_and_changes_are_the_state_at_the_cut(
        log in prop::collection::vec(write(), 0..60),
        begun in 0_usize..60,
        cut in 0_usize..60,
        pages in prop::collection::vec(0_usize..60, 12),
        repeated in 0_usize..10,
    ) {
        // Late writes come only just before the cut, as the node makes sure.
        let begun = begun.min(log.len());
        let cut = cut.clamp(begun, log.len().max(begun)).min(log.len());
        let mut log = log;
        for write in &mut log[..begun] {
            write.late = false;
        }
        // Each key is read at some moment from the beginning to the cut, without late writes.
        let expected = state(&log, cut, false);
        let token: SnapshotToken = format!("{STAMP}:1={cut}").parse().unwrap();
        let mut overlay = Overlay::new(&token, tempfile::tempfile().unwrap());
        let change = |index: usize| {
            let Write { key, is_delete, late } = log[index].clone();
            let stamp = if late { STAMP + 1 } else { STAMP };
            let place = Place { shard: 1, revision: index as u64 + 1, stamp };
            match is_delete {
                true => Record::Delete(place, Bytes::from(vec![key])),
                false => Record::Put(place, put(key, index as u64 + 1)),
            }
        };
        for index in begun..log.len() {
            overlay.add(change(index)).unwrap();
        }
        // What an interrupted writer has written twice.
        for index in begun..(begun + repeated).min(log.len()) {
            overlay.add(change(index)).unwrap();
        }
        let other = Place { shard: 2, revision: 1, stamp: 1 };
        overlay.add(Record::Put(other, put(99, 1))).unwrap();
        let mut merge = Merge::new(overlay.finish().unwrap());
        let mut entries = Vec::new();
        for key in 0_u8..12 {
            let at = begun + pages[usize::from(key)] % (cut - begun + 1);
            if let Some(value) = state(&log, at, false).get(&key) {
                merge.page(put(key, *value), &mut entries).unwrap();
            }
        }
        while merge.rest(3, &mut entries).unwrap() {}
        let number = |value: &Bytes| String::from_utf8(value.to_vec()).unwrap().parse().unwrap();
        let found: Vec<(u8, u64)> =
            entries.iter().map(|entry| (entry.key[0], number(&entry.value))).collect();
        prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn pages_out_of_order_are_refused() {
    let token: SnapshotToken = "1:1=1".parse().unwrap();
    let overlay = Overlay::new(&token, tempfile::tempfile().unwrap());
    let mut merge = Merge::new(overlay.finish().unwrap());
    let mut entries = Vec::new();
    merge.page(put(2, 1), &mut entries).unwrap();
    assert!(matches!(merge.page(put(2, 1), &mut entries), Err(MergeError::OutOfOrder)));
    assert!(matches!(merge.page(put(1, 1), &mut entries), Err(MergeError::OutOfOrder)));
}
