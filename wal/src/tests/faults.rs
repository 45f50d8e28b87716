//! Disks that fail, and disks that are full.

use super::*;
use crate::disk::Disk;

fn bytes(count: usize) -> Bytes {
    Bytes::from(vec![b'x'; count])
}

#[test]
fn a_failed_sync_ends_the_log_once_and_for_all() {
    let disk = MemoryDisk::new();
    let fatal = Arc::new(AtomicU64::new(0));
    let counter = fatal.clone();
    let hook = Box::new(move |_: &str| {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let mut wal = Manual::open_with(&disk, small(), hook).unwrap();
    wal.settle();
    let told = Told::default();
    let log = wal.group(1);
    log.append(vec![(0, bytes(10))], told.done().1).unwrap();
    wal.settle();
    log.append(vec![(1, bytes(10))], told.done().1).unwrap();
    log.save_vote(bytes(3), told.done().1).unwrap();
    disk.fail_sync_after(0);
    assert_eq!(wal.writer.step(), WriterStep::Worked);
    let error = Err(io::ErrorKind::Other);
    assert_eq!(told.list(), vec![(0, Ok(())), (1, error), (2, error)]);

    // The disk would work again, but the log must not rely on it.
    let syncs = disk.syncs();
    assert!(log.append(vec![(2, bytes(10))], ignore()).is_err());
    assert!(log.save_vote(bytes(3), ignore()).is_err());
    assert!(log.save_committed(bytes(3)).is_err());
    assert!(log.truncate_from(1, ignore()).is_err());
    assert!(log.purge(0, bytes(0), ignore()).is_err());
    assert!(log.forget(ignore()).is_err());
    for _ in 0..3 {
        assert_eq!(wal.writer.step_idle(), WriterStep::Stopped);
        assert_eq!(wal.segment_manager.step(), SegmentManagerStep::Stopped);
    }
    assert_eq!((disk.syncs(), fatal.load(Ordering::SeqCst)), (syncs, 1));
    assert!(wal.wal.stats().dead.unwrap().contains("sync failed"));
}

#[test]
fn a_segment_manager_that_fails_ends_the_log_too() {
    let disk = MemoryDisk::new();
    let mut wal = Manual::open(&disk).unwrap();
    let told = Told::default();
    wal.group(1).append(vec![(0, bytes(10))], told.done().1).unwrap();
    wal.writer.step();
    disk.fail_sync_after(0);
    assert_eq!(wal.segment_manager.step(), SegmentManagerStep::Worked);
    assert_eq!(wal.writer.step(), WriterStep::Stopped);
    assert!(wal.group(1).append(vec![(1, bytes(10))], told.done().1).is_err());
    assert_eq!(told.list(), vec![(0, Ok(()))]);
}

#[test]
fn a_full_disk_is_waited_for() {
    let disk = MemoryDisk::new();
    let mut wal = Manual::open(&disk).unwrap();
    disk.set_free_bytes(Some(5000));
    let told = Told::default();
    let log = wal.group(1);
    let mut index = 0;
    let mut append = || {
        index += 1;
        log.append(vec![(index, bytes(900))], told.done().1).unwrap();
    };
    // The first segment, then the spare that there is room for; then none is prepared any more.
    while !wal.wal.stats().short_of_room {
        append();
        wal.writer.step();
        wal.segment_manager.step();
    }
    let stats = wal.wal.stats();
    assert!(!stats.waiting_for_room, "the segment in use still takes writes: {stats:?}");
    while wal.wal.stats().staged_bytes == 0 {
        append();
        wal.settle();
    }
    append();
    assert_eq!(wal.segment_manager.step(), SegmentManagerStep::NoRoom);
    assert_eq!(wal.writer.step(), WriterStep::NeedsSegment);
    assert!(wal.wal.stats().waiting_for_room);
    let waiting = told.list().len() as u64;
    assert!(waiting < index);
    let unfinished = disk.list().unwrap().into_iter().find(|name| name.ends_with(".tmp"));
    assert_eq!(unfinished, None);
    assert_eq!(log.read(..).unwrap().len() as u64, index, "what waits can be read");

    disk.set_free_bytes(Some(100_000));
    wal.settle();
    let stats = wal.wal.stats();
    assert!(!stats.waiting_for_room && !stats.short_of_room && stats.dead.is_none());
    assert_eq!(told.list().len() as u64, index);
    assert!(told.list().iter().all(|(_, outcome)| outcome.is_ok()));
}

#[test]
fn what_frees_room_may_use_the_reserve() {
    let disk = MemoryDisk::new();
    let options = WalOptions { reserve_bytes: 6000, ..small() };
    disk.set_free_bytes(Some(4096 + 6000));
    let mut wal = Manual::open_with(&disk, options, no_hook()).unwrap();
    let log = wal.group(1);
    let mut index = 0;
    while wal.wal.stats().staged_bytes == 0 {
        index += 1;
        log.append(vec![(index, bytes(900))], ignore()).unwrap();
        wal.settle();
    }
    assert!(wal.wal.stats().waiting_for_room);
    log.purge(index, Bytes::new(), ignore()).unwrap();
    wal.settle();
    let stats = wal.wal.stats();
    assert!(!stats.waiting_for_room && stats.staged_bytes == 0, "{stats:?}");
    assert_eq!(stats.oldest, vec![]);
}

#[test]
fn closing_does_not_wait_for_room() {
    let disk = MemoryDisk::new();
    let wal = Wal::open(Arc::new(disk.clone()), small(), no_hook()).unwrap();
    let told = Told::default();
    disk.set_free_bytes(Some(0));
    for index in 0..20 {
        wal.group(GroupId(1)).append(vec![(index, bytes(900))], told.done().1).unwrap();
    }
    wal.close();
    let list = told.list();
    assert_eq!(list.len(), 20);
    let (_, last) = list.last().unwrap();
    assert_eq!(*last, Err(io::ErrorKind::StorageFull));
}

#[test]
fn a_full_stage_pushes_back() {
    let disk = MemoryDisk::new();
    let options = WalOptions { staged_bytes: 64 * 1024, ..small() };
    let mut wal = Manual::open_with(&disk, options, no_hook()).unwrap();
    let log = wal.group(1);
    let mut index = 0;
    let refused = loop {
        match log.append(vec![(index, bytes(5000))], ignore()) {
            Ok(()) => index += 1,
            Err(error) => break error,
        }
        if index > 100 {
            panic!("the stage has no bound");
        }
    };
    assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
    assert!(wal.wal.stats().staged_bytes < 64 * 1024 + 6000);
    let mut waiting = Box::pin(log.append_when_ready(vec![(index, bytes(10))], ignore()));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    wal.settle();
    assert!(waiting.as_mut().poll(&mut context).is_ready());
    assert_eq!(log.state().last_index, Some(index));

    while log.append(vec![(log.state().next_index.unwrap(), bytes(9000))], ignore()).is_ok() {}
    let mut waiting = Box::pin(log.append_when_ready(vec![(index + 1, bytes(10))], ignore()));
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    wal.wal.close();
    assert!(waiting.as_mut().poll(&mut context).is_ready(), "closing ends the wait");
}
