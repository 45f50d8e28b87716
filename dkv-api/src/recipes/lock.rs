//! A lock.

use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::{LeaseId, Revision};

use super::line::Place;
use crate::client::Client;
use crate::error::Error;
use crate::transaction::Compare;

/// Time to live of a lock, unless the options say otherwise.
const TTL: Duration = Duration::from_secs(10);

/// How to acquire a [`Lock`].
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use dkv_api::recipes::LockOptions;
///
/// let options = LockOptions::default().ttl(Duration::from_secs(30)).value("worker 7");
/// ```
#[must_use = "options do nothing until they are passed to a lock"]
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockOptions {
    /// Time after which a holder that died or is cut off loses the lock; 10 s by default.
    pub ttl: Duration,
    /// What others can read of the holder; empty by default.
    pub value: Bytes,
}

impl Default for LockOptions {
    fn default() -> Self {
        Self { ttl: TTL, value: Bytes::new() }
    }
}

impl LockOptions {
    /// Sets the time after which a holder that died or is cut off loses the lock.
    ///
    /// # Examples
    /// ```
    /// # use dkv_api::recipes::LockOptions;
    /// let options = LockOptions::default().ttl(std::time::Duration::from_secs(30));
    /// ```
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { ttl, ..self }
    }

    /// Sets what others can read of the holder.
    ///
    /// # Examples
    /// ```
    /// # use dkv_api::recipes::LockOptions;
    /// let options = LockOptions::default().value("worker 7");
    /// ```
    pub fn value(self, value: impl Into<Bytes>) -> Self {
        Self { value: value.into(), ..self }
    }
}

/// A lock that is held.
///
/// The keys of the lock `NAME` are `NAME/…`; the holder is the one with the lowest revision.
///
/// It promises that its holders have growing [fences](Self::fence), that they are served in the
/// order in which they came, and that each learns of its loss before the next one begins, unless it
/// is paused. It cannot promise that a paused holder does nothing: see the
/// [module](crate::recipes). Dropping it releases it, in the background.
///
/// # Examples
/// ```
/// use dkv_api::recipes::{Lock, LockOptions};
/// use dkv_api::{Transaction, TransactionOperation};
///
/// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
/// let lock = Lock::acquire(client, "lock/report", LockOptions::default()).await?;
/// let report = Transaction::new()
///     // Fails if the lock was lost, however late the transaction arrives.
///     .when(lock.condition())
///     .then(TransactionOperation::put("report", "done"));
/// assert!(client.transact(report).await?.succeeded);
/// lock.release().await?;
/// # Ok(()) }
/// ```
#[must_use = "a lock is released when it is dropped"]
#[derive(Debug)]
pub struct Lock {
    place: Place,
}

impl Lock {
    /// Acquires a lock; waits as long as it takes. May be cancelled, and then has no place in the
    /// line.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::NoLease`] if the network could not be reached for so long
    /// that the place in the line was lost; [`Error::TtlOutOfBounds`].
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use dkv_api::recipes::{Lock, LockOptions};
    ///
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let acquired = Lock::acquire(client, "lock/report", LockOptions::default());
    /// match tokio::time::timeout(Duration::from_secs(60), acquired).await {
    ///     Ok(lock) => println!("fence {}", lock?.fence()),
    ///     Err(_) => println!("somebody has it"),
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn acquire(
        client: &Client,
        name: impl AsRef<[u8]>,
        options: LockOptions,
    ) -> Result<Self, Error> {
        let LockOptions { ttl, value } = options;
        let place = Place::take(client, name.as_ref(), value, ttl).await?;
        place.wait().await?;
        Ok(Self { place })
    }

    /// Acquires a lock, unless `stop` completes before; then leaves the line, and returns what
    /// `stop` has returned.
    ///
    /// # Errors
    /// As for [`acquire`](Self::acquire).
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use dkv_api::recipes::{Lock, LockOptions};
    ///
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let a_minute = tokio::time::sleep(Duration::from_secs(60));
    /// let options = LockOptions::default();
    /// match Lock::acquire_until(client, "lock/report", options, a_minute).await? {
    ///     Ok(lock) => println!("fence {}", lock.fence()),
    ///     Err(()) => println!("somebody has it"),
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn acquire_until<T>(
        client: &Client,
        name: impl AsRef<[u8]>,
        options: LockOptions,
        stop: impl Future<Output = T>,
    ) -> Result<Result<Self, T>, Error> {
        let LockOptions { ttl, value } = options;
        let place = Place::take(client, name.as_ref(), value, ttl).await?;
        let stopped = tokio::select! {
            biased;
            waited = place.wait() => {
                waited?;
                return Ok(Ok(Self { place }));
            }
            stopped = stop => stopped,
        };
        place.leave().await?;
        Ok(Err(stopped))
    }

    /// Acquires a lock that nobody has; returns `None` if somebody has it.
    ///
    /// # Errors
    /// As for [`acquire`](Self::acquire).
    ///
    /// # Examples
    /// ```
    /// use dkv_api::recipes::{Lock, LockOptions};
    ///
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// match Lock::try_acquire(client, "lock/report", LockOptions::default()).await? {
    ///     Some(lock) => lock.release().await?,
    ///     None => println!("somebody has it"),
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn try_acquire(
        client: &Client,
        name: impl AsRef<[u8]>,
        options: LockOptions,
    ) -> Result<Option<Self>, Error> {
        let LockOptions { ttl, value } = options;
        let place = Place::take(client, name.as_ref(), value, ttl).await?;
        if place.is_first().await? && !place.is_lost() {
            return Ok(Some(Self { place }));
        }
        // Others must not wait for somebody who does not.
        place.leave().await?;
        Ok(None)
    }

    /// Returns a number that is greater than that of every holder before this one.
    ///
    /// # Examples
    /// ```
    /// # async fn example(lock: dkv_api::recipes::Lock) -> Result<(), dkv_api::Error> {
    /// println!("pass {} on to whatever the lock protects", lock.fence());
    /// # Ok(()) }
    /// ```
    pub fn fence(&self) -> Revision {
        self.place.revision()
    }

    /// Returns the key of this holder. The lock is lost when it is deleted.
    ///
    /// # Examples
    /// ```
    /// # use dkv_api::{Client, Error, recipes::Lock};
    /// # async fn example(client: &Client, lock: Lock) -> Result<(), Error> {
    /// // An administrator takes the lock away.
    /// client.delete(lock.key()).await?;
    /// # Ok(()) }
    /// ```
    pub fn key(&self) -> &Bytes {
        self.place.key()
    }

    /// Returns the lease of the lock, for keys to delete with it.
    ///
    /// # Examples
    /// ```
    /// # use dkv_api::{Client, Error, recipes::Lock};
    /// # async fn example(client: &Client, lock: Lock) -> Result<(), Error> {
    /// let with_lock = dkv_api::WriteOptions::default().lease(lock.lease());
    /// client.write_with("report/draft", "…", with_lock).await?;
    /// # Ok(()) }
    /// ```
    pub fn lease(&self) -> LeaseId {
        self.place.lease()
    }

    /// Returns a condition for transactions, which holds only until the lock is released or lost.
    ///
    /// # Examples
    /// ```
    /// # use dkv_api::{Client, Error, recipes::Lock};
    /// # async fn example(client: &Client, lock: Lock) -> Result<(), Error> {
    /// use dkv_api::{Transaction, TransactionOperation};
    ///
    /// let report = Transaction::new()
    ///     .when(lock.condition())
    ///     .then(TransactionOperation::put("report", "done"));
    /// assert!(client.transact(report).await?.succeeded);
    /// # Ok(()) }
    /// ```
    pub fn condition(&self) -> Compare {
        self.place.condition()
    }

    /// Returns whether the lock is lost, or may be.
    ///
    /// # Examples
    /// ```
    /// # async fn example(lock: dkv_api::recipes::Lock) -> Result<(), dkv_api::Error> {
    /// while !lock.is_lost() {
    ///     // Do a little.
    /// #     break;
    /// }
    /// # Ok(()) }
    /// ```
    pub fn is_lost(&self) -> bool {
        self.place.is_lost()
    }

    /// Waits until the lock is lost; returns the reason. May be cancelled.
    ///
    /// # Examples
    /// ```
    /// # async fn example(lock: dkv_api::recipes::Lock) -> Result<(), dkv_api::Error> {
    /// println!("the lock is lost: {}", lock.lost().await);
    /// # Ok(()) }
    /// ```
    pub async fn lost(&self) -> Error {
        self.place.lost().await
    }

    /// Releases the lock; the next one in the line gets it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Unknown`] if that could not be confirmed in time. The
    /// lock is released then when its time is over.
    ///
    /// # Examples
    /// ```
    /// # async fn example(lock: dkv_api::recipes::Lock) -> Result<(), dkv_api::Error> {
    /// lock.release().await?;
    /// # Ok(()) }
    /// ```
    pub async fn release(self) -> Result<(), Error> {
        self.place.leave().await
    }
}
