//! Files of records, one a line; in CSV one with line feeds in quotes takes several.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use dkv_wire::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use xxhash_rust::xxh3::xxh3_64;

use crate::cli::Format;
use crate::csv::{self, Within};
use crate::grammar::Key;

/// Malformed lines that are shown before the file is given up.
const PROBLEMS_MAX: usize = 10;
/// Longest line, in bytes: a key and a value in quotes, every byte of them doubled.
const LINE_BYTES_MAX: usize = 2 * (KEY_BYTES_MAX + VALUE_BYTES_MAX) + 16;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Where it is in the file, counted from one.
    pub(super) line: u64,
    pub(super) key: Key,
    pub(super) value: Vec<u8>,
}

/// A file that has been checked.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    format: Format,
    /// Records that count.
    pub(super) count: u64,
    /// Lines that a later one of the same key supersedes.
    pub(super) superseded: u64,
    /// The last line of each key, by the key's hash. Sixteen bytes a record; if two keys of a file
    /// should ever share their 64 bits, the first is left out and `verify` cannot miss it.
    last_line: HashMap<u64, u64>,
}

impl Source {
    /// Checks every line of a file.
    ///
    /// # Errors
    /// The first problems, a line each.
    pub(super) fn survey(path: &Path, format: Option<Format>) -> Result<Self, Vec<String>> {
        let format = format.unwrap_or_else(|| format_of(path));
        let unreadable = |error: &io::Error| format!("cannot read {}: {error}", path.display());
        let file = File::open(path).map_err(|error| vec![unreadable(&error)])?;
        let mut problems = Vec::new();
        let mut last_line = HashMap::new();
        let mut lines = 0;
        for (number, line) in Lines::of(file, format) {
            let parsed = match line {
                Ok(line) => parse(format, number, &line),
                Err(error) => {
                    problems.push(unreadable(&error));
                    break;
                }
            };
            match parsed {
                Ok(None) => {}
                Ok(Some(record)) => {
                    lines += 1;
                    last_line.insert(xxh3_64(record.key.as_bytes()), number);
                }
                Err(problem) => {
                    problems.push(format!("{}, line {number}: {problem}", path.display()));
                }
            }
            if problems.len() >= PROBLEMS_MAX {
                problems.push("and perhaps more; nothing was loaded".into());
                break;
            }
        }
        if problems.is_empty() && lines == 0 {
            problems.push(format!("{} holds no records", path.display()));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let count = last_line.len() as u64;
        Ok(Self { path: path.to_owned(), format, count, superseded: lines - count, last_line })
    }

    /// The records that count, in the order of the file.
    pub(super) fn records(&self) -> io::Result<impl Iterator<Item = io::Result<Record>>> {
        let file = File::open(&self.path)?;
        Ok(Lines::of(file, self.format).filter_map(|(number, line)| {
            let line = match line {
                Ok(line) => line,
                Err(error) => return Some(Err(error)),
            };
            match parse(self.format, number, &line) {
                Ok(record) => record.filter(|it| self.counts(it)).map(Ok),
                // It was well formed a moment ago.
                Err(_) => Some(Err(io::Error::other("the file changes while it is read"))),
            }
        }))
    }

    fn counts(&self, record: &Record) -> bool {
        self.last_line.get(&xxh3_64(record.key.as_bytes())) == Some(&record.line)
    }
}

fn format_of(path: &Path) -> Format {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("tsv") => Format::Tsv,
        Some("csv") => Format::Csv,
        _ => Format::Lines,
    }
}

/// The lines of a file with their numbers, without their ends, of bounded length. Of a record of
/// several lines it is the number of the first.
struct Lines {
    reader: BufReader<File>,
    format: Format,
    number: u64,
    /// How many lines the last record took beyond its first.
    beyond: u64,
    ended: bool,
}

impl Lines {
    fn of(file: File, format: Format) -> Self {
        let reader = BufReader::with_capacity(256 * 1024, file);
        Self { reader, format, number: 0, beyond: 0, ended: false }
    }

    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let mut within = Within::default();
        self.beyond = 0;
        loop {
            let before = line.len();
            let limit = LINE_BYTES_MAX - before;
            let mut part = io::Read::take(&mut self.reader, limit as u64);
            let read = part.read_until(b'\n', &mut line)?;
            let ended = line.last() == Some(&b'\n') && read > 0;
            if !ended && read == limit {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("line {} is longer than any record", self.number),
                ));
            }
            within = within.over(&line[before..]);
            if ended && self.format == Format::Csv && within.is_open() {
                self.beyond += 1;
                continue;
            }
            if ended {
                line.pop();
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
            }
            return Ok((!line.is_empty() || ended).then_some(line));
        }
    }
}

impl Iterator for Lines {
    type Item = (u64, io::Result<Vec<u8>>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        self.number += 1 + self.beyond;
        let line = self.read().transpose();
        self.ended = !matches!(line, Some(Ok(_)));
        line.map(|line| (self.number, line))
    }
}

/// Reads a line; `None` if it is empty.
pub(super) fn parse(format: Format, line: u64, text: &[u8]) -> Result<Option<Record>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let (key, value) = match format {
        Format::Lines => (text.to_vec(), line.to_string().into_bytes()),
        Format::Tsv => {
            let tab = text.iter().position(|byte| *byte == b'\t');
            let tab = tab.ok_or("there is no tab after the key")?;
            (text[..tab].to_vec(), text[tab + 1..].to_vec())
        }
        Format::Csv => csv::parse(text).map_err(|error| error.to_string())?,
    };
    let key = Key::new(key).map_err(|error| error.to_string())?;
    if value.len() > VALUE_BYTES_MAX {
        return Err(format!(
            "the value has {} bytes, and {VALUE_BYTES_MAX} is the limit",
            value.len()
        ));
    }
    Ok(Some(Record { line, key, value }))
}
