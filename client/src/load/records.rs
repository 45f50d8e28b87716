//! Records, one a line; in CSV one with line feeds in quotes takes several.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader};

use dkv_gateway::bytes_json;
use dkv_wire::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_64;

use super::Task;
use super::source::{Input, Reader};
use crate::cli::{Format, Transfer};
use crate::csv::{self, Within};
use crate::grammar::Key;

/// Malformed lines that are shown before the file is given up.
const PROBLEMS_MAX: usize = 10;
/// Longest line, in bytes: a key and a value in quotes, every byte of them doubled.
const LINE_BYTES_MAX: usize = 2 * (KEY_BYTES_MAX + VALUE_BYTES_MAX) + 16;
/// The same in JSON, where one byte may take six.
const JSON_LINE_BYTES_MAX: usize = 6 * (KEY_BYTES_MAX + VALUE_BYTES_MAX) + 1024;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Where it is in the file, counted from one.
    pub(super) line: u64,
    pub(super) key: Key,
    pub(super) value: Vec<u8>,
}

/// An input that has been checked.
#[derive(Debug)]
pub(crate) struct Source {
    pub(super) input: Input,
    /// Records that count.
    pub(super) count: u64,
    /// Lines that a later one of the same key supersedes.
    pub(super) superseded: u64,
    /// The last line of each key, by the key's hash. Sixteen bytes a record; if two keys of a file
    /// should ever share their 64 bits, the first is left out and `verify` cannot miss it.
    last_line: HashMap<u64, u64>,
}

impl Source {
    /// Opens an input and checks every line of it. Bytes that are no text are taken if `binary`.
    ///
    /// # Errors
    /// The first problems, a line each.
    pub(super) fn survey(task: Task, transfer: &Transfer) -> Result<Self, Vec<String>> {
        let input = Input::open(task, transfer).map_err(|problem| vec![problem])?;
        let mut problems = Vec::new();
        let mut last_line = HashMap::new();
        let mut lines = 0;
        for (number, line) in Lines::of(&input) {
            let parsed = match line {
                Ok(line) => {
                    let strange = bare_control(input.format, &line).filter(|_| !transfer.binary);
                    if let Some(byte) = strange {
                        let why = strangeness(byte);
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
            problems.push(format!("{} holds no records", input.name));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let count = last_line.len() as u64;
        Ok(Self { input, count, superseded: lines - count, last_line })
    }

    /// The records that count, in the order of the file.
    pub(super) fn records(&self) -> impl Iterator<Item = io::Result<Record>> {
        let format = self.input.format;
        Lines::of(&self.input).filter_map(move |(number, line)| {
            let line = match line {
                Ok(line) => line,
                Err(error) => return Some(Err(error)),
            };
            match parse(format, number, &line) {
                Ok(record) => record.filter(|it| self.counts(it)).map(Ok),
                // It was well formed a moment ago.
                Err(_) => Some(Err(io::Error::other("the file changed while it was read"))),
            }
        })
    }

    fn counts(&self, record: &Record) -> bool {
        self.last_line.get(&xxh3_64(record.key.as_bytes())) == Some(&record.line)
    }
}

/// The lines of a file with their numbers, without their ends, of bounded length. Of a record of
/// several lines it is the number of the first.
struct Lines {
    reader: BufReader<Reader>,
    format: Format,
    number: u64,
    /// How many lines the last record took beyond its first.
    beyond: u64,
    ended: bool,
}

impl Lines {
    fn of(input: &Input) -> Self {
        let reader = BufReader::with_capacity(256 * 1024, input.read());
        Self { reader, format: input.format, number: 0, beyond: 0, ended: false }
    }

    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let mut within = Within::default();
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
        Format::Json => of_json(text)?,
    };
    let key = Key::new(key).map_err(|error| error.to_string())?;
    if value.len() > VALUE_BYTES_MAX {
        return Err(format!(
            "the value is too large: {} bytes, and the limit is {VALUE_BYTES_MAX}",
            value.len()
        ));
    }
    Ok(Some(Record { line, key, value }))
}

/// The first control byte of a line that looks like no text, if it has one. In the quotes of CSV
/// anything may stand.
fn bare_control(format: Format, line: &[u8]) -> Option<u8> {
    let is_control = |byte: u8| byte < b' ' && byte != b'\t';
    let first = line.iter().position(|byte| is_control(*byte))?;
    if format != Format::Csv {
        return Some(line[first]);
    }
    let mut within = Within::default().over(&line[..first]);
    for byte in &line[first..] {
        if is_control(*byte) && !within.is_open() {
            return Some(*byte);
        }
        within = within.over(std::slice::from_ref(byte));
    }
    None
}

/// What is to be said of such a byte.
fn strangeness(byte: u8) -> String {
    let what = match byte {
        b'\r' => {
            return "it holds a carriage return without a line feed; convert the line ends first, as in \
                    tr '\\r' '\\n', or take it as it is with --binary"
                .to_owned();
        }
        0 => "a NUL byte".to_owned(),
        byte => format!("the control byte 0x{byte:02x}"),
    };
    format!("it holds {what}, so this does not look like text; --binary takes it as it is")
}

/// An object as a list prints it. Other members, such as the revision, are of no account.
#[derive(Deserialize)]
struct Object {
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
}

fn of_json(text: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
    let Object { key, key_base64, value, value_base64 } =
        serde_json::from_slice(text).map_err(|error| no_object(text, &error))?;
    let take = |name: &str, text: Option<String>, base64: Option<String>| {
        let bytes = bytes_json::take(name, text, base64).map_err(|error| error.to_string())?;
        bytes.ok_or_else(|| format!("{name} or {name}_base64 is missing"))
    };
    let key = take("key", key, key_base64)?;
    let value = take("value", value, value_base64)?;
    Ok((key, value))
}

/// What a line of JSON is that is no record.
fn no_object(text: &[u8], error: &serde_json::Error) -> String {
    use serde_json::Value;
    let text = text.trim_ascii();
    if text.starts_with(b"[") {
        return "this is a JSON array; write one object a line, as jq -c '.[]' does".into();
    }
    if text == b"{" {
        return "an object must be in one line; write it so, as jq -c . does".into();
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
        Some((name, kind)) => format!("{name} must be a string, and it is {kind}"),
        None => format!("not a record: {error}"),
    }
}
