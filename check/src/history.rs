//! Histories: what clients asked of a store, when, and what it answered.

use std::io::{BufRead, Write};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

mod line;
mod records;
mod transaction;
mod watched;
mod lease;

pub use lease::{Disruption, LeaseEvent, LeaseNote};
pub use line::{HistoryError, Line, LineError};
pub use records::Compaction;
pub use transaction::{Fate, ListOperation, Transaction};
pub use watched::{
    PastAnswer, PastRead, PreviousVersion, RevisionChanges, VersionList, WatchEvent, WatchNote,
    WatchedKeys,
};

use records::{Kinded, Record};

/// All that was noted in a test run. Operations and transactions are in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The operations on single keys.
    pub operations: Vec<Operation>,
    /// The transactions over lists.
    pub transactions: Vec<Transaction>,
    /// Revisions of which all changes are known.
    pub changes: Vec<RevisionChanges>,
    /// The notes of watchers, those of each watcher in order.
    pub watches: Vec<WatchNote>,
    /// The reads at revisions.
    pub past_reads: Vec<PastRead>,
    /// The lists of versions of keys.
    pub version_lists: Vec<VersionList>,
    /// The requests to compact. If a shard has any, nothing else compacts it.
    pub compactions: Vec<Compaction>,
    /// The calls that concern leases.
    pub leases: Vec<LeaseNote>,
    /// Times without service.
    pub disruptions: Vec<Disruption>,
}

/// One call of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The client. It may have several calls in progress.
    pub client: u64,
    /// The shard of the key. Revisions are compared within a shard only.
    pub shard: u32,
    /// The key.
    pub key: Arc<str>,
    /// When the call began, in nanoseconds of a clock that all clients share.
    pub start_ns: u64,
    /// When the answer came, by the same clock. Without meaning if the outcome is
    /// [`Outcome::Unknown`].
    pub end_ns: u64,
    /// The request.
    pub action: Action,
    /// The outcome.
    pub outcome: Outcome,
}

/// The request of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Reads a key.
    Get(Level),
    /// Stores a value.
    Put {
        /// The value, or a hash of it.
        value: Arc<str>,
        /// The condition under which to store it.
        condition: Condition,
    },
    /// Removes the key.
    Delete(Condition),
}

/// The guarantee of a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Not older than anything that ended before the read began.
    #[default]
    Strong,
    /// Any state that the key once had. Only the revision is checked.
    Eventual,
    /// Eventual, and not older than what the same client had written or read before it began.
    Session,
}

/// The condition of a write. If it does not hold, the write is a conflict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// No condition.
    #[default]
    Always,
    /// Only if the key does not exist.
    Absent,
    /// Only if the key exists.
    Present,
    /// Only if the key was last written at this revision.
    Revision(u64),
}

/// The outcome of an operation. Fields are `None` where the store does not tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A write was executed; a delete removed the key.
    Written {
        /// The revision of the write.
        revision: Option<u64>,
        /// Whether the key existed before.
        existed: Option<bool>,
    },
    /// A read found a value.
    Value {
        /// The value, or a hash of it.
        value: Arc<str>,
        /// Revision of the write that stored it.
        revision: Option<u64>,
    },
    /// A read or a delete did not find the key.
    Absent {
        /// Latest revision of the shard at that moment.
        revision: Option<u64>,
    },
    /// The condition did not hold, and the write had no effect.
    Conflict {
        /// The state of the key, where the store tells.
        current: Option<Current>,
    },
    /// The operation failed: it had no effect and will have none.
    Failed,
    /// An eventual write was taken, and has its effect in the order of its stamp.
    Accepted {
        /// Its stamp.
        stamp: u64,
    },
    /// Unknown: the operation may have taken effect at any time since it began, may do so later, or
    /// never.
    Unknown,
}

/// The state of a key when a condition did not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Current {
    /// It did not exist.
    Absent,
    /// It was written at this revision.
    Revision(u64),
}

impl Operation {
    /// Whether it may have taken effect at an unknown time.
    pub fn is_open(&self) -> bool {
        let open = matches!(self.outcome, Outcome::Unknown | Outcome::Accepted { .. });
        open && !matches!(self.action, Action::Get(_))
    }

    /// Whether it reveals or changes anything.
    pub(crate) fn counts(&self) -> bool {
        !matches!(self.outcome, Outcome::Failed | Outcome::Unknown) || self.is_open()
    }
}

impl History {
    /// Reads a history: one operation or record a line, in the format of docs/reliability.md. Blank
    /// lines are skipped.
    ///
    /// # Errors
    /// If the input cannot be read, or for the first line that is neither.
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
            if records::may_have_kind(&text)
                && serde_json::from_slice::<Kinded>(&text).is_ok_and(|line| line.kind.is_some())
            {
                let record = serde_json::from_slice::<Record>(&text);
                let record = record.map_err(|error| wrong(LineError::Record(error)))?;
                record.add_to(&mut history).map_err(wrong)?;
                continue;
            }
            let line: Line =
                serde_json::from_slice(&text).map_err(|error| wrong(LineError::Json(error)))?;
            let id = line.id;
            let operation = line.into_operation().map_err(wrong)?;
            let place = history.operations.len();
            match id.map(|id| *by_id.entry(id).or_insert(place)) {
                // The earlier line was noted before the request was sent; this one knows its
                // outcome.
                Some(earlier) if earlier < place => history.operations[earlier] = operation,
                _ => history.operations.push(operation),
            }
        }
        Ok(history)
    }

    /// Writes the history in the format that [`read`](Self::read) takes.
    ///
    /// # Errors
    /// The error of the writer.
    pub fn write(&self, mut output: impl Write) -> std::io::Result<()> {
        for operation in &self.operations {
            serde_json::to_writer(&mut output, &Line::from(operation))?;
            output.write_all(b"\n")?;
        }
        for record in records::all(self) {
            serde_json::to_writer(&mut output, &record)?;
            output.write_all(b"\n")?;
        }
        output.flush()
    }
}

/// Records what many tasks note. Clones record into the same history.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<std::sync::Mutex<History>>);

impl Recorder {
    /// Adds an operation.
    pub fn add(&self, operation: Operation) {
        self.lock().operations.push(operation);
    }

    /// Adds a transaction.
    pub fn add_transaction(&self, transaction: Transaction) {
        self.lock().transactions.push(transaction);
    }

    /// Adds a note of another kind.
    pub fn note(&self, add: impl FnOnce(&mut History)) {
        add(&mut self.lock());
    }

    /// Number of operations and transactions so far.
    pub fn len(&self) -> usize {
        let history = self.lock();
        history.operations.len() + history.transactions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The history so far.
    pub fn history(&self) -> History {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, History> {
        // A panic under the lock cannot leave the lists inconsistent: all that happens is a push.
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
