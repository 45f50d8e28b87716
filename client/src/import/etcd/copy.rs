//! Copies all keys as of one revision: makes the keyspace equal to the source.

use std::collections::BTreeMap;

use bytes::Bytes;
use dkv_console::problem::Problem;
use dkv_etcd::proto::mvccpb::KeyValue;
use futures::{StreamExt, TryStreamExt, stream};

use super::source::{EtcdSource, SourceError, after};
use super::target::{Change, Target, check_key, first_key};
use super::{Event, Tell};

/// Changes in one transaction.
const CHANGES_AT_ONCE: usize = 100;
/// Transactions under way. Their order is of no importance: all of them are of one revision.
const TRANSACTIONS_AT_ONCE: usize = 8;

/// Makes the keyspace equal to the source as of some revision, and returns that.
pub(super) async fn run(
    source: &mut EtcdSource,
    target: &mut Target,
    tell: Tell<'_>,
) -> Result<i64, Problem> {
    loop {
        match pass(source, target, tell).await {
            Ok(revision) => return Ok(revision),
            Err(Stopped::Compacted) => {
                target.is_fresh = false;
                let why = "etcd has compacted the revision that was being copied; going on with \
                           what has changed since";
                tell(Event::Note(why.into()));
            }
            Err(Stopped::Failed(problem)) => return Err(problem),
        }
    }
}

enum Stopped {
    Compacted,
    Failed(Problem),
}

impl From<SourceError> for Stopped {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Compacted => Self::Compacted,
            error => Self::Failed(error.into()),
        }
    }
}

impl From<Problem> for Stopped {
    fn from(problem: Problem) -> Self {
        Self::Failed(problem)
    }
}

async fn pass(
    source: &mut EtcdSource,
    target: &mut Target,
    tell: Tell<'_>,
) -> Result<i64, Stopped> {
    let (mut from, mut keys, mut revision, mut copied) = (first_key(), 0, 0, 0);
    loop {
        let page = source.page(from.clone(), revision, &mut keys).await?;
        if revision == 0 {
            revision = page.at;
        }
        copied += page.keys.len() as u64;
        let last = page.keys.last().map(|last| last.key.clone()).filter(|_| page.more);
        let mut wanted = BTreeMap::new();
        for key in page.keys {
            check_key(&key.key)?;
            let lease = lease_of(&key, source, target).await?;
            wanted.insert(key.key, (key.value, lease));
        }
        if !target.is_fresh {
            keep_different(&mut wanted, &from, last.as_ref(), target).await?;
        }
        let changes: Vec<Change> =
            wanted.into_iter().map(|(key, put)| Change { key, put: Some(put) }).collect();
        store(&changes, target).await?;
        tell(Event::Copied(copied));
        match last {
            Some(last) => from = after(&last),
            None => return Ok(revision),
        }
    }
}

/// Grants the lease of a key if it is new. Returns it; zero if the source has ended it meanwhile,
/// which deletes the key at a later revision.
pub(super) async fn lease_of(
    key: &KeyValue,
    source: &mut EtcdSource,
    target: &mut Target,
) -> Result<i64, Problem> {
    if key.lease == 0 || target.leases.has(key.lease) {
        return Ok(key.lease);
    }
    match source.ttl(key.lease).await? {
        Some(ttl) => {
            target.leases.keep(&target.client, key.lease, ttl).await?;
            Ok(key.lease)
        }
        None => Ok(0),
    }
}

/// Removes the keys that the keyspace has as they are, and deletes those that it should not have.
async fn keep_different(
    wanted: &mut BTreeMap<Bytes, (Bytes, i64)>,
    from: &Bytes,
    last: Option<&Bytes>,
    target: &Target,
) -> Result<(), Problem> {
    let mut after = Bytes::new();
    loop {
        let page = target.page(from, last, &after, None).await?;
        let mut foreign = Vec::new();
        for (key, version) in page.keys {
            let lease = version.lease.0 as i64;
            let value = version.value.unwrap_or_default();
            match wanted.get(&key) {
                Some(put) if put.0 == value && put.1 == lease => _ = wanted.remove(&key),
                Some(_) => {}
                None => foreign.push(Change { key: key.clone(), put: None }),
            }
            after = key;
        }
        store(&foreign, target).await?;
        if !page.more {
            return Ok(());
        }
    }
}

async fn store(changes: &[Change], target: &Target) -> Result<(), Problem> {
    stream::iter(changes.chunks(CHANGES_AT_ONCE).map(|part| target.apply(part)))
        .buffer_unordered(TRANSACTIONS_AT_ONCE)
        .try_collect()
        .await
}
