//! The application: all routes, behind the checks that every request passes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use dkv_api::Client;
use dkv_base::supervise::again;
use futures::future::{BoxFuture, FutureExt};
use tokio::sync::watch;

use crate::access::{self, Access, Tokens};
use crate::args::Args;
use crate::compat::{bulk, kvs};
use crate::metrics::{self, Metrics};
use crate::page::{self, Broadcaster};
use crate::response::fallback;
use crate::state::{ExtraMetrics, Gateway, Shared};
use crate::store::Store;
use crate::{monitoring, request_headers, v1};

/// Time between two updates of the deny list in a gateway that verifies tokens.
const DENY_LIST_INTERVAL: Duration = Duration::from_secs(5);

/// The options of a gateway, beside its store.
#[derive(Clone)]
pub struct Options {
    /// Address of the network's server, as the operator gave it; shown in the status.
    pub network: String,
    /// Who may ask.
    pub access: Access,
    /// Metrics of the process around the gateway.
    pub extra_metrics: Option<ExtraMetrics>,
}

/// Starts to sample the network for the page; called again if the task panics.
pub(crate) type StartSampling = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// The routes of a gateway, with what the listener needs to know about them.
#[derive(Clone)]
pub struct App {
    pub(crate) router: Router,
    pub(crate) metrics: Arc<Metrics>,
    /// Ends the answers that go on until their reader leaves, once it is true.
    pub(crate) stopping: watch::Sender<bool>,
    /// Sends news to open pages, and gathers the news; `None` if there is no page.
    pub(crate) page: Option<(Arc<Broadcaster>, StartSampling)>,
}

impl App {
    /// Creates the gateway of a store.
    pub fn new<S: Store>(store: S, options: Options) -> Self {
        let Options { network, access, extra_metrics } = options;
        let gateway = Gateway::new(store, &network, extra_metrics);
        let metrics = Arc::clone(&gateway.metrics);
        let stopping = gateway.stopping.clone();
        let broadcaster = Arc::<Broadcaster>::default();
        let (sampled, news) = (gateway.clone(), Arc::clone(&broadcaster));
        let start: StartSampling = Arc::new(move || {
            let Gateway { store, network, metrics, .. } = sampled.clone();
            page::sample(Arc::clone(&news), store, network, metrics).boxed()
        });
        let is_stream = |path: &str| page::is_stream(path) || v1::is_stream(path);
        let is_of_network = |path: &str| page::is_stream(path) || path == monitoring::METRICS;
        let is_public = page::is_file;
        let guard = access::AccessGuard { access, is_public, is_of_network, is_stream };
        let router = Router::new()
            .merge(v1::routes())
            .merge(kvs::routes())
            .merge(bulk::routes())
            .merge(monitoring::routes())
            .merge(page::routes(Arc::clone(&broadcaster)))
            .fallback(fallback)
            .layer(from_fn_with_state(guard, access::check))
            .with_state(Shared::from(gateway));
        Self { page: Some((broadcaster, start)), stopping, ..Self::of(router, metrics) }
    }

    /// Returns the router, for callers with connections of another kind.
    pub fn into_router(self) -> Router {
        self.router
    }

    /// Wraps routes in the checks that need no gateway behind them.
    pub(crate) fn of(router: Router, metrics: Arc<Metrics>) -> Self {
        let router = router.layer(from_fn(request_headers::check));
        let router = router.layer(from_fn_with_state(Arc::clone(&metrics), metrics::count));
        Self { router, metrics, stopping: watch::Sender::new(false), page: None }
    }
}

/// Creates an instance of `/kvs` without a store, which forwards requests to the one at `main`.
pub fn forwarder(main: SocketAddr) -> App {
    App::of(kvs::forwarding_routes(main), Arc::default())
}

/// The client has not loaded the certificate of its network's authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot verify tokens: the certificate of the network's authority is missing")]
pub struct NoAuthority;

/// Decides who may ask a gateway at an address, by its command line. Tokens are those of the
/// client's network. Where they are required, this spawns the task that updates the deny list.
///
/// # Errors
/// [`NoAuthority`].
pub fn access(client: &Client, args: &Args, address: SocketAddr) -> Result<Access, NoAuthority> {
    if !args.needs_token(address) {
        return Ok(Access::Anybody);
    }
    let verifier = client.verifier().ok_or(NoAuthority)?;
    let list = client.clone();
    let tokens = Tokens::new(verifier, Arc::new(move |holder| list.is_denied(holder)));
    let tokens = Arc::new(tokens);
    let (asking, used) = (client.clone(), Arc::clone(&tokens));
    // An idle client never refreshes, and would go on accepting revoked tokens.
    tokio::spawn(async move {
        let ask = async || loop {
            let _ = asking.refresh().await;
            let seen = used.take_seen();
            if !seen.is_empty() {
                // Feeds a list for people; without the server it lags a little.
                let _ = asking.report_bearers_seen(seen).await;
            }
            tokio::time::sleep(DENY_LIST_INTERVAL).await;
        };
        again("the task that updates the deny list", ask).await
    });
    Ok(Access::Tokens(tokens))
}
