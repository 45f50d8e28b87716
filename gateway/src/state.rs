//! The state that all handlers share.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use dkv_api::User;
use tokio::sync::{Semaphore, watch};

use crate::body::Budget;
use crate::limits::{LISTS_AT_ONCE, WATCHES_MAX};
use crate::metrics::{Exposition, Metrics};
use crate::store::Store;

/// Adds metrics of the process around the gateway to `/metrics`.
pub type ExtraMetrics = Arc<dyn Fn(&mut Exposition) + Send + Sync>;

/// A gateway: its store, and the bounds that all requests share.
#[derive(Clone)]
pub(crate) struct Gateway<S> {
    pub(crate) store: S,
    /// The keyspace of the store, if the request names one.
    pub(crate) keyspace: Option<Arc<str>>,
    /// Address of the network's server, as the operator gave it.
    pub(crate) network: Arc<str>,
    pub(crate) budget: Budget,
    /// Limits the list pages in progress.
    pub(crate) lists: Arc<Semaphore>,
    /// Limits the watches in progress.
    pub(crate) watches: Arc<Semaphore>,
    /// Becomes true when the gateway stops.
    pub(crate) stopping: watch::Sender<bool>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) extra_metrics: Option<ExtraMetrics>,
}

/// The gateway, as the router holds it: handlers only get it for the caller of their request.
#[derive(Clone)]
pub(crate) struct Shared<S>(Gateway<S>);

impl<S: Store> Shared<S> {
    /// Returns the gateway for the caller of a request: if its token names a user, each request to
    /// the store is made for that user.
    pub(crate) fn for_caller(&self, parts: &Parts) -> Gateway<S> {
        let Self(gateway) = self;
        match parts.extensions.get::<User>() {
            Some(user) => Gateway { store: gateway.store.acting_for(*user), ..gateway.clone() },
            None => gateway.clone(),
        }
    }
}

impl<S> From<Gateway<S>> for Shared<S> {
    fn from(gateway: Gateway<S>) -> Self {
        Self(gateway)
    }
}

impl<S: Store> FromRequestParts<Shared<S>> for Gateway<S> {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared<S>) -> Result<Self, Infallible> {
        Ok(shared.for_caller(parts))
    }
}

impl<S> Gateway<S> {
    pub(crate) fn new(store: S, network: &str, extra_metrics: Option<ExtraMetrics>) -> Self {
        Self {
            store,
            keyspace: None,
            network: network.into(),
            budget: Budget::default(),
            lists: Arc::new(Semaphore::new(LISTS_AT_ONCE)),
            watches: Arc::new(Semaphore::new(WATCHES_MAX)),
            stopping: watch::Sender::new(false),
            metrics: Arc::default(),
            extra_metrics,
        }
    }
}
