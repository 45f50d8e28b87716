//! The clients: what they ask of the network, and what they record of it.
//!
//! Each client machine has one client of the product's library, and several callers on it. Every
//! call is an operation of the history: when it began, and how it ended. A call whose outcome
//! nobody knows is recorded as unknown.

mod caller;
mod eventual;
mod kept_snapshot;
pub mod keyspaces;
mod list_group;
mod lists;
mod operations;
mod past;
mod scans;
mod service;
mod snapshots;
mod state;
mod staleness;
mod tenants;
mod watchers;

use std::path::PathBuf;
use std::time::Duration;

use dkv_api::Client;

pub use state::Workload;

use crate::random::Random;
use caller::Caller;
use tenants::Tenant;
use watchers::Watcher;

/// Nanoseconds of a tick.
const TICK_NS: u64 = 1_000_000;

/// What the callers do at a stage of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Read and write.
    Load,
    /// Read every key and write to every shard until it succeeds: the network is whole again.
    Probe,
    /// Nothing.
    Rest,
}

/// The only thing that all callers of a client do for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Focus {
    /// They read one of the keys.
    Read(u64),
    /// They write one of the keys.
    Write(u64),
    /// They write eventually.
    Deposit,
    /// They execute transactions.
    Transact,
}

/// How heavy the load is.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Callers of each client.
    pub callers: u64,
    /// Longest pause between two calls of a caller, in milliseconds.
    pub pause_ms: u64,
    /// Keys that are read and written.
    pub keys: u64,
    /// How many of a thousand values are large, and how many bytes a large one has at most.
    pub large: (u64, u64),
    /// Shards of the network.
    pub shards: u32,
}

/// One client machine.
pub struct ClientMachine {
    /// Which one.
    pub number: u64,
    /// Where the registration server is.
    pub server: String,
    /// The file with the token to join with.
    pub token_file: PathBuf,
    /// Where the client keeps its files.
    pub home: PathBuf,
    /// The source of its random numbers.
    pub random: Random,
}

/// Runs the callers of one client machine.
pub async fn run(machine: ClientMachine, workload: Workload) {
    let ClientMachine { number, server, token_file, home, mut random } = machine;
    let callers = workload.load().callers;
    let watchers = if number == 1 { 2 } else { 1 };
    // One more is the tenant.
    workload.callers_begin(callers + watchers + 1);
    let client = connect(&server, &token_file, &home).await;
    workload.trace().line(format!("client {number} is connected"));
    for caller in 0..callers {
        let caller = Caller {
            id: number * 100 + caller,
            client: client.clone(),
            random: random.fork(),
            workload: workload.clone(),
            calls: 0,
            own: 0,
            seen: None,
            kept: None,
        };
        tokio::spawn(caller.run());
    }
    for watcher in 0..watchers {
        let watcher = Watcher {
            id: number * 100 + 50 + watcher,
            client: client.clone(),
            random: random.fork(),
            workload: workload.clone(),
            follows_all: watcher == 1,
        };
        tokio::spawn(watcher.run());
    }
    let (id, workload) = (number * 100 + 70, workload.clone());
    tokio::spawn(Tenant { id, client, random, workload, leases: 0 }.run());
    std::future::pending::<()>().await;
}

/// Returns the name of a value: what comes before its first space. The rest only makes it longer.
fn name_of(value: &[u8]) -> String {
    let length = value.iter().position(|byte| *byte == b' ').unwrap_or(value.len());
    String::from_utf8_lossy(&value[..length]).into_owned()
}

async fn connect(server: &str, token_file: &PathBuf, home: &PathBuf) -> Client {
    loop {
        let builder = Client::builder().server(server).token_file(token_file).home(home);
        match builder.timeout(Duration::from_secs(5)).connect().await {
            Ok(client) => return client,
            Err(error) => tracing::debug!(%error, "not connected"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
