//! A counter of events in a window of time.

use std::time::Duration;

use bytes::Bytes;
use dkv_wire::message::OperationResult;

use crate::attach::Attach;
use crate::client::{Client, checked_key, wrong_answer};
use crate::error::Error;
use crate::time_bounds::checked_attach;
use crate::transaction::{Compare, Transaction, TransactionOperation};

/// Counts events in a window, which begins with the first event and is as long as the counter says.
/// Then the count is gone, and the next event begins another window.
///
/// The count is exact: however many processes add, each call is counted once. The window ends by
/// the network's clock, at the earliest after its time and usually within a second, so that no
/// caller's clock matters. At the border of two windows up to twice as many events as in one may
/// come close together.
///
/// After [`Error::Unknown`] a call may or may not have been counted.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use dkv_api::recipes::RateCounter;
///
/// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
/// let per_minute = RateCounter::new(client, "rate/10.0.0.7", Duration::from_secs(60))?;
/// if per_minute.add(1).await? > 100 {
///     println!("too many requests");
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct RateCounter {
    client: Client,
    key: Bytes,
    window: Duration,
}

impl RateCounter {
    /// Creates the counter at a key, with windows of 100 ms to 3650 days.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::TooLarge`] if there can be no such key;
    /// [`Error::TtlOutOfBounds`].
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use dkv_api::recipes::RateCounter;
    ///
    /// # fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let per_hour = RateCounter::new(client, "rate/login/ada", Duration::from_secs(3600))?;
    /// # Ok(()) }
    /// ```
    pub fn new(client: &Client, key: impl AsRef<[u8]>, window: Duration) -> Result<Self, Error> {
        let key = checked_key(key.as_ref())?;
        checked_attach(Attach::Ttl(window))?;
        Ok(Self { client: client.clone(), key, window })
    }

    /// Adds events, and returns the number in this window.
    ///
    /// # Errors
    /// As for [`Client::transact`]; [`Error::Unfit`] if the key has a value that is no number.
    ///
    /// # Examples
    /// ```
    /// # async fn example(counter: dkv_api::recipes::RateCounter) -> Result<(), dkv_api::Error> {
    /// println!("{} in this window", counter.add(1).await?);
    /// # Ok(()) }
    /// ```
    pub async fn add(&self, events: u32) -> Result<u64, Error> {
        let count = TransactionOperation::put_attached(
            &self.key,
            events.to_string(),
            Attach::Ttl(self.window),
        );
        // An increment keeps the time to live.
        let add = Transaction::new()
            .when(Compare::absent(&self.key))
            .then(count)
            .otherwise(TransactionOperation::increment(&self.key, events.into()));
        let done = self.client.transact(add).await?;
        let result = match done.results {
            Some(results) => results.into_iter().next(),
            None => {
                let why = "it was counted, but the sum was not told: too many answers were unread, \
                           or the shard has forgotten it";
                return Err(Error::Unknown(why.into()));
            }
        };
        match result {
            Some(OperationResult::Put { .. }) => Ok(events.into()),
            Some(OperationResult::Changed(version)) => {
                let value = version.value.unwrap_or_default();
                let sum = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
                sum.ok_or_else(wrong_answer)
            }
            _ => Err(wrong_answer()),
        }
    }
}
