//! What the tests of whole networks share: processes of the built `dkv`, waiting with a deadline,
//! and judging whether the nodes agree.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "only tests use this crate")]

pub mod convergence;
pub mod process;
pub mod waiting;

use std::io::Write;
use std::path::Path;

pub use process::Process;
pub use waiting::{PATIENCE, eventually, for_a_while, within};

/// Says that a test was skipped, and why: to the stderr of the process, for the test harness shows
/// nothing that a test prints unless it fails.
pub fn skip(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

/// Returns a path as an argument of a command.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Returns an output stream as text.
pub fn output(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}
