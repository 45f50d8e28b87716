//! A local network as the target of commands.

use std::io;

use bytes::Bytes;
use dkv_api::{
    Client, Error, Level, NetworkStatus, NodeId, Pair, ReadOptions, ReplicaValue, Role, Value,
    WriteOptions, Written,
};
use dkv_console::Console;
use dkv_console::problem::{Abort, Problem};
use dkv_local::LocalNetwork;

use super::processes;
use crate::cli::Connect;
use crate::grammar::{ProcessAction, ProcessTarget, Scan};
use crate::store::{Connection, Session, Store};

/// A local network that is up. Commands on keys go to a session, commands on processes to the
/// network itself.
pub(super) struct LocalStore<'a> {
    network: &'a LocalNetwork,
    session: Session,
}

impl<'a> LocalStore<'a> {
    /// Creates the target of commands on a network that is up.
    pub(super) fn new(network: &'a LocalNetwork, client: Client, connect: &Connect) -> Self {
        let connection = Connection {
            servers: vec![network.address().to_owned()],
            role: Role::Client,
            level: connect.level,
            timeout: connect.timeout,
            region: network.region().cloned(),
            token_file: None,
            home: Some(network.dir().home()),
        };
        Self { network, session: Session::of(client, connection) }
    }

    /// Closes the connections of commands.
    pub(super) async fn close(&self) {
        self.session.close().await;
    }
}

impl Store for LocalStore<'_> {
    fn level(&self) -> Level {
        self.session.level()
    }

    fn level_given(&self) -> Option<Level> {
        self.session.level_given()
    }

    async fn in_keyspace(&self, name: &str) -> Result<Session, Problem> {
        Store::in_keyspace(&self.session, name).await
    }

    async fn read(&self, key: &[u8], options: ReadOptions) -> Result<Value, Error> {
        self.session.read(key, options).await
    }

    async fn write(
        &self,
        key: &[u8],
        value: Bytes,
        options: WriteOptions,
    ) -> Result<Written, Error> {
        self.session.write(key, value, options).await
    }

    async fn delete(&self, key: &[u8], options: WriteOptions) -> Result<Written, Error> {
        self.session.delete(key, options).await
    }

    fn node_names(&self, nodes: &[NodeId]) -> Vec<String> {
        self.session.node_names(nodes)
    }

    async fn scan(
        &self,
        scan: &Scan,
        each: impl FnMut(&Pair) -> io::Result<()>,
    ) -> io::Result<Result<(), Error>> {
        self.session.scan(scan, each).await
    }

    async fn search(&self, key: &[u8]) -> Result<Vec<ReplicaValue>, Error> {
        self.session.search(key).await
    }

    async fn show_all(
        &self,
        node: &str,
        each: impl FnMut(&Pair) -> io::Result<()>,
    ) -> io::Result<Result<(), Error>> {
        self.session.show_all(node, each).await
    }

    async fn status(&self) -> NetworkStatus {
        self.session.status().await
    }

    fn address(&self) -> &str {
        self.network.address()
    }

    async fn names(&self) -> Vec<String> {
        self.network.names()
    }

    async fn notices(&self) -> Vec<String> {
        self.network.notices().await
    }

    fn is_local(&self) -> bool {
        true
    }

    async fn client(&self, role: Role) -> Result<Client, Problem> {
        self.session.client(role).await
    }

    async fn process(
        &self,
        action: ProcessAction,
        target: &ProcessTarget,
        console: &mut Console,
    ) -> Result<(), Abort> {
        processes::act(self.network, action, target, console).await
    }
}
