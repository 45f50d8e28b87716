//! Where a drill takes place: a network, clients at work on it, and what happens when.

use std::time::{Duration, Instant};

use dkv_api::{Client, NetworkStatus, Role};
use dkv_check::History;
use dkv_console::console::Screen;
use dkv_console::units::number;
use dkv_gateway::status::{self, Report};
use dkv_local::{LocalNetwork, NetworkDir, Options, SERVER, node_name};
use nix::sys::signal::Signal;

use crate::environment::Environment;
use crate::fault::Fault;
use crate::workload::{Plan, Workload};

/// Time that a process has to start or to be live, and the network to be whole.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections that the clients work over.
const CONNECTIONS: usize = 2;
/// Keys that clients share.
const KEYS: u64 = 8;
const VALUE_BYTES: usize = 100;
/// Of a network whose disk is to be full: a node notices when it needs more room than it has.
const SMALL_LOG_BYTES: u64 = 16 * 1024 * 1024;
const LARGE_VALUE_BYTES: usize = 8000;
const PAUSE: Duration = Duration::from_millis(4);
/// Time that an operation may take, unless told otherwise.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(2);

/// Something that happened, and when, by the history's clock.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) at_ns: u64,
    pub(crate) text: String,
}

/// A network with clients at work.
pub(crate) struct Testbed {
    /// The processes, if they are ours.
    pub(crate) local: Option<LocalNetwork>,
    /// What was done to the way in which nodes are started.
    pub(crate) environment: Environment,
    clients: Vec<Client>,
    workload: Workload,
    /// What happened so far.
    pub(crate) events: Vec<Event>,
}

impl Testbed {
    /// A network of its own, as a fault needs it, and clients at work on it.
    pub(crate) async fn local(
        fault: Fault,
        nodes: u16,
        timeout: Option<Duration>,
        screen: &mut Screen,
    ) -> Result<Self, String> {
        let environment = Environment::prepare(fault, nodes).await?;
        let mut options = Options { request_timeout: timeout, ..Options::temporary(nodes) };
        if fault == Fault::DiskFull {
            options.log_bytes_max = Some(SMALL_LOG_BYTES);
        }
        let mut network = LocalNetwork::new(NetworkDir::open(&options)?, &options)?;
        if let Some(hook) = environment.launch_hook(network.dir().path()) {
            network.set_launch_hook(hook);
        }
        if let Err(problem) = network.bring_up(options.start_timeout, screen).await {
            network.stop(screen).await;
            return Err(environment.explained(problem));
        }
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(network.connect(Role::Client).await?);
        }
        let is_full = fault == Fault::DiskFull;
        let value_bytes = if is_full { LARGE_VALUE_BYTES } else { VALUE_BYTES };
        let plan = plan(String::new(), value_bytes, timeout);
        Ok(Self::with(Some(network), environment, clients, plan))
    }

    /// Clients at work on a network of somebody else's.
    pub(crate) fn remote(clients: Vec<Client>, prefix: String, timeout: Option<Duration>) -> Self {
        Self::with(None, Environment::default(), clients, plan(prefix, VALUE_BYTES, timeout))
    }

    fn with(
        local: Option<LocalNetwork>,
        environment: Environment,
        clients: Vec<Client>,
        plan: Plan,
    ) -> Self {
        let workload = Workload::start(&clients, plan);
        Self { local, environment, clients, workload, events: Vec::new() }
    }

    /// The network's own processes.
    pub(crate) fn network(&self) -> Result<&LocalNetwork, String> {
        self.local.as_ref().ok_or_else(|| "the processes are not ours".to_owned())
    }

    /// Time since the clients began.
    pub(crate) fn now_ns(&self) -> u64 {
        self.workload.now_ns()
    }

    /// Notes that something happened, and tells.
    pub(crate) fn tell(&mut self, text: &str, screen: &mut Screen) {
        let at_ns = self.now_ns();
        screen.note(&format!("{:>6.2} s  {text}", at_ns as f64 / 1e9));
        self.events.push(Event { at_ns, text: text.to_owned() });
    }

    /// Lets the clients work for a while, and tells how they get on.
    pub(crate) async fn hold(&self, time: Duration, screen: &mut Screen) {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(PROGRESS)).await;
            screen.note(&format!(
                "{:>6.2} s    {} operations, {} writes acknowledged",
                self.now_ns() as f64 / 1e9,
                number(self.workload.done() as u64),
                number(self.workload.written()),
            ));
        }
    }

    /// The coordinator's name.
    pub(crate) async fn coordinator(&self) -> Result<String, String> {
        let report = self.report().await;
        let coordinator = report.coordinator.filter(|it| it.confirmed);
        coordinator.map(|it| it.name).ok_or_else(|| "there is no coordinator".to_owned())
    }

    /// How the network is.
    pub(crate) async fn report(&self) -> Report {
        status::report(&self.status().await, "")
    }

    async fn status(&self) -> NetworkStatus {
        match self.clients.first() {
            Some(client) => client.status().await,
            None => NetworkStatus {
                server: Err(String::new()),
                nodes: Vec::new(),
                view: None,
                placement: None,
            },
        }
    }

    /// Process id of a node.
    pub(crate) async fn process(&self, name: &str) -> Result<u32, String> {
        let children = self.network()?.children().await;
        let id = children.get(name).and_then(|child| child.id());
        id.ok_or_else(|| format!("{name} does not run"))
    }

    /// Sends a signal to a node.
    pub(crate) async fn signal(&self, name: &str, signal: Signal) -> Result<(), String> {
        let mut children = self.network()?.children().await;
        let child = children.get_mut(name).ok_or_else(|| format!("{name} does not run"))?;
        child.signal(signal)
    }

    /// Kills a process and waits until it is gone.
    pub(crate) async fn kill(&self, name: &str) -> Result<(), String> {
        let child = self.network()?.children().await.remove(name);
        child.ok_or_else(|| format!("{name} does not run"))?.kill().await
    }

    /// Starts a process that does not run.
    pub(crate) async fn start(&self, name: &str, screen: &mut Screen) -> Result<(), String> {
        self.network()?.launch(name, PATIENCE, screen).await.map(drop)
    }

    /// Waits until a node is live.
    pub(crate) async fn live(&self, name: &str) -> Result<(), String> {
        if name == SERVER || self.network()?.live(name, PATIENCE).await {
            return Ok(());
        }
        Err(format!("{name} is not live after {} s", PATIENCE.as_secs()))
    }

    /// Nodes that do not answer.
    pub(crate) async fn absent(&self) -> Vec<String> {
        let nodes = self.report().await.nodes.into_iter();
        nodes.filter(|node| !node.reachable).map(|node| node.name).collect()
    }

    /// Waits until every node of the network answers, but for those that did not before, and every
    /// group has a leader.
    pub(crate) async fn whole(&self, absent_before: &[String]) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            let status = self.status().await;
            let Some(missing) = missing(&status, absent_before) else { return Ok(()) };
            if begun.elapsed() > PATIENCE {
                return Err(format!("not recovered after {} s: {missing}", PATIENCE.as_secs()));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Names of the first nodes.
    pub(crate) fn names(&self, nodes: u16) -> Vec<String> {
        (1..=nodes).map(node_name).collect()
    }

    /// Ends the work, waits until all replicas are equal, and tells what the clients saw.
    pub(crate) async fn finish(self, screen: &mut Screen) -> FinishedRun {
        let end_ns = self.now_ns();
        screen.note("          reading everything back");
        let Self { local, environment, clients, workload, events } = self;
        let mut problems = Vec::new();
        let history = match clients.first() {
            Some(client) => workload.finish(client).await,
            None => History::default(),
        };
        if let (Some(network), Some(client)) = (&local, clients.first()) {
            problems.extend(equal(client).await.err());
            problems.extend(network.notices().await);
        }
        FinishedRun { history, events, end_ns, problems, local, clients, _environment: environment }
    }
}

/// What the clients do.
fn plan(prefix: String, value_bytes: usize, timeout: Option<Duration>) -> Plan {
    Plan {
        prefix,
        keys: KEYS,
        value_bytes,
        pause: PAUSE,
        timeout: timeout.unwrap_or(TIMEOUT),
        seed: u64::from(std::process::id()),
    }
}

/// What a network lacks that is to be whole, apart from nodes that were absent before.
pub(crate) fn missing(status: &NetworkStatus, absent_before: &[String]) -> Option<String> {
    // A node that was removed is no part of the view any more.
    let Some(view) = &status.view else { return Some("nobody tells how the network is".into()) };
    for (node, answer) in &status.nodes {
        let expected = view.node(node.id).is_some() && !absent_before.contains(&node.name);
        if let (true, Err(why)) = (expected, answer) {
            return Some(format!("{} does not respond: {why}", node.name));
        }
    }
    let report = status::report(status, "");
    if report.groups.is_empty() {
        return Some("nobody tells how the shards are".into());
    }
    let led = |group: &status::Group| group.primary.is_some();
    let headless = report.groups.iter().find(|group| !led(group))?;
    Some(format!("{} has no leader", status::group_name(headless.group)))
}

/// Waits until the replicas of each group have the same state.
async fn equal(client: &Client) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        match differing(&client.status().await) {
            Ok(()) => return Ok(()),
            Err(Some(broken)) => return Err(broken),
            Err(None) if begun.elapsed() > PATIENCE => {
                let waited = PATIENCE.as_secs();
                return Err(format!("the replicas are not at the same entry after {waited} s"));
            }
            Err(None) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// What is left of a stage when the work is over.
pub(crate) struct FinishedRun {
    pub(crate) history: History,
    pub(crate) events: Vec<Event>,
    /// When the clients stopped.
    pub(crate) end_ns: u64,
    /// What is wrong besides what the history says.
    pub(crate) problems: Vec<String>,
    pub(crate) local: Option<LocalNetwork>,
    pub(crate) clients: Vec<Client>,
    /// Kept until the network is ended.
    pub(crate) _environment: Environment,
}

/// Nothing if all replicas are equal; what is wrong if that cannot become better.
fn differing(status: &NetworkStatus) -> Result<(), Option<String>> {
    let mut seen = std::collections::BTreeMap::new();
    // Who has merely registered is no node of the network.
    let is_node = |id| status.view.as_ref().is_none_or(|view| view.node(id).is_some());
    for (info, node) in status.nodes.iter().filter(|(info, _)| is_node(info.id)) {
        let node = node.as_ref().map_err(|_| None)?;
        for group in &node.groups {
            let state = (group.applied_index, group.state_hash);
            let (index, hash) = *seen.entry(group.group).or_insert(state);
            if index != group.applied_index {
                return Err(None);
            }
            if hash != group.state_hash {
                let (name, group) = (&info.name, group.group);
                return Err(Some(format!("{name} has another state of group {group}")));
            }
        }
    }
    Ok(())
}
