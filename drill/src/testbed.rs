//! The testbed of a drill: a network, clients at work on it, and a record of events.

use std::time::{Duration, Instant};

use dkv_api::{Client, NetworkStatus, Role, StatusError};
use dkv_check::History;
use dkv_console::Console;
use dkv_console::units::number;
use dkv_gateway::status::{self, Report};
use dkv_local::{LocalNetwork, NetworkDir, Options, SERVER, node_name};
use nix::sys::signal::Signal;

use crate::environment::Environment;
use crate::error::{DrillError, Obstacle, Violation};
use crate::fault::Fault;
use crate::workload::{Followed, Plan, Tenancies, Work, Workload};

/// Time limit for a process to start or become live, and for the network to recover.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections that the clients share.
const CONNECTIONS: usize = 2;
/// Keys that clients share.
const KEYS: u64 = 8;
const VALUE_BYTES: usize = 100;
/// Sizes for a drill that fills a disk: a node notices only when it needs more space.
const SMALL_LOG_BYTES: u64 = 16 * 1024 * 1024;
const LARGE_VALUE_BYTES: usize = 8000;
const PAUSE: Duration = Duration::from_millis(4);
/// Time limit of an operation, unless the user sets one.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(2);

/// An event, and its time by the clock of the history.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) at_ns: u64,
    pub(crate) text: String,
}

/// A network with clients at work.
pub(crate) struct Testbed {
    /// The temporary network, if the drill has one.
    pub(crate) local: Option<LocalNetwork>,
    /// The environment of its nodes.
    pub(crate) environment: Environment,
    clients: Vec<Client>,
    workload: Workload,
    /// The events so far.
    pub(crate) events: Vec<Event>,
}

impl Testbed {
    /// Starts a temporary network, prepared for a fault, and clients at work on it.
    ///
    /// # Errors
    /// The network does not come up.
    pub(crate) async fn local(
        fault: Fault,
        nodes: u16,
        timeout: Option<Duration>,
        console: &mut Console,
    ) -> Result<Self, DrillError> {
        let environment = Environment::prepare(fault, nodes).await?;
        let mut options = Options { request_timeout: timeout, ..Options::temporary(nodes) };
        if fault == Fault::DiskFull {
            options.log_bytes_max = Some(SMALL_LOG_BYTES);
        }
        let mut network = LocalNetwork::new(NetworkDir::open(&options)?, &options)?;
        if let Some(hook) = environment.launch_hook(network.dir().path()) {
            network.set_launch_hook(hook);
        }
        if let Err(error) = network.bring_up(options.start_timeout, console).await {
            network.stop(console).await;
            return Err(error.into());
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

    /// Starts clients at work on an existing network.
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

    /// Returns the temporary network.
    pub(crate) fn network(&self) -> Result<&LocalNetwork, Obstacle> {
        self.local.as_ref().ok_or(Obstacle::NoNetwork)
    }

    /// Returns the time since the clients started, in nanoseconds.
    pub(crate) fn now_ns(&self) -> u64 {
        self.workload.now_ns()
    }

    /// Records an event and shows it.
    pub(crate) fn record(&mut self, text: &str, console: &mut Console) {
        let at_ns = self.now_ns();
        console.note(&format!("{:>6.2} s  {text}", at_ns as f64 / 1e9));
        self.events.push(Event { at_ns, text: text.to_owned() });
    }

    /// Lets the clients work for a while, and shows their progress.
    pub(crate) async fn work_for(&self, time: Duration, console: &mut Console) {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(PROGRESS)).await;
            console.note(&format!(
                "{:>6.2} s    {} operations, {} writes acknowledged",
                self.now_ns() as f64 / 1e9,
                number(self.workload.done() as u64),
                number(self.workload.written()),
            ));
        }
    }

    /// Returns the name of the coordinator.
    pub(crate) async fn coordinator(&self) -> Result<String, Violation> {
        let report = self.report().await;
        let coordinator = report.coordinator.filter(|it| it.confirmed);
        coordinator.map(|it| it.name).ok_or(Violation::NoCoordinator)
    }

    /// Returns the status of the network.
    pub(crate) async fn report(&self) -> Report {
        status::report(&self.status().await, "")
    }

    async fn status(&self) -> NetworkStatus {
        match self.clients.first() {
            Some(client) => client.status().await,
            None => NetworkStatus {
                server: Err(StatusError::Silent(String::new())),
                servers: Vec::new(),
                nodes: Vec::new(),
                view: None,
                placement: None,
            },
        }
    }

    /// Returns the process id of a node.
    pub(crate) async fn process(&self, name: &str) -> Result<u32, DrillError> {
        let children = self.network()?.children().await;
        let id = children.get(name).and_then(|child| child.id());
        Ok(id.ok_or_else(|| Violation::NotRunning(name.to_owned()))?)
    }

    /// Sends a signal to a node.
    pub(crate) async fn signal(&self, name: &str, signal: Signal) -> Result<(), DrillError> {
        let mut children = self.network()?.children().await;
        let child = children.get_mut(name).ok_or_else(|| Violation::NotRunning(name.to_owned()))?;
        Ok(child.signal(signal)?)
    }

    /// Kills a process and waits until it has ended.
    pub(crate) async fn kill(&self, name: &str) -> Result<(), DrillError> {
        let child = self.network()?.children().await.remove(name);
        let mut child = child.ok_or_else(|| Violation::NotRunning(name.to_owned()))?;
        Ok(child.kill().await.map_err(Obstacle::file(format!("cannot kill {name}")))?)
    }

    /// Starts a process again.
    pub(crate) async fn start(&self, name: &str, console: &mut Console) -> Result<(), DrillError> {
        self.network()?.launch(name, RECOVERY_TIMEOUT, console).await?;
        Ok(())
    }

    /// Waits until a node is live.
    pub(crate) async fn wait_live(&self, name: &str) -> Result<(), DrillError> {
        if name == SERVER || self.network()?.live(name, RECOVERY_TIMEOUT).await {
            return Ok(());
        }
        let (name, seconds) = (name.to_owned(), RECOVERY_TIMEOUT.as_secs());
        Err(Violation::NotLive { name, seconds }.into())
    }

    /// Returns the nodes that do not answer.
    pub(crate) async fn unreachable_nodes(&self) -> Vec<String> {
        let nodes = self.report().await.nodes.into_iter();
        nodes.filter(|node| !node.reachable).map(|node| node.name).collect()
    }

    /// Waits until every group has a leader and every node answers, except those that did not
    /// answer before.
    pub(crate) async fn wait_recovered(
        &self,
        unreachable_before: &[String],
    ) -> Result<(), Violation> {
        let begun = Instant::now();
        loop {
            let status = self.status().await;
            let Some(missing) = missing(&status, unreachable_before) else { return Ok(()) };
            if begun.elapsed() > RECOVERY_TIMEOUT {
                let seconds = RECOVERY_TIMEOUT.as_secs();
                return Err(Violation::NotRecovered { seconds, missing });
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Returns the names of the first nodes.
    pub(crate) fn names(&self, nodes: u16) -> Vec<String> {
        (1..=nodes).map(node_name).collect()
    }

    /// Stops the clients, reads everything back, and waits until all replicas are equal.
    pub(crate) async fn finish(self, console: &mut Console) -> FinishedRun {
        let end_ns = self.now_ns();
        console.note("          reading everything back");
        let Self { local, environment, clients, workload, events } = self;
        let Work { history, followed, tenancies, mut problems } = match clients.first() {
            Some(client) => workload.finish(client).await,
            None => Work::default(),
        };
        if let (Some(network), Some(client)) = (&local, clients.first()) {
            problems.extend(wait_equal(client).await.err().map(|broken| broken.to_string()));
            problems.extend(network.notices().await);
        }
        FinishedRun {
            history,
            followed,
            tenancies,
            events,
            end_ns,
            problems,
            local,
            clients,
            _environment: environment,
        }
    }
}

/// Returns the plan of the clients.
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

/// Returns what the network lacks, apart from nodes that did not answer before; `None` once it has
/// recovered.
pub(crate) fn missing(status: &NetworkStatus, unreachable_before: &[String]) -> Option<String> {
    // A removed node is no longer part of the view.
    let Some(view) = &status.view else {
        return Some("no node reports the state of the network".into());
    };
    for (node, answer) in &status.nodes {
        let expected = view.node(node.id).is_some() && !unreachable_before.contains(&node.name);
        if let (true, Err(why)) = (expected, answer) {
            return Some(format!("{} does not respond: {why}", node.name));
        }
    }
    let report = status::report(status, "");
    if report.groups.is_empty() {
        return Some("no node reports the state of the shards".into());
    }
    let led = |group: &status::Group| group.primary.is_some();
    let headless = report.groups.iter().find(|group| !led(group))?;
    Some(format!("{} has no leader", status::group_name(headless.group)))
}

/// Waits until all replicas of each group have the same state.
async fn wait_equal(client: &Client) -> Result<(), Violation> {
    let begun = Instant::now();
    loop {
        match differing(&client.status().await) {
            Ok(()) => return Ok(()),
            Err(Some(broken)) => return Err(broken),
            Err(None) if begun.elapsed() > RECOVERY_TIMEOUT => {
                return Err(Violation::Behind { seconds: RECOVERY_TIMEOUT.as_secs() });
            }
            Err(None) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// What a drill leaves when the clients have stopped.
pub(crate) struct FinishedRun {
    pub(crate) history: History,
    pub(crate) followed: Followed,
    pub(crate) tenancies: Tenancies,
    pub(crate) events: Vec<Event>,
    /// When the clients stopped.
    pub(crate) end_ns: u64,
    /// Problems besides those in the history.
    pub(crate) problems: Vec<String>,
    pub(crate) local: Option<LocalNetwork>,
    pub(crate) clients: Vec<Client>,
    /// Kept until the network has been stopped.
    pub(crate) _environment: Environment,
}

/// Compares the replicas. The error is `None` while they may still become equal.
fn differing(status: &NetworkStatus) -> Result<(), Option<Violation>> {
    let mut seen = std::collections::BTreeMap::new();
    // A node that has only registered is not part of the network yet.
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
                let (node, group) = (info.name.clone(), group.group.0);
                return Err(Some(Violation::Diverged { node, group }));
            }
        }
    }
    Ok(())
}
