//! `cargo run -p sim -- --seeds 1000 --from 1`: runs seeds, and says how to run again one that fails.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use sim::run::{Options, Outcome, run};

/// Runs whole networks of dkv on simulated machines, and looks for a broken promise.
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
    /// Print what happens
    #[arg(long)]
    trace: bool,
    /// Print what the processes log, e.g. `info` or `dkv_node=debug`
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// Run each seed twice and compare, datagram by datagram
    #[arg(long)]
    twice: bool,
    /// Go on after a seed that fails
    #[arg(long)]
    keep_going: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(filter) = &args.log {
        sim::log::print(filter);
    }
    let options = Options {
        faults_for: args.faults_for * 1000,
        echo: args.trace,
        every_datagram: args.twice,
    };
    let begun = Instant::now();
    let mut failed = 0;
    let (mut simulated_ms, mut operations) = (0, 0);
    for seed in args.from..args.from + args.seeds {
        let at = Instant::now();
        let outcome = match run(seed, options) {
            Ok(outcome) => outcome,
            Err(error) => {
                eprintln!("error: {error}");
                return ExitCode::FAILURE;
            }
        };
        if args.twice
            && let Ok(again) = run(seed, options)
        {
            compare(&outcome.trace, &again.trace);
        }
        simulated_ms += outcome.simulated_ms;
        operations += outcome.operations.0;
        tell(seed, &outcome, at.elapsed().as_secs_f64());
        if !outcome.wrong.is_empty() {
            failed += 1;
            println!(
                "seed {seed} FAILED; again: cargo run -p sim -- --seeds 1 --from {seed} --faults-for {} --trace",
                args.faults_for
            );
            for wrong in &outcome.wrong {
                println!("  {wrong}");
            }
            if !args.keep_going {
                break;
            }
        }
    }
    println!(
        "{:.1} simulated hours, {operations} operations, {:.0} s, {failed} seeds failed",
        simulated_ms as f64 / 3_600_000.0,
        begun.elapsed().as_secs_f64(),
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Shows where two traces part.
fn compare(one: &[String], other: &[String]) {
    match one.iter().zip(other).position(|(one, other)| one != other) {
        None => println!("the same twice: {} and {} lines", one.len(), other.len()),
        Some(place) => {
            println!("the runs part after {place} lines");
            for line in &one[place.saturating_sub(5)..place] {
                println!("    {line}");
            }
            println!("  1 {}", one[place]);
            println!("  2 {}", other[place]);
        }
    }
}

fn tell(seed: u64, outcome: &Outcome, seconds: f64) {
    let (all, unknown, failed) = outcome.operations;
    println!(
        "seed {seed}: {:.1} s simulated in {seconds:.1} s, {all} operations ({unknown} unknown, \
         {failed} failed), healed after {} ms, {} states compared, {} faults, {} datagrams, trace {:016x}",
        outcome.simulated_ms as f64 / 1000.0,
        outcome.healed_after_ms,
        outcome.states,
        outcome.faults.values().sum::<u64>(),
        outcome.datagrams.sent,
        outcome.trace_hash,
    );
}
