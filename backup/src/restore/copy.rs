//! Writes keys into a keyspace, many at a time, with what they are attached to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use dkv_api::{Attach, Client, Error, LeaseId, LeaseKeeper, WriteOptions};
use dkv_wire::limits::{KEY_TTL_MIN, LEASE_TTL_MIN, TTL_MAX};
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::time::Instant;

use super::target::{Target, put};
use super::{BATCH_BYTES, BATCH_KEYS, IN_FLIGHT, PATIENCE};
use crate::chunk::KeysHash;
use crate::error::BackupError;
use crate::merge::Entry;
use crate::pages::wait;
use crate::record::Attachment;
use crate::throttle::Throttle;

/// Pause before a lease is granted again that was revoked.
const PAUSE: Duration = Duration::from_secs(2);

/// Leases that are kept alive until the restore is over.
#[derive(Default)]
pub(super) struct Leases {
    pub(super) keepers: Vec<LeaseKeeper>,
    granted: BTreeSet<u64>,
    /// Those that are of this process. An interrupted restore may have written keys of a lease of
    /// the same id, and they ended with it.
    renewed: BTreeSet<u64>,
}

impl Leases {
    /// Grants leases, each with its time to live in milliseconds.
    pub(super) async fn grant(
        client: &Client,
        leases: &BTreeMap<u64, u64>,
    ) -> Result<Self, BackupError> {
        let mut all = Self::default();
        let granting = leases.iter().map(|(&id, &ttl_ms)| granted(client, id, ttl_ms));
        let mut granting = stream::iter(granting).buffer_unordered(IN_FLIGHT);
        while let Some((keeper, is_new)) = granting.try_next().await? {
            all.add(keeper, is_new);
        }
        Ok(all)
    }

    fn add(&mut self, keeper: LeaseKeeper, is_new: bool) {
        let id = keeper.id().0;
        self.granted.insert(id);
        if is_new {
            self.renewed.insert(id);
        }
        self.keepers.push(keeper);
    }

    /// Grants a lease that ended when the cut was taken, so that it ends now.
    async fn add_ended(&mut self, client: &Client, id: u64) -> Result<(), BackupError> {
        if !self.granted.contains(&id) {
            let (keeper, is_new) = granted(client, id, LEASE_TTL_MIN.as_millis() as u64).await?;
            self.add(keeper, is_new);
        }
        Ok(())
    }

    /// Returns whether a key that an interrupted restore has written may have ended since.
    fn may_have_ended(&self, attachment: Option<Attachment>) -> bool {
        matches!(attachment, Some(Attachment::Lease(id)) if self.renewed.contains(&id))
    }
}

/// Grants a lease, and keeps it alive. Returns also whether it is new, and not one that an
/// interrupted restore has granted.
async fn granted(
    client: &Client,
    id: u64,
    ttl_ms: u64,
) -> Result<(LeaseKeeper, bool), BackupError> {
    let ttl = Duration::from_millis(ttl_ms).clamp(LEASE_TTL_MIN, TTL_MAX);
    let lease = LeaseId(id);
    let begun = Instant::now();
    let mut trouble = None;
    let is_new = loop {
        let error = match client.grant_lease_as(lease, ttl).await {
            Ok(_) => break true,
            // Either an interrupted restore has granted it, or an attempt of this one was cut off,
            // and what it did in some shards is being revoked.
            Err(error @ Error::LeaseExists { .. }) => match client.lease(lease).await {
                Ok(found) if found.missing.is_empty() && !found.remaining.is_zero() => break false,
                Ok(_) | Err(Error::NoLease { .. }) if begun.elapsed() < PATIENCE => {
                    match client.revoke_lease(lease).await {
                        Ok(_) | Err(Error::NoLease { .. }) => {
                            tokio::time::sleep(PAUSE).await;
                            continue;
                        }
                        Err(error) => error,
                    }
                }
                Ok(_) | Err(Error::NoLease { .. }) => error,
                Err(error) => error,
            },
            Err(error) => error,
        };
        wait(&mut trouble, PATIENCE, error, "cannot grant a lease").await?;
    };
    let kept = client.keep_lease(lease).await;
    Ok((kept.map_err(BackupError::network("cannot keep a lease alive"))?, is_new))
}

/// The keys on their way into a keyspace.
pub(super) struct Copy {
    pub(super) leases: Leases,
    /// The moment of the cut.
    pub(super) at_ms: u64,
    /// Every key up to this one was written.
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
                    self.leases.add_ended(&target.client, id).await?;
                    self.hash.add(&entry.key, &entry.value, id);
                }
                Some(Attachment::Expiry { .. }) => {
                    self.expiring.add(&entry.key, &entry.value, 0);
                }
            }
            self.keys += 1;
            let bytes = entry.key.len() + entry.value.len();
            self.bytes += bytes as u64;
            if entry.key > self.skip || self.leases.may_have_ended(entry.attachment) {
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
                Some(Attachment::Expiry { deadline_ms }) => {
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
