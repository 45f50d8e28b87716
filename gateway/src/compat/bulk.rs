//! `/set`, `/fetch` and `/query`: pairs of keys and values in bulk, as specified for a course in
//! 2017.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `PUT /set` | `[{"key":K,"value":V},…]` | `[{"keys_added":2,"keys_failed":[K,…]}]` |
//! | `POST /fetch` | `[K,…]` | `[{"key":K,"value":V},…]` |
//! | `GET /fetch` | | the same, for all pairs |
//! | `POST /query` | `[K,…]` | `[{"key":K,"value":true},…]` |
//!
//! `K` and `V` are `{"encoding":"string","data":…}` or `{"encoding":"binary","data":"0110"}`; the
//! encoding is part of a key's identity. Bodies are JSON whatever their content type. The answer is
//! 200 if all keys succeeded, and 206 if some did not: `/set` lists them, and `/fetch` has `null`
//! for the value of a missing key. A key that could not be read has an `error` beside it. A
//! malformed body gets 400, an unknown path below these 501, and a request that could read no key
//! 503.
//!
//! A key that `/set` reports as failed may have been stored if the network was failing over.
//!
//! In the network a key is `pairs/`, a letter for the encoding, and the data.

mod format;
mod all;
mod by_key;
#[cfg(test)]
mod tests;

use axum::Router;
use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, Method, Request, Response, StatusCode};
use axum::routing::any;
use serde_json::json;

use crate::limits::{BULK_BODY_BYTES_MAX, BULK_KEYS_MAX, RETRY_AFTER_S};
use crate::state::{Gateway, Shared};
use crate::store::Store;

/// Returns the routes of this module.
pub(crate) fn routes<S: Store>() -> Router<Shared<S>> {
    let mut routes = Router::new()
        .route("/set", any(set::<S>))
        .route("/fetch", any(fetch::<S>))
        .route("/query", any(query::<S>));
    for name in ["/set", "/fetch", "/query"] {
        for below in ["/", "/{*rest}"] {
            routes = routes.route(&format!("{name}{below}"), any(unknown));
        }
    }
    routes
}

async fn set<S: Store>(gateway: Gateway<S>, request: Request<Body>) -> Response<Body> {
    if request.method() != Method::PUT {
        return method("PUT");
    }
    let done = async { by_key::set(&gateway, read(&gateway, request).await?).await };
    done.await.unwrap_or_else(|refused| refused)
}

async fn fetch<S: Store>(gateway: Gateway<S>, request: Request<Body>) -> Response<Body> {
    let done = async {
        match *request.method() {
            Method::GET | Method::HEAD => all::fetch(&gateway).await,
            Method::POST => by_key::fetch(&gateway, read(&gateway, request).await?).await,
            _ => Err(method("GET, HEAD, POST")),
        }
    };
    done.await.unwrap_or_else(|refused| refused)
}

async fn query<S: Store>(gateway: Gateway<S>, request: Request<Body>) -> Response<Body> {
    if request.method() != Method::POST {
        return method("POST");
    }
    let done = async { by_key::query(&gateway, read(&gateway, request).await?).await };
    done.await.unwrap_or_else(|refused| refused)
}

async fn unknown() -> Response<Body> {
    refuse(StatusCode::NOT_IMPLEMENTED, "this path does not exist; use /set, /fetch or /query")
}

/// Reads a body that is an array of items.
async fn read<S: Store, T: serde::de::DeserializeOwned>(
    gateway: &Gateway<S>,
    request: Request<Body>,
) -> Result<Vec<T>, Response<Body>> {
    let (head, body) = request.into_parts();
    let read = gateway.budget.read(&head, body, BULK_BODY_BYTES_MAX).await;
    let (body, _reservation) = read.map_err(|error| refuse(error.status(), &error.to_string()))?;
    let items: Vec<T> = serde_json::from_slice(&body).map_err(|error| {
        refuse(
            StatusCode::BAD_REQUEST,
            &format!("the body does not have the required form: {error}"),
        )
    })?;
    if items.len() > BULK_KEYS_MAX {
        let why = format!("a request has at most {BULK_KEYS_MAX} keys");
        return Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, &why));
    }
    Ok(items)
}

fn method(allowed: &'static str) -> Response<Body> {
    let mut response =
        refuse(StatusCode::METHOD_NOT_ALLOWED, &format!("method not allowed; use {allowed}"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

/// A refusal, as a JSON object.
fn refuse(status: StatusCode, error: &str) -> Response<Body> {
    let mut response = answer(status, Body::from(json!({ "error": error }).to_string()));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
    }
    response
}

/// Returns 200, or 206 if a key failed.
fn status(is_complete: bool) -> StatusCode {
    if is_complete { StatusCode::OK } else { StatusCode::PARTIAL_CONTENT }
}

fn answer(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
