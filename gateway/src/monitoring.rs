//! For programs that watch: `/metrics` for Prometheus, `/v1/traffic`, and what the interface is.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, Method, Response};
use axum::response::IntoResponse;
use axum::routing::any;

use crate::app::Gateway;
use crate::metrics::{self, Exposition};
use crate::problem::Problem;
use crate::store::Store;

/// The paths of this module.
pub(crate) fn routes<S: Store>() -> Router<Gateway<S>> {
    Router::new()
        .route("/metrics", any(figures::<S>))
        .route("/v1/traffic", any(traffic::<S>))
        .route("/openapi.json", any(interface))
}

async fn figures<S: Store>(State(gateway): State<Gateway<S>>, method: Method) -> Response<Body> {
    if !is_get(&method) {
        return Problem::method("GET, HEAD").into_response();
    }
    let mut text = Exposition::default();
    gateway.metrics.expose(&mut text);
    if let Some(more) = &gateway.figures {
        more(&mut text);
    }
    metrics::answer(text)
}

async fn traffic<S: Store>(State(gateway): State<Gateway<S>>, method: Method) -> Response<Body> {
    if !is_get(&method) {
        return Problem::method("GET, HEAD").into_response();
    }
    file(&method, "application/json", gateway.metrics.traffic().to_string())
}

async fn interface(method: Method) -> Response<Body> {
    file(&method, "application/json", include_str!("openapi.json"))
}

fn is_get(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// A file that is part of the program.
pub(crate) fn file(method: &Method, kind: &'static str, body: impl Into<Body>) -> Response<Body> {
    if !is_get(method) {
        return Problem::method("GET, HEAD").into_response();
    }
    let mut response = Response::new(body.into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
