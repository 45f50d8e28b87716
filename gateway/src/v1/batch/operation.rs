//! The operations of a batch: their JSON, and their check.

use std::time::Duration;

use bytes::Bytes;
use dkv_api::{Attach, Condition, Level, ReadOptions, Revision, WriteOptions};
use dkv_wire::limits::{KEY_TTL_MIN, TTL_MAX};
use serde::Deserialize;

use crate::bytes_json::{self, BytesError, Encoding};

/// The body of a batch.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Batch {
    pub(super) operations: Vec<Operation>,
    #[serde(default)]
    pub(super) encoding: Encoding,
}

/// An operation, as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Operation {
    op: OperationKind,
    #[serde(default, deserialize_with = "some")]
    key: Option<String>,
    #[serde(default, deserialize_with = "some")]
    key_base64: Option<String>,
    #[serde(default, deserialize_with = "some")]
    value: Option<String>,
    #[serde(default, deserialize_with = "some")]
    value_base64: Option<String>,
    #[serde(default, rename = "if", deserialize_with = "some")]
    condition: Option<Existence>,
    #[serde(default, deserialize_with = "some")]
    if_revision: Option<Whole>,
    #[serde(default, deserialize_with = "some")]
    consistency: Option<Consistency>,
    #[serde(default, deserialize_with = "some")]
    ttl_ms: Option<Whole>,
    #[serde(default, deserialize_with = "some")]
    lease: Option<String>,
}

/// Deserializes a member that is present; `null` is not a value.
fn some<'a, T: Deserialize<'a>, D: serde::Deserializer<'a>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// A whole number. In JSON, `7.0` is one too.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "serde_json::Number")]
struct Whole(u64);

impl TryFrom<serde_json::Number> for Whole {
    type Error = &'static str;

    fn try_from(number: serde_json::Number) -> Result<Self, Self::Error> {
        bytes_json::whole(&number).map(Self).ok_or("must be a whole number")
    }
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum OperationKind {
    Get,
    Put,
    Delete,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Existence {
    Absent,
    Present,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Consistency {
    Strong,
    Eventual,
    All,
}

impl From<Consistency> for Level {
    fn from(consistency: Consistency) -> Self {
        match consistency {
            Consistency::Strong => Self::Strong,
            Consistency::Eventual => Self::Eventual,
            Consistency::All => Self::All,
        }
    }
}

/// A valid operation.
pub(super) struct Checked {
    pub(super) key: Vec<u8>,
    pub(super) action: Action,
}

/// What an operation does to its key.
pub(super) enum Action {
    Get(ReadOptions),
    Put(Bytes, WriteOptions),
    Delete(WriteOptions),
}

/// Why an operation is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum OperationError {
    #[error(transparent)]
    Bytes(#[from] BytesError),
    #[error("the key is missing")]
    NoKey,
    #[error("a key must have at least one byte")]
    EmptyKey,
    #[error("the value is missing")]
    NoValue,
    #[error("give either if or if_revision, not both")]
    TwoConditions,
    #[error("a get takes neither a value nor a condition")]
    GetWithValue,
    #[error("give either ttl_ms or lease, not both")]
    TwoLives,
    #[error("ttl_ms must be from {} to {}", KEY_TTL_MIN.as_millis(), TTL_MAX.as_millis())]
    TtlOutOfBounds,
    #[error("only a put takes ttl_ms or lease")]
    LifeOfNoPut,
    #[error(transparent)]
    Lease(#[from] dkv_base::id::BadLeaseId),
    #[error("a delete takes no value")]
    DeleteWithValue,
}

impl Operation {
    /// Whether the operation only reads.
    pub(super) fn is_get(&self) -> bool {
        self.op == OperationKind::Get
    }

    /// Checks the operation.
    pub(super) fn check(self) -> Result<Checked, OperationError> {
        let Self { op, key, key_base64, value, value_base64, condition, .. } = self;
        let Self { if_revision, consistency, ttl_ms, lease, .. } = self;
        let key = bytes_json::take("key", key, key_base64)?.ok_or(OperationError::NoKey)?;
        if key.is_empty() {
            return Err(OperationError::EmptyKey);
        }
        let value = bytes_json::take("value", value, value_base64)?;
        let condition = match (condition, if_revision) {
            (None, None) => None,
            (Some(Existence::Absent), None) => Some(Condition::Absent),
            (Some(Existence::Present), None) => Some(Condition::Present),
            (None, Some(Whole(revision))) => Some(Condition::Revision(Revision(revision))),
            (Some(_), Some(_)) => return Err(OperationError::TwoConditions),
        };
        let level = consistency.map_or(Level::Strong, Into::into);
        let has_condition = condition.is_some();
        let condition = condition.unwrap_or(Condition::Always);
        let mut options = WriteOptions::default().level(level).condition(condition);
        options.attach = match (ttl_ms, lease) {
            (None, None) => None,
            _ if op != OperationKind::Put => return Err(OperationError::LifeOfNoPut),
            (Some(Whole(ms)), None) => {
                let ttl = Duration::from_millis(ms);
                if !(KEY_TTL_MIN..=TTL_MAX).contains(&ttl) {
                    return Err(OperationError::TtlOutOfBounds);
                }
                Some(Attach::Ttl(ttl))
            }
            (None, Some(lease)) => Some(Attach::Lease(lease.parse()?)),
            (Some(_), Some(_)) => return Err(OperationError::TwoLives),
        };
        let action = match (op, value) {
            (OperationKind::Get, None) if !has_condition => Action::Get(level.into()),
            (OperationKind::Get, _) => return Err(OperationError::GetWithValue),
            (OperationKind::Put, Some(value)) => Action::Put(value.into(), options),
            (OperationKind::Put, None) => return Err(OperationError::NoValue),
            (OperationKind::Delete, None) => Action::Delete(options),
            (OperationKind::Delete, Some(_)) => return Err(OperationError::DeleteWithValue),
        };
        Ok(Checked { key, action })
    }
}
