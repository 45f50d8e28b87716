//! Values that are named and not given: read from their files, or from standard input.
//!
//! No more of them is read than a value may have, so that what is too large is refused before
//! anything is sent, however large it is.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use dkv_console::closed_streams;
use dkv_console::problem::Problem;
use dkv_wire::limits::VALUE_BYTES_MAX;

use crate::grammar::{Command, Content};

/// What standard input is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stdin {
    /// Whoever asks for it first.
    Free,
    /// A value that was read.
    Taken,
    /// The commands.
    Commands,
}

impl Stdin {
    /// Takes it.
    ///
    /// # Errors
    /// It is for something else.
    pub(crate) fn take(&mut self) -> Result<(), Problem> {
        match self {
            Self::Free => {
                *self = Self::Taken;
                Ok(())
            }
            Self::Taken => Err(Problem::usage(
                "standard input can be read once only; use @FILE for the others",
            )),
            Self::Commands => Err(Problem::usage(
                "standard input gives the commands here; use @FILE, or give the command as \
                 arguments of dkv",
            )),
        }
    }
}

/// Whether a path stands for standard input.
pub(crate) fn is_stdin(path: &Path) -> bool {
    path == Path::new("-") || path == Path::new("/dev/stdin") || path == Path::new("/dev/fd/0")
}

/// Reads the value of a command, if it has one that is named.
///
/// # Errors
/// What cannot be read, or is too large; nothing was done then.
pub(crate) async fn fill(command: &mut Command, stdin: &mut Stdin) -> Result<(), Problem> {
    let Command::Write { value, .. } = command else { return Ok(()) };
    let read = match value {
        Content::Given(_) => return Ok(()),
        Content::File(path) if !is_stdin(path) => {
            let path = path.clone();
            let name = path.display().to_string();
            let read = tokio::task::spawn_blocking(move || {
                // A directory can be opened, and says only then that it is one.
                File::open(&path).and_then(bounded)
            });
            named(&name, read.await.unwrap_or_else(|error| Err(io::Error::other(error))))
        }
        Content::File(_) | Content::Input => {
            stdin.take()?;
            not_closed()?;
            let read = tokio::task::spawn_blocking(|| bounded(io::stdin().lock()));
            let read = read.await.unwrap_or_else(|error| Err(io::Error::other(error)));
            named("standard input", read)
        }
    };
    *value = Content::Given(read?);
    Ok(())
}

/// Refuses a standard input that was closed: it would be taken for an empty one.
///
/// # Errors
/// It was.
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
            "the value in {name} is too large: the limit is {VALUE_BYTES_MAX} bytes; nothing was sent"
        )));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::parse_line;

    async fn filled(line: &str, stdin: &mut Stdin) -> Result<Content, String> {
        let mut command = parse_line(line.as_bytes()).unwrap().unwrap();
        fill(&mut command, stdin).await.map_err(|problem| problem.message)?;
        match command {
            Command::Write { value, .. } => Ok(value),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_file_is_taken_byte_by_byte_and_one_too_large_is_refused_unread() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("value");
        let line = format!("put k @{}", path.display());
        let missing = filled(&line, &mut Stdin::Free).await.unwrap_err();
        assert!(missing.contains("value: No such file"), "{missing}");
        std::fs::write(&path, b"\xff\x00\n").unwrap();
        let content = filled(&line, &mut Stdin::Commands).await;
        assert_eq!(content, Ok(Content::Given(b"\xff\x00\n".to_vec())));
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
    async fn standard_input_is_for_one_thing() {
        for (mut stdin, why) in
            [(Stdin::Taken, "once only"), (Stdin::Commands, "gives the commands")]
        {
            for line in ["put k -", "put k @/dev/stdin"] {
                let refused = filled(line, &mut stdin).await.unwrap_err();
                assert!(refused.contains(why), "{refused}");
            }
        }
    }
}
