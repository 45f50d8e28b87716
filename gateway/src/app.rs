//! All paths of the gateway, and what their handlers share.

use std::sync::Arc;

use axum::Router;
use axum::response::IntoResponse;

use crate::body::Budget;
use crate::problem::Problem;
use crate::store::Store;
use crate::{kvs, pairs, v1};

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Gateway<S> {
    pub(crate) store: S,
    /// Where the network's server is, as it was given.
    pub(crate) network: Arc<str>,
    pub(crate) budget: Budget,
}

/// The gateway of a store. `network` is where the network's server is, for the status.
pub fn router<S: Store>(store: S, network: &str) -> Router {
    let gateway = Gateway { store, network: network.into(), budget: Budget::default() };
    Router::new()
        .merge(v1::routes())
        .merge(kvs::routes())
        .merge(pairs::routes())
        .fallback(async || Problem::no_such_path().into_response())
        .with_state(gateway)
}
