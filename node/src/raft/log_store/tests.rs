use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use dkv_base::id::GroupId;
use futures::{StreamExt, TryStreamExt};
use openraft::EntryPayload;

use super::super::Proposal;
use super::super::codec::log_id;
use super::*;
use dkv_wal::disk::MemoryDisk;
use dkv_wal::{Wal, WalOptions};

const ENTRIES: u64 = 16;
const ENTRY_BYTES: usize = 400 * 1024;

fn entry(index: u64) -> Entry {
    let batch = Bytes::from(vec![index as u8; ENTRY_BYTES]);
    Entry { log_id: log_id(3, index), payload: EntryPayload::Normal(Proposal(batch)) }
}

/// Returns a log of `ENTRIES` entries, all or none of which are in memory.
fn store(cache_bytes: usize) -> (LogStore, MemoryDisk, Wal) {
    let disk = MemoryDisk::new();
    let options = WalOptions { cache_bytes, ..WalOptions::default() };
    let wal = Wal::open(Arc::new(disk.clone()), options, Box::new(|_| ())).unwrap();
    let log = wal.group(GroupId(1));
    for index in 1..=ENTRIES {
        let (sender, written) = mpsc::channel();
        let done = Box::new(move |result| sender.send(result).unwrap());
        log.append(vec![(index, encode_entry(&entry(index)))], done).unwrap();
        written.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
    }
    (LogStore::new(log, EntryTimes::default(), Checkpointed::default()), disk, wal)
}

fn indexes(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.log_id.index).collect()
}

#[tokio::test]
async fn what_has_left_memory_is_read_on_no_thread_of_the_runtime() {
    let (mut store, disk, _wal) = store(0);
    let (sender, readers) = mpsc::channel();
    // All tasks of this runtime run on this thread.
    let elsewhere = || {
        let reader = readers.try_recv().expect("nothing was read");
        assert_ne!(reader, thread::current().id());
    };
    let watch = || {
        let sender = sender.clone();
        disk.before_next_read(move || sender.send(thread::current().id()).unwrap());
    };
    watch();
    let few = store.limited_get_log_entries(3, 9).await.unwrap();
    assert_eq!(few, [entry(3), entry(4)]);
    elsewhere();
    watch();
    assert_eq!(indexes(&store.try_get_log_entries(3..=6).await.unwrap()), [3, 4, 5, 6]);
    elsewhere();
    watch();
    assert_eq!(store.get_log_state().await.unwrap().last_log_id, Some(log_id(3, ENTRIES)));
    elsewhere();
    watch();
    let all: Vec<_> = store.entries_stream(2..5).await.try_collect().await.unwrap();
    assert_eq!(all, [entry(2), entry(3), entry(4)]);
    elsewhere();
}

#[tokio::test]
async fn what_is_in_memory_is_read_at_once() {
    let (mut store, disk, _wal) = store(64 * 1024 * 1024);
    let before = disk.bytes_read();
    let read = futures::poll!(std::pin::pin!(store.limited_get_log_entries(3, 9)));
    assert!(read.is_ready());
    assert_eq!(disk.bytes_read(), before);
}

#[tokio::test]
async fn a_stream_reads_no_more_than_its_bound_ahead() {
    let (mut store, disk, wal) = store(0);
    let before = disk.bytes_read();
    let mut reader = store.clone();
    let stream = reader.entries_stream(1..=ENTRIES).await;
    let mut stream = std::pin::pin!(stream);
    for index in 1..=ENTRIES {
        assert_eq!(stream.next().await.unwrap().unwrap(), entry(index));
        let ahead = disk.bytes_read() - before - (index - 1) * ENTRY_BYTES as u64;
        // Two entries fit; each has a few bytes in front of it.
        assert!(ahead < READ_BYTES_MAX + 4096, "{ahead} bytes at entry {index}");
    }
    assert!(stream.next().await.is_none());

    // A range with no entries, and one that reaches beyond the last.
    assert_eq!(store.entries_stream(5..5).await.count().await, 0);
    let beyond: Vec<_> = store.entries_stream(15..100).await.try_collect().await.unwrap();
    assert_eq!(indexes(&beyond), [15, 16]);

    // Purged entries are missing at the front, and never in the middle.
    let mut reader = store.clone();
    let stream = reader.entries_stream(1..).await;
    let mut stream = std::pin::pin!(stream);
    stream.next().await.unwrap().unwrap();
    wal.group(GroupId(1)).purge(4, Bytes::new(), Box::new(|_| ())).unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), entry(2));
    assert!(stream.next().await.unwrap().is_err());
    let left: Vec<_> = store.entries_stream(1..8).await.try_collect().await.unwrap();
    assert_eq!(indexes(&left), [5, 6, 7]);
}

#[tokio::test]
async fn nothing_is_purged_that_no_durable_checkpoint_covers() {
    let (mut store, _disk, wal) = store(usize::MAX);
    store.checkpointed.note(Some(log_id(3, 4)));
    assert!(store.purge(log_id(3, 5)).await.is_err());
    assert_eq!(wal.group(GroupId(1)).state().purged, None);
    store.purge(log_id(3, 4)).await.unwrap();
    assert_eq!(wal.group(GroupId(1)).state().first_index, Some(5));
}
