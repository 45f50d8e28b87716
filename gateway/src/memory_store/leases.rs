//! Leases of the in-memory store. Their time stands still.

use std::time::Duration;

use dkv_api::{Attach, Error, LeaseId, LeaseInfo, LeaseKeys, Lifetime, WriteOptions};

use super::{Inner, MemoryStore, check};
use crate::store::Store;

const TTL_MIN: Duration = Duration::from_secs(1);

/// Checks what a put attaches its key to.
pub(super) fn check_attach(inner: &Inner, attach: Option<Attach>) -> Result<(), Error> {
    match attach {
        Some(Attach::Lease(lease)) => check_lease(inner, lease),
        Some(Attach::Ttl(ttl)) if ttl.is_zero() => Err(out_of_bounds(ttl)),
        _ => Ok(()),
    }
}

fn check_lease(inner: &Inner, lease: LeaseId) -> Result<(), Error> {
    match inner.leases.contains_key(&lease) {
        true => Ok(()),
        false => Err(Error::NoLease { lease }),
    }
}

fn out_of_bounds(ttl: Duration) -> Error {
    Error::TtlOutOfBounds { ttl, least: TTL_MIN, most: Duration::MAX }
}

impl Inner {
    fn keys_of(&self, lease: LeaseId) -> impl Iterator<Item = &Vec<u8>> {
        let own = move |(_, attach): &(_, &Attach)| **attach == Attach::Lease(lease);
        self.attached.iter().filter(own).map(|(key, _)| key)
    }

    fn info(&self, lease: LeaseId) -> Result<LeaseInfo, Error> {
        let ttl = *self.leases.get(&lease).ok_or(Error::NoLease { lease })?;
        let keys = self.keys_of(lease).count() as u64;
        Ok(LeaseInfo { id: lease, ttl, remaining: ttl, keys, missing: Vec::new() })
    }
}

impl MemoryStore {
    pub(super) fn grant(&self, ttl: Duration) -> Result<LeaseId, Error> {
        let inner = &mut *self.inner.lock().unwrap();
        check(inner, b"")?;
        if ttl < TTL_MIN {
            return Err(out_of_bounds(ttl));
        }
        let lease = LeaseId(inner.leases.len() as u64 + 31);
        inner.leases.insert(lease, ttl);
        Ok(lease)
    }

    pub(super) fn info(&self, lease: LeaseId) -> Result<LeaseInfo, Error> {
        let inner = self.inner.lock().unwrap();
        check(&inner, b"")?;
        inner.info(lease)
    }

    pub(super) fn infos(&self) -> Result<Vec<LeaseInfo>, Error> {
        let inner = self.inner.lock().unwrap();
        check(&inner, b"")?;
        inner.leases.keys().map(|lease| inner.info(*lease)).collect()
    }

    pub(super) fn keys_of(&self, lease: LeaseId, limit: usize) -> Result<LeaseKeys, Error> {
        let inner = self.inner.lock().unwrap();
        check_lease(&inner, lease)?;
        let keys = inner.keys_of(lease).take(limit).map(|key| key.clone().into()).collect();
        Ok(LeaseKeys { keys, more: inner.keys_of(lease).count() > limit })
    }

    pub(super) async fn revoke(&self, lease: LeaseId) -> Result<u64, Error> {
        let keys: Vec<Vec<u8>> = {
            let inner = &mut *self.inner.lock().unwrap();
            inner.leases.remove(&lease).ok_or(Error::NoLease { lease })?;
            inner.keys_of(lease).cloned().collect()
        };
        for key in &keys {
            self.delete(key, WriteOptions::default()).await?;
        }
        Ok(keys.len() as u64)
    }

    pub(super) fn lifetime(&self, key: &[u8]) -> Lifetime {
        let inner = self.inner.lock().unwrap();
        match inner.attached.get(key) {
            None => Lifetime::Unlimited,
            Some(Attach::Ttl(ttl)) => Lifetime::Ttl { ttl: *ttl, remaining: *ttl },
            Some(Attach::Lease(lease)) => {
                let ttl = inner.leases.get(lease).copied().unwrap_or_default();
                Lifetime::Lease { lease: *lease, ttl, remaining: ttl }
            }
        }
    }
}
