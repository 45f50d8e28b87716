//! `POST /v1/increment/{key}` and `POST /v1/append/{key}`: change the value that a key has, exactly
//! once.

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode};
use dkv_api::{
    Compare, Condition, Error, OperationResult, Receipt, Relation, Revision, Transacted,
    Transaction, TransactionOperation, Version,
};

use super::keyspaces::Keyspaced;
use super::kv;
use crate::limits::VALUE_BYTES_MAX;
use crate::preconditions::{self, WriteCondition};
use crate::problem::{Effect, Problem};
use crate::query;
use crate::state::Gateway;
use crate::store::Store;

/// The part of a path before the key of an increment.
pub(super) const INCREMENT: &str = "/v1/increment/";
/// The part of a path before the key of an append.
pub(super) const APPEND: &str = "/v1/append/";

/// Adds to the number that is a key's value, and answers with the sum.
pub(super) async fn increment<S: Store>(
    Keyspaced(gateway): Keyspaced<S>,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    if request.method() != Method::POST {
        return Err(Problem::method("POST"));
    }
    let (head, body) = request.into_parts();
    let key = kv::key_after(INCREMENT, &head)?;
    let by = query::increment(head.uri.query())?;
    let condition = condition(&head)?;
    // A caller that sends a number as the body must not believe that it is added.
    let (body, _) = gateway.budget.read(&head, body, 1).await.map_err(|_| has_body())?;
    if !body.is_empty() {
        return Err(has_body());
    }
    let operation = TransactionOperation::increment(&key, by);
    let (version, receipt) = execute(&gateway, &key, operation, condition).await?;
    let sum = version.value.unwrap_or_default();
    let mut response = Response::new(Body::from(sum));
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    kv::insert_metadata(&mut response, &receipt);
    Ok(response)
}

/// Appends the body to a key's value.
pub(super) async fn append<S: Store>(
    Keyspaced(gateway): Keyspaced<S>,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    if request.method() != Method::POST {
        return Err(Problem::method("POST"));
    }
    let (head, body) = request.into_parts();
    let key = kv::key_after(APPEND, &head)?;
    query::expect_none(head.uri.query())?;
    let condition = condition(&head)?;
    let read = gateway.budget.read(&head, body, VALUE_BYTES_MAX).await;
    let (bytes, _held) = read.map_err(Problem::of_body)?;
    let operation = TransactionOperation::append(&key, bytes);
    let (version, receipt) = execute(&gateway, &key, operation, condition).await?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = kv::written_status(&receipt, version.version > 1);
    kv::insert_metadata(&mut response, &receipt);
    Ok(response)
}

fn has_body() -> Problem {
    Problem::invalid("an increment takes no body; give the number to add as by")
}

fn condition(head: &Parts) -> Result<Condition, Problem> {
    match preconditions::for_write(&head.headers)? {
        WriteCondition::If(condition) => Ok(condition),
        WriteCondition::Never => Err(Problem::precondition(None, None)),
    }
}

/// Executes one operation under a condition; returns the new version.
async fn execute<S: Store>(
    gateway: &Gateway<S>,
    key: &[u8],
    operation: TransactionOperation,
    condition: Condition,
) -> Result<(Version, Receipt), Problem> {
    let mut transaction = Transaction::new().then(operation);
    let compare = match condition {
        Condition::Always => None,
        Condition::Absent => Some(Compare::absent(key)),
        Condition::Present => Some(Compare::exists(key)),
        Condition::Revision(revision) => Some(Compare::revision(key, Relation::Equal, revision)),
    };
    if let Some(compare) = compare {
        transaction = transaction.when(compare).otherwise(TransactionOperation::get(key));
    }
    let done = gateway.store.transact(transaction).await;
    let Transacted { succeeded, results, receipt, .. } = done.map_err(|error| match error {
        Error::Unfit { why, .. } => {
            Problem::new(StatusCode::CONFLICT, "unfit", format!("nothing was changed: {why}"))
        }
        other => Problem::from_error(other, false),
    })?;
    match (succeeded, results.and_then(|results| results.into_iter().next())) {
        (true, Some(OperationResult::Changed(version))) => Ok((version, receipt)),
        (true, _) => {
            let status = StatusCode::GATEWAY_TIMEOUT;
            let why = "it was done, but its result is no longer in the history of the shard";
            let mut problem = Problem::new(status, "result-forgotten", why).with_receipt(receipt);
            problem.effect = Effect::Done;
            Err(problem)
        }
        (false, found) => {
            let current: Option<Revision> = match found {
                Some(OperationResult::Got(Some(version))) => Some(version.revision),
                _ => None,
            };
            Err(Problem::precondition(current, Some(receipt)))
        }
    }
}
