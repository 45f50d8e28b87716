//! Pages: reads all keys of a keyspace in order, each page from a snapshot that its shards keep.

use std::time::Duration;

use bytes::Bytes;
use dkv_api::{Client, Error, ScanOptions, Snapshot, SnapshotToken};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::chunk::CHUNK_BYTES;
use super::clock::now_ms;
use super::error::BackupError;
use super::marker;
use super::record::Record;
use super::throttle::Throttle;

/// Most records of a chunk.
const CHUNK_RECORDS: usize = 65_536;
/// Pause before something is asked for again.
const PAUSE: Duration = Duration::from_millis(500);

/// The records of a chunk of pages.
pub(crate) struct PageChunk {
    pub(crate) of: String,
    pub(crate) records: Vec<Record>,
    pub(crate) last: bool,
}

/// Reads the keys after one and sends them in chunks. When the shards no longer keep the snapshot,
/// it goes on with a new one. Ends when the receiver is gone.
///
/// # Errors
/// The network did not answer for as long as `patience`.
pub(crate) async fn read(
    client: Client,
    from: SnapshotToken,
    after: Bytes,
    mut throttle: Throttle,
    patience: Duration,
    chunks: mpsc::Sender<PageChunk>,
) -> Result<(), BackupError> {
    let (mut snapshot, mut after) = (client.snapshot_of(from), after);
    let mut scan = snapshot.scan(ScanOptions::default().after(after.clone()));
    let (mut records, mut bytes) = (Vec::new(), 0);
    let mut trouble: Option<Instant> = None;
    loop {
        let next = match scan.next().await {
            Ok(next) => next,
            Err(Error::Compacted { .. }) => {
                // Each chunk is of one snapshot.
                let of = snapshot.token().to_string();
                let whole = PageChunk { of, records: std::mem::take(&mut records), last: false };
                bytes = 0;
                if !whole.records.is_empty() && chunks.send(whole).await.is_err() {
                    return Ok(());
                }
                snapshot = take_snapshot(&client, patience).await?;
                scan = snapshot.scan(ScanOptions::default().after(after.clone()));
                continue;
            }
            Err(error) => {
                wait(&mut trouble, patience, error, "cannot read the keys").await?;
                continue;
            }
        };
        trouble = None;
        let last = next.is_none();
        if let Some(pair) = next {
            after = pair.key.clone();
            if pair.key != marker::KEY {
                let record = Record::of_pair(pair, now_ms());
                throttle.take(record.bytes()).await;
                bytes += record.bytes() as usize;
                records.push(record);
            }
        }
        if last || bytes >= CHUNK_BYTES || records.len() >= CHUNK_RECORDS {
            let of = snapshot.token().to_string();
            let chunk = PageChunk { of, records: std::mem::take(&mut records), last };
            bytes = 0;
            if chunks.send(chunk).await.is_err() || last {
                return Ok(());
            }
        }
    }
}

/// Takes a snapshot, for which it waits if the network does not answer.
///
/// # Errors
/// It did not for as long as `patience`.
pub(crate) async fn take_snapshot(
    client: &Client,
    patience: Duration,
) -> Result<Snapshot, BackupError> {
    let mut trouble = None;
    loop {
        match client.snapshot().await {
            Ok(snapshot) => return Ok(snapshot),
            Err(error) => wait(&mut trouble, patience, error, "cannot take a snapshot").await?,
        }
    }
}

/// Waits before a request is repeated.
///
/// # Errors
/// The request does not become possible, or has failed for as long as `patience`.
pub(crate) async fn wait(
    since: &mut Option<Instant>,
    patience: Duration,
    error: Error,
    what: &str,
) -> Result<(), BackupError> {
    let begun = *since.get_or_insert_with(Instant::now);
    let passing = matches!(error, Error::Unavailable(_) | Error::Unknown(_));
    if !passing || begun.elapsed() >= patience {
        return Err(BackupError::network(what)(error));
    }
    tokio::time::sleep(PAUSE).await;
    Ok(())
}
