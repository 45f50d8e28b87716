//! etcd's interface in the process of a node: another client of the network, like HTTP.

use dkv_api::Client;
use dkv_base::supervise::caught;
use dkv_etcd::{Etcd, ListenError, Listener};
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

use crate::{Args, RETRY_INTERVAL, join};

/// Serves it from when the node serves until the process stops. A failure does not end the node: it
/// is logged, and the interface is served again.
pub(crate) async fn keep_serving(
    listener: Listener,
    args: Args,
    node: oneshot::Receiver<()>,
    mut stopped: watch::Receiver<bool>,
) {
    tokio::select! {
        // An error says that the node did not start.
        ready = node => if ready.is_err() { return },
        _ = stopped.wait_for(|stopped| *stopped) => return,
    }
    let mut next = Some(listener);
    loop {
        let listener = match (next.take(), args.etcd.etcd) {
            (Some(listener), _) => Ok(listener),
            (None, Some(address)) => Listener::bind(address, &args.etcd).await,
            (None, None) => return,
        };
        let why = match listener {
            Ok(listener) => match caught(serve(listener, &args, stopped.clone())).await {
                Ok(()) => return,
                Err(panicked) => format!("serving it {panicked}; this is a bug in dkv"),
            },
            Err(error) => error.to_string(),
        };
        if *stopped.borrow() {
            return;
        }
        warn!("etcd's interface is not served; trying again: {why}");
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

/// Serves it until the process stops.
async fn serve(listener: Listener, args: &Args, mut stopped: watch::Receiver<bool>) {
    let server = args.node.server.clone();
    let client = tokio::select! {
        client = join("etcd's interface", args, &server) => client,
        _ = stopped.wait_for(|stopped| *stopped) => return,
    };
    let founder = Client::builder().server(server);
    let etcd = Etcd::new(client.clone(), args.etcd.options(listener.url(), founder));
    if let Err(error) = etcd.store().await {
        info!("etcd's interface: {error}");
    }
    dkv_node::say(&format!("etcd {}", listener.address()));
    let stop = async move { drop(stopped.wait_for(|stopped| *stopped).await) };
    listener.serve(etcd, stop).await;
    client.close().await;
}

/// Binds its address, if there is one.
pub(crate) async fn bind(args: &Args) -> Result<Option<Listener>, ListenError> {
    match args.etcd.etcd {
        Some(address) => Listener::bind(address, &args.etcd).await.map(Some),
        None => Ok(None),
    }
}
