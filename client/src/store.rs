//! What commands are run on.
//!
//! The commands need little of a network, and tests need to stand in for it, so that little is a
//! trait. [`Session`] is the real one: a client of the library and the options of the command line.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use dkv_api::{
    Client, ConnectError, Error, Level, NetworkStatus, NodeId, Pair, ReadOptions, Region,
    ReplicaValue, Role, ScanOptions, Value, WriteOptions, Written,
};
use tokio::sync::OnceCell;

use crate::grammar::{Action, Scan, Target};
use crate::problem::{Problem, Stop, connect_problem};
use crate::screen::Screen;

/// Time that it may take to find out which names can be completed.
const NAMES_TIMEOUT: Duration = Duration::from_millis(100);

/// A network, as far as commands need it.
pub(crate) trait Store {
    /// The level of commands that name none.
    fn level(&self) -> Level;

    /// The level that somebody has written for the whole connection.
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

    /// What people call these nodes.
    fn node_names(&self, nodes: &[NodeId]) -> Vec<String>;

    /// Lists keys in order, and says each as it comes, until that fails.
    ///
    /// # Errors
    /// Those of whom each is said to.
    async fn scan(
        &self,
        scan: &Scan,
        say: impl FnMut(&Pair) -> io::Result<()>,
    ) -> io::Result<Result<(), Error>>;

    /// What each replica has of a key.
    async fn search(&self, key: &[u8]) -> Result<Vec<ReplicaValue>, Error>;

    /// Lists what the node of that name holds, and says each as it comes, until that fails.
    ///
    /// # Errors
    /// Those of whom each is said to.
    async fn show_all(
        &self,
        node: &str,
        say: impl FnMut(&Pair) -> io::Result<()>,
    ) -> io::Result<Result<(), Error>>;

    /// Asks everybody how they are.
    async fn status(&self) -> NetworkStatus;

    /// The addresses of the server, as they were given.
    fn address(&self) -> &str;

    /// Names that may follow a word.
    async fn names(&self) -> Vec<String> {
        Vec::new()
    }

    /// What happened since this was last called and nobody asked for.
    async fn notices(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether there are processes to do something to.
    fn is_local(&self) -> bool {
        false
    }

    /// A client that has a role in the network.
    async fn client(&self, role: Role) -> Result<Client, Problem>;

    /// Does something to a process.
    async fn process(
        &self,
        action: Action,
        _target: &Target,
        _screen: &mut Screen,
    ) -> Result<(), Stop> {
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
    /// What to be in the network.
    pub(crate) role: Role,
    /// Level of commands that name none, if somebody has written one.
    pub(crate) level: Option<Level>,
    /// Time that a request may take; `None` is the library's.
    pub(crate) timeout: Option<Duration>,
    /// The region to be in.
    pub(crate) region: Option<Region>,
    /// Where the join token is, if not where the library looks.
    pub(crate) token_file: Option<PathBuf>,
    /// Where credentials are kept, if not in the user's place.
    pub(crate) home: Option<PathBuf>,
}

/// A connected client.
pub(crate) struct Session {
    /// The library's.
    pub(crate) client: Client,
    connection: Connection,
    address: String,
    /// The administrator, once there was something to do for one.
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
        let client = builder.connect().await?;
        Ok(Self {
            client,
            connection: connection.clone(),
            address: connection.servers.join(","),
            admin: OnceCell::new(),
        })
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
    mut say: impl FnMut(&Pair) -> io::Result<()>,
) -> io::Result<Result<(), Error>> {
    let Scan { prefix, after, limit, keys_only } = scan;
    let mut options = ScanOptions::prefix(Bytes::copy_from_slice(prefix))
        .after(Bytes::copy_from_slice(after))
        .values(!keys_only)
        .level(level);
    options.limit = *limit;
    let mut scan = client.scan(options);
    loop {
        match scan.next().await {
            Ok(Some(pair)) => say(&pair)?,
            Ok(None) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        }
    }
}

/// Lists what the node of that name holds.
async fn list_of(
    client: &Client,
    name: &str,
    mut say: impl FnMut(&Pair) -> io::Result<()>,
) -> io::Result<Result<(), Error>> {
    let shards = async {
        let view = client.refresh().await?;
        let node = view.nodes.iter().find(|node| node.name == name).ok_or_else(|| {
            Error::Invalid(format!("no node is called {name}; nodes lists their names"))
        })?;
        Ok((node.id, view.shards.iter().map(|shard| shard.group).collect::<Vec<_>>()))
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
                say(pair)?;
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
        // An administrator may do whatever a client may.
        if role == self.connection.role || self.connection.role == Role::Admin {
            return Ok(self.client.clone());
        }
        let connection = Connection { role, ..self.connection.clone() };
        let admin = self.admin.get_or_try_init(async || {
            Self::connect(&connection).await.map(|session| session.client)
        });
        admin.await.cloned().map_err(|error| connect_problem(&error))
    }

    /// Those of the nodes.
    async fn names(&self) -> Vec<String> {
        // Nobody waits for a completion.
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
        say: impl FnMut(&Pair) -> io::Result<()>,
    ) -> io::Result<Result<(), Error>> {
        list(&self.client, self.level(), scan, say).await
    }

    async fn search(&self, key: &[u8]) -> Result<Vec<ReplicaValue>, Error> {
        self.client.read_replicas(key).await
    }

    async fn show_all(
        &self,
        node: &str,
        say: impl FnMut(&Pair) -> io::Result<()>,
    ) -> io::Result<Result<(), Error>> {
        list_of(&self.client, node, say).await
    }

    async fn status(&self) -> NetworkStatus {
        self.client.status().await
    }

    fn address(&self) -> &str {
        &self.address
    }
}
