//! The lines of a history file.

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
        /// What is wrong with it.
        problem: String,
    },
}

/// One line: an operation with a field for everything that some operation has.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// A later line of the same number replaces this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// Who called.
    pub client: u64,
    /// The shard of the key.
    #[serde(default)]
    pub shard: u32,
    /// The key.
    pub key: String,
    /// What was asked.
    pub op: Verb,
    /// Value of a put, or what a get returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Of a put or delete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<Condition>,
    /// Of a get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// When it began.
    pub start_ns: u64,
    /// When its answer came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_ns: Option<u64>,
    /// What it came to.
    pub result: Word,
    /// Of what was written or read, or the shard's latest if the key was absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Whether a put found the key there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub existed: Option<bool>,
    /// Of an eventual write that was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp: Option<u64>,
    /// What was there when the condition did not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Current>,
}

/// What was asked.
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

/// What it came to.
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
    /// An eventual write was taken.
    Accepted,
    /// It may have had an effect.
    Unknown,
}

impl Line {
    /// The operation that it describes.
    ///
    /// # Errors
    /// What is missing in it, or is too much.
    pub fn into_operation(self) -> Result<Operation, String> {
        let Self { client, shard, key, op, value, condition, level, start_ns, end_ns, .. } = self;
        let (result, revision, existed, current, stamp) =
            (self.result, self.revision, self.existed, self.current, self.stamp);
        let end_ns = match (end_ns, result) {
            (Some(end_ns), _) if end_ns < start_ns => return Err("ends before it begins".into()),
            (Some(end_ns), _) => end_ns,
            (None, Word::Unknown) => u64::MAX,
            (None, _) => return Err("has a result and no end_ns".into()),
        };
        if op == Verb::Get && condition.is_some() {
            return Err("is a get with a condition".into());
        }
        if op != Verb::Get && level.is_some() {
            return Err("is a write with a level".into());
        }
        let condition = condition.unwrap_or_default();
        let mut value = value.map(Into::into);
        let outcome = match (result, op) {
            (Word::Ok, Verb::Get) => {
                let value = value.take().ok_or("is a get that found something, without a value")?;
                Outcome::Value { value, revision }
            }
            (Word::Ok, Verb::Delete) => Outcome::Written { revision, existed: Some(true) },
            (Word::Ok, Verb::Put) => Outcome::Written { revision, existed },
            (Word::Absent, Verb::Put) => return Err("is a put whose result is absent".into()),
            (Word::Absent, _) => Outcome::Absent { revision },
            (Word::Conflict, Verb::Get) => return Err("is a get with a conflict".into()),
            (Word::Conflict, _) if condition == Condition::Always => {
                return Err("has a conflict and no condition".into());
            }
            (Word::Conflict, _) => Outcome::Conflict { current },
            (Word::Failed, _) => Outcome::Failed,
            (Word::Accepted, Verb::Get) => return Err("is a get that was accepted".into()),
            (Word::Accepted, _) => {
                Outcome::Accepted { stamp: stamp.ok_or("was accepted without a stamp")? }
            }
            (Word::Unknown, _) => Outcome::Unknown,
        };
        let action = match op {
            Verb::Get => Action::Get(level.unwrap_or_default()),
            Verb::Put => {
                Action::Put { value: value.take().ok_or("is a put without a value")?, condition }
            }
            Verb::Delete => Action::Delete(condition),
        };
        if value.is_some() {
            return Err("has a value where there is none".into());
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
