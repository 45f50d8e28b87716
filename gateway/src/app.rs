//! All paths of the gateway, and what their handlers share.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::IntoResponse;
use dkv_api::Client;
use dkv_base::supervise::again;
use futures::future::{BoxFuture, FutureExt};
use tokio::sync::Semaphore;

use crate::access::{self, Access, Tokens};
use crate::args::Args;
use crate::body::Budget;
use crate::limits::LISTS_AT_ONCE;
use crate::metrics::{self, Exposition, Metrics};
use crate::page::{self, Hub};
use crate::problem::Problem;
use crate::store::Store;
use crate::{fields, kvs, pairs, v1, watch};

/// How often a gateway that judges tokens asks for the deny list.
const DENIED_EVERY: Duration = Duration::from_secs(5);

/// Figures of whatever else the process is, for `/metrics`.
pub type Figures = Arc<dyn Fn(&mut Exposition) + Send + Sync>;

/// What a gateway is told besides its store.
#[derive(Clone)]
pub struct Options {
    /// Where the network's server is, as it was given, for the status.
    pub network: String,
    /// Who may ask.
    pub access: Access,
    /// More figures.
    pub figures: Option<Figures>,
}

/// Begins to look at the network for the page, anew each time.
pub(crate) type Watch = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// What is served.
#[derive(Clone)]
pub struct App {
    pub(crate) router: Router,
    pub(crate) metrics: Arc<Metrics>,
    /// What pages are told, and who finds it out; of a gateway without pages there is none.
    pub(crate) page: Option<(Arc<Hub>, Watch)>,
}

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Gateway<S> {
    pub(crate) store: S,
    /// Where the network's server is, as it was given.
    pub(crate) network: Arc<str>,
    pub(crate) budget: Budget,
    /// Turns to make a page of a list.
    pub(crate) lists: Arc<Semaphore>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) figures: Option<Figures>,
    /// What pages are told.
    pub(crate) hub: Arc<Hub>,
}

impl App {
    /// The gateway of a store.
    pub fn new<S: Store>(store: S, options: Options) -> Self {
        let Options { network, access, figures } = options;
        let metrics = Arc::new(Metrics::default());
        let gateway = Gateway {
            store,
            network: network.into(),
            budget: Budget::default(),
            lists: Arc::new(Semaphore::new(LISTS_AT_ONCE)),
            metrics: Arc::clone(&metrics),
            figures,
            hub: Arc::default(),
        };
        let watching = gateway.clone();
        let watch: Watch = Arc::new(move || {
            let Gateway { hub, store, network, metrics, .. } = watching.clone();
            page::run(hub, store, network, metrics).boxed()
        });
        let page = Some((Arc::clone(&gateway.hub), watch));
        let router = Router::new()
            .merge(v1::routes())
            .merge(kvs::routes())
            .merge(pairs::routes())
            .merge(watch::routes())
            .merge(page::routes())
            .fallback(async || Problem::no_such_path().into_response())
            .layer(from_fn_with_state(access, access::check))
            .with_state(gateway);
        Self { page, ..Self::of(router, metrics) }
    }

    /// The service behind all paths, for who has connections of another kind.
    pub fn into_router(self) -> Router {
        self.router
    }

    /// Paths of another kind, for anybody.
    pub(crate) fn of(router: Router, metrics: Arc<Metrics>) -> Self {
        let router = router.layer(from_fn(fields::check));
        let router = router.layer(from_fn_with_state(Arc::clone(&metrics), metrics::count));
        Self { router, metrics, page: None }
    }
}

/// Who may ask a gateway at that address, by what its command line says. Tokens are those of the
/// client's network.
///
/// # Errors
/// What is wrong, in one line.
pub fn access(
    client: &Client,
    args: &Args,
    address: std::net::SocketAddr,
) -> Result<Access, String> {
    if !args.asks_for_tokens(address) {
        return Ok(Access::Anybody);
    }
    let verifier = client.verifier().ok_or("the certificate of the network is not there")?;
    let list = client.clone();
    let tokens = Tokens::new(verifier, Arc::new(move |holder| list.is_denied(holder)));
    let tokens = Arc::new(tokens);
    let (asking, shown) = (client.clone(), Arc::clone(&tokens));
    // A client that is content asks nobody for news.
    tokio::spawn(async move {
        // Without it, who was revoked would go on.
        let ask = async || loop {
            let _ = asking.refresh().await;
            let seen = shown.take_seen();
            if !seen.is_empty() {
                // It is for a list that people read; without the server it is a little behind.
                let _ = asking.report_bearers_seen(seen).await;
            }
            tokio::time::sleep(DENIED_EVERY).await;
        };
        again("the task that asks who was revoked", ask).await
    });
    Ok(Access::Tokens(tokens))
}
