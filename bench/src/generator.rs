//! The load generator.
//!
//! In a *closed* loop each client sends its next request when the last one is answered. That shows
//! the throughput of a system, but hides stalls: the clients stall as well, so few requests are
//! affected. In an *open* loop requests start at a fixed rate, whatever becomes of the earlier
//! ones, and the latency of each counts from when it should have started. That shows what a stall
//! does to everything that arrives meanwhile.

mod closed_loop;
mod open_loop;
mod sample;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

pub(crate) use self::sample::{Sample, Tally};
use crate::process_stats;
use crate::systems::{Driver, Purpose, System};
use crate::workload::{Stream, Work, Workload, key, value};

/// Bytes of values under way while records are loaded.
const LOAD_BYTES_AT_ONCE: usize = 4 * 1024 * 1024;
/// Most clients that load records.
const LOADERS_MAX: usize = 256;

/// How requests arrive.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Load {
    /// A number of clients, each with one request under way.
    Closed {
        /// Number of clients.
        clients: usize,
    },
    /// Requests at a fixed rate, spread over clients.
    Open {
        /// Requests per second.
        rate: f64,
        /// Number of clients.
        clients: usize,
    },
}

impl Load {
    /// Returns the number of clients.
    pub(crate) fn clients(self) -> usize {
        match self {
            Self::Closed { clients } | Self::Open { clients, .. } => clients,
        }
    }
}

impl std::fmt::Display for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed { clients: 1 } => write!(f, "1 client"),
            Self::Closed { clients } => write!(f, "{clients} clients"),
            Self::Open { rate, clients } => write!(f, "{rate}/s over {clients} clients"),
        }
    }
}

/// One combination of parameters to measure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Cell {
    /// What the clients do.
    pub(crate) work: Work,
    /// Bytes of a value.
    pub(crate) value_bytes: usize,
    /// Records that the clients choose from.
    pub(crate) records: u64,
    /// How requests arrive.
    pub(crate) load: Load,
}

/// The phases of a measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// Time to warm up, which does not count.
    pub(crate) warm_up: Duration,
    /// Time that counts.
    pub(crate) measured: Duration,
}

/// Writes all records.
pub(crate) async fn load(
    system: &dyn System,
    records: u64,
    value_bytes: usize,
) -> Result<(), String> {
    let loaders = (LOAD_BYTES_AT_ONCE / value_bytes.max(1)).clamp(1, LOADERS_MAX);
    let drivers = system.drivers(loaders, Purpose::Measure).await?;
    let value = value(value_bytes, 0);
    let mut tasks = tokio::task::JoinSet::new();
    for (first, driver) in drivers.into_iter().enumerate() {
        let value = value.clone();
        tasks.spawn(async move {
            for number in (first as u64..records).step_by(loaders) {
                let put =
                    crate::workload::Operation::Put { key: key(number), value: value.clone() };
                driver.run(put).await?;
            }
            Ok::<(), String>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.map_err(|error| error.to_string())?.map_err(|error| format!("loading: {error}"))?;
    }
    Ok(())
}

/// Measures a cell, whose records must have been loaded.
pub(crate) async fn measure(
    system: &dyn System,
    cell: &Cell,
    times: Times,
    seed: u64,
) -> Result<Sample, String> {
    let workload = Arc::new(Workload::new(cell.work, cell.records, cell.value_bytes, seed));
    let drivers = system.drivers(cell.load.clients(), Purpose::Measure).await?;
    let clients = drivers.into_iter().enumerate().map(|(number, driver)| Client {
        stream: Stream::new(Arc::clone(&workload), number),
        workload: Arc::clone(&workload),
        driver,
    });
    let clients: Vec<Client> = clients.collect();
    let begin = std::time::Instant::now() + times.warm_up;
    let window = Window { begin, end: begin + times.measured };
    let watch = async {
        tokio::time::sleep_until(begin.into()).await;
        let processes = system.processes().ids();
        process_stats::reset_peaks(&processes);
        (process_stats::cpu(&processes), process_stats::own_cpu())
    };
    let run = async {
        match cell.load {
            Load::Closed { .. } => closed_loop::run(clients, window).await,
            Load::Open { rate, .. } => open_loop::run(clients, window, rate).await,
        }
    };
    let ((cpu, own_cpu), tally) = tokio::join!(watch, run);
    let tally = tally?;
    let seconds = begin.elapsed().as_secs_f64();
    let processes = system.processes().ids();
    Ok(Sample {
        seconds,
        system_cpu: process_stats::cpu(&processes).saturating_sub(cpu),
        generator_cpu: process_stats::own_cpu().saturating_sub(own_cpu),
        peak_memory: process_stats::peak(&processes),
        tally,
    })
}

/// One client with its operations.
struct Client {
    stream: Stream,
    workload: Arc<Workload>,
    driver: Arc<dyn Driver>,
}

/// The time in which a request must start to count.
#[derive(Clone, Copy)]
struct Window {
    begin: std::time::Instant,
    end: std::time::Instant,
}
