//! Transactions over lists, and their lines.

use serde::{Deserialize, Serialize};

use super::line::LineError;

/// A transaction over keys whose values are lists of elements.
///
/// No two operations of a history write the same element to the same key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transaction {
    /// The client.
    pub client: u64,
    /// When the call began, in nanoseconds.
    pub start_ns: u64,
    /// When the answer came; without meaning if the outcome is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_ns: Option<u64>,
    /// The outcome.
    pub result: Fate,
    /// The operations, in order.
    pub ops: Vec<ListOperation>,
    /// Shards and the revision of its writes in each, where the store tells.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revisions: Vec<(u32, u64)>,
    /// Whether it only reads, at a moment between its start and its end for which the order in time
    /// of other transactions does not count.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub snapshot: bool,
}

/// The outcome of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It was executed.
    Ok,
    /// It had no effect, and will have none.
    Failed,
    /// It may have taken effect at any time since it began, may do so later, or never.
    Unknown,
}

/// An operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListOperation {
    /// Appends an element to the list of a key.
    Append(String, String),
    /// Replaces the list of a key by one element.
    Put(String, String),
    /// Reads the list of a key; `None` if the result is not known.
    Read(String, Option<Vec<String>>),
}

impl ListOperation {
    /// Returns the key.
    pub fn key(&self) -> &str {
        match self {
            Self::Append(key, _) | Self::Put(key, _) | Self::Read(key, _) => key,
        }
    }
}

impl Transaction {
    pub(super) fn checked(self) -> Result<Self, LineError> {
        match (self.end_ns, self.result) {
            (Some(end_ns), _) if end_ns < self.start_ns => Err(LineError::EndsEarly),
            (None, Fate::Ok | Fate::Failed) => Err(LineError::NoEnd),
            _ => Ok(self),
        }
    }
}
