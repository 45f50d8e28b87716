//! The lines of a history file: one operation each, as JSON.

use serde::{Deserialize, Serialize};

use super::{Action, Condition, Current, Level, Operation, Outcome};

/// Why a file is not a history.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// It cannot be read.
    #[error("{0}")]
    Io(std::io::Error),
    /// One of its lines is not an operation.
    #[error("line {number} {problem}")]
    Line {
        /// Number of the line, from one.
        number: u64,
        /// The fault of the line.
        problem: LineError,
    },
}

/// Why a line is not an operation.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// It is not a JSON object with the fields of a [`Line`].
    #[error("is not an operation: {0}")]
    Json(serde_json::Error),
    /// It has a kind, and not the fields of that kind.
    #[error("is not a record: {0}")]
    Record(serde_json::Error),
    /// Its end is before its start.
    #[error("ends before it begins")]
    EndsEarly,
    /// It has a result and no end.
    #[error("has a result and no end_ns")]
    NoEnd,
    /// It lacks a field or has one that does not belong to its operation or result.
    #[error("{0}")]
    Inconsistent(&'static str),
}

/// One line: an operation, with a field for everything that any operation may have.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// A later line with the same id replaces this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// The client.
    pub client: u64,
    /// The shard of the key.
    #[serde(default)]
    pub shard: u32,
    /// The key.
    pub key: String,
    /// The operation.
    pub op: Verb,
    /// The value of a put, or the one that a get returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The condition of a put or delete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<Condition>,
    /// The level of a get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// When the call began, in nanoseconds.
    pub start_ns: u64,
    /// When the answer came, in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_ns: Option<u64>,
    /// The result.
    pub result: Word,
    /// The revision written or read, or the shard's latest if the key was absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Whether the key existed before a put.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub existed: Option<bool>,
    /// The stamp of an accepted eventual write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp: Option<u64>,
    /// The state of the key when the condition did not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Current>,
}

/// The kind of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// A read.
    Get,
    /// A write.
    Put,
    /// A delete.
    Delete,
}

/// The result of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    /// It was done.
    Ok,
    /// The key was not there.
    Absent,
    /// The condition did not hold.
    Conflict,
    /// It had no effect.
    Failed,
    /// An eventual write was accepted.
    Accepted,
    /// It may have had an effect.
    Unknown,
}

impl Line {
    /// The operation that the line describes.
    ///
    /// # Errors
    /// If a field is missing, does not belong there or contradicts another.
    pub fn into_operation(self) -> Result<Operation, LineError> {
        use LineError::Inconsistent;
        let Self { client, shard, key, op, value, condition, level, start_ns, end_ns, .. } = self;
        let (result, revision, existed, current, stamp) =
            (self.result, self.revision, self.existed, self.current, self.stamp);
        let end_ns = match (end_ns, result) {
            (Some(end_ns), _) if end_ns < start_ns => return Err(LineError::EndsEarly),
            (Some(end_ns), _) => end_ns,
            (None, Word::Unknown) => u64::MAX,
            (None, _) => return Err(LineError::NoEnd),
        };
        if op == Verb::Get && condition.is_some() {
            return Err(Inconsistent("is a get with a condition"));
        }
        if op != Verb::Get && level.is_some() {
            return Err(Inconsistent("is a write with a level"));
        }
        let condition = condition.unwrap_or_default();
        let mut value = value.map(Into::into);
        let outcome = match (result, op) {
            (Word::Ok, Verb::Get) => {
                let value = value
                    .take()
                    .ok_or(Inconsistent("is a get that found something, without a value"))?;
                Outcome::Value { value, revision }
            }
            (Word::Ok, Verb::Delete) => Outcome::Written { revision, existed: Some(true) },
            (Word::Ok, Verb::Put) => Outcome::Written { revision, existed },
            (Word::Absent, Verb::Put) => {
                return Err(Inconsistent("is a put whose result is absent"));
            }
            (Word::Absent, _) => Outcome::Absent { revision },
            (Word::Conflict, Verb::Get) => return Err(Inconsistent("is a get with a conflict")),
            (Word::Conflict, _) if condition == Condition::Always => {
                return Err(Inconsistent("has a conflict and no condition"));
            }
            (Word::Conflict, _) => Outcome::Conflict { current },
            (Word::Failed, _) => Outcome::Failed,
            (Word::Accepted, Verb::Get) => return Err(Inconsistent("is a get that was accepted")),
            (Word::Accepted, _) => Outcome::Accepted {
                stamp: stamp.ok_or(Inconsistent("was accepted without a stamp"))?,
            },
            (Word::Unknown, _) => Outcome::Unknown,
        };
        let action = match op {
            Verb::Get => Action::Get(level.unwrap_or_default()),
            Verb::Put => Action::Put {
                value: value.take().ok_or(Inconsistent("is a put without a value"))?,
                condition,
            },
            Verb::Delete => Action::Delete(condition),
        };
        if value.is_some() {
            return Err(Inconsistent("has a value where there is none"));
        }
        Ok(Operation { client, shard, key: key.into(), start_ns, end_ns, action, outcome })
    }
}

impl From<&Operation> for Line {
    fn from(operation: &Operation) -> Self {
        let Operation { client, shard, key, start_ns, end_ns, action, outcome } = operation;
        let mut line = Self {
            id: None,
            client: *client,
            shard: *shard,
            key: key.to_string(),
            op: Verb::Get,
            value: None,
            condition: None,
            level: None,
            start_ns: *start_ns,
            end_ns: Some(*end_ns).filter(|end_ns| *end_ns != u64::MAX),
            result: Word::Ok,
            revision: None,
            existed: None,
            stamp: None,
            current: None,
        };
        let set = |condition: &Condition| Some(*condition).filter(|it| *it != Condition::Always);
        match action {
            Action::Get(level) => line.level = Some(*level).filter(|it| *it != Level::Strong),
            Action::Put { value, condition } => {
                line.op = Verb::Put;
                line.value = Some(value.to_string());
                line.condition = set(condition);
            }
            Action::Delete(condition) => {
                line.op = Verb::Delete;
                line.condition = set(condition);
            }
        }
        match outcome {
            Outcome::Written { revision, existed } => {
                line.revision = *revision;
                line.existed = existed.filter(|_| line.op == Verb::Put);
            }
            Outcome::Value { value, revision } => {
                line.value = Some(value.to_string());
                line.revision = *revision;
            }
            Outcome::Absent { revision } => {
                (line.result, line.revision) = (Word::Absent, *revision);
            }
            Outcome::Conflict { current } => {
                (line.result, line.current) = (Word::Conflict, *current);
            }
            Outcome::Failed => line.result = Word::Failed,
            Outcome::Accepted { stamp } => {
                (line.result, line.stamp) = (Word::Accepted, Some(*stamp));
            }
            Outcome::Unknown => line.result = Word::Unknown,
        }
        line
    }
}
