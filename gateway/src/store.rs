//! The store behind the gateway.

use std::time::Duration;

use bytes::Bytes;
use dkv_api::{
    Client, Error, History, HistoryOptions, KeyRange, KeyspaceUse, LeaseId, LeaseInfo, LeaseKeys,
    Lifetime, NetworkStatus, Pair, ReadOptions, Revision, ScanOptions, Transacted, Transaction,
    User, Value, ValueAt, WatchEvent, WatchOptions, WatchToken, WriteOptions, Written,
};
use futures::stream::{self, BoxStream, Stream, StreamExt};

/// A running watch: its position, and its events with the position after each. It ends after the
/// first error.
pub struct WatchFeed {
    /// The position at which it began.
    pub token: WatchToken,
    /// The events.
    pub events: BoxStream<'static, Result<(WatchEvent, WatchToken), Error>>,
}

/// A store of keys and values, and the status of its network. [`Client`] is one, with the rights of
/// its certificate; tests use another.
pub trait Store: Clone + Send + Sync + 'static {
    /// Reads as [`Client::read_with`] does.
    fn read(
        &self,
        key: &[u8],
        options: ReadOptions,
    ) -> impl Future<Output = Result<Value, Error>> + Send;

    /// Writes as [`Client::write_with`] does.
    fn write(
        &self,
        key: &[u8],
        value: Bytes,
        options: WriteOptions,
    ) -> impl Future<Output = Result<Written, Error>> + Send;

    /// Deletes as [`Client::delete_with`] does.
    fn delete(
        &self,
        key: &[u8],
        options: WriteOptions,
    ) -> impl Future<Output = Result<Written, Error>> + Send;

    /// Executes as [`Client::transact`] does.
    fn transact(
        &self,
        transaction: Transaction,
    ) -> impl Future<Output = Result<Transacted, Error>> + Send;

    /// Grants as [`Client::grant_lease`] does.
    fn grant_lease(&self, ttl: Duration) -> impl Future<Output = Result<LeaseId, Error>> + Send;

    /// Keeps alive as [`Client::refresh_lease`] does.
    fn refresh_lease(&self, lease: LeaseId)
    -> impl Future<Output = Result<Duration, Error>> + Send;

    /// Ends as [`Client::revoke_lease`] does.
    fn revoke_lease(&self, lease: LeaseId) -> impl Future<Output = Result<u64, Error>> + Send;

    /// Lists as [`Client::leases`] does.
    fn leases(&self) -> impl Future<Output = Result<Vec<LeaseInfo>, Error>> + Send;

    /// Asks as [`Client::lease`] does.
    fn lease(&self, lease: LeaseId) -> impl Future<Output = Result<LeaseInfo, Error>> + Send;

    /// Lists as [`Client::lease_keys`] does.
    fn lease_keys(
        &self,
        lease: LeaseId,
        limit: usize,
    ) -> impl Future<Output = Result<LeaseKeys, Error>> + Send;

    /// Asks as [`Client::ttl`] does.
    fn ttl(&self, key: &[u8]) -> impl Future<Output = Result<Lifetime, Error>> + Send;

    /// Scans as [`Client::scan`] does.
    fn scan(
        &self,
        options: ScanOptions,
    ) -> impl Stream<Item = Result<Pair, Error>> + Send + 'static;

    /// Reads as [`Client::read_at`] does.
    fn read_at(
        &self,
        key: &[u8],
        revision: Revision,
    ) -> impl Future<Output = Result<ValueAt, Error>> + Send;

    /// Returns versions as [`Client::history`] does.
    fn history(
        &self,
        key: &[u8],
        options: HistoryOptions,
    ) -> impl Future<Output = Result<History, Error>> + Send;

    /// Watches as [`Client::watch`] does.
    fn watch(
        &self,
        keys: KeyRange,
        options: WatchOptions,
    ) -> impl Future<Output = Result<WatchFeed, Error>> + Send;

    /// Returns the store for a user, as [`Client::acting_for`] does.
    fn acting_for(&self, user: User) -> Self;

    /// Returns the store of another keyspace, as [`Client::keyspace`] does.
    fn keyspace(&self, name: &str) -> impl Future<Output = Result<Self, Error>> + Send;

    /// Lists keyspaces as [`Client::list_keyspaces`] does.
    fn keyspaces(&self) -> impl Future<Output = Result<Vec<KeyspaceUse>, Error>> + Send;

    /// Asks as [`Client::status`] does.
    fn status(&self) -> impl Future<Output = NetworkStatus> + Send;
}

impl Store for Client {
    async fn read(&self, key: &[u8], options: ReadOptions) -> Result<Value, Error> {
        self.read_with(key, options).await
    }

    async fn write(
        &self,
        key: &[u8],
        value: Bytes,
        options: WriteOptions,
    ) -> Result<Written, Error> {
        self.write_with(key, value, options).await
    }

    async fn delete(&self, key: &[u8], options: WriteOptions) -> Result<Written, Error> {
        self.delete_with(key, options).await
    }

    async fn transact(&self, transaction: Transaction) -> Result<Transacted, Error> {
        Client::transact(self, transaction).await
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, Error> {
        Client::grant_lease(self, ttl).await
    }

    async fn refresh_lease(&self, lease: LeaseId) -> Result<Duration, Error> {
        Client::refresh_lease(self, lease).await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<u64, Error> {
        Client::revoke_lease(self, lease).await
    }

    async fn leases(&self) -> Result<Vec<LeaseInfo>, Error> {
        Client::leases(self).await
    }

    async fn lease(&self, lease: LeaseId) -> Result<LeaseInfo, Error> {
        Client::lease(self, lease).await
    }

    async fn lease_keys(&self, lease: LeaseId, limit: usize) -> Result<LeaseKeys, Error> {
        Client::lease_keys(self, lease, limit).await
    }

    async fn ttl(&self, key: &[u8]) -> Result<Lifetime, Error> {
        Client::ttl(self, key).await
    }

    fn scan(
        &self,
        options: ScanOptions,
    ) -> impl Stream<Item = Result<Pair, Error>> + Send + 'static {
        stream::try_unfold(Client::scan(self, options), async |mut scan| {
            Ok(scan.next().await?.map(|pair| (pair, scan)))
        })
    }

    async fn read_at(&self, key: &[u8], revision: Revision) -> Result<ValueAt, Error> {
        Client::read_at(self, key, revision).await
    }

    async fn history(&self, key: &[u8], options: HistoryOptions) -> Result<History, Error> {
        Client::history(self, key, options).await
    }

    async fn watch(&self, keys: KeyRange, options: WatchOptions) -> Result<WatchFeed, Error> {
        let watch = Client::watch(self, keys, options).await?;
        let token = watch.token().clone();
        let events = stream::unfold(Some(watch), async |watch| {
            let mut watch = watch?;
            match watch.next().await {
                Ok(event) => {
                    let token = watch.token().clone();
                    Some((Ok((event, token)), Some(watch)))
                }
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(WatchFeed { token, events: events.boxed() })
    }

    fn acting_for(&self, user: User) -> Self {
        Client::acting_for(self, user)
    }

    async fn keyspace(&self, name: &str) -> Result<Self, Error> {
        Client::keyspace(self, name).await
    }

    async fn keyspaces(&self) -> Result<Vec<KeyspaceUse>, Error> {
        self.list_keyspaces().await
    }

    async fn status(&self) -> NetworkStatus {
        Client::status(self).await
    }
}
