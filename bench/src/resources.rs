//! What idle systems cost: CPU time, and memory for what they hold.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use dkv_base::number::whole_number;
use serde::Serialize;

use crate::generator;
use crate::process_stats::{self, Memory};
use crate::report::{self, Machine};
use crate::systems::{self, Kind, Setup, System};
use crate::workload::{KEYS_MAX, VALUE_BYTES_MAX};

/// Time that a system has to settle after its start, and after it was loaded.
const REST: Duration = Duration::from_secs(5);

/// How to measure idle systems.
#[derive(Args, Clone, Debug)]
pub(crate) struct IdlePlan {
    /// Time that is measured, in seconds
    #[arg(long, default_value_t = 30, value_parser = whole_number(1..=86_400_u64))]
    seconds: u64,
    /// Systems
    #[arg(long, value_enum, value_delimiter = ',', default_value = "dkv")]
    systems: Vec<Kind>,
    /// A file to write the figures to, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// How to measure loaded systems.
#[derive(Args, Clone, Debug)]
pub(crate) struct MemoryPlan {
    /// Keys
    #[arg(long, default_value_t = 1_000_000, value_parser = whole_number(1..=KEYS_MAX))]
    keys: u64,
    /// Bytes of a value
    #[arg(long, default_value_t = 100, value_parser = whole_number(0..=VALUE_BYTES_MAX))]
    value_bytes: usize,
    /// Systems
    #[arg(long, value_enum, value_delimiter = ',', default_value = "dkv")]
    systems: Vec<Kind>,
    /// A file to write the figures to, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// CPU time of the processes of an idle system.
#[derive(Serialize)]
struct Idle {
    system: Kind,
    seconds: f64,
    /// Share of one processor for each process, in percent.
    cpu_percent: Vec<(String, f64)>,
}

/// Memory of the processes of a loaded system.
#[derive(Serialize)]
struct Full {
    system: Kind,
    keys: u64,
    value_bytes: usize,
    /// Time that loading took, in seconds.
    load_seconds: f64,
    empty: Vec<(String, Memory)>,
    full: Vec<(String, Memory)>,
}

#[derive(Serialize)]
struct Figures<T> {
    machine: Machine,
    figures: Vec<T>,
}

/// Measures CPU time while there are no requests.
pub(crate) async fn idle(setup: &Setup, plan: &IdlePlan) -> Result<(), String> {
    let mut figures = Vec::new();
    dkv_base::say!("system         process        % of a processor");
    for kind in &plan.systems {
        let system = systems::start(*kind, setup).await?;
        tokio::time::sleep(REST).await;
        let cpu = |(name, id)| (name, process_stats::cpu(&[id]));
        let named = || system.processes().named().into_iter();
        let before: Vec<(String, Duration)> = named().map(cpu).collect();
        let begun = Instant::now();
        tokio::time::sleep(Duration::from_secs(plan.seconds)).await;
        let seconds = begun.elapsed().as_secs_f64();
        let each = named().map(cpu).zip(before).map(|((name, after), (_, before))| {
            (name, after.saturating_sub(before).as_secs_f64() / seconds * 100.0)
        });
        let cpu_percent: Vec<(String, f64)> = each.collect();
        for (name, percent) in &cpu_percent {
            dkv_base::say!("{:<14} {name:<14} {percent:>16.2}", kind.name());
        }
        let sum: f64 = cpu_percent.iter().map(|(_, percent)| percent).sum();
        dkv_base::say!("{:<14} {:<14} {sum:>16.2}", kind.name(), "all");
        figures.push(Idle { system: *kind, seconds, cpu_percent });
    }
    let figures = Figures { machine: Machine::this(), figures };
    plan.json.as_deref().map_or(Ok(()), |path| report::write_json(path, &figures))
}

/// Measures memory with and without keys.
pub(crate) async fn memory(setup: &Setup, plan: &MemoryPlan) -> Result<(), String> {
    let mut figures = Vec::new();
    dkv_base::say!("{} keys, values of {} B; resident MiB", plan.keys, plan.value_bytes);
    dkv_base::say!("system         process    empty     full  anonymous     peak  bytes/key");
    for kind in &plan.systems {
        let system = systems::start(*kind, setup).await?;
        tokio::time::sleep(REST).await;
        let empty = memories(&*system);
        let begun = Instant::now();
        generator::load(&*system, plan.keys, plan.value_bytes).await?;
        let load_seconds = begun.elapsed().as_secs_f64();
        tokio::time::sleep(REST).await;
        let full = memories(&*system);
        for ((name, empty), (_, full)) in empty.iter().zip(&full) {
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            let grown = full.resident.saturating_sub(empty.resident) as f64;
            dkv_base::say!(
                "{:<14} {name:<8} {:>7.0} {:>8.0} {:>10.0} {:>8.0} {:>10.0}",
                kind.name(),
                mib(empty.resident),
                mib(full.resident),
                mib(full.anonymous),
                mib(full.peak),
                grown / plan.keys.max(1) as f64,
            );
        }
        dkv_base::say!("{:<14} loaded in {load_seconds:.1} s", kind.name());
        let (system, keys, value_bytes) = (*kind, plan.keys, plan.value_bytes);
        figures.push(Full { system, keys, value_bytes, load_seconds, empty, full });
    }
    let figures = Figures { machine: Machine::this(), figures };
    plan.json.as_deref().map_or(Ok(()), |path| report::write_json(path, &figures))
}

fn memories(system: &dyn System) -> Vec<(String, Memory)> {
    let each = system.processes().named().into_iter();
    each.map(|(name, id)| (name, process_stats::memory(id))).collect()
}
