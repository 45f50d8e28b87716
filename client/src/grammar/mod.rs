//! The commands that `dkv` understands, as plain data.
//!
//! There are two spellings. The *comma form* is short and strict: `R,key`, `W,key,value`, `D,key`,
//! `T,ms`, upper case, everything after the last comma that counts taken as it is. The *words form*
//! is for people: `put "a key" "some value" if-absent`, with the quotes of a shell, so that a key
//! may hold any byte. Both mean a [`Command`], and a command prints itself in words that parse to
//! the same command again. In words a value may also be named, see [`Content`].
//!
//! Parsing is separate from running, so that a list of commands is refused as a whole before the
//! first of them has an effect.
//!
//! Deliberately missing: any knowledge of networks, files or terminals.

mod comma;
pub(crate) mod quote;
#[cfg(test)]
mod tests;
mod words;

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use dkv_base::id::Revision;
use dkv_wire::limits::KEY_BYTES_MAX;
use dkv_wire::message::{Condition, Level};

pub(crate) use comma::is_command as is_comma_command;
pub(crate) use words::{
    LEVELS, WORDS, Word, command, is_word, level, meant, slip_of, takes_operands,
};

/// Longest time that a wait may take, in milliseconds: one day.
pub(crate) const WAIT_MS_MAX: u64 = 24 * 3600 * 1000;

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Prints the value of a key.
    Read { key: Key, how: HowToRead },
    /// Stores a value; without a level, at the level of the connection.
    Write { key: Key, value: Content, level: Option<Level>, condition: Condition },
    /// Removes a key; without a level, at the level of the connection.
    Delete { key: Key, level: Option<Level>, condition: Condition },
    /// Lists keys with their values, in order.
    Scan(Scan),
    /// Shows what each replica has of a key.
    Search(Key),
    /// Lists the keys that a node holds, with their values.
    ShowAll { node: String },
    /// Waits, in milliseconds, at most [`WAIT_MS_MAX`].
    Wait { ms: u64 },
    /// Shows how the network is.
    Status { json: bool },
    /// Lists the nodes.
    Nodes,
    /// Shows the help.
    Help,
    /// Ends the prompt.
    Exit,
    /// Does something to a process of a local network.
    Process(Action, Target),
}

/// Where a value is: in words `@FILE` and `-` name it. `@@TEXT` is the text `@TEXT`, and `@=TEXT`
/// the text that follows, whatever that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Here.
    Given(Vec<u8>),
    /// In a file.
    File(PathBuf),
    /// On standard input, to its end.
    Input,
}

impl Content {
    /// The value that a word stands for.
    fn of_word(word: &[u8]) -> Result<Self, GrammarError> {
        match word {
            b"-" | b"@-" => Ok(Self::Input),
            b"@" => Err(GrammarError::new(
                "no file is named after the @",
                "write @FILE, or @@ for the text @",
            )),
            [b'@', b'@', ..] => Ok(Self::Given(word[1..].to_vec())),
            [b'@', b'=', text @ ..] => Ok(Self::Given(text.to_vec())),
            [b'@', path @ ..] => Ok(Self::File(OsString::from_vec(path.to_vec()).into())),
            text => Ok(Self::Given(text.to_vec())),
        }
    }

    /// The word that stands for it.
    fn word(&self) -> Vec<u8> {
        match self {
            Self::Given(text) if text == b"-" => b"@=-".to_vec(),
            Self::Given(text) if text.starts_with(b"@") => [b"@", text.as_slice()].concat(),
            Self::Given(text) => text.clone(),
            Self::File(path) => [b"@", path.as_os_str().as_bytes()].concat(),
            Self::Input => b"-".to_vec(),
        }
    }
}

impl From<Vec<u8>> for Content {
    fn from(text: Vec<u8>) -> Self {
        Self::Given(text)
    }
}

/// How to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HowToRead {
    /// Without one, the level of the connection.
    pub(crate) level: Option<Level>,
    /// How old an eventual answer may be, in milliseconds.
    pub(crate) max_staleness_ms: Option<u64>,
    /// The revision that an eventual answer must have reached.
    pub(crate) at_least: Option<Revision>,
}

/// Which keys to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Those that begin with this.
    pub(crate) prefix: Vec<u8>,
    /// Those after this one.
    pub(crate) after: Vec<u8>,
    /// So many at most.
    pub(crate) limit: Option<u64>,
    /// Without their values.
    pub(crate) keys_only: bool,
}

/// What can be done to a process of a local network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Ends it at once, as a crash would.
    Kill,
    /// Starts it again in its directory.
    Start,
    /// Asks it to stop in good order.
    Stop,
    /// Makes it stand still, as a machine that hangs would.
    Pause,
    /// Lets it go on.
    Resume,
}

impl Action {
    /// Its word.
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
pub(crate) enum Target {
    /// Whichever node is the coordinator at that moment.
    Coordinator,
    /// The process of that name: a node's, or `server`.
    Named(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Coordinator => "coordinator",
            Self::Named(name) => name,
        })
    }
}

/// A key: one to [`KEY_BYTES_MAX`] bytes of anything.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key(Vec<u8>);

impl Key {
    /// Checks the length of a key.
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

/// For messages to people: see [`quote::shown`].
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quote::shown(&self.0))
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
    /// No bytes at all.
    #[error("the key is empty")]
    Empty,
    /// Over the limit.
    #[error("the key is too long: {length} bytes, and the limit is {KEY_BYTES_MAX}")]
    TooLong { length: usize },
}

/// A text that is not a command: what is wrong, and what would be right. Always one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; {advice}")]
pub(crate) struct GrammarError {
    problem: String,
    advice: String,
}

impl GrammarError {
    pub(crate) fn new(problem: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { problem: problem.into(), advice: advice.into() }
    }

    /// The error of a command in its whole text, which is shown as far as it fits.
    pub(crate) fn within(mut self, text: &[u8]) -> Self {
        self.problem = format!("malformed command {}: {}", excerpt(text), self.problem);
        self
    }
}

/// Reads one line: a command in either form, or `None` for an empty line or a `#` comment.
pub(crate) fn parse_line(line: &[u8]) -> Result<Option<Command>, GrammarError> {
    let text = line.trim_ascii_start();
    if text.is_empty() || text[0] == b'#' {
        return Ok(None);
    }
    parse(text).map(Some).map_err(|error| error.within(text))
}

fn parse(text: &[u8]) -> Result<Command, GrammarError> {
    match words_of(text)? {
        None => comma::command(text),
        Some(words) => command(&words),
    }
}

/// The words of a line without their quotes, or nothing if it is in the comma form.
pub(crate) fn words_of(text: &[u8]) -> Result<Option<Vec<Vec<u8>>>, GrammarError> {
    if comma::is_comma_form(text) {
        return Ok(None);
    }
    let words = quote::split(text).map_err(|error| {
        GrammarError::new(error.to_string(), "inside double quotes write \\\" for a quote")
    })?;
    Ok(Some(words))
}

/// The beginning of a command in one line, quoted.
fn excerpt(text: &[u8]) -> String {
    const CHARS_MAX: usize = 48;
    let shown = quote::shown(text);
    if shown.chars().count() <= CHARS_MAX {
        return format!("\"{shown}\"");
    }
    format!("\"{}…\"", shown.chars().take(CHARS_MAX).collect::<String>())
}

/// The words form, which parses to the same command.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { key, how } => {
                write!(f, "get {key:?}{}", level_word(how.level))?;
                if let Some(ms) = how.max_staleness_ms {
                    write!(f, " max-staleness {ms}")?;
                }
                match how.at_least {
                    Some(revision) => write!(f, " at-least {revision}"),
                    None => Ok(()),
                }
            }
            Self::Write { key, value, level, condition } => {
                let (value, level) = (quote::quoted(&value.word()), level_word(*level));
                write!(f, "put {key:?} {value}{level}{}", condition_words(*condition))
            }
            Self::Delete { key, level, condition } => {
                let level = level_word(*level);
                write!(f, "delete {key:?}{level}{}", condition_words(*condition))
            }
            Self::Scan(Scan { prefix, after, limit, keys_only }) => {
                f.write_str("scan")?;
                if !prefix.is_empty() {
                    let dashes = if prefix.starts_with(b"--") { "-- " } else { "" };
                    write!(f, " {dashes}{}", quote::quoted(prefix))?;
                }
                if !after.is_empty() {
                    write!(f, " --after {}", quote::quoted(after))?;
                }
                if let Some(limit) = limit {
                    write!(f, " --limit {limit}")?;
                }
                if *keys_only { f.write_str(" --keys") } else { Ok(()) }
            }
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
