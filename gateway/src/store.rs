//! The store behind the gateway.

use bytes::Bytes;
use dkv_api::{
    Client, Error, NetworkStatus, Pair, ReadOptions, ScanOptions, Value, WriteOptions, Written,
};
use futures::stream::{self, Stream};

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

    /// Scans as [`Client::scan`] does.
    fn scan(
        &self,
        options: ScanOptions,
    ) -> impl Stream<Item = Result<Pair, Error>> + Send + 'static;

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

    fn scan(
        &self,
        options: ScanOptions,
    ) -> impl Stream<Item = Result<Pair, Error>> + Send + 'static {
        stream::try_unfold(Client::scan(self, options), async |mut scan| {
            Ok(scan.next().await?.map(|pair| (pair, scan)))
        })
    }

    async fn status(&self) -> NetworkStatus {
        Client::status(self).await
    }
}
