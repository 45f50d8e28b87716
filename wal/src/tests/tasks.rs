//! Writer and segment manager as tasks, on a clock that the test drives.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::*;

const PACE: Duration = Duration::from_millis(7);

fn open(disk: &MemoryDisk) -> Wal {
    let pace = Box::new(|| PACE);
    Wal::open_with_tasks(Arc::new(disk.clone()), small(), no_hook(), pace).unwrap()
}

fn waiting() -> (Done, oneshot::Receiver<io::Result<()>>) {
    let (sender, receiver) = oneshot::channel();
    (Box::new(move |outcome| drop(sender.send(outcome))), receiver)
}

#[tokio::test(start_paused = true)]
async fn each_write_takes_its_time_and_serves_all_that_waited_when_it_began() {
    let disk = MemoryDisk::new();
    let wal = open(&disk);
    let log = wal.group(GroupId(1));
    let begun = Instant::now();
    let (first, first_done) = waiting();
    log.append(vec![(0, entry(1, 0, 0, 50))], first).unwrap();
    // The writer has begun when these arrive.
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut later = Vec::new();
    for index in 1..5 {
        let (done, told) = waiting();
        log.append(vec![(index, entry(1, index, 0, 50))], done).unwrap();
        later.push(told);
    }
    first_done.await.unwrap().unwrap();
    assert_eq!(begun.elapsed(), PACE);
    for told in later {
        told.await.unwrap().unwrap();
    }
    assert_eq!(begun.elapsed(), 2 * PACE);
    assert_eq!(wal.stats().fsyncs, 2);
}

#[tokio::test(start_paused = true)]
async fn segments_come_and_go_and_an_idle_log_is_sealed() {
    let disk = MemoryDisk::new();
    let wal = open(&disk);
    let log = wal.group(GroupId(1));
    for index in 0..40 {
        let (done, told) = waiting();
        log.append(vec![(index, entry(1, index, 0, 1000))], done).unwrap();
        told.await.unwrap().unwrap();
    }
    assert!(wal.stats().segments > 5);
    log.purge(38, Bytes::from_static(b"38"), ignore()).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(wal.stats().segments <= 3, "{:?}", wal.stats());

    // A sealed log has no torn tail: whatever the crash takes, the entry is there.
    let fsyncs = wal.stats().fsyncs;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(wal.stats().fsyncs, fsyncs, "sealed once");
    let again = Manual::open(&disk.crash(3)).unwrap();
    assert_eq!(again.group(1).state().last_index, Some(39));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_ends_the_log() {
    let disk = MemoryDisk::new();
    let wal = open(&disk);
    disk.fail_sync_after(0);
    let (done, told) = waiting();
    wal.group(GroupId(1)).append(vec![(0, entry(1, 0, 0, 50))], done).unwrap();
    assert!(told.await.unwrap().is_err());
    assert!(wal.stats().dead.is_some());
}
