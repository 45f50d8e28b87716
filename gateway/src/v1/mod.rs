//! `/v1`: the store and its network, as programs of today ask for them; and the two questions that
//! whoever runs the gateway asks.

mod batch;
mod kv;
mod list;
#[cfg(test)]
mod tests;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, Method, Request, Response};
use axum::response::IntoResponse;
use axum::routing::any;
use dkv_api::{Error, ReadOptions};

use crate::app::Gateway;
use crate::limits::READY_TIMEOUT;
use crate::problem::Problem;
use crate::status;
use crate::store::Store;

/// The key that is read to see whether the network serves; it need not exist.
pub(crate) const READY_KEY: &[u8] = b"readyz";

/// The paths of this module.
pub(crate) fn routes<S: Store>() -> Router<Gateway<S>> {
    Router::new()
        .route("/v1/kv", any(list::serve::<S>))
        .route("/v1/batch", any(batch::serve::<S>))
        .route(kv::PREFIX, any(kv::serve::<S>))
        .route("/v1/kv/{*key}", any(kv::serve::<S>))
        .route("/v1/status", any(network_status::<S>))
        .route("/livez", any(lives))
        .route("/readyz", any(ready::<S>))
}

/// `/livez`: the process serves, whatever becomes of the network.
pub(crate) async fn lives(request: Request<Body>) -> Response<Body> {
    if !is_get(&request) {
        return Problem::method("GET, HEAD").into_response();
    }
    document("text/plain; charset=utf-8", "ok\n")
}

/// `/readyz`: the network answers a strong read.
async fn ready<S: Store>(
    State(gateway): State<Gateway<S>>,
    request: Request<Body>,
) -> Response<Body> {
    if !is_get(&request) {
        return Problem::method("GET, HEAD").into_response();
    }
    let options = ReadOptions::default().timeout(READY_TIMEOUT);
    match gateway.store.read(READY_KEY, options).await {
        Ok(_) | Err(Error::NotFound { .. }) => document("text/plain; charset=utf-8", "ready\n"),
        Err(error) => Problem::from_error(error, false).into_response(),
    }
}

/// `/v1/status`: what `dkv ADDRESS status --json` prints.
async fn network_status<S: Store>(
    State(gateway): State<Gateway<S>>,
    request: Request<Body>,
) -> Response<Body> {
    if !is_get(&request) {
        return Problem::method("GET, HEAD").into_response();
    }
    let report = status::report(&gateway.store.status().await, &gateway.network);
    document("application/json", status::json(&report))
}

fn is_get(request: &Request<Body>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD)
}

fn document(kind: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
