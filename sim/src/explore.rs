//! Runs many seeds on several threads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use crate::faults::Fault;
use crate::run::{Options, Outcome, run};
use dkv_base::sync::lock;

/// The results of many runs together.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Seeds that were run.
    pub seeds: u64,
    /// Seeds that showed a broken promise.
    pub failed: Vec<u64>,
    /// Simulated milliseconds.
    pub simulated_ms: u64,
    /// Operations of clients, those with an unknown outcome, and those that failed.
    pub operations: (usize, usize, usize),
    /// Transactions, and those with an unknown outcome.
    pub transactions: (usize, usize),
    /// Snapshots that were taken and read.
    pub snapshots: u64,
    /// Events of watches.
    pub watch_events: usize,
    /// Reads at revisions, and lists of versions.
    pub past_reads: usize,
    /// Calls that concern leases, of runs in which no clock was wrong.
    pub lease_events: usize,
    /// Datagrams.
    pub datagrams: u64,
    /// States of replicas that were compared.
    pub states: usize,
    /// Old copies of directories that were refused, and clones that were noticed.
    pub copies_told_apart: (u64, u64),
    /// Faults by kind.
    pub faults: BTreeMap<Fault, u64>,
    /// Time from the last fault until everything worked again, of each run.
    pub healed_after_ms: Vec<u64>,
}

impl Summary {
    fn add(&mut self, seed: u64, outcome: &Outcome) {
        self.seeds += 1;
        if !outcome.wrong.is_empty() {
            self.failed.push(seed);
        }
        self.simulated_ms += outcome.simulated_ms;
        let (all, unknown, failed) = outcome.operations;
        self.operations.0 += all;
        self.operations.1 += unknown;
        self.operations.2 += failed;
        self.transactions.0 += outcome.transactions.0;
        self.transactions.1 += outcome.transactions.1;
        self.snapshots += outcome.snapshots;
        self.watch_events += outcome.watch_events;
        self.past_reads += outcome.past_reads;
        self.lease_events += outcome.lease_events;
        self.datagrams += outcome.datagrams.sent;
        self.states += outcome.states;
        self.copies_told_apart.0 += outcome.copies_told_apart.0;
        self.copies_told_apart.1 += outcome.copies_told_apart.1;
        for (fault, count) in &outcome.faults {
            *self.faults.entry(*fault).or_default() += count;
        }
        self.healed_after_ms.push(outcome.healed_after_ms);
    }
}

/// Runs seeds on `jobs` threads, each with its own network. `tell` hears of each run as it ends,
/// and says whether to begin more.
///
/// # Errors
/// If a run could not be made.
pub fn explore(
    from: u64,
    seeds: u64,
    jobs: usize,
    options: Options,
    mut tell: impl FnMut(u64, &Outcome) -> bool,
) -> std::io::Result<Summary> {
    let (next, stop) = (AtomicU64::new(from), AtomicBool::new(false));
    let summary = Mutex::new(Summary::default());
    thread::scope(|scope| {
        let (sender, ended) = mpsc::channel();
        for _ in 0..jobs.max(1) {
            let (sender, next, stop) = (sender.clone(), &next, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds || sender.send((seed, run(seed, options))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for (seed, outcome) in ended {
            let outcome = outcome?;
            lock(&summary).add(seed, &outcome);
            if !tell(seed, &outcome) {
                stop.store(true, Ordering::Relaxed);
            }
        }
        Ok::<_, std::io::Error>(())
    })?;
    let mut summary = summary.into_inner().unwrap_or_else(PoisonError::into_inner);
    summary.failed.sort_unstable();
    summary.healed_after_ms.sort_unstable();
    Ok(summary)
}
