use std::collections::BTreeMap;
use std::io::Cursor;

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::error::BoltError;
use crate::write::{Plan, Tree};

fn version(key: &str, value: &str, created: i64, revision: i64) -> KeyValue {
    KeyValue {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        create_revision: created,
        mod_revision: revision,
        version: 1,
        lease: 0,
    }
}

/// Writes the file of some keys.
fn file_of(keys: &[KeyValue], revision: i64, leases: &[Lease]) -> Vec<u8> {
    let mut spool = Spool::new(Cursor::new(Vec::new()));
    for key in keys {
        spool.add(key.mod_revision, &key.encode_to_vec()).unwrap();
    }
    let members = Members { index: 7, term: 2, voters: vec![1, u64::MAX], version: "3.6.0".into() };
    let spooled = spool.finish(revision, leases.iter().copied(), &members).unwrap();
    let (bytes, mut out) = (spooled.bytes(), Vec::new());
    spooled.write(&mut out).unwrap();
    assert_eq!(out.len() as u64, bytes);
    out
}

fn open(bytes: &[u8]) -> Result<SnapshotFile<Cursor<&[u8]>>, BoltError> {
    SnapshotFile::open(Cursor::new(bytes), Checksum::Check)
}

fn keys_of(file: &mut SnapshotFile<Cursor<&[u8]>>) -> Vec<KeyValue> {
    let mut keys = Vec::new();
    let read = file.keys(|key| {
        keys.push(key);
        Ok::<_, BoltError>(())
    });
    read.unwrap();
    keys
}

#[test]
fn what_was_written_comes_back_in_the_order_of_revisions() {
    let leases =
        [Lease { id: 5, ttl: 60, remaining_ttl: 0 }, Lease { id: 9, ttl: 5, remaining_ttl: 3 }];
    let keys = [version("a", "1", 2, 9), version("b", "2", 9, 9), version("c", "3", 4, 4)];
    let bytes = file_of(&keys, 12, &leases);
    let mut file = open(&bytes).unwrap();
    assert_eq!((file.revision(), file.count(), file.auth_enabled()), (12, 3, false));
    let [a, b, c] = keys;
    assert_eq!(keys_of(&mut file), [c, a, b]);
    let mut found = Vec::new();
    let read = file.leases(|lease| {
        found.push(lease);
        Ok::<_, BoltError>(())
    });
    read.unwrap();
    assert_eq!(found, leases);
}

#[test]
fn an_empty_store_is_a_file_too() {
    let bytes = file_of(&[], 1, &[]);
    let mut file = open(&bytes).unwrap();
    assert_eq!((file.revision(), file.count()), (1, 0));
    assert_eq!(keys_of(&mut file), []);
}

/// Writes a file as a member has it, with older versions and deletions.
fn with_history(rows: &[(i64, i64, bool, KeyValue)]) -> Vec<u8> {
    // A deletion has a byte more, so it needs a bucket of its own length here: none are inline.
    let entries: BTreeMap<Vec<u8>, Vec<u8>> = rows
        .iter()
        .map(|(main, sub, deleted, row)| {
            let mut key = RowRevision { main: *main, sub: *sub }.key().to_vec();
            key.extend(deleted.then_some(b't'));
            (key, row.encode_to_vec())
        })
        .collect();
    let auth = BTreeMap::from([(b"authEnabled".to_vec(), vec![1])]);
    let plan = Plan::new().small("auth", auth).small("key", entries);
    let mut out = Vec::new();
    plan.write(&mut out, |_, _| Ok(())).unwrap();
    out
}

#[test]
fn only_the_newest_versions_count() {
    let bytes = with_history(&[
        (2, 0, false, version("a", "1", 2, 2)),
        (3, 0, false, version("b", "1", 3, 3)),
        (4, 0, false, version("a", "2", 2, 4)),
        (5, 0, true, KeyValue { key: "b".into(), ..KeyValue::default() }),
        (6, 0, false, version("c", "1", 6, 6)),
        (6, 1, true, KeyValue { key: "c".into(), ..KeyValue::default() }),
        (6, 2, false, version("c", "2", 6, 6)),
        (90, 0, false, KeyValue::default()),
    ]);
    assert!(matches!(open(&bytes), Err(BoltError::NoChecksum)));
    let mut file = SnapshotFile::open(Cursor::new(&bytes[..]), Checksum::Skip).unwrap();
    assert_eq!((file.revision(), file.count(), file.auth_enabled()), (90, 2, true));
    assert_eq!(keys_of(&mut file), [version("a", "2", 2, 4), version("c", "2", 6, 6)]);
}

#[test]
fn other_files_are_refused() {
    let bytes = file_of(&[version("a", "1", 2, 2)], 2, &[]);
    for at in [0, 5000, bytes.len() - 40, bytes.len() - 1] {
        let mut wrong = bytes.clone();
        wrong[at] ^= 1;
        assert!(matches!(open(&wrong), Err(BoltError::WrongChecksum)), "byte {at}");
    }
    assert!(matches!(open(&bytes[..bytes.len() - 32]), Err(BoltError::NoChecksum)));
    assert!(matches!(open(b"key,value\n"), Err(BoltError::Foreign)));
    let mut tree = Tree::new(3);
    tree.add(1);
    let plan = Plan::new().tree("key", tree.finish());
    let mut other = Vec::new();
    plan.write(&mut other, |_, tree| tree.entry(b"abc", b"d")).unwrap();
    let other = SnapshotFile::open(Cursor::new(&other[..]), Checksum::Skip);
    assert!(matches!(other, Err(BoltError::NotEtcd("a key is no revision"))));
    let mut none = Vec::new();
    Plan::new().write(&mut none, |_, _| Ok(())).unwrap();
    let none = SnapshotFile::open(Cursor::new(&none[..]), Checksum::Skip);
    assert!(matches!(none, Err(BoltError::NotEtcd("it has no bucket of keys"))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damage_ends_in_an_error_or_other_keys(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let keys: Vec<KeyValue> =
            (2..300).map(|at| version(&format!("k{at}"), "value", at, at)).collect();
        let mut bytes = file_of(&keys, 300, &[Lease { id: 5, ttl: 60, remaining_ttl: 0 }]);
        for (at, new) in changes {
            let at = at.index(bytes.len());
            bytes[at] = new;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(mut file) = SnapshotFile::open(Cursor::new(&bytes[..]), Checksum::Skip) {
            let mut count = 0;
            let _ = file.keys(|_| { count += 1; Ok::<_, BoltError>(()) });
            let _ = file.leases(|_| Ok::<_, BoltError>(()));
            assert!(count <= 298);
        }
    }
}
