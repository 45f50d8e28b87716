//! The live instances of a service.

use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::{LeaseId, Revision};
use dkv_wire::message::Relation;

use crate::attach::Attach;
use crate::client::Client;
use crate::error::Error;
use crate::lease::LeaseKeeper;
use crate::options::WriteOptions;
use crate::scan::ScanOptions;
use crate::transaction::{Compare, Transaction, TransactionOperation};

/// An instance of a service that is registered for as long as this exists.
///
/// The key of the instance `NAME` of `SERVICE` is `SERVICE/NAME`. It is gone at once after
/// [`withdraw`](Self::withdraw), and within the time to live after the process has died or was cut
/// off. It promises no more: an instance that is listed may have died just now, and one that is
/// paused is taken off the list.
///
/// A new registration under the same name replaces the old one, which then is
/// [lost](Self::is_lost) only in name: its [`update`](Self::update) fails.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use dkv_api::recipes::Registration;
///
/// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
/// let ttl = Duration::from_secs(10);
/// loop {
///     let here = Registration::new(client, "service/web", "7", "10.0.0.7:80", ttl).await?;
///     // After a network failure for longer than its time, it registers anew.
///     println!("registering again: {}", here.lost().await);
/// }
/// # }
/// ```
#[must_use = "an instance is taken off the list when its registration is dropped"]
#[derive(Debug)]
pub struct Registration {
    client: Client,
    /// `None` once it was withdrawn.
    keeper: Option<LeaseKeeper>,
    lease: LeaseId,
    key: Bytes,
    revision: Revision,
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let (Some(keeper), Ok(runtime)) =
            (self.keeper.take(), tokio::runtime::Handle::try_current())
        {
            // If this fails, the lease ends by itself.
            runtime.spawn(async move { keeper.revoke().await.map(drop) });
        }
    }
}

impl Registration {
    /// Registers an instance of a service, with a value such as its address.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; [`Error::TtlOutOfBounds`]; [`Error::Invalid`] if a name is empty.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use dkv_api::recipes::Registration;
    ///
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let ttl = Duration::from_secs(10);
    /// let here = Registration::new(client, "service/web", "7", "10.0.0.7:80", ttl).await?;
    /// here.withdraw().await?;
    /// # Ok(()) }
    /// ```
    pub async fn new(
        client: &Client,
        service: impl AsRef<[u8]>,
        name: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        ttl: Duration,
    ) -> Result<Self, Error> {
        let (service, name) = (service.as_ref(), name.as_ref());
        if service.is_empty() || name.is_empty() {
            return Err(Error::Invalid("a name has at least one byte".into()));
        }
        let key = Bytes::from([service, b"/", name].concat());
        let keeper = client.hold_lease_of_recipe(ttl).await?;
        let lease = keeper.id();
        let mut here = Self {
            client: client.clone(),
            keeper: Some(keeper),
            lease,
            key,
            revision: Revision(0),
        };
        let options = WriteOptions::default().lease(lease);
        let written = client.write_with(&here.key, value, options).await;
        here.revision = written
            .map_err(|error| match error {
                // The lease is revoked, and the key with it.
                Error::Unknown(why) => Error::Unavailable(why),
                other => other,
            })?
            .receipt
            .revision;
        Ok(here)
    }

    /// Changes the value of the instance.
    ///
    /// # Errors
    /// [`Error::NoLease`] if the registration is lost or was replaced by another one.
    ///
    /// # Examples
    /// ```
    /// # async fn example(mut here: dkv_api::recipes::Registration) -> Result<(), dkv_api::Error> {
    /// here.update("10.0.0.7:81").await?;
    /// # Ok(()) }
    /// ```
    pub async fn update(&mut self, value: impl Into<Bytes>) -> Result<(), Error> {
        let attach = Attach::Lease(self.lease);
        let update = Transaction::new()
            .when(Compare::revision(&self.key, Relation::Equal, self.revision))
            .then(TransactionOperation::put_attached(&self.key, value, attach));
        let done = self.client.transact(update).await?;
        if !done.succeeded {
            return Err(Error::NoLease { lease: self.lease });
        }
        self.revision = done.receipt.revision;
        Ok(())
    }

    /// Returns whether the registration is lost, or may be.
    ///
    /// # Examples
    /// ```
    /// # async fn example(here: dkv_api::recipes::Registration) -> Result<(), dkv_api::Error> {
    /// if here.is_lost() {
    ///     println!("others do not find this instance any more");
    /// }
    /// # Ok(()) }
    /// ```
    pub fn is_lost(&self) -> bool {
        self.keeper.as_ref().is_none_or(LeaseKeeper::is_lost)
    }

    /// Waits until the registration is lost; returns the reason. May be cancelled.
    ///
    /// # Examples
    /// ```
    /// # async fn example(here: dkv_api::recipes::Registration) -> Result<(), dkv_api::Error> {
    /// println!("others do not find this instance any more: {}", here.lost().await);
    /// # Ok(()) }
    /// ```
    pub async fn lost(&self) -> Error {
        match &self.keeper {
            Some(keeper) => keeper.lost().await,
            None => Error::NoLease { lease: self.lease },
        }
    }

    /// Takes the instance off the list.
    ///
    /// # Errors
    /// It could not be confirmed in time; the instance is taken off when its time is over.
    ///
    /// # Examples
    /// ```
    /// # async fn example(here: dkv_api::recipes::Registration) -> Result<(), dkv_api::Error> {
    /// here.withdraw().await?;
    /// # Ok(()) }
    /// ```
    pub async fn withdraw(mut self) -> Result<(), Error> {
        match self.keeper.take().map(LeaseKeeper::revoke) {
            Some(revoked) => match revoked.await {
                Ok(_) | Err(Error::NoLease { .. }) => Ok(()),
                Err(error) => Err(error),
            },
            None => Ok(()),
        }
    }
}

/// An instance of a service.
///
/// # Examples
/// ```
/// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
/// for instance in dkv_api::recipes::instances(client, "service/web").await? {
///     println!("{:?} at {:?}", instance.name, instance.value);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its name.
    pub name: Bytes,
    /// Its value.
    pub value: Bytes,
    /// The revision of its registration or last update, in the shard of its key.
    pub revision: Revision,
}

/// Returns the registered instances of a service, in the order of their names. To follow them,
/// [watch](Client::watch) the prefix `SERVICE/`.
///
/// # Errors
/// [`Error::Unavailable`].
///
/// # Examples
/// ```
/// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
/// println!("{:?}", dkv_api::recipes::instances(client, "service/web").await?);
/// # Ok(()) }
/// ```
pub async fn instances(client: &Client, service: impl AsRef<[u8]>) -> Result<Vec<Instance>, Error> {
    let prefix = [service.as_ref(), b"/"].concat();
    let mut scan = client.scan(ScanOptions::prefix(prefix.clone()));
    let mut all = Vec::new();
    while let Some(pair) = scan.next().await? {
        let name = pair.key.slice(prefix.len()..);
        let (value, revision) = (pair.value.unwrap_or_default(), pair.revision);
        all.push(Instance { name, value, revision });
    }
    Ok(all)
}
