//! `dkv-bench`: figures about networks, from outside, as a client sees them.
//!
//! Each command starts a network of its own on loopback, of real processes of the `dkv` binary that
//! lies beside this one, in a temporary directory; measures; and stops it. Nothing here is used by
//! the product.
#![forbid(unsafe_code)]

mod failover;
mod load;
mod network;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use crate::network::{Network, Shape};

/// Measures dkv networks on this machine.
#[derive(Parser)]
#[command(name = "dkv-bench", version)]
struct Cli {
    #[command(flatten)]
    shape: Shape,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Throughput and latency under a closed loop of clients
    Load {
        /// What the clients do
        #[arg(long, value_enum, default_value = "put")]
        work: Work,
        /// Clients that each have one request under way; several numbers are measured in turn
        #[arg(long, value_delimiter = ',', default_value = "1,64,256")]
        clients: Vec<usize>,
        /// Time that each is measured, in seconds
        #[arg(long, default_value_t = 5)]
        seconds: u64,
        /// Bytes of a value
        #[arg(long, default_value_t = 100)]
        value_bytes: usize,
        /// Keys that the clients choose from
        #[arg(long, default_value_t = 10_000)]
        keys: u64,
    },
    /// Time without acknowledged writes when the coordinator is killed or stopped
    Failover {
        /// How the coordinator goes
        #[arg(long, value_enum, default_value = "kill")]
        how: How,
        /// How often
        #[arg(long, default_value_t = 20)]
        runs: usize,
        /// Writers
        #[arg(long, default_value_t = 16)]
        clients: usize,
    },
    /// Elections while nothing fails and the network is loaded: there should be none
    Steady {
        /// Time, in seconds
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Writers
        #[arg(long, default_value_t = 256)]
        clients: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Work {
    /// Writes
    Put,
    /// Strong reads
    Get,
    /// Eventual reads
    EventualGet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum How {
    /// SIGKILL
    Kill,
    /// SIGTERM
    Stop,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<(), String> {
    let mut network = Network::start(&cli.shape).await?;
    let client = network.client().await?;
    match cli.command {
        Command::Load { work, clients, seconds, value_bytes, keys } => {
            let plan = load::Plan { work, value_bytes, keys, time: Duration::from_secs(seconds) };
            load::prepare(&client, &plan).await?;
            println!("{}", load::Figures::HEADER);
            for clients in clients {
                println!("{}", load::run(&client, &plan, clients, &network).await?);
            }
        }
        Command::Failover { how, runs, clients } => {
            failover::run(&mut network, &client, how, runs, clients).await?;
        }
        Command::Steady { seconds, clients } => {
            failover::steady(&client, Duration::from_secs(seconds), clients).await?;
        }
    }
    network.stop();
    Ok(())
}
