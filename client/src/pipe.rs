//! Commands from a pipe: one a line, run as they come, until the end of the input.
//!
//! Whoever writes the commands may wait for what the last one printed before it writes the next,
//! so nothing is read ahead and everything printed is flushed. A malformed line fails by itself,
//! with its number; the lines after it are run, as they are after a command that failed.

use std::io;

use dkv_console::console::Screen;
use dkv_console::problem::{Failure, Problem, worst};
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

use crate::exit::failure_of;
use crate::input::Stdin;
use crate::run::Outcome;
use crate::steps;
use crate::store::Store;

/// Longest line, in bytes: the longest value and the longest key, escaped.
const LINE_BYTES_MAX: usize = 80 * 1024 * 1024;

/// Runs the commands of an input; the most serious of what went wrong.
///
/// # Errors
/// Those of stdout and of the input.
pub(crate) async fn run(
    mut input: impl AsyncBufRead + Unpin,
    store: &impl Store,
    screen: &mut Screen,
) -> io::Result<Option<Failure>> {
    let mut failure = None;
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        match read_line(&mut input, &mut line).await {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => {
                screen.error(&format!("cannot read the commands from standard input: {error}"));
                return Ok(worst(failure, Some(Failure::Failed)));
            }
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let problem = match steps::parse_line(text) {
            Ok(None) => continue,
            Ok(Some(step)) => {
                let mut step = [step];
                match steps::fill(&mut step, &mut Stdin::Commands).await {
                    Ok(()) => {
                        screen.input_line = Some(number);
                        let outcome = steps::one(&step[0], store, screen).await;
                        screen.input_line = None;
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
        let problem = problem.in_line(number);
        screen.problem(&problem);
        failure = worst(failure, Some(problem.failure));
    }
    Ok(failure)
}

/// Reads to the end of a line, within [`LINE_BYTES_MAX`].
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
                "a line of the input is longer than any command",
            ));
        }
    }
}
