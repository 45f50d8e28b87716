//! Commands from a pipe: one a line, run as they come, until the end of the input.
//!
//! Whoever writes the commands may wait for what the last one printed before it writes the next,
//! so nothing is read ahead and everything printed is flushed. A malformed line fails by itself,
//! with its number; the lines after it are run, as they are after a command that failed.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

use crate::grammar;
use crate::run::{self, Outcome};
use crate::screen::Screen;
use crate::store::Store;

/// Longest line, in bytes: the longest value and the longest key, escaped.
const LINE_BYTES_MAX: usize = 80 * 1024 * 1024;

/// Runs the commands of an input; true if all succeeded.
///
/// # Errors
/// Those of stdout and of the input.
pub(crate) async fn run(
    mut input: impl AsyncBufRead + Unpin,
    store: &impl Store,
    screen: &mut Screen,
) -> io::Result<bool> {
    let mut succeeded = true;
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        if read_line(&mut input, &mut line).await? == 0 {
            break;
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        match grammar::parse_line(text) {
            Ok(None) => {}
            Ok(Some(command)) => match run::one(&command, store, screen).await? {
                Outcome::Done => {}
                Outcome::Failed => succeeded = false,
                Outcome::Exit => break,
            },
            Err(error) => {
                screen.error(&format!("line {number}: {error}"));
                succeeded = false;
            }
        }
    }
    Ok(succeeded)
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
