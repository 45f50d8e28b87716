//! The link to the registration server.
//!
//! A node needs the server only to join and to be known, never to serve. Every use of this link may
//! fail; the caller then carries on and tries again later.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dkv_wire::acceptor::Acceptor;
use dkv_wire::limits::SERVER_FRAME_BYTES_MAX;
use dkv_wire::message::{ServerAnswer, ServerRefusal, ServerRequest};
use dkv_wire::quic::{Close, ConnectError, Endpoint};
use dkv_wire::rpc::call;
use dkv_wire::tls::Expect;
use tokio::time::Instant;

/// The port of a server whose address names none.
pub(crate) const DEFAULT_SERVER_PORT: u16 = 4400;

/// Time within which the server has to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// The reason why the server did not do what it was asked to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    /// The server's name cannot be resolved.
    #[error("the address {0} of the registration server cannot be resolved: {1}")]
    Resolve(String, String),
    /// There is no connection to the server.
    #[error("{0}")]
    Connect(ConnectError),
    /// The server did not answer.
    #[error("the registration server does not answer: {0}")]
    Silent(String),
    /// The server refused the request.
    #[error("{0}")]
    Refused(ServerRefusal),
    /// The server answered another question.
    #[error("the registration server gave an unexpected answer")]
    Unexpected,
}

/// A node's link to the registration server.
pub(crate) struct ServerLink {
    address: String,
    endpoint: Endpoint,
    acceptor: Arc<Acceptor>,
    connection: Mutex<Option<quinn::Connection>>,
    seen: Mutex<Option<Instant>>,
}

impl ServerLink {
    pub(crate) fn new(address: String, endpoint: Endpoint, acceptor: Arc<Acceptor>) -> Self {
        Self { address, endpoint, acceptor, connection: Mutex::default(), seen: Mutex::default() }
    }

    /// Returns the time since the server last answered, or `None` if it has not answered since the
    /// start.
    pub(crate) fn seen(&self) -> Option<Duration> {
        lock(&self.seen).map(|seen| seen.elapsed())
    }

    /// Asks the server.
    pub(crate) async fn ask(&self, request: &ServerRequest) -> Result<ServerAnswer, ServerError> {
        let connection = self.connect().await?;
        let answer =
            call(&connection, None::<&()>, request, SERVER_FRAME_BYTES_MAX, ANSWER_TIMEOUT).await;
        match answer {
            Ok(ServerAnswer::Refused(refusal)) => Err(ServerError::Refused(refusal)),
            Ok(answer) => {
                *lock(&self.seen) = Some(Instant::now());
                Ok(answer)
            }
            Err(error) => {
                // The server is dead or has restarted: the next question gets a fresh connection.
                drop(lock(&self.connection).take());
                let address = connection.remote_address();
                let lost = connection.close_reason();
                Close::Done.close(&connection, "no answer");
                // The server cuts off a denied node without an answer, after a successful
                // handshake.
                match lost.map(|lost| ConnectError::from_lost(address, &lost)) {
                    Some(
                        refused @ (ConnectError::Refused { .. } | ConnectError::Removed { .. }),
                    ) => Err(ServerError::Connect(refused)),
                    _ => Err(ServerError::Silent(error.to_string())),
                }
            }
        }
    }

    /// Resolves the server's socket address.
    pub(crate) async fn resolve(&self) -> Result<SocketAddr, ServerError> {
        resolve(&self.address).await
    }

    async fn connect(&self) -> Result<quinn::Connection, ServerError> {
        let open = lock(&self.connection).clone();
        if let Some(open) = open.filter(|open| open.close_reason().is_none()) {
            return Ok(open);
        }
        let address = resolve(&self.address).await?;
        let connection =
            self.endpoint.connect(address, Expect::Server).await.map_err(ServerError::Connect)?;
        self.acceptor.watch(&connection);
        *lock(&self.connection) = Some(connection.clone());
        Ok(connection)
    }
}

/// Resolves the socket address of a server, from `ip`, `ip:port`, `name` or `name:port`.
pub(crate) async fn resolve(address: &str) -> Result<SocketAddr, ServerError> {
    if let Ok(address) = address.parse::<SocketAddr>() {
        return Ok(address);
    }
    let with_port = if has_port(address) {
        address.to_owned()
    } else {
        format!("{address}:{DEFAULT_SERVER_PORT}")
    };
    let failed = |why: String| ServerError::Resolve(address.to_owned(), why);
    let mut found =
        tokio::net::lookup_host(&with_port).await.map_err(|error| failed(error.to_string()))?;
    found.next().ok_or_else(|| failed("it has no address".into()))
}

fn has_port(address: &str) -> bool {
    // A bare IPv6 address has colons and no port.
    match address.rsplit_once(':') {
        Some((host, port)) => {
            (!host.contains(':') || host.ends_with(']')) && port.parse::<u16>().is_ok()
        }
        None => false,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
