//! The commands that `dkv` understands, as plain data.
//!
//! There are two notations. The *comma form* is short and strict: `R,key`, `W,key,value`, `D,key`,
//! `H,key`, `T,ms`, in upper case, with everything after the last significant comma taken
//! literally. The *word form* is for people: `put "a key" "some value" if-absent`, quoted as in a
//! shell, so that a key may contain any byte. Both parse to a [`Command`], and a command displays
//! itself in the word form, which parses to the same command again. In the word form a value may
//! also be read from a file or from standard input, see [`ValueSource`].
//!
//! Parsing is separate from running, so that a list with a malformed command is refused before any
//! of its commands has an effect.
//!
//! Deliberately missing: any knowledge of networks, files or terminals.

mod comma_form;
#[cfg(test)]
mod tests;
mod word_form;

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use dkv_api::{Attach, WatchToken};
use dkv_base::id::Revision;
use dkv_console::quote;
use dkv_wire::limits::KEY_BYTES_MAX;
use dkv_wire::message::{Condition, Level};

pub(crate) use comma_form::is_command as is_comma_command;
pub(crate) use word_form::{
    KEYWORDS, Keyword, LEVELS, command, is_word, level, meant, takes_operands, typo_of,
};

/// Longest wait in milliseconds: one day.
pub(crate) const WAIT_MS_MAX: u64 = 24 * 3600 * 1000;

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Prints the value of a key.
    Read { key: Key, how: ReadParameters },
    /// Stores a value; without a level, at the level of the connection.
    Write {
        key: Key,
        value: ValueSource,
        level: Option<Level>,
        condition: Condition,
        /// How long the key will live; until it is deleted by default.
        attach: Option<Attach>,
    },
    /// Removes a key; without a level, at the level of the connection.
    Delete { key: Key, level: Option<Level>, condition: Condition },
    /// Lists keys with their values, in order.
    Scan(Scan),
    /// Lists the versions of a key.
    History(History),
    /// Shows changes as they happen.
    Watch(Watch),
    /// Shows what each replica has of a key.
    Search(Key),
    /// Lists the keys that a node holds, with their values.
    ShowAll { node: String },
    /// Waits, in milliseconds, at most [`WAIT_MS_MAX`].
    Wait { ms: u64 },
    /// Shows the state of the network.
    Status { json: bool },
    /// Lists the nodes.
    Nodes,
    /// Shows the help.
    Help,
    /// Ends the prompt.
    Exit,
    /// Acts on a process of a local network.
    Process(ProcessAction, ProcessTarget),
}

/// Source of a value. In the word form, `@FILE` names a file and `-` standard input; `@@TEXT` is
/// the text `@TEXT`, and `@=TEXT` is TEXT whatever it contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ValueSource {
    /// Part of the command.
    Inline(Vec<u8>),
    /// A file.
    File(PathBuf),
    /// Standard input, to its end.
    Stdin,
}

impl ValueSource {
    /// Parses the operand of a command.
    pub(crate) fn of_operand(word: &[u8]) -> Result<Self, GrammarError> {
        match word {
            b"-" | b"@-" => Ok(Self::Stdin),
            b"@" => Err(GrammarError::new(
                "a file name must follow @",
                "write @FILE, or @@ for the text @",
            )),
            [b'@', b'@', ..] => Ok(Self::Inline(word[1..].to_vec())),
            [b'@', b'=', text @ ..] => Ok(Self::Inline(text.to_vec())),
            [b'@', path @ ..] => Ok(Self::File(OsString::from_vec(path.to_vec()).into())),
            text => Ok(Self::Inline(text.to_vec())),
        }
    }

    /// Returns the operand that parses to this source.
    pub(crate) fn operand(&self) -> Vec<u8> {
        match self {
            Self::Inline(text) if text == b"-" => b"@=-".to_vec(),
            Self::Inline(text) if text.starts_with(b"@") => [b"@", text.as_slice()].concat(),
            Self::Inline(text) => text.clone(),
            Self::File(path) => [b"@", path.as_os_str().as_bytes()].concat(),
            Self::Stdin => b"-".to_vec(),
        }
    }
}

impl From<Vec<u8>> for ValueSource {
    fn from(text: Vec<u8>) -> Self {
        Self::Inline(text)
    }
}

/// Parameters of a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReadParameters {
    /// The level; `None` is that of the connection.
    pub(crate) level: Option<Level>,
    /// Greatest staleness of an eventual answer, in milliseconds.
    pub(crate) max_staleness_ms: Option<u64>,
    /// Least revision of an eventual answer.
    pub(crate) at_least: Option<Revision>,
    /// The revision at which to read; the present one by default.
    pub(crate) revision: Option<Revision>,
}

/// Which keys to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Only keys with this prefix.
    pub(crate) prefix: Vec<u8>,
    /// Only keys after this one.
    pub(crate) after: Vec<u8>,
    /// At most this many keys.
    pub(crate) limit: Option<u64>,
    /// Without their values.
    pub(crate) keys_only: bool,
    /// As they were at this revision.
    pub(crate) revision: Option<Revision>,
    /// As they are at one moment of all shards; not together with a revision.
    pub(crate) snapshot: bool,
}

/// Which versions of a key to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct History {
    /// The key.
    pub(crate) key: Key,
    /// Only versions before this revision.
    pub(crate) before: Option<Revision>,
    /// At most this many versions.
    pub(crate) limit: Option<u64>,
    /// As JSON, whatever the default.
    pub(crate) json: bool,
}

/// What to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Watch {
    /// A prefix of keys, or one key.
    pub(crate) keys: Vec<u8>,
    /// Whether it is one key.
    pub(crate) exact: bool,
    /// What changed after this position; after the command began by default.
    pub(crate) from: Option<WatchToken>,
    /// With the value before each change.
    pub(crate) previous: bool,
    /// As JSON, whatever the default.
    pub(crate) json: bool,
}

/// An action on a process of a local network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProcessAction {
    /// Kills it, as a crash would.
    Kill,
    /// Starts it again in its directory.
    Start,
    /// Stops it gracefully.
    Stop,
    /// Freezes it, like a machine that hangs.
    Pause,
    /// Resumes it.
    Resume,
}

impl ProcessAction {
    /// Returns its word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }
}

/// Which process of a local network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProcessTarget {
    /// The node that is the coordinator when the command runs.
    Coordinator,
    /// The process of that name: a node, or `server`.
    Named(String),
}

impl fmt::Display for ProcessTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Coordinator => "coordinator",
            Self::Named(name) => name,
        })
    }
}

/// A key: one to [`KEY_BYTES_MAX`] arbitrary bytes.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key(Vec<u8>);

impl Key {
    /// Creates a key.
    ///
    /// # Errors
    /// It is empty or too long.
    pub(crate) fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, KeyError> {
        let bytes = bytes.into();
        match bytes.len() {
            0 => Err(KeyError::Empty),
            length if length > KEY_BYTES_MAX => Err(KeyError::TooLong { length }),
            _ => Ok(Self(bytes)),
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// For messages: see [`quote::escaped`].
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quote::escaped(&self.0))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quote::quoted(&self.0))
    }
}

/// Bytes that cannot be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyError {
    /// It has no bytes.
    #[error("the key is empty")]
    Empty,
    /// It exceeds the limit.
    #[error("the key is too long: {length} bytes, but the limit is {KEY_BYTES_MAX}")]
    TooLong { length: usize },
}

/// Why a text is not a command, and what to write instead. Always one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; {advice}")]
pub struct GrammarError {
    problem: String,
    advice: String,
}

impl GrammarError {
    pub(crate) fn new(problem: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { problem: problem.into(), advice: advice.into() }
    }

    /// Adds the text of the command, shortened if it is long.
    pub(crate) fn within(mut self, text: &[u8]) -> Self {
        self.problem = format!("malformed command {}: {}", excerpt(text), self.problem);
        self
    }
}

/// Parses one line: a command in either form, or `None` for an empty line or a `#` comment.
///
/// # Errors
/// A mistake in the command.
pub(crate) fn parse_line(line: &[u8]) -> Result<Option<Command>, GrammarError> {
    let text = line.trim_ascii_start();
    if text.is_empty() || text[0] == b'#' {
        return Ok(None);
    }
    parse(text).map(Some).map_err(|error| error.within(text))
}

fn parse(text: &[u8]) -> Result<Command, GrammarError> {
    match words_of(text)? {
        None => comma_form::command(text),
        Some(words) => command(&words),
    }
}

/// Splits a line into words without their quotes; `None` if it is in the comma form.
///
/// # Errors
/// A quote is not closed, or an escape is incomplete.
pub(crate) fn words_of(text: &[u8]) -> Result<Option<Vec<Vec<u8>>>, GrammarError> {
    if comma_form::is_comma_form(text) {
        return Ok(None);
    }
    let words = quote::split(text).map_err(|error| {
        GrammarError::new(error.to_string(), "inside double quotes write \\\" for a quote")
    })?;
    Ok(Some(words))
}

/// Returns the beginning of a command on one line, in quotes.
fn excerpt(text: &[u8]) -> String {
    const CHARS_MAX: usize = 48;
    let shown = quote::escaped(text);
    if shown.chars().count() <= CHARS_MAX {
        return format!("\"{shown}\"");
    }
    format!("\"{}…\"", shown.chars().take(CHARS_MAX).collect::<String>())
}

/// The word form, which parses to the same command.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { key, how } => {
                write!(f, "get {key:?}{}", level_word(how.level))?;
                if let Some(ms) = how.max_staleness_ms {
                    write!(f, " max-staleness {ms}")?;
                }
                if let Some(revision) = how.at_least {
                    write!(f, " at-least {revision}")?;
                }
                option(f, "--revision", how.revision)
            }
            Self::Write { key, value, level, condition, attach } => {
                let (value, level) = (quote::quoted(&value.operand()), level_word(*level));
                write!(f, "put {key:?} {value}{level}{}", condition_words(*condition))?;
                match attach {
                    None => Ok(()),
                    Some(Attach::Ttl(ttl)) => write!(f, " --ttl {}ms", ttl.as_millis()),
                    Some(Attach::Lease(lease)) => write!(f, " --lease {lease}"),
                }
            }
            Self::Delete { key, level, condition } => {
                let level = level_word(*level);
                write!(f, "delete {key:?}{level}{}", condition_words(*condition))
            }
            Self::Scan(Scan { prefix, after, limit, keys_only, revision, snapshot }) => {
                f.write_str("scan")?;
                write_prefix(f, prefix)?;
                if !after.is_empty() {
                    write!(f, " --after {}", quote::quoted(after))?;
                }
                option(f, "--limit", *limit)?;
                flag(f, "--keys", *keys_only)?;
                flag(f, "--snapshot", *snapshot)?;
                option(f, "--revision", *revision)
            }
            Self::History(History { key, before, limit, json }) => {
                write!(f, "history {key:?}")?;
                option(f, "--before", *before)?;
                option(f, "--limit", *limit)?;
                flag(f, "--json", *json)
            }
            Self::Watch(watch) => watch.fmt(f),
            Self::Search(key) => write!(f, "search {key:?}"),
            Self::ShowAll { node } => write!(f, "show-all {}", quote::quoted(node.as_bytes())),
            Self::Wait { ms } => write!(f, "wait {ms}"),
            Self::Status { json: false } => f.write_str("status"),
            Self::Status { json: true } => f.write_str("status --json"),
            Self::Nodes => f.write_str("nodes"),
            Self::Help => f.write_str("help"),
            Self::Exit => f.write_str("exit"),
            Self::Process(action, target) => {
                write!(f, "{} {}", action.word(), quote::quoted(target.to_string().as_bytes()))
            }
        }
    }
}

impl fmt::Display for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("watch")?;
        write_prefix(f, &self.keys)?;
        flag(f, "--key", self.exact)?;
        option(f, "--from", self.from.as_ref())?;
        flag(f, "--previous", self.previous)?;
        flag(f, "--json", self.json)
    }
}

/// Writes a prefix, unless it is empty.
fn write_prefix(f: &mut fmt::Formatter<'_>, prefix: &[u8]) -> fmt::Result {
    if prefix.is_empty() {
        return Ok(());
    }
    let dashes = if prefix.starts_with(b"--") { "-- " } else { "" };
    write!(f, " {dashes}{}", quote::quoted(prefix))
}

fn option(f: &mut fmt::Formatter<'_>, name: &str, value: Option<impl fmt::Display>) -> fmt::Result {
    value.map_or(Ok(()), |value| write!(f, " {name} {value}"))
}

fn flag(f: &mut fmt::Formatter<'_>, name: &str, on: bool) -> fmt::Result {
    if on { write!(f, " {name}") } else { Ok(()) }
}

fn level_word(level: Option<Level>) -> String {
    level.map_or_else(String::new, |level| format!(" {}", level.word()))
}

fn condition_words(condition: Condition) -> String {
    match condition {
        Condition::Always => String::new(),
        Condition::Absent => " if-absent".into(),
        Condition::Present => " if-present".into(),
        Condition::Revision(revision) => format!(" if-revision {revision}"),
    }
}
