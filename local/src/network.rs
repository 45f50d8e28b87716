//! The processes of a local network, and the client that watches it.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dkv_api::{Client, ConnectError, NetworkStatus, Region, Role, StatusError};
use dkv_console::Console;
use dkv_console::quote::quoted;
use dkv_gateway::status::{self, Report};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

use crate::child::{Child, ChildSpec};
use crate::error::{OpenError, StartError};
use crate::network_dir::{NetworkDir, node_name};
use crate::options::Options;
use crate::readiness::{is_live, missing, summary};
use crate::regions::region_of;
use crate::shared_tokens::SharedTokens;

/// Name of the server's process.
pub const SERVER: &str = "server";
/// Nodes of a new network, unless the caller says otherwise.
const NODES_DEFAULT: u16 = 3;
/// Nodes that start at the same time.
const STARTING_MAX: usize = 8;
/// Time between two looks at a network that is coming up.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Time that a process has to stop before it is killed. A network that is removed at once needs no
/// orderly end.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
const STOP_TIMEOUT_TEMPORARY: Duration = Duration::from_secs(3);

/// A network of child processes.
pub struct LocalNetwork {
    dir: NetworkDir,
    program: PathBuf,
    nodes: u16,
    request_timeout: Option<Duration>,
    region: Option<Region>,
    client: OnceCell<Client>,
    /// Address of the server.
    address: OnceCell<String>,
    /// The processes that are meant to run, by name.
    children: Mutex<BTreeMap<String, Child>>,
    shared_tokens: Mutex<Option<SharedTokens>>,
    begun: Instant,
    launch_hook: Option<LaunchHook>,
}

/// Changes how the node of a name is started.
pub type LaunchHook = Box<dyn Fn(&str, &mut ChildSpec) + Send + Sync>;

impl LocalNetwork {
    /// Prepares a network, of which nothing runs yet.
    ///
    /// # Errors
    /// The path of this program is unknown.
    pub fn new(dir: NetworkDir, options: &Options) -> Result<Self, OpenError> {
        let program = std::env::current_exe()
            .map_err(OpenError::system("tell which program this is".to_owned()))?;
        let nodes = options.nodes.unwrap_or_else(|| match dir.nodes_before() {
            // At least one in each region.
            0 => u16::try_from(dir.regions.len()).unwrap_or(u16::MAX).max(NODES_DEFAULT),
            before => before,
        });
        Ok(Self {
            nodes,
            request_timeout: options.request_timeout,
            region: options.client_region.clone().or_else(|| dir.regions.first().cloned()),
            dir,
            program,
            client: OnceCell::new(),
            address: OnceCell::new(),
            children: Mutex::default(),
            shared_tokens: Mutex::default(),
            begun: Instant::now(),
            launch_hook: None,
        })
    }

    /// Changes how nodes are started from now on.
    pub fn set_launch_hook(&mut self, hook: LaunchHook) {
        self.launch_hook = Some(hook);
    }

    /// Starts everything, waits until the network is complete, shares its tokens with the user's
    /// other terminals, and says how to use it. Returns the client that watches the network.
    ///
    /// # Errors
    /// The network does not become complete in time.
    pub async fn start(
        &self,
        timeout: Duration,
        console: &mut Console,
    ) -> Result<Client, StartError> {
        let (server, report, client) = self.bring_up(timeout, console).await?;
        self.introduce(server, &report, console).await;
        Ok(client)
    }

    /// Starts everything and waits until the network is complete: all nodes are live and every
    /// group has its voters. Returns the server's address, the network's status, and the client
    /// that watches it.
    ///
    /// # Errors
    /// The network does not become complete in time.
    pub async fn bring_up(
        &self,
        timeout: Duration,
        console: &mut Console,
    ) -> Result<(SocketAddr, Report, Client), StartError> {
        let server = self.launch(SERVER, timeout, console).await?;
        self.progress(console, SERVER, &server.to_string());
        let _ = self.address.set(server.to_string());
        let names: Vec<String> = (1..=self.nodes).map(node_name).collect();
        let mut rest = names.as_slice();
        if self.dir.is_new
            && let Some((first, others)) = names.split_first()
        {
            // The first node to register founds the network. People expect it to be n1.
            let address = self.launch(first, timeout, console).await?;
            self.progress(console, first, &address.to_string());
            rest = others;
        }
        self.launch_all(rest, timeout, console).await?;
        let client = self.connect(Role::Client).await?;
        let _ = self.client.set(client.clone());
        let report = self.complete(&names, timeout).await?;
        self.progress(console, "network", &summary(&report));
        Ok((server, report, client))
    }

    /// Connects another client to this network.
    ///
    /// # Errors
    /// The network does not admit the client.
    pub async fn connect(&self, role: Role) -> Result<Client, ConnectError> {
        self.connect_in(role, self.region.clone()).await
    }

    /// Connects another client to this network, in a region.
    ///
    /// # Errors
    /// The network does not admit the client.
    pub async fn connect_in(
        &self,
        role: Role,
        region: Option<Region>,
    ) -> Result<Client, ConnectError> {
        let servers = vec![self.address().to_owned()];
        let mut builder = Client::builder().servers(servers).role(role).home(self.dir.home());
        if let Some(timeout) = self.request_timeout {
            builder = builder.timeout(timeout);
        }
        if let Some(region) = region {
            builder = builder.region(region);
        }
        builder.connect().await
    }

    /// Starts one process and waits until it is ready. Returns its address.
    ///
    /// # Errors
    /// It does not start or does not become ready; the end of its log is shown first.
    pub async fn launch(
        &self,
        name: &str,
        timeout: Duration,
        console: &mut Console,
    ) -> Result<SocketAddr, StartError> {
        let mut child = self.spawn(name)?;
        match child.ready(timeout).await {
            Ok(address) => {
                self.children.lock().await.insert(name.to_owned(), child);
                Ok(address)
            }
            Err(source) => {
                child.end_of_log().iter().for_each(|line| console.note(line));
                Err(StartError::NotReady { name: name.to_owned(), source })
            }
        }
    }

    /// Starts several processes, a few at a time: all at once, many would keep each other, and
    /// those that already serve, from the processor and the disk.
    async fn launch_all(
        &self,
        names: &[String],
        timeout: Duration,
        console: &mut Console,
    ) -> Result<(), StartError> {
        let (mut rest, mut starting) = (names.iter(), VecDeque::new());
        loop {
            while starting.len() < STARTING_MAX
                && let Some(name) = rest.next()
            {
                starting.push_back((name, self.spawn(name)?));
            }
            let Some((name, mut child)) = starting.pop_front() else { return Ok(()) };
            match child.ready(timeout).await {
                Ok(address) => self.progress(console, name, &address.to_string()),
                Err(source) => {
                    child.end_of_log().iter().for_each(|line| console.note(line));
                    return Err(StartError::NotReady { name: name.clone(), source });
                }
            }
            self.children.lock().await.insert(name.clone(), child);
        }
    }

    fn spawn(&self, name: &str) -> Result<Child, StartError> {
        self.spawn_in(name, &self.dir.data(name))
    }

    /// Starts a process with a data directory of the caller's choice.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn spawn_in(&self, name: &str, data: &Path) -> Result<Child, StartError> {
        let mut arguments: Vec<OsString> = Vec::new();
        if name == SERVER {
            let listen = self.address.get().cloned();
            arguments.extend(["server".into(), "--config".into(), self.dir.config().into()]);
            arguments.push("--listen".into());
            arguments.push(listen.unwrap_or_else(|| self.dir.server.to_string()).into());
        } else {
            let server = self.address.get().cloned().unwrap_or_default();
            arguments.extend(["node".into(), server.into(), "--name".into(), name.into()]);
            arguments.extend(["--data-dir".into(), data.into()]);
            let number = name.strip_prefix('n').and_then(|number| number.parse().ok());
            if let Some(region) = number.and_then(|it| region_of(&self.dir.regions, it)) {
                arguments.extend(["--region".into(), region.as_str().into()]);
            }
        }
        let mut spec = ChildSpec {
            variables: Vec::new(),
            program: self.program.clone(),
            arguments,
            home: self.dir.home(),
            log: self.dir.log(name),
        };
        if let Some(hook) = self.launch_hook.as_ref().filter(|_| name != SERVER) {
            hook(name, &mut spec);
        }
        Child::start(&spec).map_err(|source| StartError::Spawn { name: name.to_owned(), source })
    }

    /// Waits until the network is complete.
    async fn complete(&self, names: &[String], timeout: Duration) -> Result<Report, StartError> {
        let started = Instant::now();
        loop {
            let report = self.report().await;
            let missing = missing(&report, names, self.dir.shards, self.dir.replication);
            let Some(missing) = missing else { return Ok(report) };
            if started.elapsed() > timeout {
                return Err(StartError::Incomplete { seconds: timeout.as_secs(), missing });
            }
            if let Some(notice) = self.notices().await.pop() {
                return Err(StartError::Ended(notice));
            }
            // Asking many nodes costs processor time that they need to start.
            tokio::time::sleep(LOOK_EVERY * (1 + u32::from(self.nodes) / 10)).await;
        }
    }

    /// Waits until a node is live. Returns whether it is.
    pub async fn live(&self, name: &str, timeout: Duration) -> bool {
        let started = Instant::now();
        while started.elapsed() < timeout {
            if is_live(&self.report().await, name) {
                return true;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        false
    }

    /// Returns the status of the network as `dkv status` shows it.
    pub async fn report(&self) -> Report {
        status::report(&self.status().await, self.address())
    }

    async fn status(&self) -> NetworkStatus {
        match self.client() {
            Some(client) => client.status().await,
            None => NetworkStatus {
                server: Err(StatusError::Silent("the network is not up yet".into())),
                servers: Vec::new(),
                nodes: Vec::new(),
                view: None,
                placement: None,
            },
        }
    }

    /// The client that watches this network; `None` until it is up.
    pub fn client(&self) -> Option<&Client> {
        self.client.get()
    }

    /// The server's address; empty until the server runs.
    pub fn address(&self) -> &str {
        self.address.get().map_or("", String::as_str)
    }

    /// The network's directory.
    pub fn dir(&self) -> &NetworkDir {
        &self.dir
    }

    /// The region of this network's clients, unless they name another.
    pub fn region(&self) -> Option<&Region> {
        self.region.as_ref()
    }

    /// The processes that are meant to run, by name.
    pub async fn children(&self) -> MutexGuard<'_, BTreeMap<String, Child>> {
        self.children.lock().await
    }

    /// Names of all processes, running or not: the nodes' and the server's.
    pub fn names(&self) -> Vec<String> {
        (1..=self.nodes).map(node_name).chain([SERVER.to_owned()]).collect()
    }

    /// Takes note of processes that have ended by themselves. Returns a line for each.
    pub async fn notices(&self) -> Vec<String> {
        let mut children = self.children.lock().await;
        let gone: Vec<(String, String)> = children
            .iter_mut()
            .filter_map(|(name, child)| Some((name.clone(), child.ended()?)))
            .collect();
        let tell = |(name, how): (String, String)| {
            children.remove(&name);
            let log = self.dir.log(&name);
            format!("{name} {how}; see {}; start {name} starts it again", log.display())
        };
        gone.into_iter().map(tell).collect()
    }

    fn progress(&self, console: &mut Console, name: &str, what: &str) {
        let seconds = self.begun.elapsed().as_secs_f64();
        console.note(&format!("{seconds:>6.2} s  {name:<8} {what}"));
    }

    /// Shares the tokens, and says where the network is and how another terminal reaches it.
    async fn introduce(&self, server: SocketAddr, report: &Report, console: &mut Console) {
        let mut tokens = SharedTokens::share(&self.dir, server);
        tokens.network = report.network.as_ref().and_then(|id| id.parse().ok());
        let elsewhere = if tokens.is_shared() {
            format!("dkv {server}")
        } else {
            let home = quoted(self.dir.home().as_os_str().as_encoded_bytes());
            format!("DKV_HOME={home} dkv {server}")
        };
        *self.shared_tokens.lock().await = Some(tokens);
        let fate = if self.dir.is_temporary() { "removed at the end" } else { "kept" };
        console.note(&format!("directory            {} ({fate})", self.dir.path().display()));
        console.note(&format!("in another terminal  {elsewhere} status"));
    }

    /// Stops everything, the server last.
    pub async fn stop(&self, console: &mut Console) {
        if let Some(client) = self.client() {
            client.clone().close().await;
        }
        let mut children = std::mem::take(&mut *self.children.lock().await);
        let server = children.remove(SERVER);
        let is_temporary = self.dir.is_temporary();
        let timeout = if is_temporary { STOP_TIMEOUT_TEMPORARY } else { STOP_TIMEOUT };
        let stop = |(name, mut child): (String, Child)| async move {
            (!child.stop(timeout).await).then_some(name)
        };
        let killed = futures::future::join_all(children.into_iter().map(stop)).await;
        let server = futures::future::join_all(server.map(|it| stop((SERVER.into(), it)))).await;
        if !is_temporary {
            for name in killed.into_iter().chain(server).flatten() {
                console.note(&format!("{name} did not stop in time and was killed"));
            }
        }
        // The tokens name the directory, so they go before it does.
        self.shared_tokens.lock().await.take();
    }
}
