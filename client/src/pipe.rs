//! Commands from a pipe: one per line, run as they arrive, until the end of the input.
//!
//! The writer may wait for the output of one command before it writes the next, so nothing is read
//! ahead and all output is flushed. A malformed line fails alone, with its number; later lines
//! still run, as they do after a command that failed.

use std::io;

use dkv_console::Console;
use dkv_console::problem::{Failure, Problem, worst};
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

use crate::exit::failure_of;
use crate::input::Stdin;
use crate::run::Outcome;
use crate::steps;
use crate::store::Store;

/// Longest line, in bytes: the longest key and the longest value, both escaped.
const LINE_BYTES_MAX: usize = 80 * 1024 * 1024;

/// Runs the commands of an input. Returns the most serious failure.
///
/// # Errors
/// Those of stdout.
pub(crate) async fn run(
    mut input: impl AsyncBufRead + Unpin,
    store: &impl Store,
    console: &mut Console,
) -> io::Result<Option<Failure>> {
    let mut failure = None;
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        match read_line(&mut input, &mut line).await {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => {
                console.error(&format!("cannot read the commands from standard input: {error}"));
                return Ok(worst(failure, Some(Failure::Failed)));
            }
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let problem = match steps::parse_line(text) {
            Ok(None) => continue,
            Ok(Some(step)) => {
                let mut step = [step];
                match steps::read_values(&mut step, &mut Stdin::Commands).await {
                    Ok(()) => {
                        console.input_line = Some(number);
                        let outcome = steps::run(&step[0], store, console).await;
                        console.input_line = None;
                        match outcome? {
                            Outcome::Exit => break,
                            outcome => failure = worst(failure, failure_of(outcome)),
                        }
                        continue;
                    }
                    Err(problem) => problem,
                }
            }
            Err(error) => Problem::usage(error.to_string()),
        };
        let problem = problem.at_line(number);
        console.problem(&problem);
        failure = worst(failure, Some(problem.failure));
    }
    Ok(failure)
}

/// Reads to the end of a line of at most [`LINE_BYTES_MAX`] bytes. Returns its length.
async fn read_line(
    input: &mut (impl AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
) -> io::Result<usize> {
    loop {
        let available = input.fill_buf().await?;
        if available.is_empty() {
            return Ok(line.len());
        }
        let end = available.iter().position(|byte| *byte == b'\n').map(|end| end + 1);
        let taken = end.unwrap_or(available.len());
        line.extend_from_slice(&available[..taken]);
        input.consume(taken);
        if end.is_some() {
            return Ok(line.len());
        }
        if line.len() > LINE_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "an input line is longer than any command",
            ));
        }
    }
}
