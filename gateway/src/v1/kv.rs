//! `/v1/kv/{key}`: reads, writes and deletes one key.

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_TYPE, ETAG, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode};
use dkv_api::{
    Condition, Error, Level, Lifetime, Reach, Receipt, Value, ValueAt, WriteOptions, Written,
};

use super::keyspaces::Keyspaced;
use crate::limits::{QUERY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::percent;
use crate::preconditions::{self, ReadOutcome, ReadPreconditions, WriteCondition};
use crate::problem::Problem;
use crate::query::{self, PutQuery, QueryError, ReadQuery};
use crate::receipt;
use crate::state::Gateway;
use crate::store::Store;

/// The part of a path before the key.
pub(super) const PREFIX: &str = "/v1/kv/";

/// Answers a request for a key.
pub(super) async fn serve<S: Store>(
    Keyspaced(gateway): Keyspaced<S>,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    let (head, body) = request.into_parts();
    match head.method {
        Method::GET | Method::HEAD => get(&gateway, &head).await,
        Method::PUT => put(&gateway, &head, body).await,
        Method::DELETE => delete(&gateway, &head).await,
        _ => Err(Problem::method("GET, HEAD, PUT, DELETE")),
    }
}

fn key_of(head: &Parts) -> Result<Vec<u8>, Problem> {
    key_after(PREFIX, head)
}

/// Returns the key, which is the rest of the path after `prefix`.
pub(super) fn key_after(prefix: &str, head: &Parts) -> Result<Vec<u8>, Problem> {
    if head.uri.query().is_some_and(|query| query.len() > QUERY_BYTES_MAX) {
        return Err(Problem::invalid(QueryError::TooLong.to_string()));
    }
    let raw = head.uri.path().strip_prefix(prefix).unwrap_or_default();
    let key = percent::decode(raw.as_bytes());
    let key = key.map_err(|error| Problem::invalid(error.to_string()))?;
    if key.is_empty() {
        return Err(Problem::invalid("a key must have at least one byte"));
    }
    Ok(key.into_owned())
}

async fn get<S: Store>(gateway: &Gateway<S>, head: &Parts) -> Result<Response<Body>, Problem> {
    let key = key_of(head)?;
    let query = ReadQuery::parse(head.uri.query())?;
    let preconditions = ReadPreconditions::parse(&head.headers)?;
    let read = match query.revision {
        None => gateway.store.read(&key, query.options()).await,
        Some(revision) => gateway.store.read_at(&key, revision).await.map(of_revision),
    };
    let current = read.as_ref().ok().map(|value| value.receipt.revision);
    let value = match (read, preconditions.evaluate(current)) {
        (Err(Error::NotFound { receipt }), ReadOutcome::Failed) => {
            return Err(Problem::precondition(None, Some(receipt)));
        }
        (Err(error), _) => return Err(Problem::from_error(error, false)),
        (Ok(value), ReadOutcome::Failed) => {
            return Err(Problem::precondition(current, Some(value.receipt)));
        }
        (Ok(value), ReadOutcome::NotModified) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            insert_metadata(&mut response, &value.receipt);
            return Ok(response);
        }
        (Ok(value), ReadOutcome::Serve) => value,
    };
    let body = gateway.budget.answer(value.value);
    let mut response =
        Response::new(body.map_err(|error| Problem::unavailable(error.to_string()))?);
    let octets = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(CONTENT_TYPE, octets);
    // A value may be anything, even a page with scripts; browsers must not guess its type.
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response.headers_mut().insert(ACCEPT_RANGES, HeaderValue::from_static("none"));
    insert_metadata(&mut response, &value.receipt);
    if query.ttl {
        // A key that is gone by now has no time left.
        match gateway.store.ttl(&key).await {
            Ok(lifetime) => receipt::insert_lifetime(response.headers_mut(), &lifetime),
            Err(Error::NotFound { .. }) => {
                let (ttl, remaining) = Default::default();
                let ended = Lifetime::Ttl { ttl, remaining };
                receipt::insert_lifetime(response.headers_mut(), &ended);
            }
            Err(error) => return Err(Problem::from_error(error, false)),
        }
    }
    Ok(response)
}

/// Converts the result of a read at a revision. The receipt of such a read is of the revision that
/// was asked for.
fn of_revision(read: ValueAt) -> Value {
    let ValueAt { value, revision, receipt, .. } = read;
    Value { value, receipt: Receipt { revision, ..receipt }, reach: Reach::default() }
}

async fn put<S: Store>(
    gateway: &Gateway<S>,
    head: &Parts,
    body: Body,
) -> Result<Response<Body>, Problem> {
    let key = key_of(head)?;
    let PutQuery { level, attach } = PutQuery::parse(head.uri.query())?;
    if key.len() > dkv_wire::limits::KEY_BYTES_MAX {
        let (bytes, limit) = (key.len() as u64, dkv_wire::limits::KEY_BYTES_MAX as u64);
        let error = Error::TooLarge { what: "key".into(), bytes, limit };
        return Err(Problem::from_error(error, false));
    }
    let mut options = options_of(head, level)?;
    options.attach = attach;
    let read = gateway.budget.read(head, body, VALUE_BYTES_MAX).await;
    let (value, _held) = read.map_err(Problem::of_body)?;
    let written = gateway.store.write(&key, value, options).await;
    let Written { receipt, existed } = written.map_err(|error| problem_of(error, options))?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = written_status(&receipt, existed);
    insert_metadata(&mut response, &receipt);
    Ok(response)
}

async fn delete<S: Store>(gateway: &Gateway<S>, head: &Parts) -> Result<Response<Body>, Problem> {
    let key = key_of(head)?;
    let level = query::delete_level(head.uri.query())?;
    let options = options_of(head, level)?;
    let deleted = gateway.store.delete(&key, options).await;
    let Written { receipt, .. } = deleted.map_err(|error| problem_of(error, options))?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = written_status(&receipt, true);
    receipt::insert(response.headers_mut(), &receipt);
    Ok(response)
}

fn options_of(head: &Parts, level: Level) -> Result<WriteOptions, Problem> {
    match preconditions::for_write(&head.headers)? {
        WriteCondition::If(condition) => {
            Ok(WriteOptions::default().level(level).condition(condition))
        }
        WriteCondition::Never => Err(Problem::precondition(None, None)),
    }
}

fn problem_of(error: Error, options: WriteOptions) -> Problem {
    Problem::from_error(error, options.condition != Condition::Always)
}

/// The status of a write: 201 or 204, or 202 for an eventual write that is not ordered yet.
pub(super) fn written_status(receipt: &Receipt, existed: bool) -> StatusCode {
    match (receipt.pending, existed) {
        (Some(_), _) => StatusCode::ACCEPTED,
        (None, true) => StatusCode::NO_CONTENT,
        (None, false) => StatusCode::CREATED,
    }
}

/// Inserts the receipt and the entity tag, and makes caches revalidate each time.
pub(super) fn insert_metadata(response: &mut Response<Body>, receipt: &Receipt) {
    let headers = response.headers_mut();
    receipt::insert(headers, receipt);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // A write that is not ordered yet has no revision, and so no tag.
    if receipt.pending.is_none()
        && let Ok(tag) = HeaderValue::from_str(&preconditions::entity_tag(receipt.revision))
    {
        headers.insert(ETAG, tag);
    }
}
