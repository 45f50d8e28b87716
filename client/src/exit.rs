//! From the end of a command to an exit status.

use std::io;
use std::process::ExitCode;

use dkv_console::console::{Screen, broken};
use dkv_console::problem::{Failure, Problem};

use crate::run::Outcome;

/// Exit status if the reader of the output has gone: what a shell shows after SIGPIPE, which ends
/// other programs in that case.
const BROKEN_PIPE: u8 = 128 + 13;

/// Says what went wrong; its exit status.
pub(crate) fn ended(screen: &mut Screen, problem: &Problem) -> ExitCode {
    screen.problem(problem);
    ExitCode::from(problem.failure.status())
}

/// The exit status of what was done. An output that nobody reads any more is no news to anybody.
pub(crate) fn finished(screen: &mut Screen, result: io::Result<Option<Failure>>) -> ExitCode {
    match result {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(failure)) => ExitCode::from(failure.status()),
        Err(error) => match broken(&error) {
            Some(problem) => ended(screen, &problem),
            None => ExitCode::from(BROKEN_PIPE),
        },
    }
}

/// The status of an outcome, among those of others.
pub(crate) fn failure_of(outcome: Outcome) -> Option<Failure> {
    match outcome {
        Outcome::Failed(failure) => Some(failure),
        Outcome::Done | Outcome::Exit => None,
    }
}
