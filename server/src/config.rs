//! The configuration file.
//!
//! `config.json` is one flat JSON object. Every field has a default, so that `{}` is a valid file;
//! a field that is not known is an error, so that a misspelt one is not silently ignored. Errors
//! name the file, the line and the field, and say what would be right.
//!
//! A relative `data_dir` in the file is relative to the directory *of the file*: the network that a
//! file describes stays the same wherever the command is typed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use dkv_base::id::NodeId;
use dkv_wire::network::Delays;
use dkv_wire::network::{Settings, SettingsError};
use serde::Deserialize;

/// What the server runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where the network's authority, tokens and books are.
    pub data_dir: PathBuf,
    /// What a new network is to run with.
    pub settings: Settings,
    /// The directory below which tokens are left for other processes of this user; see
    /// [`dkv_wire::local`]. Not in the file: it follows from the user's environment.
    pub tokens_home: Option<PathBuf>,
    /// A voter of the control group, by the operator's word: for a server that was down while all
    /// the voters that it knew were replaced. Not in the file: it is for one start.
    pub trust_voter: Option<NodeId>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 4400)),
            data_dir: PathBuf::from("data/server"),
            settings: Settings::default(),
            tokens_home: dkv_wire::local::home(),
            trust_voter: None,
        }
    }
}

/// A configuration that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {why}", .path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// The content is not a configuration at all.
    #[error("{}: not a JSON object: {why}", .path.display())]
    NoObject {
        /// Which file.
        path: PathBuf,
        /// What it is instead, and what to do.
        why: &'static str,
    },
    /// The content is not a configuration.
    #[error("{}, line {line}: {why}", .path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// Which line, counted from one.
        line: usize,
        /// What is wrong, with the name of the field.
        why: String,
    },
    /// Settings that cannot be, and that no line of a file is to blame for.
    #[error("{0}")]
    Settings(#[from] SettingsError),
}

/// The file as it is written. A twin of [`Settings`], because serde can refuse unknown fields only
/// of a struct that holds all of its fields itself.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    listen: SocketAddr,
    data_dir: PathBuf,
    replication: u32,
    shards: u32,
    heartbeat_ms: u64,
    election_min_ms: u64,
    election_max_ms: u64,
    value_bytes_max: u64,
    log_bytes_max: u64,
    replace_after_ms: u64,
    delays_between: Vec<String>,
    delays_ms: Vec<Vec<u32>>,
    delays_vary: bool,
}

impl Default for File {
    fn default() -> Self {
        let Config { listen, data_dir, settings, tokens_home: _, trust_voter: _ } =
            Config::default();
        // Without `..`: a new setting that is forgotten here does not compile.
        let Settings {
            replication,
            shards,
            heartbeat_ms,
            election_min_ms,
            election_max_ms,
            value_bytes_max,
            log_bytes_max,
            replace_after_ms,
            delays,
        } = settings;
        Self {
            listen,
            data_dir,
            replication,
            shards,
            heartbeat_ms,
            election_min_ms,
            election_max_ms,
            value_bytes_max,
            log_bytes_max,
            replace_after_ms,
            delays_between: delays.between,
            delays_ms: delays.average_ms,
            delays_vary: delays.vary,
        }
    }
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let content = std::fs::read(path)
            .map_err(|error| ConfigError::File { path: path.to_owned(), why: error.to_string() })?;
        let no_text =
            || ConfigError::NoObject { path: path.to_owned(), why: why_no_text(&content) };
        Self::parse(path, std::str::from_utf8(&content).map_err(|_| no_text())?)
    }

    /// Checks the text of the file at `path`, which itself is not read.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let wrong = |line, why: String| ConfigError::Content {
            path: path.to_owned(),
            line: usize::max(line, 1),
            why: visible(&why),
        };
        if let Some(why) = why_no_object(text) {
            return Err(ConfigError::NoObject { path: path.to_owned(), why });
        }
        let file: File = serde_json::from_str(text)
            .map_err(|error| wrong(error.line(), explain(text, &error)))?;
        if file.data_dir.as_os_str().is_empty() {
            let line = line_of(text, "data_dir").unwrap_or(1);
            return Err(wrong(
                line,
                "data_dir: must name a directory, as in \"data/server\"".into(),
            ));
        }
        let settings = Settings {
            replication: file.replication,
            shards: file.shards,
            heartbeat_ms: file.heartbeat_ms,
            election_min_ms: file.election_min_ms,
            election_max_ms: file.election_max_ms,
            value_bytes_max: file.value_bytes_max,
            log_bytes_max: file.log_bytes_max,
            replace_after_ms: file.replace_after_ms,
            delays: Delays {
                between: file.delays_between,
                average_ms: file.delays_ms,
                vary: file.delays_vary,
            },
        };
        settings.check().map_err(|error| match line_of(text, error.setting) {
            Some(line) => wrong(line, error.to_string()),
            None => wrong(1, format!("{error} (it has its default value here)")),
        })?;
        let beside = path.parent().unwrap_or(Path::new(""));
        Ok(Self {
            listen: file.listen,
            data_dir: beside.join(file.data_dir),
            settings,
            ..Self::default()
        })
    }
}

/// The same without characters that could steer a terminal: it may repeat what is in the file.
pub(crate) fn visible(text: &str) -> String {
    let one = |character: char| match character {
        _ if character.is_control() => character.escape_default().to_string(),
        _ => character.to_string(),
    };
    text.chars().map(one).collect()
}

/// What serde says, without its position, and with the field if serde does not name it.
fn explain(text: &str, error: &serde_json::Error) -> String {
    let said = error.to_string();
    let said = said.rsplit_once(" at line ").map_or(said.as_str(), |(said, _)| said);
    if !error.is_data() || said.starts_with("unknown field") || said.starts_with("duplicate field")
    {
        return said.to_owned();
    }
    let said = match said {
        "invalid socket address syntax" => {
            "must be an IP address and a port, as in \"127.0.0.1:4400\""
        }
        other => other,
    };
    match field_before(text, error.line(), error.column()) {
        Some(field) => format!("{field}: {said}"),
        None => said.to_owned(),
    }
}

/// The key whose value ends or begins at a position, which is within or right after that.
fn field_before(text: &str, line: usize, column: usize) -> Option<&str> {
    let before: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let text = text.get(..before + column).unwrap_or(text);
    // The object is flat: a string that a colon follows is a key, and no colon within a string
    // counts.
    let (mut key, mut last, mut rest) = (None, None, text);
    while let Some(at) = rest.find(['"', ':']) {
        let (found, after) = rest[at..].split_at(1);
        rest = after;
        if found == ":" {
            key = last.take().or(key);
        } else {
            let end = end_of_string(after)?;
            last = Some(&after[..end]);
            rest = after[end..].strip_prefix('"').unwrap_or_default();
        }
    }
    key
}

/// Where a string ends of which the beginning was read; at the end of the text, if that is before.
fn end_of_string(text: &str) -> Option<usize> {
    let mut escaped = false;
    let end = text.char_indices().find(|(_, letter)| {
        let ends = *letter == '"' && !escaped;
        escaped = *letter == '\\' && !escaped;
        ends
    });
    Some(end.map_or(text.len(), |(at, _)| at))
}

/// What is in a file instead of an object, by its first letter; nothing if it may be one.
fn why_no_object(text: &str) -> Option<&'static str> {
    let text = text.trim_ascii_start();
    Some(match text.chars().next() {
        Some('{') => return None,
        None => "the file is empty; write {} for the defaults",
        Some('\u{feff}') => "the file begins with a byte order mark; save it as UTF-8 without one",
        Some('[') => "the file holds an array; write {\"FIELD\": VALUE, ...}",
        Some('"') => "the file holds a string; write {\"FIELD\": VALUE, ...}",
        Some('0'..='9' | '-') => "the file holds a number; write {\"FIELD\": VALUE, ...}",
        _ if ["null", "true", "false"].iter().any(|word| text.starts_with(word)) => {
            "the file holds null, true or false; write {\"FIELD\": VALUE, ...}"
        }
        // Windows writes a text as UTF-16, of which half the bytes are zeros.
        _ if text.contains('\0') => "the file is UTF-16, or no text; save it as UTF-8",
        _ => "the file does not begin with {; write {\"FIELD\": VALUE, ...}",
    })
}

/// What bytes are that are no UTF-8.
fn why_no_text(content: &[u8]) -> &'static str {
    match content {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "the file is UTF-16; save it as UTF-8",
        _ => "the file is not UTF-8",
    }
}

fn line_of(text: &str, field: &str) -> Option<usize> {
    let key = format!("\"{field}\"");
    text.lines().position(|line| line.contains(&key)).map(|index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("/etc/dkv/config.json"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_object_is_a_configuration() {
        let config = parse("{}").unwrap();
        assert_eq!(config.settings, Settings::default());
        assert_eq!(config.listen, "127.0.0.1:4400".parse().unwrap());
        assert_eq!(config.data_dir, Path::new("/etc/dkv/data/server"));
    }

    #[test]
    fn the_file_in_the_repository_says_what_the_defaults_are() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config.json");
        let config = Config::load(&path).unwrap();
        assert_eq!(config.settings, Settings::default());
        assert_eq!(config.listen, Config::default().listen);
    }

    #[test]
    fn an_absolute_data_directory_stays_where_it_is() {
        assert_eq!(parse(r#"{"data_dir": "/srv/dkv"}"#).unwrap().data_dir, Path::new("/srv/dkv"));
    }

    #[test]
    fn errors_name_file_line_and_field() {
        for (text, expected) in [
            (
                "{\n \"shards\": \"four\"\n}",
                "line 2: shards: invalid type: string \"four\", expected u32",
            ),
            ("{\n \"shards\": 4,\n \"replication\": -3}", "line 3: replication: invalid value"),
            ("{\n\n\"listen\": \"localhost\"}", "line 3: listen: must be an IP address and a port"),
            (
                "{\n\n\"listen\": \"localhost:4400\"}",
                "line 3: listen: must be an IP address and a port",
            ),
            ("{\n \"shard\": 4}", "line 2: unknown field `shard`, expected one of"),
            ("{\"\u{7f}\": 4}", "line 1: unknown field `\\u{7f}`, expected one of"),
            ("{\n \"shards\": 4,\n}", "line 3: trailing comma"),
            ("{\n \"shards\": 4\n \"replication\": 3}", "line 3: expected `,` or `}`"),
            ("{", "line 1: EOF while parsing an object"),
            ("{\n \"listen\": \":4400\"}", "line 2: listen: must be an IP address and a port"),
            (
                "{\n \"listen\": \"a \\\"b\\\": c\"}",
                "line 2: listen: must be an IP address and a port",
            ),
            (
                "{\n \"data_dir\": 3,\n \"listen\": \"\"}",
                "line 2: data_dir: invalid type: integer `3`",
            ),
            ("{\n \"data_dir\": \"\"}", "line 2: data_dir: must name a directory"),
            (
                "{\n \"delays_between\": [\"us east\"],\n \"delays_ms\": [[0]]}",
                "line 2: delays_between: \"us east\" cannot be a region or a node's name: ",
            ),
            (
                "{\n \"delays_vary\": true}",
                "line 2: delays_vary: must be false without delays_between",
            ),
            ("{\n \"replication\": 12}", "line 2: replication: must be from 1 to 9"),
            (
                "{\n \"delays_ms\": [[0, -1], [1, 0]]}",
                "line 2: delays_ms: invalid value: integer `-1`, expected u32",
            ),
            (
                "{\n \"delays_between\": [\"eu\", \"us\"],\n \"delays_ms\": [[0, 9], [8]]}",
                "line 3: delays_ms: must have 2 numbers in the row of us, one for each of",
            ),
            ("{\n \"delays_between\": [\"eu\", \"eu\"]}", "line 2: delays_between: names eu twice"),
            ("{\n\n \"heartbeat_ms\": 100}", "line 1: election_min_ms: must be at least three"),
        ] {
            let said = parse(text).unwrap_err();
            let expected = format!("/etc/dkv/config.json, {expected}");
            assert!(said.starts_with(&expected), "{said:?} is not {expected:?}");
        }
    }

    #[test]
    fn what_is_no_object_is_said_to_be_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c.json");
        let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
        let with_mark = [&[0xff, 0xfe][..], &utf16("{}")].concat();
        for (content, expected) in [
            (&b""[..], "the file is empty"),
            (b" \n", "the file is empty"),
            (b"[]", "the file holds an array"),
            (b"null", "the file holds null, true or false"),
            (b"\"3\"", "the file holds a string"),
            (b"-3", "the file holds a number"),
            (b"listen: 3", "the file does not begin with {"),
            (b"\xef\xbb\xbf{}", "the file begins with a byte order mark"),
            (&with_mark, "the file is UTF-16"),
            (&utf16("\"{}"), "the file holds a string"),
            (b"{\"data_dir\": \"\xff\"}", "the file is not UTF-8"),
        ] {
            std::fs::write(&path, content).unwrap();
            let said = Config::load(&path).unwrap_err().to_string();
            let expected = format!("{}: not a JSON object: {expected}", path.display());
            assert!(said.starts_with(&expected), "{said:?} is not {expected:?}");
        }
        // Two in one file are none.
        assert!(parse("{}{}").unwrap_err().contains("trailing characters"));
    }
}
