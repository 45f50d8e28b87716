//! One contradiction, with the operations that make it.

use std::fmt;
use std::sync::Arc;

use crate::anomaly::Anomaly;
use crate::history::{Action, Condition, Current, Level, Operation, Outcome};

/// Operations of a finding that are shown.
const SHOWN_MAX: usize = 24;

/// The kind of a contradiction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No order of a key's operations explains what was seen.
    NotLinearizable,
    /// A revision was given to two writes.
    Reused,
    /// A read at a revision did not return what was written at it.
    Mismatch,
    /// A read returned a value that no client wrote.
    NeverWritten,
    /// A later write has an earlier revision.
    OutOfOrder,
    /// A read does not show what was known before it began.
    Stale,
    /// A read does not show what its own client knew before.
    WentBack,
    /// The last read of a key does not show an acknowledged write.
    Lost,
    /// A write took effect twice.
    Twice,
    /// Transactions are not strictly serializable.
    Anomaly(Anomaly),
    /// A watch does not show a change.
    WatchLost,
    /// A watch shows a part of what changed at one revision.
    WatchSplit,
    /// A watch shows a change twice.
    WatchDoubled,
    /// A watch shows changes out of order.
    WatchReordered,
    /// A watch shows a change before the revision that it begins after.
    WatchEarly,
    /// A watch shows a change that is not one, or not of its keys.
    WatchWrong,
    /// A watch shows another version before a change than there was.
    WatchPrevious,
    /// A token of a watch is not at the end of what the watch has shown.
    WatchToken,
    /// The history is said to be forgotten where it must be there.
    Compacted,
    /// A read at a revision, or a list of versions, does not show what there was.
    PastMismatch,
    /// Two sources contradict each other about a change.
    Contradiction,
    /// A lease ended too early.
    LeaseEarly,
    /// A lease ended too late.
    LeaseLate,
    /// A lease was kept alive after it had ended.
    LeaseRevived,
}

/// One contradiction, with the operations that make it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The kind.
    pub kind: Kind,
    /// The key.
    pub key: Arc<str>,
    /// The contradiction in words.
    pub text: String,
    /// The operations, by their start.
    pub operations: Vec<Operation>,
    /// What else makes the contradiction, in lines.
    pub lines: Vec<String>,
}

impl Finding {
    pub(crate) fn new(kind: Kind, text: String, all: &[Operation], places: &[usize]) -> Self {
        let mut operations: Vec<Operation> =
            places.iter().map(|place| all[*place].clone()).collect();
        operations.sort_by_key(|operation| operation.start_ns);
        let key = operations.last().map_or_else(|| "".into(), |last| Arc::clone(&last.key));
        Self { kind, key, text, operations, lines: Vec::new() }
    }

    /// Creates a finding about no single key.
    pub(crate) fn of_lines(kind: Kind, text: String, lines: Vec<String>) -> Self {
        Self { kind, key: "".into(), text, operations: Vec::new(), lines }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.is_empty() && self.operations.is_empty() {
            true => writeln!(f, "{}", self.text)?,
            false => writeln!(f, "key {:?}: {}", self.key, self.text)?,
        }
        for line in &self.lines {
            writeln!(f, "  {line}")?;
        }
        for operation in self.operations.iter().take(SHOWN_MAX) {
            writeln!(f, "  {operation}")?;
        }
        match self.operations.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => writeln!(f, "  and {more} more"),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |ns: u64| ns as f64 / 1e6;
        let revision = |revision: &Option<u64>| {
            revision.map_or_else(String::new, |revision| format!(" at revision {revision}"))
        };
        write!(f, "{:.3} ms", ms(self.start_ns))?;
        match self.end_ns {
            u64::MAX => write!(f, " to ?")?,
            end_ns => write!(f, " to {:.3} ms", ms(end_ns))?,
        }
        write!(f, "  client {}  ", self.client)?;
        match &self.action {
            Action::Get(Level::Strong) => write!(f, "get")?,
            Action::Get(Level::Eventual) => write!(f, "get eventual")?,
            Action::Get(Level::Session) => write!(f, "get session")?,
            Action::Put { value, condition } => write!(f, "put {value:?}{}", suffix(*condition))?,
            Action::Delete(condition) => write!(f, "delete{}", suffix(*condition))?,
        }
        match &self.outcome {
            Outcome::Written { revision: at, .. } => write!(f, " -> done{}", revision(at)),
            Outcome::Value { value, revision: at } => write!(f, " -> {value:?}{}", revision(at)),
            Outcome::Absent { revision: None } => write!(f, " -> absent"),
            Outcome::Absent { revision: Some(at) } => {
                write!(f, " -> absent, the shard at revision {at}")
            }
            Outcome::Conflict { current: None } => write!(f, " -> conflict"),
            Outcome::Conflict { current: Some(Current::Absent) } => {
                write!(f, " -> conflict, the key is absent")
            }
            Outcome::Conflict { current: Some(Current::Revision(at)) } => {
                write!(f, " -> conflict, the key is at revision {at}")
            }
            Outcome::Accepted { stamp } => write!(f, " -> accepted at {stamp}"),
            Outcome::Failed => write!(f, " -> failed"),
            Outcome::Unknown => write!(f, " -> unknown"),
        }
    }
}

/// The condition, as a suffix to its operation.
fn suffix(condition: Condition) -> String {
    match condition {
        Condition::Always => String::new(),
        Condition::Absent => " if-absent".to_owned(),
        Condition::Present => " if-present".to_owned(),
        Condition::Revision(revision) => format!(" if-revision {revision}"),
    }
}
