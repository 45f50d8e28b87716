//! From the end of a command to an exit status.

use std::io;
use std::process::ExitCode;

use dkv_console::problem::{Failure, Problem};
use dkv_console::{Console, broken};

use crate::run::Outcome;

/// Exit status if the reader of the output has gone: what a shell shows after SIGPIPE, which ends
/// other programs in that case.
const BROKEN_PIPE: u8 = 128 + 13;

/// Reports a problem and returns its exit status.
pub(crate) fn ended(console: &mut Console, problem: &Problem) -> ExitCode {
    console.problem(problem);
    ExitCode::from(problem.failure.status())
}

/// Returns the exit status of finished commands. Reports a failure of stdout, unless its reader has
/// gone.
pub(crate) fn finished(console: &mut Console, result: io::Result<Option<Failure>>) -> ExitCode {
    match result {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(failure)) => ExitCode::from(failure.status()),
        Err(error) => match broken(&error) {
            Some(problem) => ended(console, &problem),
            None => ExitCode::from(BROKEN_PIPE),
        },
    }
}

/// Returns the kind of failure of an outcome, if it failed.
pub(crate) fn failure_of(outcome: Outcome) -> Option<Failure> {
    match outcome {
        Outcome::Failed(failure) => Some(failure),
        Outcome::Done | Outcome::Exit => None,
    }
}
