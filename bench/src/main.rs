//! `dkv-bench` measures dkv networks, and etcd, NATS and Valkey beside them, from outside, as a
//! client sees them.
//!
//! Each command starts real processes on loopback with a temporary directory, measures them, and
//! stops them. One generator in one process drives all systems. dkv is the `dkv` binary beside this
//! one; `bench/peers/install` installs the others, whose drivers are only built with the feature
//! `peers`.
//!
//! Reading order: [`workload`] has the operations, [`systems`] the systems, [`generator`] the load;
//! [`compare`] compares systems and [`report`] presents the figures. [`failover`], [`stability`],
//! [`resources`], [`scale`], [`watches`], [`history`], [`backups`], `kubernetes` and [`limit`] each
//! answer a question of their own.
//!
//! The product uses nothing of this. Deliberately missing: several machines, and faults other than
//! the end of a process.
#![forbid(unsafe_code)]

mod workload;
mod systems;
mod generator;
mod process_stats;
mod summary;
mod compare;
mod report;
mod failover;
mod stability;
mod resources;
mod scale;
mod limit;
mod watches;
mod history;
mod backups;
#[cfg(feature = "peers")]
mod kubernetes;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use dkv_base::number::whole_number;
use tokio::signal::unix::{SignalKind, signal};

use crate::systems::Setup;

/// Measures dkv networks, and other stores beside them, on this machine.
#[derive(Parser)]
#[command(name = "dkv-bench", version)]
struct Cli {
    #[command(flatten)]
    setup: Setup,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Throughput and latency of dkv
    Load(compare::CompareArgs),
    /// The same for all systems, in rounds, with ratios
    Compare(compare::CompareArgs),
    /// Time without acknowledged writes when the leader is killed or stopped
    Failover(failover::FailoverArgs),
    /// Elections of dkv while nothing fails and the network is loaded: there should be none
    Steady {
        /// Time, in seconds
        #[arg(long, default_value_t = 60, value_parser = whole_number(1..=86_400_u64))]
        seconds: u64,
        /// Writers
        #[arg(long, default_value_t = 256, value_parser = whole_number(1..=100_000_usize))]
        clients: usize,
    },
    /// CPU time of idle systems
    Idle(resources::IdlePlan),
    /// Memory of systems that hold many keys
    Memory(resources::MemoryPlan),
    /// Figures of dkv with more keys, shards and nodes
    Scale(scale::ScaleArgs),
    /// What watches cost, and how soon they show a change
    Watch(watches::WatchPlan),
    /// What history costs dkv: memory of versions, compaction, scans of a snapshot
    History(history::HistoryPlan),
    /// The cost of a backup beside writers, and the time of a restore
    Backup(backups::BackupPlan),
    /// Work as Kubernetes does it, through etcd's interface
    #[cfg(feature = "peers")]
    Kubernetes(kubernetes::KubernetesPlan),
    /// What the machine allows: QUIC and file syncs alone, and dkv for comparison
    Limit(limit::LimitArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    // The first to end drops the other, which stops the processes.
    let ended = tokio::select! {
        ended = run(cli) => ended,
        error = interrupted() => Err(error),
    };
    match ended {
        // The figures could not be printed.
        Ok(()) if dkv_base::output::failed() => ExitCode::FAILURE,
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            dkv_base::complain!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<(), String> {
    let setup = &cli.setup;
    match cli.command {
        Command::Load(plan) => compare::load(setup, plan).await,
        Command::Compare(plan) => compare::compare(setup, plan).await,
        Command::Failover(plan) => failover::run(setup, &plan).await,
        Command::Steady { seconds, clients } => {
            stability::run(setup, Duration::from_secs(seconds), clients).await
        }
        Command::Idle(plan) => resources::idle(setup, &plan).await,
        Command::Memory(plan) => resources::memory(setup, &plan).await,
        Command::Scale(plan) => scale::run(setup, &plan).await,
        Command::Watch(plan) => watches::run(setup, &plan).await,
        Command::History(plan) => history::run(setup, &plan).await,
        Command::Backup(plan) => backups::run(setup, &plan).await,
        #[cfg(feature = "peers")]
        Command::Kubernetes(plan) => kubernetes::run(setup, &plan).await,
        Command::Limit(plan) => limit::run(setup, &plan).await,
    }
}

/// Waits for Ctrl-C or SIGTERM.
async fn interrupted() -> String {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        // Without handlers the signals end this process, as they do by default.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    "interrupted".into()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
