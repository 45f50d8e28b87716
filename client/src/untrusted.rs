//! Parsing of untrusted input without running it, for fuzzing.

use std::ffi::OsString;

use crate::dispatch;
use crate::grammar;

/// Parses a line of the prompt or of a pipe, and returns its command in the word form. `None` if
/// the line is empty or a comment.
///
/// # Errors
/// A mistake in it, in one line.
pub fn line(line: &[u8]) -> Result<Option<String>, String> {
    match grammar::parse_line(line) {
        Ok(command) => Ok(command.map(|command| command.to_string())),
        Err(error) => Err(error.to_string()),
    }
}

/// Parses the arguments of the process, without its own name.
///
/// # Errors
/// A mistake in them. A request for help is an error, too.
pub fn arguments(arguments: Vec<OsString>) -> Result<(), String> {
    dispatch::check(arguments)
}
