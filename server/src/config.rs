//! The configuration file.
//!
//! `config.json` is one flat JSON object. Every field has a default, so `{}` is a valid file. An
//! unknown field is an error, so a misspelt one is never silently ignored. Errors name the file,
//! the line and the field, and say what would be right.
//!
//! A relative `data_dir` is relative to the directory *of the file*, so a file describes the same
//! network whatever the working directory.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use dkv_base::audit::{AuditOptions, KEEP_DEFAULT, KEEP_MAX, SIZE_MIB_DEFAULT, SIZE_MIB_MAX};
use dkv_base::id::NodeId;
use dkv_wire::network::Delays;
use dkv_wire::network::{Settings, SettingsError};
use serde::Deserialize;

/// The configuration of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Directory of the network's authority, tokens and registry.
    pub data_dir: PathBuf,
    /// Settings of a new network.
    pub settings: Settings,
    /// Directory below which tokens are published to other processes of this user; see
    /// [`dkv_wire::local`]. Not in the file: it follows from the user's environment.
    pub tokens_home: Option<PathBuf>,
    /// A voter of the control group that the operator vouches for, needed if all the voters that
    /// the server knew were replaced while it was down. Not in the file: it applies to one start.
    pub trust_voter: Option<NodeId>,
    /// Address at which others reach the server, if that is not where it listens. Not in the file:
    /// it follows from the machine.
    pub advertise: Option<SocketAddr>,
    /// Addresses of servers, separated by commas, whose network a server with an empty data
    /// directory joins instead of founding one. Not in the file: it matters once.
    pub join: Option<String>,
    /// File with the token to join with. Not in the file either.
    pub token_file: Option<PathBuf>,
    /// The audit log of the server, if it has one.
    pub audit: Option<AuditOptions>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 4400)),
            data_dir: PathBuf::from("data/server"),
            settings: Settings::default(),
            tokens_home: dkv_wire::local::home(),
            trust_voter: None,
            advertise: None,
            join: None,
            token_file: None,
            audit: None,
        }
    }
}

/// Why a configuration cannot be used.
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
    /// The content is not a JSON object.
    #[error("{}: not a JSON object: {why}", .path.display())]
    NoObject {
        /// Which file.
        path: PathBuf,
        /// What it is instead, and what to write.
        why: &'static str,
    },
    /// The content is JSON, but not a configuration.
    #[error("{}, line {line}: {why}", .path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// Line number, from one.
        line: usize,
        /// The error, with the name of the field.
        why: String,
    },
    /// The settings are invalid, and no line of a file is at fault.
    #[error("{0}")]
    Settings(#[from] SettingsError),
}

/// The file as written. It repeats the fields of [`Settings`], because serde rejects unknown fields
/// only in a struct without flattened ones.
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
    audit: Option<PathBuf>,
    audit_size_mib: u32,
    audit_keep: u32,
}

impl Default for File {
    fn default() -> Self {
        let Config { listen, data_dir, settings, .. } = Config::default();
        // No `..`: forgetting a new setting here is a compile error.
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
            audit: None,
            audit_size_mib: SIZE_MIB_DEFAULT,
            audit_keep: KEEP_DEFAULT,
        }
    }
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let content = std::fs::read(path)
            .map_err(|error| ConfigError::File { path: path.to_owned(), why: error.to_string() })?;
        let no_text =
            || ConfigError::NoObject { path: path.to_owned(), why: describe_non_utf8(&content) };
        Self::parse(path, std::str::from_utf8(&content).map_err(|_| no_text())?)
    }

    /// Parses and checks `text`. `path` is not read: it appears in errors, and `data_dir` is
    /// relative to it.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let wrong = |line, why: String| ConfigError::Content {
            path: path.to_owned(),
            line: usize::max(line, 1),
            why: escape_controls(&why),
        };
        if let Some(why) = describe_non_object(text) {
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
            None => wrong(1, format!("{error} (the file leaves it at its default)")),
        })?;
        let beside = path.parent().unwrap_or(Path::new(""));
        let audit =
            Audit { file: file.audit, size_mib: file.audit_size_mib, keep: file.audit_keep };
        let audit_options = audit.options(beside).map_err(|(field, why)| {
            wrong(line_of(text, field).unwrap_or(1), format!("{field}: {why}"))
        })?;
        Ok(Self {
            listen: file.listen,
            data_dir: beside.join(file.data_dir),
            audit: audit_options,
            settings,
            ..Self::default()
        })
    }
}

/// The fields of the audit log.
struct Audit {
    file: Option<PathBuf>,
    size_mib: u32,
    keep: u32,
}

impl Audit {
    /// Returns the options, with a path that is relative to a directory; or the field that is wrong
    /// and why.
    fn options(self, beside: &Path) -> Result<Option<AuditOptions>, (&'static str, String)> {
        let Self { file, size_mib, keep } = self;
        for (field, value, most) in
            [("audit_size_mib", size_mib, SIZE_MIB_MAX), ("audit_keep", keep, KEEP_MAX)]
        {
            if !(1..=most).contains(&value) {
                return Err((field, format!("must be from 1 to {most}")));
            }
        }
        let Some(file) = file else { return Ok(None) };
        if file.as_os_str().is_empty() {
            return Err(("audit", "must name a file, as in \"audit.jsonl\"".into()));
        }
        let mut options = AuditOptions { keep, ..AuditOptions::new(beside.join(file)) };
        options.set_size_mib(size_mib);
        Ok(Some(options))
    }
}

/// Escapes control characters, which could steer a terminal: the text may quote the file.
pub(crate) fn escape_controls(text: &str) -> String {
    let one = |character: char| match character {
        _ if character.is_control() => character.escape_default().to_string(),
        _ => character.to_string(),
    };
    text.chars().map(one).collect()
}

/// Returns the message of a serde error without its position, and with the field if serde does not
/// name it.
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

/// Returns the key whose value is at a position. The position is within or right after the value.
fn field_before(text: &str, line: usize, column: usize) -> Option<&str> {
    let before: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let text = text.get(..before + column).unwrap_or(text);
    // The object is flat: a string before a colon is a key. Colons within strings do not count.
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

/// Returns the offset of the closing quote of a string whose opening quote was read, or the length
/// of the text if there is none.
fn end_of_string(text: &str) -> Option<usize> {
    let mut escaped = false;
    let end = text.char_indices().find(|(_, letter)| {
        let ends = *letter == '"' && !escaped;
        escaped = *letter == '\\' && !escaped;
        ends
    });
    Some(end.map_or(text.len(), |(at, _)| at))
}

/// Describes what a file holds instead of an object, by its first character. `None` if it may be
/// an object.
fn describe_non_object(text: &str) -> Option<&'static str> {
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
        // Windows editors may save UTF-16, where every other byte of ASCII text is zero.
        _ if text.contains('\0') => "the file is UTF-16 or not text; save it as UTF-8",
        _ => "the file does not begin with {; write {\"FIELD\": VALUE, ...}",
    })
}

/// Describes content that is not UTF-8.
fn describe_non_utf8(content: &[u8]) -> &'static str {
    match content {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "the file is UTF-16; save it as UTF-8",
        _ => "the file is not UTF-8",
    }
}

/// Returns the number of the first line that holds the field as a key.
fn line_of(text: &str, field: &str) -> Option<usize> {
    let key = format!("\"{field}\"");
    text.lines().position(|line| line.contains(&key)).map(|index| index + 1)
}

#[cfg(test)]
mod tests;
