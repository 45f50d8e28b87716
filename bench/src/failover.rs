//! The time without acknowledged writes when the leader ends.
//!
//! Clients write without pause while the process that leads what they write to is killed or told to
//! end. The *gap* is the longest time between two acknowledged writes of any client. The gap of the
//! slowest writer is the longest time that one client had to wait, which is more if there are
//! several shards. A client whose attempt fails or times out tries again at once, so that no client
//! library's timeout is measured.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use dkv_base::number::whole_number;
use dkv_base::sync::lock;
use rustix::process::Signal;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::report::{self, Machine};
use crate::summary::Summary;
use crate::systems::{self, Driver, Kind, Purpose, Setup, System};
use crate::workload::{self, Operation};

/// Time without a fault before each failover.
const CALM: Duration = Duration::from_secs(1);
/// Time for which every writer must be served after the process has ended, before the gap is known.
const SERVED: Duration = Duration::from_secs(1);
/// Time after which a system is considered lost.
const LOST: Duration = Duration::from_secs(60);
/// Pause after a failed attempt, which leaves the processors to the election.
const RETRY: Duration = Duration::from_millis(2);
/// Distinct errors that are quoted.
const ERRORS_MAX: usize = 5;

/// How often to fail over, and which systems.
#[derive(Args, Clone, Debug)]
pub(crate) struct FailoverArgs {
    /// How the leader ends
    #[arg(long, value_enum, value_delimiter = ',', default_value = "kill")]
    how: Vec<How>,
    /// Failovers of each system
    #[arg(long, default_value_t = 20, value_parser = whole_number(1..=100_000_usize))]
    runs: usize,
    /// Failovers of a system before the next one has its turn, freshly started
    #[arg(long, default_value_t = 5, value_parser = whole_number(1..=100_000_usize))]
    turn: usize,
    /// Writers
    #[arg(long, default_value_t = 16, value_parser = whole_number(1..=100_000_usize))]
    clients: usize,
    /// Time after which a writer gives up an attempt and tries again, in milliseconds. Not for dkv,
    /// whose library retries by itself
    #[arg(long, default_value_t = 100, value_parser = whole_number(1..=60_000_u64))]
    attempt_ms: u64,
    /// Systems
    #[arg(long, value_enum, value_delimiter = ',', default_value = "dkv")]
    systems: Vec<Kind>,
    /// A file to write the figures to, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// How a process ends.
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
    /// In milliseconds, as are the following ones.
    gap: Summary,
    slowest_writer: Summary,
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
            gap: Summary::default(),
            slowest_writer: Summary::default(),
            gaps: Vec::new(),
            slowest_writers: Vec::new(),
            acknowledged: 0,
            failed_attempts: 0,
            errors: Vec::new(),
        }
    }

    /// Adds the log of the writers of one turn.
    fn add(&mut self, log: &WriteLog) {
        self.acknowledged += log.acknowledged;
        self.failed_attempts += log.failed;
        self.errors.extend(log.errors.iter().cloned());
        self.errors.sort();
        self.errors.dedup();
        self.errors.truncate(ERRORS_MAX);
        self.gap = Summary::of(self.gaps.iter().copied());
        self.slowest_writer = Summary::of(self.slowest_writers.iter().copied());
    }
}

#[derive(Serialize)]
struct Failovers {
    machine: Machine,
    outcomes: Vec<Outcome>,
}

/// Ends the leader of each system repeatedly, the systems in turns.
pub(crate) async fn run(setup: &Setup, plan: &FailoverArgs) -> Result<(), String> {
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
            let seen = turn(setup, plan, runs, outcome).await;
            seen.map_err(|error| format!("{}: {error}", kind.name()))?;
        }
        done += runs;
    }
    outcomes.iter().for_each(print);
    let failovers = Failovers { machine: Machine::this(), outcomes };
    plan.json.as_deref().map_or(Ok(()), |path| report::write_json(path, &failovers))
}

/// Starts a system and ends its leader `runs` times.
async fn turn(
    setup: &Setup,
    plan: &FailoverArgs,
    runs: usize,
    outcome: &mut Outcome,
) -> Result<(), String> {
    let mut system = systems::start(outcome.system, setup).await?;
    let purpose = Purpose::Survive(Duration::from_millis(plan.attempt_ms));
    let log = Arc::new(Mutex::new(WriteLog::new(plan.clients)));
    let mut writers = JoinSet::new();
    for (number, driver) in system.drivers(plan.clients, purpose).await?.into_iter().enumerate() {
        writers.spawn(write(driver, number, Arc::clone(&log)));
    }
    for _ in 0..runs {
        tokio::time::sleep(CALM).await;
        let leader = system.leader().await?;
        let (gap, slowest) = fail_over(&mut *system, &leader.name, outcome.how, &log).await?;
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
    outcome.add(&lock(&log));
    Ok(())
}

/// Ends a process and waits until all writers are served again. Returns the gap and that of the
/// slowest writer, in milliseconds.
async fn fail_over(
    system: &mut dyn System,
    name: &str,
    how: How,
    log: &Mutex<WriteLog>,
) -> Result<(f64, f64), String> {
    lock(log).reset_gaps();
    let signal = if how == How::Kill { Signal::KILL } else { Signal::TERM };
    system.processes_mut().signal(name, signal)?;
    system.processes_mut().reap(name).await?;
    let ended = Instant::now();
    while lock(log).served_since().is_none_or(|since| since < ended + SERVED) {
        if ended.elapsed() > LOST {
            return Err(format!("a writer was not served for {} s", LOST.as_secs()));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (gap, slowest) = lock(log).gaps();
    Ok((milliseconds(gap), milliseconds(slowest)))
}

fn print(outcome: &Outcome) {
    let figure = |Summary { min, median, max }| {
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

/// Writes without pause, and logs the outcomes.
async fn write(driver: Arc<dyn Driver>, number: usize, log: Arc<Mutex<WriteLog>>) {
    let value = workload::value(100, 0);
    for count in 0_u64.. {
        let key = format!("writer-{number}-{}", count % 1000);
        loop {
            let put = Operation::Put { key: key.clone(), value: value.clone() };
            match driver.run(put).await {
                Ok(_) => break lock(&log).acknowledge(number, Instant::now()),
                Err(error) => lock(&log).fail(error),
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// The outcomes of the writes of all writers.
struct WriteLog {
    last: Option<Instant>,
    gap: Duration,
    /// Each writer's last acknowledged write.
    lasts: Vec<Option<Instant>>,
    writer_gap: Duration,
    acknowledged: u64,
    failed: u64,
    /// The first distinct errors.
    errors: Vec<String>,
}

impl WriteLog {
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

    /// Returns the longest gaps, of all writers together and of a single one, since the last reset.
    fn gaps(&self) -> (Duration, Duration) {
        (self.gap, self.writer_gap)
    }

    fn reset_gaps(&mut self) {
        (self.gap, self.writer_gap) = (Duration::ZERO, Duration::ZERO);
    }

    /// Returns when the writer was last served that has waited longest.
    fn served_since(&self) -> Option<Instant> {
        self.lasts.iter().copied().min().flatten()
    }
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
        let mut log = WriteLog::new(2);
        assert_eq!(log.served_since(), None);
        log.acknowledge(0, at(0));
        log.acknowledge(1, at(500));
        assert_eq!(log.served_since(), Some(at(0)));
        log.reset_gaps();
        log.acknowledge(0, at(700));
        log.acknowledge(1, at(710));
        assert_eq!(log.gaps(), (Duration::from_millis(200), Duration::from_millis(700)));
        assert_eq!(log.served_since(), Some(at(700)));
    }
}
