//! Imports a snapshot file.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::path::PathBuf;

use bytes::Bytes;
use dkv_bolt::{BoltError, Checksum, KeyValue, Lease, SnapshotFile};
use dkv_console::problem::Problem;
use tokio::sync::mpsc;
use xxhash_rust::xxh3::xxh3_128;

use super::leases::check_lease;
use super::sum::Sum;
use super::target::{Change, Target, check_pair};
use super::{Event, Outcome, Tell};
use crate::input::is_stdin;

/// Keys that are stored at a time.
const KEYS_AT_ONCE: usize = 100;
/// Batches that wait to be stored.
const BATCHES_WAITING: usize = 4;
/// Bytes of values after which a batch ends.
const BATCH_BYTES: usize = 4 << 20;

/// A file whose keys can be stored.
pub(super) struct Checked {
    file: SnapshotFile<File>,
    leases: BTreeMap<i64, i64>,
    sum: Sum,
    /// Hashes of the keys.
    keys: HashSet<u128>,
}

/// Opens a file and checks all of it.
///
/// # Errors
/// It is no snapshot of etcd, or has keys that dkv cannot have.
pub(super) async fn open(path: PathBuf, skip_hash_check: bool) -> Result<Checked, Problem> {
    let shown = path.display().to_string();
    if is_stdin(&path) {
        return Err(Problem::usage(
            "a snapshot of etcd is read in any order, so it cannot come from standard input; save \
             it to a file first",
        ));
    }
    let checking = tokio::task::spawn_blocking(move || {
        let file = File::open(&path).map_err(|error| Problem::failed(error.to_string()))?;
        let kind = file.metadata().map_err(|error| Problem::failed(error.to_string()))?;
        if !kind.is_file() {
            return Err(Problem::usage(
                "it is not a regular file, and a snapshot is read in any order; save it to a file \
                 first",
            ));
        }
        let checksum = if skip_hash_check { Checksum::Skip } else { Checksum::Check };
        check(SnapshotFile::open(file, checksum).map_err(explained)?)
    });
    let checked = checking.await.map_err(|error| Problem::failed(error.to_string()));
    let checked = checked.and_then(|checked| checked);
    checked.map_err(|problem| {
        problem.prefixed(&format!("cannot import {shown}; nothing was stored: "))
    })
}

fn explained(error: BoltError) -> Problem {
    match error {
        BoltError::NoChecksum => {
            Problem::failed(format!("{error}; --skip-hash-check takes it all the same"))
        }
        error => Problem::failed(error.to_string()),
    }
}

/// A failure of either side.
enum Failed {
    File(BoltError),
    Other(Problem),
}

impl From<BoltError> for Failed {
    fn from(error: BoltError) -> Self {
        Self::File(error)
    }
}

impl From<Failed> for Problem {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::File(error) => explained(error),
            Failed::Other(problem) => problem,
        }
    }
}

fn check(mut file: SnapshotFile<File>) -> Result<Checked, Problem> {
    let (mut leases, mut sum, mut keys) = (BTreeMap::new(), Sum::default(), HashSet::new());
    file.leases(|Lease { id, ttl, .. }| {
        check_lease(id).map_err(Failed::Other)?;
        leases.insert(id, ttl);
        Ok::<_, Failed>(())
    })?;
    file.keys(|key| {
        check_pair(&key.key, &key.value).map_err(Failed::Other)?;
        keys.insert(xxh3_128(&key.key));
        sum.add(&key.key, &key.value, lease_of(&key, &leases));
        Ok::<_, Failed>(())
    })?;
    Ok(Checked { file, leases, sum, keys })
}

/// Returns the lease of a key; zero if the file does not have it.
fn lease_of(key: &KeyValue, leases: &BTreeMap<i64, i64>) -> i64 {
    if leases.contains_key(&key.lease) { key.lease } else { 0 }
}

/// Stores the keys of a file, in the order of their revisions.
pub(super) async fn run(
    checked: Checked,
    mut target: Target,
    tell: Tell<'_>,
) -> Result<Outcome, Problem> {
    let Checked { mut file, leases, sum, keys } = checked;
    let known: BTreeSet<i64> = leases.keys().copied().collect();
    if file.auth_enabled() {
        tell(Event::Note("users and roles of etcd are not imported".into()));
    }
    let revision = file.revision();
    for (&id, &ttl) in &leases {
        target.leases.keep(&target.client, id, ttl).await?;
    }
    let (sender, mut batches) = mpsc::channel(BATCHES_WAITING);
    let reading = tokio::task::spawn_blocking(move || {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        file.keys(|key| {
            let lease = lease_of(&key, &leases);
            // Not a part of its page, which would stay in memory.
            let value = Bytes::copy_from_slice(&key.value);
            bytes += value.len();
            batch.push(Change { key: Bytes::copy_from_slice(&key.key), put: Some((value, lease)) });
            if batch.len() < KEYS_AT_ONCE && bytes < BATCH_BYTES {
                return Ok(());
            }
            bytes = 0;
            let gone = |_| Failed::Other(Problem::failed("interrupted"));
            sender.blocking_send(std::mem::take(&mut batch)).map_err(gone)
        })?;
        let _ = sender.blocking_send(batch);
        Ok::<_, Failed>(())
    });
    let mut copied = 0;
    while let Some(batch) = batches.recv().await {
        target.apply(&batch).await?;
        copied += batch.len() as u64;
        tell(Event::Copied(copied));
    }
    reading.await.map_err(|error| Problem::failed(error.to_string()))??;
    if !target.is_fresh {
        target.delete_others(|key| keys.contains(&xxh3_128(key))).await?;
        target.leases.end_others(&target.client, &known).await?;
    }
    let (found, at) = target.sum().await?;
    target.leases.refresh(&target.client).await?;
    Ok(Outcome { revision, at, source: sum, target: found, leases: target.leases.count() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_cannot_be_read_in_any_order_is_to_be_saved_first() {
        for path in ["-", "/dev/stdin", "/dev/null"] {
            let Err(problem) = open(path.into(), false).await else { panic!("{path}") };
            assert!(problem.message.contains("save it to a file first"), "{problem:?}");
        }
    }
}
