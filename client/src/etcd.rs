//! etcd's interface, as `gateway` and `local` serve it.

use std::net::SocketAddr;

use dkv_api::{Client, ClientBuilder};
use dkv_console::Console;
use dkv_console::problem::Problem;
use dkv_etcd::{Args, Etcd, ListenError, Listener};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// etcd's interface while it is served.
pub(crate) struct ServedEtcd {
    /// Its address.
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

/// Binds its address, if there is one.
pub(crate) async fn bind(args: &Args) -> Result<Option<Listener>, Problem> {
    let Some(address) = args.etcd else { return Ok(None) };
    match Listener::bind(address, args).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error @ ListenError::Plain(_)) => Err(Problem::usage(error.to_string())),
        Err(error) => Err(Problem::failed(error.to_string())),
    }
}

/// Serves it, and prints its address. `founder` connects to the network of `client`, as an
/// administrator if the keyspace has to be created.
pub(crate) async fn serve(
    listener: Listener,
    args: &Args,
    client: Client,
    founder: ClientBuilder,
    console: &mut Console,
) -> Result<ServedEtcd, Problem> {
    let etcd = Etcd::new(client, args.options(listener.url(), founder));
    // It is tried again at each request, and may come to exist.
    if let Err(error) = etcd.store().await {
        console.note(error.message().trim_start_matches("etcdserver: "));
    }
    if listener.is_open() {
        console
            .note(&format!("anyone who can connect to {} may read and write", listener.address()));
    }
    console
        .line(&format!("etcd {}", listener.address()))
        .map_err(|error| Problem::failed(format!("cannot write to standard output: {error}")))?;
    let address = listener.address();
    let (stop, stopped) = oneshot::channel();
    let serving = tokio::spawn(listener.serve(etcd, async { drop(stopped.await) }));
    Ok(ServedEtcd { address, stop, serving })
}

impl ServedEtcd {
    /// Waits until it ends although nobody has stopped it; returns what to tell.
    pub(crate) async fn ended(&mut self) -> Problem {
        let why = match (&mut self.serving).await {
            Ok(()) => "it has stopped".to_owned(),
            Err(error) => error.to_string(),
        };
        Problem::failed(format!(
            "etcd's interface is no longer served: {why}; this is a bug in dkv"
        ))
    }

    /// Stops, after the requests in progress.
    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        if !self.serving.is_finished() {
            let _ = self.serving.await;
        }
    }
}

/// Waits until etcd's interface ends by itself, for good if none is served.
pub(crate) async fn ended(etcd: Option<&mut ServedEtcd>) -> Problem {
    match etcd {
        Some(etcd) => etcd.ended().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_end_that_nobody_asked_for_is_noticed() {
        let (stop, _) = oneshot::channel();
        let serving = tokio::spawn(async { panic!("planted") });
        let mut etcd = ServedEtcd { address: ([127, 0, 0, 1], 0).into(), stop, serving };
        let problem = ended(Some(&mut etcd)).await;
        assert!(problem.message.contains("no longer served"), "{problem:?}");
        etcd.stop().await;
    }
}
