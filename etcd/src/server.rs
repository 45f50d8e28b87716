//! The listener: one port for gRPC, JSON and monitoring, with TLS, bounds and an orderly stop.

mod callers;
mod running;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use dkv_base::slots::BusyFlag;
use dkv_listener::host_name::HostName;
use dkv_listener::same_origin::{AcceptedNames, ForeignRequest, Head, add_protection};
use dkv_listener::tls::{self, FileError};
use dkv_listener::{Bounds, is_loopback};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode, Version, header};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use self::callers::Callers;
use self::running::{RequestBody, Running};
use crate::args::Args;
use crate::auth::Asker;
use crate::budget::Budget;
use crate::error::EtcdError;
use crate::etcd::Etcd;
use crate::grpc::{self, Services, direct};
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
    names: AcceptedNames,
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
        Ok(Self { listener, address, tls, asks_certificate, names: names(address, &args.etcd_url) })
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
        self.serve_face(FaceOfNetwork { etcd, services }, budget, stop).await;
    }

    async fn serve_face(self, face: impl Face, budget: Budget, stop: impl Future<Output = ()>) {
        let names = self.names;
        let serving = Serving { builder: builder(), face, budget, names, tls: self.tls };
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

/// Returns the names under which browsers may ask a listener. Programs may use any other one too:
/// the URLs are for the list of members.
fn names(address: SocketAddr, urls: &[String]) -> AcceptedNames {
    let host = |url: &String| {
        let authority = url.split_once("://")?.1.split('/').next()?;
        HostName::parse(authority).ok()
    };
    let given = urls.iter().filter_map(host).collect();
    AcceptedNames { address, given, only_given: false, needs_token: false }
}

/// What a listener serves. Tests serve something else.
trait Face: Send + Sync + 'static {
    /// Answers a request.
    fn answer(
        &self,
        request: Request<RequestBody<Incoming>>,
    ) -> impl Future<Output = Response<Body>> + Send + 'static;

    /// Returns who asks, as far as it is known at once.
    fn asker(&self, token: Option<&str>, certificate_name: Option<&str>) -> Asker;
}

/// The face of a network.
struct FaceOfNetwork {
    etcd: Etcd,
    services: Services,
}

impl Face for FaceOfNetwork {
    fn answer(
        &self,
        request: Request<RequestBody<Incoming>>,
    ) -> impl Future<Output = Response<Body>> + Send + 'static {
        answer(self.etcd.clone(), self.services.clone(), request)
    }

    fn asker(&self, token: Option<&str>, certificate_name: Option<&str>) -> Asker {
        self.etcd.asker(token, certificate_name)
    }
}

/// The state that all connections share.
struct Serving<F> {
    builder: Builder<TokioExecutor>,
    face: F,
    /// What callers have together.
    budget: Budget,
    names: AcceptedNames,
    tls: Option<TlsAcceptor>,
}

impl<F: Face> Serving<F> {
    /// Serves an accepted stream, after the TLS handshake if there is one.
    async fn serve_stream(&self, stream: TcpStream, slot: BusyFlag, stop: watch::Receiver<()>) {
        // It has gone already if it has no address.
        let Ok(address) = stream.peer_addr() else { return };
        let address = address.ip();
        let Some(tls) = &self.tls else {
            return self.serve_connection(stream, address, Peer::default(), slot, stop).await;
        };
        if let Some(stream) = tls::handshake(tls, stream).await {
            let peer = Peer { certificate_name: tls::common_name(stream.get_ref().1) };
            self.serve_connection(stream, address, peer, slot, stop).await;
        }
    }

    /// Serves a connection until it ends or must stop. Then it answers the requests in progress and
    /// takes no others. An idle one may stay: clients of etcd keep theirs, and pings find out
    /// whether the peer is there.
    async fn serve_connection(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        address: IpAddr,
        peer: Peer,
        slot: BusyFlag,
        mut stop: watch::Receiver<()>,
    ) {
        let running = Running::new(CONNECTION_REQUESTS_MAX, slot);
        let callers = Callers::new(&self.budget, address);
        let service = service_fn(|mut request: Request<Incoming>| {
            let is_grpc = is_grpc(&request);
            let answer = match self.refusal(&request) {
                Some(refusal) => Err(refusal),
                None => {
                    let asker = |token: Option<&str>| {
                        self.face.asker(token, peer.certificate_name.as_deref())
                    };
                    let shares = callers.shares(request.headers(), asker);
                    running.begin(shares).ok_or_else(|| too_many(is_grpc))
                }
            };
            let answer = answer.map(|begun| {
                request.extensions_mut().insert(peer.clone());
                request.extensions_mut().insert(begun.bytes());
                // The usual methods are found without a look through all of them.
                let is_one = direct::method_of(&request).is_some()
                    || !grpc::takes_many(request.uri().path());
                let request = request.map(|body| begun.request_body(body, is_one));
                (begun, self.face.answer(request))
            });
            async move {
                let mut answer = match answer {
                    Ok((begun, answer)) => answer.await.map(|body| boxed(begun.body(body))),
                    Err(refusal) => refusal,
                };
                if !is_grpc {
                    add_protection(answer.headers_mut());
                }
                Ok::<_, Infallible>(answer)
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
            () = running.overdue() => Err("the peer reads its answers too slowly".into()),
        };
        if let Err(error) = ended {
            debug!(error, "a connection ended");
        }
    }

    /// Refuses the requests of pages in browsers, before it reads anything else of them. A page of
    /// any origin could otherwise write to a face on loopback, or read what it says of itself.
    fn refusal<B>(&self, request: &Request<B>) -> Option<Response<Body>> {
        if request.headers().contains_key(header::ORIGIN) {
            let text = "pages of browsers may not ask\n";
            return Some(json::answer::plain(StatusCode::FORBIDDEN, text));
        }
        if request.version() == Version::HTTP_2 && !has_fetch_site(request.headers()) {
            // Browsers speak it over TLS only, where a false name has no certificate. Clients of
            // etcd have names of their own making.
            return None;
        }
        let head = Head {
            method: request.method(),
            uri: request.uri(),
            version: request.version(),
            headers: request.headers(),
        };
        let foreign = self.names.check(&head).err()?;
        let text = match &foreign {
            ForeignRequest::Name(name) => format!(
                "this face does not answer to the name {name:?}; use {}, or start it with \
                 --etcd-url http://NAME:PORT\n",
                self.names.address
            ),
            other => format!("{other}\n"),
        };
        Some(json::answer::plain(foreign.status(), text))
    }
}

fn has_fetch_site(headers: &HeaderMap) -> bool {
    headers.contains_key("sec-fetch-site")
}

/// Answers a request of whichever kind.
async fn answer(
    etcd: Etcd,
    mut services: Services,
    request: Request<RequestBody<Incoming>>,
) -> Response<Body> {
    if let Some(method) = direct::method_of(&request) {
        return direct::call(etcd, method, request).await;
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
fn too_many(is_grpc: bool) -> Response<Body> {
    let error = EtcdError::REQUEST_TOO_MANY_REQUESTS;
    if is_grpc { grpc::refusal(error) } else { json::answer::failure(&error) }
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
