//! `POST /v1/batch`: many reads and writes in one request.
//!
//! Each operation runs by itself, as if it had come alone: a batch is not a transaction. Operations
//! on one key run in the order of the batch, those on different keys concurrently. The answer holds
//! a result for each operation, in their order, with the status that it would have had alone; the
//! status of the answer says only that the batch was understood.

mod operation;

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use dkv_api::{Receipt, Written};
use futures::stream::{self, StreamExt};
use serde_json::{Map, Value};

use self::operation::{Action, Batch, Checked};
use super::keyspaces::Keyspaced;
use super::kv::written_status;
use crate::body::{Caller, Reservation, ResponseParts};
use crate::bytes_json::{self, Encoding};
use crate::limits::{
    BATCH_ANSWER_BYTES_MAX, BATCH_AT_ONCE, BATCH_BODY_BYTES_MAX, BATCH_OPERATIONS_MAX,
};
use crate::problem::Problem;
use crate::query;
use crate::response::document;
use crate::state::Gateway;
use crate::store::Store;

/// Answers a batch.
pub(super) async fn serve<S: Store>(
    Keyspaced(gateway): Keyspaced<S>,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    if request.method() != Method::POST {
        return Err(Problem::method("POST"));
    }
    query::expect_none(request.uri().query())?;
    let (head, body) = request.into_parts();
    let read = gateway.budget.read(&head, body, BATCH_BODY_BYTES_MAX).await;
    let (body, held) = read.map_err(Problem::of_body)?;
    let batch: Batch = serde_json::from_slice(&body).map_err(|error| {
        Problem::invalid(format!("the body does not have the required form: {error}"))
    })?;
    drop(body);
    if batch.operations.len() > BATCH_OPERATIONS_MAX {
        let why = format!("a batch has at most {BATCH_OPERATIONS_MAX} operations");
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-many-operations", why));
    }
    let mut by_key: BTreeMap<Vec<u8>, Vec<(usize, Action)>> = BTreeMap::new();
    let count = batch.operations.len();
    if Caller::is_read_only() && !batch.operations.iter().all(|it| it.is_get()) {
        let why = "this token is read-only, and the batch has operations that write";
        return Err(Problem::new(StatusCode::FORBIDDEN, "read-only", why));
    }
    // All operations are checked before the first one runs.
    for (index, operation) in batch.operations.into_iter().enumerate() {
        let Checked { key, action } = operation
            .check()
            .map_err(|error| Problem::invalid(format!("operation {index}: {error}")))?;
        by_key.entry(key).or_default().push((index, action));
    }
    let keys: Vec<_> = by_key
        .into_iter()
        .map(|(key, actions)| run_key(gateway.clone(), key, actions, batch.encoding))
        .collect();
    let mut keys = stream::iter(keys).buffer_unordered(BATCH_AT_ONCE);
    let mut results: Vec<(Bytes, Reservation)> = Vec::new();
    results.resize_with(count, Default::default);
    let mut bytes = 0;
    while let Some(done) = keys.next().await {
        for Done { index, mut text, mut room } in done {
            if bytes + text.len() > BATCH_ANSWER_BYTES_MAX {
                // Writes are done by now, so the other operations are answered all the same.
                let status = StatusCode::PAYLOAD_TOO_LARGE;
                let why = "the values of this batch are too long together; ask for fewer";
                let problem = Problem::new(status, "answer-too-large", why).document();
                (text, room) = (problem.to_string().into(), Reservation::default());
            }
            bytes += text.len();
            results[index] = (text, room);
        }
    }
    drop(held);
    let mut answer = ResponseParts::default();
    answer.push("{\"results\":[");
    for (index, (text, room)) in results.into_iter().enumerate() {
        answer.push(if index > 0 { "," } else { "" });
        answer.push_reserved(text, room);
    }
    answer.push("]}");
    Ok(document("application/json", answer.into_body()))
}

/// The result of one operation.
struct Done {
    index: usize,
    /// The result, as JSON.
    text: Bytes,
    /// Room for the value in it, if it holds one.
    room: Reservation,
}

impl Done {
    fn short(index: usize, result: &Value) -> Self {
        Self { index, text: result.to_string().into(), room: Reservation::default() }
    }
}

/// Runs the operations on one key, one after the other.
async fn run_key<S: Store>(
    gateway: Gateway<S>,
    key: Vec<u8>,
    actions: Vec<(usize, Action)>,
    encoding: Encoding,
) -> Vec<Done> {
    let mut done = Vec::with_capacity(actions.len());
    for (index, action) in actions {
        let written = match action {
            Action::Get(options) => {
                let read = gateway.store.read(&key, options).await;
                let found = read.map_err(|error| Problem::from_error(error, false));
                let result = found.and_then(|read| read_result(&gateway, &read, encoding));
                done.push(match result {
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
                Value::Object(result_of(written_status(&receipt, existed), &receipt))
            }
            Err(error) => Problem::from_error(error, false).document(),
        };
        done.push(Done::short(index, &result));
    }
    done
}

/// Formats the result of a get, and reserves room for it.
fn read_result<S: Store>(
    gateway: &Gateway<S>,
    read: &dkv_api::Value,
    encoding: Encoding,
) -> Result<(Bytes, Reservation), Problem> {
    let mut result = result_of(StatusCode::OK, &read.receipt);
    bytes_json::put(&mut result, "value", &read.value, encoding);
    let text = Bytes::from(Value::Object(result).to_string());
    let room = gateway.budget.reserve(text.len());
    Ok((text, room.map_err(|error| Problem::unavailable(error.to_string()))?))
}

fn result_of(status: StatusCode, receipt: &Receipt) -> Map<String, Value> {
    let mut result = Map::new();
    result.insert("status".into(), status.as_u16().into());
    match receipt.pending {
        None => result.insert("revision".into(), receipt.revision.0.into()),
        Some(number) => result.insert("pending".into(), number.0.into()),
    };
    result.insert("shard".into(), receipt.shard.0.into());
    result
}
