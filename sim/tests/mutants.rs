//! The simulation finds every planted bug: a simulation that finds none proves nothing.
#![cfg(feature = "mutants")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use dkv_base::mutants::Mutant;
use sim::faults::Course;
use sim::run::{Options, run};

/// Seeds within which each bug must be found.
const SEEDS: u64 = 60;

/// Returns what to try first: the course of events that shows a bug soonest, for bugs that random
/// faults seldom show, and the last seed that was seen to show it. A change of the product or of
/// the simulation may change that seed; then the test tries the others, and is slower.
fn shortest(mutant: Mutant) -> (Option<Course>, u64) {
    match mutant {
        Mutant::AnswerBeforeSync => (Some(Course::Outage), 1),
        Mutant::ReadWithoutQuorum => (None, 1),
        Mutant::SkipSessions => (None, 9),
        Mutant::ForgetVote => (None, 1),
        Mutant::HalfSnapshot => (None, 7),
        Mutant::OlderCoordinator => (None, 7),
        Mutant::LastArrivalWins => (None, 9),
        Mutant::SkipInScan => (None, 1),
        Mutant::BelieveCopies => (None, 1),
        Mutant::JudgeByStarts => (Some(Course::OldCopy), 1),
        Mutant::BelieveClones => (Some(Course::Clone), 1),
        Mutant::ForgetTombstone => (Some(Course::Refilled), 2),
        Mutant::PromiseWithoutAsking => (Some(Course::Emptied), 1),
        Mutant::TrustLateAcknowledgements => (Some(Course::LateAnswers), 1),
        Mutant::ElectByNewest => (Some(Course::HalfChange), 1),
        Mutant::OverlookDeadTasks => (Some(Course::DeadTask), 1),
        Mutant::LoseAtHandOver => (None, 1),
        Mutant::RepeatAfterResume => (None, 1),
        Mutant::HalfRevision => (None, 1),
        Mutant::ForgetOutcomes => (None, 1),
        Mutant::CompactAtFloor => (None, 1),
        Mutant::ReadBelowFloor => (None, 1),
        Mutant::ShortenLeases => (None, 1),
        Mutant::ForgetLeases => (None, 1),
        Mutant::EndLate => (None, 1),
        Mutant::KeepAliveUnconfirmed => (Some(Course::LateAnswers), 47),
        Mutant::DropTombstones => (None, 1),
        Mutant::DecideTwice => (Some(Course::Drivers), 1),
        Mutant::ForgetDecisions => (Some(Course::Drivers), 1),
        Mutant::RepeatOverShards => (Some(Course::Drivers), 1),
        Mutant::ReadThroughLocks => (None, 1),
        Mutant::KeepLocks => (Some(Course::Drivers), 1),
        Mutant::CutAfterMoment => (None, 1),
    }
}

/// Returns the first seed that shows a bug.
fn find(mutant: Mutant) -> std::io::Result<Option<u64>> {
    let (course, first) = shortest(mutant);
    // A founder's early backup is restored only in runs with this option.
    let old_copy = mutant == Mutant::BelieveCopies;
    let options = Options { mutant: Some(mutant), course, old_copy, ..Options::default() };
    for seed in std::iter::once(first).chain((1..=SEEDS).filter(|seed| *seed != first)) {
        let outcome = run(seed, options)?;
        for wrong in &outcome.wrong {
            println!("{mutant:?}, seed {seed}: {wrong}");
        }
        if !outcome.wrong.is_empty() {
            return Ok(Some(seed));
        }
    }
    Ok(None)
}

#[test]
fn every_planted_bug_is_found() {
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let search = || {
        let mut missed = Vec::new();
        while let Some(mutant) = Mutant::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
            if find(*mutant).unwrap().is_none() {
                missed.push(*mutant);
            }
        }
        missed
    };
    let missed: Vec<Mutant> = thread::scope(|scope| {
        let searches: Vec<_> = (0..jobs).map(|_| scope.spawn(search)).collect();
        searches.into_iter().flat_map(|search| search.join().unwrap()).collect()
    });
    assert_eq!(missed, [], "not found within {SEEDS} seeds");
}
