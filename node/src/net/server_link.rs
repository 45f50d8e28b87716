//! The link to the registration servers.
//!
//! A node needs a server only to join and to be known, never to serve. Every use of this link may
//! fail; the caller then carries on and tries again later.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dkv_base::sync::lock;
use dkv_wire::acceptor::Acceptor;
use dkv_wire::limits::SERVER_FRAME_BYTES_MAX;
use dkv_wire::message::{ServerAnswer, ServerRefusal, ServerRequest};
use dkv_wire::quic::{Close, ConnectError, Endpoint};
use dkv_wire::race::{answering_first, first_of};
use dkv_wire::rpc::call;
use dkv_wire::server_address::{Unresolved, resolve_list};
use dkv_wire::tls::Expect;
use tokio::time::Instant;

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

/// A node's link to the registration servers: to whichever of them answers.
pub(crate) struct ServerLink {
    /// The addresses that the operator gave, separated by commas.
    list: String,
    endpoint: Endpoint,
    acceptor: Arc<Acceptor>,
    /// The addresses of all servers by the directory.
    known: Mutex<Vec<SocketAddr>>,
    connection: Mutex<Option<quinn::Connection>>,
    /// The server that did not answer last; it is tried after the others.
    silent: Mutex<Option<SocketAddr>>,
    seen: Mutex<Option<Instant>>,
}

impl ServerLink {
    pub(crate) fn new(list: String, endpoint: Endpoint, acceptor: Arc<Acceptor>) -> Self {
        let (known, connection, silent, seen) = Default::default();
        Self { list, endpoint, acceptor, known, connection, silent, seen }
    }

    /// Returns a link to one server only.
    pub(crate) fn to(&self, server: SocketAddr) -> Self {
        Self::new(server.to_string(), self.endpoint.clone(), Arc::clone(&self.acceptor))
    }

    /// Returns the time since a server last answered, or `None` if none has answered since the
    /// start.
    pub(crate) fn seen(&self) -> Option<Duration> {
        lock(&self.seen).map(|seen| seen.elapsed())
    }

    /// Remembers the addresses of all servers.
    pub(crate) fn learn(&self, servers: Vec<SocketAddr>) {
        *lock(&self.known) = servers;
    }

    /// Returns the address of the server that this link is connected to.
    pub(crate) fn connected(&self) -> Option<SocketAddr> {
        let open = lock(&self.connection).clone()?;
        let address = open.remote_address();
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        open.close_reason().is_none().then_some(address)
    }

    /// Asks a server. If it does not answer, asks another one, unless the request must not be
    /// repeated.
    pub(crate) async fn ask(&self, request: &ServerRequest) -> Result<ServerAnswer, ServerError> {
        let asked = self.ask_once(request).await;
        match &asked {
            Err(ServerError::Silent(_))
                if request.may_be_repeated() && self.addresses().await?.len() > 1 =>
            {
                self.ask_once(request).await
            }
            _ => asked,
        }
    }

    async fn ask_once(&self, request: &ServerRequest) -> Result<ServerAnswer, ServerError> {
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
                *lock(&self.silent) =
                    Some(SocketAddr::new(address.ip().to_canonical(), address.port()));
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

    /// Returns the address of a server that answers, or else the first one.
    pub(crate) async fn answering(&self, endpoint: &Endpoint) -> Result<SocketAddr, ServerError> {
        let addresses = self.addresses().await?;
        let ordered = answering_first(endpoint, &addresses).await;
        ordered.first().copied().ok_or(ServerError::Unexpected)
    }

    /// Returns the addresses of the servers in the order in which to try them: those that the
    /// operator gave, then the others, and last the one that did not answer.
    async fn addresses(&self) -> Result<Vec<SocketAddr>, ServerError> {
        let known = lock(&self.known).clone();
        let mut addresses = match resolve_list(&self.list).await {
            Ok(addresses) => addresses,
            Err(_) if !known.is_empty() => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        for address in known {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if let Some(silent) = *lock(&self.silent)
            && let Some(position) = addresses.iter().position(|address| *address == silent)
        {
            addresses[position..].rotate_left(1);
        }
        Ok(addresses)
    }

    async fn connect(&self) -> Result<quinn::Connection, ServerError> {
        let open = lock(&self.connection).clone();
        if let Some(open) = open.filter(|open| open.close_reason().is_none()) {
            return Ok(open);
        }
        let addresses = self.addresses().await?;
        let connect = |address| self.endpoint.connect(address, Expect::Server);
        let connection = first_of(&addresses, connect).await.map_err(worst)?;
        self.acceptor.watch(&connection);
        *lock(&self.connection) = Some(connection.clone());
        Ok(connection)
    }
}

/// Picks the error that says most: that this node was removed, or else the first one.
fn worst(errors: Vec<ConnectError>) -> ServerError {
    let mut errors = errors.into_iter();
    let Some(first) = errors.next() else { return ServerError::Unexpected };
    let is_removal = |error: &ConnectError| matches!(error, ConnectError::Removed { .. });
    let removed = errors.find(|error| is_removal(error) && !is_removal(&first));
    ServerError::Connect(removed.unwrap_or(first))
}

impl From<Unresolved> for ServerError {
    fn from(Unresolved { address, why }: Unresolved) -> Self {
        Self::Resolve(address, why)
    }
}

/// Resolves the addresses of servers; see [`resolve_list`].
pub(crate) async fn resolve(list: &str) -> Result<Vec<SocketAddr>, ServerError> {
    Ok(resolve_list(list).await?)
}

#[cfg(test)]
mod tests;
