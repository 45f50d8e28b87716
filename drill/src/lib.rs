//! Drills: break a network on purpose, and see whether it keeps its promises.
//!
//! A drill has five parts:
//! 1. A network comes up, prepared for the fault (`testbed`, `environment`).
//! 2. Clients read and write, and record everything that they see ([`workload`]).
//! 3. Meanwhile a fault is injected into the network, and undone (`inject`, with `relay`,
//!    `disk_stall`, `directory_copies` and `intruder`).
//! 4. Every key is read back, and checkers judge the recorded history (`result`; the checkers
//!    are the crate `dkv-check`).
//! 5. The result is reported as text, as a chart and as a page (`chart`, `html`).
//!
//! The promises: no acknowledged write is lost, no read is stale, the network recovers by itself,
//! and all replicas end up equal.
//!
//! On a network that the user names, a drill only sends requests; the user injects the fault.
//!
//! Deliberately missing: any change to this machine outside the drill's own directory and
//! processes.
#![forbid(unsafe_code)]

mod error;
mod fault;
mod result;

mod testbed;
mod environment;
pub mod workload;

mod inject;
mod relay;
mod disk_stall;
mod directory_copies;
mod intruder;

mod chart;
mod html;

#[cfg(test)]
mod tests;

use std::fs;
use std::path::Path;
use std::time::Duration;

use dkv_api::Client;
use dkv_console::{Console, Tone};
use tokio::task::JoinSet;

pub use self::error::{DrillError, Obstacle, Violation};
pub use self::fault::Fault;
pub use self::html::html;
pub use self::inject::LOCAL;
pub use self::result::{DrillResult, Unheld, succeeds};
use self::testbed::{FinishedRun, Testbed};

/// Prefix of the keys in an existing network.
const PREFIX: &str = "dkv-drill/";
/// Time in which the keys of a drill are removed from an existing network.
const REMOVAL: Duration = Duration::from_secs(10);
/// Deletes at the same time at the end.
const DELETES: usize = 64;

/// The network that a drill is held on.
pub enum Target {
    /// A temporary one on this machine.
    Temporary {
        /// Number of its nodes.
        nodes: u16,
    },
    /// Somebody else's, through these clients.
    Remote(Vec<Client>),
}

/// Holds a drill: lets clients work for `time`, and injects the fault in its middle third. An
/// operation may take `timeout`, or a default.
///
/// # Errors
/// The drill could not be held.
pub async fn run(
    fault: Fault,
    target: Target,
    time: Duration,
    timeout: Option<Duration>,
    console: &mut Console,
) -> Result<DrillResult, DrillError> {
    let (mut testbed, nodes, is_remote) = match target {
        Target::Temporary { nodes } => {
            (Testbed::local(fault, nodes, timeout, console).await?, nodes, false)
        }
        Target::Remote(clients) => {
            let prefix = format!("{PREFIX}{}/", uuid::Uuid::new_v4().simple());
            (Testbed::remote(clients, prefix, timeout), 0, true)
        }
    };
    let before = testbed.unreachable_nodes().await;
    // The time is split into thirds: before, during and after the fault.
    let third = time / 3;
    testbed.work_for(third, console).await;
    let inflicted = inject::inject(fault, &mut testbed, nodes, third, console).await;
    let recovered = match inflicted {
        // The fault was never injected, so this says nothing about the network.
        Err(problem) if testbed.events.is_empty() => {
            let finished = testbed.finish(console).await;
            leave(finished, console).await;
            return Err(problem);
        }
        Err(problem) => Err(problem),
        Ok(()) => testbed.wait_recovered(&before).await.map_err(DrillError::from),
    };
    match &recovered {
        Ok(()) => testbed.record("recovered: all nodes respond, every group has a leader", console),
        Err(problem) => testbed.record(&format!("not recovered: {problem}"), console),
    }
    testbed.work_for(third, console).await;
    let mut finished = testbed.finish(console).await;
    let result = DrillResult::judge(fault, &mut finished, recovered.err().as_ref());
    if is_remote {
        // A node that is still missing delays each delete.
        let removing = remove_keys(&result, &finished.clients);
        if tokio::time::timeout(REMOVAL, removing).await.is_err() {
            console.note(&format!("could not remove all keys that begin with {PREFIX}"));
        }
    }
    leave(finished, console).await;
    Ok(result)
}

/// Removes the keys of a drill from an existing network.
async fn remove_keys(result: &DrillResult, clients: &[Client]) {
    let Some(client) = clients.first() else { return };
    let history = &result.history;
    let of_transactions = history.transactions.iter().flat_map(|it| &it.ops).map(|op| op.key());
    let changed = history.changes.iter().flat_map(|it| it.keys.keys()).map(String::as_str);
    let of_operations = history.operations.iter().map(|it| &*it.key);
    let all = of_operations.chain(of_transactions).chain(changed);
    let mut keys: Vec<String> = all.map(str::to_owned).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut tasks = JoinSet::new();
    for key in keys {
        if tasks.len() >= DELETES {
            tasks.join_next().await;
        }
        let client = client.clone();
        // A key that is already absent counts as removed.
        tasks.spawn(async move { client.delete(key.as_bytes()).await.is_ok() });
    }
    while tasks.join_next().await.is_some() {}
}

/// Disconnects, and stops a temporary network.
async fn leave(finished: FinishedRun, console: &mut Console) {
    for client in &finished.clients {
        client.clone().close().await;
    }
    if let Some(network) = &finished.local {
        network.stop(console).await;
    }
}

impl DrillResult {
    /// Writes what the clients saw, and the chart, to a directory.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, directory: &Path) -> Result<(), Obstacle> {
        let history = directory.join(format!("{}.jsonl", self.name()));
        let file = fs::File::create(&history);
        file.and_then(|file| self.history.write(std::io::BufWriter::new(file)))
            .map_err(Obstacle::file(format!("cannot write {}", history.display())))?;
        let chart = directory.join(format!("{}.svg", self.name()));
        fs::write(&chart, chart::svg(self))
            .map_err(Obstacle::file(format!("cannot write {}", chart.display())))
    }

    /// Prints the verdict, the facts and what the checkers found.
    ///
    /// # Errors
    /// Those of stdout.
    pub fn print(&self, console: &mut Console) -> std::io::Result<()> {
        if console.json {
            return console.result("", || self.document());
        }
        let (tone, verdict) = if self.holds() {
            (Tone::Good, "all promises held")
        } else {
            (Tone::Bad, "NOT all promises held")
        };
        let verdict = console.paint(tone, verdict);
        console.line(&format!("{}: {verdict}", self.name()))?;
        for (heading, fact) in self.facts() {
            console.line(&format!("  {heading:<21} {fact}"))?;
        }
        for finding in &self.report.findings {
            console.line(finding.to_string().trim_end())?;
        }
        Ok(())
    }
}
