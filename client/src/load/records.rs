//! Records, one per line. In CSV, a record with quoted line feeds takes several lines.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader};
use std::time::Duration;

use dkv_gateway::bytes_json::{self, BytesError};
use dkv_wire::limits::{KEY_BYTES_MAX, TTL_MAX, VALUE_BYTES_MAX};
use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_64;

use super::Task;
use super::source::{InputFile, Reader};
use crate::cli::{Format, TransferArgs};
use crate::csv::{self, CsvError, ParserState};
use crate::grammar::{Key, KeyError};

/// Number of malformed lines to report before giving up the file.
const PROBLEMS_MAX: usize = 10;
/// Longest line, in bytes: a quoted key and value in which every byte is doubled.
const LINE_BYTES_MAX: usize = 2 * (KEY_BYTES_MAX + VALUE_BYTES_MAX) + 16;
/// Longest line of JSON, in which one byte may take six.
const JSON_LINE_BYTES_MAX: usize = 6 * (KEY_BYTES_MAX + VALUE_BYTES_MAX) + 1024;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Its line in the file, counted from one.
    pub(super) line: u64,
    pub(super) key: Key,
    pub(super) value: Vec<u8>,
    /// The time that the key is to live, if it is to expire.
    pub(super) ttl: Option<Duration>,
}

/// An input that has been checked.
#[derive(Debug)]
pub(crate) struct Source {
    pub(super) input: InputFile,
    /// Number of records that count.
    pub(super) count: u64,
    /// Number of lines that a later line with the same key supersedes.
    pub(super) superseded: u64,
    /// The last line of each key, by the hash of the key: sixteen bytes per record. If two keys of
    /// a file had the same 64-bit hash, the first would be skipped, and `verify` would not notice.
    last_line: HashMap<u64, u64>,
}

impl Source {
    /// Opens an input and checks every line. With `--binary`, bytes that are not text are accepted.
    ///
    /// # Errors
    /// The first problems, one line each.
    pub(super) fn check(task: Task, transfer: &TransferArgs) -> Result<Self, Vec<String>> {
        let input = InputFile::open(task, transfer).map_err(|error| vec![error.to_string()])?;
        let mut problems = Vec::new();
        let mut last_line = HashMap::new();
        let mut lines = 0;
        for (number, line) in Lines::of(&input) {
            let parsed = match line {
                Ok(line) => {
                    let strange = bare_control(input.format, &line).filter(|_| !transfer.binary);
                    if let Some(byte) = strange {
                        let why = control_byte_problem(byte);
                        problems.push(format!("{}, line {number}: {why}", input.name));
                        break;
                    }
                    parse(input.format, number, &line)
                }
                Err(error) => {
                    problems.push(format!("cannot read {}: {error}", input.name));
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
                    problems.push(format!("{}, line {number}: {problem}", input.name));
                }
            }
            if problems.len() >= PROBLEMS_MAX {
                let done = if task == Task::Load { "loaded" } else { "compared" };
                problems.push(format!("there may be more; nothing was {done}"));
                break;
            }
        }
        if problems.is_empty() && lines == 0 {
            problems.push(format!("{} contains no records", input.name));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let count = last_line.len() as u64;
        Ok(Self { input, count, superseded: lines - count, last_line })
    }

    /// Returns the records that count, in the order of the file.
    pub(super) fn records(&self) -> impl Iterator<Item = io::Result<Record>> {
        let format = self.input.format;
        Lines::of(&self.input).filter_map(move |(number, line)| {
            let line = match line {
                Ok(line) => line,
                Err(error) => return Some(Err(error)),
            };
            match parse(format, number, &line) {
                Ok(record) => record.filter(|it| self.counts(it)).map(Ok),
                // The first pass has accepted this line.
                Err(_) => Some(Err(io::Error::other("the file changed while it was being read"))),
            }
        })
    }

    fn counts(&self, record: &Record) -> bool {
        self.last_line.get(&xxh3_64(record.key.as_bytes())) == Some(&record.line)
    }
}

/// Iterates over the lines of a file, of bounded length and without their ends, with their numbers.
/// A record of several lines has the number of the first.
struct Lines {
    reader: BufReader<Reader>,
    format: Format,
    number: u64,
    /// Number of lines of the last record after its first.
    beyond: u64,
    ended: bool,
}

impl Lines {
    fn of(input: &InputFile) -> Self {
        let reader = BufReader::with_capacity(256 * 1024, input.read());
        Self { reader, format: input.format, number: 0, beyond: 0, ended: false }
    }

    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let mut state = ParserState::default();
        self.beyond = 0;
        loop {
            let before = line.len();
            let longest =
                if self.format == Format::Json { JSON_LINE_BYTES_MAX } else { LINE_BYTES_MAX };
            let limit = longest - before;
            let mut part = io::Read::take(&mut self.reader, limit as u64);
            let read = part.read_until(b'\n', &mut line)?;
            let ended = line.last() == Some(&b'\n') && read > 0;
            if !ended && read == limit {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("line {} is longer than any record can be", self.number),
                ));
            }
            state = state.over(&line[before..]);
            if ended && self.format == Format::Csv && state.is_open() {
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

/// Why a line is not a record. The user corrects the input; nothing was stored.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    /// A line of TSV has no tab.
    #[error("there is no tab after the key")]
    NoTab,
    /// A line of CSV is malformed.
    #[error(transparent)]
    Csv(#[from] CsvError),
    /// A line of JSON is not a record; says why.
    #[error("{0}")]
    Json(String),
    /// A member of a JSON object is malformed.
    #[error(transparent)]
    Bytes(#[from] BytesError),
    /// A member of a JSON object is missing.
    #[error("{0} or {0}_base64 is missing")]
    Missing(&'static str),
    /// The key is too long or empty.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The time to live is no time to live.
    #[error("ttl_ms must be from 1 to {}", TTL_MAX.as_millis())]
    Ttl,
    /// The value is too long.
    #[error("the value is too large: {0} bytes, but the limit is {VALUE_BYTES_MAX}")]
    TooLarge(usize),
}

/// Parses a line. Returns `None` if it is empty.
///
/// # Errors
/// A mistake in it.
pub(super) fn parse(format: Format, line: u64, text: &[u8]) -> Result<Option<Record>, RecordError> {
    if text.is_empty() {
        return Ok(None);
    }
    let mut ttl = None;
    let (key, value) = match format {
        Format::Lines => (text.to_vec(), line.to_string().into_bytes()),
        Format::Tsv => {
            let tab = text.iter().position(|byte| *byte == b'\t');
            let tab = tab.ok_or(RecordError::NoTab)?;
            (text[..tab].to_vec(), text[tab + 1..].to_vec())
        }
        Format::Csv => csv::parse(text)?,
        Format::Json => {
            let (key, value, ttl_ms) = of_json(text)?;
            ttl = ttl_ms.map(Duration::from_millis);
            (key, value)
        }
    };
    let key = Key::new(key)?;
    if value.len() > VALUE_BYTES_MAX {
        return Err(RecordError::TooLarge(value.len()));
    }
    if ttl.is_some_and(|ttl| ttl.is_zero() || ttl > TTL_MAX) {
        return Err(RecordError::Ttl);
    }
    Ok(Some(Record { line, key, value, ttl }))
}

/// Returns the first control byte of a line, which shows that it is not text. Quoted fields of CSV
/// may contain any bytes.
fn bare_control(format: Format, line: &[u8]) -> Option<u8> {
    let is_control = |byte: u8| byte < b' ' && byte != b'\t';
    let first = line.iter().position(|byte| is_control(*byte))?;
    if format != Format::Csv {
        return Some(line[first]);
    }
    let mut state = ParserState::default().over(&line[..first]);
    for byte in &line[first..] {
        if is_control(*byte) && !state.is_open() {
            return Some(*byte);
        }
        state = state.over(std::slice::from_ref(byte));
    }
    None
}

/// Explains why a control byte is refused.
fn control_byte_problem(byte: u8) -> String {
    let what = match byte {
        b'\r' => {
            return "it contains a carriage return without a line feed; convert the line ends \
                    first, as in tr '\\r' '\\n', or accept it with --binary"
                .to_owned();
        }
        0 => "a NUL byte".to_owned(),
        byte => format!("the control byte 0x{byte:02x}"),
    };
    format!("it contains {what}, so this does not look like text; --binary accepts it")
}

/// An object as `scan` and `export` print it. Other members, such as the revision, are ignored.
#[derive(Deserialize)]
struct Object {
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    ttl_ms: Option<u64>,
}

/// A key, its value, and the time that it is to live, in milliseconds.
type Fields = (Vec<u8>, Vec<u8>, Option<u64>);

fn of_json(text: &[u8]) -> Result<Fields, RecordError> {
    let Object { key, key_base64, value, value_base64, ttl_ms } = serde_json::from_slice(text)
        .map_err(|error| RecordError::Json(json_problem(text, &error)))?;
    let take = |name: &'static str, text: Option<String>, base64: Option<String>| {
        bytes_json::take(name, text, base64)?.ok_or(RecordError::Missing(name))
    };
    let key = take("key", key, key_base64)?;
    let value = take("value", value, value_base64)?;
    Ok((key, value, ttl_ms))
}

/// Explains why a line of JSON is not a record.
fn json_problem(text: &[u8], error: &serde_json::Error) -> String {
    use serde_json::Value;
    let text = text.trim_ascii();
    if text.starts_with(b"[") {
        return "this is a JSON array; write one object per line, as jq -c '.[]' does".into();
    }
    if text == b"{" {
        return "an object must be on one line; convert it with jq -c .".into();
    }
    let Ok(Value::Object(members)) = serde_json::from_slice(text) else {
        return format!("not a JSON object: {error}");
    };
    let member = ["key", "key_base64", "value", "value_base64"].into_iter().find_map(|name| {
        let kind = match members.get(name)? {
            Value::Number(_) => "a number",
            Value::Bool(_) => "true or false",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
            Value::String(_) | Value::Null => return None,
        };
        Some((name, kind))
    });
    match member {
        Some((name, kind)) => format!("{name} must be a string, but it is {kind}"),
        None => format!("not a record: {error}"),
    }
}
