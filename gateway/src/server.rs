//! Listening: connections, their bounds, and a stop in good order.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::{debug, info, warn};

use crate::idle::Watched;
use crate::limits::{
    CONNECTIONS_MAX, HEAD_BYTES_MAX, HEAD_TIMEOUT, HEADERS_MAX, IDLE_TIMEOUT, PING_EVERY,
    PING_TIMEOUT, STOP_TIMEOUT, STREAMS_MAX,
};

/// Time that accepting waits after it failed, which is for want of files as a rule.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Anybody who reaches the address could read and write, and nobody has said that they may.
    #[error(
        "{0} is reached from other machines, and HTTP has no authentication here: listen on \
         127.0.0.1, or let anybody read and write with --without-authentication"
    )]
    Open(SocketAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What is wrong.
        source: io::Error,
    },
}

/// A bound address, of which nothing is served yet.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds an address. One that other machines reach needs to be `open` to anybody.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub async fn bind(address: SocketAddr, open: bool) -> Result<Self, ListenError> {
        if !open && !address.ip().to_canonical().is_loopback() {
            return Err(ListenError::Open(address));
        }
        let fail = |source| ListenError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` completes; then lets the requests under way finish.
    pub async fn serve(self, app: Router, stop: impl Future<Output = ()>) {
        let builder = Arc::new(builder());
        let graceful = GracefulShutdown::new();
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepting = async {
                let slot = slots.clone().acquire_owned().await;
                (slot, self.listener.accept().await)
            };
            let (slot, accepted) = tokio::select! {
                biased;
                () = &mut stop => break,
                accepted = accepting => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "cannot accept");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            };
            // It only makes answers slower if this fails.
            let _ = stream.set_nodelay(true);
            let watcher = graceful.watcher();
            let (builder, service) = (builder.clone(), TowerToHyperService::new(app.clone()));
            tokio::spawn(async move {
                let io = TokioIo::new(Watched::new(stream, IDLE_TIMEOUT));
                let connection = builder.serve_connection(io, service);
                if let Err(error) = watcher.watch(connection).await {
                    debug!(error, "a connection has ended");
                }
                drop(slot);
            });
        }
        drop(self.listener);
        info!(connections = graceful.count(), "stopping");
        if tokio::time::timeout(STOP_TIMEOUT, graceful.shutdown()).await.is_err() {
            warn!("requests were still under way");
        }
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32);
    builder
}
