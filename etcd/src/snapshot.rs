//! Snapshot of the service Maintenance: all keys as of one revision, as a file of etcd.
//!
//! The network lists keys in their order, and the file has them in that of revisions, so they are
//! spooled to a temporary file first. The file itself is written straight into the answer.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dkv_bolt::{Lease, Members, Spool, SpooledSnapshot};
use futures::{StreamExt, stream};
use prost::Message;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

use crate::context::Context;
use crate::error::{Code, EtcdError};
use crate::etcd::{Answers, Etcd, etcd_revision, panicked};
use crate::identity::member_id;
use crate::kv::pages::{Pages, RangeMoment};
use crate::kv::plan::RangePlan;
use crate::limits::{
    SNAPSHOT_ANSWERS_WAITING, SNAPSHOT_BLOB_BYTES, SNAPSHOT_RATE_BYTES, SNAPSHOT_READ_TIMEOUT,
    SNAPSHOTS_AT_ONCE,
};
use crate::maintenance::CLUSTER_VERSION;
use crate::proto::etcdserverpb::{RangeRequest, ResponseHeader, SnapshotRequest, SnapshotResponse};
use crate::proto::mvccpb::KeyValue;

/// Attempts to read all keys at one revision. One fails if so much is written meanwhile that the
/// history of the keyspace does not reach back to its beginning.
const ATTEMPTS: usize = 3;

/// Places for snapshots, of all faces of the process.
static PLACES: Semaphore = Semaphore::const_new(SNAPSHOTS_AT_ONCE);

impl Etcd {
    /// Streams all keys and leases as of one revision, as a file of etcd: what `etcdctl snapshot
    /// save` stores, and `etcdctl snapshot restore` takes.
    pub fn snapshot(&self, _: Context, _: SnapshotRequest) -> Answers<SnapshotResponse> {
        let etcd = self.clone();
        let opening = async move {
            let place = PLACES.try_acquire().map_err(|_| EtcdError::REQUEST_TOO_MANY_REQUESTS)?;
            let (header, spooled) = etcd.spool_keys().await?;
            let (sender, receiver) = mpsc::channel(SNAPSHOT_ANSWERS_WAITING);
            let sending =
                tokio::task::spawn_blocking(move || send(header, spooled, &sender, place));
            Ok(sent(receiver, sending))
        };
        stream::once(opening)
            .flat_map(|opened| match opened {
                Ok(answers) => answers,
                Err(error) => stream::once(async { Err(error) }).boxed(),
            })
            .boxed()
    }

    async fn spool_keys(&self) -> Result<(ResponseHeader, SpooledSnapshot<File>), EtcdError> {
        let mut attempt = 1;
        loop {
            match self.try_spool_keys().await {
                Err(error) if error == EtcdError::COMPACTED && attempt < ATTEMPTS => attempt += 1,
                done => return done,
            }
        }
    }

    async fn try_spool_keys(&self) -> Result<(ResponseHeader, SpooledSnapshot<File>), EtcdError> {
        let everything = Bytes::from_static(&[0]);
        let all = RangeRequest {
            key: everything.clone(),
            range_end: everything,
            ..RangeRequest::default()
        };
        let store = self.store().await?;
        let failed = |error| self.failed(error);
        let opened = Pages::open(store.clone(), RangePlan::new(&all)?, usize::MAX).await;
        let (mut pages, moment) = opened.map_err(failed)?;
        let RangeMoment { receipt, latest, .. } = moment;
        let mut spooling = Spooling { spool: Spool::new(temporary().await?), leases: [].into() };
        while let Some(page) = pages.next().await.map_err(failed)? {
            spooling = blocking(move || spooling.add(&page.keys)).await?;
        }
        let leases = store.leases().await.map_err(failed)?;
        let mut leases: Vec<Lease> = leases
            .into_iter()
            .map(|lease| Lease {
                id: lease.id.0 as i64,
                ttl: i64::try_from(lease.ttl.as_secs()).unwrap_or(i64::MAX).max(1),
                // As in a file of etcd without checkpoints: who restores it gives their holders
                // the whole time to come back.
                remaining_ttl: 0,
            })
            .collect();
        // One that has ended since takes its keys with it soon after they are restored.
        let known: BTreeSet<i64> = leases.iter().map(|lease| lease.id).collect();
        let ended = spooling.leases.difference(&known);
        leases.extend(ended.map(|&id| Lease { id, ttl: 1, remaining_ttl: 1 }));
        let header = self.header(&receipt, latest);
        let view = store.view().await.map_err(|error| self.failed(error))?;
        let shard = view.shards_of(store.keyspace_id()).first();
        let voters = shard.map(|shard| shard.voters.iter().map(|node| member_id(*node)).collect());
        let members = Members {
            index: header.revision.unsigned_abs(),
            term: header.raft_term.max(1),
            voters: voters.unwrap_or_default(),
            version: CLUSTER_VERSION.to_owned(),
        };
        let revision = etcd_revision(latest);
        let spooled = blocking(move || spooling.spool.finish(revision, leases, &members)).await?;
        Ok((header, spooled))
    }
}

/// Keys on their way into a file.
struct Spooling {
    spool: Spool<File>,
    /// The leases that they name.
    leases: BTreeSet<i64>,
}

impl Spooling {
    fn add(mut self, keys: &[KeyValue]) -> io::Result<Self> {
        let mut encoded = Vec::new();
        for key in keys {
            encoded.clear();
            key.encode(&mut encoded).map_err(io::Error::other)?;
            self.spool.add(key.mod_revision, &encoded)?;
            if key.lease != 0 {
                self.leases.insert(key.lease);
            }
        }
        Ok(self)
    }
}

/// Creates a file without a name, which is gone once it is closed.
async fn temporary() -> Result<File, EtcdError> {
    blocking(tempfile::tempfile).await
}

/// Does work with a file, aside from the threads that answer requests.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, EtcdError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error: JoinError| spool_failed(&error))?.map_err(|error| spool_failed(&error))
}

fn spool_failed(error: &dyn std::fmt::Display) -> EtcdError {
    let why = format!(
        "etcdserver: cannot spool the snapshot to a temporary file in {}: {error}",
        std::env::temp_dir().display()
    );
    EtcdError::new(Code::ResourceExhausted, why)
}

/// Whether the whole file was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Whole,
    /// The caller has gone away, or reads too slowly; or it was told why the rest is missing.
    Part,
}

/// Returns the answers that are being sent. If the file is cut off, they end with an error: the
/// caller would take it for whole otherwise.
fn sent(
    answers: mpsc::Receiver<Result<SnapshotResponse, EtcdError>>,
    sending: JoinHandle<Sent>,
) -> Answers<SnapshotResponse> {
    stream::unfold((answers, Some(sending)), async |(mut answers, mut sending)| {
        if let Some(answer) = answers.recv().await {
            // After an error there is nothing more to tell.
            let sending = sending.filter(|_| answer.is_ok());
            return Some((answer, (answers, sending)));
        }
        let why = match sending.take()?.await {
            Ok(Sent::Whole) => return None,
            Ok(Sent::Part) => {
                let why = "etcdserver: the snapshot is cut off, because it was read too slowly";
                EtcdError::new(Code::Unavailable, why)
            }
            Err(error) => panicked(&error).unwrap_or(EtcdError::STOPPED),
        };
        Some((Err(why), (answers, None)))
    })
    .fuse()
    .boxed()
}

/// Writes the file into the answers. The first one has the moment of all.
fn send(
    header: ResponseHeader,
    spooled: SpooledSnapshot<File>,
    answers: &mpsc::Sender<Result<SnapshotResponse, EtcdError>>,
    _place: SemaphorePermit<'_>,
) -> Sent {
    let left = spooled.database_bytes();
    match spooled.write(Blobs::new(answers, header, left)) {
        Ok(()) => Sent::Whole,
        // The caller has gone away, or does not read.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Sent::Part,
        Err(error) => {
            _ = answers.blocking_send(Err(spool_failed(&error)));
            Sent::Part
        }
    }
}

/// Cuts the file into answers. The checksum, which comes last, is one of its own and counts for
/// nothing in what remains, as with etcd.
struct Blobs<'a> {
    answers: &'a mpsc::Sender<Result<SnapshotResponse, EtcdError>>,
    header: Option<ResponseHeader>,
    /// Bytes of the next answer.
    blob: BytesMut,
    /// Bytes of the database that no answer has yet.
    left: u64,
    /// When all that was sent so far must have been read.
    until: Instant,
}

impl<'a> Blobs<'a> {
    fn new(
        answers: &'a mpsc::Sender<Result<SnapshotResponse, EtcdError>>,
        header: ResponseHeader,
        left: u64,
    ) -> Self {
        let until = Instant::now() + SNAPSHOT_READ_TIMEOUT;
        Self { answers, header: Some(header), blob: BytesMut::new(), left, until }
    }

    fn send(&mut self) -> io::Result<()> {
        Handle::current().block_on(self.send_soon())
    }

    async fn send_soon(&mut self) -> io::Result<()> {
        let blob = self.blob.split().freeze();
        let blob_bytes = blob.len() as u64;
        self.left = self.left.saturating_sub(blob_bytes);
        let answer = SnapshotResponse {
            header: self.header.take(),
            remaining_bytes: self.left,
            blob,
            version: CLUSTER_VERSION.to_owned(),
        };
        // A caller that reads a little now and then would keep its place for days.
        let at_rate = Duration::from_secs(blob_bytes) / SNAPSHOT_RATE_BYTES;
        self.until = (self.until + at_rate).min(Instant::now() + SNAPSHOT_READ_TIMEOUT);
        let sending = tokio::time::timeout_at(self.until, self.answers.send(Ok(answer)));
        match sending.await {
            Ok(Ok(())) => Ok(()),
            // The caller has gone away, or keeps the place of others without reading.
            Ok(Err(_)) | Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Write for Blobs<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The last blob of the database is full as it is.
        let room = match usize::try_from(self.left) {
            Ok(left) if left > 0 => left.min(SNAPSHOT_BLOB_BYTES) - self.blob.len(),
            Ok(_) => bytes.len(),
            Err(_) => SNAPSHOT_BLOB_BYTES - self.blob.len(),
        };
        let part = &bytes[..room.min(bytes.len())];
        self.blob.extend_from_slice(part);
        if part.len() == room {
            self.send()?;
        }
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
