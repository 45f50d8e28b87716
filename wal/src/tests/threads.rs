//! The complete log: threads, a directory, and many callers.

use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::disk::{Disk, RealDisk};

fn open(path: &std::path::Path, options: WalOptions) -> Wal {
    Wal::open(Arc::new(RealDisk::open(path).unwrap()), options, no_hook()).unwrap()
}

#[test]
fn one_sync_serves_many_callers_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let options = WalOptions { segment_bytes: 256 * 1024, ..small() };
    let wal = open(directory.path(), options.clone());
    let (threads, each) = (8_u32, 200_u64);
    std::thread::scope(|scope| {
        for id in 0..threads {
            let log = wal.group(GroupId(id % 4 + id / 4 * 10));
            scope.spawn(move || {
                let (sender, receiver) = mpsc::channel();
                for index in 0..each {
                    let sender = sender.clone();
                    let done: Done = Box::new(move |outcome| {
                        outcome.unwrap();
                        sender.send(index).unwrap();
                    });
                    // A few at a time, so that a frame has entries of several callers.
                    log.append(vec![(index, entry(id, index, 0, 200))], done).unwrap();
                    if index % 8 == 7 {
                        let told: Vec<u64> = receiver.iter().take(8).collect();
                        assert!(told.is_sorted() && told.last() == Some(&index), "{told:?}");
                    }
                }
            });
        }
    });
    let stats = wal.stats();
    assert_eq!(stats.entries_written, u64::from(threads) * each);
    assert!(stats.fsyncs < stats.entries_written / 4, "{stats:?}");
    assert!(stats.cached_bytes <= 600, "{stats:?}");
    let groups = wal.groups();
    let all: Vec<_> = groups.iter().map(|id| wal.group(*id).read(..).unwrap()).collect();
    assert_eq!(all.iter().map(Vec::len).sum::<usize>(), 1600);
    wal.close();

    let wal = open(directory.path(), options);
    assert_eq!(wal.groups(), groups);
    let again: Vec<_> = groups.iter().map(|id| wal.group(*id).read(..).unwrap()).collect();
    assert_eq!(all, again);
    wal.close();
}

#[test]
fn long_frames_fill_segments_that_were_only_allocated() {
    let directory = tempfile::tempdir().unwrap();
    let options = WalOptions { segment_bytes: 64 * 1024, ..small() };
    let wal = open(directory.path(), options.clone());
    let log = wal.group(GroupId(1));
    let (sender, receiver) = mpsc::channel();
    for index in 0..40 {
        let sender = sender.clone();
        let done: Done = Box::new(move |outcome| sender.send(outcome.is_ok()).unwrap());
        log.append(vec![(index, entry(1, index, 0, 10_000))], done).unwrap();
        assert!(receiver.recv().unwrap());
    }
    let all = log.read(..).unwrap();
    wal.close();

    let wal = open(directory.path(), options);
    assert_eq!(wal.group(GroupId(1)).read(..).unwrap(), all);
    assert_eq!(all.len(), 40);
    wal.close();
}

#[test]
fn an_allocated_file_has_its_length_and_is_of_zeros() {
    let directory = tempfile::tempdir().unwrap();
    let disks: [Arc<dyn Disk>; 2] =
        [Arc::new(RealDisk::open(directory.path()).unwrap()), Arc::new(MemoryDisk::new())];
    for disk in disks {
        let file = disk.create("file").unwrap();
        file.write_at(b"head", 0).unwrap();
        match file.allocate(5000) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => continue,
            other => other.unwrap(),
        }
        file.sync_data().unwrap();
        assert_eq!(file.bytes().unwrap(), 5000);
        let mut read = vec![1; 5000];
        file.read_at(&mut read, 0).unwrap();
        assert!(read.starts_with(b"head") && read[4..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn an_idle_log_seals_and_a_directory_has_one_owner() {
    let directory = tempfile::tempdir().unwrap();
    let wal = open(directory.path(), small());
    assert!(RealDisk::open(directory.path()).is_err(), "locked");
    let (sender, receiver) = mpsc::channel();
    let done = Box::new(move |outcome: io::Result<()>| sender.send(outcome.is_ok()).unwrap());
    wal.group(GroupId(3)).save_vote(Bytes::from_static(b"me"), done).unwrap();
    assert!(receiver.recv_timeout(Duration::from_secs(10)).unwrap());
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while wal.stats().fsyncs < 2 {
        assert!(std::time::Instant::now() < deadline, "no seal: {:?}", wal.stats());
        std::thread::sleep(Duration::from_millis(5));
    }
    wal.group(GroupId(3)).save_committed(Bytes::from_static(b"here")).unwrap();
    while wal.stats().fsyncs < 3 {
        assert!(std::time::Instant::now() < deadline, "committed stays in memory");
        std::thread::sleep(Duration::from_millis(5));
    }
    let fsyncs = wal.stats().fsyncs;
    std::thread::sleep(Duration::from_millis(150));
    assert_eq!(wal.stats().fsyncs, fsyncs, "sealed once");
    wal.close();
    assert!(wal.group(GroupId(3)).save_committed(Bytes::new()).is_err(), "closed");
    drop(wal);
    let wal = open(directory.path(), WalOptions { must_exist: true, ..small() });
    assert_eq!(wal.group(GroupId(3)).state().committed, Some(Bytes::from_static(b"here")));
    wal.close();
}

#[test]
fn a_callback_may_drop_the_last_handle_or_panic() {
    let directory = tempfile::tempdir().unwrap();
    let wal = open(directory.path(), small());
    let log = wal.group(GroupId(1));
    let last = log.clone();
    let (sender, receiver) = mpsc::channel();
    let done = Box::new(move |_| {
        wal.close();
        drop((wal, last));
        sender.send(()).unwrap();
    });
    log.save_vote(Bytes::from_static(b"x"), done).unwrap();
    drop(log);
    receiver.recv_timeout(Duration::from_secs(10)).unwrap();
    // The lock is released when the threads end.
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    let disk = loop {
        match RealDisk::open(directory.path()) {
            Ok(disk) => break disk,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let (sender, receiver) = mpsc::channel();
    let hook = Box::new(move |_: &str| sender.send(()).unwrap());
    let wal = Wal::open(Arc::new(disk), small(), hook).unwrap();
    let told = Told::default();
    let log = wal.group(GroupId(1));
    log.save_vote(Bytes::from_static(b"y"), Box::new(|_| panic!("on purpose"))).unwrap();
    receiver.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(log.save_vote(Bytes::new(), told.done().1).is_err());
    wal.close();
}

#[test]
fn a_log_that_must_exist_is_not_made() {
    let directory = tempfile::tempdir().unwrap();
    let disk = RealDisk::open(directory.path().join("a/b")).unwrap();
    assert!(disk.free_bytes().unwrap() > 0);
    let options = WalOptions { must_exist: true, ..small() };
    let opened = Wal::open(Arc::new(disk), options, no_hook());
    assert!(matches!(opened, Err(WalError::Missing)));
}
