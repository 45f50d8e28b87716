//! `cargo run -p sim -- --seeds 1000 --from 1` runs seeds, and prints how to repeat one that fails.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use sim::explore::{Summary, explore};
use sim::faults::Course;
use sim::run::{Options, Outcome, run};

/// Run whole networks of dkv on simulated machines, and look for broken promises.
#[derive(Parser)]
struct Args {
    /// How many seeds to run
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Simulated time in which faults begin
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    faults_for: u64,
    /// Simulated time after the last fault in which everything must work again
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    heal_within: u64,
    /// Seeds that run at the same time [default: as many as there are cores]
    #[arg(long)]
    jobs: Option<usize>,
    /// Print the trace
    #[arg(long)]
    trace: bool,
    /// Print the logs of the processes, e.g. `info` or `dkv_node=debug`
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// The only fault: a disk ignores its syncs for a while and then loses its power
    #[arg(long)]
    lying_disk: bool,
    /// The only fault: the founder starts first, on an early backup of its directory
    #[arg(long, conflicts_with = "lying_disk")]
    old_copy: bool,
    /// The course of events of each run, e.g. `LateAnswers` [default: the seed decides]
    #[arg(long, conflicts_with_all = ["lying_disk", "old_copy"])]
    course: Option<Course>,
    /// Run each seed twice, one after the other, and compare the runs datagram by datagram
    #[arg(long, conflicts_with_all = ["jobs", "keep_going"])]
    twice: bool,
    /// Plant known bugs, one after the other, and run seeds until each one is found
    #[cfg(feature = "mutants")]
    #[arg(long, conflicts_with = "twice")]
    mutants: bool,
    /// Plant only the bug of that name
    #[cfg(feature = "mutants")]
    #[arg(long, requires = "mutants")]
    mutant: Option<String>,
    /// Go on after a seed that fails
    #[arg(long)]
    keep_going: bool,
}

fn main() -> ExitCode {
    match start(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether all promises held.
fn start(args: &Args) -> std::io::Result<bool> {
    if let Some(filter) = &args.log {
        sim::log::print(filter);
    }
    let options = Options {
        faults_for: args.faults_for * 1000,
        heal_within: args.heal_within * 1000,
        echo: args.trace,
        lying_disk: args.lying_disk,
        old_copy: args.old_copy,
        course: args.course,
        every_datagram: args.twice,
        mutant: None,
    };
    #[cfg(feature = "mutants")]
    if args.mutants {
        return plant_all(args, options);
    }
    if args.twice {
        for seed in args.from..args.from + args.seeds {
            if !compare(seed, &run(seed, options)?, &run(seed, options)?) {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = args.jobs.unwrap_or(cores);
    let begun = Instant::now();
    let summary = explore(args.from, args.seeds, jobs, options, |seed, outcome| {
        tell(args, seed, outcome);
        outcome.wrong.is_empty() || args.keep_going
    })?;
    conclude(&summary, begun.elapsed().as_secs_f64());
    Ok(summary.failed.is_empty())
}

/// Runs seeds with each of the known bugs: until one shows it, or all of them with `--keep-going`.
/// Returns whether all were found.
#[cfg(feature = "mutants")]
fn plant_all(args: &Args, options: Options) -> std::io::Result<bool> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut all = true;
    let named = |mutant: &dkv_base::mutants::Mutant| {
        args.mutant.as_ref().is_none_or(|name| format!("{mutant:?}") == *name)
    };
    for mutant in dkv_base::mutants::Mutant::ALL.into_iter().filter(named) {
        // A founder's early backup is restored only in runs with this option.
        let believes = mutant == dkv_base::mutants::Mutant::BelieveCopies;
        let old_copy = believes && options.course.is_none();
        let options = Options { mutant: Some(mutant), old_copy, ..options };
        let mut first = None;
        let jobs = args.jobs.unwrap_or(cores);
        let summary = explore(args.from, args.seeds, jobs, options, |seed, outcome| {
            if first.is_none() && !outcome.wrong.is_empty() {
                first = Some((seed, outcome.wrong.join("; ")));
            }
            first.is_none() || args.keep_going
        })?;
        let (found, seeds) = (summary.failed.len(), summary.seeds);
        println!("{mutant:?}: found in {found} of {seeds} seeds");
        if let Some((seed, why)) = &first {
            let why: String = why.chars().take(160).collect();
            println!("    seed {seed}: {why}");
        }
        all &= found > 0;
    }
    Ok(all)
}

fn tell(args: &Args, seed: u64, outcome: &Outcome) {
    let (all, unknown, failed) = outcome.operations;
    println!(
        "seed {seed}: {:.1} s, {} faults, {all} operations ({unknown} unknown, {failed} failed), \
         {} transactions, {} events, healed after {} ms, {} states compared, trace {:016x}",
        outcome.simulated_ms as f64 / 1000.0,
        outcome.faults.values().sum::<u64>(),
        outcome.transactions.0,
        outcome.watch_events,
        outcome.healed_after_ms,
        outcome.states,
        outcome.trace_hash,
    );
    if outcome.wrong.is_empty() {
        return;
    }
    for wrong in &outcome.wrong {
        println!("  {wrong}");
    }
    println!(
        "seed {seed} FAILED; again: cargo run -p sim -- --seeds 1 --from {seed} --faults-for {} \
         --trace",
        args.faults_for
    );
}

fn conclude(summary: &Summary, seconds: f64) {
    let (all, unknown, failed) = summary.operations;
    let healed = &summary.healed_after_ms;
    let quantile = |part: usize| healed.get(healed.len() * part / 100).copied().unwrap_or(0);
    println!(
        "{} seeds, {:.2} simulated hours in {seconds:.0} s, {all} operations ({unknown} unknown, \
         {failed} failed), {} datagrams, {} states compared",
        summary.seeds,
        summary.simulated_ms as f64 / 3_600_000.0,
        summary.datagrams,
        summary.states,
    );
    println!(
        "{} transactions ({} unknown), {} snapshots, {} events of watches, {} reads of the past, {} \
         calls about leases",
        summary.transactions.0,
        summary.transactions.1,
        summary.snapshots,
        summary.watch_events,
        summary.past_reads,
        summary.lease_events,
    );
    let (refused, noticed) = summary.copies_told_apart;
    println!("faults {:?}", summary.faults);
    println!("{refused} old copies refused or held back, {noticed} clones noticed");
    println!(
        "healed after (ms) median {}, 99 % {}, longest {}",
        quantile(50),
        quantile(99),
        healed.last().copied().unwrap_or(0)
    );
    println!("failed: {:?}", summary.failed);
}

/// Prints where two runs of a seed differ, and returns whether they are equal.
fn compare(seed: u64, one: &Outcome, other: &Outcome) -> bool {
    let (one, other) = (&one.trace, &other.trace);
    let Some(place) = one.iter().zip(other).position(|(one, other)| one != other) else {
        println!("seed {seed}: the same twice, {} lines", one.len());
        return one.len() == other.len();
    };
    println!("seed {seed}: the runs part after {place} lines");
    for line in &one[place.saturating_sub(5)..place] {
        println!("    {line}");
    }
    println!("  1 {}\n  2 {}", one[place], other[place]);
    false
}
