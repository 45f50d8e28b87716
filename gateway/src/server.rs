//! The listener: connections, TLS, their bounds, and an orderly stop.

mod activity;
mod byte_counter;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::http::Request;
use axum::middleware::from_fn_with_state;
use dkv_base::slots::BusyFlag;
use dkv_base::supervise::again;
use dkv_listener::same_origin::AcceptedNames;
use dkv_listener::tls::{self, FileError};
use dkv_listener::{Bounds, is_loopback};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use self::activity::Activity;
use self::byte_counter::CountedStream;
use crate::app::App;
use crate::args::Args;
use crate::denials::CameFrom;
use crate::limits::{
    ANSWER_PIECE_BYTES, CONNECTIONS_MAX, HEAD_BYTES_MAX, HEAD_TIMEOUT, HEADERS_MAX, IDLE_TIMEOUT,
    PING_EVERY, PING_TIMEOUT, STOP_TIMEOUT, STREAMS_MAX,
};
use crate::metrics::Metrics;
use crate::same_origin::{self, OriginGuard, accepted_names};

/// Why a listener cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is reached from other machines, where traffic and tokens could be overheard, and
    /// no option allows that.
    #[error(
        "{0} is reached from other machines: give a certificate with --tls-cert and --tls-key (or \
         --without-tls, if a proxy in front terminates TLS), or let anyone read and write with \
         --without-authentication"
    )]
    Plain(SocketAddr),
    /// The address cannot be bound.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
    /// A file for TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] FileError),
}

/// A bound address that does not serve yet.
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    names: Arc<AcceptedNames>,
    connections_max: usize,
}

impl Listener {
    /// Binds an address. One that other machines reach needs TLS, unless `args` say otherwise.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub async fn bind(address: SocketAddr, args: &Args) -> Result<Self, ListenError> {
        let tls = match (&args.tls_cert, &args.tls_key) {
            (Some(certificate), Some(key)) => Some(tls::acceptor(certificate, key, None)?),
            // Without authentication there is no secret to overhear.
            _ if is_loopback(address) || args.without_tls || args.without_authentication => None,
            _ => return Err(ListenError::Plain(address)),
        };
        let fail = |source| ListenError::Bind { address, source };
        let (listener, address) = dkv_listener::bind(address).await.map_err(fail)?;
        let names = Arc::new(accepted_names(address, args));
        Ok(Self { listener, address, tls, names, connections_max: CONNECTIONS_MAX })
    }

    /// Returns the address, with the actual port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` completes, then lets the requests in progress finish.
    ///
    /// The protection against other origins is added here, so that nothing is served without it.
    pub async fn serve(self, mut app: App, stop: impl Future<Output = ()>) {
        let guard = OriginGuard { names: self.names, metrics: Arc::clone(&app.metrics) };
        app.router = app.router.layer(from_fn_with_state(guard, same_origin::check));
        let page = app.page.take();
        let streams = app.stopping.clone();
        // Dropping the set ends the task.
        let mut sampling = JoinSet::new();
        if let Some((_, start)) = &page {
            let start = Arc::clone(start);
            sampling
                .spawn(async move { again("the task that samples the network", || start()).await });
        }
        let serving = Arc::new(Serving { builder: builder(), app, tls: self.tls });
        let bounds = Bounds { connections_max: self.connections_max, stop_timeout: STOP_TIMEOUT };
        let stopping = || {
            drop(sampling);
            if let Some((broadcaster, _)) = page {
                broadcaster.end();
            }
            streams.send_replace(true);
        };
        let serve = |stream, slot, stop| {
            let serving = Arc::clone(&serving);
            async move {
                let counted = CountedConnection::new(&serving.app.metrics);
                serving.serve_stream(stream, slot, stop).await;
                drop(counted);
            }
        };
        dkv_listener::serve("the gateway", self.listener, bounds, stop, stopping, serve).await;
    }
}

/// The state that all connections share.
struct Serving {
    builder: Builder<TokioExecutor>,
    app: App,
    tls: Option<TlsAcceptor>,
}

impl Serving {
    /// Serves an accepted stream, after the TLS handshake if there is one.
    async fn serve_stream(&self, stream: TcpStream, slot: BusyFlag, stop: watch::Receiver<()>) {
        let came_from = stream.peer_addr().ok();
        let stream = CountedStream::new(stream, Arc::clone(&self.app.metrics));
        let Some(tls) = &self.tls else {
            return self.serve_connection(stream, came_from, Some(slot), stop).await;
        };
        if let Some(stream) = tls::handshake(tls, stream).await {
            self.serve_connection(stream, came_from, Some(slot), stop).await;
        }
    }

    /// Serves a connection until it ends, is idle, or must stop. In the last two cases it answers
    /// the requests in progress and takes no others.
    async fn serve_connection(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        came_from: Option<SocketAddr>,
        slot: Option<BusyFlag>,
        mut stop: watch::Receiver<()>,
    ) {
        let router = TowerToHyperService::new(self.app.router.clone());
        let activity = Activity::new(slot);
        let service = service_fn(|mut request: Request<Incoming>| {
            if let Some(address) = came_from {
                request.extensions_mut().insert(CameFrom(address));
            }
            let running = activity.begin_request();
            let answer = router.call(request.map(|body| running.body(body)));
            async move { answer.await.map(|answer| answer.map(|body| running.body(body))) }
        });
        let connection = self.builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => Ok(ended),
            _ = stop.changed() => Err("requests were still in progress"),
            () = activity.idle(IDLE_TIMEOUT) => Err("the peer did not read its answers"),
        };
        let ended = match ended {
            Ok(ended) => ended,
            Err(why) => {
                connection.as_mut().graceful_shutdown();
                let ending = tokio::time::timeout(STOP_TIMEOUT, connection).await;
                ending.unwrap_or_else(|_| Err(why.into()))
            }
        };
        if let Err(error) = ended {
            debug!(error, "a connection ended");
        }
    }
}

/// Counts a connection as open, until this is dropped.
struct CountedConnection<'a>(&'a Metrics);

impl<'a> CountedConnection<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.accepted();
        Self(metrics)
    }
}

impl Drop for CountedConnection<'_> {
    fn drop(&mut self) {
        self.0.ended();
    }
}

/// Configures HTTP/1 and HTTP/2 with their bounds.
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
        .max_send_buf_size(ANSWER_PIECE_BYTES)
        .max_header_list_size(HEAD_BYTES_MAX as u32);
    builder
}
