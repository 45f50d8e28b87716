//! Outboxes in a log: waiting writes move along with it, and are there after a crash.

use super::*;
use dkv_wal::WalOptions;
use dkv_wal::disk::MemoryDisk;

const ME: NodeId = NodeId(uuid::Uuid::from_u128(7));
const SHARD: GroupId = GroupId(3);
const SEGMENT_BYTES: u64 = 64 * 1024;
const WRITES: u64 = 20;

fn open(disk: Arc<MemoryDisk>) -> (Wal, Outboxes) {
    let options = WalOptions { segment_bytes: SEGMENT_BYTES, ..WalOptions::default() };
    let wal = Wal::open(disk, options, Box::new(|_| ())).unwrap();
    let outboxes =
        Outboxes::open(ME, wal.clone(), 1 << 30, WriteGate::default(), Duration::ZERO).unwrap();
    (wal, outboxes)
}

fn key(number: u64) -> Bytes {
    Bytes::from(format!("k{number}"))
}

#[tokio::test]
async fn what_waits_lets_the_log_be_shortened_and_outlives_a_crash() {
    let disk = Arc::new(MemoryDisk::new());
    let (wal, outboxes) = open(Arc::clone(&disk));
    let (outbox, _) = outboxes.open_for(SHARD).unwrap();
    for number in 1..=WRITES {
        let value = Some(Bytes::from(vec![number as u8; 1000]));
        let taken = Arc::clone(&outbox).deposit(Stamp(number), key(number), value).await;
        assert_eq!(taken, Ok(Number(number)));
    }
    // Some are delivered; then another group writes many times as much as the log may contain.
    outbox.settle(Number(5));
    let (other, own) = (wal.group(GroupId(1)), SHARD.outbox());
    for index in 1..=100 {
        let (told, durable) = oneshot::channel();
        let done = Box::new(move |outcome| drop(told.send(outcome)));
        other.append(vec![(index, Bytes::from(vec![0; 10_000]))], done).unwrap();
        durable.await.unwrap().unwrap();
        other.purge(index, Bytes::new(), Box::new(|_| ())).unwrap();
        let stats = wal.stats();
        if stats.oldest.iter().any(|(group, _)| *group == own) {
            outbox.rewrite();
        }
        let held = stats.bytes_on_disk / SEGMENT_BYTES;
        assert!(held <= 6, "it holds {held} segments after {index} entries");
    }
    wal.close();
    drop((outbox, outboxes, wal));

    let (_wal, outboxes) = open(Arc::new(disk.crash(1)));
    let outbox = outboxes.get(SHARD).unwrap();
    assert_eq!(outbox.len(), WRITES as usize - 5);
    for number in 6..=WRITES {
        let kept = outbox.find(&key(number)).unwrap();
        assert_eq!((kept.number, kept.stamp), (Number(number), Stamp(number)));
        assert_eq!(kept.value.unwrap(), vec![number as u8; 1000]);
    }
    assert_eq!(outboxes.last_stamp(), Stamp(WRITES));
    let next = Arc::clone(&outbox).deposit(Stamp(99), key(99), None).await;
    assert_eq!(next, Ok(Number(WRITES + 1)), "no number is given twice");
    outbox.settle(Number(WRITES + 1));
    assert!(outboxes.are_empty());
}

#[tokio::test]
async fn what_is_closed_takes_nothing_but_knows_what_it_has_taken() {
    let home = tempfile::tempdir().unwrap();
    let (_wal, outboxes) = open(Arc::new(MemoryDisk::new()));
    let (outbox, _) = outboxes.open_for(SHARD).unwrap();
    let taken = Arc::clone(&outbox).deposit(Stamp(1), key(1), None).await;
    assert_eq!(taken, Ok(Number(1)));
    outboxes.write_gate().close(home.path(), 5).unwrap();
    // The write was checked before, and comes to the log only now.
    let late = Arc::clone(&outbox).deposit(Stamp(2), key(2), None).await;
    assert_eq!(late, Err(draining()));
    let again = Arc::clone(&outbox).deposit(Stamp(1), key(1), None).await;
    assert_eq!(again, Ok(Number(1)));
    assert!(!outboxes.are_empty());
    outbox.settle(Number(1));
    assert!(outboxes.are_empty());
}

#[tokio::test]
async fn an_outbox_whose_shard_has_lost_writes_counts_as_empty_once_the_rest_is_delivered() {
    let disk = Arc::new(MemoryDisk::new());
    let options = WalOptions { segment_bytes: SEGMENT_BYTES, ..WalOptions::default() };
    let wal = Wal::open(disk, options, Box::new(|_| ())).unwrap();
    // Numbers of a real start are long.
    let started = Duration::from_secs(1 << 30);
    let outboxes = Outboxes::open(ME, wal, 1 << 30, WriteGate::default(), started).unwrap();
    let (outbox, _) = outboxes.open_for(SHARD).unwrap();
    let mut numbers = Vec::new();
    for at in 1..=3 {
        numbers.push(Arc::clone(&outbox).deposit(Stamp(at), key(at), None).await.unwrap());
    }
    outbox.settle(numbers[0]);
    assert!(outbox.start_over(Some(numbers[1])));
    outbox.settle(numbers[2]);
    assert!(outboxes.are_empty());
}
