//! The handle that callers hold.

use std::time::Duration;

use bytes::Bytes;
use dkv_wire::id::{HolderId, NodeId};
use dkv_wire::identity::{Identity, Role};
use dkv_wire::message::TokenInfo;
use dkv_wire::network::NetworkView;
use uuid::Uuid;

use crate::builder::ClientBuilder;
use crate::error::{ConnectError, Error};
use crate::options::{NetworkStatus, ReadOptions, Value, WriteOptions, Written};

/// A connection to a network. Cloning is cheap; clones share everything.
#[derive(Clone)]
pub struct Client {}

impl Client {
    /// Connects by the address of the registration server, as [`Role::Client`].
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(server: impl Into<String>) -> Result<Self, ConnectError> {
        Self::builder().server(server).connect().await
    }

    /// Settings to connect with.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    pub(crate) async fn build(_builder: ClientBuilder) -> Result<Self, ConnectError> {
        Err(ConnectError::NoAddress)
    }

    /// Who this client is in the network.
    pub fn identity(&self) -> Identity {
        unimplemented!()
    }

    /// Reads a key, linearizably.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it does not exist.
    pub async fn read(&self, key: impl AsRef<[u8]>) -> Result<Value, Error> {
        self.read_with(key, ReadOptions::default()).await
    }

    /// Reads a key.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it does not exist.
    pub async fn read_with(
        &self,
        _key: impl AsRef<[u8]>,
        _options: ReadOptions,
    ) -> Result<Value, Error> {
        Err(Error::Unavailable(String::new()))
    }

    /// Writes a key.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn write(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
    ) -> Result<Written, Error> {
        self.write_with(key, value, WriteOptions::default()).await
    }

    /// Writes a key under a condition.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the condition does not hold.
    pub async fn write_with(
        &self,
        _key: impl AsRef<[u8]>,
        _value: impl Into<Bytes>,
        _options: WriteOptions,
    ) -> Result<Written, Error> {
        Err(Error::Unavailable(String::new()))
    }

    /// Deletes a key.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it does not exist.
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<Written, Error> {
        self.delete_with(key, WriteOptions::default()).await
    }

    /// Deletes a key under a condition.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it does not exist, [`Error::Conflict`] if the condition does not hold.
    pub async fn delete_with(
        &self,
        _key: impl AsRef<[u8]>,
        _options: WriteOptions,
    ) -> Result<Written, Error> {
        Err(Error::Unavailable(String::new()))
    }

    /// The network as this client last saw it; waits for the first view.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if nobody bootstraps the network in time.
    pub async fn view(&self) -> Result<NetworkView, Error> {
        Err(Error::Unavailable(String::new()))
    }

    /// Asks for the newest view and returns it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if nobody answers in time or nobody has bootstrapped the network.
    pub async fn refresh(&self) -> Result<NetworkView, Error> {
        Err(Error::Unavailable(String::new()))
    }

    /// Asks the server and every node how they are, in parallel, for about a second.
    pub async fn status(&self) -> NetworkStatus {
        unimplemented!()
    }

    /// Removes a node from the network for good. Needs [`Role::Admin`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn remove_node(&self, _node: NodeId) -> Result<(), Error> {
        Err(Error::Unavailable(String::new()))
    }

    /// Refuses a certificate holder from now on. Needs [`Role::Admin`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn revoke(&self, _holder: HolderId) -> Result<(), Error> {
        Err(Error::Unavailable(String::new()))
    }

    /// Makes a join token and returns its text. Needs [`Role::Admin`]. Without `life` it lives for
    /// good, without `uses` it admits any number.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn create_token(
        &self,
        _role: Role,
        _life: Option<Duration>,
        _uses: Option<u32>,
    ) -> Result<String, Error> {
        Err(Error::Unavailable(String::new()))
    }

    /// All join tokens, without their secrets. Needs [`Role::Admin`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_tokens(&self) -> Result<Vec<TokenInfo>, Error> {
        Err(Error::Unavailable(String::new()))
    }

    /// Makes a join token admit nobody any more. Needs [`Role::Admin`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn revoke_token(&self, _token: Uuid) -> Result<(), Error> {
        Err(Error::Unavailable(String::new()))
    }

    /// Closes all connections and waits, at most half a second, until the peers have been told.
    ///
    /// Dropping the last clone closes them too, without waiting.
    pub async fn close(self) {}
}
