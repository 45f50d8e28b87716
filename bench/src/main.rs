//! `dkv-bench`: figures about dkv networks, and about etcd, NATS and Valkey beside them, from
//! outside, as a client sees them.
//!
//! Each command starts systems of its own on loopback, of real processes, in a temporary directory;
//! measures; and stops them. One generator drives all systems, from one process. dkv is the `dkv`
//! binary that lies beside this one; the others are put in place by `bench/peers/install`, and
//! their drivers are built with the feature `peers` only.
//!
//! Reading order: [`workload`] is what clients ask, [`systems`] whom, [`loops`] how; [`compare`]
//! puts systems side by side and [`report`] says what was seen. [`failover`], [`steady`],
//! [`resources`], [`scale`] and [`limit`] each answer another question.
//!
//! Nothing here is used by the product. Deliberately missing: several machines, and faults other
//! than the end of a process.
#![forbid(unsafe_code)]

mod workload;
mod systems;
mod loops;
mod usage;
mod spread;
mod compare;
mod report;
mod failover;
mod steady;
mod resources;
mod scale;
mod limit;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::systems::Place;

/// Measures dkv networks, and other stores beside them, on this machine.
#[derive(Parser)]
#[command(name = "dkv-bench", version)]
struct Cli {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Throughput and latency of dkv
    Load(compare::CompareArgs),
    /// The same of all systems, in rounds, with ratios
    Compare(compare::CompareArgs),
    /// Time without acknowledged writes when the leader is killed or stopped
    Failover(failover::FailoverArgs),
    /// Elections of dkv while nothing fails and the network is loaded: there should be none
    Steady {
        /// Time, in seconds
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Writers
        #[arg(long, default_value_t = 256)]
        clients: usize,
    },
    /// CPU time of systems that nobody asks anything
    Idle(resources::IdlePlan),
    /// Memory of systems that hold many keys
    Memory(resources::MemoryPlan),
    /// Figures of dkv with more keys, shards and nodes
    Scale(scale::ScaleArgs),
    /// What the machine allows: QUIC and file syncs by themselves, and dkv beside them
    Limit(limit::LimitArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    // Whichever ends first: what is dropped with the other one stops the processes.
    let ended = tokio::select! {
        ended = run(cli) => ended,
        error = interrupted() => Err(error),
    };
    match ended {
        // The result could not be printed.
        Ok(()) if dkv_base::output::failed() => ExitCode::FAILURE,
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            dkv_base::complain!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<(), String> {
    let place = &cli.place;
    match cli.command {
        Command::Load(plan) => compare::load(place, plan).await,
        Command::Compare(plan) => compare::compare(place, plan).await,
        Command::Failover(plan) => failover::run(place, &plan).await,
        Command::Steady { seconds, clients } => {
            steady::run(place, Duration::from_secs(seconds), clients).await
        }
        Command::Idle(plan) => resources::idle(place, &plan).await,
        Command::Memory(plan) => resources::memory(place, &plan).await,
        Command::Scale(plan) => scale::run(place, &plan).await,
        Command::Limit(plan) => limit::run(place, &plan).await,
    }
}

/// Waits for Ctrl-C or SIGTERM.
async fn interrupted() -> String {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        // Without handlers the signals end this process the hard way, as they always did.
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
