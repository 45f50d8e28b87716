//! dkv: a registration server and nodes, with mutual TLS as always. All clients share one handle of
//! the library, as programs are meant to.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use dkv_api::{
    Client, Compare, Condition, Error, KeyRange, NetworkView, NodeState, ReadOptions, Role,
    ScanOptions, Transaction, TransactionOperation, WatchEvent, WatchOptions,
};
use dkv_base::number::whole_number;
use futures::future::BoxFuture;
use futures::stream::StreamExt;
use serde_json::json;

use super::{
    Answer, Changes, Driver, Leader, Processes, Purpose, START_EVERY, START_TIMEOUT, Setup, System,
};
use crate::workload::{self, Operation};

/// Bounds of a network's settings.
pub(crate) const SHARDS_MAX: u32 = 1024;
const REPLICATION_MAX: u32 = 9;

/// Timeout of a request. The library looks for another primary long before.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// The measured dkv network.
#[derive(Args, Clone, Debug)]
pub(crate) struct DkvOptions {
    /// Nodes of dkv
    #[arg(long, global = true, default_value_t = 3, value_parser = whole_number(1..=256_usize))]
    pub(crate) nodes: usize,
    /// Voters of each group of dkv [default: the server's]
    #[arg(long, global = true, value_parser = whole_number(1..=REPLICATION_MAX))]
    pub(crate) replication: Option<u32>,
    /// Shards of dkv [default: the server's]
    #[arg(long, global = true, value_parser = whole_number(1..=SHARDS_MAX))]
    pub(crate) shards: Option<u32>,
    /// Heartbeat and shortest and longest election time of dkv, in milliseconds [default: the
    /// server's]
    #[arg(long, global = true, value_delimiter = ',', num_args = 3)]
    pub(crate) times: Option<Vec<u64>>,
    /// The `dkv` binary [default: the one beside this]
    #[arg(long, global = true)]
    pub(crate) dkv: Option<PathBuf>,
}

/// A running network.
pub(crate) struct Dkv {
    processes: Processes,
    program: PathBuf,
    address: String,
    nodes: usize,
    voters: usize,
    /// Ports on which the nodes serve etcd's interface, in their order; none unless it is measured.
    etcd_ports: Vec<u16>,
}

impl Dkv {
    /// Starts a network and waits until it is complete.
    pub(crate) async fn start(setup: &Setup) -> Result<Self, String> {
        Self::start_with(setup, Vec::new()).await
    }

    /// Starts a network whose nodes serve etcd's interface on these ports.
    pub(super) async fn start_with(setup: &Setup, etcd_ports: Vec<u16>) -> Result<Self, String> {
        let dkv_options = &setup.dkv_options;
        let mut config = json!({ "listen": "127.0.0.1:0", "data_dir": "server" });
        if let Some(shards) = dkv_options.shards {
            config["shards"] = json!(shards);
        }
        if let Some(replication) = dkv_options.replication {
            config["replication"] = json!(replication);
        }
        if let Some([heartbeat, min, max]) = dkv_options.times.as_deref() {
            config["heartbeat_ms"] = json!(heartbeat);
            config["election_min_ms"] = json!(min);
            config["election_max_ms"] = json!(max);
        }
        let processes = Processes::new(setup.dir.as_deref())?;
        let path = processes.path("config.json");
        std::fs::write(&path, config.to_string()).map_err(|error| error.to_string())?;
        let mut network = Self {
            processes,
            program: Self::program(setup)?,
            address: String::new(),
            nodes: dkv_options.nodes,
            voters: dkv_options.nodes.min(dkv_options.replication.unwrap_or(3) as usize),
            etcd_ports,
        };
        network.address = network.spawn("server", &["server", "-c", &path.to_string_lossy()])?;
        for number in 1..=dkv_options.nodes {
            network.restart(&format!("n{number}"))?;
        }
        network.wait_whole().await?;
        Ok(network)
    }

    /// Returns the path of the measured program.
    pub(crate) fn program(setup: &Setup) -> Result<PathBuf, String> {
        match &setup.dkv_options.dkv {
            Some(path) => Ok(path.clone()),
            None => {
                let own = std::env::current_exe().map_err(|error| error.to_string())?;
                Ok(own.with_file_name("dkv"))
            }
        }
    }

    /// Returns a client of the network.
    pub(crate) async fn client(&self) -> Result<Client, String> {
        self.client_as(Role::Client).await
    }

    /// Returns a client that may create keyspaces.
    pub(crate) async fn administrator(&self) -> Result<Client, String> {
        self.client_as(Role::Admin).await
    }

    async fn client_as(&self, role: Role) -> Result<Client, String> {
        let home = self.processes.path("home");
        let client = Client::builder().server(&self.address).home(home).role(role);
        client.timeout(REQUEST_TIMEOUT).connect().await.map_err(|error| error.to_string())
    }

    /// Returns the log lines of all nodes, each after the name of its node.
    pub(crate) fn logged(&self) -> Vec<String> {
        let names = (1..=self.nodes).map(|number| format!("n{number}"));
        let lines = |name: String| {
            let log = self.processes.log(&name);
            log.lines().map(|line| format!("{name} {line}")).collect::<Vec<_>>()
        };
        names.flat_map(lines).collect()
    }

    /// Starts a gateway to the network, and returns its address.
    #[cfg(feature = "peers")]
    pub(super) fn gateway(&mut self) -> Result<String, String> {
        let address = self.address.clone();
        self.spawn("gateway", &["gateway", &address, "--http", "127.0.0.1:0"])
    }

    fn spawn(&mut self, name: &str, args: &[&str]) -> Result<String, String> {
        let mut command = Command::new(&self.program);
        command.args(args).env("DKV_HOME", self.processes.path("home"));
        self.processes.start_until_ready(name, &mut command)
    }

    /// Returns whether all nodes are live, vote in every group that they should, and have all data.
    async fn is_whole(&self, client: &Client) -> bool {
        let status = client.status().await;
        let Some(view) = &status.view else { return false };
        let live = view.nodes.iter().filter(|node| node.state == NodeState::Live).count();
        let answers: Vec<_> =
            status.nodes.iter().filter_map(|(_, node)| node.as_ref().ok()).collect();
        if live < self.nodes || answers.len() < self.nodes {
            return false;
        }
        let groups = || answers.iter().flat_map(|node| &node.groups);
        let complete =
            groups().all(|group| group.voters.len() >= self.voters && group.leader.is_some());
        let furthest = |one: &dkv_api::GroupId| {
            groups().filter(|group| group.group == *one).map(|group| group.applied_index).max()
        };
        // Under load a follower is always a few entries behind.
        let level = groups().all(|group| {
            furthest(&group.group).is_some_and(|furthest| furthest <= group.applied_index + 64)
        });
        complete && level && groups().count() >= self.nodes + self.voters * view.shards.len()
    }
}

impl System for Dkv {
    fn processes(&self) -> &Processes {
        &self.processes
    }

    fn processes_mut(&mut self) -> &mut Processes {
        &mut self.processes
    }

    fn drivers(
        &self,
        clients: usize,
        // The library survives failovers, and needs no special settings for it.
        _purpose: Purpose,
    ) -> BoxFuture<'_, Result<Vec<Arc<dyn Driver>>, String>> {
        Box::pin(async move {
            let client = self.client().await?;
            let view = Arc::new(client.view().await.map_err(|error| error.to_string())?);
            let driver = || {
                let (client, view) = (client.clone(), Arc::clone(&view));
                Arc::new(DkvDriver { client, view }) as Arc<dyn Driver>
            };
            Ok((0..clients).map(|_| driver()).collect())
        })
    }

    fn watches(&self, count: usize) -> BoxFuture<'_, Result<Vec<Changes>, String>> {
        Box::pin(async move {
            let client = self.client().await?;
            let mut watches = Vec::new();
            for _ in 0..count {
                let keys = KeyRange::Prefix("key-".into());
                let watch = client.watch(keys, WatchOptions::default()).await;
                let watch = watch.map_err(|error| error.to_string())?;
                let values = watch.filter_map(|event| async {
                    match event {
                        Ok(WatchEvent::Change(change)) => change.value.map(Ok),
                        Ok(_) => None,
                        Err(error) => Some(Err(error.to_string())),
                    }
                });
                watches.push(values.boxed());
            }
            Ok(watches)
        })
    }

    /// Returns the node that is the primary of most shards.
    fn leader(&self) -> BoxFuture<'_, Result<Leader, String>> {
        Box::pin(async move {
            let client = self.client().await?;
            let view = client.refresh().await.map_err(|error| error.to_string())?;
            let led = |id| view.shards.iter().filter(|shard| shard.primary == Some(id)).count();
            let leader = view.nodes.iter().max_by_key(|node| led(node.id));
            let leader = leader.filter(|node| led(node.id) > 0).ok_or("no shard has a primary")?;
            let also = if view.coordinator == Some(leader.id) { ", coordinator" } else { "" };
            let (led, shards) = (led(leader.id), view.shards.len());
            Ok(Leader {
                name: leader.name.clone(),
                note: format!("primary of {led} of {shards} shards{also}"),
            })
        })
    }

    fn restart(&mut self, name: &str) -> Result<(), String> {
        let data = self.processes.path(name).to_string_lossy().into_owned();
        let address = self.address.clone();
        let mut args = vec!["node", &address, "--name", name, "--data-dir", &data];
        let number = name.trim_start_matches('n').parse::<usize>().unwrap_or_default();
        let port = self.etcd_ports.get(number.wrapping_sub(1)).map(u16::to_string);
        if let Some(port) = &port {
            args.extend(["--etcd", port]);
        }
        self.spawn(name, &args).map(drop)
    }

    fn wait_whole(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let client = self.client().await?;
            let deadline = Instant::now() + START_TIMEOUT;
            while !self.is_whole(&client).await {
                if Instant::now() > deadline {
                    return Err("the network did not come up in time".into());
                }
                tokio::time::sleep(START_EVERY).await;
            }
            Ok(())
        })
    }
}

struct DkvDriver {
    client: Client,
    view: Arc<NetworkView>,
}

impl DkvDriver {
    /// Returns the keys of a transaction. If no key is where the second one should be, it is the
    /// next one.
    fn pair(&self, first: u64, records: u64, across: bool) -> [String; 2] {
        let keyspace = self.client.keyspace_id();
        let shard_of = |key: &str| self.view.shard_of(keyspace, key.as_bytes());
        let shard = |key: &str| shard_of(key).map(|shard| shard.group);
        let one = workload::key(first);
        let mut others = (1..records).map(|step| workload::key((first + step) % records));
        let fitting = others.find(|other| (shard(other) != shard(&one)) == across);
        [one, fitting.unwrap_or_else(|| workload::key((first + 1) % records))]
    }

    async fn operate(&self, operation: Operation) -> Result<Answer, Error> {
        match operation {
            Operation::Put { key, value } => {
                self.client.write(key, value).await?;
            }
            Operation::Get { key } => {
                self.client.read(key).await?;
            }
            Operation::EventualGet { key } => {
                self.client.read_with(key, ReadOptions::eventual()).await?;
            }
            Operation::ReadModifyWrite { key, value } => {
                let read = self.client.read(&key).await?;
                let unchanged = Condition::Revision(read.receipt.revision);
                self.client.write_with(&key, value, unchanged.into()).await?;
            }
            Operation::Scan { key, count } => {
                let options = ScanOptions::default().after(key).limit(u64::from(count));
                let mut scan = self.client.scan(options);
                let mut found = false;
                while scan.next().await?.is_some() {
                    found = true;
                }
                return Ok(if found { Answer::Done } else { Answer::Missing });
            }
            Operation::Transaction { first, records, across, value } => {
                let keys = self.pair(first, records, across);
                let mut transaction = Transaction::new();
                for key in &keys {
                    let put = TransactionOperation::put(key, value.clone());
                    transaction = transaction.when(Compare::exists(key)).then(put);
                }
                let done = self.client.transact(transaction).await?;
                return Ok(if done.succeeded { Answer::Done } else { Answer::Missing });
            }
        }
        Ok(Answer::Done)
    }
}

impl Driver for DkvDriver {
    fn run(&self, operation: Operation) -> BoxFuture<'_, Result<Answer, String>> {
        Box::pin(async move {
            match self.operate(operation).await {
                Ok(answer) => Ok(answer),
                Err(Error::NotFound { .. }) => Ok(Answer::Missing),
                Err(Error::Conflict { .. }) => Ok(Answer::Conflict),
                Err(error) => Err(error.to_string()),
            }
        })
    }
}
