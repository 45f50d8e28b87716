//! The time without acknowledged writes when the leader goes.
//!
//! Writers write without pause while the process that leads what they write to is killed, or told
//! to end. The *gap* is the longest time between two acknowledged writes of any writers; the
//! slowest writer's is the longest that one of them had to wait, which is more if there are several
//! shards. A writer whose attempt fails, or is not answered for a short time, tries again at once,
//! so that no library's patience is measured.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use rustix::process::Signal;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::report::{self, Machine};
use crate::spread::Spread;
use crate::systems::{self, Driver, Kind, Place, Purpose, System};
use crate::workload::{self, Operation};

/// Time without a fault before each.
const CALM: Duration = Duration::from_secs(1);
/// Every writer must have been served for so long after the process has ended before the gap is
/// known.
const SERVED: Duration = Duration::from_secs(1);
/// Time after which a system is taken not to come back.
const LOST: Duration = Duration::from_secs(60);
/// Pause after a failed attempt: the machine's processors belong to the election.
const RETRY: Duration = Duration::from_millis(2);
/// Different errors that are quoted.
const ERRORS_MAX: usize = 5;

/// How often, and of what.
#[derive(Args, Clone, Debug)]
pub(crate) struct FailoverArgs {
    /// How the leader goes
    #[arg(long, value_enum, value_delimiter = ',', default_value = "kill")]
    how: Vec<How>,
    /// How often
    #[arg(long, default_value_t = 20)]
    runs: usize,
    /// Runs of a system before the next has its turn, on a fresh start
    #[arg(long, default_value_t = 5)]
    turn: usize,
    /// Writers
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// Time after which a writer gives an attempt up and tries again, in milliseconds. Not for dkv,
    /// whose library does that itself
    #[arg(long, default_value_t = 100)]
    attempt_ms: u64,
    /// Systems
    #[arg(long, value_enum, value_delimiter = ',', default_value = "dkv")]
    systems: Vec<Kind>,
    /// A file that the figures are written to, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// How a process goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum How {
    /// SIGKILL
    Kill,
    /// SIGTERM
    Stop,
}

/// The failovers of one system.
#[derive(Serialize)]
struct Outcome {
    system: Kind,
    how: How,
    /// In milliseconds, as all that follow.
    gap: Spread,
    slowest_writer: Spread,
    gaps: Vec<f64>,
    slowest_writers: Vec<f64>,
    acknowledged: u64,
    failed_attempts: u64,
    errors: Vec<String>,
}

impl Outcome {
    fn new(system: Kind, how: How) -> Self {
        Self {
            system,
            how,
            gap: Spread::default(),
            slowest_writer: Spread::default(),
            gaps: Vec::new(),
            slowest_writers: Vec::new(),
            acknowledged: 0,
            failed_attempts: 0,
            errors: Vec::new(),
        }
    }

    /// Adds what the writers of one turn saw.
    fn add(&mut self, watch: &Watch) {
        self.acknowledged += watch.acknowledged;
        self.failed_attempts += watch.failed;
        self.errors.extend(watch.errors.iter().cloned());
        self.errors.sort();
        self.errors.dedup();
        self.errors.truncate(ERRORS_MAX);
        self.gap = Spread::of(self.gaps.iter().copied());
        self.slowest_writer = Spread::of(self.slowest_writers.iter().copied());
    }
}

#[derive(Serialize)]
struct Failovers {
    machine: Machine,
    outcomes: Vec<Outcome>,
}

/// Lets the leader of each system go, again and again, the systems in turns.
pub(crate) async fn run(place: &Place, plan: &FailoverArgs) -> Result<(), String> {
    let (some, none): (Vec<Kind>, Vec<Kind>) = plan.systems.iter().partition(|k| k.fails_over());
    for kind in none {
        dkv_base::say!("{}: not offered, there is one process", kind.name());
    }
    let each = plan.how.iter().flat_map(|how| some.iter().map(|kind| Outcome::new(*kind, *how)));
    let mut outcomes: Vec<Outcome> = each.collect();
    let mut done = 0;
    while done < plan.runs {
        let runs = plan.turn.clamp(1, plan.runs - done);
        for outcome in &mut outcomes {
            let kind = outcome.system;
            let seen = turn(place, plan, runs, outcome).await;
            seen.map_err(|error| format!("{}: {error}", kind.name()))?;
        }
        done += runs;
    }
    outcomes.iter().for_each(print);
    let failovers = Failovers { machine: Machine::this(), outcomes };
    plan.json.as_deref().map_or(Ok(()), |path| report::write_json(path, &failovers))
}

/// Starts a system and lets its leader go that many times.
async fn turn(
    place: &Place,
    plan: &FailoverArgs,
    runs: usize,
    outcome: &mut Outcome,
) -> Result<(), String> {
    let mut system = systems::start(outcome.system, place).await?;
    let purpose = Purpose::Survive(Duration::from_millis(plan.attempt_ms));
    let watch = Arc::new(Mutex::new(Watch::new(plan.clients)));
    let mut writers = JoinSet::new();
    for (number, driver) in system.drivers(plan.clients, purpose).await?.into_iter().enumerate() {
        writers.spawn(write(driver, number, Arc::clone(&watch)));
    }
    for _ in 0..runs {
        tokio::time::sleep(CALM).await;
        let leader = system.leader().await?;
        let (gap, slowest) = one(&mut *system, &leader.name, outcome.how, &watch).await?;
        outcome.gaps.push(gap);
        outcome.slowest_writers.push(slowest);
        dkv_base::say!(
            "{} {:>3}  {:?} {} ({}):  {gap:.1} ms, slowest writer {slowest:.1} ms",
            outcome.system.name(),
            outcome.gaps.len(),
            outcome.how,
            leader.name,
            leader.note,
        );
        system.restart(&leader.name)?;
        system.wait_whole().await?;
    }
    drop(writers);
    outcome.add(&lock(&watch));
    Ok(())
}

/// Ends a process and waits until all writers are served again. Returns the gap and that of the
/// slowest writer, in milliseconds.
async fn one(
    system: &mut dyn System,
    name: &str,
    how: How,
    watch: &Mutex<Watch>,
) -> Result<(f64, f64), String> {
    lock(watch).forget();
    let signal = if how == How::Kill { Signal::KILL } else { Signal::TERM };
    system.processes_mut().signal(name, signal)?;
    system.processes_mut().reap(name).await?;
    let ended = Instant::now();
    while lock(watch).served_since().is_none_or(|since| since < ended + SERVED) {
        if ended.elapsed() > LOST {
            return Err(format!("a writer was not served for {} s", LOST.as_secs()));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (gap, slowest) = lock(watch).gaps();
    Ok((milliseconds(gap), milliseconds(slowest)))
}

fn print(outcome: &Outcome) {
    let figure = |Spread { min, median, max }| {
        format!("min {min:.0} ms, median {median:.0} ms, max {max:.0} ms")
    };
    let (name, how) = (outcome.system.name(), outcome.how);
    dkv_base::say!("{name}, {how:?}, {} runs: gap {}", outcome.gaps.len(), figure(outcome.gap));
    dkv_base::say!("  slowest writer {}", figure(outcome.slowest_writer));
    dkv_base::say!(
        "  {} writes acknowledged, {} attempts failed",
        outcome.acknowledged,
        outcome.failed_attempts
    );
    for error in &outcome.errors {
        dkv_base::say!("  {error}");
    }
}

/// Writes without pause, and tells what came of it.
async fn write(driver: Arc<dyn Driver>, number: usize, watch: Arc<Mutex<Watch>>) {
    let value = workload::value(100, 0);
    for count in 0_u64.. {
        let key = format!("writer-{number}-{}", count % 1000);
        loop {
            let put = Operation::Put { key: key.clone(), value: value.clone() };
            match driver.run(put).await {
                Ok(_) => break lock(&watch).acknowledge(number, Instant::now()),
                Err(error) => lock(&watch).fail(error),
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// What the writers have seen.
struct Watch {
    last: Option<Instant>,
    gap: Duration,
    /// Each writer's last acknowledged write.
    lasts: Vec<Option<Instant>>,
    writer_gap: Duration,
    acknowledged: u64,
    failed: u64,
    /// The first different ones.
    errors: Vec<String>,
}

impl Watch {
    fn new(writers: usize) -> Self {
        Self {
            last: None,
            gap: Duration::ZERO,
            lasts: vec![None; writers],
            writer_gap: Duration::ZERO,
            acknowledged: 0,
            failed: 0,
            errors: Vec::new(),
        }
    }

    fn acknowledge(&mut self, writer: usize, now: Instant) {
        let since = |last: Option<Instant>| last.map_or(Duration::ZERO, |last| now - last);
        self.gap = self.gap.max(since(self.last));
        self.writer_gap = self.writer_gap.max(since(self.lasts[writer]));
        self.last = Some(now);
        self.lasts[writer] = Some(now);
        self.acknowledged += 1;
    }

    fn fail(&mut self, error: String) {
        self.failed += 1;
        if self.errors.len() < ERRORS_MAX && !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    /// The longest gaps, of all and of one writer, since they were last forgotten.
    fn gaps(&self) -> (Duration, Duration) {
        (self.gap, self.writer_gap)
    }

    fn forget(&mut self) {
        (self.gap, self.writer_gap) = (Duration::ZERO, Duration::ZERO);
    }

    /// When the writer was served that has waited longest.
    fn served_since(&self) -> Option<Instant> {
        self.lasts.iter().copied().min().flatten()
    }
}

fn lock(watch: &Mutex<Watch>) -> MutexGuard<'_, Watch> {
    watch.lock().unwrap_or_else(PoisonError::into_inner)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_spans_the_fault_and_the_slowest_writer_has_its_own() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut watch = Watch::new(2);
        assert_eq!(watch.served_since(), None);
        watch.acknowledge(0, at(0));
        watch.acknowledge(1, at(500));
        assert_eq!(watch.served_since(), Some(at(0)));
        watch.forget();
        watch.acknowledge(0, at(700));
        watch.acknowledge(1, at(710));
        assert_eq!(watch.gaps(), (Duration::from_millis(200), Duration::from_millis(700)));
        assert_eq!(watch.served_since(), Some(at(700)));
    }
}
