//! Work as the API servers of Kubernetes do it: objects of 1 KiB are created, and updated if nobody
//! else has changed them; they are listed in pages of one revision; watches see the changes of a
//! namespace, with what was there before; leases are kept alive.
//!
//! The delay of a change is the time from the beginning of its write to its arrival at a watch.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Args;
use dkv_base::number::{decimal, whole_number};
use dkv_base::sync::lock;
use etcd_client::{
    Client, Compare, CompareOp, Error, GetOptions, PutOptions, Txn, TxnOp, TxnOpResponse,
    WatchOptions,
};
use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use tokio::task::JoinSet;

use crate::process_stats;
use crate::report::{self, Machine};
use crate::summary::histogram;
use crate::systems::{self, Kind, Setup};

/// Namespaces that the objects are in.
const NAMESPACES: u64 = 100;
/// Connections that clients share; watches have as many of their own.
const CHANNELS: usize = 4;
/// Objects of a page.
const PAGE: i64 = 100;
/// Time to live of a lease, in seconds.
const LEASE_TTL: i64 = 40;
/// Time between two signs of life of a lease.
const LEASE_EVERY: Duration = Duration::from_secs(10);

/// How to measure it.
#[derive(Args, Clone, Debug)]
pub(crate) struct KubernetesPlan {
    /// Systems: etcd and dkv-etcd
    #[arg(long, value_enum, value_delimiter = ',', default_value = "etcd,dkv-etcd")]
    systems: Vec<Kind>,
    /// Objects that are there from the beginning
    #[arg(long, default_value_t = 10_000, value_parser = whole_number(100..=10_000_000_u64))]
    objects: u64,
    /// Bytes of an object
    #[arg(long, default_value_t = 1024, value_parser = whole_number(8..=1_000_000_usize))]
    object_bytes: usize,
    /// Clients, each of which asks again when it is answered
    #[arg(long, default_value_t = 64, value_parser = whole_number(1..=100_000_usize))]
    clients: usize,
    /// Operations per second of all clients [default: as many as they can]
    #[arg(long, value_parser = decimal(0.001..=1e6))]
    rate: Option<f64>,
    /// Only updates, no reads and no lists
    #[arg(long)]
    updates_only: bool,
    /// Watches, each of one namespace
    #[arg(long, default_value_t = 1000, value_parser = whole_number(0..=100_000_usize))]
    watches: usize,
    /// Leases that are kept alive
    #[arg(long, default_value_t = 100, value_parser = whole_number(0..=10_000_usize))]
    leases: usize,
    /// Time that each is measured, in seconds
    #[arg(long, default_value_t = 10.0, value_parser = decimal(0.01..=86_400.0))]
    seconds: f64,
    /// How often each is measured
    #[arg(long, default_value_t = 1, value_parser = whole_number(1..=1000_usize))]
    rounds: usize,
    /// A file to write the figures to, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// The figures of a system.
#[derive(Serialize)]
struct Row {
    system: Kind,
    round: usize,
    operations: f64,
    updates: f64,
    conflicts: u64,
    listed: f64,
    update_p50_ms: f64,
    update_p99_ms: f64,
    events: f64,
    delay_p50_ms: f64,
    delay_p99_ms: f64,
    /// Processor time of the system for an operation, in microseconds.
    cpu_us: f64,
    /// That of this program.
    own_cpu_us: f64,
    peak_mib: u64,
}

#[derive(Serialize)]
struct Rows {
    machine: Machine,
    rows: Vec<Row>,
}

/// Measures all systems in turn.
pub(crate) async fn run(setup: &Setup, plan: &KubernetesPlan) -> Result<(), String> {
    dkv_base::say!(
        "system    ops/s  updates/s  p50 ms  p99 ms  listed/s  events/s  seen p50  seen p99  \
         CPU us/op  own us/op  MiB"
    );
    let mut rows = Vec::new();
    for round in 0..plan.rounds {
        for turn in 0..plan.systems.len() {
            let kind = plan.systems[(turn + round) % plan.systems.len()];
            let row = measure(setup, plan, kind, round).await?;
            dkv_base::say!(
                "{:<8} {:>6.0} {:>10.0} {:>7.2} {:>7.2} {:>9.0} {:>9.0} {:>9.2} {:>9.2} {:>10.1} \
                 {:>10.1} {:>4}",
                kind.name(),
                row.operations,
                row.updates,
                row.update_p50_ms,
                row.update_p99_ms,
                row.listed,
                row.events,
                row.delay_p50_ms,
                row.delay_p99_ms,
                row.cpu_us,
                row.own_cpu_us,
                row.peak_mib,
            );
            rows.push(row);
        }
    }
    let rows = Rows { machine: Machine::this(), rows };
    plan.json.as_deref().map_or(Ok(()), |path| report::write_json(path, &rows))
}

/// What all tasks share.
struct Shared {
    begun: Instant,
    object_bytes: usize,
    updates_only: bool,
    updates: Mutex<Histogram<u64>>,
    delays: Mutex<Histogram<u64>>,
    /// Whether events are counted.
    counts: std::sync::atomic::AtomicBool,
    conflicts: AtomicU64,
    listed: AtomicU64,
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Returns an object that says when its write began.
    fn object(&self) -> Vec<u8> {
        let mut object = vec![b'o'; self.object_bytes];
        object[..8].copy_from_slice(&self.now().to_be_bytes());
        object
    }
}

fn key(object: u64) -> String {
    format!("/registry/pods/ns-{:02}/pod-{object:07}", object % NAMESPACES)
}

fn namespace(number: u64) -> String {
    format!("/registry/pods/ns-{:02}/", number % NAMESPACES)
}

async fn measure(
    setup: &Setup,
    plan: &KubernetesPlan,
    kind: Kind,
    round: usize,
) -> Result<Row, String> {
    let time = Duration::try_from_secs_f64(plan.seconds).map_err(|error| error.to_string())?;
    let system = systems::start(kind, setup).await?;
    let endpoint = system.etcd_endpoint().await?;
    let connect = async || {
        let client = Client::connect([endpoint.clone()], None).await;
        client.map_err(|error| error.to_string())
    };
    let shared = Arc::new(Shared {
        begun: Instant::now(),
        object_bytes: plan.object_bytes,
        updates_only: plan.updates_only,
        updates: Mutex::new(histogram()),
        delays: Mutex::new(histogram()),
        counts: false.into(),
        conflicts: AtomicU64::new(0),
        listed: AtomicU64::new(0),
    });
    let mut channels = Vec::new();
    for _ in 0..2 * CHANNELS {
        channels.push(connect().await?);
    }
    let failed = |error: Error| error.to_string();
    create(&channels[0], &shared, plan.objects).await.map_err(failed)?;
    let mut others = JoinSet::new();
    for number in 0..plan.watches {
        let client = channels[CHANNELS + number % CHANNELS].clone();
        let begun = watch(client, Arc::clone(&shared), number as u64).await.map_err(failed)?;
        others.spawn(begun);
    }
    for _ in 0..plan.leases {
        others.spawn(keep(channels[0].clone()));
    }
    let ids = system.processes().ids();
    process_stats::reset_peaks(&ids);
    let (cpu, own) = (process_stats::cpu(&ids), process_stats::own_cpu());
    shared.counts.store(true, Ordering::Relaxed);
    let (begun, end) = (Instant::now(), Instant::now() + time);
    let mut clients = JoinSet::new();
    for number in 0..plan.clients {
        let pause = plan.rate.map(|rate| Duration::from_secs_f64(plan.clients as f64 / rate));
        clients.spawn(work(
            channels[number % CHANNELS].clone(),
            Arc::clone(&shared),
            (number as u64, plan.objects),
            pause,
            end,
        ));
    }
    let mut operations = 0;
    while let Some(done) = clients.join_next().await {
        operations += done.map_err(|error| error.to_string())?.map_err(failed)?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let cpu = process_stats::cpu(&ids).saturating_sub(cpu);
    let own = process_stats::own_cpu().saturating_sub(own);
    if let Some(ended) = others.try_join_next() {
        let why = ended.map_err(|error| error.to_string())?;
        return Err(why.err().map_or("a watch ended".to_owned(), failed));
    }
    let (updates, delays) = (lock(&shared.updates), lock(&shared.delays));
    let ms = |histogram: &Histogram<u64>, at| histogram.value_at_quantile(at) as f64 / 1e6;
    Ok(Row {
        system: kind,
        round,
        operations: operations as f64 / seconds,
        updates: updates.len() as f64 / seconds,
        conflicts: shared.conflicts.load(Ordering::Relaxed),
        listed: shared.listed.load(Ordering::Relaxed) as f64 / seconds,
        update_p50_ms: ms(&updates, 0.5),
        update_p99_ms: ms(&updates, 0.99),
        events: delays.len() as f64 / seconds,
        delay_p50_ms: ms(&delays, 0.5),
        delay_p99_ms: ms(&delays, 0.99),
        cpu_us: cpu.as_secs_f64() * 1e6 / operations.max(1) as f64,
        own_cpu_us: own.as_secs_f64() * 1e6 / operations.max(1) as f64,
        peak_mib: process_stats::peak(&ids) >> 20,
    })
}

/// Creates the objects, if they do not exist, as the API server does.
async fn create(client: &Client, shared: &Arc<Shared>, objects: u64) -> Result<(), Error> {
    let next = Arc::new(AtomicU64::new(0));
    let mut creators = JoinSet::new();
    for _ in 0..64 {
        let (mut kv, next, shared) = (client.kv_client(), Arc::clone(&next), Arc::clone(shared));
        creators.spawn(async move {
            loop {
                let object = next.fetch_add(1, Ordering::Relaxed);
                if object >= objects {
                    return Ok::<_, Error>(());
                }
                let key = key(object);
                let is_new = Compare::mod_revision(key.as_str(), CompareOp::Equal, 0);
                let put = TxnOp::put(key, shared.object(), None);
                kv.txn(Txn::new().when([is_new]).and_then([put])).await?;
            }
        });
    }
    while let Some(done) = creators.join_next().await {
        done.unwrap_or(Ok(()))?;
    }
    Ok(())
}

/// Begins a watch of a namespace; the returned future reads it.
async fn watch(
    mut client: Client,
    shared: Arc<Shared>,
    number: u64,
) -> Result<impl Future<Output = Result<(), Error>>, Error> {
    let options = WatchOptions::new().with_prefix().with_prev_key().with_progress_notify();
    let mut watch = client.watch(namespace(number), Some(options)).await?;
    let first = watch.message().await?;
    let first = first.as_ref();
    let first = first.map(|first| (first.created(), first.canceled(), first.cancel_reason()));
    check_begun(first).map_err(Error::WatchError)?;
    Ok(async move {
        while let Some(answer) = watch.message().await? {
            let now = shared.now();
            if !shared.counts.load(Ordering::Relaxed) {
                continue;
            }
            let mut delays = lock(&shared.delays);
            for value in answer.events().iter().filter_map(|event| event.kv()) {
                if let Some(begun) = value.value().first_chunk() {
                    // Cannot fail: the histogram resizes itself.
                    let _ = delays.record(now.saturating_sub(u64::from_be_bytes(*begun)));
                }
            }
        }
        Ok(())
    })
}

/// Checks that a watch has begun, by its first answer: whether it was created, whether it has
/// ended, and why. A refused one would see no events, and cost nothing.
fn check_begun(first: Option<(bool, bool, &str)>) -> Result<(), String> {
    match first {
        Some((true, false, _)) => Ok(()),
        Some((_, _, why)) => Err(format!("a watch was refused: {why}")),
        None => Err("a watch ended before it began".to_owned()),
    }
}

/// Keeps a lease with a key alive.
async fn keep(client: Client) -> Result<(), Error> {
    let (mut leases, mut kv) = (client.lease_client(), client.kv_client());
    let id = leases.grant(LEASE_TTL, None).await?.id();
    let options = PutOptions::new().with_lease(id);
    kv.put(format!("/registry/leases/{id}"), "node", Some(options)).await?;
    let (mut keeper, mut kept) = leases.keep_alive(id).await?;
    loop {
        keeper.keep_alive().await?;
        kept.message().await?;
        tokio::time::sleep(LEASE_EVERY).await;
    }
}

/// Asks until the end; returns the number of operations.
async fn work(
    client: Client,
    shared: Arc<Shared>,
    (number, objects): (u64, u64),
    pause: Option<Duration>,
    end: Instant,
) -> Result<u64, Error> {
    let mut random = SmallRng::seed_from_u64(number);
    let mut kv = client.kv_client();
    let mut due = Instant::now() + pause.unwrap_or_default().mul_f64(random.random());
    for done in 0.. {
        if let Some(pause) = pause {
            tokio::time::sleep_until(due.into()).await;
            due += pause;
        }
        if Instant::now() >= end {
            return Ok(done);
        }
        let object = random.random_range(0..objects);
        match random.random_range(0..100) {
            0..=1 if !shared.updates_only => list(&mut kv, &shared, object).await?,
            2..=39 if !shared.updates_only => _ = kv.get(key(object), None).await?,
            _ => update(&mut kv, &shared, &key(object)).await?,
        }
    }
    Ok(0)
}

/// Changes an object as it was last seen, and again for as long as somebody else has meanwhile: of
/// those that meet, one is done each time.
async fn update(kv: &mut etcd_client::KvClient, shared: &Shared, key: &str) -> Result<(), Error> {
    let found = kv.get(key, None).await?;
    let mut revision = found.kvs().first().map_or(0, |found| found.mod_revision());
    loop {
        let begun = Instant::now();
        let unchanged = Compare::mod_revision(key, CompareOp::Equal, revision);
        let put = TxnOp::put(key, shared.object(), None);
        let txn = Txn::new().when([unchanged]).and_then([put]).or_else([TxnOp::get(key, None)]);
        let answer = kv.txn(txn).await?;
        if answer.succeeded() {
            let took = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let _ = lock(&shared.updates).record(took);
            return Ok(());
        }
        shared.conflicts.fetch_add(1, Ordering::Relaxed);
        revision = match answer.op_responses().first() {
            Some(TxnOpResponse::Get(found)) => {
                found.kvs().first().map_or(0, |found| found.mod_revision())
            }
            _ => 0,
        };
    }
}

/// Lists a namespace in pages of one revision.
async fn list(kv: &mut etcd_client::KvClient, shared: &Shared, object: u64) -> Result<(), Error> {
    let prefix = namespace(object);
    let mut end = prefix.clone().into_bytes();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    let (mut from, mut revision) = (prefix.into_bytes(), 0);
    loop {
        let options =
            GetOptions::new().with_range(end.clone()).with_limit(PAGE).with_revision(revision);
        let page = kv.get(from, Some(options)).await?;
        shared.listed.fetch_add(page.kvs().len() as u64, Ordering::Relaxed);
        revision = page.header().map_or(0, |header| header.revision());
        match page.kvs().last() {
            Some(last) if page.more() => from = [last.key(), &[0]].concat(),
            _ => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::check_begun;

    #[test]
    fn a_watch_that_is_refused_has_not_begun() {
        assert_eq!(check_begun(Some((true, false, ""))), Ok(()));
        let refused = check_begun(Some((true, true, "too many requests")));
        assert_eq!(refused, Err("a watch was refused: too many requests".to_owned()));
        assert!(check_begun(Some((false, false, ""))).is_err() && check_begun(None).is_err());
    }
}
