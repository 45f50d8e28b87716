//! The listener: one port for gRPC, JSON and monitoring, with TLS, bounds and an orderly stop.

mod running;
mod tls;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dkv_base::slots::{BusyFlag, Slot, Slots};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use self::running::{RequestBody, Running};
pub use self::tls::TlsError;
use crate::args::Args;
use crate::error::EtcdError;
use crate::etcd::Etcd;
use crate::grpc::{self, Services};
use crate::http::{Body, Peer, boxed};
use crate::json;
use crate::limits::{
    CONNECTION_REQUESTS_MAX, CONNECTION_WINDOW_BYTES, CONNECTIONS_MAX, HANDSHAKE_TIMEOUT,
    HEAD_BYTES_MAX, HEAD_TIMEOUT, PENDING_RESETS_MAX, PING_EVERY, PING_TIMEOUT, REQUESTS_BYTES_MAX,
    SEND_BUFFER_BYTES, STOP_TIMEOUT, STREAM_WINDOW_BYTES,
};
use crate::monitoring;

/// Time between two attempts to find a slot while all are busy.
const SLOT_RETRY: Duration = Duration::from_millis(20);
/// Pause after a failure to accept, which usually means that the process has too many open files.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

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
    #[error("cannot use {} for TLS: {source}", .path.display())]
    Tls {
        /// Path of the file.
        path: PathBuf,
        /// The error in the file.
        source: TlsError,
    },
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
            _ if address.ip().to_canonical().is_loopback() || args.etcd_without_tls => None,
            _ => return Err(ListenError::Plain(address)),
        };
        let fail = |source| ListenError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        let asks_certificate = args.etcd_client_ca.is_some();
        Ok(Self { listener, address, tls, asks_certificate })
    }

    /// Returns the address, with the actual port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns whether other machines reach it, and no certificate is asked for.
    pub fn is_open(&self) -> bool {
        !self.asks_certificate && !self.address.ip().to_canonical().is_loopback()
    }

    /// Returns the URL of the address.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Serves until `stop` completes, then lets the requests in progress finish.
    pub async fn serve(self, etcd: Etcd, stop: impl Future<Output = ()>) {
        let services = grpc::services(&etcd);
        let bytes = Arc::new(Semaphore::new(REQUESTS_BYTES_MAX));
        let serving = Serving { builder: builder(), etcd, services, bytes, tls: self.tls };
        let serving = Arc::new(serving);
        let (stopping, _) = watch::channel(());
        let slots = Arc::new(Slots::new(CONNECTIONS_MAX, CONNECTIONS_MAX - CONNECTIONS_MAX / 4));
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepting = async {
                let (stream, peer) = self.listener.accept().await?;
                io::Result::Ok((stream, find_slot(&slots, peer).await))
            };
            let accepted = tokio::select! {
                biased;
                () = &mut stop => break,
                accepted = accepting => accepted,
            };
            let (stream, mut slot) = match accepted {
                Ok((stream, Some(slot))) => (stream, slot),
                Ok((_, None)) => continue,
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            };
            // A failure only makes answers slower.
            let _ = stream.set_nodelay(true);
            let (serving, stop) = (serving.clone(), stopping.subscribe());
            tokio::spawn(async move {
                let busy_flag = slot.busy_flag();
                tokio::select! {
                    biased;
                    () = serving.serve_stream(stream, busy_flag, stop) => {}
                    () = slot.lost() => debug!("an idle connection made room for another"),
                }
                drop(slot);
            });
        }
        drop(self.listener);
        info!(connections = stopping.receiver_count(), "etcd's interface stops");
        stopping.send_replace(());
        // Each connection holds a receiver until it ends.
        if tokio::time::timeout(STOP_TIMEOUT, stopping.closed()).await.is_err() {
            debug!("streams of etcd's interface were still open");
        }
    }
}

/// Finds a slot for a connection. `None` if its address has as many busy connections as it may. If
/// all slots are busy this waits, and further connections queue in the listener.
async fn find_slot(slots: &Arc<Slots>, peer: SocketAddr) -> Option<Slot> {
    loop {
        if let Some(slot) = slots.take(peer.ip()) {
            return Some(slot);
        }
        if slots.taken() < CONNECTIONS_MAX {
            debug!(%peer, "too many requests from one address are in progress");
            return None;
        }
        tokio::time::sleep(SLOT_RETRY).await;
    }
}

/// The state that all connections share.
struct Serving {
    builder: Builder<TokioExecutor>,
    etcd: Etcd,
    services: Services,
    /// Bytes that requests in progress may have.
    bytes: Arc<Semaphore>,
    tls: Option<TlsAcceptor>,
}

impl Serving {
    /// Serves an accepted stream, after the TLS handshake if there is one.
    async fn serve_stream(&self, stream: TcpStream, slot: BusyFlag, stop: watch::Receiver<()>) {
        let Some(tls) = &self.tls else {
            return self.serve_connection(stream, Peer::default(), slot, stop).await;
        };
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => {
                let peer = Peer { certificate_name: tls::common_name(stream.get_ref().1) };
                self.serve_connection(stream, peer, slot, stop).await
            }
            Ok(Err(error)) => debug!(%error, "the TLS handshake failed"),
            Err(_) => debug!("the TLS handshake took too long"),
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
        let running = Running::new(CONNECTION_REQUESTS_MAX, slot, Arc::clone(&self.bytes));
        let service = service_fn(|mut request: Request<Incoming>| {
            let begun = running.begin();
            let (etcd, services) = (self.etcd.clone(), self.services.clone());
            request.extensions_mut().insert(peer.clone());
            async move {
                let Some(begun) = begun else {
                    return Ok::<_, Infallible>(too_many(&request));
                };
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
    if is_grpc(&request) {
        return services.call(request).await;
    }
    // Only browsers send it. A page of any origin could otherwise write to a face on loopback.
    if request.headers().contains_key(header::ORIGIN) {
        return json::answer::plain(StatusCode::FORBIDDEN, "pages of browsers may not ask\n");
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
