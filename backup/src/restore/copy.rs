//! Writes keys into a keyspace, many at a time, with what they are attached to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use dkv_api::{Attach, Client, Error, LeaseId, LeaseKeeper, WriteOptions};
use dkv_wire::limits::{KEY_TTL_MIN, LEASE_TTL_MIN, TTL_MAX};
use futures::stream::{self, StreamExt, TryStreamExt};

use super::target::{Target, put};
use super::{BATCH_BYTES, BATCH_KEYS, IN_FLIGHT, PATIENCE};
use crate::chunk::KeysHash;
use crate::error::BackupError;
use crate::merge::Entry;
use crate::pages::wait;
use crate::record::Attachment;
use crate::throttle::Throttle;

/// Grants the leases and keeps them alive until the restore is over.
pub(super) async fn grant(
    client: &Client,
    leases: &BTreeMap<u64, u64>,
) -> Result<Vec<LeaseKeeper>, BackupError> {
    let granting = leases.iter().map(|(&id, &ttl_ms)| granted(client, id, ttl_ms));
    stream::iter(granting).buffer_unordered(IN_FLIGHT).try_collect().await
}

pub(super) async fn granted(
    client: &Client,
    id: u64,
    ttl_ms: u64,
) -> Result<LeaseKeeper, BackupError> {
    let ttl = Duration::from_millis(ttl_ms).clamp(LEASE_TTL_MIN, TTL_MAX);
    let mut trouble = None;
    loop {
        match client.grant_lease_as(LeaseId(id), ttl).await {
            // An interrupted restore has granted it.
            Ok(_) | Err(Error::LeaseExists { .. }) => break,
            Err(error) => wait(&mut trouble, PATIENCE, error, "cannot grant a lease").await?,
        }
    }
    client.keep_lease(LeaseId(id)).await.map_err(BackupError::network("cannot keep a lease alive"))
}

/// The keys on their way into a keyspace.
pub(super) struct Copy {
    /// The leases that are granted.
    pub(super) leases: BTreeSet<u64>,
    pub(super) keepers: Vec<LeaseKeeper>,
    /// The moment of the cut.
    pub(super) at_ms: u64,
    /// Every key up to this one is there.
    pub(super) skip: Bytes,
    pub(super) hash: KeysHash,
    pub(super) expiring: KeysHash,
    pub(super) throttle: Throttle,
    pub(super) batch: Vec<Entry>,
    pub(super) batch_bytes: usize,
    pub(super) keys: u64,
    pub(super) bytes: u64,
}

impl Copy {
    /// Takes keys, and writes them once there are enough.
    pub(super) async fn take(
        &mut self,
        target: &mut Target,
        entries: &mut Vec<Entry>,
    ) -> Result<(), BackupError> {
        for entry in entries.drain(..) {
            match entry.attachment {
                None => self.hash.add(&entry.key, &entry.value, 0),
                Some(Attachment::Lease(id)) => {
                    if self.leases.insert(id) {
                        // It ended when the cut was taken; so it does now.
                        let ttl_ms = LEASE_TTL_MIN.as_millis() as u64;
                        self.keepers.push(granted(&target.client, id, ttl_ms).await?);
                    }
                    self.hash.add(&entry.key, &entry.value, id);
                }
                Some(Attachment::Expiry { .. }) => {
                    self.expiring.add(&entry.key, &entry.value, 0);
                }
            }
            self.keys += 1;
            let bytes = entry.key.len() + entry.value.len();
            self.bytes += bytes as u64;
            if entry.key > self.skip {
                self.batch_bytes += bytes;
                self.batch.push(entry);
            }
        }
        if self.batch.len() >= BATCH_KEYS || self.batch_bytes >= BATCH_BYTES {
            self.write(target).await?;
        }
        Ok(())
    }

    /// Writes the keys that wait, and moves the mark.
    pub(super) async fn write(&mut self, target: &mut Target) -> Result<(), BackupError> {
        let Some(last) = self.batch.last().map(|entry| entry.key.clone()) else { return Ok(()) };
        self.throttle.take(self.batch_bytes as u64).await;
        self.batch_bytes = 0;
        let (client, at_ms) = (&target.client, self.at_ms);
        let writing = std::mem::take(&mut self.batch).into_iter().map(|entry| async move {
            let mut options = WriteOptions::default();
            options.attach = match entry.attachment {
                None => None,
                Some(Attachment::Lease(id)) => Some(Attach::Lease(LeaseId(id))),
                Some(Attachment::Expiry { deadline_ms, .. }) => {
                    let left = Duration::from_millis(deadline_ms.saturating_sub(at_ms));
                    Some(Attach::Ttl(left.clamp(KEY_TTL_MIN, TTL_MAX)))
                }
            };
            put(client, &entry.key, &entry.value, options).await
        });
        let written: Result<Vec<()>, BackupError> =
            stream::iter(writing).buffer_unordered(IN_FLIGHT).try_collect().await;
        written?;
        target.mark(&last).await
    }
}
