//! The target of commands.
//!
//! Commands need little of a network, and tests replace it, so that little is a trait. [`Session`]
//! is the real target: a client of the library, with the options of the command line.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use dkv_api::{
    Client, ConnectError, Error, Level, NetworkStatus, NodeId, Pair, ReadOptions, Region,
    ReplicaValue, Role, ScanOptions, Value, WriteOptions, Written,
};
use dkv_console::Console;
use dkv_console::problem::{Abort, Problem};
use tokio::sync::OnceCell;

use crate::api_problems::{connect_problem, request_problem};
use crate::cli::{Addresses, Connect};
use crate::grammar::{ProcessAction, ProcessTarget, Scan};

/// Time limit for finding the names to complete.
const NAMES_TIMEOUT: Duration = Duration::from_millis(100);

/// What commands need of a network.
pub(crate) trait Store {
    /// Returns the level of commands that name none.
    fn level(&self) -> Level;

    /// Returns the level that the user gave for the whole connection.
    fn level_given(&self) -> Option<Level> {
        None
    }

    /// Reads a key.
    async fn read(&self, key: &[u8], options: ReadOptions) -> Result<Value, Error>;

    /// Writes a key.
    async fn write(
        &self,
        key: &[u8],
        value: Bytes,
        options: WriteOptions,
    ) -> Result<Written, Error>;

    /// Deletes a key.
    async fn delete(&self, key: &[u8], options: WriteOptions) -> Result<Written, Error>;

    /// Returns the names of these nodes.
    fn node_names(&self, nodes: &[NodeId]) -> Vec<String>;

    /// Lists keys in order and passes each to `each`, until that fails.
    ///
    /// # Errors
    /// Those of `each`.
    async fn scan(
        &self,
        scan: &Scan,
        each: impl FnMut(&Pair) -> io::Result<()>,
    ) -> io::Result<Result<(), Error>>;

    /// Returns what each replica has of a key.
    async fn search(&self, key: &[u8]) -> Result<Vec<ReplicaValue>, Error>;

    /// Lists what a node holds and passes each key to `each`, until that fails.
    ///
    /// # Errors
    /// Those of `each`.
    async fn show_all(
        &self,
        node: &str,
        each: impl FnMut(&Pair) -> io::Result<()>,
    ) -> io::Result<Result<(), Error>>;

    /// Asks the server and all nodes for their status.
    async fn status(&self) -> NetworkStatus;

    /// Returns the addresses of the server as the user gave them.
    fn address(&self) -> &str;

    /// Returns the names that can be completed.
    async fn names(&self) -> Vec<String> {
        Vec::new()
    }

    /// Returns a line for each event since the last call, such as a process that has ended.
    async fn notices(&self) -> Vec<String> {
        Vec::new()
    }

    /// Returns whether commands can act on the processes of the network.
    fn is_local(&self) -> bool {
        false
    }

    /// Returns a session on the keys of a keyspace.
    async fn in_keyspace(&self, name: &str) -> Result<Session, Problem> {
        Err(Problem::failed(format!("keyspace {name} cannot be used here")))
    }

    /// Returns a client with a role in the network.
    async fn client(&self, role: Role) -> Result<Client, Problem>;

    /// Acts on a process of the network.
    async fn process(
        &self,
        action: ProcessAction,
        _target: &ProcessTarget,
        _screen: &mut Console,
    ) -> Result<(), Abort> {
        Err(Problem::usage(format!(
            "{} works only at the prompt of a local network; start one with dkv local",
            action.word()
        ))
        .into())
    }
}

/// How to connect.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    /// Addresses of the server.
    pub(crate) servers: Vec<String>,
    /// Role in the network.
    pub(crate) role: Role,
    /// Level of commands that name none, if the user gave one.
    pub(crate) level: Option<Level>,
    /// Time limit of a request; `None` is the library's default.
    pub(crate) timeout: Option<Duration>,
    /// Region of the client.
    pub(crate) region: Option<Region>,
    /// File with the join token, if not where the library looks.
    pub(crate) token_file: Option<PathBuf>,
    /// Directory of credentials, if not the user's own.
    pub(crate) home: Option<PathBuf>,
}

impl Connection {
    /// Connects as the options of the command line say.
    pub(crate) fn new(address: Addresses, connect: Connect, role: Role) -> Self {
        Self {
            servers: address.0,
            role,
            level: connect.level,
            timeout: connect.timeout,
            region: connect.region,
            token_file: connect.token_file,
            home: None,
        }
    }
}

/// A connected client.
pub(crate) struct Session {
    /// The client of the library.
    pub(crate) client: Client,
    connection: Connection,
    address: String,
    /// A client with the role of administrator, once it was needed.
    admin: OnceCell<Client>,
}

impl Session {
    /// Connects.
    pub(crate) async fn connect(connection: &Connection) -> Result<Self, ConnectError> {
        let mut builder =
            Client::builder().servers(connection.servers.clone()).role(connection.role);
        if let Some(timeout) = connection.timeout {
            builder = builder.timeout(timeout);
        }
        if let Some(region) = &connection.region {
            builder = builder.region(region.clone());
        }
        if let Some(file) = &connection.token_file {
            builder = builder.token_file(file);
        }
        if let Some(home) = &connection.home {
            builder = builder.home(home);
        }
        Ok(Self::of(builder.connect().await?, connection.clone()))
    }

    /// Returns the session of a connected client.
    pub(crate) fn of(client: Client, connection: Connection) -> Self {
        let address = connection.servers.join(",");
        Self { client, connection, address, admin: OnceCell::new() }
    }

    /// Returns a session on the keys of a keyspace, which shares the connections of this one.
    pub(crate) async fn in_keyspace(&self, name: &str) -> Result<Self, Error> {
        let client = self.client.keyspace(name).await?;
        Ok(Self::of(client, self.connection.clone()))
    }

    /// Ends all connections.
    pub(crate) async fn close(&self) {
        if let Some(admin) = self.admin.get() {
            admin.clone().close().await;
        }
        self.client.clone().close().await;
    }
}

/// Lists keys of a network.
async fn list(
    client: &Client,
    level: Level,
    scan: &Scan,
    mut each: impl FnMut(&Pair) -> io::Result<()>,
) -> io::Result<Result<(), Error>> {
    let Scan { prefix, after, limit, keys_only, revision, snapshot } = scan;
    let mut options = ScanOptions::prefix(Bytes::copy_from_slice(prefix))
        .after(Bytes::copy_from_slice(after))
        .values(!keys_only)
        .level(level);
    options.limit = *limit;
    options.at = *revision;
    let mut scan = match snapshot {
        false => client.scan(options),
        true => match client.snapshot().await {
            Ok(snapshot) => snapshot.scan(options),
            Err(error) => return Ok(Err(error)),
        },
    };
    loop {
        match scan.next().await {
            Ok(Some(pair)) => each(&pair)?,
            Ok(None) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        }
    }
}

/// Lists what a node holds.
async fn list_of(
    client: &Client,
    name: &str,
    mut each: impl FnMut(&Pair) -> io::Result<()>,
) -> io::Result<Result<(), Error>> {
    let shards = async {
        let view = client.refresh().await?;
        let node =
            view.nodes.iter().find(|node| node.name == name).ok_or_else(|| {
                Error::Invalid(format!("there is no node {name}; nodes lists them"))
            })?;
        let shards = view.shards_of(client.keyspace_id());
        Ok((node.id, shards.iter().map(|shard| shard.group).collect::<Vec<_>>()))
    };
    let (node, shards) = match shards.await {
        Ok(found) => found,
        Err(error) => return Ok(Err(error)),
    };
    for shard in shards {
        let mut after = Bytes::new();
        loop {
            let (pairs, more) = match client.replica_page(node, shard, after).await {
                Ok(page) => page,
                Err(error) => return Ok(Err(error)),
            };
            for pair in &pairs {
                each(pair)?;
            }
            match pairs.last() {
                Some(last) if more => after = last.key.clone(),
                _ => break,
            }
        }
    }
    Ok(Ok(()))
}

impl Store for Session {
    fn level(&self) -> Level {
        self.level_given().unwrap_or(Level::Strong)
    }

    fn level_given(&self) -> Option<Level> {
        self.connection.level
    }

    async fn client(&self, role: Role) -> Result<Client, Problem> {
        // An administrator may do everything that a client may.
        if role == self.connection.role || self.connection.role == Role::Admin {
            return Ok(self.client.clone());
        }
        let connection = Connection { role, ..self.connection.clone() };
        let admin = self.admin.get_or_try_init(async || {
            Self::connect(&connection).await.map(|session| session.client)
        });
        let admin = admin.await.map_err(|error| connect_problem(&error))?;
        let own = self.client.keyspace_name();
        admin.keyspace(own).await.map_err(|error| request_problem(&error))
    }

    async fn in_keyspace(&self, name: &str) -> Result<Session, Problem> {
        self.in_keyspace(name).await.map_err(|error| request_problem(&error))
    }

    /// The names of the nodes.
    async fn names(&self) -> Vec<String> {
        // A completion must not make the user wait.
        match tokio::time::timeout(NAMES_TIMEOUT, self.client.view()).await {
            Ok(Ok(view)) => view.nodes.into_iter().map(|node| node.name).collect(),
            _ => Vec::new(),
        }
    }

    async fn read(&self, key: &[u8], options: ReadOptions) -> Result<Value, Error> {
        self.client.read_with(key, options).await
    }

    async fn write(
        &self,
        key: &[u8],
        value: Bytes,
        options: WriteOptions,
    ) -> Result<Written, Error> {
        self.client.write_with(key, value, options).await
    }

    async fn delete(&self, key: &[u8], options: WriteOptions) -> Result<Written, Error> {
        self.client.delete_with(key, options).await
    }

    fn node_names(&self, nodes: &[NodeId]) -> Vec<String> {
        self.client.names(nodes)
    }

    async fn scan(
        &self,
        scan: &Scan,
        each: impl FnMut(&Pair) -> io::Result<()>,
    ) -> io::Result<Result<(), Error>> {
        list(&self.client, self.level(), scan, each).await
    }

    async fn search(&self, key: &[u8]) -> Result<Vec<ReplicaValue>, Error> {
        self.client.read_replicas(key).await
    }

    async fn show_all(
        &self,
        node: &str,
        each: impl FnMut(&Pair) -> io::Result<()>,
    ) -> io::Result<Result<(), Error>> {
        list_of(&self.client, node, each).await
    }

    async fn status(&self) -> NetworkStatus {
        self.client.status().await
    }

    fn address(&self) -> &str {
        &self.address
    }
}
