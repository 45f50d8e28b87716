//! Leases: grants, keeps, revokes and lists them.
//!
//! A lease has one id in all shards, because each shard ends its part by itself. It is granted in
//! all of them or in none: a client that one shard refuses revokes it in the others. A lease that
//! one shard has lost is lost, and its keeper revokes the rest.
//!
//! [`keeping`] decides when to keep a lease alive, and is plain data; [`keeper`] has the task.

mod keeper;
mod keeping;
mod undoing;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::{GroupId, LeaseId};
use dkv_wire::limits::{LEASE_TTL_MIN, SCAN_KEYS_MAX};
use dkv_wire::message::{Answer, KeyExpiry, LeaseAction, LeaseStatus, Receipt, RequestBody};
use futures::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::attach::Lifetime;
use crate::client::{Client, checked_key, wrong_answer};
use crate::error::Error;
use crate::router::RequestKind;
use crate::time_bounds::checked_ttl;

pub use self::keeper::LeaseKeeper;

/// A lease, over all shards; see [`Client::leases`].
///
/// # Examples
/// ```
/// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
/// for lease in client.leases().await? {
///     println!("{}: {} keys, {:?} left", lease.id, lease.keys, lease.remaining);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseInfo {
    /// Its id.
    pub id: LeaseId,
    /// The time that each keep-alive gives it.
    pub ttl: Duration,
    /// The time that it has left: the least of all shards. Zero if it has ended, and some of its
    /// keys are not deleted yet.
    pub remaining: Duration,
    /// The number of its keys.
    pub keys: u64,
    /// The shards that do not have it. If there are any, a client is granting or ending it at this
    /// moment, or was cut off while it did, and the lease will end.
    pub missing: Vec<GroupId>,
}

/// Keys of a lease; see [`Client::lease_keys`].
///
/// # Examples
/// ```
/// # use dkv_api::{Client, Error, LeaseId};
/// # async fn example(client: &Client, lease: LeaseId) -> Result<(), Error> {
/// let found = client.lease_keys(lease, 100).await?;
/// println!("{:?}{}", found.keys, if found.more { " and more" } else { "" });
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseKeys {
    /// The first keys, in the order of their bytes.
    pub keys: Vec<Bytes>,
    /// Whether there are more.
    pub more: bool,
}

impl Client {
    /// Grants a lease of 1 s to 3650 days, and returns its id. After that time the lease ends and
    /// its keys are deleted, unless it is [kept alive](Self::keep_lease).
    ///
    /// # Errors
    /// [`Error::TtlOutOfBounds`]; [`Error::TooManyLeases`]; [`Error::Unavailable`] if not every
    /// shard granted it in time, and no shard has it. [`Error::Unknown`] if a shard may have it:
    /// the error names it, it has no keys, and it ends after its time.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use dkv_api::WriteOptions;
    ///
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let lease = client.grant_lease(Duration::from_secs(10)).await?;
    /// let options = WriteOptions::default().lease(lease);
    /// client.write_with("worker/7", "10.0.0.7:80", options).await?;
    /// # Ok(()) }
    /// ```
    pub async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, Error> {
        let (lease, deadline) = (LeaseId::random(), Instant::now() + self.timeout());
        match self.grant_lease_as(lease, ttl).await {
            Ok(_) => Ok(lease),
            Err(Error::Unknown(why)) => Err(self.undo_grant(lease, why, deadline).await),
            Err(error) => Err(error),
        }
    }

    /// Grants a lease under an id that the caller has chosen; see
    /// [`grant_lease`](Self::grant_lease). Returns a receipt of each shard.
    ///
    /// # Errors
    /// As for that; [`Error::LeaseExists`] if a shard has a lease of that id, [`Error::Invalid`] if
    /// no lease may have it. [`Error::Unknown`] if the outcome could not be learnt in time: the
    /// caller may have the lease, in every shard or in some of them. To revoke it ends what there
    /// is, and otherwise it ends after its time.
    ///
    /// # Examples
    /// ```
    /// # use std::time::Duration;
    /// # use dkv_api::{Client, Error, LeaseId};
    /// # async fn example(client: &Client) -> Result<(), Error> {
    /// client.grant_lease_as(LeaseId(7), Duration::from_secs(10)).await?;
    /// # Ok(()) }
    /// ```
    pub async fn grant_lease_as(
        &self,
        lease: LeaseId,
        ttl: Duration,
    ) -> Result<Vec<Receipt>, Error> {
        let ttl_ms = checked_ttl(ttl, LEASE_TTL_MIN)?;
        if !lease.is_valid() {
            let last = LeaseId::LAST.0;
            return Err(Error::Invalid(format!("the id of a lease is from 1 to {last}")));
        }
        let shards = self.lease_shards().await?;
        let action = LeaseAction::Grant { ttl_ms };
        let grants = shards.iter().map(|&shard| self.change_lease(shard, lease, action));
        let (mut receipts, mut granted, mut failure) = (Vec::new(), Vec::new(), None);
        for (&shard, grant) in shards.iter().zip(join_all(grants).await) {
            match grant {
                Ok((receipt, ..)) => {
                    receipts.push(receipt);
                    granted.push(shard);
                }
                // A revocation now could end what the caller grants under this id next.
                Err(error) if error.may_have_had_effect() => return Err(error),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        let Some(error) = failure else { return Ok(receipts) };
        // In a shard that refused it the id may be somebody else's. The caller may use the id again
        // as soon as it has the error, so the revocation comes first.
        if !granted.is_empty() {
            let revoked = self.revoke_in_background(lease, granted).await;
            if !revoked.is_ok_and(|all| all) {
                return Err(Error::Unknown(format!(
                    "granted in some shards, while in another {error}"
                )));
            }
        }
        Err(error)
    }

    /// Grants a lease, and keeps it alive: [`grant_lease`](Self::grant_lease) and
    /// [`keep_lease`](Self::keep_lease).
    ///
    /// # Errors
    /// As for these two; [`Error::Unknown`] also if the lease was granted, cannot be kept alive,
    /// and may not have been revoked in time.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let lease = client.hold_lease(Duration::from_secs(10)).await?;
    /// println!("lease {} ended: {}", lease.id(), lease.lost().await);
    /// # Ok(()) }
    /// ```
    pub async fn hold_lease(&self, ttl: Duration) -> Result<LeaseKeeper, Error> {
        let deadline = Instant::now() + self.timeout();
        let lease = self.grant_lease(ttl).await?;
        match self.keep_lease(lease).await {
            Err(Error::Unavailable(why)) => Err(self.undo_grant(lease, why, deadline).await),
            Err(error) => {
                self.revoke_in_background(lease, self.lease_shards().await?);
                Err(error)
            }
            kept => kept,
        }
    }

    /// Keeps a lease alive from now on, at a third of its time, until the keeper is dropped.
    ///
    /// # Errors
    /// [`Error::NoLease`] if it has ended; [`Error::Unavailable`] if not every shard could confirm
    /// it in time.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let lease = client.grant_lease(Duration::from_secs(10)).await?;
    /// let keeper = client.keep_lease(lease).await?;
    /// assert!(!keeper.is_lost());
    /// keeper.revoke().await?;
    /// # Ok(()) }
    /// ```
    pub async fn keep_lease(&self, lease: LeaseId) -> Result<LeaseKeeper, Error> {
        let sent = Instant::now();
        let confirmed = self.confirm_lease(lease).await?;
        let times = confirmed.into_iter().map(|(shard, (time, _))| (shard, time)).collect();
        Ok(LeaseKeeper::start(self.clone(), lease, sent, times))
    }

    /// Gives a lease its full time again, once, and returns that time.
    ///
    /// # Errors
    /// As for [`keep_lease`](Self::keep_lease).
    ///
    /// # Examples
    /// ```
    /// # use dkv_api::{Client, Error, LeaseId};
    /// # async fn example(client: &Client, lease: LeaseId) -> Result<(), Error> {
    /// println!("{:?} more", client.refresh_lease(lease).await?);
    /// # Ok(()) }
    /// ```
    pub async fn refresh_lease(&self, lease: LeaseId) -> Result<Duration, Error> {
        Ok(self.refresh_lease_with_receipts(lease).await?.0)
    }

    /// Does what [`refresh_lease`](Self::refresh_lease) does, and returns a receipt of each shard
    /// as well.
    ///
    /// # Errors
    /// As for that.
    ///
    /// # Examples
    /// ```
    /// # use dkv_api::{Client, Error, LeaseId};
    /// # async fn example(client: &Client, lease: LeaseId) -> Result<(), Error> {
    /// let (time, receipts) = client.refresh_lease_with_receipts(lease).await?;
    /// println!("{time:?} more, as of {}", receipts[0].revision);
    /// # Ok(()) }
    /// ```
    pub async fn refresh_lease_with_receipts(
        &self,
        lease: LeaseId,
    ) -> Result<(Duration, Vec<Receipt>), Error> {
        let confirmed = self.confirm_lease(lease).await?;
        let time = confirmed.values().map(|(time, _)| *time).min().unwrap_or_default();
        Ok((time, confirmed.into_values().map(|(_, receipt)| receipt).collect()))
    }

    /// Ends a lease and deletes its keys; returns how many.
    ///
    /// # Errors
    /// [`Error::NoLease`] if no shard has it; [`Error::Unknown`] if the outcome could not be learnt
    /// in time, or the lease has ended in some shards only. After that it is safe to call again.
    ///
    /// # Examples
    /// ```
    /// # use dkv_api::{Client, Error, LeaseId};
    /// # async fn example(client: &Client, lease: LeaseId) -> Result<(), Error> {
    /// println!("{} keys were deleted", client.revoke_lease(lease).await?);
    /// # Ok(()) }
    /// ```
    pub async fn revoke_lease(&self, lease: LeaseId) -> Result<u64, Error> {
        Ok(self.revoke_lease_with_receipts(lease).await?.0)
    }

    /// Does what [`revoke_lease`](Self::revoke_lease) does, and returns a receipt of each shard
    /// that had the lease as well. Its revision is that of the last deletion, or the shard's latest
    /// if there was none.
    ///
    /// # Errors
    /// As for that.
    ///
    /// # Examples
    /// ```
    /// # use dkv_api::{Client, Error, LeaseId};
    /// # async fn example(client: &Client, lease: LeaseId) -> Result<(), Error> {
    /// let (deleted, receipts) = client.revoke_lease_with_receipts(lease).await?;
    /// println!("{deleted} keys were deleted, the last one at {}", receipts[0].revision);
    /// # Ok(()) }
    /// ```
    pub async fn revoke_lease_with_receipts(
        &self,
        lease: LeaseId,
    ) -> Result<(u64, Vec<Receipt>), Error> {
        let shards = self.lease_shards().await?;
        let revokes = join_all(shards.iter().map(|&shard| self.revoke_in(lease, shard))).await;
        let (mut deleted, mut receipts, mut failure) = (0, Vec::new(), None::<Error>);
        for revoked in revokes {
            match revoked {
                Ok((receipt, keys)) => {
                    deleted += keys;
                    receipts.push(receipt);
                }
                Err(Error::NoLease { .. }) => {}
                // One that may have had an effect decides.
                Err(error) => match &failure {
                    Some(first) if first.may_have_had_effect() || !error.may_have_had_effect() => {}
                    _ => failure = Some(error),
                },
            }
        }
        match failure {
            Some(error) if receipts.is_empty() => Err(error),
            Some(error) => Err(Error::Unknown(format!(
                "the lease has ended in some shards, with {deleted} keys, while in another: {error}"
            ))),
            None if receipts.is_empty() => Err(Error::NoLease { lease }),
            None => Ok((deleted, receipts)),
        }
    }

    /// Returns all leases, in the order of their ids.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if not every shard answered in time.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// println!("{} leases", client.leases().await?.len());
    /// # Ok(()) }
    /// ```
    pub async fn leases(&self) -> Result<Vec<LeaseInfo>, Error> {
        let shards = self.lease_shards().await?;
        let lists = join_all(shards.iter().map(|&shard| self.leases_of(shard))).await;
        let mut all: BTreeMap<LeaseId, Vec<(GroupId, LeaseStatus)>> = BTreeMap::new();
        for (&shard, list) in shards.iter().zip(lists) {
            for status in list? {
                all.entry(status.lease).or_default().push((shard, status));
            }
        }
        let summed = all.into_iter().map(|(lease, parts)| sum(lease, &shards, &parts));
        Ok(summed.collect())
    }

    /// Returns a lease.
    ///
    /// # Errors
    /// [`Error::NoLease`] if no shard has it; [`Error::Unavailable`] if not every shard answered in
    /// time.
    ///
    /// # Examples
    /// ```
    /// # use dkv_api::{Client, Error, LeaseId};
    /// # async fn example(client: &Client, lease: LeaseId) -> Result<(), Error> {
    /// println!("{:?} left", client.lease(lease).await?.remaining);
    /// # Ok(()) }
    /// ```
    pub async fn lease(&self, lease: LeaseId) -> Result<LeaseInfo, Error> {
        let shards = self.lease_shards().await?;
        let pages = shards.iter().map(|&shard| self.lease_page(shard, lease, Bytes::new(), 1));
        let mut parts = Vec::new();
        for (&shard, page) in shards.iter().zip(join_all(pages).await) {
            match page {
                Ok((status, _)) => parts.push((shard, status)),
                Err(Error::NoLease { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if parts.is_empty() {
            Err(Error::NoLease { lease })
        } else {
            Ok(sum(lease, &shards, &parts))
        }
    }

    /// Returns the first keys of a lease.
    ///
    /// # Errors
    /// As for [`lease`](Self::lease).
    ///
    /// # Examples
    /// ```
    /// # use dkv_api::{Client, Error, LeaseId};
    /// # async fn example(client: &Client, lease: LeaseId) -> Result<(), Error> {
    /// println!("{:?}", client.lease_keys(lease, 10).await?.keys);
    /// # Ok(()) }
    /// ```
    pub async fn lease_keys(&self, lease: LeaseId, limit: usize) -> Result<LeaseKeys, Error> {
        let shards = self.lease_shards().await?;
        let each = join_all(shards.iter().map(|&shard| self.keys_of(shard, lease, limit))).await;
        let (mut keys, mut more, mut found) = (Vec::new(), false, false);
        for part in each {
            match part {
                Ok(part) => {
                    keys.extend(part.keys);
                    (more, found) = (more || part.more, true);
                }
                Err(Error::NoLease { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if !found {
            return Err(Error::NoLease { lease });
        }
        keys.sort();
        more |= keys.len() > limit;
        keys.truncate(limit);
        Ok(LeaseKeys { keys, more })
    }

    /// Returns how long a key will live.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the key does not exist; [`Error::Unavailable`] if the primary did not
    /// answer in time.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// println!("{:?}", client.ttl("session/7").await?);
    /// # Ok(()) }
    /// ```
    pub async fn ttl(&self, key: impl AsRef<[u8]>) -> Result<Lifetime, Error> {
        let key = checked_key(key.as_ref())?;
        let view = self.view().await?;
        let shard = self.shard_of(&view, &key)?.group;
        let ms = Duration::from_millis;
        match self.ask(shard, RequestBody::KeyTtl { shard, key }, None).await? {
            Answer::KeyExpiry(receipt, expiry) => match expiry {
                KeyExpiry::Absent => Err(Error::NotFound { receipt }),
                KeyExpiry::Never => Ok(Lifetime::Unlimited),
                KeyExpiry::Ttl { ttl_ms, remaining_ms } => {
                    Ok(Lifetime::Ttl { ttl: ms(ttl_ms), remaining: ms(remaining_ms) })
                }
                KeyExpiry::Lease(LeaseStatus { lease, ttl_ms, remaining_ms, .. }) => {
                    Ok(Lifetime::Lease { lease, ttl: ms(ttl_ms), remaining: ms(remaining_ms) })
                }
            },
            _ => Err(wrong_answer()),
        }
    }

    /// Returns the shards in which a lease is granted.
    async fn lease_shards(&self) -> Result<Vec<GroupId>, Error> {
        let view = self.view().await?;
        Ok(self.shards(&view)?.iter().map(|shard| shard.group).collect())
    }

    /// Keeps a lease alive in all shards; returns the time that each gives it.
    async fn confirm_lease(
        &self,
        lease: LeaseId,
    ) -> Result<BTreeMap<GroupId, (Duration, Receipt)>, Error> {
        let shards = self.lease_shards().await?;
        let each = shards.iter().map(|&shard| self.keep_in(lease, shard, None));
        let mut times = BTreeMap::new();
        for (&shard, time) in shards.iter().zip(join_all(each).await) {
            times.insert(shard, time?);
        }
        Ok(times)
    }

    /// Keeps a lease alive in a shard; returns the time that it has now.
    async fn keep_in(
        &self,
        lease: LeaseId,
        shard: GroupId,
        timeout: Option<Duration>,
    ) -> Result<(Duration, Receipt), Error> {
        match self.ask(shard, RequestBody::KeepAlive { shard, lease }, timeout).await? {
            Answer::KeptAlive { receipt, ttl_ms } => Ok((Duration::from_millis(ttl_ms), receipt)),
            _ => Err(wrong_answer()),
        }
    }

    /// Ends a lease in a shard; returns the number of keys that were deleted.
    async fn revoke_in(&self, lease: LeaseId, shard: GroupId) -> Result<(Receipt, u64), Error> {
        let deadline = Instant::now() + self.timeout();
        let revoke = || self.change_lease(shard, lease, LeaseAction::Revoke);
        let (mut receipt, mut sum, mut left) = revoke().await?;
        let mut deleted = sum;
        // It has ended. The primary deletes what is left, in any case and maybe faster.
        while left > 0 && deleted > 0 && Instant::now() < deadline {
            let Ok(more) = revoke().await else { break };
            (receipt, deleted, left) = more;
            sum += deleted;
        }
        Ok((receipt, sum))
    }

    /// Ends what there may be of a lease that nobody uses, whether the caller waits for it or not.
    /// If that fails, the lease ends by itself. Returns whether it did not fail.
    fn revoke_in_background(&self, lease: LeaseId, shards: Vec<GroupId>) -> JoinHandle<bool> {
        let client = self.clone();
        tokio::spawn(async move {
            let revokes =
                join_all(shards.iter().map(|&shard| client.revoke_in(lease, shard))).await;
            revokes.iter().all(|revoked| matches!(revoked, Ok(_) | Err(Error::NoLease { .. })))
        })
    }

    /// Changes a lease in a shard; returns the keys that were deleted, and those that are left.
    async fn change_lease(
        &self,
        shard: GroupId,
        lease: LeaseId,
        action: LeaseAction,
    ) -> Result<(Receipt, u64, u64), Error> {
        let kind = RequestKind::Lease { shard, lease, action, write_id: None };
        match self.request(kind, None).await? {
            Answer::Granted(receipt) => Ok((receipt, 0, 0)),
            Answer::Revoked { receipt, deleted, left } => Ok((receipt, deleted, left)),
            _ => Err(wrong_answer()),
        }
    }

    /// Returns all leases of a shard.
    async fn leases_of(&self, shard: GroupId) -> Result<Vec<LeaseStatus>, Error> {
        let (mut all, mut after) = (Vec::new(), LeaseId::default());
        loop {
            let leases_max = SCAN_KEYS_MAX as u32;
            let body = RequestBody::Leases { shard, after, leases_max };
            let Answer::Leases { leases, more, .. } = self.ask(shard, body, None).await? else {
                return Err(wrong_answer());
            };
            for status in leases {
                if status.lease <= after {
                    return Err(Error::Unavailable("a node's leases are not in order".into()));
                }
                after = status.lease;
                all.push(status);
            }
            if !more {
                return Ok(all);
            }
        }
    }

    /// Returns the first keys that a lease has in a shard.
    async fn keys_of(
        &self,
        shard: GroupId,
        lease: LeaseId,
        limit: usize,
    ) -> Result<LeaseKeys, Error> {
        let mut all = LeaseKeys { keys: Vec::new(), more: true };
        while all.more && all.keys.len() < limit {
            let after = all.keys.last().cloned().unwrap_or_default();
            let wanted = (limit - all.keys.len()).min(SCAN_KEYS_MAX) as u32;
            let (_, page) = self.lease_page(shard, lease, after, wanted).await?;
            if page.more && page.keys.is_empty() {
                let why = "a node's page of keys is empty and not the last one";
                return Err(Error::Unavailable(why.into()));
            }
            all.more = page.more;
            all.keys.extend(page.keys);
        }
        Ok(all)
    }

    async fn lease_page(
        &self,
        shard: GroupId,
        lease: LeaseId,
        after: Bytes,
        keys_max: u32,
    ) -> Result<(LeaseStatus, LeaseKeys), Error> {
        let body = RequestBody::LeaseInfo { shard, lease, after, keys_max };
        match self.ask(shard, body, None).await? {
            Answer::Lease { status, keys, more, .. } => Ok((status, LeaseKeys { keys, more })),
            _ => Err(wrong_answer()),
        }
    }

    async fn ask(
        &self,
        shard: GroupId,
        body: RequestBody,
        timeout: Option<Duration>,
    ) -> Result<Answer, Error> {
        self.request(RequestKind::Ask { shard, body }, timeout).await
    }
}

/// Adds up what the shards say of a lease.
fn sum(lease: LeaseId, shards: &[GroupId], parts: &[(GroupId, LeaseStatus)]) -> LeaseInfo {
    let ms = |least: Option<u64>| Duration::from_millis(least.unwrap_or_default());
    let has = |shard: &GroupId| parts.iter().any(|(known, _)| known == shard);
    LeaseInfo {
        id: lease,
        ttl: ms(parts.iter().map(|(_, part)| part.ttl_ms).min()),
        remaining: ms(parts.iter().map(|(_, part)| part.remaining_ms).min()),
        keys: parts.iter().map(|(_, part)| part.keys).fold(0, u64::saturating_add),
        missing: shards.iter().filter(|shard| !has(shard)).copied().collect(),
    }
}
