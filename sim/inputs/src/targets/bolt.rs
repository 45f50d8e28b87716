//! Snapshot files of etcd.

use std::collections::BTreeMap;
use std::io::Cursor;

use dkv_bolt::{BoltError, Checksum, Lease, Members, Plan, SnapshotFile, Spool, Tree};

pub(super) fn read(input: &[u8]) {
    let mut keys = 0;
    let read = SnapshotFile::open(Cursor::new(input), Checksum::Skip).and_then(|mut file| {
        file.leases(|_| Ok::<_, BoltError>(()))?;
        file.keys(|_| {
            keys += 1;
            Ok::<_, BoltError>(())
        })?;
        Ok(file.count())
    });
    // An entry of a page takes 16 bytes at least, and none is read twice.
    assert!(keys <= input.len() / 16);
    match read {
        Ok(count) => assert_eq!(keys as u64, count),
        Err(error) => super::assert_presentable(&error.to_string()),
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    vec![snapshot(0), snapshot(3), snapshot(300), small()]
}

/// Returns a file with some keys, as the product writes it.
fn snapshot(keys: i64) -> Vec<u8> {
    let mut spool = Spool::new(Cursor::new(Vec::new()));
    for number in 1..=keys {
        // A key of three letters, and a revision.
        let message =
            [&[10, 3, b'k', number as u8, (number >> 8) as u8, 24, 1, 42, 40][..], &[7; 40]];
        spool.add(number, &message.concat()).expect("memory");
    }
    let lease = Lease { id: 5, ttl: 60, remaining_ttl: 0 };
    let spooled = spool.finish(keys + 1, [lease], &Members::default()).expect("memory");
    let mut file = Vec::new();
    spooled.write(&mut file).expect("memory");
    file
}

/// Returns a database whose buckets lie inline, with a deletion.
fn small() -> Vec<u8> {
    let put = [&2_u64.to_be_bytes()[..], b"_", &[0; 8]].concat();
    let delete = [&3_u64.to_be_bytes()[..], b"_", &[0; 8], b"t"].concat();
    let rows = BTreeMap::from([(put, b"\x0a\x01k".to_vec()), (delete, b"\x0a\x01k".to_vec())]);
    let plan = Plan::new().small("key", rows).tree("lease", Tree::new(8).finish());
    let mut file = Vec::new();
    plan.write(&mut file, |_, _| Ok(())).expect("memory");
    file
}
