//! Endpoints for monitoring: `/metrics`, `/v1/traffic`, `/livez` and `/readyz`; and the description
//! of the interface at `/openapi.json`.

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Response};
use axum::routing::any;
use dkv_api::{Error, ReadOptions};

use crate::limits::READY_TIMEOUT;
use crate::metrics::{self, Exposition};
use crate::problem::Problem;
use crate::response::{get_document, is_get};
use crate::state::{Gateway, Shared};
use crate::store::Store;

/// The key read to check whether the network serves; it need not exist.
pub(crate) const READY_KEY: &[u8] = b"readyz";

/// The path of the metrics, among which those of a node tell how many keys each shard has.
pub(crate) const METRICS: &str = "/metrics";

/// Returns the routes of this module.
pub(crate) fn routes<S: Store>() -> Router<Shared<S>> {
    Router::new()
        .route(METRICS, any(expose::<S>))
        .route("/v1/traffic", any(traffic::<S>))
        .route("/openapi.json", any(interface))
        .route("/livez", any(live))
        .route("/readyz", any(ready::<S>))
}

async fn expose<S: Store>(gateway: Gateway<S>, method: Method) -> Result<Response<Body>, Problem> {
    if !is_get(&method) {
        return Err(Problem::method("GET, HEAD"));
    }
    let mut text = Exposition::default();
    gateway.metrics.expose(&mut text);
    if let Some(extra) = &gateway.extra_metrics {
        extra(&mut text);
    }
    Ok(metrics::answer(text))
}

async fn traffic<S: Store>(gateway: Gateway<S>, method: Method) -> Result<Response<Body>, Problem> {
    get_document(&method, "application/json", gateway.metrics.traffic().to_string())
}

async fn interface(method: Method) -> Result<Response<Body>, Problem> {
    get_document(&method, "application/json", include_str!("openapi.json"))
}

/// `/livez`: the process serves, whatever the state of the network.
pub(crate) async fn live(method: Method) -> Result<Response<Body>, Problem> {
    get_document(&method, "text/plain; charset=utf-8", "ok\n")
}

/// `/readyz`: the network answers a strong read.
async fn ready<S: Store>(gateway: Gateway<S>, method: Method) -> Result<Response<Body>, Problem> {
    if !is_get(&method) {
        return Err(Problem::method("GET, HEAD"));
    }
    let options = ReadOptions::default().timeout(READY_TIMEOUT);
    match gateway.store.read(READY_KEY, options).await {
        Ok(_) | Err(Error::NotFound { .. }) => {
            get_document(&method, "text/plain; charset=utf-8", "ready\n")
        }
        Err(error) => Err(Problem::from_error(error, false)),
    }
}

#[cfg(test)]
mod tests;
