//! The processes of a local network, and the client that talks to it.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dkv_api::{
    Client, Error, Level, NetworkStatus, NodeId, NodeState, Pair, ReadOptions, Region,
    ReplicaValue, Role, Value, WriteOptions, Written,
};
use tokio::sync::{Mutex, OnceCell};

use super::child::{Child, Plan};
use super::place::{Place, Shared, node_name};
use super::regions::region_of;
use crate::cli::Local;
use crate::grammar::{Action, Scan, Target};
use crate::problem::{Failure, Problem, Stop};
use crate::screen::Screen;
use crate::status::{self, Report};
use crate::store::{Connection, Session, Store};

/// What the server's process is called.
pub(crate) const SERVER: &str = "server";
/// Nodes of a new network.
const NODES_DEFAULT: u16 = 3;
/// Nodes that start at the same time.
const STARTING_MAX: usize = 8;
/// Time between two looks at a network that is coming up.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A local network.
pub(crate) struct LocalNetwork {
    pub(crate) place: Place,
    program: PathBuf,
    nodes: u16,
    connection: Connection,
    session: OnceCell<Session>,
    /// Where the server listens.
    address: OnceCell<String>,
    /// The processes that are meant to run.
    pub(crate) children: Mutex<BTreeMap<String, Child>>,
    shared: Mutex<Option<Shared>>,
    begun: Instant,
    /// Changes how a node is started.
    outfit: Option<Outfit>,
}

/// Changes how the node of a name is started.
pub(crate) type Outfit = Box<dyn Fn(&str, &mut Plan) + Send + Sync>;

impl LocalNetwork {
    /// A network of which nothing runs yet.
    pub(crate) fn new(place: Place, args: &Local) -> Result<Self, String> {
        let program = std::env::current_exe()
            .map_err(|error| format!("cannot tell which program this is: {error}"))?;
        let connection = Connection {
            servers: Vec::new(),
            role: Role::Client,
            level: args.connect.level,
            timeout: args.connect.timeout,
            region: args.connect.region.clone().or_else(|| place.regions.first().cloned()),
            token_file: None,
            home: Some(place.home()),
        };
        Ok(Self {
            nodes: args.nodes.unwrap_or_else(|| match place.nodes_before() {
                // One in each region, at least.
                0 => u16::try_from(place.regions.len()).unwrap_or(u16::MAX).max(NODES_DEFAULT),
                before => before,
            }),
            place,
            program,
            connection,
            session: OnceCell::new(),
            address: OnceCell::new(),
            children: Mutex::default(),
            shared: Mutex::default(),
            begun: Instant::now(),
            outfit: None,
        })
    }

    /// Starts nodes in another way from now on.
    pub(crate) fn dress(&mut self, outfit: Outfit) {
        self.outfit = Some(outfit);
    }

    /// Starts everything and waits until all nodes are live and every group has its voters.
    ///
    /// # Errors
    /// What went wrong, in one line.
    pub(super) async fn start(&self, args: &Local, screen: &mut Screen) -> Result<(), String> {
        let (server, report) = self.bring_up(args, screen).await?;
        self.introduce(server, &report, screen).await;
        Ok(())
    }

    /// The same, for nobody but this process.
    ///
    /// # Errors
    /// What went wrong, in one line.
    pub(crate) async fn bring_up(
        &self,
        args: &Local,
        screen: &mut Screen,
    ) -> Result<(SocketAddr, Report), String> {
        let server = self.launch(SERVER, args.start_timeout, screen).await?;
        self.progress(screen, SERVER, &server.to_string());
        let _ = self.address.set(server.to_string());
        let names: Vec<String> = (1..=self.nodes).map(node_name).collect();
        let mut rest = names.as_slice();
        if self.place.is_new
            && let Some((first, others)) = names.split_first()
        {
            // The first to register founds the network; let it be the one that people expect.
            let address = self.launch(first, args.start_timeout, screen).await?;
            self.progress(screen, first, &address.to_string());
            rest = others;
        }
        self.launch_all(rest, args.start_timeout, screen).await?;
        let connection =
            Connection { servers: vec![server.to_string()], ..self.connection.clone() };
        let session = Session::connect(&connection).await.map_err(|error| error.to_string())?;
        let _ = self.session.set(session);
        let report = self.settled(&names, args.start_timeout).await?;
        self.progress(screen, "network", &greeting(&report));
        Ok((server, report))
    }

    /// Another client of this network.
    ///
    /// # Errors
    /// What went wrong, in one line.
    pub(crate) async fn connect(&self, role: Role) -> Result<Client, String> {
        self.connect_in(role, self.connection.region.clone()).await
    }

    /// Another client of this network, in a region.
    ///
    /// # Errors
    /// What went wrong, in one line.
    pub(crate) async fn connect_in(
        &self,
        role: Role,
        region: Option<Region>,
    ) -> Result<Client, String> {
        let servers = vec![self.address().to_owned()];
        let connection = Connection { servers, role, region, ..self.connection.clone() };
        let session = Session::connect(&connection).await.map_err(|error| error.to_string())?;
        Ok(session.client)
    }

    /// Starts one process and waits until it is ready.
    pub(crate) async fn launch(
        &self,
        name: &str,
        patience: Duration,
        screen: &mut Screen,
    ) -> Result<SocketAddr, String> {
        let mut child = self.spawn(name)?;
        match child.ready(patience).await {
            Ok(address) => {
                self.children.lock().await.insert(name.to_owned(), child);
                Ok(address)
            }
            Err(problem) => {
                child.end_of_log().iter().for_each(|line| screen.note(line));
                Err(format!("{name}: {problem}"))
            }
        }
    }

    /// Starts several, a few at a time side by side: all at once, many would keep each other, and
    /// those that serve already, from the processor and the disk.
    async fn launch_all(
        &self,
        names: &[String],
        patience: Duration,
        screen: &mut Screen,
    ) -> Result<(), String> {
        let (mut rest, mut starting) = (names.iter(), VecDeque::new());
        loop {
            while starting.len() < STARTING_MAX
                && let Some(name) = rest.next()
            {
                starting.push_back((name, self.spawn(name)?));
            }
            let Some((name, mut child)) = starting.pop_front() else { return Ok(()) };
            match child.ready(patience).await {
                Ok(address) => self.progress(screen, name, &address.to_string()),
                Err(problem) => {
                    child.end_of_log().iter().for_each(|line| screen.note(line));
                    return Err(format!("{name}: {problem}"));
                }
            }
            self.children.lock().await.insert(name.clone(), child);
        }
    }

    fn spawn(&self, name: &str) -> Result<Child, String> {
        self.spawn_in(name, &self.place.data(name))
    }

    /// Starts a process with a data directory of the caller's choice.
    pub(crate) fn spawn_in(&self, name: &str, data: &std::path::Path) -> Result<Child, String> {
        let mut arguments: Vec<std::ffi::OsString> = Vec::new();
        if name == SERVER {
            let listen = self.address.get().cloned();
            arguments.extend(["server".into(), "--config".into(), self.place.config().into()]);
            arguments.push("--listen".into());
            arguments.push(listen.unwrap_or_else(|| self.place.server.to_string()).into());
        } else {
            let server = self.address.get().cloned().unwrap_or_default();
            arguments.extend(["node".into(), server.into(), "--name".into(), name.into()]);
            arguments.extend(["--data-dir".into(), data.into()]);
            let number = name.strip_prefix('n').and_then(|number| number.parse().ok());
            if let Some(region) = number.and_then(|it| region_of(&self.place.regions, it)) {
                arguments.extend(["--region".into(), region.as_str().into()]);
            }
        }
        let mut plan = Plan {
            variables: Vec::new(),
            program: self.program.clone(),
            arguments,
            home: self.place.home(),
            log: self.place.log(name),
        };
        if let Some(outfit) = self.outfit.as_ref().filter(|_| name != SERVER) {
            outfit(name, &mut plan);
        }
        Child::start(&plan).map_err(|error| format!("cannot start {name}: {error}"))
    }

    /// Waits until those nodes are live and every group has its voters.
    async fn settled(&self, names: &[String], patience: Duration) -> Result<Report, String> {
        let started = Instant::now();
        loop {
            let report = self.report().await;
            let Some(missing) =
                unsettled(&report, names, self.place.shards, self.place.replication)
            else {
                return Ok(report);
            };
            if started.elapsed() > patience {
                return Err(format!(
                    "the network did not come up in {} s: {missing}; see the logs with --dir",
                    patience.as_secs()
                ));
            }
            if let Some(notice) = self.notices().await.pop() {
                return Err(notice);
            }
            // To ask many nodes is work that they need the processor for.
            tokio::time::sleep(LOOK_EVERY * (1 + u32::from(self.nodes) / 10)).await;
        }
    }

    /// Waits until one node is live again.
    pub(crate) async fn live(&self, name: &str, patience: Duration) -> bool {
        let started = Instant::now();
        while started.elapsed() < patience {
            let report = self.report().await;
            if report
                .nodes
                .iter()
                .any(|node| node.name == name && node.reachable && node.state == NodeState::Live)
            {
                return true;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        false
    }

    /// How the network is now.
    pub(crate) async fn report(&self) -> Report {
        status::report(&self.status().await, self.address())
    }

    pub(super) fn session(&self) -> Option<&Session> {
        self.session.get()
    }

    fn progress(&self, screen: &mut Screen, name: &str, what: &str) {
        let seconds = self.begun.elapsed().as_secs_f64();
        screen.note(&format!("{seconds:>6.2} s  {name:<8} {what}"));
    }

    /// Tells how to use it.
    async fn introduce(&self, server: SocketAddr, report: &Report, screen: &mut Screen) {
        let mut shared = self.place.share(server);
        shared.network = report.network.as_ref().and_then(|id| id.parse().ok());
        let program = "dkv";
        let elsewhere = if shared.is_shared() {
            format!("{program} {server}")
        } else {
            let home =
                crate::grammar::quote::quoted(self.place.home().as_os_str().as_encoded_bytes());
            format!("DKV_HOME={home} {program} {server}")
        };
        *self.shared.lock().await = Some(shared);
        let fate = if self.place.is_temporary() { "removed at the end" } else { "kept" };
        screen.note(&format!("directory            {} ({fate})", self.place.path().display()));
        screen.note(&format!("in another terminal  {elsewhere} status"));
    }

    /// Stops everything, the server last.
    pub(crate) async fn stop(&self, screen: &mut Screen) {
        if let Some(session) = self.session.get() {
            session.close().await;
        }
        let mut children = std::mem::take(&mut *self.children.lock().await);
        let server = children.remove(SERVER);
        // What is removed in a moment needs no long farewell.
        let patience = Duration::from_secs(if self.place.is_temporary() { 3 } else { 10 });
        let stop = |(name, mut child): (String, Child)| async move {
            (!child.stop(patience).await).then_some(name)
        };
        let killed = futures::future::join_all(children.into_iter().map(stop)).await;
        let server = futures::future::join_all(server.map(|it| stop((SERVER.into(), it)))).await;
        if !self.place.is_temporary() {
            for name in killed.into_iter().chain(server).flatten() {
                screen.note(&format!("{name} did not stop in time and was killed"));
            }
        }
        // Before the directory goes.
        self.shared.lock().await.take();
    }
}

fn greeting(report: &Report) -> String {
    let shards = report.groups.iter().filter(|group| group.group != 0).count() as u64;
    let nodes = report.nodes.len() as u64;
    let coordinator = report.coordinator.as_ref().map_or("nobody", |it| it.name.as_str());
    let may_fail = match report.may_fail {
        Some(0) | None => "no node may fail".into(),
        Some(count) => format!(
            "tolerates {count} {}",
            crate::human::plural(count.into(), "failure", "failures")
        ),
    };
    format!(
        "{nodes} {} live, {shards} {}, coordinator {coordinator}, {may_fail}",
        crate::human::plural(nodes, "node", "nodes"),
        crate::human::plural(shards, "shard", "shards"),
    )
}

/// What is missing until everything is as it should be.
fn unsettled(report: &Report, names: &[String], shards: u32, replication: u32) -> Option<String> {
    let live = |name: &String| {
        report
            .nodes
            .iter()
            .any(|node| node.name == *name && node.reachable && node.state == NodeState::Live)
    };
    if let Some(name) = names.iter().find(|name| !live(name)) {
        return Some(format!("{name} is not live"));
    }
    let known = report.groups.iter().filter(|group| group.group != 0).count();
    if known < shards as usize {
        return Some(format!("{known} of {shards} shards are there"));
    }
    let voters = names.len().min(replication as usize);
    for group in &report.groups {
        let name = if group.group == 0 {
            "the control group".into()
        } else {
            format!("shard {}", group.group)
        };
        if group.primary.is_none() {
            return Some(format!("{name} has no leader"));
        }
        if group.voters.len() < voters {
            return Some(format!("{name} has {} of {voters} voters", group.voters.len()));
        }
    }
    match &report.coordinator {
        Some(coordinator) if coordinator.confirmed => None,
        _ => Some("the server has not confirmed a coordinator".into()),
    }
}

/// What a request meets before there is a client.
fn not_up<T>() -> Result<T, Error> {
    Err(Error::Unavailable("the network is not up yet".into()))
}

impl Store for LocalNetwork {
    fn level_given(&self) -> Option<Level> {
        self.connection.level
    }

    fn level(&self) -> Level {
        self.session().map_or(Level::Strong, |session| session.level())
    }

    fn node_names(&self, nodes: &[NodeId]) -> Vec<String> {
        self.session().map_or_else(Vec::new, |session| session.node_names(nodes))
    }

    async fn read(&self, key: &[u8], options: ReadOptions) -> Result<Value, Error> {
        match self.session() {
            Some(session) => session.read(key, options).await,
            None => not_up(),
        }
    }

    async fn write(
        &self,
        key: &[u8],
        value: Bytes,
        options: WriteOptions,
    ) -> Result<Written, Error> {
        match self.session() {
            Some(session) => session.write(key, value, options).await,
            None => not_up(),
        }
    }

    async fn delete(&self, key: &[u8], options: WriteOptions) -> Result<Written, Error> {
        match self.session() {
            Some(session) => session.delete(key, options).await,
            None => not_up(),
        }
    }

    async fn scan(
        &self,
        scan: &Scan,
        say: impl FnMut(&Pair) -> io::Result<()>,
    ) -> io::Result<Result<(), Error>> {
        match self.session() {
            Some(session) => session.scan(scan, say).await,
            None => Ok(not_up()),
        }
    }

    async fn search(&self, key: &[u8]) -> Result<Vec<ReplicaValue>, Error> {
        match self.session() {
            Some(session) => session.search(key).await,
            None => not_up(),
        }
    }

    async fn show_all(
        &self,
        node: &str,
        say: impl FnMut(&Pair) -> io::Result<()>,
    ) -> io::Result<Result<(), Error>> {
        match self.session() {
            Some(session) => session.show_all(node, say).await,
            None => Ok(not_up()),
        }
    }

    async fn client(&self, role: Role) -> Result<Client, Problem> {
        match self.session() {
            Some(session) => session.client(role).await,
            None => Err(Problem::new(Failure::Unavailable, "the network is not up yet")),
        }
    }

    async fn status(&self) -> NetworkStatus {
        match self.session() {
            Some(session) => session.status().await,
            None => NetworkStatus {
                server: Err("the network is not up yet".into()),
                nodes: Vec::new(),
                view: None,
                placement: None,
            },
        }
    }

    fn address(&self) -> &str {
        self.address.get().map_or("", String::as_str)
    }

    async fn names(&self) -> Vec<String> {
        (1..=self.nodes).map(node_name).chain([SERVER.to_owned()]).collect()
    }

    async fn notices(&self) -> Vec<String> {
        let mut children = self.children.lock().await;
        let gone: Vec<(String, String)> = children
            .iter_mut()
            .filter_map(|(name, child)| Some((name.clone(), child.ended()?)))
            .collect();
        let tell = |(name, how): (String, String)| {
            children.remove(&name);
            let log = self.place.log(&name);
            format!("{name} {how}; see {}; start {name} starts it again", log.display())
        };
        gone.into_iter().map(tell).collect()
    }

    fn is_local(&self) -> bool {
        true
    }

    async fn process(
        &self,
        action: Action,
        target: &Target,
        screen: &mut Screen,
    ) -> Result<(), Stop> {
        super::actions::act(self, action, target, screen).await
    }
}
