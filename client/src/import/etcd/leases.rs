//! The leases of the keyspace, which are kept alive while an import runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dkv_api::{Client, Error, LeaseId, LeaseKeeper};
use dkv_console::problem::Problem;
use dkv_wire::limits::{LEASE_TTL_MIN, TTL_MAX};

use super::touched::Touched;
use crate::api_problems::partial_problem;

/// Attempts to grant a lease that is being revoked.
const ATTEMPTS: usize = 20;
/// Pause between them.
const PAUSE: Duration = Duration::from_millis(100);

/// The leases that this import keeps alive.
pub(super) struct Leases {
    kept: BTreeMap<i64, LeaseKeeper>,
    touched: Touched,
}

impl Leases {
    /// Leases of a keyspace, of which there are none yet.
    pub(super) fn new(touched: Touched) -> Self {
        Self { kept: BTreeMap::new(), touched }
    }

    /// Returns whether a lease is kept alive.
    pub(super) fn has(&self, id: i64) -> bool {
        self.kept.get(&id).is_some_and(|keeper| !keeper.is_lost())
    }

    /// Returns whether a lease has ended that should have been kept alive: its keys are gone.
    pub(super) fn has_lost(&self) -> bool {
        self.kept.values().any(LeaseKeeper::is_lost)
    }

    /// Forgets the leases that have ended.
    pub(super) fn forget_lost(&mut self) {
        self.kept.retain(|_, keeper| !keeper.is_lost());
    }

    /// Returns the number of leases.
    pub(super) fn count(&self) -> u64 {
        self.kept.len() as u64
    }

    /// Grants a lease with a time of some seconds, and keeps it alive. One that the keyspace has
    /// already is kept as it is.
    pub(super) async fn keep(
        &mut self,
        client: &Client,
        id: i64,
        seconds: i64,
    ) -> Result<(), Problem> {
        if self.has(id) {
            return Ok(());
        }
        let failed = |error: &Error| partial_problem(error).prefixed(&format!("lease {id:x}: "));
        check_lease(id)?;
        let lease = LeaseId(u64::try_from(id).unwrap_or_default());
        let seconds = u64::try_from(seconds).unwrap_or_default();
        let ttl = Duration::from_secs(seconds).clamp(LEASE_TTL_MIN, TTL_MAX);
        let mut attempt = 1;
        self.touched.set();
        let keeper = loop {
            match client.grant_lease_as(lease, ttl).await {
                Ok(_) | Err(Error::LeaseExists { .. }) => {}
                Err(error) => return Err(failed(&error)),
            }
            match client.keep_lease(lease).await {
                Ok(keeper) => break keeper,
                // It has ended, and is still on its way out.
                Err(Error::NoLease { .. }) if attempt < ATTEMPTS => {
                    attempt += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(failed(&error)),
            }
        };
        self.kept.insert(id, keeper);
        Ok(())
    }

    /// Ends the leases that are not among these.
    pub(super) async fn retain(&mut self, known: &BTreeSet<i64>) -> Result<(), Problem> {
        let gone: Vec<i64> = self.kept.keys().copied().filter(|id| !known.contains(id)).collect();
        for id in gone {
            if let Some(keeper) = self.kept.remove(&id) {
                self.touched.set();
                match keeper.revoke().await {
                    Ok(_) | Err(Error::NoLease { .. }) => {}
                    Err(error) => return Err(partial_problem(&error)),
                }
            }
        }
        Ok(())
    }

    /// Ends the leases that an interrupted import has left and that are not among these.
    pub(super) async fn end_others(
        &self,
        client: &Client,
        known: &BTreeSet<i64>,
    ) -> Result<(), Problem> {
        let found = client.leases().await.map_err(|error| partial_problem(&error))?;
        for lease in found {
            let id = lease.id.0 as i64;
            if !known.contains(&id) && !self.kept.contains_key(&id) {
                self.touched.set();
                match client.revoke_lease(lease.id).await {
                    Ok(_) | Err(Error::NoLease { .. }) => {}
                    Err(error) => return Err(partial_problem(&error)),
                }
            }
        }
        Ok(())
    }

    /// Gives all leases their whole time, for their holders to come.
    pub(super) async fn refresh(&self, client: &Client) -> Result<(), Problem> {
        for keeper in self.kept.values() {
            match client.refresh_lease(keeper.id()).await {
                Ok(_) | Err(Error::NoLease { .. }) => {}
                Err(error) => return Err(partial_problem(&error)),
            }
        }
        Ok(())
    }
}

/// Checks that a lease of etcd can be one of dkv.
pub(super) fn check_lease(id: i64) -> Result<(), Problem> {
    if u64::try_from(id).is_ok_and(|id| LeaseId(id).is_valid()) {
        return Ok(());
    }
    Err(Problem::failed(format!(
        "etcd has the lease {id}; the ids of dkv's leases are positive: revoke it, or put its keys \
         with another lease"
    )))
}
