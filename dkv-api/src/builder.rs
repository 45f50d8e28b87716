//! Settings of a client, and connecting with them.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use dkv_wire::identity::Role;
use dkv_wire::limits::REQUEST_TIMEOUT;
use dkv_wire::region::Region;

use crate::address::HostPort;
use crate::client::Client;
use crate::connect::{self, ContactOptions};
use crate::credential_store::CredentialStore;
use crate::error::ConnectError;

impl Client {
    /// Connects as [`Role::Client`] by the address of the registration server.
    ///
    /// The address is `host`, `host:port` or `[ipv6]:port`; without a port it is
    /// [`DEFAULT_PORT`](crate::DEFAULT_PORT). Use [`builder`](Self::builder) for everything else.
    ///
    /// # Errors
    /// See [`ConnectError`].
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> Result<(), dkv_api::ConnectError> {
    /// let client = dkv_api::Client::connect("db.example.org").await?;
    /// # Ok(()) }
    /// ```
    pub async fn connect(server: impl Into<String>) -> Result<Self, ConnectError> {
        Self::builder().server(server).connect().await
    }

    /// Returns the default settings to connect with.
    ///
    /// # Examples
    /// ```
    /// let builder = dkv_api::Client::builder().server("db.example.org");
    /// ```
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }
}

/// Settings to connect a [`Client`] with; [`Client::builder`] returns the defaults.
///
/// # Examples
/// ```no_run
/// use std::time::Duration;
/// use dkv_api::{Client, Role};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::builder()
///     .servers(["db1.example.org", "db2.example.org"])
///     .token_file("/run/secrets/dkv.token")
///     .role(Role::Reader)
///     .region("eu-west".parse()?)
///     .timeout(Duration::from_secs(3))
///     .connect()
///     .await?;
/// # Ok(()) }
/// ```
#[must_use = "a builder does nothing until `connect` is called"]
#[derive(Clone, Debug)]
pub struct ClientBuilder {
    servers: Vec<String>,
    nodes: Vec<String>,
    token_file: Option<PathBuf>,
    role: Role,
    region: Option<Region>,
    timeout: Duration,
    home: Option<PathBuf>,
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
    /// Adds an address of the registration server: `host`, `host:port` or `[ipv6]:port`.
    ///
    /// Without a port it is [`DEFAULT_PORT`](crate::DEFAULT_PORT). Several addresses are tried in
    /// order.
    ///
    /// # Examples
    /// ```
    /// let builder = dkv_api::Client::builder().server("[2001:db8::1]:4400");
    /// ```
    pub fn server(mut self, address: impl Into<String>) -> Self {
        self.servers.push(address.into());
        self
    }

    /// Adds several addresses of the registration server; see [`server`](Self::server).
    ///
    /// # Examples
    /// ```
    /// let builder = dkv_api::Client::builder().servers(["db1.example.org", "db2.example.org"]);
    /// ```
    pub fn servers(mut self, addresses: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.servers.extend(addresses.into_iter().map(Into::into));
        self
    }

    /// Adds the address of a node, in the same form as that of a server.
    ///
    /// Nodes are asked after all servers. They suffice for a client that has stored credentials,
    /// so that it can connect while the server is down.
    ///
    /// # Examples
    /// ```
    /// let builder = dkv_api::Client::builder().node("10.0.0.7:4401");
    /// ```
    pub fn node(mut self, address: impl Into<String>) -> Self {
        self.nodes.push(address.into());
        self
    }

    /// Sets the file that holds the join token.
    ///
    /// Without it the client takes the token from the environment variable `DKV_TOKEN`, or one that
    /// a server of the same user has left on this machine. A client that has stored credentials
    /// needs no token.
    ///
    /// # Examples
    /// ```
    /// let builder = dkv_api::Client::builder().token_file("/run/secrets/dkv.token");
    /// ```
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.token_file = Some(path.into());
        self
    }

    /// Sets the role in the network: [`Role::Client`] (the default), [`Role::Reader`] or
    /// [`Role::Admin`].
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{Client, Role};
    ///
    /// let builder = Client::builder().role(Role::Admin);
    /// ```
    pub fn role(mut self, role: Role) -> Self {
        self.role = role;
        self
    }

    /// Sets the region that this client is in.
    ///
    /// A request that any replica can serve goes to one in this region if there is one. Among
    /// several, and without a region, it goes to the replica with the shortest round trip.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), dkv_api::RegionError> {
    /// let builder = dkv_api::Client::builder().region("eu-west".parse()?);
    /// # Ok(()) }
    /// ```
    pub fn region(mut self, region: Region) -> Self {
        self.region = Some(region);
        self
    }

    /// Sets the time that connecting may take, and each request without a timeout of its own; ten
    /// seconds by default.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// let builder = dkv_api::Client::builder().timeout(Duration::from_secs(3));
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the directory of the credential store.
    ///
    /// By default it is `$DKV_HOME`, `$XDG_STATE_HOME/dkv` or `$HOME/.local/state/dkv`. If none of
    /// these variables is set, the client stores nothing and needs a token each time.
    ///
    /// # Examples
    /// ```
    /// let builder = dkv_api::Client::builder().home("/var/lib/my-service/dkv");
    /// ```
    pub fn home(mut self, path: impl Into<PathBuf>) -> Self {
        self.home = Some(path.into());
        self
    }

    /// Connects.
    ///
    /// Connecting also succeeds if the network has not been bootstrapped yet; requests then wait
    /// until it is.
    ///
    /// # Errors
    /// See [`ConnectError`].
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> Result<(), dkv_api::ConnectError> {
    /// let client = dkv_api::Client::builder().server("db.example.org").connect().await?;
    /// # Ok(()) }
    /// ```
    pub async fn connect(self) -> Result<Client, ConnectError> {
        let Self { servers, nodes, token_file, role, region, timeout, home } = self;
        if !matches!(role, Role::Client | Role::Admin | Role::Reader) {
            return Err(ConnectError::Role(role));
        }
        let parse = |texts: &[String]| -> Result<Vec<HostPort>, ConnectError> {
            let texts = texts.iter().flat_map(|text| text.split(','));
            texts.map(|text| HostPort::parse(text.trim())).collect()
        };
        let (servers, nodes) = (parse(&servers)?, parse(&nodes)?);
        let store = CredentialStore::new(home);
        let options = ContactOptions { role, token_file, token: OnceLock::new(), store: &store };
        let contact = connect::contact(&options, &servers, &nodes);
        let contact = tokio::time::timeout(timeout, contact).await.unwrap_or_else(|_| {
            let why = format!("no answer within {} ms", timeout.as_millis());
            Err(ConnectError::Unreachable(why))
        })?;
        if let Some(view) = &contact.view {
            view.settings.delays.check_place(None, region.as_ref())?;
        }
        Ok(Client::start(contact, servers, store, region, timeout))
    }
}
