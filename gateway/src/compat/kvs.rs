//! `/kvs/{key}`: a store of text values under short keys, as specified for a course in 2017.
//!
//! | request | answer |
//! |---|---|
//! | `PUT`, form field `val` | 201 `{"replaced":0,"msg":"success"}`, or 200 with 1 if the key existed |
//! | `GET` | 200 `{"msg":"success","value":…}`, or 404 `{"msg":"error","error":"key does not exist"}` |
//! | `DELETE` | 200 `{"msg":"success"}`, or the same 404 |
//! | any, while the store is down | 404 `{"msg":"error","error":"service is not available"}` |
//!
//! A key is 1 to 250 of `[a-zA-Z0-9_]`, a value a text of at most 1.5 MiB. Everything else is a 4xx
//! with `"msg":"error"`. An instance has a store behind it or, with [`forwarding_routes`], another
//! instance. The key `key` of `/kvs` is `kvs/key` in the network.
//!
//! The specification has no answer for a write whose outcome is unknown; such a write gets the 404
//! too. A caller that must tell the two apart uses `/v1`.

mod forward;
mod reply;
#[cfg(test)]
mod tests;

use axum::Router;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Method, Request, Response, StatusCode};
use axum::response::IntoResponse;
use axum::routing::any;
use dkv_api::{Error, ReadOptions, WriteOptions};

pub(crate) use self::forward::forwarding_routes;
use self::reply::Reply;
use crate::body::BodyError;
use crate::limits::{KVS_FORM_BYTES_MAX, KVS_KEY_BYTES_MAX, KVS_VALUE_BYTES_MAX};
use crate::percent;
use crate::state::{Gateway, Shared};
use crate::store::Store;

/// The part of a path before the key.
const PREFIX: &str = "/kvs/";

/// Returns the routes of this module.
pub(crate) fn routes<S: Store>() -> Router<Shared<S>> {
    Router::new()
        .route("/kvs", any(serve::<S>))
        .route(PREFIX, any(serve::<S>))
        .route("/kvs/{*key}", any(serve::<S>))
}

async fn serve<S: Store>(gateway: Gateway<S>, request: Request<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    answer(&gateway, &head, body).await.unwrap_or_else(|reply| reply).into_response()
}

/// Answers a request; errors are replies too.
async fn answer<S: Store>(gateway: &Gateway<S>, head: &Parts, body: Body) -> Result<Reply, Reply> {
    if !matches!(head.method, Method::GET | Method::HEAD | Method::PUT | Method::DELETE) {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        return Err(Reply::error(status, "the method must be PUT, GET or DELETE"));
    }
    let key = stored_key(head.uri.path())?;
    match head.method {
        Method::PUT => {
            let read = gateway.budget.read(head, body, KVS_FORM_BYTES_MAX).await;
            let (form, _reservation) = read.map_err(refuse_body)?;
            let value = value_of(&form)?;
            let written = gateway.store.write(&key, value.into(), WriteOptions::default()).await;
            Ok(Reply::written(written.map_err(refuse)?.existed))
        }
        Method::DELETE => {
            let deleted = gateway.store.delete(&key, WriteOptions::default()).await;
            deleted.map(|_| Reply::deleted()).map_err(refuse)
        }
        _ => {
            let read = gateway.store.read(&key, ReadOptions::default()).await.map_err(refuse)?;
            let Ok(text) = String::from_utf8(read.value.into()) else {
                let status = StatusCode::NOT_ACCEPTABLE;
                return Err(Reply::error(
                    status,
                    "the value is not text, and was not stored by /kvs",
                ));
            };
            Ok(Reply::value(text))
        }
    }
}

/// Returns the key of a path, as stored in the network.
fn stored_key(path: &str) -> Result<Vec<u8>, Reply> {
    let invalid = |why: &str| Reply::error(StatusCode::BAD_REQUEST, why);
    let raw = path.strip_prefix(PREFIX).unwrap_or_default();
    let key = percent::decode(raw.as_bytes()).map_err(|error| invalid(&error.to_string()))?;
    if key.is_empty() || key.len() > KVS_KEY_BYTES_MAX {
        return Err(invalid("a key must have 1 to 250 characters"));
    }
    if !key.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') {
        return Err(invalid("a key may contain only letters, digits and _"));
    }
    Ok([b"kvs/", key.as_ref()].concat())
}

/// Returns the value in a form.
fn value_of(form: &[u8]) -> Result<Vec<u8>, Reply> {
    let Some(value) = percent::form_field(form, b"val") else {
        let why = "the form field val is missing; send it as in curl -d val=bart";
        return Err(Reply::error(StatusCode::BAD_REQUEST, why));
    };
    if value.len() > KVS_VALUE_BYTES_MAX {
        let why = format!("the value is over the limit of {KVS_VALUE_BYTES_MAX} bytes");
        return Err(Reply::error(StatusCode::PAYLOAD_TOO_LARGE, why));
    }
    if std::str::from_utf8(&value).is_err() {
        return Err(Reply::error(StatusCode::BAD_REQUEST, "the value is not UTF-8"));
    }
    Ok(value)
}

fn refuse_body(error: BodyError) -> Reply {
    match error {
        BodyError::NoRoom => Reply::unavailable(),
        error => Reply::error(error.status(), error.to_string()),
    }
}

fn refuse(error: Error) -> Reply {
    match error {
        Error::NotFound { .. } => Reply::no_such_key(),
        Error::Unavailable(_) | Error::Unknown(_) | Error::Incomplete { .. } => {
            Reply::unavailable()
        }
        Error::TooLarge { .. } => Reply::error(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
        Error::Denied(_) => Reply::error(StatusCode::FORBIDDEN, error.to_string()),
        Error::Conflict { .. } => Reply::error(StatusCode::CONFLICT, error.to_string()),
        Error::Invalid(_) => Reply::error(StatusCode::BAD_REQUEST, error.to_string()),
        other => Reply::error(StatusCode::INTERNAL_SERVER_ERROR, other.to_string()),
    }
}
