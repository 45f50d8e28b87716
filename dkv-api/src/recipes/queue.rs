//! A queue of items.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::{GroupId, LeaseId, Revision};
use dkv_wire::message::{Condition, KeyRange, Pair, Relation};

use super::line::prefix_of;
use super::shard_keys;
use crate::attach::Attach;
use crate::client::Client;
use crate::error::Error;
use crate::lease::LeaseKeeper;
use crate::options::WriteOptions;
use crate::transaction::{Compare, Transacted, Transaction, TransactionOperation};
use crate::watch::{WatchEvent, WatchOptions};

/// Items that a worker looks at before it lists claims again.
const LOOK: usize = 1024;
/// Pause before a worker looks again, if nothing tells it to.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// A queue: items are pushed, and each is done once.
///
/// The keys of the queue `NAME` are `NAME`, which counts the items, `NAME/…`, the items, and
/// `NAME/claims/…`, the items that workers have taken.
///
/// It promises that an item that was pushed stays until it is done, that it is done once although
/// workers die or are paused, and that two workers never have it at a time, except for one that is
/// paused. It
/// cannot promise that the work is begun once: a worker that dies has perhaps done half of it, and
/// the item goes to another one. Effects in this network are exactly once if
/// [`QueueItem::done_with`] has them. Items are taken in the order of their numbers, and may end in
/// any order.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use dkv_api::recipes::Queue;
///
/// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
/// let queue = Queue::open(client, "queue/mail").await?;
/// queue.push("to Ada").await?;
/// let item = queue.take(Duration::from_secs(10)).await?;
/// println!("{:?}", item.value());
/// item.done().await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Queue {
    client: Client,
    name: Bytes,
    items: Bytes,
    claims: Bytes,
    shard: GroupId,
}

impl Queue {
    /// Opens a queue. One that nobody has used is empty.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the name is empty; [`Error::Unavailable`] if the network has no shards
    /// yet.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let queue = dkv_api::recipes::Queue::open(client, "queue/mail").await?;
    /// # Ok(()) }
    /// ```
    pub async fn open(client: &Client, name: impl AsRef<[u8]>) -> Result<Self, Error> {
        let name = Bytes::copy_from_slice(name.as_ref());
        let items = prefix_of(&name)?;
        let claims = Bytes::from([&items[..], b"claims/"].concat());
        let view = client.view().await?;
        let shard = client.shard_of(&view, &name)?.group;
        Ok(Self { client: client.clone(), name, items, claims, shard })
    }

    /// Adds an item, and returns its number.
    ///
    /// # Errors
    /// As for [`Client::write_with`]. After [`Error::Unknown`] the item may have been added, or may
    /// yet be.
    ///
    /// # Examples
    /// ```
    /// # async fn example(queue: dkv_api::recipes::Queue) -> Result<(), dkv_api::Error> {
    /// println!("item {}", queue.push("to Ada").await?);
    /// # Ok(()) }
    /// ```
    pub async fn push(&self, value: impl Into<Bytes>) -> Result<u64, Error> {
        let number = match self.client.increment(&self.name, 1).await {
            Ok(number) => u64::try_from(number).unwrap_or_default(),
            // A number that nobody uses does no harm.
            Err(Error::Unknown(why)) => return Err(Error::Unavailable(why)),
            Err(error) => return Err(error),
        };
        let key = self.key(&self.items, number).await?;
        let absent = WriteOptions::from(Condition::Absent);
        self.client.write_with(key, value, absent).await?;
        Ok(number)
    }

    /// Takes the first item that nobody has, for which it waits. The worker loses it if it cannot
    /// be reached for `ttl`. May be cancelled, and then takes none.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; [`Error::TtlOutOfBounds`].
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// # async fn example(queue: dkv_api::recipes::Queue) -> Result<(), dkv_api::Error> {
    /// loop {
    ///     let item = queue.take(Duration::from_secs(10)).await?;
    ///     println!("{:?}", item.value());
    ///     item.done().await?;
    /// }
    /// # }
    /// ```
    pub async fn take(&self, ttl: Duration) -> Result<QueueItem, Error> {
        let mut keeper = None;
        loop {
            // Begun before the look, so that no change falls between the two.
            let keys = KeyRange::Prefix(self.items.clone());
            let mut watch = self.client.watch(keys, WatchOptions::default()).await?;
            if let Some(item) = self.first(ttl, &mut keeper).await? {
                return Ok(item);
            }
            // An item is free again when its claim is gone, which the watch shows too.
            let changed = async {
                loop {
                    if let WatchEvent::Change(_) = watch.next().await? {
                        return Ok(());
                    }
                }
            };
            match tokio::time::timeout(LOOK_AGAIN, changed).await {
                Ok(Ok(()) | Err(Error::Compacted { .. })) | Err(_) => {}
                Ok(Err(error)) => return Err(error),
            }
        }
    }

    /// Takes the first item that nobody has; returns `None` if there is none.
    ///
    /// # Errors
    /// As for [`take`](Self::take).
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// # async fn example(queue: dkv_api::recipes::Queue) -> Result<(), dkv_api::Error> {
    /// while let Some(item) = queue.try_take(Duration::from_secs(10)).await? {
    ///     item.done().await?;
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn try_take(&self, ttl: Duration) -> Result<Option<QueueItem>, Error> {
        self.first(ttl, &mut None).await
    }

    async fn first(
        &self,
        ttl: Duration,
        keeper: &mut Option<LeaseKeeper>,
    ) -> Result<Option<QueueItem>, Error> {
        let mut after = Bytes::new();
        loop {
            let items =
                shard_keys::list(&self.client, self.shard, &self.items, after, LOOK).await?;
            let Some(last) = items.pairs.last() else { return Ok(None) };
            after = last.key.clone();
            let claims = &self.claims;
            let taken =
                shard_keys::list(&self.client, self.shard, claims, Bytes::new(), usize::MAX);
            let taken: BTreeSet<u64> =
                taken.await?.pairs.iter().filter_map(|pair| number_of(claims, &pair.key)).collect();
            for pair in items.pairs {
                let Some(number) = number_of(&self.items, &pair.key) else { continue };
                if taken.contains(&number) {
                    continue;
                }
                let lost = keeper.as_ref().is_none_or(LeaseKeeper::is_lost);
                let held = match keeper.take().filter(|_| !lost) {
                    Some(held) => held,
                    None => self.client.hold_lease_of_recipe(ttl).await?,
                };
                match self.claim(number, pair, held).await? {
                    Ok(item) => return Ok(Some(item)),
                    Err(held) => *keeper = Some(held),
                }
            }
        }
    }

    /// Claims an item; returns the lease if another worker was faster.
    async fn claim(
        &self,
        number: u64,
        pair: Pair,
        keeper: LeaseKeeper,
    ) -> Result<Result<QueueItem, LeaseKeeper>, Error> {
        let claim = self.key(&self.claims, number).await?;
        let attach = Attach::Lease(keeper.id());
        let take = Transaction::new()
            .when(Compare::revision(&pair.key, Relation::Equal, pair.revision))
            .when(Compare::absent(&claim))
            .then(TransactionOperation::put_attached(&claim, "", attach));
        let done = self.client.transact(take).await?;
        if !done.succeeded {
            return Ok(Err(keeper));
        }
        Ok(Ok(QueueItem {
            client: self.client.clone(),
            keeper: Some(keeper),
            number,
            key: pair.key,
            value: pair.value.unwrap_or_default(),
            claim,
            fence: done.receipt.revision,
        }))
    }

    /// Returns the key of a number in the shard of the queue.
    async fn key(&self, prefix: &Bytes, number: u64) -> Result<Bytes, Error> {
        let view = self.client.view().await?;
        let stem = [&prefix[..], format!("{number:020}").as_bytes()].concat();
        shard_keys::key_beside(&self.client, &view, &self.name, &stem).map(|(_, key)| key)
    }
}

/// Returns the number in a key.
fn number_of(prefix: &[u8], key: &[u8]) -> Option<u64> {
    let digits = key.strip_prefix(prefix)?.get(..20)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// An item that this worker has taken; from [`Queue::take`].
///
/// Dropping it gives it back, in the background.
///
/// # Examples
/// ```
/// # async fn example(item: dkv_api::recipes::QueueItem) -> Result<(), dkv_api::Error> {
/// println!("item {}: {:?}", item.number(), item.value());
/// item.done().await?;
/// # Ok(()) }
/// ```
#[must_use = "an item is given back when it is dropped"]
#[derive(Debug)]
pub struct QueueItem {
    client: Client,
    /// `None` once it is done or was given back.
    keeper: Option<LeaseKeeper>,
    number: u64,
    key: Bytes,
    value: Bytes,
    claim: Bytes,
    fence: Revision,
}

impl Drop for QueueItem {
    fn drop(&mut self) {
        if let (Some(keeper), Ok(runtime)) =
            (self.keeper.take(), tokio::runtime::Handle::try_current())
        {
            // If this fails, the lease ends by itself.
            runtime.spawn(async move { keeper.revoke().await.map(drop) });
        }
    }
}

impl QueueItem {
    /// Returns its value.
    ///
    /// # Examples
    /// ```
    /// # async fn example(item: dkv_api::recipes::QueueItem) -> Result<(), dkv_api::Error> {
    /// println!("{:?}", item.value());
    /// # Ok(()) }
    /// ```
    pub fn value(&self) -> &Bytes {
        &self.value
    }

    /// Returns its number in the queue.
    ///
    /// # Examples
    /// ```
    /// # async fn example(item: dkv_api::recipes::QueueItem) -> Result<(), dkv_api::Error> {
    /// println!("item {}", item.number());
    /// # Ok(()) }
    /// ```
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Returns its key, which is in the queue until it is done.
    ///
    /// # Examples
    /// ```
    /// # use dkv_api::{Client, Error, recipes::QueueItem};
    /// # async fn example(client: &Client, item: QueueItem) -> Result<(), Error> {
    /// let is_done = matches!(client.read(item.key()).await, Err(Error::NotFound { .. }));
    /// # Ok(()) }
    /// ```
    pub fn key(&self) -> &Bytes {
        &self.key
    }

    /// Returns the lease with which this worker has it; `None` once it is done.
    ///
    /// # Examples
    /// ```
    /// # use dkv_api::{Client, Error, recipes::QueueItem};
    /// # async fn example(client: &Client, item: QueueItem) -> Result<(), Error> {
    /// if let Some(lease) = item.lease() {
    ///     let meanwhile = dkv_api::WriteOptions::default().lease(lease);
    ///     client.write_with("progress/17", "half", meanwhile).await?;
    /// }
    /// # Ok(()) }
    /// ```
    pub fn lease(&self) -> Option<LeaseId> {
        self.keeper.as_ref().map(LeaseKeeper::id)
    }

    /// Returns a number that is greater than that of every worker that had it before.
    ///
    /// # Examples
    /// ```
    /// # async fn example(item: dkv_api::recipes::QueueItem) -> Result<(), dkv_api::Error> {
    /// println!("pass {} on to whatever the work changes", item.fence());
    /// # Ok(()) }
    /// ```
    pub fn fence(&self) -> Revision {
        self.fence
    }

    /// Returns whether it is lost, or may be: another worker may have it.
    ///
    /// # Examples
    /// ```
    /// # async fn example(item: dkv_api::recipes::QueueItem) -> Result<(), dkv_api::Error> {
    /// if !item.is_lost() {
    ///     item.done().await?;
    /// }
    /// # Ok(()) }
    /// ```
    pub fn is_lost(&self) -> bool {
        self.keeper.as_ref().is_none_or(LeaseKeeper::is_lost)
    }

    /// Waits until it is lost; returns the reason. May be cancelled.
    ///
    /// # Examples
    /// ```
    /// # async fn example(item: dkv_api::recipes::QueueItem) -> Result<(), dkv_api::Error> {
    /// println!("another worker may have it: {}", item.lost().await);
    /// # Ok(()) }
    /// ```
    pub async fn lost(&self) -> Error {
        match &self.keeper {
            Some(keeper) => keeper.lost().await,
            None => Error::Unavailable("the item is done, or was given back".into()),
        }
    }

    /// Removes it from the queue: it is done.
    ///
    /// # Errors
    /// [`Error::NoLease`] if it was lost, so that another worker does it. Otherwise as for
    /// [`Client::transact`].
    ///
    /// # Examples
    /// ```
    /// # async fn example(item: dkv_api::recipes::QueueItem) -> Result<(), dkv_api::Error> {
    /// println!("{:?}", item.value());
    /// item.done().await?;
    /// # Ok(()) }
    /// ```
    pub async fn done(self) -> Result<(), Error> {
        self.done_with(Transaction::new()).await.map(drop)
    }

    /// Executes a transaction and removes the item from the queue, both or neither.
    ///
    /// # Errors
    /// [`Error::NoLease`] if it was lost, or a compare of the transaction does not hold; otherwise
    /// as for [`Client::transact`]. Then nothing was done.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{Transaction, TransactionOperation};
    ///
    /// # async fn example(item: dkv_api::recipes::QueueItem) -> Result<(), dkv_api::Error> {
    /// let sent = TransactionOperation::put("sent/17", item.value().clone());
    /// item.done_with(Transaction::new().then(sent)).await?;
    /// # Ok(()) }
    /// ```
    pub async fn done_with(mut self, transaction: Transaction) -> Result<Transacted, Error> {
        let done = transaction
            .when(Compare::created(&self.claim, Relation::Equal, self.fence))
            .then(TransactionOperation::delete(&self.key))
            .then(TransactionOperation::delete(&self.claim));
        let done = self.client.transact(done).await?;
        let Some(keeper) = self.keeper.take() else {
            return Err(Error::Unavailable("the item is done, or was given back".into()));
        };
        let lease = keeper.id();
        // It has no keys any more. If this fails, it ends by itself.
        tokio::spawn(async move { keeper.revoke().await.map(drop) });
        if done.succeeded { Ok(done) } else { Err(Error::NoLease { lease }) }
    }

    /// Gives it back: another worker takes it.
    ///
    /// # Errors
    /// It could not be confirmed in time; it is free when its time is over.
    ///
    /// # Examples
    /// ```
    /// # async fn example(item: dkv_api::recipes::QueueItem) -> Result<(), dkv_api::Error> {
    /// item.give_back().await?;
    /// # Ok(()) }
    /// ```
    pub async fn give_back(mut self) -> Result<(), Error> {
        match self.keeper.take().map(LeaseKeeper::revoke) {
            Some(revoked) => match revoked.await {
                Ok(_) | Err(Error::NoLease { .. }) => Ok(()),
                Err(error) => Err(error),
            },
            None => Ok(()),
        }
    }
}
