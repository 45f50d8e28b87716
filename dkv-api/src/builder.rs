//! How to connect, and with what.

use std::path::PathBuf;
use std::time::Duration;

use dkv_wire::identity::Role;
use dkv_wire::limits::REQUEST_TIMEOUT;
use dkv_wire::region::Region;

use crate::{Client, ConnectError};

/// Port of an address that names none.
pub const DEFAULT_PORT: u16 = 4400;

/// Settings of a [`Client`] before it is one; see [`Client::builder`].
#[derive(Clone, Debug)]
pub struct ClientBuilder {
    pub(crate) servers: Vec<String>,
    pub(crate) nodes: Vec<String>,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) role: Role,
    pub(crate) region: Option<Region>,
    pub(crate) timeout: Duration,
    pub(crate) home: Option<PathBuf>,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            nodes: Vec::new(),
            token_file: None,
            role: Role::Client,
            region: None,
            timeout: REQUEST_TIMEOUT,
            home: dkv_wire::local::home(),
        }
    }
}

impl ClientBuilder {
    /// Adds an address of the registration server: `host`, `host:port` or `[ipv6]:port`. The port
    /// is [`DEFAULT_PORT`] unless named. Several are tried in order.
    pub fn server(mut self, address: impl Into<String>) -> Self {
        self.servers.push(address.into());
        self
    }

    /// Adds several addresses; see [`server`](Self::server).
    pub fn servers(mut self, addresses: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.servers.extend(addresses.into_iter().map(Into::into));
        self
    }

    /// Adds the address of a node. With stored credentials, nodes are enough; see the crate's
    /// documentation.
    pub fn node(mut self, address: impl Into<String>) -> Self {
        self.nodes.push(address.into());
        self
    }

    /// The file that holds the join token. Without one: the variable `DKV_TOKEN`, or what a server
    /// of this user on this machine has left.
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.token_file = Some(path.into());
        self
    }

    /// What to be in the network: [`Role::Client`] (the default), [`Role::Reader`] or
    /// [`Role::Admin`].
    pub fn role(mut self, role: Role) -> Self {
        self.role = role;
        self
    }

    /// The region that this client is in: what any replica may answer is asked of one that is
    /// there, if there is one. Without it, and among several, it is asked of the one that is
    /// reached soonest.
    pub fn region(mut self, region: Region) -> Self {
        self.region = Some(region);
        self
    }

    /// Time that connecting may take, and each request that names no other; ten seconds by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The directory that keeps credentials and what is known of networks. By default
    /// [`dkv_wire::local::home`]; where that is `None`, nothing is kept.
    pub fn home(mut self, path: impl Into<PathBuf>) -> Self {
        self.home = Some(path.into());
        self
    }

    /// Connects.
    ///
    /// Succeeds also for a network that nobody has bootstrapped yet; requests then wait for that.
    ///
    /// # Errors
    /// See [`ConnectError`]. None of them leaves a request behind.
    pub async fn connect(self) -> Result<Client, ConnectError> {
        Client::build(self).await
    }
}
