//! `dkv rehearse`: measures the latency of each level from each region.
//!
//! It starts a network of real processes on this machine, with the requested delays between
//! regions. From each region, a client measures each kind of request, for keys whose primaries are
//! in each region. The table compares each measurement with the time that the distances alone take:
//! to the primary and back and, if a majority is needed, from the primary to the nearest majority
//! and back.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dkv_api::{
    Client, ConnectError, Error, KeyspaceId, Level, NetworkView, NodeId, Placement, ReadOptions,
    Region, Role,
};
use dkv_console::Console;
use dkv_console::problem::Problem;
use dkv_console::signals::Signals;
use dkv_console::units::{number, plural};
use dkv_local::error::StartError;
use dkv_local::{LocalNetwork, NetworkDir, Options, regions};
use dkv_wire::network::Delays;

use crate::cli::{Connect, RehearseArgs};
use crate::exit::{ended, finished};

/// Number of keys to try until every region with a primary has one.
const KEYS_TRIED: u32 = 10_000;
/// Time limit of a request.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Time without moves before measuring starts: longer than any step of a move, and longer than the
/// coordinator waits before it plans one.
const SETTLED: Duration = Duration::from_secs(10);
/// Time after which measuring starts in any case.
const SETTLED_WAIT_MAX: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(5);

/// A kind of request to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Get(Level),
    /// A strong read that the nearest replica answers.
    GetNearest,
    Put(Level),
}

const KINDS: [Kind; 8] = [
    Kind::Get(Level::Eventual),
    Kind::Get(Level::Session),
    Kind::GetNearest,
    Kind::Get(Level::Strong),
    Kind::Get(Level::All),
    Kind::Put(Level::Strong),
    Kind::Put(Level::All),
    // Last, so that no other request waits for its delivery.
    Kind::Put(Level::Eventual),
];

impl Kind {
    fn name(self) -> String {
        match self {
            Self::Get(level) => format!("get {}", level.word()),
            Self::GetNearest => "get nearest".to_owned(),
            Self::Put(level) => format!("put {}", level.word()),
        }
    }
}

/// Why a rehearsal ended early.
#[derive(Debug, thiserror::Error)]
enum RehearseError {
    /// The network does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The network admits no client.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A client does not learn where the keys are.
    #[error(transparent)]
    View(Error),
    /// A request to be measured failed.
    #[error("{}: {source}", .kind.name())]
    Request { kind: Kind, source: Error },
}

/// Times of one kind of request from one region.
struct Row {
    from: Region,
    kind: Kind,
    /// By region of the primary: the measured time, and the time of the distances alone.
    times: BTreeMap<Region, (Duration, Duration)>,
}

/// Starts the network, measures, and prints the table.
pub(crate) async fn run(mut args: RehearseArgs, outer: Connect, console: &mut Console) -> ExitCode {
    args.connect = args.connect.clone().or(outer);
    if let Some(option) = args.connect.typed(&["--level", "--region", "--token-file", "--keyspace"])
    {
        let why =
            format!("rehearse does not take {option}: it measures every level from every region");
        return ended(console, &Problem::usage(why));
    }
    if let Err(error) = regions::delays(&args.regions, args.delays.as_deref(), args.delays_vary) {
        return ended(console, &error.into());
    }
    let mut signals = match Signals::take() {
        Ok(signals) => signals,
        Err(error) => return failed(console, &format!("cannot listen for signals: {error}")),
    };
    let local = Options {
        nodes: args.nodes,
        regions: args.regions.clone(),
        delays: args.delays.clone(),
        delays_vary: args.delays_vary,
        shards: args.shards,
        request_timeout: args.connect.timeout,
        client_region: args.connect.region.clone(),
        ..Options::temporary(1)
    };
    let network = match NetworkDir::open(&local).and_then(|dir| LocalNetwork::new(dir, &local)) {
        Ok(network) => network,
        Err(error) => return failed(console, &error.to_string()),
    };
    let rehearsed = tokio::select! {
        rehearsed = rehearse(&network, &local, args.samples, console) => rehearsed,
        ending = signals.next() => {
            network.stop(console).await;
            return ExitCode::from(ending.status());
        }
    };
    network.stop(console).await;
    match rehearsed {
        Ok(rows) => {
            let told =
                console.result(&table(&rows, args.samples), || document(&rows, args.samples));
            finished(console, told.map(|()| None))
        }
        Err(error) => failed(console, &error.to_string()),
    }
}

fn failed(console: &mut Console, problem: &str) -> ExitCode {
    console.error(problem);
    ExitCode::FAILURE
}

async fn rehearse(
    network: &LocalNetwork,
    local: &Options,
    samples: u32,
    console: &mut Console,
) -> Result<Vec<Row>, RehearseError> {
    network.bring_up(local.start_timeout, console).await?;
    wait_until_settled(network, console).await?;
    let done = AtomicU64::new(0);
    let mut measuring = Vec::new();
    for region in &local.regions {
        let client = network.connect_in(Role::Client, Some(region.clone())).await?;
        measuring.push(measure(client, region, samples, &done));
    }
    // From each region, each kind of request for a key in each region, after two to warm up.
    let regions = local.regions.len() as u64;
    let all = regions * regions * KINDS.len() as u64 * (u64::from(samples) + 2);
    let mut measured = std::pin::pin!(futures::future::join_all(measuring));
    let rows = loop {
        match tokio::time::timeout(PROGRESS, &mut measured).await {
            Ok(rows) => break rows,
            Err(_) => console.note(&progress(done.load(Ordering::Relaxed), all)),
        }
    };
    Ok(rows.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// Describes the progress of measuring.
fn progress(done: u64, all: u64) -> String {
    let percent = (done * 100 / all.max(1)).min(100);
    format!("measuring: {} of {} requests ({percent}%)", number(done), number(all))
}

/// Waits until replicas and primaries stop moving. A new network spreads them over its regions, and
/// a request that meets a moving primary takes longer.
async fn wait_until_settled(
    network: &LocalNetwork,
    console: &mut Console,
) -> Result<(), ConnectError> {
    console.note(&format!(
        "waiting until nothing has moved for {} s, so that the primaries are spread over the \
         regions",
        SETTLED.as_secs()
    ));
    let client = network.connect(Role::Client).await?;
    let begun = Instant::now();
    let mut last: Option<(Placement, Instant)> = None;
    let mut told = begun;
    let rested = loop {
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            let (waited, most) = (begun.elapsed().as_secs(), SETTLED_WAIT_MAX.as_secs());
            let moving = last.as_ref().map_or(0, |(placement, _)| placement.moves.len() as u64);
            let replicas = plural(moving, "replica", "replicas");
            console.note(&format!(
                "still waiting after {waited} s of at most {most} s: {moving} {replicas} moving"
            ));
        }
        // This fails while the coordinator changes.
        if let Ok(placement) = client.placement(false).await {
            let is_same = last.as_ref().is_some_and(|(before, _)| *before == placement);
            if !is_same || !placement.moves.is_empty() {
                last = Some((placement, Instant::now()));
            }
        }
        if last.as_ref().is_some_and(|(_, since)| since.elapsed() >= SETTLED) {
            break true;
        }
        if begun.elapsed() >= SETTLED_WAIT_MAX {
            break false;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    client.close().await;
    if !rested {
        console.note("replicas are still moving, which makes some requests slower");
    }
    Ok(())
}

/// Measures everything from one region.
async fn measure(
    client: Client,
    from: &Region,
    samples: u32,
    done: &AtomicU64,
) -> Result<Vec<Row>, RehearseError> {
    let view = client.view().await.map_err(RehearseError::View)?;
    let mut rows: Vec<Row> = KINDS
        .into_iter()
        .map(|kind| Row { from: from.clone(), kind, times: BTreeMap::new() })
        .collect();
    for (region, key) in keys(&view, from) {
        for row in &mut rows {
            let measured = median(&client, row.kind, &key, samples, done).await?;
            let alone = geometry(&view, from, key.as_bytes(), row.kind).unwrap_or_default();
            row.times.insert(region.clone(), (measured, alone));
        }
    }
    client.close().await;
    Ok(rows)
}

/// Returns, for each region with a primary, a key whose primary is there. No other client uses it.
fn keys(view: &NetworkView, from: &Region) -> BTreeMap<Region, String> {
    let mut keys = BTreeMap::new();
    for number in 0..KEYS_TRIED {
        let key = format!("rehearsal/{from}/{number}");
        let primary =
            view.shard_of(KeyspaceId::DEFAULT, key.as_bytes()).and_then(|shard| shard.primary);
        if let Some(region) = primary.and_then(|primary| view.node(primary)?.region.clone()) {
            keys.entry(region).or_insert(key);
        }
    }
    keys
}

async fn median(
    client: &Client,
    kind: Kind,
    key: &str,
    samples: u32,
    done: &AtomicU64,
) -> Result<Duration, RehearseError> {
    // The first requests open connections and sessions, and find the primaries.
    for _ in 0..2 {
        ask(client, kind, key).await?;
        done.fetch_add(1, Ordering::Relaxed);
    }
    let mut times = Vec::new();
    for _ in 0..samples {
        let begun = Instant::now();
        ask(client, kind, key).await?;
        times.push(begun.elapsed());
        done.fetch_add(1, Ordering::Relaxed);
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

async fn ask(client: &Client, kind: Kind, key: &str) -> Result<(), RehearseError> {
    let asked = match kind {
        Kind::Get(_) | Kind::GetNearest => {
            let nearest = kind == Kind::GetNearest;
            let level = if let Kind::Get(level) = kind { level } else { Level::Strong };
            let options = ReadOptions::from(level).timeout(TIMEOUT).nearest(nearest);
            client.read_with(key, options).await.map(drop)
        }
        Kind::Put(level) => client.write_with(key, "a value", level.into()).await.map(drop),
    };
    match asked {
        Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
        Err(source) => Err(RehearseError::Request { kind, source }),
    }
}

/// Returns the time that the distances alone take.
fn geometry(view: &NetworkView, from: &Region, key: &[u8], kind: Kind) -> Option<Duration> {
    let delays = &view.settings.delays;
    let place = |node: NodeId| {
        let node = view.node(node)?;
        delays.place(Some(&node.name), node.region.as_ref())
    };
    let shard = view.shard_of(KeyspaceId::DEFAULT, key)?;
    let own = delays.place(None, Some(from))?;
    let primary = place(shard.primary?)?;
    // From the primary to the nearest majority of these, itself included, or to all of them, and
    // back.
    let to = |members: &mut dyn Iterator<Item = &NodeId>, majority: bool| {
        let mut trips: Vec<Duration> =
            members.filter_map(|node| Some(round_trip(delays, primary, place(*node)?))).collect();
        trips.sort_unstable();
        if majority { trips.get(trips.len() / 2).copied() } else { trips.last().copied() }
    };
    let there = round_trip(delays, own, primary);
    let mut replicas = shard.voters.iter().chain(&shard.learners);
    match kind {
        Kind::Get(Level::Eventual | Level::Session) | Kind::Put(Level::Eventual) => {
            replicas.filter_map(|node| Some(round_trip(delays, own, place(*node)?))).min()
        }
        Kind::Get(Level::Strong) | Kind::Put(Level::Strong | Level::Session) => {
            Some(there + to(&mut shard.voters.iter(), true)?)
        }
        // To the replica, and from there to the primary, where the replica counts as a vote.
        Kind::GetNearest => {
            let nearest = shard.voters.iter().filter_map(|node| place(*node));
            let nearest = nearest.min_by_key(|voter| round_trip(delays, own, *voter))?;
            let round = shard.voters.len() > 3 || nearest == primary;
            let round = if round { to(&mut shard.voters.iter(), true)? } else { Duration::ZERO };
            Some(round_trip(delays, own, nearest) + round_trip(delays, nearest, primary) + round)
        }
        // First like a strong request, then a round to all replicas.
        Kind::Get(Level::All) | Kind::Put(Level::All) => {
            Some(there + to(&mut shard.voters.iter(), true)? + to(&mut replicas, false)?)
        }
    }
}

fn round_trip(delays: &Delays, one: usize, other: usize) -> Duration {
    delays.average(one, other) + delays.average(other, one)
}

fn document(rows: &[Row], samples: u32) -> serde_json::Value {
    let mut all = Vec::new();
    for row in rows {
        for (region, (measured, alone)) in &row.times {
            all.push(serde_json::json!({
                "from": row.from.as_str(),
                "request": row.kind.name(),
                "primary_in": region.as_str(),
                "median_ms": measured.as_secs_f64() * 1000.0,
                "distance_ms": alone.as_millis() as u64,
            }));
        }
    }
    serde_json::json!({ "command": "rehearse", "samples": samples, "latencies": all })
}

fn table(rows: &[Row], samples: u32) -> String {
    let primaries: Vec<&Region> = rows.first().map_or(Vec::new(), |row| row.times.keys().collect());
    let mut lines = vec![format!(
        "median of {samples} requests in ms, by the region of the key's primary (the distances \
         alone)"
    )];
    let mut heading = format!("{:<14}{:<14}", "FROM", "REQUEST");
    for region in &primaries {
        heading.push_str(&format!("{:>18}", region.as_str()));
    }
    lines.push(heading);
    for row in rows {
        let mut line = format!("{:<14}{:<14}", row.from.as_str(), row.kind.name());
        for (measured, alone) in row.times.values() {
            let measured = measured.as_secs_f64() * 1000.0;
            let digits = usize::from(measured < 100.0);
            line.push_str(&format!("{:>11.digits$} ({:>4})", measured, alone.as_millis()));
        }
        lines.push(line);
    }
    lines.join("\n")
}
