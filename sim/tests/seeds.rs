//! A fixed number of seeds, and the same seed twice.

use sim::explore::explore;
use sim::faults::Course;
use sim::run::{Options, run};

/// Seeds that every change must survive.
const SEEDS: u64 = 8;

#[test]
fn every_promise_holds_under_every_seed() {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let summary = explore(1, SEEDS, jobs, Options::default(), |seed, outcome| {
        for wrong in &outcome.wrong {
            println!("seed {seed}: {wrong}");
        }
        if !outcome.wrong.is_empty() {
            println!("again: cargo run -p sim -- --seeds 1 --from {seed} --trace");
        }
        true
    });
    let summary = summary.unwrap();
    println!("{summary:?}");
    assert!(summary.failed.is_empty(), "seeds {:?} failed", summary.failed);
    assert_eq!(summary.seeds, SEEDS);
    // A network that does nothing keeps every promise.
    assert!(summary.operations.0 > 200 * SEEDS as usize, "{summary:?}");
    assert!(summary.transactions.0 > 20 * SEEDS as usize, "{summary:?}");
    assert!(summary.snapshots > 3 * SEEDS, "{summary:?}");
    assert!(summary.watch_events > 100 * SEEDS as usize, "{summary:?}");
    assert!(summary.past_reads > 10 * SEEDS as usize, "{summary:?}");
    assert!(summary.lease_events > 10 * SEEDS as usize, "{summary:?}");
    assert!(summary.faults.len() > 15, "{:?}", summary.faults);
    assert!(summary.states > 10 * SEEDS as usize);
}

#[test]
fn a_node_whose_disk_has_lied_is_told_apart() {
    let options = Options { lying_disk: true, ..Options::default() };
    let outcomes: Vec<_> = (1..=5).map(|seed| run(seed, options).unwrap()).collect();
    for (seed, outcome) in (1..).zip(&outcomes) {
        assert!(outcome.wrong.is_empty(), "seed {seed}: {:?}", outcome.wrong);
    }
    // A node of seven that only follows acknowledges nothing.
    let condemned: usize = outcomes.iter().map(|outcome| outcome.condemned).sum();
    assert!(condemned >= 2, "{condemned} of 5");
}

#[test]
fn an_early_copy_of_the_founder_does_not_serve() {
    for seed in 1..=4 {
        let outcome = run(seed, Options { old_copy: true, ..Options::default() }).unwrap();
        assert!(outcome.wrong.is_empty(), "seed {seed}: {:?}", outcome.wrong);
    }
}

/// Runs seeds with a course until an old copy was refused or a clone was noticed, and returns how
/// many of each. Not every copy can be told apart: the fault waits until somebody knows better.
fn told_apart(course: Course) -> std::io::Result<(u64, u64)> {
    let options = Options { course: Some(course), ..Options::default() };
    let summary = explore(1, 12, 2, options, |seed, outcome| {
        assert!(outcome.wrong.is_empty(), "seed {seed}, {course:?}: {:?}", outcome.wrong);
        outcome.copies_told_apart == (0, 0)
    });
    Ok(summary?.copies_told_apart)
}

#[test]
fn an_old_copy_is_refused_among_other_faults() {
    let (refused, _) = told_apart(Course::OldCopy).unwrap();
    assert!(refused > 0);
}

#[test]
fn a_clone_is_noticed_among_other_faults() {
    let (_, noticed) = told_apart(Course::Clone).unwrap();
    assert!(noticed > 0);
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [2, 8] {
        let options = Options { faults_for: 8000, every_datagram: true, ..Options::default() };
        let (one, other) = (run(seed, options).unwrap(), run(seed, options).unwrap());
        let parted = one.trace.iter().zip(&other.trace).find(|(one, other)| one != other);
        assert_eq!(parted, None, "seed {seed}");
        assert_eq!(one.trace_hash, other.trace_hash, "seed {seed}");
    }
}
