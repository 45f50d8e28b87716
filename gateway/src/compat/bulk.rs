//! `/set`, `/fetch` and `/query`: pairs of keys and values, as they were specified for a course in
//! 2017.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `PUT /set` | `[{"key":K,"value":V},…]` | `[{"keys_added":2,"keys_failed":[K,…]}]` |
//! | `POST /fetch` | `[K,…]` | `[{"key":K,"value":V},…]` |
//! | `GET /fetch` | | the same, of all pairs |
//! | `POST /query` | `[K,…]` | `[{"key":K,"value":true},…]` |
//!
//! `K` and `V` are `{"encoding":"string","data":…}` or `{"encoding":"binary","data":"0110"}`, and
//! the encoding is part of what a key is. Bodies are JSON whatever their content type. 200 says
//! that all went well, 206 that some keys did not: `/set` lists them, and `/fetch` has `null` for
//! the value of a key that is missing. One that could not be read has an `error` beside it. 400 is
//! for a body that is not of this form, 501 for an unknown path below these, 503 if no key could be
//! read.
//!
//! A key that `/set` calls failed may have been stored if the network was failing over.
//!
//! In the network the keys are `pairs/` with a letter for the encoding and the data.

mod format;
mod all;
mod by_key;
#[cfg(test)]
mod tests;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, Method, Request, Response, StatusCode};
use axum::routing::any;
use serde_json::json;

use crate::app::Gateway;
use crate::limits::{PAIRS_BODY_BYTES_MAX, PAIRS_KEYS_MAX, RETRY_AFTER_S};
use crate::store::Store;

/// The paths of this module.
pub(crate) fn routes<S: Store>() -> Router<Gateway<S>> {
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

async fn set<S: Store>(
    State(gateway): State<Gateway<S>>,
    request: Request<Body>,
) -> Response<Body> {
    if request.method() != Method::PUT {
        return method("PUT");
    }
    let done = async { by_key::set(&gateway, read(&gateway, request).await?).await };
    done.await.unwrap_or_else(|refused| refused)
}

async fn fetch<S: Store>(
    State(gateway): State<Gateway<S>>,
    request: Request<Body>,
) -> Response<Body> {
    let done = async {
        match *request.method() {
            Method::GET | Method::HEAD => all::fetch(&gateway).await,
            Method::POST => by_key::fetch(&gateway, read(&gateway, request).await?).await,
            _ => Err(method("GET, HEAD, POST")),
        }
    };
    done.await.unwrap_or_else(|refused| refused)
}

async fn query<S: Store>(
    State(gateway): State<Gateway<S>>,
    request: Request<Body>,
) -> Response<Body> {
    if request.method() != Method::POST {
        return method("POST");
    }
    let done = async { by_key::query(&gateway, read(&gateway, request).await?).await };
    done.await.unwrap_or_else(|refused| refused)
}

async fn unknown() -> Response<Body> {
    refuse(StatusCode::NOT_IMPLEMENTED, "there are /set, /fetch and /query, and nothing below them")
}

/// A body that is an array of items.
async fn read<S: Store, T: serde::de::DeserializeOwned>(
    gateway: &Gateway<S>,
    request: Request<Body>,
) -> Result<Vec<T>, Response<Body>> {
    let (head, body) = request.into_parts();
    let read = gateway.budget.read(&head, body, PAIRS_BODY_BYTES_MAX).await;
    let (body, _held) = read.map_err(|error| refuse(error.status(), &error.to_string()))?;
    let items: Vec<T> = serde_json::from_slice(&body).map_err(|error| {
        refuse(
            StatusCode::BAD_REQUEST,
            &format!("the body is not of the form that is needed: {error}"),
        )
    })?;
    if items.len() > PAIRS_KEYS_MAX {
        let why = format!("a request has at most {PAIRS_KEYS_MAX} keys");
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

/// A JSON error.
fn refuse(status: StatusCode, error: &str) -> Response<Body> {
    let mut response = answer(status, Body::from(json!({ "error": error }).to_string()));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
    }
    response
}

/// 200, or 206 if something is missing.
fn status(whole: bool) -> StatusCode {
    if whole { StatusCode::OK } else { StatusCode::PARTIAL_CONTENT }
}

fn answer(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
