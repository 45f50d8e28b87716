//! A connection to a member of etcd: HTTP/2, with TLS or without, and a user's token.

use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use dkv_etcd::proto::etcdserverpb::auth_client::AuthClient;
use dkv_etcd::proto::etcdserverpb::kv_client::KvClient;
use dkv_etcd::proto::etcdserverpb::lease_client::LeaseClient;
use dkv_etcd::proto::etcdserverpb::watch_client::WatchClient;
use futures::future::BoxFuture;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::Status;
use tonic::body::Body;
use tonic::metadata::{Ascii, MetadataValue};
use tower::Service;

use crate::cli::ImportEtcdArgs;

/// Time to connect, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence after which a member is pinged. etcd refuses pings within 5 s.
const PING_EVERY: Duration = Duration::from_secs(10);
/// Time in which it must answer.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Window of a stream, in bytes.
const WINDOW_BYTES: u32 = 8 << 20;
/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 512 << 20;

/// A member of etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: bool,
}

impl Endpoint {
    /// Parses `http(s)://HOST[:PORT]`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (tls, rest) = match text.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix("http://")?),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let uri: hyper::Uri = format!("http://{rest}/").parse().ok()?;
        let authority = uri.authority()?;
        if authority.as_str() != rest || rest.contains('@') {
            return None;
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let has_port = !rest.ends_with(authority.host());
        let port = if has_port { authority.port_u16()? } else { 2379 };
        (!host.is_empty()).then_some(Self { host, port, tls })
    }

    /// Returns its address in a URL.
    pub(super) fn url(&self) -> String {
        let Self { host, port, tls } = self;
        let scheme = if *tls { "https" } else { "http" };
        if host.contains(':') {
            format!("{scheme}://[{host}]:{port}")
        } else {
            format!("{scheme}://{host}:{port}")
        }
    }
}

/// How members are verified, and what is shown to them.
///
/// # Errors
/// A file that cannot be used, in one line.
pub(super) fn tls(args: &ImportEtcdArgs) -> Result<TlsConnector, String> {
    let wrong = |path: &Path, why: &dyn std::fmt::Display| {
        format!("cannot use {} for TLS: {why}", path.display())
    };
    let certificates = |path: &Path| {
        let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<_, _>>);
        let found: Vec<_> = found.map_err(|error| wrong(path, &error))?;
        if found.is_empty() {
            return Err(wrong(path, &"it holds no certificate"));
        }
        Ok(found)
    };
    let Some(ca) = &args.ca else {
        return Err("https needs --ca, the authorities of the members' certificates".into());
    };
    let mut roots = rustls::RootCertStore::empty();
    for authority in certificates(ca)? {
        roots.add(authority).map_err(|error| wrong(ca, &error))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let mut config = match (&args.cert, &args.key) {
        (Some(cert), Some(key)) => {
            let chain = certificates(cert)?;
            let private = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, &error))?;
            let shown = config.with_client_auth_cert(chain, private);
            shown.map_err(|error| wrong(cert, &error))?
        }
        _ => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A connection. Cloning is cheap; clones share it.
#[derive(Clone)]
pub(super) struct Link {
    channel: Channel,
    origin: hyper::Uri,
    /// The token of the user.
    pub(super) token: Option<MetadataValue<Ascii>>,
}

impl Link {
    /// Connects.
    ///
    /// # Errors
    /// The member cannot be reached, in one line.
    pub(super) async fn connect(
        endpoint: &Endpoint,
        tls: Option<&TlsConnector>,
    ) -> Result<Self, String> {
        let connecting = async {
            let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await;
            let stream = stream.map_err(|error| error.to_string())?;
            // A delay of small messages is the only other effect.
            let _ = stream.set_nodelay(true);
            match tls.filter(|_| endpoint.tls) {
                None => handshake(stream).await,
                Some(tls) => {
                    let name = ServerName::try_from(endpoint.host.clone());
                    let name = name.map_err(|error| error.to_string())?;
                    let stream = tls.connect(name, stream).await;
                    handshake(stream.map_err(|error| error.to_string())?).await
                }
            }
        };
        let channel = timeout(CONNECT_TIMEOUT, connecting).await;
        let channel = channel.map_err(|_| "it does not answer".to_owned())??;
        let origin = endpoint.url().parse();
        let origin = origin.map_err(|error: hyper::http::uri::InvalidUri| error.to_string())?;
        Ok(Self { channel, origin, token: None })
    }

    /// Returns a request with the token.
    pub(super) fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }

    pub(super) fn kv(&self) -> KvClient<Channel> {
        KvClient::with_origin(self.channel.clone(), self.origin.clone())
            .max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub(super) fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::with_origin(self.channel.clone(), self.origin.clone())
            .max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub(super) fn watch(&self) -> WatchClient<Channel> {
        WatchClient::with_origin(self.channel.clone(), self.origin.clone())
            .max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub(super) fn auth(&self) -> AuthClient<Channel> {
        AuthClient::with_origin(self.channel.clone(), self.origin.clone())
    }
}

/// A connection as the generated clients take it.
#[derive(Clone)]
pub(super) struct Channel(http2::SendRequest<Body>);

impl Service<hyper::Request<Body>> for Channel {
    type Response = hyper::Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Self::Response, hyper::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: hyper::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Channel, String> {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    // It ends with the last clone of the sender, or its requests say why it ended.
    tokio::spawn(async move { drop(connection.await) });
    Ok(Channel(sender))
}

/// Returns whether an error is one of the member or the way to it, and not of the request.
pub(super) fn is_passing(status: &Status) -> bool {
    use tonic::Code;
    // Somebody has changed users or roles: the next connection gets a newer token.
    let is_old = status.message().contains("revision of auth store is old");
    is_old
        || matches!(
            status.code(),
            Code::Unavailable
            | Code::Unknown
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Internal
            | Code::Aborted
            | Code::ResourceExhausted
            // A token ends, and a new connection gets another one.
            | Code::Unauthenticated
        )
}

#[cfg(test)]
mod tests {
    use super::Endpoint;

    #[test]
    fn endpoints_are_urls() {
        for (text, shown) in [
            ("http://h", "http://h:2379"),
            ("http://h:1/", "http://h:1"),
            ("https://10.0.0.7:2379", "https://10.0.0.7:2379"),
            ("http://[::1]:5", "http://[::1]:5"),
            ("http://[::1]", "http://[::1]:2379"),
        ] {
            assert_eq!(Endpoint::parse(text).map(|it| it.url()).as_deref(), Some(shown), "{text}");
        }
        for wrong in [
            "h:1",
            "http://",
            "http://:1",
            "http://h:x",
            "http://h:99999",
            "http://h/a",
            "http://u:p@h",
            "http://h:1?q",
        ] {
            assert_eq!(Endpoint::parse(wrong), None, "{wrong}");
        }
    }
}
