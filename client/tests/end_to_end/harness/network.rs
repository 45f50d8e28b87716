//! A network of processes.

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use dkv_api::{Client, NodeId, NodeStatus, Role};
use dkv_test_support::process::show_log;
use dkv_test_support::{PATIENCE, Process, convergence, eventually, text};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::process::{command, spawn};

/// Number of concurrent networks: each is several busy processes.
const NETWORKS: u32 = 2;
static SLOTS: Semaphore = Semaphore::const_new(NETWORKS as usize);

/// A node, running or not.
pub(crate) struct Member {
    /// Its data directory.
    pub(crate) dir: PathBuf,
    /// Its process while there is one.
    pub(crate) process: Option<Process>,
    pub(crate) log: PathBuf,
}

impl Member {
    /// Returns its identity, from its directory.
    pub(crate) fn id(&self) -> NodeId {
        self.file()["id"].as_str().unwrap().parse().unwrap()
    }

    /// Returns its address, from its directory.
    pub(crate) fn address(&self) -> SocketAddr {
        self.file()["listen"].as_str().unwrap().parse().unwrap()
    }

    /// Returns its process, which must be running.
    pub(crate) fn running(&mut self) -> &mut Process {
        self.process.as_mut().unwrap()
    }

    /// Returns `node.json` of its directory.
    pub(crate) fn file(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.dir.join("node.json")).unwrap()).unwrap()
    }
}

/// A server, nodes, and their directories.
pub(crate) struct Network {
    /// The server, while it runs.
    pub(crate) server: Option<Process>,
    /// Address of the server.
    pub(crate) address: SocketAddr,
    /// The nodes in the order in which they were added.
    pub(crate) nodes: Vec<Member>,
    replication: usize,
    root: TempDir,
    _slot: Option<SemaphorePermit<'static>>,
}

impl Network {
    /// Starts a network of that many nodes, all of them up to date.
    pub(crate) async fn start(nodes: usize) -> Self {
        Self::with(json!({}), nodes).await
    }

    /// Starts a network with settings.
    pub(crate) async fn with(settings: Value, nodes: usize) -> Self {
        let mut network = Self::server_only(settings).await;
        for _ in 0..nodes {
            network.add_node().await;
        }
        if nodes > 0 {
            network.settled().await;
        }
        network
    }

    /// Starts a network while no other runs, for tests that measure time or memory.
    pub(crate) async fn alone(settings: Value, nodes: usize) -> Self {
        let all = SLOTS.acquire_many(NETWORKS).await.unwrap();
        let mut network = Self::server_with(settings, Some(all)).await;
        for _ in 0..nodes {
            network.add_node().await;
        }
        network.settled().await;
        network
    }

    /// Reserves a slot for a test that is as busy as a network.
    pub(crate) async fn room() -> SemaphorePermit<'static> {
        SLOTS.acquire().await.unwrap()
    }

    /// Starts a server without nodes.
    pub(crate) async fn server_only(settings: Value) -> Self {
        let slot = SLOTS.acquire().await.unwrap();
        Self::server_with(settings, Some(slot)).await
    }

    /// Starts a second network in the same test.
    pub(crate) async fn beside(_other: &Self) -> Self {
        Self::server_with(json!({}), None).await
    }

    async fn server_with(settings: Value, slot: Option<SemaphorePermit<'static>>) -> Self {
        let root = tempfile::Builder::new().prefix("dkv-test-").tempdir().unwrap();
        std::fs::create_dir(root.path().join("home")).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        // More than one shard, whatever the default.
        let mut config = json!({ "listen": address, "data_dir": "server", "shards": 4 });
        config.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        let replication = config["replication"].as_u64().unwrap_or(3) as usize;
        std::fs::write(root.path().join("config.json"), config.to_string()).unwrap();
        let nodes = Vec::new();
        let mut network = Self { server: None, address, nodes, replication, root, _slot: slot };
        network.start_server().await;
        network
    }

    /// Returns a path below the temporary directory of this network.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Returns the home directory of the user of this network.
    pub(crate) fn home(&self) -> PathBuf {
        self.path("home")
    }

    /// Returns the file with the token that the server created for a role at its first start.
    pub(crate) fn token_file(&self, role: Role) -> PathBuf {
        self.path("server/tokens").join(format!("{role}.token"))
    }

    /// Starts the server, again or for the first time.
    pub(crate) async fn start_server(&mut self) {
        let config = self.path("config.json");
        let arguments = ["server", "--config", text(&config)];
        let mut server = spawn(&arguments, &self.home(), &self.path("server.log"));
        assert_eq!(server.ready().await, Ok(self.address));
        self.server = Some(server);
    }

    /// Kills the server.
    pub(crate) fn kill_server(&mut self) {
        self.server.take().unwrap().kill();
    }

    /// Adds a node and waits until it serves.
    pub(crate) async fn add_node(&mut self) -> usize {
        let index = self.spawn_node();
        self.nodes[index].running().ready().await.unwrap();
        index
    }

    /// Adds a node without waiting for it.
    pub(crate) fn spawn_node(&mut self) -> usize {
        self.spawn_node_with(&["--listen", "127.0.0.1:0"])
    }

    /// Adds a node with more arguments, without waiting for it.
    pub(crate) fn spawn_node_with(&mut self, more: &[&str]) -> usize {
        self.spawn_node_at(&self.address.to_string(), more)
    }

    /// Adds a node with more arguments and other servers, without waiting for it.
    pub(crate) fn spawn_node_at(&mut self, servers: &str, more: &[&str]) -> usize {
        let index = self.nodes.len();
        // A node that was dropped from the list may have left its directory.
        let is_free = |number: &usize| !self.path(&format!("node-{number}")).exists();
        let number = (index + 1..).find(is_free).unwrap();
        let dir = self.path(&format!("node-{number}"));
        let log = self.path(&format!("node-{number}.log"));
        self.nodes.push(Member { dir, process: None, log });
        self.respawn_node_at(servers, index, more);
        index
    }

    /// Starts the process of a node, with more arguments.
    pub(crate) fn respawn_node(&mut self, index: usize, more: &[&str]) {
        self.respawn_node_at(&self.address.to_string(), index, more);
    }

    fn respawn_node_at(&mut self, servers: &str, index: usize, more: &[&str]) {
        let home = self.home();
        let member = &mut self.nodes[index];
        let dir = text(&member.dir).to_owned();
        let arguments = [&["node", servers, "--data-dir", &dir], more].concat();
        member.process = Some(spawn(&arguments, &home, &member.log));
    }

    /// Starts a node again and waits until it serves.
    pub(crate) async fn start_node(&mut self, index: usize) {
        self.try_start_node(index).await.unwrap();
    }

    /// Starts a node again. Returns its output as an error if it ends.
    pub(crate) async fn try_start_node(&mut self, index: usize) -> Result<SocketAddr, String> {
        self.respawn_node(index, &[]);
        self.nodes[index].running().ready().await
    }

    /// Kills a node.
    pub(crate) fn kill_node(&mut self, index: usize) {
        self.nodes[index].process.take().unwrap().kill();
    }

    /// Stops a node gracefully.
    pub(crate) async fn stop_node(&mut self, index: usize) {
        let mut process = self.nodes[index].process.take().unwrap();
        let status = process.stop().await;
        assert!(status.success(), "{status}: {}", process.said());
    }

    /// Returns the indices of the running nodes.
    pub(crate) fn running(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&index| self.nodes[index].process.is_some()).collect()
    }

    fn running_ids(&self) -> Vec<NodeId> {
        self.running().into_iter().map(|index| self.nodes[index].id()).collect()
    }

    /// Returns the index of a node.
    pub(crate) fn index_of(&self, id: NodeId) -> usize {
        self.nodes.iter().position(|node| node.id() == id).unwrap()
    }

    /// Connects a client.
    pub(crate) async fn client(&self) -> Client {
        self.client_as(Role::Client, &self.home()).await
    }

    /// Connects an administrator.
    pub(crate) async fn admin(&self) -> Client {
        self.client_as(Role::Admin, &self.home()).await
    }

    /// Connects a client of another user, with its own certificate.
    pub(crate) async fn client_as(&self, role: Role, home: &Path) -> Client {
        let client = Client::builder()
            .server(self.address.to_string())
            .role(role)
            .token_file(self.token_file(role))
            .home(home)
            .connect();
        client.await.unwrap()
    }

    /// Runs the `dkv` command to its end.
    pub(crate) async fn dkv(&self, arguments: &[&str]) -> Output {
        let address = self.address.to_string();
        self.dkv_as(&[&[address.as_str()], arguments].concat(), &self.home()).await
    }

    /// Runs `dkv` as another user, to its end.
    pub(crate) async fn dkv_as(&self, arguments: &[&str], home: &Path) -> Output {
        self.dkv_for(arguments, home, PATIENCE).await
    }

    /// Runs `dkv` with a network of its own, which works for a while, to its end.
    pub(crate) async fn dkv_at_work(&self, arguments: &[&str]) -> Output {
        self.dkv_for(arguments, &self.home(), 4 * PATIENCE).await
    }

    async fn dkv_for(&self, arguments: &[&str], home: &Path, time: Duration) -> Output {
        std::fs::create_dir_all(home).unwrap();
        let mut command = tokio::process::Command::from(command(arguments, home));
        command.stdin(std::process::Stdio::null()).kill_on_drop(true);
        tokio::time::timeout(time, command.output()).await.expect("dkv does not end").unwrap()
    }

    /// Waits until all nodes run, every group has the right members, and all nodes agree on them
    /// and on the leaders.
    pub(crate) async fn settled(&self) {
        self.settled_without(&[]).await;
    }

    /// Waits for the same, with these nodes drained.
    pub(crate) async fn settled_without(&self, drained: &[usize]) {
        let client = self.client().await;
        let all: Vec<NodeId> = self.nodes.iter().map(Member::id).collect();
        let drained: Vec<NodeId> = drained.iter().map(|index| self.nodes[*index].id()).collect();
        eventually("the network does not settle", async || {
            convergence::settled(&client.status().await, &all, &drained, self.replication)
        })
        .await;
        client.close().await;
    }

    /// Returns the index of the coordinator that the nodes agree on.
    pub(crate) async fn coordinator(&self) -> usize {
        let client = self.client().await;
        let coordinator = eventually("there is no coordinator", async || {
            let first = convergence::coordinator(&client.status().await, &self.running_ids())?;
            let index = self.index_of(first);
            self.nodes[index].process.as_ref().map(|_| index).ok_or("it is dead".to_owned())
        })
        .await;
        client.close().await;
        coordinator
    }

    /// Waits until every running node has applied the same entries, and checks that their states
    /// are equal. No client may write meanwhile.
    pub(crate) async fn same_state(&self) -> Vec<NodeStatus> {
        let client = self.client().await;
        let statuses = eventually("the replicas do not become equal", async || {
            convergence::same_state(&client.status().await, &self.running_ids())
        })
        .await;
        client.close().await;
        statuses
    }

    /// Returns the status of one node, once it answers.
    pub(crate) async fn status_of(&self, index: usize) -> NodeStatus {
        let client = self.client().await;
        let id = self.nodes[index].id();
        let status = eventually("the node does not answer", async || {
            let status = client.status().await;
            let found = status.nodes.into_iter().find(|(info, _)| info.id == id);
            found.ok_or("it is not known")?.1.map_err(|error| error.to_string())
        })
        .await;
        client.close().await;
        status
    }

    /// Checks that no process has ended by itself.
    pub(crate) fn assert_alive(&mut self) {
        for node in &mut self.nodes {
            if let Some(process) = &mut node.process {
                assert!(process.lives(), "a node has ended: {}", process.said());
            }
        }
        if let Some(server) = &mut self.server {
            assert!(server.lives(), "the server has ended: {}", server.said());
        }
    }

    /// Pauses a node.
    pub(crate) fn pause_node(&mut self, index: usize) {
        self.nodes[index].running().pause();
    }

    /// Resumes a paused node.
    pub(crate) fn resume_node(&mut self, index: usize) {
        self.nodes[index].running().resume();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show_log(&self.path("server.log"));
            for node in &self.nodes {
                show_log(&node.log);
            }
        }
    }
}

/// Returns an unused port that the system does not assign to others.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = (std::process::id() % 1000) as u16 * 20;
    loop {
        let port = 10_000 + first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
