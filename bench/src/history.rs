//! What history costs dkv.
//!
//! One network with a keyspace whose history keeps everything: the memory that past versions take,
//! then compaction of all of them beside writers, then a scan of everything as a snapshot beside
//! writers. What the writers notice is the 99th percentile of their writes, second by second.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use dkv_api::{Client, KeyspaceSettings, ScanOptions};
use dkv_base::number::whole_number;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::process_stats;
use crate::report::{self, Machine};
use crate::summary::histogram;
use crate::systems::dkv::SHARDS_MAX;
use crate::systems::{Dkv, Setup, System};
use crate::workload::{self, KEYS_MAX, VALUE_BYTES_MAX, key};

/// Time that the network has to settle before its memory is read.
const REST: Duration = Duration::from_secs(5);
/// Time for which the writers are watched before and after what is measured.
const AROUND: Duration = Duration::from_secs(5);
/// Requests under way while keys are written.
const LOADERS: usize = 256;

/// How to measure history.
#[derive(Args, Clone, Debug)]
pub(crate) struct HistoryPlan {
    /// Keys
    #[arg(long, default_value_t = 100_000, value_parser = whole_number(1..=KEYS_MAX))]
    keys: u64,
    /// Past versions of each key
    #[arg(long, default_value_t = 10, value_parser = whole_number(0..=10_000_u64))]
    versions: u64,
    /// Bytes of a value
    #[arg(long, default_value_t = 100, value_parser = whole_number(0..=VALUE_BYTES_MAX))]
    value_bytes: usize,
    /// Shards of the keyspace
    #[arg(long, default_value_t = 1, value_parser = whole_number(1..=SHARDS_MAX))]
    keyspace_shards: u32,
    /// Writers beside the compaction and the scan
    #[arg(long, default_value_t = 64, value_parser = whole_number(1..=100_000_usize))]
    clients: usize,
    /// A file to write the figures to, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

impl HistoryPlan {
    /// Returns a plan for these writers only.
    pub(crate) fn writers(keys: u64, value_bytes: usize, clients: usize) -> Self {
        Self { keys, versions: 0, value_bytes, keyspace_shards: 1, clients, json: None }
    }
}

/// What writers saw in a second.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Second {
    writes: u64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

#[derive(Serialize)]
struct Figures {
    machine: Machine,
    versions: u64,
    /// Anonymous memory that a past version takes beside its value, for each node.
    bytes_per_version: Vec<(String, f64)>,
    /// Seconds of the writers, and how many of them were before and during the compaction.
    compaction: (Vec<Second>, usize, usize),
    /// The same of the scan.
    scan: (Vec<Second>, usize, usize),
    scanned: u64,
    scan_seconds: f64,
}

/// Measures memory, compaction and a scan.
pub(crate) async fn run(setup: &Setup, plan: &HistoryPlan) -> Result<(), String> {
    let network = Dkv::start(setup).await?;
    let client = keyspace(&network.administrator().await?, plan).await?;
    write_all(&client, plan, 1).await?;
    let before = anonymous(&network).await;
    write_all(&client, plan, plan.versions).await?;
    let after = anonymous(&network).await;
    let versions = plan.keys * plan.versions;
    let grown = before.iter().zip(&after).filter(|((name, _), _)| name != "server");
    let bytes_per_version: Vec<(String, f64)> = grown
        .map(|((name, before), (_, after))| {
            let each = (*after as f64 - *before as f64) / versions.max(1) as f64;
            (name.clone(), each - plan.value_bytes as f64)
        })
        .collect();
    for (name, bytes) in &bytes_per_version {
        dkv_base::say!("{name}: {bytes:.0} B for each of {versions} versions beside its value");
    }
    let compaction = beside_writers(&client, plan, compact(&client)).await?;
    say("compaction", &compaction.0);
    let scan = beside_writers(&client, plan, scan(&client)).await?;
    say("scan of a snapshot", &scan.0);
    let (scanned, scan_seconds) = scan.1;
    dkv_base::say!(
        "scanned {scanned} keys in {scan_seconds:.2} s, {:.0} keys/s",
        scanned as f64 / scan_seconds
    );
    let figures = Figures {
        machine: Machine::this(),
        versions,
        bytes_per_version,
        compaction: compaction.0,
        scan: scan.0,
        scanned,
        scan_seconds,
    };
    plan.json.as_deref().map_or(Ok(()), |path| report::write_json(path, &figures))
}

/// Creates a keyspace that forgets nothing.
async fn keyspace(client: &Client, plan: &HistoryPlan) -> Result<Client, String> {
    let settings = KeyspaceSettings {
        shards: plan.keyspace_shards,
        history_age_ms: 24 * 3600 * 1000,
        history_bytes: 1 << 40,
        ..KeyspaceSettings::default()
    };
    client.create_keyspace("history", settings).await.map_err(|error| error.to_string())?;
    client.keyspace("history").await.map_err(|error| error.to_string())
}

/// Writes each key so many times.
pub(crate) async fn write_all(
    client: &Client,
    plan: &HistoryPlan,
    times: u64,
) -> Result<(), String> {
    let mut tasks = JoinSet::new();
    for first in 0..LOADERS as u64 {
        let (client, keys, bytes) = (client.clone(), plan.keys, plan.value_bytes);
        tasks.spawn(async move {
            for _ in 0..times {
                for number in (first..keys).step_by(LOADERS) {
                    // Equal values would take no room in a backup.
                    client.write(key(number), workload::value(bytes, number)).await?;
                }
            }
            Ok::<(), dkv_api::Error>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        let done = done.map_err(|error| error.to_string())?;
        done.map_err(|error| format!("writing: {error}"))?;
    }
    Ok(())
}

/// Returns the anonymous memory of each process.
async fn anonymous(network: &Dkv) -> Vec<(String, u64)> {
    tokio::time::sleep(REST).await;
    let each = network.processes().named().into_iter();
    each.map(|(name, id)| (name, process_stats::memory(id).anonymous)).collect()
}

/// Forgets all past versions, and returns how long that took.
async fn compact(client: &Client) -> Result<f64, String> {
    let begun = Instant::now();
    let view = client.view().await.map_err(|error| error.to_string())?;
    for shard in view.shards_of(client.keyspace_id()) {
        // Any key of the shard tells its revision.
        let mut number = 0;
        let revision = loop {
            let key = key(number);
            let own = view.shard_of(client.keyspace_id(), key.as_bytes());
            if own.is_some_and(|own| own.group == shard.group) {
                let written = client.write(&key, "").await.map_err(|error| error.to_string())?;
                break written.receipt.revision;
            }
            number += 1;
        };
        let compacted = client.compact_shard(shard.group, revision).await;
        compacted.map_err(|error| error.to_string())?;
    }
    Ok(begun.elapsed().as_secs_f64())
}

/// Scans everything as a snapshot; returns the number of keys and how long it took.
async fn scan(client: &Client) -> Result<(u64, f64), String> {
    let begun = Instant::now();
    let snapshot = client.snapshot().await.map_err(|error| error.to_string())?;
    let mut scan = snapshot.scan(ScanOptions::default());
    let mut keys = 0;
    while scan.next().await.map_err(|error| error.to_string())?.is_some() {
        keys += 1;
    }
    Ok((keys, begun.elapsed().as_secs_f64()))
}

pub(crate) type Beside<T> = ((Vec<Second>, usize, usize), T);

/// Does something beside writers. Returns their seconds, and how many of them were before and
/// during it.
pub(crate) async fn beside_writers<T>(
    client: &Client,
    plan: &HistoryPlan,
    work: impl Future<Output = Result<T, String>>,
) -> Result<Beside<T>, String> {
    let current = Arc::new(Mutex::new(histogram()));
    // Dropped at the end, which ends the writers.
    let mut writers = JoinSet::new();
    for number in 0..plan.clients as u64 {
        let (client, current, keys) = (client.clone(), Arc::clone(&current), plan.keys);
        let value = workload::value(plan.value_bytes, number);
        writers.spawn(async move {
            for turn in 0_u64.. {
                let begun = Instant::now();
                let key = key((number * 7919 + turn) % keys);
                if client.write(key, value.clone()).await.is_ok() {
                    let latency = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
                    // Cannot fail: the histogram resizes itself.
                    let _ = current.lock().record(latency);
                }
            }
        });
    }
    let seconds = Mutex::new(Vec::new());
    let collect = async {
        let mut every = tokio::time::interval(Duration::from_secs(1));
        every.tick().await;
        loop {
            every.tick().await;
            let second = std::mem::replace(&mut *current.lock(), histogram());
            let ms = |quantile| second.value_at_quantile(quantile) as f64 / 1e6;
            let (p50_ms, p99_ms, max_ms) = (ms(0.5), ms(0.99), ms(1.0));
            seconds.lock().push(Second { writes: second.len(), p50_ms, p99_ms, max_ms });
        }
    };
    let measure = async {
        tokio::time::sleep(AROUND).await;
        let before = seconds.lock().len();
        let done = work.await?;
        let during = seconds.lock().len().saturating_sub(before) + 1;
        tokio::time::sleep(AROUND).await;
        Ok::<_, String>((before, during, done))
    };
    tokio::select! {
        () = collect => Err("the collection of figures ended".into()),
        measured = measure => {
            let (before, during, done) = measured?;
            let seconds = seconds.lock().clone();
            Ok(((seconds, before, during), done))
        }
    }
}

pub(crate) fn say(what: &str, (seconds, before, during): &(Vec<Second>, usize, usize)) {
    dkv_base::say!("{what}: seconds of the writers");
    for (number, second) in seconds.iter().enumerate() {
        let when = match number {
            number if number < *before => "before",
            number if number < before + during => "during",
            _ => "after",
        };
        dkv_base::say!(
            "  {when:<6} {:>7} writes, p50 {:>6.2} ms, p99 {:>6.2} ms, max {:>7.2} ms",
            second.writes,
            second.p50_ms,
            second.p99_ms,
            second.max_ms
        );
    }
}
