//! A network of real processes on loopback, for one measurement.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use dkv_api::{Client, NodeState, Role};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;

/// Time that a network may take to come up.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// What kind of network is measured.
#[derive(Args, Clone, Debug)]
pub(crate) struct Shape {
    /// Nodes
    #[arg(long, global = true, default_value_t = 3)]
    nodes: usize,
    /// Shards [default: the server's]
    #[arg(long, global = true)]
    shards: Option<u32>,
    /// Heartbeat and shortest and longest election time, in milliseconds [default: the server's]
    #[arg(long, global = true, value_delimiter = ',', num_args = 3)]
    times: Option<Vec<u64>>,
    /// The `dkv` binary [default: the one beside this]
    #[arg(long, global = true)]
    dkv: Option<PathBuf>,
    /// Where the data is [default: a temporary directory]
    #[arg(long, global = true)]
    dir: Option<PathBuf>,
}

/// A running network.
pub(crate) struct Network {
    directory: TempDir,
    dkv: PathBuf,
    address: String,
    processes: Vec<Process>,
}

/// One of its processes.
struct Process {
    name: String,
    child: Child,
}

impl Network {
    /// Starts a network and waits until all of its nodes vote in everything.
    pub(crate) async fn start(shape: &Shape) -> Result<Self, String> {
        let directory = match &shape.dir {
            Some(path) => TempDir::new_in(path),
            None => TempDir::new(),
        };
        let directory = directory.map_err(|error| error.to_string())?;
        let dkv = match &shape.dkv {
            Some(path) => path.clone(),
            None => std::env::current_exe().map_err(|e| e.to_string())?.with_file_name("dkv"),
        };
        let mut config = json!({ "listen": "127.0.0.1:0", "data_dir": "server" });
        if let Some(shards) = shape.shards {
            config["shards"] = json!(shards);
        }
        if let Some([heartbeat, min, max]) = shape.times.as_deref() {
            config["heartbeat_ms"] = json!(heartbeat);
            config["election_min_ms"] = json!(min);
            config["election_max_ms"] = json!(max);
        }
        let path = directory.path().join("config.json");
        std::fs::write(&path, config.to_string()).map_err(|error| error.to_string())?;
        let mut network = Self { directory, dkv, address: String::new(), processes: Vec::new() };
        network.address = network.spawn("server", &["server", "-c", &path.to_string_lossy()])?;
        for number in 1..=shape.nodes {
            network.start_node(&format!("n{number}"))?;
        }
        network.wait_complete(shape.nodes).await?;
        Ok(network)
    }

    /// Starts a node, or starts it again.
    pub(crate) fn start_node(&mut self, name: &str) -> Result<(), String> {
        let data = self.directory.path().join(name);
        let data = data.to_string_lossy().into_owned();
        let address = self.address.clone();
        self.spawn(name, &["node", &address, "--name", name, "--data-dir", &data]).map(drop)
    }

    /// A client of the network.
    pub(crate) async fn client(&self) -> Result<Client, String> {
        let client = Client::builder().server(&self.address).home(self.home());
        let client = client.role(Role::Client).timeout(Duration::from_secs(20)).connect().await;
        client.map_err(|error| error.to_string())
    }

    /// Sends a signal to a node, and waits for its end if it is one that ends it.
    pub(crate) fn signal(&mut self, name: &str, signal: Signal) -> Result<(), String> {
        let index = self
            .processes
            .iter()
            .position(|process| process.name == name)
            .ok_or_else(|| format!("there is no process {name}"))?;
        let child = &mut self.processes[index].child;
        kill_process(Pid::from_child(child), signal).map_err(|error| error.to_string())
    }

    /// Waits until a process that was told to end has ended.
    pub(crate) fn reap(&mut self, name: &str) {
        if let Some(index) = self.processes.iter().position(|process| process.name == name) {
            let mut process = self.processes.remove(index);
            let _ = process.child.wait();
        }
    }

    /// Waits until `nodes` nodes are live and vote in everything.
    pub(crate) async fn wait_complete(&self, nodes: usize) -> Result<(), String> {
        let client = self.client().await?;
        let deadline = Instant::now() + START_TIMEOUT;
        let voters = nodes.min(3);
        loop {
            let status = client.status().await;
            let live = status.view.as_ref().map_or(0, |view| {
                view.nodes.iter().filter(|node| node.state == NodeState::Live).count()
            });
            let groups: Vec<_> = status
                .nodes
                .iter()
                .filter_map(|(_, node)| node.as_ref().ok())
                .flat_map(|node| &node.groups)
                .collect();
            let voting = groups.iter().all(|group| group.voters.len() >= voters);
            let led = groups.iter().all(|group| group.leader.is_some());
            if live >= nodes && voting && led && !groups.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err("the network did not come up in time".into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// CPU time that all processes have used, and the largest resident memory of a node.
    pub(crate) fn usage(&self) -> (Duration, u64) {
        let mut cpu = Duration::ZERO;
        let mut memory = 0;
        for process in &self.processes {
            let directory = PathBuf::from(format!("/proc/{}", process.child.id()));
            cpu += cpu_time(&directory).unwrap_or_default();
            memory = memory.max(peak_memory(&directory).unwrap_or_default());
        }
        (cpu, memory)
    }

    /// Stops everything.
    pub(crate) fn stop(self) {}

    fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    fn spawn(&mut self, name: &str, args: &[&str]) -> Result<String, String> {
        let log = self.directory.path().join(format!("{name}.log"));
        let log = std::fs::File::options().create(true).append(true).open(log);
        let mut child = Command::new(&self.dkv)
            .args(args)
            .env("DKV_HOME", self.home())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.map_err(|error| error.to_string())?)
            .spawn()
            .map_err(|error| format!("{}: {error}", self.dkv.display()))?;
        let stdout = child.stdout.take();
        self.processes.push(Process { name: name.to_owned(), child });
        let lines = BufReader::new(stdout.ok_or("no output")?).lines();
        for line in lines.map_while(Result::ok) {
            if let Some(address) = line.strip_prefix("ready ") {
                return Ok(address.to_owned());
            }
        }
        Err(format!("{name} did not start; its log: {}", self.log(name)))
    }

    fn log(&self, name: &str) -> String {
        let path = self.directory.path().join(format!("{name}.log"));
        std::fs::read_to_string(path).unwrap_or_default()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}

fn cpu_time(directory: &Path) -> Option<Duration> {
    let stat = std::fs::read_to_string(directory.join("stat")).ok()?;
    // The name may hold blanks; after it come the fields from the third on.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 10))
}

fn peak_memory(directory: &Path) -> Option<u64> {
    let status = std::fs::read_to_string(directory.join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
}
