//! What goes wrong: its kind, which is an exit status too, whether something was changed, and a
//! line that says so.
//!
//! | status | kind | |
//! |---|---|---|
//! | 1 | `failed` | it cannot be done, or its input or output does not work |
//! | 2 | `usage` | the command line is wrong; nothing was done |
//! | 3 | `not-found` | there is no such key or node |
//! | 4 | `conflict` | a condition does not hold |
//! | 5 | `unavailable` | not now; nothing was changed |
//! | 6 | `unknown` | a change may have happened, or may yet |
//! | 7 | `denied` | the credentials do not allow it |
//! | 8 | `incomplete` | a write at level `all` was done, and not every replica has it |
//!
//! Of several commands the most serious problem decides.

use std::io;

use dkv_api::{Condition, ConnectError, Error};
use dkv_wire::join::{JoinError, TokenError};
use dkv_wire::local;
use dkv_wire::message::JoinRefusal;
use serde_json::{Map, Value, json};

use crate::grammar::Key;

/// The kind of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It cannot be done, or input or output does not work.
    Failed,
    /// The command line is wrong.
    Usage,
    /// There is no such key or node.
    NotFound,
    /// A condition does not hold.
    Conflict,
    /// Not now.
    Unavailable,
    /// The outcome is not known.
    Unknown,
    /// The credentials do not allow it.
    Denied,
    /// Done, but not everywhere.
    Incomplete,
}

impl Failure {
    /// The exit status.
    pub(crate) fn status(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Conflict => 4,
            Self::Unavailable => 5,
            Self::Unknown => 6,
            Self::Denied => 7,
            Self::Incomplete => 8,
        }
    }

    /// Its word, for programs.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::NotFound => "not-found",
            Self::Conflict => "conflict",
            Self::Unavailable => "unavailable",
            Self::Unknown => "unknown",
            Self::Denied => "denied",
            Self::Incomplete => "incomplete",
        }
    }

    /// Of two problems the one that a script must hear of.
    pub(crate) fn worse(self, other: Self) -> Self {
        if other.weight() > self.weight() { other } else { self }
    }

    fn weight(self) -> u8 {
        match self {
            Self::NotFound => 0,
            Self::Conflict => 1,
            Self::Usage => 2,
            Self::Failed => 3,
            Self::Denied => 4,
            Self::Unavailable => 5,
            Self::Incomplete => 6,
            Self::Unknown => 7,
        }
    }
}

/// The worst of what came of several things.
pub(crate) fn worst(one: Option<Failure>, other: Option<Failure>) -> Option<Failure> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.worse(other)),
        (one, other) => one.or(other),
    }
}

/// Whether something was changed by what failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing was.
    None,
    /// Nobody knows.
    Unknown,
    /// It was.
    Done,
}

impl Effect {
    fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Unknown => "unknown",
            Self::Done => "done",
        }
    }
}

/// What went wrong with one command.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Problem {
    pub(crate) failure: Failure,
    pub(crate) effect: Effect,
    /// What is the case and what to do, in one line.
    pub(crate) message: String,
    /// More for programs.
    more: Map<String, Value>,
}

impl Problem {
    /// One of that kind, without an effect unless its kind says otherwise.
    pub(crate) fn new(failure: Failure, message: impl Into<String>) -> Self {
        let effect = match failure {
            Failure::Unknown => Effect::Unknown,
            Failure::Incomplete => Effect::Done,
            _ => Effect::None,
        };
        Self { failure, effect, message: message.into(), more: Map::new() }
    }

    /// It cannot be done.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Failure::Failed, message)
    }

    /// The command line is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Failure::Usage, message)
    }

    /// The same, with another effect.
    pub(crate) fn having(self, effect: Effect) -> Self {
        Self { effect, ..self }
    }

    /// The same with a member more for programs.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// The same, of a key.
    pub(crate) fn of_key(mut self, key: &Key) -> Self {
        let shown = dkv_gateway::bytes_json::Encoding::Text;
        dkv_gateway::bytes_json::put(&mut self.more, "key", key.as_bytes(), shown);
        self
    }

    /// The same, with words before its message.
    pub(crate) fn behind(mut self, words: &str) -> Self {
        self.message.insert_str(0, words);
        self
    }

    /// The same, of a command in that line of the input, unless it names the line of a file.
    pub(crate) fn in_line(self, line: u64) -> Self {
        if self.more.contains_key("line") {
            return self;
        }
        self.behind(&format!("line {line}: ")).with("line", line)
    }

    /// As a document for programs.
    pub(crate) fn document(&self) -> Value {
        let mut document = json!({
            "error": self.message,
            "kind": self.failure.word(),
            "effect": self.effect.word(),
            "exit_status": self.failure.status(),
        });
        if let Some(members) = document.as_object_mut() {
            members.extend(self.more.clone());
        }
        document
    }
}

/// Why a command ends early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Standard output cannot be written.
    Output(io::Error),
    /// It failed and has said why.
    Said(Failure),
    /// It failed, and this is to be said.
    Problem(Box<Problem>),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

/// Something was changed, and could not be told on standard output.
#[derive(Debug, thiserror::Error)]
#[error("{source}; {done}, and that stands")]
struct Untold {
    done: String,
    source: io::Error,
}

/// The error of an output that was to tell of a change: with it, what was changed.
pub(crate) fn untold(done: impl Into<String>, source: io::Error) -> io::Error {
    io::Error::new(source.kind(), Untold { done: done.into(), source })
}

/// Whether something was changed that an output did not tell of.
pub(crate) fn effect_of(error: &io::Error) -> Effect {
    match error.get_ref() {
        Some(inner) if inner.is::<Untold>() => Effect::Done,
        _ => Effect::None,
    }
}

/// What a failed read means.
pub(crate) fn read_problem(key: &Key, error: &Error) -> Problem {
    let problem = match error {
        Error::NotFound { .. } => Problem::new(Failure::NotFound, format!("key not found: {key}")),
        Error::Unavailable(why) => Problem::new(
            Failure::Unavailable,
            format!("{key} could not be read: {why}; try again, or read it at level eventual"),
        ),
        other => request_problem(other),
    };
    problem.of_key(key)
}

/// What a failed scan means.
pub(crate) fn scan_problem(error: &Error) -> Problem {
    match error {
        Error::Unavailable(why) => Problem::new(
            Failure::Unavailable,
            format!("the list is incomplete: {why}; try again, or continue with --after LAST-KEY"),
        ),
        other => request_problem(other),
    }
}

/// What a failed write or delete means; `done` is what it was to be.
pub(crate) fn write_problem(key: &Key, condition: Condition, done: &str, error: &Error) -> Problem {
    let problem = match error {
        Error::NotFound { .. } => Problem::new(Failure::NotFound, format!("key not found: {key}")),
        Error::Conflict { current, .. } => {
            let is = match (current, condition) {
                (Some(revision), Condition::Absent) => {
                    format!("already exists (revision {revision})")
                }
                (Some(revision), Condition::Revision(wanted)) => {
                    format!("is at revision {revision}, not {wanted}")
                }
                (Some(revision), _) => format!("is at revision {revision}"),
                (None, _) => "does not exist".to_owned(),
            };
            let current = current.map(|revision| revision.0);
            Problem::new(Failure::Conflict, format!("{key} was not {done}: it {is}"))
                .with("current_revision", current)
        }
        Error::Unavailable(why) => Problem::new(
            Failure::Unavailable,
            format!("{key} was not {done}: {why}; nothing was changed, so try again"),
        ),
        Error::Incomplete { missing, written } => Problem::new(
            Failure::Incomplete,
            format!(
                "{key} was {done} at revision {}, but not every replica has confirmed it: {} {} \
                 missing",
                written.receipt.revision,
                missing.join(", "),
                if missing.len() == 1 { "is" } else { "are" }
            ),
        )
        .with("revision", written.receipt.revision.0)
        .with("missing", missing.clone()),
        Error::Unknown(why) => Problem::new(
            Failure::Unknown,
            format!(
                "outcome unknown: {key} may have been {done}, or may be yet: {why}; read the key to \
                 see, or repeat the command"
            ),
        ),
        other => request_problem(other),
    };
    problem.of_key(key)
}

/// What any failed request means.
pub(crate) fn request_problem(error: &Error) -> Problem {
    match error {
        Error::Denied(why) => Problem::new(
            Failure::Denied,
            format!("denied: {why}; give a token that allows it with --token-file"),
        ),
        Error::TooLarge { what, bytes, limit } => Problem::failed(format!(
            "the {what} is too large: {bytes} bytes, and the limit is {limit}; nothing was changed"
        )),
        Error::Unavailable(why) => {
            Problem::new(Failure::Unavailable, format!("{why}; nothing was changed, so try again"))
        }
        Error::Unknown(why) => Problem::new(
            Failure::Unknown,
            format!("outcome unknown: {why}; check with status, or repeat the command"),
        ),
        Error::Incomplete { .. } => Problem::new(Failure::Incomplete, error.to_string()),
        Error::NotFound { .. } => Problem::new(Failure::NotFound, error.to_string()),
        Error::Conflict { .. } => Problem::new(Failure::Conflict, error.to_string()),
        Error::Invalid(_) => Problem::failed(error.to_string()),
        other => Problem::failed(other.to_string()),
    }
}

/// Why there is no connection, and what to do next.
pub(crate) fn connect_problem(error: &ConnectError) -> Problem {
    let (failure, advice) = match error {
        // It says itself what to do; the server runs.
        ConnectError::Join(JoinError::Connect(dkv_wire::quic::ConnectError::Clock { .. })) => {
            (Failure::Unavailable, "")
        }
        ConnectError::Unreachable(_)
        | ConnectError::Join(JoinError::Connect(_) | JoinError::Call(..)) => (
            Failure::Unavailable,
            "; check that the server runs there, or start one with dkv server or dkv local",
        ),
        ConnectError::Join(JoinError::OtherNetwork(_)) => (
            Failure::Denied,
            "; give a token of that server's network with --token-file, or another address",
        ),
        ConnectError::Join(JoinError::Refused(JoinRefusal::Unknown)) => (
            Failure::Denied,
            "; ask an administrator of the network for one, and give it with --token-file",
        ),
        ConnectError::Join(JoinError::Refused(JoinRefusal::Busy | JoinRefusal::Storage(_))) => {
            (Failure::Unavailable, "")
        }
        ConnectError::Join(JoinError::Refused(_)) => (Failure::Denied, ""),
        ConnectError::Join(JoinError::Certificate(_)) => (Failure::Failed, ""),
        // A token would be of no use.
        ConnectError::Token(TokenError::Missing { server, .. }) if !local::may_listen(*server) => {
            return Problem::new(
                Failure::Unavailable,
                format!(
                    "nothing listens at {server}; check that the server runs there, or start one with \
                     dkv server or dkv local"
                ),
            );
        }
        ConnectError::Token(TokenError::File { .. }) => (Failure::Failed, ""),
        ConnectError::Token(_) => {
            (Failure::Denied, "; a server run by this user on this machine would have left one")
        }
        ConnectError::Denied(_) => (
            Failure::Denied,
            "; an administrator revoked this client: ask for a new token, and join with it under \
             another DKV_HOME",
        ),
        ConnectError::Unresolved(_) => {
            (Failure::Unavailable, "; check the name, or give the IP address of the server")
        }
        ConnectError::Address { .. } | ConnectError::NoAddress => {
            (Failure::Usage, "; give the address of the server as HOST:PORT")
        }
        ConnectError::Socket(_) => {
            (Failure::Failed, "; check this user's limits of open files and sockets")
        }
        ConnectError::NoCredentials { .. } | ConnectError::Expired { .. } => (Failure::Denied, ""),
        ConnectError::Region(_) | ConnectError::Role(_) => (Failure::Usage, ""),
        ConnectError::Stored { .. } => (Failure::Failed, ""),
        _ => (Failure::Failed, ""),
    };
    Problem::new(failure, format!("{error}{advice}"))
}

#[cfg(test)]
#[path = "problem_tests.rs"]
mod tests;
