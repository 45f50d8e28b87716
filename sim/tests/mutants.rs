//! Known bugs are found: what cannot find them proves nothing.
#![cfg(feature = "mutants")]

use dkv_wire::mutants::Mutant;
use sim::explore::explore;
use sim::faults::Course;
use sim::run::Options;

/// Seeds in which each bug must show.
const SEEDS: u64 = 60;

/// The course of events that shows a bug soonest, where what is drawn takes long.
fn course(mutant: Mutant) -> Option<Course> {
    match mutant {
        Mutant::TrustLateAcknowledgements => Some(Course::LateAnswers),
        Mutant::ElectByNewest => Some(Course::HalfChange),
        Mutant::PromiseWithoutAsking => Some(Course::Emptied),
        Mutant::ForgetFormer => Some(Course::Refilled),
        Mutant::OverlookDeadTasks => Some(Course::DeadTask),
        _ => None,
    }
}

#[test]
fn every_planted_bug_is_found() {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    for mutant in Mutant::ALL {
        let options =
            Options { mutant: Some(mutant), course: course(mutant), ..Options::default() };
        let summary = explore(1, SEEDS, jobs, options, |seed, outcome| {
            for wrong in &outcome.wrong {
                println!("{mutant:?}, seed {seed}: {wrong}");
            }
            outcome.wrong.is_empty()
        });
        assert!(!summary.unwrap().failed.is_empty(), "{mutant:?} was not found");
    }
}
