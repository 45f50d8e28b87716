//! Reads values that a command only names: from a file or from standard input.
//!
//! Reads no more than the longest value, so that a value which is too large is refused before
//! anything is sent, however large it is.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use dkv_console::closed_streams;
use dkv_console::problem::Problem;
use dkv_wire::limits::VALUE_BYTES_MAX;

use crate::grammar::{Command, ValueSource};

/// The use of standard input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stdin {
    /// Not used yet.
    Free,
    /// A value has been read from it.
    Taken,
    /// It provides the commands.
    Commands,
}

impl Stdin {
    /// Reserves it for a value.
    ///
    /// # Errors
    /// It has another use.
    pub(crate) fn take(&mut self) -> Result<(), Problem> {
        match self {
            Self::Free => {
                *self = Self::Taken;
                Ok(())
            }
            Self::Taken => Err(Problem::usage(
                "standard input can be read only once; use @FILE for the other values",
            )),
            Self::Commands => Err(Problem::usage(
                "standard input provides the commands here; use @FILE, or pass the command as \
                 arguments of dkv",
            )),
        }
    }
}

/// Returns whether a path means standard input.
pub(crate) fn is_stdin(path: &Path) -> bool {
    path == Path::new("-") || path == Path::new("/dev/stdin") || path == Path::new("/dev/fd/0")
}

/// Reads the value of a command, if the command names a file or standard input.
///
/// # Errors
/// The value cannot be read or is too large; nothing was done.
pub(crate) async fn read_value(command: &mut Command, stdin: &mut Stdin) -> Result<(), Problem> {
    match command {
        Command::Write { value, .. } => read_source(value, stdin).await,
        _ => Ok(()),
    }
}

/// Reads a value that is in a file or comes from standard input.
///
/// # Errors
/// As for [`read_value`].
pub(crate) async fn read_source(value: &mut ValueSource, stdin: &mut Stdin) -> Result<(), Problem> {
    let read = match value {
        ValueSource::Inline(_) => return Ok(()),
        ValueSource::File(path) if !is_stdin(path) => {
            let path = path.clone();
            let name = path.display().to_string();
            let read = tokio::task::spawn_blocking(move || {
                // Opening a directory succeeds; only reading fails.
                File::open(&path).and_then(bounded)
            });
            named(&name, read.await.unwrap_or_else(|error| Err(io::Error::other(error))))
        }
        ValueSource::File(_) | ValueSource::Stdin => {
            stdin.take()?;
            not_closed()?;
            let read = tokio::task::spawn_blocking(|| bounded(io::stdin().lock()));
            let read = read.await.unwrap_or_else(|error| Err(io::Error::other(error)));
            named("standard input", read)
        }
    };
    *value = ValueSource::Inline(read?);
    Ok(())
}

/// Reads a whole file, or standard input, which is reserved already.
///
/// # Errors
/// It cannot be read, or has more than `bytes_max` bytes; `what` names it.
pub(crate) async fn read_all(
    path: &Path,
    bytes_max: usize,
    what: &str,
) -> Result<Vec<u8>, Problem> {
    let name = if is_stdin(path) { "standard input".into() } else { path.display().to_string() };
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        let source: Box<dyn Read> =
            if is_stdin(&path) { Box::new(io::stdin()) } else { Box::new(File::open(&path)?) };
        source.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map(|_| bytes)
    });
    let read = read.await.unwrap_or_else(|error| Err(io::Error::other(error)));
    match read {
        Ok(bytes) if bytes.len() > bytes_max => Err(Problem::failed(format!(
            "{what} in {name} is too large: the limit is {bytes_max} bytes; nothing was sent"
        ))),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(Problem::failed(format!("cannot read {what} from {name}: {error}"))),
    }
}

/// Refuses a closed standard input, which would look like an empty one.
///
/// # Errors
/// It is closed.
pub(crate) fn not_closed() -> Result<(), Problem> {
    if closed_streams::is_input_closed() {
        return Err(Problem::failed("standard input is closed; nothing was done"));
    }
    Ok(())
}

fn bounded(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(VALUE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn named(name: &str, read: io::Result<Vec<u8>>) -> Result<Vec<u8>, Problem> {
    let bytes = read
        .map_err(|error| Problem::failed(format!("cannot read the value from {name}: {error}")))?;
    if bytes.len() > VALUE_BYTES_MAX {
        return Err(Problem::failed(format!(
            "the value in {name} is too large: the limit is {VALUE_BYTES_MAX} bytes; nothing was \
             sent"
        )));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::parse_line;

    async fn filled(line: &str, stdin: &mut Stdin) -> Result<ValueSource, String> {
        let mut command = parse_line(line.as_bytes()).unwrap().unwrap();
        read_value(&mut command, stdin).await.map_err(|problem| problem.message)?;
        match command {
            Command::Write { value, .. } => Ok(value),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_file_is_read_byte_for_byte_and_refused_if_it_is_too_large() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("value");
        let line = format!("put k @{}", path.display());
        let missing = filled(&line, &mut Stdin::Free).await.unwrap_err();
        assert!(missing.contains("value: No such file"), "{missing}");
        std::fs::write(&path, b"\xff\x00\n").unwrap();
        let content = filled(&line, &mut Stdin::Commands).await;
        assert_eq!(content, Ok(ValueSource::Inline(b"\xff\x00\n".to_vec())));
        File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
        let large = filled(&line, &mut Stdin::Free).await.unwrap_err();
        assert!(
            large.contains("too large: the limit is 16777216 bytes; nothing was sent"),
            "{large}"
        );
        let directory = format!("put k @{}", directory.path().display());
        assert!(filled(&directory, &mut Stdin::Free).await.unwrap_err().contains("directory"));
    }

    #[tokio::test]
    async fn standard_input_has_only_one_use() {
        for (mut stdin, why) in
            [(Stdin::Taken, "only once"), (Stdin::Commands, "provides the commands")]
        {
            for line in ["put k -", "put k @/dev/stdin"] {
                let refused = filled(line, &mut stdin).await.unwrap_err();
                assert!(refused.contains(why), "{refused}");
            }
        }
    }
}
