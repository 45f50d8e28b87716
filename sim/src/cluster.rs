//! A network of dkv on simulated machines: the server, nodes and clients, each the product's own
//! code.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dkv_base::sync::lock;
use dkv_node::Args;
use dkv_server::{Config, Server};
use dkv_wire::network::Settings;
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::disk::Disk;
use crate::log;
use crate::machine::Machine;
use crate::network::{self, Network};
use crate::random::Random;
use crate::trace::Trace;

const SERVER: u8 = 1;
const FIRST_NODE: u8 = 11;
const FIRST_CLIENT: u8 = 101;
const SERVER_PORT: u16 = 4400;
const NODE_PORT: u16 = 4401;
/// Ticks within which a process must end after a vital task has panicked.
const NOTICED_WITHIN: u64 = 3000;
/// Time since 1970 at the first tick: the beginning of 2026.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);

/// The machines of one network, and the links between them.
pub struct Cluster {
    /// The current tick.
    pub now: u64,
    /// The links between the machines.
    pub network: Network,
    /// The trace of the run.
    pub trace: Trace,
    /// The registration server's machine.
    pub server: Machine,
    /// The nodes' machines, those of removed nodes included.
    pub nodes: Vec<Node>,
    /// The clients' machines.
    pub clients: Vec<Machine>,
    settings: Settings,
    directory: TempDir,
    random: Random,
    epoch: SystemTime,
}

/// A machine with a disk, for a node.
pub struct Node {
    /// The node's name.
    pub name: String,
    /// The machine.
    pub machine: Machine,
    /// Its disk.
    pub disk: Disk,
    /// Whether it runs, or is to run again; false once it was removed.
    pub wanted: bool,
    /// Whether its removal was ordered.
    pub leaving: bool,
    /// Whether it was switched off for good after the network had said that nothing is lost with
    /// it.
    pub promised: bool,
    /// Whether it has ended for good because it lacks entries that it had acknowledged.
    pub condemned: bool,
    /// Ticks for which the process has run since a vital task panicked.
    panicked: Option<u64>,
    /// Whether it went on for too long after that.
    overlooked: bool,
    process: Process,
}

/// A node's process, as its machine sees it.
#[derive(Default)]
struct Process {
    stop: Option<oneshot::Sender<()>>,
    ended: Arc<Mutex<Option<Result<(), String>>>>,
}

/// How a process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// The process is killed, and the machine lives on.
    Process,
    /// The machine loses its power.
    Power,
}

impl Cluster {
    /// Creates a network without a process, with so many machines for clients.
    ///
    /// # Errors
    /// If no directory can be created for the processes' files.
    pub fn new(
        mut random: Random,
        settings: Settings,
        clients: u8,
        trace: Trace,
    ) -> std::io::Result<Self> {
        let network = Network::new(random.fork(), trace.clone());
        let epoch = UNIX_EPOCH + EPOCH;
        let mut machine = |number| Machine::new(number, network.clone(), random.fork(), epoch);
        let server = machine(SERVER);
        let clients = (0..clients).map(|number| machine(FIRST_CLIENT + number)).collect();
        // Every write to these files is durable at once. They are in memory if the system has a
        // place for that.
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
        let nodes = Vec::new();
        Ok(Self {
            now: 0,
            network,
            trace,
            server,
            nodes,
            clients,
            settings,
            directory,
            random,
            epoch,
        })
    }

    /// Advances all machines by one tick.
    pub fn tick(&mut self) {
        self.now += 1;
        self.trace.tick(self.now);
        self.network.tick(self.now);
        log::at(self.now, "server");
        self.server.tick(self.now);
        if self.server.is_up() && self.server.has_no_power() {
            self.kill_server();
        }
        for index in 0..self.nodes.len() {
            let node = &mut self.nodes[index];
            log::at(self.now, &node.name);
            node.machine.tick(self.now);
            node.notices_panics();
            if let Some(name) = log::panicked() {
                self.trace.line(format!("a task of {name} panics"));
                node.panicked = Some(0);
            }
            let dark = node.disk.is_dead() || node.machine.has_no_power();
            if node.machine.is_up() && dark {
                self.kill_node(index, Death::Power);
            } else if let Some(ended) = self.nodes[index].take_ended() {
                let name = self.nodes[index].name.clone();
                self.trace.line(format!("{name} ended: {ended:?}"));
                let says = |text: &str| ended.as_ref().is_err_and(|why| why.contains(text));
                let node = &mut self.nodes[index];
                node.condemned |= says("has acknowledged entry");
                node.leaving |= node.condemned;
                node.wanted &= !node.condemned && !says("removed from the network");
                self.end_process(index, Death::Process);
            }
        }
        for (number, client) in self.clients.iter_mut().enumerate() {
            log::at(self.now, &format!("client {number}"));
            client.tick(self.now);
        }
        log::at(self.now, "");
    }

    /// Starts the server's process.
    pub fn start_server(&mut self) {
        let config = Config {
            listen: SocketAddr::new(self.server.address(), SERVER_PORT),
            data_dir: self.path("server"),
            settings: self.settings.clone(),
            tokens_home: None,
            trust_voter: None,
            advertise: None,
            join: None,
            token_file: None,
        };
        let trace = self.trace.clone();
        self.server.start(async move {
            match Server::start(config).await {
                Ok(server) => {
                    trace.line("the server serves");
                    std::future::pending::<()>().await;
                    drop(server);
                }
                Err(error) => trace.line(format!("the server does not start: {error}")),
            }
        });
    }

    /// Kills the server's process.
    pub fn kill_server(&mut self) {
        self.trace.line("the server is killed");
        self.server.kill();
    }

    /// Adds a machine for a node, and starts it.
    pub fn add_node(&mut self) -> usize {
        let index = self.nodes.len();
        let number = FIRST_NODE + index as u8; // there are far fewer nodes than numbers
        let random = self.random.fork();
        let machine = Machine::new(number, self.network.clone(), random, self.epoch);
        let disk = Disk::new(self.random.fork());
        let name = format!("n{}", index + 1);
        let process = Process::default();
        self.nodes.push(Node {
            name,
            machine,
            disk,
            wanted: true,
            leaving: false,
            promised: false,
            condemned: false,
            panicked: None,
            overlooked: false,
            process,
        });
        self.start_node(index);
        index
    }

    /// Starts the process of a node.
    pub fn start_node(&mut self, index: usize) {
        let server = SocketAddr::new(self.server.address(), SERVER_PORT);
        let data_dir = self.path(&self.nodes[index].name);
        let token_file = self.token_file("node");
        let regions = self.settings.delays.between.len().max(1);
        let node = &mut self.nodes[index];
        let args = Args {
            server: server.to_string(),
            name: Some(node.name.clone()),
            data_dir: Some(data_dir),
            listen: Some(SocketAddr::new(node.machine.address(), NODE_PORT)),
            advertise: None,
            region: self
                .settings
                .delays
                .between
                .get(index % regions)
                .and_then(|it| it.parse().ok()),
            token_file: Some(token_file),
            threads: None,
            // Every other node keeps no values in memory, and reads them from its checkpoints.
            value_memory: (index % 2 == 1).then_some(0),
            slow_request_ms: 0,
            log_format: dkv_base::logging::Format::Text,
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let ended = Arc::new(Mutex::new(None));
        node.process = Process { stop: Some(stop), ended: Arc::clone(&ended) };
        let place = self.directory.path().to_string_lossy().into_owned();
        let (storage, trace, name) = (node.disk.clone(), self.trace.clone(), node.name.clone());
        self.network.set_dark(node.machine.address(), false);
        self.trace.line(format!("{name} starts"));
        node.machine.start(async move {
            let ready = |_| trace.line(format!("{name} serves"));
            let stopped = async { drop(stopped.await) };
            let result = dkv_node::run_on(storage, args, ready, stopped).await;
            // The directories are in another place in each run.
            let result = result.map_err(|error| error.to_string().replace(&*place, "…"));
            *lock(&ended) = Some(result);
        });
    }

    /// Kills the process of a node.
    pub fn kill_node(&mut self, index: usize, death: Death) {
        let name = &self.nodes[index].name;
        self.trace.line(format!("{name} dies: {death:?}"));
        self.end_process(index, death);
    }

    /// Asks the process of a node to stop cleanly.
    pub fn stop_node(&mut self, index: usize) {
        if let Some(stop) = self.nodes[index].process.stop.take() {
            self.trace.line(format!("{} is asked to stop", self.nodes[index].name));
            // The process may have ended by itself.
            let _ = stop.send(());
        }
    }

    fn end_process(&mut self, index: usize, death: Death) {
        let seed = self.random.draw();
        let node = &mut self.nodes[index];
        node.machine.kill();
        node.process = Process::default();
        node.panicked = None;
        match death {
            Death::Process => node.disk.restart(),
            Death::Power => {
                node.disk.lose_power(seed);
                self.network.set_dark(node.machine.address(), true);
            }
        }
    }

    /// Returns the nodes that went on after the panic of a vital task.
    pub fn overlooked(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().filter(|node| node.overlooked).map(|node| node.name.as_str())
    }

    /// Returns the address at which clients find the server.
    pub fn server_address(&self) -> String {
        SocketAddr::new(network::address(SERVER), SERVER_PORT).to_string()
    }

    /// Returns the path of the file with the join token of a role.
    pub fn token_file(&self, role: &str) -> PathBuf {
        self.path("server").join("tokens").join(format!("{role}.token"))
    }

    /// Returns the path of a file or directory of the run.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Node {
    /// Counts for how long the process has gone on after the panic of a vital task.
    fn notices_panics(&mut self) {
        if let Some(ticks) = self.panicked.as_mut().filter(|_| !self.machine.stands_still()) {
            *ticks += 1;
            self.overlooked |= *ticks > NOTICED_WITHIN;
        }
    }

    fn take_ended(&self) -> Option<Result<(), String>> {
        lock(&self.process.ended).take()
    }
}

#[cfg(test)]
mod tests;
