//! For whoever watches: `/metrics` for Prometheus, `/v1/traffic` for the page, and the page itself.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, Method, Response};
use axum::response::IntoResponse;
use axum::routing::any;

use crate::app::Gateway;
use crate::metrics::{self, Exposition};
use crate::problem::Problem;
use crate::store::Store;

/// What the page may load: its own two files, and what it asks this gateway.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
                      connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// The paths of this module.
pub(crate) fn routes<S: Store>() -> Router<Gateway<S>> {
    Router::new()
        .route("/metrics", any(figures::<S>))
        .route("/v1/traffic", any(traffic::<S>))
        .route("/", any(page))
        .route("/page.css", any(style))
        .route("/page.js", any(script))
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

async fn page(method: Method) -> Response<Body> {
    file(&method, "text/html; charset=utf-8", include_str!("page/page.html"))
}

async fn style(method: Method) -> Response<Body> {
    file(&method, "text/css; charset=utf-8", include_str!("page/page.css"))
}

async fn script(method: Method) -> Response<Body> {
    file(&method, "text/javascript; charset=utf-8", include_str!("page/page.js"))
}

async fn interface(method: Method) -> Response<Body> {
    file(&method, "application/json", include_str!("openapi.json"))
}

fn is_get(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

fn file(method: &Method, kind: &'static str, body: impl Into<Body>) -> Response<Body> {
    if !is_get(method) {
        return Problem::method("GET, HEAD").into_response();
    }
    let mut response = Response::new(body.into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
