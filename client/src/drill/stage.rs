//! Where a drill takes place: a network, clients at work on it, and what happens when.

use std::time::{Duration, Instant};

use dkv_api::{Client, NetworkStatus, Role};
use dkv_check::History;
use nix::sys::signal::Signal;

use super::outfit::Outfits;
use super::workload::{Plan, Workload};
use crate::cli::{Connect, Fault, Local};
use crate::local::network::{LocalNetwork, SERVER};
use crate::local::place::{Place, node_name};
use crate::status::{self, Report};
use crate::store::Store;
use dkv_console::console::Screen;
use dkv_console::units::number;

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
pub(super) struct Event {
    pub(super) at_ns: u64,
    pub(super) text: String,
}

/// A network with clients at work.
pub(super) struct Stage {
    /// The processes, if they are ours.
    pub(super) local: Option<LocalNetwork>,
    /// What was done to the way in which nodes are started.
    pub(super) outfits: Outfits,
    clients: Vec<Client>,
    workload: Workload,
    /// What happened so far.
    pub(super) events: Vec<Event>,
}

impl Stage {
    /// A network of its own, as a fault needs it, and clients at work on it.
    pub(super) async fn local(
        fault: Fault,
        nodes: u16,
        connect: &Connect,
        screen: &mut Screen,
    ) -> Result<Self, String> {
        let outfits = Outfits::prepare(fault, nodes).await?;
        let mut args = Local::temporary(nodes, connect.clone());
        if fault == Fault::DiskFull {
            args.log_bytes_max = Some(SMALL_LOG_BYTES);
        }
        let mut network = LocalNetwork::new(Place::open(&args)?, &args)?;
        if let Some(outfit) = outfits.outfit(network.place.path()) {
            network.dress(outfit);
        }
        if let Err(problem) = network.bring_up(&args, screen).await {
            network.stop(screen).await;
            return Err(outfits.explained(problem));
        }
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(network.connect(Role::Client).await?);
        }
        let is_full = fault == Fault::DiskFull;
        let value_bytes = if is_full { LARGE_VALUE_BYTES } else { VALUE_BYTES };
        let plan = plan(String::new(), value_bytes, connect);
        Ok(Self::with(Some(network), outfits, clients, plan))
    }

    /// Clients at work on a network of somebody else's.
    pub(super) fn remote(clients: Vec<Client>, prefix: String, connect: &Connect) -> Self {
        Self::with(None, Outfits::default(), clients, plan(prefix, VALUE_BYTES, connect))
    }

    fn with(
        local: Option<LocalNetwork>,
        outfits: Outfits,
        clients: Vec<Client>,
        plan: Plan,
    ) -> Self {
        let workload = Workload::start(&clients, plan);
        Self { local, outfits, clients, workload, events: Vec::new() }
    }

    /// The network's own processes.
    pub(super) fn network(&self) -> Result<&LocalNetwork, String> {
        self.local.as_ref().ok_or_else(|| "the processes are not ours".to_owned())
    }

    /// Time since the clients began.
    pub(super) fn now_ns(&self) -> u64 {
        self.workload.now_ns()
    }

    /// Notes that something happened, and tells.
    pub(super) fn tell(&mut self, text: &str, screen: &mut Screen) {
        let at_ns = self.now_ns();
        screen.note(&format!("{:>6.2} s  {text}", at_ns as f64 / 1e9));
        self.events.push(Event { at_ns, text: text.to_owned() });
    }

    /// Lets the clients work for a while, and tells how they get on.
    pub(super) async fn hold(&self, time: Duration, screen: &mut Screen) {
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
    pub(super) async fn coordinator(&self) -> Result<String, String> {
        let report = self.report().await;
        let coordinator = report.coordinator.filter(|it| it.confirmed);
        coordinator.map(|it| it.name).ok_or_else(|| "there is no coordinator".to_owned())
    }

    /// How the network is.
    pub(super) async fn report(&self) -> Report {
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
    pub(super) async fn process(&self, name: &str) -> Result<u32, String> {
        let children = self.network()?.children.lock().await;
        let id = children.get(name).and_then(|child| child.id());
        id.ok_or_else(|| format!("{name} does not run"))
    }

    /// Sends a signal to a node.
    pub(super) async fn signal(&self, name: &str, signal: Signal) -> Result<(), String> {
        let mut children = self.network()?.children.lock().await;
        let child = children.get_mut(name).ok_or_else(|| format!("{name} does not run"))?;
        child.signal(signal)
    }

    /// Kills a process and waits until it is gone.
    pub(super) async fn kill(&self, name: &str) -> Result<(), String> {
        let child = self.network()?.children.lock().await.remove(name);
        child.ok_or_else(|| format!("{name} does not run"))?.kill().await
    }

    /// Starts a process that does not run.
    pub(super) async fn start(&self, name: &str, screen: &mut Screen) -> Result<(), String> {
        self.network()?.launch(name, PATIENCE, screen).await.map(drop)
    }

    /// Waits until a node is live.
    pub(super) async fn live(&self, name: &str) -> Result<(), String> {
        if name == SERVER || self.network()?.live(name, PATIENCE).await {
            return Ok(());
        }
        Err(format!("{name} is not live after {} s", PATIENCE.as_secs()))
    }

    /// Nodes that do not answer.
    pub(super) async fn absent(&self) -> Vec<String> {
        let nodes = self.report().await.nodes.into_iter();
        nodes.filter(|node| !node.reachable).map(|node| node.name).collect()
    }

    /// Waits until every node of the network answers, but for those that did not before, and every
    /// group has a leader.
    pub(super) async fn whole(&self, absent_before: &[String]) -> Result<(), String> {
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
    pub(super) fn names(&self, nodes: u16) -> Vec<String> {
        (1..=nodes).map(node_name).collect()
    }

    /// Ends the work, waits until all replicas are equal, and tells what the clients saw.
    pub(super) async fn finish(self, screen: &mut Screen) -> Finished {
        let end_ns = self.now_ns();
        screen.note("          reading everything back");
        let Self { local, outfits, clients, workload, events } = self;
        let mut problems = Vec::new();
        let history = match clients.first() {
            Some(client) => workload.finish(client).await,
            None => History::default(),
        };
        if let (Some(network), Some(client)) = (&local, clients.first()) {
            problems.extend(equal(client).await.err());
            problems.extend(network.notices().await);
        }
        Finished { history, events, end_ns, problems, local, clients, _outfits: outfits }
    }
}

/// What the clients do.
fn plan(prefix: String, value_bytes: usize, connect: &Connect) -> Plan {
    Plan {
        prefix,
        keys: KEYS,
        value_bytes,
        pause: PAUSE,
        timeout: connect.timeout.unwrap_or(TIMEOUT),
        seed: u64::from(std::process::id()),
    }
}

/// What a network lacks that is to be whole, apart from nodes that were absent before.
pub(super) fn missing(status: &NetworkStatus, absent_before: &[String]) -> Option<String> {
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
pub(super) struct Finished {
    pub(super) history: History,
    pub(super) events: Vec<Event>,
    /// When the clients stopped.
    pub(super) end_ns: u64,
    /// What is wrong besides what the history says.
    pub(super) problems: Vec<String>,
    pub(super) local: Option<LocalNetwork>,
    pub(super) clients: Vec<Client>,
    /// Kept until the network is ended.
    pub(super) _outfits: Outfits,
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
