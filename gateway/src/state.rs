//! The state that all handlers share.

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

use crate::body::Budget;
use crate::limits::{LISTS_AT_ONCE, WATCHES_MAX};
use crate::metrics::{Exposition, Metrics};

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
