//! What clients did, when, and what they were told.

use std::io::{BufRead, Write};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

mod line;

pub use line::{HistoryError, Line};

/// All operations of a run, in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The operations.
    pub operations: Vec<Operation>,
}

/// One call of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who called. A client may have several calls under way.
    pub client: u64,
    /// The shard of the key: revisions are compared within a shard.
    pub shard: u32,
    /// The key.
    pub key: Arc<str>,
    /// When it began, in nanoseconds of a clock that all clients share.
    pub start_ns: u64,
    /// When its answer came, by the same clock. It counts for nothing if the outcome is
    /// [`Outcome::Unknown`].
    pub end_ns: u64,
    /// What was asked.
    pub action: Action,
    /// What it came to.
    pub outcome: Outcome,
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The value of a key.
    Get(Level),
    /// To store a value.
    Put {
        /// The value, or a hash of it.
        value: Arc<str>,
        /// When to do it.
        condition: Condition,
    },
    /// To remove the key.
    Delete(Condition),
}

/// What a read must guarantee.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Not older than anything that was finished before it began.
    #[default]
    Strong,
    /// Anything that was true once. Only what it says of a revision is checked.
    Eventual,
    /// The same, and not older than what its own client had written or read before it began.
    Session,
}

/// When a write is done; otherwise it is a conflict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// Whatever is there.
    #[default]
    Always,
    /// Only if the key does not exist.
    Absent,
    /// Only if the key exists.
    Present,
    /// Only if the key was last written at this revision.
    Revision(u64),
}

/// What an operation came to. Revisions and what existed are `None` where the store does not tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A write was done. A delete removed something.
    Written {
        /// Its revision.
        revision: Option<u64>,
        /// Whether the key was there before.
        existed: Option<bool>,
    },
    /// A read found a value.
    Value {
        /// The value, or a hash of it.
        value: Arc<str>,
        /// Revision of the write that stored it.
        revision: Option<u64>,
    },
    /// The key was not there for a read or a delete.
    Absent {
        /// Latest revision of the shard at that moment.
        revision: Option<u64>,
    },
    /// The condition did not hold, and nothing was done.
    Conflict {
        /// What the key was instead, where the store tells.
        current: Option<Current>,
    },
    /// It had no effect and will have none.
    Failed,
    /// An eventual write was taken, and has its effect in the order of its stamp.
    Accepted {
        /// Its stamp.
        stamp: u64,
    },
    /// Nobody knows: it may have had its effect at any time since it began, may have it later, or
    /// never.
    Unknown,
}

/// What a key was when a condition did not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Current {
    /// It did not exist.
    Absent,
    /// It was written at this revision.
    Revision(u64),
}

impl Operation {
    /// Whether it may have changed something at a time that is not known.
    pub fn is_open(&self) -> bool {
        let open = matches!(self.outcome, Outcome::Unknown | Outcome::Accepted { .. });
        open && !matches!(self.action, Action::Get(_))
    }

    /// Whether it tells or does anything at the moment it happens.
    pub(crate) fn counts(&self) -> bool {
        !matches!(self.outcome, Outcome::Failed | Outcome::Unknown) || self.is_open()
    }
}

impl History {
    /// Reads a history: one operation a line, as docs/reliability.md describes it. Blank lines
    /// count for nothing.
    ///
    /// # Errors
    /// The first line that is not an operation, and why.
    pub fn read(mut input: impl BufRead) -> Result<Self, HistoryError> {
        let mut history = Self::default();
        let mut by_id = std::collections::HashMap::new();
        let mut text = Vec::new();
        for number in 1.. {
            text.clear();
            if input.read_until(b'\n', &mut text).map_err(HistoryError::Io)? == 0 {
                break;
            }
            if text.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let wrong = |problem| HistoryError::Line { number, problem };
            let line: Line = serde_json::from_slice(&text)
                .map_err(|error| wrong(format!("is not an operation: {error}")))?;
            let id = line.id;
            let operation = line.into_operation().map_err(wrong)?;
            let place = history.operations.len();
            match id.map(|id| *by_id.entry(id).or_insert(place)) {
                // What was noted before it was sent is known better by now.
                Some(earlier) if earlier < place => history.operations[earlier] = operation,
                _ => history.operations.push(operation),
            }
        }
        Ok(history)
    }

    /// Writes it as [`read`](Self::read) takes it.
    ///
    /// # Errors
    /// Of the writer.
    pub fn write(&self, mut output: impl Write) -> std::io::Result<()> {
        for operation in &self.operations {
            serde_json::to_writer(&mut output, &Line::from(operation))?;
            output.write_all(b"\n")?;
        }
        output.flush()
    }
}

/// Takes down operations from many tasks at once.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<std::sync::Mutex<Vec<Operation>>>);

impl Recorder {
    /// Adds an operation.
    pub fn add(&self, operation: Operation) {
        self.operations().push(operation);
    }

    /// Number of operations so far.
    pub fn len(&self) -> usize {
        self.operations().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was taken down so far.
    pub fn history(&self) -> History {
        History { operations: self.operations().clone() }
    }

    fn operations(&self) -> std::sync::MutexGuard<'_, Vec<Operation>> {
        // A panic elsewhere leaves the list whole: a push is all that happens under the lock.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        History::read(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let text = concat!(
            r#"{"client":1,"shard":2,"key":"k","op":"put","value":"a","condition":{"revision":3},"start_ns":1,"end_ns":2,"result":"conflict","current":{"revision":4}}"#,
            "\n",
            r#"{"client":1,"shard":0,"key":"k","op":"delete","condition":"present","start_ns":3,"result":"unknown"}"#,
            "\n",
            r#"{"client":1,"shard":0,"key":"k","op":"get","value":"b","level":"eventual","start_ns":3,"end_ns":4,"result":"ok","revision":5}"#,
            "\n",
        );
        let history = History::read(text.as_bytes()).unwrap();
        let mut written = Vec::new();
        history.write(&mut written).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), text);
        assert!(history.operations[1].is_open() && history.operations[1].end_ns == u64::MAX);
    }

    #[test]
    fn a_later_line_of_the_same_id_replaces_the_earlier() {
        let text = r#"
            {"id":1,"client":1,"key":"k","op":"put","value":"a","start_ns":1,"result":"unknown"}
            {"id":2,"client":1,"key":"k","op":"get","start_ns":5,"result":"unknown"}
            {"id":1,"client":1,"key":"k","op":"put","value":"a","start_ns":1,"end_ns":9,"result":"ok"}
        "#;
        let history = History::read(text.as_bytes()).unwrap();
        assert_eq!(history.operations.len(), 2);
        assert_eq!(history.operations[0].end_ns, 9);
    }

    #[test]
    fn a_line_that_is_no_operation_is_named() {
        assert!(wrong("\n\nrubbish\n").starts_with("line 3 is not an operation: "));
        assert!(wrong("{\"client\":1").starts_with("line 1 is not an operation: "));
        let get =
            |more: &str| format!(r#"{{"client":1,"key":"k","op":"get","start_ns":5,{more}}}"#);
        let unclear = |more: &str| wrong(&get(more));
        assert_eq!(unclear(r#""result":"ok","end_ns":4"#), "line 1 ends before it begins");
        assert_eq!(unclear(r#""result":"absent""#), "line 1 has a result and no end_ns");
        assert!(unclear(r#""result":"ok","end_ns":6"#).contains("without a value"));
        assert!(unclear(r#""result":"conflict","end_ns":6"#).contains("get with a conflict"));
        assert!(unclear(r#""result":"absent","end_ns":6,"revison":1"#).contains("unknown field"));
        assert!(unclear(r#""result":"absent","end_ns":6,"value":"a""#).contains("has a value"));
        assert!(wrong(&"[".repeat(100_000)).contains("line 1"));
    }
}
