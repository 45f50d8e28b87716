//! What the parts allow on this machine, and how much of that dkv uses.
//!
//! - A bare QUIC echo between two ends in this process, pipelined as far as possible: no store can
//!   be expected to answer more requests over one connection.
//! - Syncs of a file per second, of one file and of three at once, as three nodes on one machine
//!   do.
//!
//! A put of a single client takes at least two round trips, to the primary and from there to a
//! follower, and one sync. With many clients both are shared, and the echo is the remaining limit.

mod disk;
mod echo;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use dkv_base::number::{decimal, whole_number};
use serde::Serialize;

use crate::generator::{self, Cell, Load, Times};
use crate::report::{self, Machine};
use crate::systems::{self, Kind, Setup};
use crate::workload::{VALUE_BYTES_MAX, Work};

/// Keys in dkv.
const RECORDS: u64 = 10_000;

/// How much is measured.
#[derive(Args, Clone, Debug)]
pub(crate) struct LimitArgs {
    /// Requests under way; several numbers are measured in turn
    #[arg(long, value_delimiter = ',', default_value = "1,64,256,1024",
        value_parser = whole_number(1..=100_000_usize))]
    clients: Vec<usize>,
    /// Time that each is measured, in seconds
    #[arg(long, default_value_t = 3.0, value_parser = decimal(0.01..=86_400.0))]
    seconds: f64,
    /// Bytes of a request of the echo, and of a value of dkv
    #[arg(long, default_value_t = 100, value_parser = whole_number(0..=VALUE_BYTES_MAX))]
    value_bytes: usize,
    /// A file to write the figures to, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Serialize)]
struct Limits {
    machine: Machine,
    echoes: Vec<echo::Echo>,
    syncs: Vec<disk::Syncs>,
    dkv: Vec<Share>,
}

/// Throughput of dkv as a share of the limit.
#[derive(Serialize)]
struct Share {
    work: Work,
    clients: usize,
    ops: f64,
    limit: f64,
    limit_is: &'static str,
}

/// Measures the parts, then dkv.
pub(crate) async fn run(setup: &Setup, plan: &LimitArgs) -> Result<(), String> {
    let time = Duration::try_from_secs_f64(plan.seconds).map_err(|error| error.to_string())?;
    let mut echoes = Vec::new();
    dkv_base::say!("QUIC echo, {} B, both ends in this process", plan.value_bytes);
    dkv_base::say!("under way       ops/s   p50 ms   p99 ms  cpu us/op");
    for clients in &plan.clients {
        let echo = echo::measure(*clients, plan.value_bytes, time).await?;
        dkv_base::say!("{echo}");
        echoes.push(echo);
    }
    dkv_base::say!(
        "\nfile syncs, 512 B each\nfiles                        syncs/s of each   p50 ms   p99 ms"
    );
    let dir = setup.dir.clone();
    let syncs = tokio::task::spawn_blocking(move || disk::measure(dir.as_deref(), time));
    let syncs = syncs.await.map_err(|error| error.to_string())??;
    for one in &syncs {
        dkv_base::say!("{one}");
    }
    let dkv = dkv(setup, plan, time, &echoes, &syncs).await?;
    let limits = Limits { machine: Machine::this(), echoes, syncs, dkv };
    plan.json.as_deref().map_or(Ok(()), |path| report::write_json(path, &limits))
}

async fn dkv(
    setup: &Setup,
    plan: &LimitArgs,
    measured: Duration,
    echoes: &[echo::Echo],
    syncs: &[disk::Syncs],
) -> Result<Vec<Share>, String> {
    let system = systems::start(Kind::Dkv, setup).await?;
    generator::load(&*system, RECORDS, plan.value_bytes).await?;
    dkv_base::say!("\ndkv                 clients       ops/s       limit   share");
    let mut shares = Vec::new();
    for work in [Work::Put, Work::Get, Work::EventualGet] {
        for echo in echoes {
            let load = Load::Closed { clients: echo.under_way };
            let cell = Cell { work, value_bytes: plan.value_bytes, records: RECORDS, load };
            let times = Times { warm_up: Duration::from_millis(500), measured };
            let ops = generator::measure(&*system, &cell, times, 1).await?.rate();
            let (limit, limit_is) = limit(work, echo, syncs);
            let (name, clients, share) = (work.name(), echo.under_way, ops / limit * 100.0);
            dkv_base::say!(
                "{name:<19} {clients:>7} {ops:>11.0} {limit:>11.0} {share:>6.1}%  of {limit_is}"
            );
            shares.push(Share { work, clients, ops, limit, limit_is });
        }
    }
    Ok(shares)
}

/// Returns the requests per second that the parts allow, and names those parts.
fn limit(work: Work, echo: &echo::Echo, syncs: &[disk::Syncs]) -> (f64, &'static str) {
    let sync = syncs.iter().find(|syncs| syncs.is_as_nodes_do());
    match (work, echo.under_way, sync) {
        (Work::Put, 1, Some(sync)) => {
            (1.0 / (2.0 / echo.ops + 1.0 / sync.ops), "two echoes and a sync")
        }
        (Work::Get, 1, _) => (echo.ops / 2.0, "two echoes"),
        _ => (echo.ops, "the echo"),
    }
}
