//! The registration server as a client uses it, which is never for a read or a write.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use dkv_base::sync::lock;
use dkv_wire::certificate::Credentials;
use dkv_wire::join::{JoinError, recertify};
use dkv_wire::limits::SERVER_FRAME_BYTES_MAX;
use dkv_wire::message::{ServerAnswer, ServerRefusal, ServerRequest};
use dkv_wire::quic::{Close, ConnectError, Endpoint};
use dkv_wire::race::{answering_first, first_of};
use dkv_wire::rpc::{RpcError, call};
use dkv_wire::tls::Expect;
use tokio::time::Instant;

use crate::address::{HostPort, ResolveError};
use crate::error::Error;

/// Why requests wait while the network has not been bootstrapped.
pub(crate) const NOT_BOOTSTRAPPED: &str = "the network has no coordinator yet: the registration \
     server runs, but no node has started (or none could form the network); start a node with \
     dkv-node";

/// Why the server did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ServerError {
    /// Nothing was sent, so there was no effect.
    #[error("registration server: {0}")]
    Unreachable(String),
    /// The certificates do not match: the server is of another network, or our certificate is too
    /// old.
    #[error("registration server: {0}")]
    OtherNetwork(String),
    /// The server refuses this holder.
    #[error("registration server: denied: {0}")]
    Denied(String),
    /// The server was asked, and its answer is unknown.
    #[error("registration server: {0}")]
    NoAnswer(String),
    /// The server answered with a refusal.
    #[error("registration server: {0}")]
    Refused(ServerRefusal),
}

/// Why the server gave no view. The caller uses the view that it has, or asks again later.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum LookupError {
    /// No node has registered yet.
    #[error("{NOT_BOOTSTRAPPED}")]
    NotBootstrapped,
    /// The server answers something else: it is of another version.
    #[error("registration server: unexpected answer")]
    AnotherQuestion,
    /// The server did not do what it was asked.
    #[error(transparent)]
    Server(#[from] ServerError),
}

/// Why an expired certificate was not replaced. The caller tries again later.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecertifyError {
    /// No socket could be opened.
    #[error("{0}")]
    Socket(std::io::Error),
    /// The client was given nodes only.
    #[error("no address of the registration server was given")]
    NoAddress,
    /// A host name does not resolve now.
    #[error(transparent)]
    Unresolved(#[from] ResolveError),
    /// The server does not issue a new one, or cannot be reached.
    #[error(transparent)]
    Join(#[from] JoinError),
}

impl ServerError {
    /// Converts the error of a request that was sent before and may have been received.
    fn after_an_attempt(self) -> Self {
        match self {
            Self::Unreachable(why) | Self::OtherNetwork(why) => Self::NoAnswer(why),
            other => other,
        }
    }

    /// Converts into the caller's error; `has_effect` if repeating the request would matter.
    pub(crate) fn into_error(self, has_effect: bool) -> Error {
        let text = self.to_string();
        match self {
            Self::NoAnswer(_) if has_effect => Error::Unknown(text),
            Self::Unreachable(_) | Self::OtherNetwork(_) | Self::NoAnswer(_) => {
                Error::Unavailable(text)
            }
            Self::Denied(_) => Error::Denied(text),
            Self::Refused(ServerRefusal::Waiting(why)) if has_effect => Error::Unknown(why),
            Self::Refused(ServerRefusal::Denied(why)) => Error::Denied(why),
            Self::Refused(ServerRefusal::Invalid(why)) => Error::Invalid(why),
            Self::Refused(_) => Error::Unavailable(text),
        }
    }
}

/// The addresses of the servers, and the connection to one of them.
#[derive(Debug)]
pub(crate) struct RegistrationServer {
    addresses: Vec<HostPort>,
    /// The addresses of all servers, as the network names them.
    learned: Mutex<Vec<SocketAddr>>,
    connection: Mutex<Option<quinn::Connection>>,
}

impl RegistrationServer {
    pub(crate) fn new(addresses: Vec<HostPort>, connection: Option<quinn::Connection>) -> Self {
        Self { addresses, learned: Mutex::default(), connection: Mutex::new(connection) }
    }

    /// Uses these servers too.
    pub(crate) fn learn(&self, servers: &[SocketAddr]) {
        *lock(&self.learned) = servers.to_vec();
    }

    /// Returns the addresses of all servers, those that were given first; or why none is known.
    async fn resolved(&self) -> Result<Vec<SocketAddr>, ResolveError> {
        let (mut found, mut failed) = (Vec::new(), None);
        for address in &self.addresses {
            match address.resolve().await {
                Ok(resolved) => found.extend(resolved),
                Err(error) => failed = Some(error),
            }
        }
        // A client that was given nodes only keeps to them.
        if !self.addresses.is_empty() {
            found.extend(lock(&self.learned).iter().copied());
        }
        let mut seen = Vec::new();
        found.retain(|address| {
            !seen.contains(address) && {
                seen.push(*address);
                true
            }
        });
        match failed {
            Some(error) if found.is_empty() => Err(error),
            _ => Ok(found),
        }
    }

    /// Sends a request. A request without an effect is repeated over a new connection if the old
    /// one brings no answer.
    pub(crate) async fn ask(
        &self,
        endpoint: &Endpoint,
        request: &ServerRequest,
        timeout: Duration,
    ) -> Result<ServerAnswer, ServerError> {
        let deadline = Instant::now() + timeout;
        let again = request.may_be_repeated();
        let open = self.connection().clone().filter(|open| open.close_reason().is_none());
        if let Some(open) = open {
            // After a restart of the server the old connection leads nowhere.
            let first = if again { timeout / 2 } else { timeout };
            match ask_on(&open, request, first).await {
                Err(ServerError::NoAnswer(_) | ServerError::Unreachable(_)) if again => {
                    Close::Done.close(&open, "no answer");
                    // The first attempt may have been received, whatever becomes of the second.
                    return self
                        .ask_anew(endpoint, request, deadline)
                        .await
                        .map_err(ServerError::after_an_attempt);
                }
                other => return other,
            }
        }
        self.ask_anew(endpoint, request, deadline).await
    }

    /// Sends a request over a new connection.
    async fn ask_anew(
        &self,
        endpoint: &Endpoint,
        request: &ServerRequest,
        deadline: Instant,
    ) -> Result<ServerAnswer, ServerError> {
        let left = || deadline.saturating_duration_since(Instant::now());
        let connection = tokio::time::timeout(left(), self.connect(endpoint))
            .await
            .map_err(|_| ServerError::Unreachable("no answer in time".into()))??;
        *self.connection() = Some(connection.clone());
        ask_on(&connection, request, left()).await
    }

    /// Gets a new certificate for the holder of an expired one.
    pub(crate) async fn recertify(
        &self,
        expired: &Credentials,
    ) -> Result<Credentials, RecertifyError> {
        let endpoint = Endpoint::dial_only(None).map_err(RecertifyError::Socket)?;
        let mut failure = RecertifyError::NoAddress;
        let resolved = self.resolved().await?;
        for server in answering_first(&endpoint, &resolved).await {
            match recertify(&endpoint, server, expired).await {
                Ok(credentials) => return Ok(credentials),
                Err(error) => failure = error.into(),
            }
        }
        Err(failure)
    }

    async fn connect(&self, endpoint: &Endpoint) -> Result<quinn::Connection, ServerError> {
        let resolved = self.resolved().await;
        let resolved = resolved.map_err(|error| ServerError::Unreachable(error.to_string()))?;
        let dialled = first_of(&resolved, |address| dial(endpoint, address)).await;
        dialled.map_err(|errors| {
            let none = || ServerError::Unreachable("no address of it was given".into());
            errors.into_iter().next_back().unwrap_or_else(none)
        })
    }

    fn connection(&self) -> std::sync::MutexGuard<'_, Option<quinn::Connection>> {
        lock(&self.connection)
    }
}

/// Connects to the server at an address.
pub(crate) async fn dial(
    endpoint: &Endpoint,
    address: SocketAddr,
) -> Result<quinn::Connection, ServerError> {
    endpoint.connect(address, Expect::Server).await.map_err(|error| match error {
        // In the handshake only we refuse; the server's verdict on our certificate comes later.
        ConnectError::Refused { .. } => ServerError::OtherNetwork(error.to_string()),
        // The stored credentials are unusable.
        ConnectError::Local(_) => ServerError::OtherNetwork(error.to_string()),
        other => ServerError::Unreachable(other.to_string()),
    })
}

/// Sends a request over a connection.
pub(crate) async fn ask_on(
    connection: &quinn::Connection,
    request: &ServerRequest,
    timeout: Duration,
) -> Result<ServerAnswer, ServerError> {
    let answer = call(connection, None::<&()>, request, SERVER_FRAME_BYTES_MAX, timeout).await;
    match answer {
        Ok(ServerAnswer::Refused(refusal)) => Err(ServerError::Refused(refusal)),
        Ok(answer) => Ok(answer),
        Err(error) => Err(close_error(connection, &error)),
    }
}

/// Returns why a connection ended, as far as its closing says.
fn close_error(connection: &quinn::Connection, error: &RpcError) -> ServerError {
    let Some(reason) = connection.close_reason() else {
        return ServerError::NoAnswer(error.to_string());
    };
    if is_denial(&reason) {
        let why = ConnectError::from_lost(connection.remote_address(), &reason);
        return ServerError::Denied(why.to_string());
    }
    match ConnectError::from_lost(connection.remote_address(), &reason) {
        // In TLS 1.3 a client completes the handshake before the server has checked its
        // certificate.
        refused @ ConnectError::Refused { .. } => ServerError::OtherNetwork(refused.to_string()),
        other => ServerError::NoAnswer(other.to_string()),
    }
}

/// Returns whether the peer closed a connection because of our certificate.
pub(crate) fn is_denial(reason: &quinn::ConnectionError) -> bool {
    matches!(reason, quinn::ConnectionError::ApplicationClosed(close)
        if close.error_code == quinn::VarInt::from_u32(Close::Denied as u32))
}
