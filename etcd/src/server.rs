//! The listener: one port for gRPC, JSON and monitoring, with TLS, bounds and an orderly stop.

mod running;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use dkv_base::slots::BusyFlag;
use dkv_listener::tls::{self, FileError};
use dkv_listener::{Bounds, is_loopback};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use self::running::{RequestBody, Running};
use crate::args::Args;
use crate::budget::Budget;
use crate::error::EtcdError;
use crate::etcd::Etcd;
use crate::grpc::{self, Services};
use crate::http::{Body, Peer, boxed};
use crate::json;
use crate::limits::{
    CONNECTION_REQUESTS_MAX, CONNECTION_WINDOW_BYTES, CONNECTIONS_MAX, HEAD_BYTES_MAX,
    HEAD_TIMEOUT, PENDING_RESETS_MAX, PING_EVERY, PING_TIMEOUT, SEND_BUFFER_BYTES, STOP_TIMEOUT,
    STREAM_WINDOW_BYTES,
};
use crate::monitoring;

/// Why a listener cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is reached from other machines, where traffic could be overheard, and no option
    /// allows that.
    #[error(
        "{0} is reached from other machines: give a certificate for etcd's interface with \
         --etcd-tls-cert and --etcd-tls-key, or serve it in the open with --etcd-without-tls"
    )]
    Plain(SocketAddr),
    /// The address cannot be bound.
    #[error("cannot serve etcd's interface on {address}: {source}")]
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
    /// Whether clients need a certificate.
    asks_certificate: bool,
}

impl Listener {
    /// Binds an address. One that other machines reach needs TLS, unless `args` say otherwise.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub async fn bind(address: SocketAddr, args: &Args) -> Result<Self, ListenError> {
        let tls = match (&args.etcd_tls_cert, &args.etcd_tls_key) {
            (Some(certificate), Some(key)) => {
                Some(tls::acceptor(certificate, key, args.etcd_client_ca.as_deref())?)
            }
            _ if is_loopback(address) || args.etcd_without_tls => None,
            _ => return Err(ListenError::Plain(address)),
        };
        let fail = |source| ListenError::Bind { address, source };
        let (listener, address) = dkv_listener::bind(address).await.map_err(fail)?;
        let asks_certificate = args.etcd_client_ca.is_some();
        Ok(Self { listener, address, tls, asks_certificate })
    }

    /// Returns the address, with the actual port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns whether other machines reach it, and no certificate is asked for.
    pub fn is_open(&self) -> bool {
        !self.asks_certificate && !is_loopback(self.address)
    }

    /// Returns the URL of the address.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Serves until `stop` completes, then lets the requests in progress finish.
    pub async fn serve(self, etcd: Etcd, stop: impl Future<Output = ()>) {
        let services = grpc::services(&etcd);
        let budget = Budget::default();
        let serving = Serving { builder: builder(), etcd, services, budget, tls: self.tls };
        let serving = Arc::new(serving);
        let bounds = Bounds { connections_max: CONNECTIONS_MAX, stop_timeout: STOP_TIMEOUT };
        let serve = |stream, slot, stop| {
            let serving = Arc::clone(&serving);
            async move { serving.serve_stream(stream, slot, stop).await }
        };
        let what = "etcd's interface";
        dkv_listener::serve(what, self.listener, bounds, stop, || {}, serve).await;
    }
}

/// The state that all connections share.
struct Serving {
    builder: Builder<TokioExecutor>,
    etcd: Etcd,
    services: Services,
    /// Bytes that requests in progress may have.
    budget: Budget,
    tls: Option<TlsAcceptor>,
}

impl Serving {
    /// Serves an accepted stream, after the TLS handshake if there is one.
    async fn serve_stream(&self, stream: TcpStream, slot: BusyFlag, stop: watch::Receiver<()>) {
        let Some(tls) = &self.tls else {
            return self.serve_connection(stream, Peer::default(), slot, stop).await;
        };
        if let Some(stream) = tls::handshake(tls, stream).await {
            let peer = Peer { certificate_name: tls::common_name(stream.get_ref().1) };
            self.serve_connection(stream, peer, slot, stop).await;
        }
    }

    /// Serves a connection until it ends or must stop. Then it answers the requests in progress and
    /// takes no others. An idle one may stay: clients of etcd keep theirs, and pings find out
    /// whether the peer is there.
    async fn serve_connection(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Peer,
        slot: BusyFlag,
        mut stop: watch::Receiver<()>,
    ) {
        let running = Running::new(CONNECTION_REQUESTS_MAX, slot, self.budget.clone());
        let service = service_fn(|mut request: Request<Incoming>| {
            let begun = running.begin();
            let (etcd, services) = (self.etcd.clone(), self.services.clone());
            request.extensions_mut().insert(peer.clone());
            async move {
                let Some(begun) = begun else {
                    return Ok::<_, Infallible>(too_many(&request));
                };
                request.extensions_mut().insert(begun.bytes());
                let request = request.map(|body| begun.request_body(body));
                let answer = answer(etcd, services, request).await;
                Ok(answer.map(|body| boxed(begun.body(body))))
            }
        });
        let connection = self.builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => ended,
            _ = stop.changed() => {
                connection.as_mut().graceful_shutdown();
                let ending = tokio::time::timeout(STOP_TIMEOUT, connection).await;
                ending.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            debug!(error, "a connection ended");
        }
    }
}

/// Answers a request of whichever kind.
async fn answer(
    etcd: Etcd,
    mut services: Services,
    request: Request<RequestBody<Incoming>>,
) -> Response<Body> {
    // Only browsers send it. A page of any origin could otherwise write to a face on loopback.
    if request.headers().contains_key(header::ORIGIN) {
        return json::answer::plain(StatusCode::FORBIDDEN, "pages of browsers may not ask\n");
    }
    if is_grpc(&request) {
        return services.call(request).await;
    }
    let path = request.uri().path();
    if let Some(method) = json::method_at(path) {
        return json::call(etcd, method, request).await;
    }
    match monitoring::at_path(&etcd, path).await {
        Some(answer) => answer,
        // As each of etcd's two servers says it.
        None if path.starts_with("/v3/") => {
            json::answer::plain(StatusCode::NOT_FOUND, "Not Found\n")
        }
        None => json::answer::plain(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

fn is_grpc<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Refuses a request of a connection that has too many in progress.
fn too_many<B>(request: &Request<B>) -> Response<Body> {
    let error = EtcdError::REQUEST_TOO_MANY_REQUESTS;
    if is_grpc(request) { grpc::refusal(error) } else { json::answer::failure(&error) }
}

/// Configures HTTP/1 and HTTP/2 with their bounds.
fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        // A client may open as many streams as it likes; `Running` refuses what is too much.
        .max_concurrent_streams(None)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_header_list_size(HEAD_BYTES_MAX as u32);
    builder
}
