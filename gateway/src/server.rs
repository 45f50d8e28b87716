//! Listening: connections, TLS, their bounds, and a stop in good order.

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::http::Request;
use axum::middleware::from_fn_with_state;
use dkv_base::places::{Marker, Place, Places};
use dkv_base::supervise::again;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use crate::app::App;
use crate::args::{Args, is_loopback};
use crate::browser::{self, Guard, Names};
use crate::counting::Counting;
use crate::idle::Activity;
use crate::limits::{
    ANSWER_PIECE_BYTES, CONNECTIONS_MAX, FILES_MAX, HANDSHAKE_TIMEOUT, HEAD_BYTES_MAX,
    HEAD_TIMEOUT, HEADERS_MAX, IDLE_TIMEOUT, PING_EVERY, PING_TIMEOUT, STOP_TIMEOUT, STREAMS_MAX,
};
use crate::metrics::Metrics;

/// Time after which a place is looked for again when all are busy.
const PLACE_AGAIN: Duration = Duration::from_millis(20);
/// Time that accepting waits after it failed, which is for want of files as a rule.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// What is said there, tokens too, could be read on the way, and nobody has said that it may.
    #[error(
        "{0} is reached from other machines: give a certificate with --tls-cert and --tls-key (or say \
         --without-tls, if a proxy before it has one), or let anybody read and write with \
         --without-authentication"
    )]
    Plain(SocketAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What is wrong.
        source: io::Error,
    },
    /// A file for TLS cannot be used.
    #[error("cannot use {path} for TLS: {problem}")]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// A bound address, of which nothing is served yet.
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    names: Arc<Names>,
    connections_max: usize,
}

impl Listener {
    /// Binds an address. One that other machines reach needs TLS, unless `args` say otherwise.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub async fn bind(address: SocketAddr, args: &Args) -> Result<Self, ListenError> {
        let tls = match (&args.tls_cert, &args.tls_key) {
            (Some(certificate), Some(key)) => Some(acceptor(certificate, key)?),
            // Where anybody may do anything, there is nothing to be overheard either.
            _ if is_loopback(address) || args.without_tls || args.without_authentication => None,
            _ => return Err(ListenError::Plain(address)),
        };
        allow_files();
        let fail = |source| ListenError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        let names = Arc::new(Names::new(address, args));
        Ok(Self { listener, address, tls, names, connections_max: CONNECTIONS_MAX })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` completes; then lets the requests under way finish.
    ///
    /// What browsers ask is judged here, so that nothing is served without that.
    pub async fn serve(self, mut app: App, stop: impl Future<Output = ()>) {
        let guard = Guard { names: self.names, metrics: Arc::clone(&app.metrics) };
        app.router = app.router.layer(from_fn_with_state(guard, browser::check));
        let page = app.page.take();
        // It ends with this.
        let mut watching = JoinSet::new();
        if let Some((_, watch)) = &page {
            let watch = Arc::clone(watch);
            watching.spawn(
                async move { again("the task that tells pages the news", || watch()).await },
            );
        }
        let serving = Arc::new(Serving { builder: builder(), app, tls: self.tls });
        let (stopping, _) = watch::channel(());
        let most = self.connections_max;
        let places = Arc::new(Places::new(most, most - most / 4));
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepting = async {
                let (stream, peer) = self.listener.accept().await?;
                io::Result::Ok((stream, place_for(&places, most, peer).await))
            };
            let accepted = tokio::select! {
                biased;
                () = &mut stop => break,
                accepted = accepting => accepted,
            };
            let (stream, mut place) = match accepted {
                Ok((stream, Some(place))) => (stream, place),
                Ok((_, None)) => continue,
                Err(error) => {
                    warn!(%error, "cannot accept");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            };
            // It only makes answers slower if this fails.
            let _ = stream.set_nodelay(true);
            let (serving, stop) = (serving.clone(), stopping.subscribe());
            tokio::spawn(async move {
                let counted = Counted::new(&serving.app.metrics);
                let stream = Counting::new(stream, Arc::clone(&serving.app.metrics));
                let marker = Some(place.marker());
                let served = async {
                    match &serving.tls {
                        None => serving.connection(stream, marker, stop).await,
                        Some(tls) => {
                            let accepting = tls.accept(stream);
                            match tokio::time::timeout(HANDSHAKE_TIMEOUT, accepting).await {
                                Ok(Ok(stream)) => serving.connection(stream, marker, stop).await,
                                Ok(Err(error)) => debug!(%error, "no TLS"),
                                Err(_) => debug!("the handshake took too long"),
                            }
                        }
                    }
                };
                tokio::select! {
                    biased;
                    () = served => {}
                    () = place.lost() => debug!("an idle connection made room for another"),
                }
                drop((counted, place));
            });
        }
        drop(self.listener);
        info!(connections = stopping.receiver_count(), "stopping");
        drop(watching);
        if let Some((hub, _)) = page {
            hub.end();
        }
        stopping.send_replace(());
        // Each connection holds a receiver until it has ended.
        if tokio::time::timeout(STOP_TIMEOUT, stopping.closed()).await.is_err() {
            warn!("requests were still under way");
        }
    }
}

/// Finds a place for a connection. An address that is as busy as it may be gets none; if all are
/// busy, the next connections wait in the listener's queue.
async fn place_for(places: &Arc<Places>, most: usize, peer: SocketAddr) -> Option<Place> {
    loop {
        if let Some(place) = places.take(peer.ip()) {
            return Some(place);
        }
        if places.taken() < most {
            debug!(%peer, "too many requests of one address are under way");
            return None;
        }
        tokio::time::sleep(PLACE_AGAIN).await;
    }
}

/// What all connections share.
struct Serving {
    builder: Builder<TokioExecutor>,
    app: App,
    tls: Option<TlsAcceptor>,
}

impl Serving {
    /// Serves a connection until it ends, is idle, or is to stop: then its requests under way are
    /// answered, and it takes no others.
    async fn connection(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        place: Option<Marker>,
        mut stop: watch::Receiver<()>,
    ) {
        let router = TowerToHyperService::new(self.app.router.clone());
        let activity = Activity::new(place);
        let service = service_fn(|request: Request<Incoming>| {
            let running = activity.request();
            let answer = router.call(request.map(|body| running.body(body)));
            async move { answer.await.map(|answer| answer.map(|body| running.body(body))) }
        });
        let connection = self.builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => Ok(ended),
            _ = stop.changed() => Err("requests were still under way"),
            () = activity.idle(IDLE_TIMEOUT) => Err("answers were not taken"),
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
            debug!(error, "a connection has ended");
        }
    }
}

/// A connection in the figures.
struct Counted<'a>(&'a Metrics);

impl<'a> Counted<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.accepted();
        Self(metrics)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.ended();
    }
}

/// Raises the number of files that this process may have open: what is usual, 1024, was meant for
/// programs that could not count further, and would end accepting long before our own bound does.
fn allow_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(FILES_MAX, |most| most.min(FILES_MAX));
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit { current: Some(wanted), ..limit };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            debug!(%error, "the number of open files stays as it is");
        }
    }
}

/// TLS 1.2 and 1.3 with a certificate from files.
fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, ListenError> {
    let wrong = |path: &Path, problem: String| ListenError::Tls { path: path.to_owned(), problem };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(wrong(certificate, "there is no certificate in it".into()));
    }
    let private =
        PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, error.to_string()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(chain, private));
    let mut config = config.map_err(|error| wrong(certificate, error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
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
        .max_send_buf_size(ANSWER_PIECE_BYTES)
        .max_header_list_size(HEAD_BYTES_MAX as u32);
    builder
}
