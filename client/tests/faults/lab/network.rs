//! A network of processes on separate hosts, with clients at work on it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::Duration;

use dkv_api::{Client, ClientBuilder, NodeId, NodeStatus, Role};
use dkv_check::{History, Options, check};
use dkv_drill::workload::{Plan, Workload, longest_wait};
use dkv_test_support::process::{self, show_log};
use dkv_test_support::{Process, convergence, eventually, text};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::host::{self, CLIENT, Hosts, SERVER, Visit};
use super::tools::attempt;

const SERVER_PORT: u16 = 4400;
const NODE_PORT: u16 = 4401;
/// Number of connections of the clients.
const CONNECTIONS: usize = 3;
/// Time limit of an operation.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Slots for concurrent networks: each is several busy processes.
static SLOTS: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];

/// How a process is started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Under {
    /// Programs that run the process, each with its arguments.
    pub(crate) wrapper: Vec<String>,
    /// Environment variables.
    pub(crate) variables: Vec<(String, String)>,
    /// More arguments.
    pub(crate) arguments: Vec<String>,
}

impl Under {
    /// Injects a fault into a system call with strace.
    pub(crate) fn strace(inject: &str) -> Self {
        // The traced process stays a child of the test; the tracer runs beside it.
        let call = inject.split(':').next().unwrap_or_default();
        let trace = format!("trace={call}");
        let inject = format!("inject={inject}");
        let wrapper = [
            "strace",
            "-D",
            "-f",
            "-qq",
            "--seccomp-bpf",
            "-o",
            "/dev/null",
            "-e",
            &trace,
            "-e",
            &inject,
        ];
        Self { wrapper: wrapper.map(str::to_owned).to_vec(), ..Self::default() }
    }
}

/// A node, running or not.
pub(crate) struct LabNode {
    /// Its data directory.
    pub(crate) dir: PathBuf,
    /// Its process while there is one.
    pub(crate) process: Option<Process>,
    /// Its host.
    pub(crate) host: usize,
    log: PathBuf,
}

impl LabNode {
    /// Returns its identity, from its directory.
    pub(crate) fn id(&self) -> NodeId {
        let file = std::fs::read(self.dir.join("node.json")).unwrap();
        let file: Value = serde_json::from_slice(&file).unwrap();
        file["id"].as_str().unwrap().parse().unwrap()
    }

    /// Returns its process, which must be running.
    pub(crate) fn running(&mut self) -> &mut Process {
        self.process.as_mut().unwrap()
    }
}

/// The network.
pub(crate) struct Lab {
    /// The nodes in the order in which they were added.
    pub(crate) nodes: Vec<LabNode>,
    server: Option<Process>,
    replication: usize,
    // Dropped in this order: processes, then hosts, then files.
    /// The hosts.
    pub(crate) hosts: Hosts,
    root: TempDir,
}

/// Runs a test on a network of that many nodes.
pub(crate) fn on_network(settings: Value, nodes: usize, test: impl AsyncFnOnce(&mut Lab)) {
    let _slot = slot();
    let hosts = Hosts::new();
    let name = hosts.name(CLIENT);
    let _visit = Visit::begin(&name);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().on_thread_start(move || host::enter(&name)).build().unwrap();
    runtime.block_on(async {
        let mut lab = Lab::start(settings, hosts).await;
        for _ in 0..nodes {
            lab.add_node(Under::default()).await;
        }
        if nodes > 0 {
            lab.settled().await;
        }
        test(&mut lab).await;
        lab.assert_alive();
    });
}

/// Waits for a free slot.
fn slot() -> MutexGuard<'static, ()> {
    loop {
        for slot in &SLOTS {
            match slot.try_lock() {
                Ok(slot) => return slot,
                // A failed test does not damage the slot.
                Err(TryLockError::Poisoned(slot)) => return slot.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Lab {
    async fn start(settings: Value, mut hosts: Hosts) -> Self {
        let prefix = format!("dkv-faults-{}-", std::process::id());
        let root = tempfile::Builder::new().prefix(&prefix).tempdir().unwrap();
        std::fs::create_dir(root.path().join("home")).unwrap();
        assert_eq!(hosts.add(), SERVER);
        let listen = SocketAddr::from((host::address(SERVER), SERVER_PORT));
        let mut config = json!({ "listen": listen, "data_dir": "server", "shards": 2 });
        config.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        let replication = config["replication"].as_u64().unwrap_or(3) as usize;
        std::fs::write(root.path().join("config.json"), config.to_string()).unwrap();
        let mut lab = Self { server: None, nodes: Vec::new(), replication, root, hosts };
        lab.start_server().await;
        lab
    }

    /// Returns a path below the temporary directory of this network.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Starts the server, again or for the first time.
    pub(crate) async fn start_server(&mut self) {
        let config = self.path("config.json");
        let arguments = ["server", "--config", text(&config)];
        let mut server = self.run(SERVER, &Under::default(), &arguments, &self.path("server.log"));
        server.ready().await.unwrap();
        self.server = Some(server);
    }

    /// Kills the server.
    pub(crate) fn kill_server(&mut self) {
        self.server.take().unwrap().kill();
    }

    fn run(&self, host: usize, under: &Under, arguments: &[&str], log: &Path) -> Process {
        let name = self.hosts.name(host);
        let mut wrapper = vec!["ip", "netns", "exec", &name];
        // The variables must reach only the process itself, not its wrappers.
        let variables: Vec<String> =
            under.variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if !variables.is_empty() {
            wrapper.push("env");
            wrapper.extend(variables.iter().map(String::as_str));
        }
        wrapper.extend(under.wrapper.iter().map(String::as_str));
        let program = process::program(env!("CARGO_BIN_EXE_dkv"), env!("CARGO_TARGET_TMPDIR"));
        Process::spawn(process::command(&wrapper, program, arguments, &self.path("home")), log)
    }

    /// Adds a node on a new host and waits until it serves.
    pub(crate) async fn add_node(&mut self, under: Under) -> usize {
        let number = self.nodes.len() + 1;
        let host = self.hosts.add();
        let dir = self.path(&format!("node-{number}"));
        let log = self.path(&format!("node-{number}.log"));
        self.nodes.push(LabNode { dir, process: None, host, log });
        self.start_node_under(number - 1, under).await;
        number - 1
    }

    /// Starts a node again and waits until it serves.
    pub(crate) async fn start_node(&mut self, index: usize) {
        self.start_node_under(index, Under::default()).await;
    }

    /// Starts a node in a special way, and waits until it serves.
    pub(crate) async fn start_node_under(&mut self, index: usize, under: Under) {
        self.spawn_node(index, &under);
        self.nodes[index].running().ready().await.unwrap();
    }

    /// Starts a node without waiting for it.
    pub(crate) fn spawn_node(&mut self, index: usize, under: &Under) {
        let server = SocketAddr::from((host::address(SERVER), SERVER_PORT)).to_string();
        let member = &self.nodes[index];
        let listen = SocketAddr::from((host::address(member.host), NODE_PORT)).to_string();
        let token = self.path("server/tokens/node.token");
        let mut arguments = vec!["node", &server, "--data-dir", text(&member.dir)];
        arguments.extend(["--listen", &listen, "--token-file", text(&token)]);
        arguments.extend(under.arguments.iter().map(String::as_str));
        let process = self.run(member.host, under, &arguments, &member.log);
        self.nodes[index].process = Some(process);
    }

    /// Starts a node on a new host with an existing data directory, without waiting for it.
    pub(crate) fn spawn_copy(&mut self, dir: &Path) -> usize {
        let host = self.hosts.add();
        let log = dir.with_extension("log");
        self.nodes.push(LabNode { dir: dir.to_owned(), process: None, host, log });
        self.spawn_node(self.nodes.len() - 1, &Under::default());
        self.nodes.len() - 1
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

    /// Pauses a node.
    pub(crate) fn pause_node(&mut self, index: usize) {
        self.nodes[index].running().pause();
    }

    /// Resumes a paused node.
    pub(crate) fn resume_node(&mut self, index: usize) {
        self.nodes[index].running().resume();
    }

    /// Returns the indices of the running nodes.
    pub(crate) fn running(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&index| self.nodes[index].process.is_some()).collect()
    }

    /// Returns the other running nodes.
    pub(crate) fn others(&self, index: usize) -> Vec<usize> {
        self.running().into_iter().filter(|other| *other != index).collect()
    }

    fn ids(&self) -> Vec<NodeId> {
        self.running().into_iter().map(|index| self.nodes[index].id()).collect()
    }

    /// Connects a client.
    pub(crate) async fn client(&self) -> Client {
        self.client_as(Role::Client).await
    }

    /// Connects a client with a role.
    pub(crate) async fn client_as(&self, role: Role) -> Client {
        self.client_builder(role).connect().await.unwrap()
    }

    /// Returns what connects a client, on whatever host.
    pub(crate) fn client_builder(&self, role: Role) -> ClientBuilder {
        Client::builder()
            .server(SocketAddr::from((host::address(SERVER), SERVER_PORT)).to_string())
            .role(role)
            .token_file(self.path("server/tokens").join(format!("{role}.token")))
            .home(self.path("home"))
    }

    /// Runs a command on the host of the clients. Returns its exit status and what it wrote,
    /// standard error first.
    pub(crate) async fn command(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let server = SocketAddr::from((host::address(SERVER), SERVER_PORT)).to_string();
        let name = self.hosts.name(CLIENT);
        let wrapper = ["ip", "netns", "exec", &name];
        let program = process::program(env!("CARGO_BIN_EXE_dkv"), env!("CARGO_TARGET_TMPDIR"));
        let arguments = [&[server.as_str()], arguments].concat();
        let mut command = process::command(&wrapper, program, &arguments, &self.path("home"));
        let output = tokio::task::spawn_blocking(move || command.output().unwrap());
        let output = output.await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stderr) + &text(&output.stdout))
    }

    /// Waits until all running nodes are live and agree on everything.
    pub(crate) async fn settled(&self) {
        let client = self.client().await;
        eventually("the network does not settle", async || {
            convergence::settled(&client.status().await, &self.ids(), &[], self.replication)
        })
        .await;
        client.close().await;
    }

    /// Returns the index of the coordinator that the nodes agree on.
    pub(crate) async fn coordinator(&self) -> usize {
        self.coordinator_among(&self.running()).await
    }

    /// Returns the index of the coordinator that these nodes agree on.
    pub(crate) async fn coordinator_among(&self, nodes: &[usize]) -> usize {
        let client = self.client().await;
        let ids: Vec<NodeId> = nodes.iter().map(|index| self.nodes[*index].id()).collect();
        let coordinator = eventually("there is no coordinator", async || {
            let id = convergence::coordinator(&client.status().await, &ids)?;
            let place = ids.iter().position(|it| *it == id).ok_or("it is another one")?;
            Ok(nodes[place])
        })
        .await;
        client.close().await;
        coordinator
    }

    /// Waits until all running nodes have the same state.
    pub(crate) async fn same_state(&self) -> Vec<NodeStatus> {
        let client = self.client().await;
        let statuses = eventually("the replicas do not become equal", async || {
            convergence::same_state(&client.status().await, &self.ids())
        })
        .await;
        client.close().await;
        statuses
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

    /// Starts clients.
    pub(crate) async fn work(&self) -> Work {
        self.work_with(40).await
    }

    /// Starts clients that write values of that length.
    pub(crate) async fn work_with(&self, value_bytes: usize) -> Work {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(self.client().await);
        }
        let plan = Plan {
            prefix: String::new(),
            keys: 5,
            value_bytes,
            pause: Duration::from_millis(3),
            timeout: TIMEOUT,
            seed: u64::from(std::process::id()),
        };
        let work = Work { workload: Workload::start(&clients, plan), clients };
        work.more(100).await;
        work
    }

    /// Ends all faults, waits until the network has recovered, and checks what the clients saw.
    pub(crate) async fn judge(&mut self, work: Work) -> History {
        self.hosts.heal();
        // It serves new requests, too, and not only those from before.
        work.more(100).await;
        self.settled().await;
        let now_ns = work.workload.now_ns();
        let dkv_drill::workload::Work { history, followed, problems, .. } =
            work.workload.finish(&work.clients[0]).await;
        for client in work.clients {
            client.close().await;
        }
        self.same_state().await;
        let report = check(&history, Options::default());
        let (waited_ns, _) = longest_wait(&history, 0, now_ns);
        println!(
            "{}: {} operations, {} unknown, {} failed; a shard was without writes for {} ms",
            std::thread::current().name().unwrap_or_default(),
            report.operations,
            report.unknown,
            report.failed,
            waited_ns / 1_000_000
        );
        if !report.holds() {
            let file = Path::new(env!("CARGO_TARGET_TMPDIR"))
                .join(format!("history-{}.jsonl", std::process::id()));
            let kept = std::fs::File::create(&file).and_then(|file| history.write(file));
            panic!("{report}kept in {}: {kept:?}", file.display());
        }
        assert!(problems.is_empty(), "{problems:?}");
        assert!(followed.is_equal, "{followed:?}");
        history
    }
}

/// Clients at work.
pub(crate) struct Work {
    /// Their workload.
    pub(crate) workload: Workload,
    clients: Vec<Client>,
}

impl Work {
    /// Waits until that many more writes were acknowledged.
    pub(crate) async fn more(&self, count: u64) {
        let target = self.workload.written() + count;
        eventually("the clients make no progress", async || {
            let written = self.workload.written();
            if written >= target { Ok(()) } else { Err(format!("{written} of {target} writes")) }
        })
        .await;
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show_log(&self.path("server.log"));
            for node in &self.nodes {
                show_log(&node.log);
            }
        }
        // The processes end before their mounts are removed.
        self.nodes.iter_mut().for_each(|node| node.process = None);
        self.server = None;
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
        let root = self.root.path();
        for path in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
            if Path::new(path).starts_with(root) {
                let _ = attempt("umount", &["-l", path]);
            }
        }
    }
}
