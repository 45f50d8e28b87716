use std::collections::BTreeMap;
use std::io::Cursor;

use proptest::prelude::*;

use super::*;
use crate::read::Database;

/// Writes a database with one tree.
fn written(values: &[Vec<u8>]) -> Vec<u8> {
    let mut tree = Tree::new(8);
    values.iter().for_each(|value| tree.add(value.len() as u32));
    let few = BTreeMap::from([(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), Vec::new())]);
    let plan = Plan::new().small("few", few).tree("many", tree.finish()).small("x", [].into());
    let mut out = Vec::new();
    plan.write(&mut out, |name, tree| {
        assert_eq!(name, "many");
        let numbered = (0_u64..).zip(values);
        for (number, value) in numbered {
            tree.entry(&number.to_be_bytes(), value)?;
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(out.len() as u64, plan.bytes());
    out
}

/// Reads all entries of a bucket.
fn entries(database: &mut Database<Cursor<&Vec<u8>>>, name: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let buckets = database.buckets(10).unwrap();
    let (_, bucket) = buckets.iter().find(|(it, _)| it == name.as_bytes()).unwrap();
    let mut entries = database.entries(bucket);
    let mut all = Vec::new();
    while let Some(entry) = entries.next().unwrap() {
        all.push((entry.key.to_vec(), entry.value.to_vec()));
    }
    all
}

fn check(values: &[Vec<u8>]) {
    let bytes = written(values);
    let mut database = Database::open(Cursor::new(&bytes), bytes.len() as u64).unwrap();
    let names: Vec<_> = database.buckets(10).unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["few", "many", "x"]);
    assert_eq!(entries(&mut database, "few").len(), 2);
    assert_eq!(entries(&mut database, "x"), []);
    let read = entries(&mut database, "many");
    let expected = (0_u64..).zip(values).map(|(key, it)| (key.to_be_bytes().to_vec(), it.clone()));
    assert_eq!(read, expected.collect::<Vec<_>>());
}

#[test]
fn trees_of_every_height_come_back() {
    // Two entries fill a leaf; a branch has 170 children.
    for count in [0, 1, 2, 3, 4, 170 * 2, 170 * 2 + 1, 171 * 2 + 1, 170 * 170 * 2 + 1] {
        check(&vec![vec![7; 2000]; count]);
    }
}

#[test]
fn other_entries_than_planned_are_refused() {
    let mut tree = Tree::new(8);
    tree.add(3);
    tree.add(3);
    let plan = Plan::new().tree("many", tree.finish());
    let fill = |keys: &'static [&'static [u8]]| {
        plan.write(Vec::new(), |_, tree| keys.iter().try_for_each(|key| tree.entry(key, b"abc")))
    };
    assert!(fill(&[b"00000000", b"00000001"]).is_ok());
    assert!(fill(&[b"00000000"]).is_err());
    assert!(fill(&[b"00000000", b"00000001", b"00000002"]).is_err());
    assert!(fill(&[b"00000000", b"short"]).is_err());
    let longer = |_: &str, tree: &mut TreeWriter<'_, Vec<u8>>| {
        tree.entry(b"00000000", &[0; 9000])?;
        tree.entry(b"00000001", b"abc")
    };
    assert!(plan.write(Vec::new(), longer).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_entries_come_back(sizes in prop::collection::vec(
        prop_oneof![0..100_usize, 0..5000_usize, 4000..4200_usize, 0..100_000_usize], 0..200,
    )) {
        let values: Vec<Vec<u8>> = sizes.iter().map(|&size| vec![size as u8; size]).collect();
        check(&values);
    }
}
