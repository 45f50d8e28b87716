//! What a backup costs dkv: its speed and size, and what writers beside it notice; then a restore.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use dkv_api::Client;
use dkv_backup::{CreateOptions, Created, Destination, RestoreOptions};
use dkv_base::number::whole_number;
use serde::Serialize;

use crate::history::{HistoryPlan, Second, beside_writers, say, write_all};
use crate::report::{self, Machine};
use crate::systems::{Dkv, Setup};
use crate::workload::{KEYS_MAX, VALUE_BYTES_MAX};

/// How to measure backups.
#[derive(Args, Clone, Debug)]
pub(crate) struct BackupPlan {
    /// Keys
    #[arg(long, default_value_t = 1_000_000, value_parser = whole_number(1..=KEYS_MAX))]
    keys: u64,
    /// Bytes of a value; they cannot be compressed
    #[arg(long, default_value_t = 1024, value_parser = whole_number(0..=VALUE_BYTES_MAX))]
    value_bytes: usize,
    /// Writers beside the backup
    #[arg(long, default_value_t = 64, value_parser = whole_number(1..=100_000_usize))]
    clients: usize,
    /// Where to write the backup [default: a temporary directory]
    #[arg(long)]
    destination: Option<String>,
    /// Bytes of keys and values to read in a second [default: as fast as it goes]
    #[arg(long)]
    rate: Option<u64>,
    /// A file to write the figures to, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Serialize)]
struct Figures {
    machine: Machine,
    /// Seconds of the writers, and how many of them were before and during the backup.
    backup: (Vec<Second>, usize, usize),
    seconds: f64,
    data_bytes: u64,
    stored_bytes: u64,
    restore_seconds: f64,
    restored_keys: u64,
}

/// Measures a backup and a restore.
pub(crate) async fn run(setup: &Setup, plan: &BackupPlan) -> Result<(), String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let own = directory.path().display().to_string();
    let destination = Destination::open(plan.destination.as_deref().unwrap_or(&own), true);
    let destination = destination.map_err(|error| error.to_string())?;
    let network = Dkv::start(setup).await?;
    // A restore creates a keyspace.
    let client = network.administrator().await?;
    let writers = HistoryPlan::writers(plan.keys, plan.value_bytes, plan.clients);
    write_all(&client, &writers, 1).await?;
    let backup = beside_writers(&client, &writers, create(&client, &destination, plan)).await?;
    say("backup", &backup.0);
    let (created, seconds) = backup.1;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    dkv_base::say!(
        "{} records, {:.1} MiB, {:.1} MiB stored, in {seconds:.2} s: {:.1} MiB/s",
        created.records,
        mib(created.data_bytes),
        mib(created.stored_bytes),
        mib(created.data_bytes) / seconds
    );
    let begun = Instant::now();
    let options = RestoreOptions { rename: Some("restored".into()), ..RestoreOptions::default() };
    let restored = dkv_backup::restore(&client, &destination, &options, &|_| {}).await;
    let restored = restored.map_err(|error| error.to_string())?;
    let restored_keys: u64 = restored.iter().map(|restored| restored.keys).sum();
    let restore_seconds = begun.elapsed().as_secs_f64();
    dkv_base::say!(
        "restored and compared {restored_keys} keys in {restore_seconds:.2} s: {:.0} keys/s",
        restored_keys as f64 / restore_seconds
    );
    let figures = Figures {
        machine: Machine::this(),
        backup: backup.0,
        seconds,
        data_bytes: created.data_bytes,
        stored_bytes: created.stored_bytes,
        restore_seconds,
        restored_keys,
    };
    plan.json.as_deref().map_or(Ok(()), |path| report::write_json(path, &figures))
}

async fn create(
    client: &Client,
    destination: &Destination,
    plan: &BackupPlan,
) -> Result<(Created, f64), String> {
    let begun = Instant::now();
    let options = CreateOptions { rate: plan.rate, ..CreateOptions::default() };
    let created = dkv_backup::create(client, destination, &options, &|_| {}).await;
    let created = created.map_err(|error| error.to_string())?;
    Ok((created, begun.elapsed().as_secs_f64()))
}
