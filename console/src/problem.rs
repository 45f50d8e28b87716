//! Problems: their kind, which is the exit status too, whether anything was changed, and a line for
//! the user.
//!
//! | status | kind | |
//! |---|---|---|
//! | 1 | `failed` | it cannot be done, or input or output fails |
//! | 2 | `usage` | the command line is wrong; nothing was done |
//! | 3 | `not-found` | there is no such key or node |
//! | 4 | `conflict` | a condition does not hold |
//! | 5 | `unavailable` | temporarily impossible; nothing was changed |
//! | 6 | `unknown` | a change may have happened, or may still happen |
//! | 7 | `denied` | the credentials do not allow it |
//! | 8 | `incomplete` | a write at level `all` was done, but not every replica has it |
//! | 10 | `warning` | an examination found something that may fail |
//! | 11 | `critical` | an examination found something that is failing |
//! | 130 | `interrupted` | ended by Ctrl-C before it was done |
//! | 143 | `terminated` | ended by SIGTERM before it was done |
//!
//! If several commands fail, the most serious problem decides.

use std::io;

use serde_json::{Map, Value, json};

use crate::signals::StopSignal;

/// The kind of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It cannot be done, or input or output fails.
    Failed,
    /// The command line is wrong.
    Usage,
    /// There is no such key or node.
    NotFound,
    /// A condition does not hold.
    Conflict,
    /// Temporarily impossible.
    Unavailable,
    /// The outcome is unknown.
    Unknown,
    /// The credentials do not allow it.
    Denied,
    /// Done, but not on every replica.
    Incomplete,
    /// An examination found something that may fail.
    Warning,
    /// An examination found something that is failing.
    Critical,
    /// Ended by Ctrl-C before it was done.
    Interrupted,
    /// Ended by SIGTERM before it was done.
    Terminated,
}

impl From<StopSignal> for Failure {
    fn from(signal: StopSignal) -> Self {
        match signal {
            StopSignal::Interrupted => Self::Interrupted,
            StopSignal::Terminated => Self::Terminated,
        }
    }
}

impl Failure {
    /// Returns the exit status.
    pub fn status(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Conflict => 4,
            Self::Unavailable => 5,
            Self::Unknown => 6,
            Self::Denied => 7,
            Self::Incomplete => 8,
            Self::Warning => 10,
            Self::Critical => 11,
            Self::Interrupted => StopSignal::Interrupted.status(),
            Self::Terminated => StopSignal::Terminated.status(),
        }
    }

    /// Returns its name in JSON documents.
    pub fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::NotFound => "not-found",
            Self::Conflict => "conflict",
            Self::Unavailable => "unavailable",
            Self::Unknown => "unknown",
            Self::Denied => "denied",
            Self::Incomplete => "incomplete",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Interrupted => "interrupted",
            Self::Terminated => "terminated",
        }
    }

    /// Returns the more serious of two kinds.
    pub fn worse(self, other: Self) -> Self {
        if other.weight() > self.weight() { other } else { self }
    }

    fn weight(self) -> u8 {
        match self {
            Self::Warning => 0,
            Self::Critical => 1,
            Self::NotFound => 2,
            Self::Conflict => 3,
            Self::Usage => 4,
            Self::Failed => 5,
            Self::Denied => 6,
            Self::Unavailable => 7,
            Self::Incomplete => 8,
            Self::Unknown => 9,
            Self::Terminated => 10,
            Self::Interrupted => 11,
        }
    }
}

/// Returns the most serious kind of several results.
pub fn worst(one: Option<Failure>, other: Option<Failure>) -> Option<Failure> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.worse(other)),
        (one, other) => one.or(other),
    }
}

/// Whether a failed command has changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It has not.
    None,
    /// A part was done, or may have been.
    Partly,
    /// It is unknown whether it has.
    Unknown,
    /// It has.
    Done,
}

impl Effect {
    fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Partly => "partly",
            Self::Unknown => "unknown",
            Self::Done => "done",
        }
    }
}

/// A failure of one command.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Its kind.
    pub failure: Failure,
    /// Whether anything was changed.
    pub effect: Effect,
    /// What went wrong and what to do, in one line.
    pub message: String,
    /// Further members of the JSON document.
    more: Map<String, Value>,
}

impl Problem {
    /// A problem of that kind. Its effect follows from the kind.
    pub fn new(failure: Failure, message: impl Into<String>) -> Self {
        let effect = match failure {
            Failure::Unknown => Effect::Unknown,
            Failure::Incomplete => Effect::Done,
            _ => Effect::None,
        };
        Self { failure, effect, message: message.into(), more: Map::new() }
    }

    /// A command that cannot be done.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Failure::Failed, message)
    }

    /// A wrong command line.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Failure::Usage, message)
    }

    /// Sets the effect.
    pub fn with_effect(self, effect: Effect) -> Self {
        Self { effect, ..self }
    }

    /// Adds a member to the JSON document.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// Adds members to the JSON document.
    pub fn with_members(mut self, members: Map<String, Value>) -> Self {
        self.more.extend(members);
        self
    }

    /// Puts a text before the message.
    pub fn prefixed(mut self, words: &str) -> Self {
        self.message.insert_str(0, words);
        self
    }

    /// Puts a text after the message.
    pub fn followed(mut self, words: &str) -> Self {
        self.message.push_str(words);
        self
    }

    /// Adds the line of the input, unless the problem already names the line of a file.
    pub fn at_line(self, line: u64) -> Self {
        if self.more.contains_key("line") {
            return self;
        }
        self.prefixed(&format!("line {line}: ")).with("line", line)
    }

    /// Returns the JSON document.
    pub fn document(&self) -> Value {
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
pub enum Abort {
    /// Standard output cannot be written.
    Output(io::Error),
    /// It failed and has reported why.
    Reported(Failure),
    /// It failed; the problem is still to be reported.
    Problem(Box<Problem>),
}

/// A command that cannot be done, and why, in one line.
impl From<String> for Abort {
    fn from(why: String) -> Self {
        Problem::failed(why).into()
    }
}

impl From<io::Error> for Abort {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<Problem> for Abort {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

/// A change was made, but could not be reported on standard output.
#[derive(Debug, thiserror::Error)]
#[error("{source}; the change was made: {done}")]
struct UnreportedChange {
    done: String,
    source: io::Error,
}

/// Adds to an error of stdout the change that it could not report.
pub fn unreported_change(done: impl Into<String>, source: io::Error) -> io::Error {
    io::Error::new(source.kind(), UnreportedChange { done: done.into(), source })
}

/// Returns whether an error of stdout hides a change.
pub fn effect_of(error: &io::Error) -> Effect {
    match error.get_ref() {
        Some(inner) if inner.is::<UnreportedChange>() => Effect::Done,
        _ => Effect::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_own_status_and_the_most_serious_decides() {
        use Failure::{
            Conflict, Denied, Failed, Incomplete, NotFound, Unavailable, Unknown, Usage,
        };
        let all = [Failed, Usage, NotFound, Conflict, Unavailable, Unknown, Denied, Incomplete];
        let statuses: Vec<u8> = all.iter().map(|failure| failure.status()).collect();
        assert_eq!(statuses, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(all.iter().all(|failure| failure.worse(Unknown) == Unknown));
        assert!(all.iter().all(|failure| NotFound.worse(*failure) == *failure));
        let late = [Failure::Warning, Failure::Critical, Failure::Interrupted, Failure::Terminated];
        assert_eq!(late.map(Failure::status), [10, 11, 130, 143]);
        assert!(all.iter().all(|failure| failure.worse(Failure::Interrupted).status() == 130));
        assert!(all.iter().all(|failure| failure.worse(Failure::Critical) == *failure));
        assert_eq!(worst(Some(Unavailable), Some(Conflict)), Some(Unavailable));
        assert_eq!(worst(None, Some(NotFound)), Some(NotFound));
        assert_eq!(worst(None, None), None);
    }
}
