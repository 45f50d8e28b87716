//! `POST /v1/batch`: many reads and writes in one request.
//!
//! Each is done by itself, as if it had come alone: there is no transaction over them. Those of one
//! key are done in the order in which they are written, those of different keys at the same time.
//! The answer has a result for each, in their order, with the status that it would have had alone;
//! its own status says only that the request was understood.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Method, Request, Response, StatusCode};
use axum::response::IntoResponse;
use bytes::Bytes;
use dkv_api::{Condition, ReadOptions, Receipt, Revision, WriteOptions, Written};
use futures::stream::{self, StreamExt};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::document;
use super::kv::written_status;
use crate::app::Gateway;
use crate::body::{Asker, Held, Pieces};
use crate::bytes_json::{self, Shown};
use crate::limits::{
    BATCH_ANSWER_BYTES_MAX, BATCH_AT_ONCE, BATCH_BODY_BYTES_MAX, BATCH_OPERATIONS_MAX,
};
use crate::problem::Problem;
use crate::query;
use crate::store::Store;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    operations: Vec<Operation>,
    #[serde(default)]
    encoding: Encoding,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    #[default]
    Text,
    Base64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Operation {
    op: Kind,
    #[serde(default, deserialize_with = "some")]
    key: Option<String>,
    #[serde(default, deserialize_with = "some")]
    key_base64: Option<String>,
    #[serde(default, deserialize_with = "some")]
    value: Option<String>,
    #[serde(default, deserialize_with = "some")]
    value_base64: Option<String>,
    #[serde(default, rename = "if", deserialize_with = "some")]
    condition: Option<When>,
    #[serde(default, deserialize_with = "some")]
    if_revision: Option<Whole>,
    #[serde(default, deserialize_with = "some")]
    consistency: Option<Level>,
}

/// A member that is there; `null` is none of its values.
fn some<'a, T: Deserialize<'a>, D: serde::Deserializer<'a>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// A whole number; in JSON `7.0` is one too.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "serde_json::Number")]
struct Whole(u64);

impl TryFrom<serde_json::Number> for Whole {
    type Error = &'static str;

    fn try_from(number: serde_json::Number) -> Result<Self, Self::Error> {
        /// Two to the power of 64.
        const END: f64 = 18_446_744_073_709_551_616.0;
        let float = number.as_f64().filter(|it| it.fract() == 0.0 && (0.0..END).contains(it));
        number.as_u64().or(float.map(|it| it as u64)).map(Self).ok_or("it must be a whole number")
    }
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Get,
    Put,
    Delete,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum When {
    Absent,
    Present,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Strong,
    Eventual,
    All,
}

impl From<Level> for dkv_api::Level {
    fn from(level: Level) -> Self {
        match level {
            Level::Strong => Self::Strong,
            Level::Eventual => Self::Eventual,
            Level::All => Self::All,
        }
    }
}

/// An operation that has been checked.
struct Checked {
    key: Vec<u8>,
    action: Action,
}

enum Action {
    Get(ReadOptions),
    Put(Bytes, WriteOptions),
    Delete(WriteOptions),
}

/// Answers a batch.
pub(super) async fn serve<S: Store>(
    State(gateway): State<Gateway<S>>,
    request: Request<Body>,
) -> Response<Body> {
    if request.method() != Method::POST {
        return Problem::method("POST").into_response();
    }
    run(&gateway, request).await.unwrap_or_else(Problem::into_response)
}

async fn run<S: Store>(
    gateway: &Gateway<S>,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    query::expect_none(request.uri().query()).map_err(Problem::invalid)?;
    let (head, body) = request.into_parts();
    let read = gateway.budget.read(&head, body, BATCH_BODY_BYTES_MAX).await;
    let (body, held) = read.map_err(Problem::of_body)?;
    let batch: Batch = serde_json::from_slice(&body).map_err(|error| {
        Problem::invalid(format!("the body is not of the form that is needed: {error}"))
    })?;
    drop(body);
    if batch.operations.len() > BATCH_OPERATIONS_MAX {
        let why = format!("a batch has at most {BATCH_OPERATIONS_MAX} operations");
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-many-operations", why));
    }
    let shown = match batch.encoding {
        Encoding::Text => Shown::Text,
        Encoding::Base64 => Shown::Base64,
    };
    let mut of_key: BTreeMap<Vec<u8>, Vec<(usize, Action)>> = BTreeMap::new();
    let count = batch.operations.len();
    if Asker::only_reads() && !batch.operations.iter().all(|it| matches!(it.op, Kind::Get)) {
        let why = "this token is for reading only, and the batch has operations that write";
        return Err(Problem::new(StatusCode::FORBIDDEN, "read-only", why));
    }
    // All are checked before the first is done.
    for (index, operation) in batch.operations.into_iter().enumerate() {
        let checked = check(operation);
        let Checked { key, action } =
            checked.map_err(|why| Problem::invalid(format!("operation {index}: {why}")))?;
        of_key.entry(key).or_default().push((index, action));
    }
    let keys: Vec<_> = of_key
        .into_iter()
        .map(|(key, actions)| one_key(gateway.clone(), key, actions, shown))
        .collect();
    let mut keys = stream::iter(keys).buffer_unordered(BATCH_AT_ONCE);
    let mut results: Vec<(Bytes, Held)> = Vec::new();
    results.resize_with(count, Default::default);
    let mut bytes = 0;
    while let Some(done) = keys.next().await {
        for Done { index, mut text, mut room } in done {
            if bytes + text.len() > BATCH_ANSWER_BYTES_MAX {
                // What was written stays written, so the others are answered all the same.
                let status = StatusCode::PAYLOAD_TOO_LARGE;
                let why = "the values of this batch are too long together: ask for fewer";
                let problem = Problem::new(status, "answer-too-large", why).document();
                (text, room) = (problem.to_string().into(), Held::default());
            }
            bytes += text.len();
            results[index] = (text, room);
        }
    }
    drop(held);
    let mut answer = Pieces::default();
    answer.push("{\"results\":[");
    for (index, (text, room)) in results.into_iter().enumerate() {
        answer.push(if index > 0 { "," } else { "" });
        answer.push_held(text, room);
    }
    answer.push("]}");
    Ok(document("application/json", answer.into_body()))
}

fn check(operation: Operation) -> Result<Checked, String> {
    let Operation { op, key, key_base64, value, value_base64, condition, if_revision, consistency } =
        operation;
    let key = bytes_json::take("key", key, key_base64)?.ok_or("the key is missing")?;
    if key.is_empty() {
        return Err("a key has at least one byte".into());
    }
    let value = bytes_json::take("value", value, value_base64)?;
    let condition = match (condition, if_revision) {
        (None, None) => None,
        (Some(When::Absent), None) => Some(Condition::Absent),
        (Some(When::Present), None) => Some(Condition::Present),
        (None, Some(Whole(revision))) => Some(Condition::Revision(Revision(revision))),
        (Some(_), Some(_)) => return Err("there is if or if_revision, not both".into()),
    };
    let level = consistency.map_or(dkv_api::Level::Strong, Into::into);
    let has_condition = condition.is_some();
    let condition = condition.unwrap_or(Condition::Always);
    let options = WriteOptions::default().level(level).condition(condition);
    let action = match (op, value) {
        (Kind::Get, None) if !has_condition => Action::Get(level.into()),
        (Kind::Get, _) => return Err("a get has neither a value nor a condition".into()),
        (Kind::Put, Some(value)) => Action::Put(value.into(), options),
        (Kind::Put, None) => return Err("the value is missing".into()),
        (Kind::Delete, None) => Action::Delete(options),
        (Kind::Delete, Some(_)) => return Err("a delete has no value".into()),
    };
    Ok(Checked { key, action })
}

/// What came of one operation.
struct Done {
    index: usize,
    /// The result.
    text: Bytes,
    /// Of the value that it shows, if it shows one.
    room: Held,
}

impl Done {
    fn short(index: usize, result: &Value) -> Self {
        Self { index, text: result.to_string().into(), room: Held::default() }
    }
}

/// Does the operations of one key, one after the other.
async fn one_key<S: Store>(
    gateway: Gateway<S>,
    key: Vec<u8>,
    actions: Vec<(usize, Action)>,
    shown: Shown,
) -> Vec<Done> {
    let mut done = Vec::with_capacity(actions.len());
    for (index, action) in actions {
        let written = match action {
            Action::Get(options) => {
                let read = gateway.store.read(&key, options).await;
                let found = read.map_err(|error| Problem::from_error(error, false));
                let shown = found.and_then(|read| show(&gateway, &read, shown));
                done.push(match shown {
                    Ok((text, room)) => Done { index, text, room },
                    Err(problem) => Done::short(index, &problem.document()),
                });
                continue;
            }
            Action::Put(value, options) => gateway.store.write(&key, value, options).await,
            Action::Delete(options) => {
                let deleted = gateway.store.delete(&key, options).await;
                deleted.map(|deleted| Written { existed: true, ..deleted })
            }
        };
        let result = match written {
            Ok(Written { receipt, existed }) => {
                Value::Object(about(written_status(&receipt, existed), &receipt))
            }
            Err(error) => Problem::from_error(error, false).document(),
        };
        done.push(Done::short(index, &result));
    }
    done
}

/// The result of a get, with its room.
fn show<S: Store>(
    gateway: &Gateway<S>,
    read: &dkv_api::Value,
    shown: Shown,
) -> Result<(Bytes, Held), Problem> {
    let mut result = about(StatusCode::OK, &read.receipt);
    bytes_json::put(&mut result, "value", &read.value, shown);
    let text = Bytes::from(Value::Object(result).to_string());
    let room = gateway.budget.take(text.len());
    Ok((text, room.map_err(|error| Problem::unavailable(error.to_string()))?))
}

fn about(status: StatusCode, receipt: &Receipt) -> Map<String, Value> {
    let mut result = Map::new();
    result.insert("status".into(), status.as_u16().into());
    match receipt.pending {
        None => result.insert("revision".into(), receipt.revision.0.into()),
        Some(number) => result.insert("pending".into(), number.0.into()),
    };
    result.insert("shard".into(), receipt.shard.0.into());
    result
}
