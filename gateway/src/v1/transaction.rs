//! `POST /v1/txn`: compares keys, and executes one of two lists of operations as a whole.
//!
//! The body is that of [`crate::transaction_json`]. A condition that does not hold is an answer
//! like any other if the transaction says what to do then, and a conflict if it does not.

#[cfg(test)]
mod tests;

use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use dkv_api::{Error, Transacted, Transaction};
use serde_json::{Map, Value, json};

use super::keyspaces::Keyspaced;
use crate::body::{Caller, ResponseParts};
use crate::limits::TRANSACTION_BODY_BYTES_MAX;
use crate::problem::Problem;
use crate::response::document;
use crate::state::Gateway;
use crate::store::Store;
use crate::transaction_json::{self, ParsedTransaction, TransactionJsonError};
use crate::{query, receipt};

/// Executes a transaction.
pub(super) async fn serve<S: Store>(
    Keyspaced(gateway): Keyspaced<S>,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    if request.method() != Method::POST {
        return Err(Problem::method("POST"));
    }
    query::expect_none(request.uri().query())?;
    let (head, body) = request.into_parts();
    let read = gateway.budget.read(&head, body, TRANSACTION_BODY_BYTES_MAX).await;
    let (body, held) = read.map_err(Problem::of_body)?;
    let parsed = transaction_json::parse(&body).map_err(malformed)?;
    drop(body);
    let ParsedTransaction { transaction, has_else, encoding } = parsed;
    let reads = |then| transaction.operations(then).iter().all(|operation| operation.is_read());
    if Caller::is_read_only() && !(reads(true) && reads(false)) {
        let why = "this token is read-only, and the transaction has operations that write";
        return Err(Problem::new(StatusCode::FORBIDDEN, "read-only", why));
    }
    let done = execute(&gateway, transaction.clone()).await?;
    drop(held);
    let Transacted { succeeded, changed, results, receipt, parts } = &done;
    if !succeeded && !has_else {
        let why = "the transaction was not executed: a condition does not hold, and it has no else";
        return Err(Problem::new(StatusCode::CONFLICT, "conflict", why).with_receipt(*receipt));
    }
    let mut head = Map::new();
    head.insert("branch".into(), transaction_json::branch(*succeeded).into());
    head.insert("changed".into(), (*changed).into());
    head.insert("revision".into(), receipt.revision.0.into());
    head.insert("shard".into(), receipt.shard.0.into());
    let parts =
        parts.iter().map(|part| json!({ "shard": part.shard.0, "not_before": part.not_before.0 }));
    head.insert("parts".into(), parts.collect());
    let head = Value::from(head).to_string();
    let mut answer = ResponseParts::default();
    answer.push(format!("{},\"results\":", head.trim_end_matches('}')));
    let operations = transaction.operations(*succeeded);
    let results = results
        .as_ref()
        .map(|results| transaction_json::results(operations, results, encoding).to_string());
    match results.map(Bytes::from).map(|text| (gateway.budget.reserve(text.len()), text)) {
        None => answer.push("null"),
        Some((Ok(room), text)) => answer.push_reserved(text, room),
        // The transaction stands, so the answer reports it all the same.
        Some((Err(_), _)) if *changed => answer.push("null"),
        Some((Err(error), _)) => return Err(Problem::unavailable(error.to_string())),
    }
    answer.push("}");
    let mut response = document("application/json", answer.into_body());
    receipt::insert(response.headers_mut(), receipt);
    Ok(response)
}

/// Executes a transaction in the store.
pub(super) async fn execute<S: Store>(
    gateway: &Gateway<S>,
    transaction: Transaction,
) -> Result<Transacted, Problem> {
    let done = gateway.store.transact(transaction).await;
    done.map_err(|error| match error {
        // The key is not in the target of the request, which 414 would be about.
        Error::TooLarge { .. } => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "transaction-too-large", error.to_string())
        }
        other => Problem::from_error(other, false),
    })
}

fn malformed(error: TransactionJsonError) -> Problem {
    let why = error.to_string();
    match error {
        TransactionJsonError::TooMany { .. } => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-many-operations", why)
        }
        _ => Problem::invalid(why),
    }
}
