//! What the prompt does to the processes, and what the network makes of it.
//!
//! After a node has been killed, stopped or paused, two things are measured from that moment: until
//! some other node is the coordinator, if it was; and until each shard whose primary it was takes
//! writes again. The latter is asked with a delete on a condition that never holds, which goes the
//! whole way through the log and changes nothing.

use std::io;
use std::time::{Duration, Instant};

use dkv_api::{Client, Condition, Error, GroupId, NetworkView, NodeId, Revision, WriteOptions};
use nix::sys::signal::Signal;

use super::network::{LocalNetwork, SERVER};
use crate::grammar::{Action, Target};
use crate::human::time;
use crate::problem::{self, Stop};
use crate::screen::Screen;
use crate::status::Report;
use crate::store::Store;

/// Time that a failover is watched.
const WATCH: Duration = Duration::from_secs(15);
/// Time that a process has to stop, to start, or to be live again.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Does it.
pub(super) async fn act(
    network: &LocalNetwork,
    action: Action,
    target: &Target,
    screen: &mut Screen,
) -> Result<(), Stop> {
    let result = match action {
        Action::Kill | Action::Stop | Action::Pause => {
            disturb(network, action, target, screen).await
        }
        Action::Start => start(network, target, screen).await,
        Action::Resume => resume(network, target, screen).await,
    };
    match result {
        Ok(()) => Ok(()),
        Err(Problem::Screen(error)) => Err(error.into()),
        Err(Problem::Said(why)) => Err(problem::Problem::failed(why).into()),
    }
}

enum Problem {
    Screen(io::Error),
    Said(String),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Screen(error)
    }
}

impl From<String> for Problem {
    fn from(problem: String) -> Self {
        Self::Said(problem)
    }
}

/// Takes a process away in one way or another, and tells what follows.
async fn disturb(
    network: &LocalNetwork,
    action: Action,
    target: &Target,
    screen: &mut Screen,
) -> Result<(), Problem> {
    let before = network.report().await;
    let name = resolve(network, target, &before).await?;
    let watch = Watch::begin(network, &name, &before).await;
    let disturbed = Instant::now();
    let done = {
        let mut children = network.children.lock().await;
        let child = children
            .get_mut(&name)
            .ok_or_else(|| format!("{name} does not run; start {name} starts it"))?;
        match action {
            Action::Pause => {
                if child.paused {
                    return Err(
                        format!("{name} is paused already; resume {name} lets it go on").into()
                    );
                }
                child.signal(Signal::SIGSTOP)?;
                child.paused = true;
                "paused"
            }
            Action::Stop => {
                // It leaves in good order meanwhile; the clock runs from the request.
                let in_time = child.stop(PATIENCE).await;
                children.remove(&name);
                if in_time { "stopped" } else { "killed, for it did not stop in time," }
            }
            _ => {
                child.kill().await?;
                children.remove(&name);
                "killed"
            }
        }
    };
    let role = if watch.was_coordinator() { ", the coordinator" } else { "" };
    tell(&format!("{done} {name}{role}"), screen)?;
    if name == SERVER {
        screen.line("reads and writes go on without it; joining waits for it")?;
        return Ok(());
    }
    watch.tell(disturbed, network, screen).await?;
    Ok(())
}

/// Tells of something that was done.
fn tell(text: &str, screen: &mut Screen) -> io::Result<()> {
    screen.line(text).map_err(|error| problem::untold(text, error))
}

async fn start(
    network: &LocalNetwork,
    target: &Target,
    screen: &mut Screen,
) -> Result<(), Problem> {
    let name = target.to_string();
    if !network.names().await.contains(&name) {
        return Err(unknown(network, &name).await.into());
    }
    // One that has ended by itself counts as one that does not run.
    for notice in network.notices().await {
        screen.note(&notice);
    }
    if network.children.lock().await.contains_key(&name) {
        return Err(format!("{name} runs already").into());
    }
    let started = Instant::now();
    let address = network.launch(&name, PATIENCE, screen).await?;
    let text = format!("started {name} at {address}, ready after {}", time(started.elapsed()));
    tell(&text, screen)?;
    if name != SERVER {
        tell_live(network, &name, started, screen).await?;
    }
    Ok(())
}

async fn resume(
    network: &LocalNetwork,
    target: &Target,
    screen: &mut Screen,
) -> Result<(), Problem> {
    let name = target.to_string();
    let resumed = Instant::now();
    {
        let mut children = network.children.lock().await;
        let Some(child) = children.get_mut(&name) else {
            drop(children);
            return Err(unknown(network, &name).await.into());
        };
        if !child.paused {
            return Err(format!("{name} is not paused").into());
        }
        child.signal(Signal::SIGCONT)?;
        child.paused = false;
    }
    tell(&format!("resumed {name}"), screen)?;
    if name != SERVER {
        tell_live(network, &name, resumed, screen).await?;
    }
    Ok(())
}

async fn tell_live(
    network: &LocalNetwork,
    name: &str,
    since: Instant,
    screen: &mut Screen,
) -> Result<(), Problem> {
    if network.live(name, PATIENCE).await {
        screen.line(&format!("{name} is live again, after {}", time(since.elapsed())))?;
        return Ok(());
    }
    Err(format!("{name} is not live after {} s; see status and its log", PATIENCE.as_secs()).into())
}

/// The name of the process that is meant.
async fn resolve(
    network: &LocalNetwork,
    target: &Target,
    report: &Report,
) -> Result<String, Problem> {
    let name = match target {
        Target::Named(name) => name.clone(),
        Target::Coordinator => match &report.coordinator {
            Some(coordinator) => coordinator.name.clone(),
            None => {
                return Err("there is no coordinator now; see status".to_owned().into());
            }
        },
    };
    if network.names().await.contains(&name) {
        return Ok(name);
    }
    Err(unknown(network, &name).await.into())
}

async fn unknown(network: &LocalNetwork, name: &str) -> String {
    let names = network.names().await;
    if names.iter().any(|known| known == name) {
        return format!("{name} does not run; start {name} starts it");
    }
    format!("there is no process {name}; there are {}", names.join(", "))
}

/// What a node was before it was disturbed, and what is watched afterwards.
struct Watch {
    node: Option<NodeId>,
    /// The term that it was the coordinator in.
    led: Option<u64>,
    /// A key of each shard whose primary it was.
    probes: Vec<(GroupId, Vec<u8>)>,
    /// Whether some group has no majority without it.
    indispensable: bool,
}

impl Watch {
    async fn begin(network: &LocalNetwork, name: &str, before: &Report) -> Self {
        let node = before.nodes.iter().find(|node| node.name == name);
        let coordinator = before.coordinator.as_ref().filter(|it| it.name == name);
        let mut probes = Vec::new();
        if let (Some(node), Some(session)) = (node, network.session())
            && let Ok(view) = session.client.view().await
        {
            let shards = node.primaries.iter().map(|shard| GroupId(*shard));
            probes = shards.filter_map(|shard| Some((shard, probe(&view, shard)?))).collect();
        }
        let votes = |group: &&crate::status::Group| {
            group.voters.iter().any(|voter| voter.name == name && voter.reachable)
        };
        let spare = before.groups.iter().filter(votes).filter_map(|group| group.spare).min();
        Self {
            node: node.map(|node| node.id),
            led: coordinator.map(|it| it.term),
            probes,
            indispensable: spare.is_some_and(|spare| spare < 1),
        }
    }

    fn was_coordinator(&self) -> bool {
        self.led.is_some()
    }

    /// Watches until all is well again, and tells when that was.
    async fn tell(
        self,
        since: Instant,
        network: &LocalNetwork,
        screen: &mut Screen,
    ) -> Result<(), Problem> {
        if self.indispensable {
            screen.line(
                "too few voters are left: reads and writes wait until one is back (start NAME or \
                 resume NAME)",
            )?;
            return Ok(());
        }
        let Some(client) = network.session().map(|session| &session.client) else {
            return Ok(());
        };
        let until = since + WATCH;
        let shards = self.probes.iter().map(|(shard, _)| shard.to_string()).collect::<Vec<_>>();
        let writes = futures::future::join_all(
            self.probes.iter().map(|(_, key)| takes_writes(client, key, until)),
        );
        let (successor, served) =
            tokio::join!(successor(client, self.node, self.led, until), writes);
        match (self.was_coordinator(), successor) {
            (false, _) => {}
            (true, Some((node, at))) => {
                let name = client.view().await.ok();
                let name = name.and_then(|view| view.node(node).map(|node| node.name.clone()));
                let name = name.unwrap_or_else(|| node.short());
                let after = time(at.duration_since(since));
                screen.line(&format!("{name} is the coordinator now, after {after}"))?;
            }
            (true, None) => {
                let waited = WATCH.as_secs();
                return Err(format!("no new coordinator after {waited} s; see status").into());
            }
        }
        if shards.is_empty() {
            screen.line("it was the primary of no shard, so no write had to wait")?;
            return Ok(());
        }
        let what = if shards.len() == 1 { "shard" } else { "shards" };
        let latest = served.iter().copied().collect::<Option<Vec<Instant>>>();
        match latest.and_then(|all| all.into_iter().max()) {
            Some(at) => screen.line(&format!(
                "writes to {what} {} waited {}",
                shards.join(", "),
                time(at.duration_since(since))
            ))?,
            None => {
                let waited = WATCH.as_secs();
                let shards = shards.join(", ");
                return Err(
                    format!("{what} {shards}: no writes after {waited} s; see status").into()
                );
            }
        }
        Ok(())
    }
}

/// Waits for a coordinator of a later term.
async fn successor(
    client: &Client,
    node: Option<NodeId>,
    led: Option<u64>,
    until: Instant,
) -> Option<(NodeId, Instant)> {
    let led = led?;
    while Instant::now() < until {
        if let Ok(view) = client.refresh().await
            && view.term.0 > led
            && let Some(coordinator) = view.coordinator.filter(|it| Some(*it) != node)
        {
            return Some((coordinator, Instant::now()));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    None
}

/// Waits until the shard of a key takes writes.
async fn takes_writes(client: &Client, key: &[u8], until: Instant) -> Option<Instant> {
    // No write ever has this revision.
    let never = Condition::Revision(Revision(u64::MAX));
    while Instant::now() < until {
        let left = until.saturating_duration_since(Instant::now());
        let options = WriteOptions::default().condition(never).timeout(left);
        match client.delete_with(key, options).await {
            Ok(_) | Err(Error::Conflict { .. } | Error::NotFound { .. }) => {
                return Some(Instant::now());
            }
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
    None
}

/// A key of a shard.
fn probe(view: &NetworkView, shard: GroupId) -> Option<Vec<u8>> {
    (0..100_000_u32)
        .map(|number| format!("dkv local probe {number}").into_bytes())
        .find(|key| view.shard_of(key).is_some_and(|it| it.group == shard))
}
