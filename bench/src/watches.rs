//! What watches cost the writers, and how soon they show a change.
//!
//! Every write has a number, which its value begins with. One of the watches notes when it sees
//! each number; the others only count. The delay of a change is the time from the answer of its
//! write to its arrival at the first watch, or zero if it arrived earlier.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use dkv_base::number::{decimal, whole_number};
use futures::StreamExt;
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::process_stats;
use crate::report::{self, Machine};
use crate::summary::histogram;
use crate::systems::{self, Changes, Driver, Kind, Purpose, Setup, System};
use crate::workload::{self, Operation, VALUE_BYTES_MAX, key};

/// Most watched writes of one measurement. Later ones are not timed.
const TIMED_MAX: usize = 4_000_000;
/// Keys that are written.
const KEYS: u64 = 10_000;
/// Time that watches have, after the last write, to show all changes.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(60);

/// How to measure watches.
#[derive(Args, Clone, Debug)]
pub(crate) struct WatchPlan {
    /// Watches, all of the same keys; several numbers are measured in turn
    #[arg(long, value_delimiter = ',', default_value = "1,100",
        value_parser = whole_number(1..=100_000_usize))]
    watches: Vec<usize>,
    /// Writers, each of which writes again when it is answered
    #[arg(long, default_value_t = 64, value_parser = whole_number(1..=100_000_usize))]
    clients: usize,
    /// Writes of watched keys per second, by a writer of their own; the keys of the others are not
    /// watched then [default: all writers write watched keys]
    #[arg(long, value_parser = decimal(0.001..=1e6))]
    rate: Option<f64>,
    /// Bytes of a value
    #[arg(long, default_value_t = 100, value_parser = whole_number(8..=VALUE_BYTES_MAX))]
    value_bytes: usize,
    /// Time that each is measured, in seconds
    #[arg(long, default_value_t = 5.0, value_parser = decimal(0.01..=86_400.0))]
    seconds: f64,
    /// Systems
    #[arg(long, value_enum, value_delimiter = ',', default_value = "dkv")]
    systems: Vec<Kind>,
    /// How often each is measured
    #[arg(long, default_value_t = 1, value_parser = whole_number(1..=1000_usize))]
    rounds: usize,
    /// A file to write the figures to, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// The figures of one system with a number of watches.
#[derive(Serialize)]
struct Row {
    system: Kind,
    round: usize,
    watches: usize,
    /// Writes per second without watches, of all clients.
    unwatched_writes: f64,
    /// Writes per second with them.
    writes: f64,
    /// Changes per second, of all watches together.
    events: f64,
    delay_p50_ms: f64,
    delay_p99_ms: f64,
    /// Time from the last answer to the last change.
    catch_up_seconds: f64,
    /// Changes that did not come.
    missing: u64,
    cpu_cores: f64,
}

#[derive(Serialize)]
struct Rows {
    machine: Machine,
    rows: Vec<Row>,
}

/// Measures all systems in turn.
pub(crate) async fn run(setup: &Setup, plan: &WatchPlan) -> Result<(), String> {
    dkv_base::say!(
        "system   watches  writes/s alone  beside them   events/s  p50 ms  p99 ms  behind s  cores  missing"
    );
    let mut rows = Vec::new();
    for round in 0..plan.rounds {
        for turn in 0..plan.systems.len() {
            let kind = plan.systems[(turn + round) % plan.systems.len()];
            for watches in &plan.watches {
                let row = measure(setup, plan, (kind, round), *watches).await?;
                dkv_base::say!(
                    "{:<8} {:>7} {:>15.0} {:>12.0} {:>10.0} {:>7.2} {:>7.2} {:>9.2} {:>6.2} {:>8}",
                    kind.name(),
                    row.watches,
                    row.unwatched_writes,
                    row.writes,
                    row.events,
                    row.delay_p50_ms,
                    row.delay_p99_ms,
                    row.catch_up_seconds,
                    row.cpu_cores,
                    row.missing,
                );
                rows.push(row);
            }
        }
    }
    let rows = Rows { machine: Machine::this(), rows };
    plan.json.as_deref().map_or(Ok(()), |path| report::write_json(path, &rows))
}

async fn measure(
    setup: &Setup,
    plan: &WatchPlan,
    (kind, round): (Kind, usize),
    watches: usize,
) -> Result<Row, String> {
    let time = Duration::try_from_secs_f64(plan.seconds).map_err(|error| error.to_string())?;
    let system = systems::start(kind, setup).await?;
    // The second run alone counts: the first one warms up.
    write(&*system, plan, time / 4, &Arc::default()).await?;
    let alone = write(&*system, plan, time, &Arc::default()).await?;
    let seen = Arc::new(Seen::default());
    let mut readers = JoinSet::new();
    for (number, watch) in system.watches(watches).await?.into_iter().enumerate() {
        readers.spawn(read(watch, Arc::clone(&seen), number == 0));
    }
    let before = process_stats::cpu(&system.processes().ids());
    let beside = write(&*system, plan, time, &seen).await?;
    let cpu = process_stats::cpu(&system.processes().ids()).saturating_sub(before);
    let events = seen.events.load(Ordering::Relaxed) as f64 / beside.seconds;
    let expected = beside.watched * watches as u64;
    let ended = Instant::now();
    while seen.events.load(Ordering::Relaxed) < expected && ended.elapsed() < CATCH_UP_TIMEOUT {
        if let Some(failed) = readers.try_join_next() {
            return Err(failed.map_err(|error| error.to_string())?);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let delays = seen.delays();
    Ok(Row {
        system: kind,
        round,
        watches,
        unwatched_writes: alone.written as f64 / alone.seconds,
        writes: beside.written as f64 / beside.seconds,
        events,
        delay_p50_ms: delays.value_at_quantile(0.5) as f64 / 1e6,
        delay_p99_ms: delays.value_at_quantile(0.99) as f64 / 1e6,
        catch_up_seconds: ended.elapsed().as_secs_f64(),
        missing: expected.saturating_sub(seen.events.load(Ordering::Relaxed)),
        cpu_cores: cpu.as_secs_f64() / beside.seconds,
    })
}

/// Reads a watch until it fails, and returns why.
async fn read(mut watch: Changes, seen: Arc<Seen>, timed: bool) -> String {
    while let Some(change) = watch.next().await {
        match change {
            Ok(value) => seen.note_seen(&value, timed),
            Err(error) => return error,
        }
    }
    "a watch ended".into()
}

/// What became of a run of the writers.
struct Run {
    seconds: f64,
    /// Answered writes.
    written: u64,
    /// Those of watched keys.
    watched: u64,
}

async fn write(
    system: &dyn System,
    plan: &WatchPlan,
    time: Duration,
    seen: &Arc<Seen>,
) -> Result<Run, String> {
    let watched_writers = if plan.rate.is_some() { 1 } else { plan.clients };
    let others = if plan.rate.is_some() { plan.clients } else { 0 };
    let drivers = system.drivers(watched_writers + others, Purpose::Measure).await?;
    let begun = Instant::now();
    let mut writers = JoinSet::new();
    for (number, driver) in drivers.into_iter().enumerate() {
        let watched = number < watched_writers;
        let writer = Writer {
            driver,
            seen: watched.then(|| Arc::clone(seen)),
            pause: plan.rate.filter(|_| watched).map(|rate| Duration::from_secs_f64(1.0 / rate)),
            value: workload::value(plan.value_bytes, number as u64),
            first_key: number as u64 * 7919,
        };
        writers.spawn(writer.run(begun + time));
    }
    let mut run = Run { seconds: 0.0, written: 0, watched: 0 };
    while let Some(done) = writers.join_next().await {
        let (written, watched) = done.map_err(|error| error.to_string())??;
        run.written += written;
        run.watched += if watched { written } else { 0 };
    }
    run.seconds = begun.elapsed().as_secs_f64();
    Ok(run)
}

struct Writer {
    driver: Arc<dyn Driver>,
    /// Where its writes are noted, if they are watched.
    seen: Option<Arc<Seen>>,
    /// Time from one write to the next.
    pause: Option<Duration>,
    value: Bytes,
    first_key: u64,
}

impl Writer {
    /// Writes until the end, and returns the number of writes and whether they are watched.
    async fn run(self, end: Instant) -> Result<(u64, bool), String> {
        let mut due = Instant::now();
        for turn in 0_u64.. {
            if let Some(pause) = self.pause {
                due += pause;
                tokio::time::sleep_until(due.into()).await;
            }
            if Instant::now() >= end {
                return Ok((turn, self.seen.is_some()));
            }
            let key = key((self.first_key + turn) % KEYS);
            match &self.seen {
                None => {
                    let (key, value) = (format!("other-{key}"), self.value.clone());
                    self.driver.run(Operation::Put { key, value }).await?;
                }
                Some(seen) => {
                    let number = seen.next.fetch_add(1, Ordering::Relaxed);
                    let mut value = self.value.to_vec();
                    value[..8].copy_from_slice(&number.to_be_bytes());
                    self.driver.run(Operation::Put { key, value: value.into() }).await?;
                    seen.note(&seen.answered, number);
                }
            }
        }
        Ok((0, false))
    }
}

/// When writes were answered and seen, by their numbers.
struct Seen {
    begun: Instant,
    next: AtomicU64,
    events: AtomicU64,
    /// Nanoseconds since the beginning; zero if it has not happened.
    answered: Vec<AtomicU64>,
    arrived: Vec<AtomicU64>,
}

impl Default for Seen {
    fn default() -> Self {
        let times = || (0..TIMED_MAX).map(|_| AtomicU64::new(0)).collect();
        Self {
            begun: Instant::now(),
            next: AtomicU64::new(0),
            events: AtomicU64::new(0),
            answered: times(),
            arrived: times(),
        }
    }
}

impl Seen {
    fn note(&self, times: &[AtomicU64], number: u64) {
        let now = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if let Some(time) = usize::try_from(number).ok().and_then(|number| times.get(number)) {
            time.store(now.max(1), Ordering::Relaxed);
        }
    }

    fn note_seen(&self, value: &[u8], timed: bool) {
        if let (true, Some(number)) = (timed, value.first_chunk()) {
            self.note(&self.arrived, u64::from_be_bytes(*number));
        }
        self.events.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the delays of all timed writes that were answered and have arrived, in nanoseconds.
    fn delays(&self) -> Histogram<u64> {
        let mut delays = histogram();
        for (answered, arrived) in self.answered.iter().zip(&self.arrived) {
            let (answered, arrived) =
                (answered.load(Ordering::Relaxed), arrived.load(Ordering::Relaxed));
            if answered > 0 && arrived > 0 {
                // Cannot fail: the histogram resizes itself.
                let _ = delays.record(arrived.saturating_sub(answered));
            }
        }
        delays
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_writes_that_were_answered_and_have_arrived_have_a_delay() {
        let seen = Seen::default();
        seen.note(&seen.answered, 0);
        seen.note(&seen.answered, 1);
        seen.note_seen(&1_u64.to_be_bytes(), true);
        seen.note_seen(&0_u64.to_be_bytes(), false);
        seen.note_seen(&2_u64.to_be_bytes(), true);
        assert_eq!(seen.delays().len(), 1);
        assert_eq!(seen.events.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_number_beyond_those_that_are_timed_is_counted_only() {
        let seen = Seen::default();
        seen.note_seen(&u64::MAX.to_be_bytes(), true);
        assert_eq!((seen.delays().len(), seen.events.load(Ordering::Relaxed)), (0, 1));
    }
}
