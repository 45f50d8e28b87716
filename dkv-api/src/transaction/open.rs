//! Transactions as functions: they read and write keys as they go, and run again at a conflict.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::Revision;
use dkv_base::platform::random_u64;
use dkv_base::sync::lock;
use dkv_wire::message::Relation;

use super::{Compare, Transaction, TransactionOperation};
use crate::client::{Client, checked_key};
use crate::error::Error;

/// Most times that a transaction is run.
const RUNS_MAX: u32 = 64;
/// Pause after the first conflict; it doubles up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// Longest pause before a run.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// A transaction that is being run: what it has read, and what it is going to write.
///
/// Clones refer to the same transaction. Nothing is written before the function has returned.
///
/// # Examples
/// ```
/// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
/// client
///     .transaction(|open| async move {
///         let planet = open.get("planet").await?.unwrap_or_default();
///         open.put("planet-before", planet);
///         open.delete("planet");
///         Ok::<_, dkv_api::Error>(())
///     })
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct OpenTransaction {
    client: Client,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// The keys that were read, with the revision and the value of each that exists.
    read: BTreeMap<Bytes, Option<(Revision, Bytes)>>,
    /// The keys to write; `None` for those to delete.
    written: BTreeMap<Bytes, Option<Bytes>>,
}

impl OpenTransaction {
    /// Returns the value of a key as the transaction sees it: what it has written or read before,
    /// or else what the network has now. `None` if the key does not exist.
    ///
    /// # Errors
    /// As for [`Client::read`], without [`Error::NotFound`].
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// client
    ///     .transaction(|open| async move {
    ///         if open.get("planet").await?.is_none() {
    ///             open.put("planet", "Mars");
    ///         }
    ///         Ok::<_, dkv_api::Error>(())
    ///     })
    ///     .await?;
    /// # Ok(()) }
    /// ```
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>, Error> {
        let key = checked_key(key.as_ref())?;
        if let Some(known) = self.known(&key) {
            return Ok(known);
        }
        let read = match self.client.read(&key).await {
            Ok(read) => Some((read.receipt.revision, read.value)),
            Err(Error::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        // The first of two reads at the same time counts.
        self.lock().read.entry(key.clone()).or_insert(read);
        Ok(self.known(&key).flatten())
    }

    /// Stores a value once the transaction commits.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// client
    ///     .transaction(|open| async move {
    ///         open.put("planet", "Mars");
    ///         // It sees what it has put.
    ///         assert!(open.get("planet").await?.is_some());
    ///         Ok::<_, dkv_api::Error>(())
    ///     })
    ///     .await?;
    /// # Ok(()) }
    /// ```
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) {
        let key = Bytes::copy_from_slice(key.as_ref());
        self.lock().written.insert(key, Some(value.into()));
    }

    /// Removes a key once the transaction commits.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// client
    ///     .transaction(|open| async move {
    ///         open.delete("planet");
    ///         open.put("dwarf", "Pluto");
    ///         Ok::<_, dkv_api::Error>(())
    ///     })
    ///     .await?;
    /// # Ok(()) }
    /// ```
    pub fn delete(&self, key: impl AsRef<[u8]>) {
        let key = Bytes::copy_from_slice(key.as_ref());
        self.lock().written.insert(key, None);
    }

    fn known(&self, key: &Bytes) -> Option<Option<Bytes>> {
        let state = self.lock();
        let read = || state.read.get(key).map(|read| read.as_ref().map(|(_, value)| value.clone()));
        state.written.get(key).cloned().or_else(read)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Returns the transaction that commits what was written if nothing that was read has changed;
    /// without the writes of a run that has `failed`. `None` if there is nothing to do.
    fn commit(&self, failed: bool) -> Option<Transaction> {
        let State { read, written } = std::mem::take(&mut *self.lock());
        let written = if failed { BTreeMap::new() } else { written };
        // A single read is of one moment.
        if written.is_empty() && read.len() < 2 {
            return None;
        }
        let mut transaction = Transaction::new();
        for (key, read) in read {
            transaction = transaction.when(match read {
                Some((revision, _)) => Compare::revision(key, Relation::Equal, revision),
                None => Compare::absent(key),
            });
        }
        for (key, value) in written {
            transaction = transaction.then(match value {
                Some(value) => TransactionOperation::put(key, value),
                None => TransactionOperation::delete(key),
            });
        }
        Some(transaction)
    }
}

impl Client {
    /// Runs a function that reads and writes keys, as one transaction: strictly serializable with
    /// all strong operations. It commits if nothing that the function has read was changed
    /// meanwhile; otherwise the function runs again, up to 64 times.
    ///
    /// The function should have no effects of its own. It sees its own writes. Keys that it reads
    /// one after the other may be of different moments, but then its result does not count. That is
    /// also so for an error that it returns: nothing is written, and the error is returned if what
    /// was read is of one moment.
    ///
    /// At most 128 keys can be read, and 128 written.
    ///
    /// # Errors
    /// What the function returns; otherwise as for [`transact`](Self::transact), with
    /// [`Error::Unavailable`] if there were conflicts in every run.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{Client, Error};
    ///
    /// # async fn example(client: &Client) -> Result<(), Error> {
    /// let moved = client
    ///     .transaction(|t| async move {
    ///         let number = |value: Option<dkv_api::Bytes>| {
    ///             let text = String::from_utf8_lossy(&value.unwrap_or_default()).into_owned();
    ///             text.parse::<u64>().unwrap_or_default()
    ///         };
    ///         let (from, to) = (number(t.get("alice").await?), number(t.get("bob").await?));
    ///         if from < 10 {
    ///             return Ok(false);
    ///         }
    ///         t.put("alice", (from - 10).to_string());
    ///         t.put("bob", (to + 10).to_string());
    ///         Ok::<_, Error>(true)
    ///     })
    ///     .await?;
    /// println!("{}", if moved { "moved" } else { "too poor" });
    /// # Ok(()) }
    /// ```
    pub async fn transaction<T, E, F, Fut>(&self, run: F) -> Result<T, E>
    where
        E: From<Error>,
        F: Fn(OpenTransaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        for runs in 1..=RUNS_MAX {
            let open = OpenTransaction { client: self.clone(), state: Arc::default() };
            let result = run(open.clone()).await;
            let committed = match open.commit(result.is_err()) {
                Some(transaction) => self.transact(transaction).await?.succeeded,
                None => true,
            };
            if committed {
                return result;
            }
            let pause = (PAUSE_MIN * (1 << runs.min(10))).min(PAUSE_MAX);
            // Those who met should not meet again.
            let chance = random_u64() as f64 / u64::MAX as f64;
            tokio::time::sleep(pause.mul_f64(chance)).await;
        }
        let why = format!("the transaction met a conflict in each of {RUNS_MAX} runs");
        Err(Error::Unavailable(why).into())
    }
}
