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

use serde_json::{Map, Value, json};

/// The kind of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
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
        }
    }

    /// Its word, for programs.
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
        }
    }

    /// Of two problems the one that a script must hear of.
    pub fn worse(self, other: Self) -> Self {
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
pub fn worst(one: Option<Failure>, other: Option<Failure>) -> Option<Failure> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.worse(other)),
        (one, other) => one.or(other),
    }
}

/// Whether something was changed by what failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
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
pub struct Problem {
    /// Its kind.
    pub failure: Failure,
    /// Whether something was changed.
    pub effect: Effect,
    /// What is the case and what to do, in one line.
    pub message: String,
    /// More for programs.
    more: Map<String, Value>,
}

impl Problem {
    /// One of that kind, without an effect unless its kind says otherwise.
    pub fn new(failure: Failure, message: impl Into<String>) -> Self {
        let effect = match failure {
            Failure::Unknown => Effect::Unknown,
            Failure::Incomplete => Effect::Done,
            _ => Effect::None,
        };
        Self { failure, effect, message: message.into(), more: Map::new() }
    }

    /// It cannot be done.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Failure::Failed, message)
    }

    /// The command line is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Failure::Usage, message)
    }

    /// The same, with another effect.
    pub fn having(self, effect: Effect) -> Self {
        Self { effect, ..self }
    }

    /// The same with a member more for programs.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// The same with several members more for programs.
    pub fn with_members(mut self, members: Map<String, Value>) -> Self {
        self.more.extend(members);
        self
    }

    /// The same, with words before its message.
    pub fn behind(mut self, words: &str) -> Self {
        self.message.insert_str(0, words);
        self
    }

    /// The same, of a command in that line of the input, unless it names the line of a file.
    pub fn in_line(self, line: u64) -> Self {
        if self.more.contains_key("line") {
            return self;
        }
        self.behind(&format!("line {line}: ")).with("line", line)
    }

    /// As a document for programs.
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
pub enum Stop {
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
pub fn untold(done: impl Into<String>, source: io::Error) -> io::Error {
    io::Error::new(source.kind(), Untold { done: done.into(), source })
}

/// Whether something was changed that an output did not tell of.
pub fn effect_of(error: &io::Error) -> Effect {
    match error.get_ref() {
        Some(inner) if inner.is::<Untold>() => Effect::Done,
        _ => Effect::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_status_of_its_own_and_the_most_serious_decides() {
        use Failure::{
            Conflict, Denied, Failed, Incomplete, NotFound, Unavailable, Unknown, Usage,
        };
        let all = [Failed, Usage, NotFound, Conflict, Unavailable, Unknown, Denied, Incomplete];
        let statuses: Vec<u8> = all.iter().map(|failure| failure.status()).collect();
        assert_eq!(statuses, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(all.iter().all(|failure| failure.worse(Unknown) == Unknown));
        assert!(all.iter().all(|failure| NotFound.worse(*failure) == *failure));
        assert_eq!(worst(Some(Unavailable), Some(Conflict)), Some(Unavailable));
        assert_eq!(worst(None, Some(NotFound)), Some(NotFound));
        assert_eq!(worst(None, None), None);
    }
}
