//! Inputs of records: a file, standard input or a pipe, checked before anything is stored.
//!
//! An input that can be read only once is first copied to an unnamed temporary file, so that one
//! malformed line still refuses all of it, and `--verify` can read it again.
//!
//! InputFile that does not look like text in UTF-8, such as compressed data or UTF-16, is refused
//! with a command that converts it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dkv_console::quote::quoted;
use dkv_console::units::bytes;

use super::Task;
use crate::cli::{Format, TransferArgs};
use crate::input::is_stdin;

/// Most bytes of an input that are copied to a temporary file.
const SPOOL_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;
/// Number of bytes from which the kind of an input is recognized.
const LOOK_BYTES: usize = 64;
/// The byte order mark of UTF-8, which some programs write at the beginning of a text.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Why an input is refused before anything is stored.
#[derive(Debug, thiserror::Error)]
pub(super) enum InputError {
    /// The system refuses to read it. The user names another.
    #[error("cannot read {name}: {source}")]
    Unreadable { name: String, source: io::Error },
    /// It is a directory. The user names a file.
    #[error("cannot read {0}: it is a directory")]
    Directory(String),
    /// It is not text in UTF-8. The user converts it first.
    #[error("{name} is {what}; {advice}")]
    NotText { name: String, what: &'static str, advice: String },
    /// There is no room for its copy. The user names another place.
    #[error(
        "cannot copy {name} to {}: {source}; set TMPDIR to another directory",
        .directory.display()
    )]
    NoRoom { name: String, directory: PathBuf, source: io::Error },
    /// It is too long to be copied. The user splits it, or stores it in a file.
    #[error("{0} is longer than {most}; load it in parts, or from a file", most = bytes(SPOOL_BYTES_MAX))]
    TooLong(String),
}

/// An input that can be read repeatedly.
#[derive(Clone, Debug)]
pub(super) struct InputFile {
    file: Arc<File>,
    /// Its name in messages.
    pub(super) name: String,
    /// Number of bytes before the first record.
    skip: u64,
    pub(super) format: Format,
    /// Whether the format was not given, but follows from the name or is the default.
    pub(super) guessed: bool,
}

impl InputFile {
    /// Opens an input and looks at its first bytes.
    ///
    /// # Errors
    /// It cannot be read, or it is not text.
    pub(super) fn open(task: Task, transfer: &TransferArgs) -> Result<Self, InputError> {
        let TransferArgs { file: path, format, binary, .. } = transfer;
        let format = *format;
        let stdin = transfer.opened.is_none() && is_stdin(path);
        let own = if stdin { "standard input".into() } else { path.display().to_string() };
        let name = transfer.shown.clone().unwrap_or(own);
        let unreadable = |source| InputError::Unreadable { name: name.clone(), source };
        let given = if let Some(opened) = &transfer.opened {
            opened.try_clone().map_err(unreadable)?
        } else if stdin {
            // A duplicate of descriptor 0 shows whether it is a file.
            let input = std::os::fd::AsFd::as_fd(&io::stdin()).try_clone_to_owned();
            File::from(input.map_err(unreadable)?)
        } else {
            File::open(path).map_err(unreadable)?
        };
        let kind = given.metadata().map_err(unreadable)?.file_type();
        if kind.is_dir() {
            return Err(InputError::Directory(name));
        }
        let file = if kind.is_file() && !stdin { given } else { spool(given, &name)? };
        let mut beginning = Vec::new();
        let file = Arc::new(file);
        let mut reader = Reader { file: Arc::clone(&file), offset: 0 }.take(LOOK_BYTES as u64);
        reader.read_to_end(&mut beginning).map_err(unreadable)?;
        let looks = kind_of(&beginning, *binary);
        if let Some((what, tool)) = looks {
            let advice = advice(task, path, stdin, format, what, tool);
            return Err(InputError::NotText { name, what, advice });
        }
        let skip = if beginning.starts_with(BOM) { BOM.len() as u64 } else { 0 };
        let guessed = format.is_none();
        let format = format.unwrap_or_else(|| format_of(path));
        Ok(Self { file, name, skip, format, guessed })
    }

    /// Returns a reader of its bytes from the first record on.
    pub(super) fn read(&self) -> Reader {
        Reader { file: Arc::clone(&self.file), offset: self.skip }
    }

    /// Returns notes for the user about the format.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.guessed {
            let (format, means) = match self.format {
                Format::Tsv => ("tsv", "key, tab, value"),
                Format::Csv => ("csv", "key, comma, value"),
                Format::Lines => ("lines", "each line is a key, its number is the value"),
                Format::Json => ("json", "one JSON object per line"),
            };
            notes.push(format!("reading {} as {format}: {means}", self.name));
        }
        if self.skip > 0 {
            notes.push(format!("skipping the byte order mark in {}", self.name));
        }
        notes
    }
}

/// Reads a file from its own offset, independently of other readers.
#[derive(Debug)]
pub(super) struct Reader {
    file: Arc<File>,
    offset: u64,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

/// Copies an input that can be read only once to a file that disappears with this process.
fn spool(input: File, name: &str) -> Result<File, InputError> {
    let directory = std::env::temp_dir();
    let failed = |source| {
        let (name, directory) = (name.to_owned(), directory.clone());
        InputError::NoRoom { name, directory, source }
    };
    let mut copy = tempfile::tempfile().map_err(failed)?;
    let mut input = input.take(SPOOL_BYTES_MAX + 1);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(InputError::Unreadable { name: name.to_owned(), source }),
        };
        copy.write_all(&buffer[..read]).map_err(failed)?;
    }
    if input.limit() == 0 {
        return Err(InputError::TooLong(name.to_owned()));
    }
    Ok(copy)
}

/// Recognizes an input that is not text in UTF-8 by its beginning. Returns its kind and a command
/// that converts it.
fn kind_of(beginning: &[u8], binary: bool) -> Option<(&'static str, &'static str)> {
    let bzip2 =
        |it: &[u8]| it.starts_with(b"BZh") && it[4..].starts_with(b"\x31\x41\x59\x26\x53\x59");
    let known = match beginning {
        [0x1f, 0x8b, ..] => ("compressed (gzip)", "zcat"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ("compressed (zstd)", "zstdcat"),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => ("compressed (xz)", "xzcat"),
        it if it.len() > 4 && bzip2(it) => ("compressed (bzip2)", "bzcat"),
        [b'P', b'K', 3, 4, ..] => ("a zip archive", "unzip -p"),
        // Checked before UTF-16, whose mark is a prefix of this one.
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => ("UTF-32", "iconv -f UTF-32 -t UTF-8"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => ("UTF-16", "iconv -f UTF-16 -t UTF-8"),
        _ if binary => return None,
        other => return unmarked(other),
    };
    Some(known)
}

/// Recognizes UTF-16 and UTF-32 without a mark by the positions of NUL bytes.
fn unmarked(beginning: &[u8]) -> Option<(&'static str, &'static str)> {
    let width = |width: usize, low: usize| {
        let whole = beginning.len() - beginning.len() % width;
        let mut places = beginning[..whole].iter().enumerate();
        whole >= 2 * width && places.all(|(at, byte)| (at % width == low) == (*byte != 0))
    };
    match () {
        () if width(2, 0) => Some(("UTF-16", "iconv -f UTF-16LE -t UTF-8")),
        () if width(2, 1) => Some(("UTF-16", "iconv -f UTF-16BE -t UTF-8")),
        () if width(4, 0) => Some(("UTF-32", "iconv -f UTF-32LE -t UTF-8")),
        () if width(4, 3) => Some(("UTF-32", "iconv -f UTF-32BE -t UTF-8")),
        () => None,
    }
}

/// Returns the command that converts an input with a tool and then carries out the task.
pub(super) fn advice(
    task: Task,
    path: &Path,
    stdin: bool,
    format: Option<Format>,
    what: &str,
    tool: &str,
) -> String {
    let word = match task {
        Task::Load => "load",
        Task::Verify => "verify",
    };
    // names.csv.gz contains CSV, and so does names.csv, even if it is compressed.
    let packed = path.extension().is_some_and(|extension| {
        let extension = extension.to_ascii_lowercase();
        ["gz", "zst", "xz", "bz2", "zip"].iter().any(|known| extension == *known)
    });
    let inner = if packed && !what.starts_with("UTF") {
        Path::new(path.file_stem().unwrap_or_default())
    } else {
        path
    };
    let said = if stdin { format } else { format.or(Some(format_of(inner))) };
    let option = match said {
        // A given format is repeated; without one, lines are the default.
        Some(Format::Lines) if format.is_some() => " --format lines",
        None | Some(Format::Lines) => "",
        Some(Format::Csv) => " --format csv",
        Some(Format::Tsv) => " --format tsv",
        Some(Format::Json) => " --format json",
    };
    if stdin {
        return format!("convert it first, as in {tool} FILE | dkv {word} -{option}");
    }
    let file = quoted(path.as_os_str().as_encoded_bytes());
    format!("write {tool} {file} | dkv {word} -{option}")
}

/// Returns the format that the name of a file implies.
fn format_of(path: &Path) -> Format {
    let extension = path.extension().and_then(|extension| extension.to_str());
    match extension.map(str::to_ascii_lowercase).as_deref() {
        Some("tsv" | "tab") => Format::Tsv,
        Some("csv") => Format::Csv,
        Some("json" | "jsonl" | "ndjson") => Format::Json,
        _ => Format::Lines,
    }
}
