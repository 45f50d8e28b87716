use std::collections::BTreeMap;
use std::io::Cursor;

use proptest::prelude::*;

use super::*;
use crate::write::{Plan, Tree};

/// Returns a database with a tree of three levels, long values among its entries, and an inline
/// bucket.
fn sample() -> Vec<u8> {
    let values: Vec<Vec<u8>> =
        (0..700).map(|at| vec![at as u8; if at % 100 == 0 { 9000 } else { 1500 }]).collect();
    let mut tree = Tree::new(8);
    values.iter().for_each(|value| tree.add(value.len() as u32));
    let few = BTreeMap::from([(b"a".to_vec(), b"1".to_vec())]);
    let plan = Plan::new().small("few", few).tree("many", tree.finish());
    let mut out = Vec::new();
    let fill = |_: &str, tree: &mut crate::write::TreeWriter<'_, _>| {
        (0_u64..).zip(&values).try_for_each(|(at, value)| tree.entry(&at.to_be_bytes(), value))
    };
    plan.write(&mut out, fill).unwrap();
    out
}

/// Reads everything. Returns the number of entries.
fn read(bytes: &[u8]) -> Result<usize, BoltError> {
    let mut database = Database::open(Cursor::new(bytes), bytes.len() as u64)?;
    let mut count = 0;
    for (_, bucket) in database.buckets(10)? {
        let mut entries = database.entries(&bucket);
        while entries.next()?.is_some() {
            count += 1;
            // An entry takes 16 bytes at least, and none is read twice.
            assert!(count <= bytes.len() / 16);
        }
    }
    Ok(count)
}

/// Writes numbers into a copy of the sample, each at an offset of a page.
fn changed(page: usize, changes: &[(usize, &[u8])]) -> String {
    let mut bytes = sample();
    for (at, new) in changes {
        bytes[page * 4096 + at..][..new.len()].copy_from_slice(new);
    }
    read(&bytes).unwrap_err().to_string()
}

#[test]
fn damage_is_told() {
    let sample = sample();
    assert_eq!(read(&sample).unwrap(), 701);
    let pages = sample.len() / 4096;
    let root = pages - 2;
    let root_id = (root as u64).to_le_bytes();
    // The first leaf, and the root of the tree, whose first child is named at 24.
    assert!(changed(3, &[(0, &[9])]).contains("number of another page (page 3)"));
    assert!(changed(3, &[(8, &[4])]).contains("no page of a bucket"));
    assert!(changed(3, &[(10, &[0xff, 0xff])]).contains("more elements than fit"));
    assert!(changed(3, &[(12, &[0xff, 0xff, 0xff])]).contains("beyond the end"));
    assert!(changed(3, &[(28, &[0xff, 0xff])]).contains("beyond its page"));
    assert!(changed(6, &[(20, &[0xff; 4])]).contains("beyond its page"));
    assert!(changed(6, &[(20, &[0])]).contains("overlap"));
    assert!(changed(root, &[(24, &[0xff; 8])]).contains("no such page"));
    assert!(changed(root, &[(24, &[0; 8])]).contains("no such page"));
    assert!(changed(root, &[(24, &root_id)]).contains("too many levels"));
    // A leaf that another branch has, too: its keys come again.
    let second = u64::from_le_bytes(sample[root * 4096 + 40..][..8].try_into().unwrap());
    let again = changed(root, &[(24, &second.to_le_bytes())]);
    assert!(again.contains("out of order"), "{again}");
}

#[test]
fn no_page_is_read_again_and_again() {
    let mut bytes = sample();
    let root = bytes.len() / 4096 - 2;
    let branch = (root - 3) * 4096;
    let children = u16::from_le_bytes(bytes[branch + 10..][..2].try_into().unwrap());
    assert!(children > 100);
    // All children of a branch are the same leaf of three pages, which has no keys.
    bytes[3 * 4096 + 10] = 0;
    for child in 0..usize::from(children) {
        bytes[branch + 24 + child * 16..][..8].copy_from_slice(&3_u64.to_le_bytes());
    }
    let why = read(&bytes).unwrap_err().to_string();
    assert!(why.contains("two parents"), "{why}");
}

#[test]
fn one_meta_is_enough() {
    let sample = sample();
    for page in 0..2 {
        let mut bytes = sample.clone();
        bytes[page * 4096 + 20] ^= 1;
        assert_eq!(read(&bytes).unwrap(), 701);
        bytes[(1 - page) * 4096 + 20] ^= 1;
        assert!(matches!(read(&bytes), Err(BoltError::Foreign)));
    }
    assert!(matches!(read(b""), Err(BoltError::Foreign)));
    let cut = read(&sample[..sample.len() - 1]).unwrap_err();
    assert!(matches!(cut, BoltError::Short { .. }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_bytes_are_taken_for_more_than_they_are(
        changes in prop::collection::vec(
            (any::<prop::sample::Index>(), 0..64_usize, any::<u8>()),
            1..8,
        ),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = sample();
        for (page, at, new) in changes {
            // Headers and the first elements, of any page.
            let page = page.index(bytes.len() / 4096);
            bytes[page * 4096 + at] = new;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let _ = read(&bytes);
    }
}
