//! Parsing of untrusted input without running it, for fuzzing.

use std::ffi::OsString;

use crate::dispatch;
pub use crate::dispatch::ArgumentsError;
use crate::grammar;
pub use crate::grammar::GrammarError;

/// Parses a line of the prompt or of a pipe, and returns its command in the word form. `None` if
/// the line is empty or a comment.
///
/// # Errors
/// A mistake in it.
pub fn line(line: &[u8]) -> Result<Option<String>, GrammarError> {
    Ok(grammar::parse_line(line)?.map(|command| command.to_string()))
}

/// Parses the arguments of the process, without its own name.
///
/// # Errors
/// A mistake in them. A request for help is an error, too.
pub fn arguments(arguments: Vec<OsString>) -> Result<(), ArgumentsError> {
    dispatch::check(arguments)
}
