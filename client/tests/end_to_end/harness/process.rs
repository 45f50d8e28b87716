//! Processes of the built `dkv`.

use std::path::Path;
use std::process::Command;

use dkv_test_support::{Process, process};

/// Returns the built `dkv`.
pub(crate) fn program() -> &'static Path {
    process::program(env!("CARGO_BIN_EXE_dkv"), env!("CARGO_TARGET_TMPDIR"))
}

/// Returns a `dkv` command in the environment of a network.
pub(crate) fn command(arguments: &[&str], home: &Path) -> Command {
    command_under(&[], arguments, home)
}

/// Returns the same command, run by other programs: each gets the next, with its arguments, as
/// arguments.
pub(crate) fn command_under(wrapper: &[&str], arguments: &[&str], home: &Path) -> Command {
    process::command(wrapper, program(), arguments, home)
}

/// Starts a `dkv` process whose output is added to `log`.
pub(crate) fn spawn(arguments: &[&str], home: &Path, log: &Path) -> Process {
    Process::spawn(command(arguments, home), log)
}
