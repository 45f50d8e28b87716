//! `/v1`: the current interface to the store and its network.

mod batch;
mod change;
mod history;
pub(crate) mod keyspaces;
mod kv;
mod leases;
mod list;
mod sse;
mod transaction;
mod watch;
mod watch_position;
#[cfg(test)]
mod tests;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Response};
use axum::routing::any;

use crate::problem::Problem;
use crate::response::{document, is_get};
use crate::state::{Gateway, Shared};
use crate::status;
use crate::store::Store;

/// Returns the routes of this module.
pub(crate) fn routes<S: Store>() -> Router<Shared<S>> {
    Router::new()
        .route("/v1/kv", any(list::serve::<S>))
        .route("/v1/batch", any(batch::serve::<S>))
        .route("/v1/txn", any(transaction::serve::<S>))
        .route(kv::PREFIX, any(kv::serve::<S>))
        .route("/v1/kv/{*key}", any(kv::serve::<S>))
        .route(change::INCREMENT, any(change::increment::<S>))
        .route("/v1/increment/{*key}", any(change::increment::<S>))
        .route(change::APPEND, any(change::append::<S>))
        .route("/v1/append/{*key}", any(change::append::<S>))
        .route("/v1/leases", any(leases::all::<S>))
        .route("/v1/leases/{id}", any(leases::one::<S>))
        .route("/v1/leases/{id}/keep", any(leases::keep::<S>))
        .route("/v1/history", any(history::serve::<S>))
        .route(watch::PATH, any(watch::serve::<S>))
        .route("/v1/keyspaces", any(keyspaces::serve::<S>))
        .route("/v1/status", any(network_status::<S>))
}

/// Whether the answer at a path goes on until its reader leaves.
pub(crate) fn is_stream(path: &str) -> bool {
    path == watch::PATH
}

/// `/v1/status`: what `dkv ADDRESS status --json` prints.
async fn network_status<S: Store>(
    gateway: Gateway<S>,
    method: Method,
) -> Result<Response<Body>, Problem> {
    if !is_get(&method) {
        return Err(Problem::method("GET, HEAD"));
    }
    let report = status::report(&gateway.store.status().await, &gateway.network);
    Ok(document("application/json", status::json(&report)))
}
