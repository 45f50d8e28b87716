//! What people type and programs write, read and not obeyed: for whoever tries what comes of it.

use std::ffi::OsString;

use crate::dispatch;
use crate::grammar;

/// A line of the prompt or of a pipe, as the command that it is, in words that mean the same. None
/// if it is empty or a comment.
///
/// # Errors
/// What is wrong with it, in one line.
pub fn line(line: &[u8]) -> Result<Option<String>, String> {
    match grammar::parse_line(line) {
        Ok(command) => Ok(command.map(|command| command.to_string())),
        Err(error) => Err(error.to_string()),
    }
}

/// The arguments of the process, without its own name.
///
/// # Errors
/// What is wrong with them. That a line of help was asked for is an error too.
pub fn arguments(arguments: Vec<OsString>) -> Result<(), String> {
    dispatch::check(arguments)
}
