//! Files of unneeded segments are used again: their old content is never seen, and no reader of
//! such a file finds the content of another segment in it.

use super::*;
use crate::disk::Disk;

/// Appends entries that are so long that their segments are not filled with zeros, and purges all
/// but the last two.
fn append_and_purge(wal: &mut Manual, indexes: std::ops::Range<u64>) {
    for index in indexes {
        let group = wal.group(1);
        group.append(vec![(index, entry(1, index, 0, 1500))], ignore()).unwrap();
        wal.settle();
        if let Some(purged) = index.checked_sub(2) {
            group.purge(purged, Bytes::from_static(b"id"), ignore()).unwrap();
            wal.settle();
        }
    }
}

fn names(disk: &MemoryDisk, ending: &str) -> Vec<String> {
    let mut names = disk.list().unwrap();
    names.retain(|name| name.ends_with(ending));
    names.sort();
    names
}

#[test]
fn what_a_file_held_before_is_not_seen() {
    let disk = MemoryDisk::new();
    let mut wal = Manual::open(&disk).unwrap();
    append_and_purge(&mut wal, 0..40);
    assert!(names(&disk, ".tmp").len() <= 2, "{:?}", disk.list());
    // Frames of other segments follow the end of the last one.
    let spare = names(&disk, ".wal").pop().unwrap();
    let held = disk.contents(&spare).unwrap();
    let stale = b"1/".as_slice();
    assert!(held.windows(stale.len()).any(|bytes| bytes == stale), "{spare} is of zeros");
    let said = |wal: &Manual| (wal.group(1).state(), wal.group(1).read(..).unwrap());
    let before = said(&wal);
    for seed in 0..50 {
        let crashed = disk.crash(seed);
        let mut wal = Manual::open(&crashed).unwrap();
        assert_eq!(said(&wal), before);
        assert!(names(&crashed, ".tmp").is_empty());
        append_and_purge(&mut wal, 40..50);
        let after = said(&wal);
        assert_eq!(said(&Manual::open(&crashed.crash(seed)).unwrap()), after);
    }
}

#[test]
fn a_segment_whose_entries_went_while_it_was_in_use_goes_with_the_next() {
    let disk = MemoryDisk::new();
    let mut wal = Manual::open(&disk).unwrap();
    wal.group(1).append(vec![(1, entry(1, 1, 0, 2000))], ignore()).unwrap();
    wal.settle();
    wal.group(1).purge(1, Bytes::from_static(b"id"), ignore()).unwrap();
    wal.settle();
    let first = names(&disk, ".wal").remove(0);
    // Nothing is purged from here on.
    wal.group(2).append(vec![(1, entry(2, 1, 0, 2000))], ignore()).unwrap();
    wal.settle();
    assert!(wal.wal.stats().oldest.iter().all(|(group, _)| *group == GroupId(2)));
    assert!(!names(&disk, ".wal").contains(&first), "{:?}", disk.list());
}

#[test]
fn a_file_that_is_read_is_not_used_again() {
    let disk = MemoryDisk::new();
    let mut wal = Manual::open(&disk).unwrap();
    append_and_purge(&mut wal, 0..20);
    let reading = wal.group(1).reading(18, 19, u64::MAX);
    assert!(!reading.is_in_memory());
    append_and_purge(&mut wal, 20..40);
    assert_eq!(reading.entries().unwrap(), [(18, entry(1, 18, 0, 1500))]);
}

#[test]
fn a_short_disk_keeps_nothing() {
    let disk = MemoryDisk::new();
    let options = WalOptions { reserve_bytes: 100_000, ..small() };
    let mut wal = Manual::open_with(&disk, options, no_hook()).unwrap();
    append_and_purge(&mut wal, 0..20);
    assert!(!names(&disk, ".tmp").is_empty());
    disk.set_free_bytes(Some(50_000));
    append_and_purge(&mut wal, 20..23);
    assert!(names(&disk, ".tmp").is_empty(), "{:?}", disk.list());
}
