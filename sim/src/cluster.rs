//! A network of dkv on simulated machines: the server, nodes and clients, each the product's own
//! code.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
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
const FIRST_CLONE: u8 = 201;
/// Most clones of a run.
const CLONES_MAX: u8 = 8;
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
    /// A machine that runs a second process of a node, on a copy of the node's directory.
    pub clone: Option<Node>,
    /// The clients' machines.
    pub clients: Vec<Machine>,
    settings: Settings,
    directory: TempDir,
    random: Random,
    epoch: SystemTime,
    /// Number of machines that have run a clone.
    clones: u8,
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
    /// Whether its directory is a copy that it was not meant to run on.
    pub on_copy: bool,
    /// Why the process last ended by itself, if it did so with an error.
    pub failure: Option<String>,
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
    /// Whether it has said that it serves.
    serves: Arc<AtomicBool>,
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
        Ok(Self {
            now: 0,
            network,
            trace,
            server,
            nodes: Vec::new(),
            clone: None,
            clients,
            settings,
            directory,
            random,
            epoch,
            clones: 0,
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
                node.condemned |= !node.on_copy && says("has acknowledged entry");
                node.leaving |= node.condemned;
                node.wanted &= !node.condemned && !says("removed from the network");
                node.failure = ended.err();
                self.end_process(index, Death::Process);
            }
        }
        self.tick_clone();
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
            audit: None,
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
        self.nodes.push(Node::new(format!("n{}", index + 1), machine, disk));
        self.start_node(index);
        index
    }

    /// Starts the process of a node.
    pub fn start_node(&mut self, index: usize) {
        let data_dir = self.path(&self.nodes[index].name);
        let args = self.args(index, self.nodes[index].machine.address(), data_dir);
        let place = self.directory.path().to_string_lossy().into_owned();
        self.nodes[index].start(args, &self.network, &self.trace, place);
    }

    /// Starts a second process of a node on another machine, on a copy of the node's directory that
    /// is at `data_dir`. There is no other clone.
    pub fn start_clone(&mut self, index: usize, data_dir: PathBuf, disk: Disk) {
        let number = FIRST_CLONE + self.clones;
        self.clones += 1;
        let random = self.random.fork();
        let machine = Machine::new(number, self.network.clone(), random, self.epoch);
        let args = self.args(index, machine.address(), data_dir);
        let mut clone = Node::new(format!("clone of {}", self.nodes[index].name), machine, disk);
        let place = self.directory.path().to_string_lossy().into_owned();
        clone.start(args, &self.network, &self.trace, place);
        self.clone = Some(clone);
    }

    /// Kills the process of the clone, whose machine loses its power for good.
    pub fn kill_clone(&mut self) {
        let Some(mut clone) = self.clone.take() else { return };
        self.trace.line(format!("{} is killed", clone.name));
        clone.machine.kill();
        self.network.set_dark(clone.machine.address(), true);
    }

    /// Returns whether another clone may be started in this run.
    pub fn has_room_for_clones(&self) -> bool {
        self.clone.is_none() && self.clones < CLONES_MAX
    }

    /// Returns the arguments of a node's process.
    fn args(&self, index: usize, address: IpAddr, data_dir: PathBuf) -> Args {
        let server = SocketAddr::new(self.server.address(), SERVER_PORT);
        let between = &self.settings.delays.between;
        Args {
            server: server.to_string(),
            name: Some(self.nodes[index].name.clone()),
            data_dir: Some(data_dir),
            listen: Some(SocketAddr::new(address, NODE_PORT)),
            advertise: None,
            region: between.get(index % between.len().max(1)).and_then(|it| it.parse().ok()),
            token_file: Some(self.token_file("node")),
            threads: None,
            // Every other node keeps no values in memory, and reads them from its checkpoints.
            value_memory: (index % 2 == 1).then_some(0),
            slow_request_ms: 0,
            audit: dkv_base::audit::AuditArgs::default(),
            audit_writes: false,
            log_format: dkv_base::logging::Format::Text,
        }
    }

    fn tick_clone(&mut self) {
        let Some(clone) = &mut self.clone else { return };
        log::at(self.now, &clone.name);
        clone.machine.tick(self.now);
        if let Some(ended) = clone.take_ended() {
            self.trace.line(format!("{} ended: {ended:?}", clone.name));
            clone.machine.kill();
        }
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
    fn new(name: String, machine: Machine, disk: Disk) -> Self {
        Self {
            name,
            machine,
            disk,
            wanted: true,
            leaving: false,
            promised: false,
            condemned: false,
            on_copy: false,
            failure: None,
            panicked: None,
            overlooked: false,
            process: Process::default(),
        }
    }

    /// Returns the address at which a node's process listens.
    pub fn listens_at(&self) -> SocketAddr {
        SocketAddr::new(self.machine.address(), NODE_PORT)
    }

    /// Returns whether the process has said that it serves.
    pub fn serves(&self) -> bool {
        self.process.serves.load(Ordering::Relaxed)
    }

    /// Returns whether the process has ended by itself, with an error that says this.
    pub fn ended_saying(&self, text: &str) -> bool {
        self.failure.as_ref().is_some_and(|why| why.contains(text))
    }

    /// Starts a process. `place` is the directory of the run.
    fn start(&mut self, args: Args, network: &Network, trace: &Trace, place: String) {
        let (stop, stopped) = oneshot::channel::<()>();
        let process = Process { stop: Some(stop), ..Process::default() };
        let (ended, serves) = (Arc::clone(&process.ended), Arc::clone(&process.serves));
        (self.process, self.failure) = (process, None);
        let (storage, trace, name) = (self.disk.clone(), trace.clone(), self.name.clone());
        network.set_dark(self.machine.address(), false);
        trace.line(format!("{name} starts"));
        self.machine.start(async move {
            let ready = |_| {
                trace.line(format!("{name} serves"));
                serves.store(true, Ordering::Relaxed);
            };
            let stopped = async { drop(stopped.await) };
            let result = dkv_node::run_on(storage, args, ready, stopped).await;
            // The directories are in another place in each run.
            let result = result.map_err(|error| error.to_string().replace(&*place, "…"));
            *lock(&ended) = Some(result);
        });
    }

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
