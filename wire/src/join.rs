//! The joiner's side of the join protocol: exchanges a token, or an expired certificate, for
//! credentials.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use dkv_base::durable;
use tokio::time::Instant;

use crate::certificate::{CertificateError, Credentials, generate_key};
use crate::identity::Role;
use crate::limits::{JOIN_FRAME_BYTES_MAX, REQUEST_TIMEOUT};
use crate::local;
use crate::message::{
    JoinAnswer, JoinRefusal, JoinRequest, Joining, ReadmitRequest, RecertifyRequest,
};
use crate::quic::{Close, ConnectError, Endpoint, peer_authority, proof_material};
use crate::rpc::{RpcError, call};
use crate::token::{Fingerprint, InvalidToken, Token};

/// Time between two attempts to join while the server is busy.
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// Environment variable that holds a token.
pub const TOKEN_VARIABLE: &str = "DKV_TOKEN";

/// Why there is no token to join with.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// No token was given and none was found.
    #[error(
        "no token for {server}: pass --token-file FILE or set {TOKEN_VARIABLE} ({})", whereabouts(*.role)
    )]
    Missing {
        /// The registration server.
        server: SocketAddr,
        /// The wanted role.
        role: Role,
    },
    /// The file cannot be read.
    #[error("cannot read the token: {0}")]
    File(std::io::Error),
    /// The text is no token.
    #[error("{from}: {source}")]
    Invalid {
        /// The source of the text.
        from: String,
        /// The fault of the token.
        source: InvalidToken,
    },
    /// The token is for another role.
    #[error("{from}: this is {} {found} token; {} {wanted} token is required", article(*.found), article(*.wanted))]
    Role {
        /// The source of the token.
        from: String,
        /// The role of the token.
        found: Role,
        /// The wanted role.
        wanted: Role,
    },
}

/// Where to get a token of a role.
fn whereabouts(role: Role) -> String {
    match role {
        // The server's first start creates none for this role.
        Role::Reader | Role::Server => format!("create one with dkv token create --role {role}"),
        role => format!("the server keeps it in tokens/{role}.token of its data directory"),
    }
}

fn article(role: Role) -> &'static str {
    if role == Role::Admin { "an" } else { "a" }
}

/// Finds a token: in `file` if one is named, else in the environment, else where a server on this
/// machine left it.
///
/// # Errors
/// See [`TokenError`].
pub fn find_token(
    server: SocketAddr,
    role: Role,
    file: Option<&Path>,
) -> Result<Token, TokenError> {
    let (from, text) = if let Some(path) = file {
        let missing = || {
            let gone = std::io::Error::new(std::io::ErrorKind::NotFound, "no such file");
            TokenError::File(durable::named(path, gone))
        };
        let content = durable::read(path).map_err(TokenError::File)?.ok_or_else(missing)?;
        (path.display().to_string(), String::from_utf8_lossy(&content).into_owned())
    } else if let Some(text) = dkv_base::environment::value(TOKEN_VARIABLE) {
        (TOKEN_VARIABLE.to_owned(), text.to_string_lossy().into_owned())
    } else {
        let home = local::home();
        let found = home.map(|home| local::find_token(&home, server, role)).transpose();
        let found = found.map_err(TokenError::File)?.flatten();
        return found.ok_or(TokenError::Missing { server, role });
    };
    let token: Token =
        text.parse().map_err(|source| TokenError::Invalid { from: from.clone(), source })?;
    let fits = role.is_served_by(token.role);
    if fits { Ok(token) } else { Err(TokenError::Role { from, found: token.role, wanted: role }) }
}

/// Why joining failed.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The server belongs to another network than the token.
    #[error(
        "the server at {0} belongs to another network than the token (its certificate authority \
         is not the one that the token names)"
    )]
    OtherNetwork(SocketAddr),
    /// The server could not be reached.
    #[error("cannot reach the registration server: {0}")]
    Connect(ConnectError),
    /// The server did not answer properly.
    #[error("the registration server at {0} did not answer: {1}")]
    Call(SocketAddr, RpcError),
    /// The server refused to admit this process.
    #[error("not admitted: {0}")]
    Refused(JoinRefusal),
    /// The certificate is not the one requested.
    #[error("{0}")]
    Certificate(#[from] CertificateError),
}

/// Joins a network and receives a certificate for a fresh key. The token's fingerprint
/// authenticates the server, its secret this process.
///
/// # Errors
/// See [`JoinError`].
pub async fn join(
    endpoint: &Endpoint,
    server: SocketAddr,
    token: &Token,
) -> Result<Credentials, JoinError> {
    patiently(|| join_once(endpoint, server, token)).await
}

async fn join_once(
    endpoint: &Endpoint,
    server: SocketAddr,
    token: &Token,
) -> Result<Credentials, JoinError> {
    let connection = connect(endpoint, server, token.authority).await?;
    let authority =
        peer_authority(&connection, token.authority).ok_or(JoinError::OtherNetwork(server))?;
    let (key, public_key) = generate_key()?;
    let request = JoinRequest { token: token.id, secret: token.secret, public_key };
    let answer = ask(&connection, server, &Joining::Join(request)).await?;
    let credentials = Credentials::new(&answer.certificate, &authority, key)?;
    let identity = credentials.identity;
    if identity.network != answer.network || identity.role != token.role {
        return Err(CertificateError::NotOurs.into());
    }
    Ok(credentials)
}

/// Exchanges an expired certificate for a new one. The known authority authenticates the server,
/// its key this process.
///
/// # Errors
/// See [`JoinError`].
pub async fn recertify(
    endpoint: &Endpoint,
    server: SocketAddr,
    expired: &Credentials,
) -> Result<Credentials, JoinError> {
    patiently(|| recertify_once(endpoint, server, expired)).await
}

async fn recertify_once(
    endpoint: &Endpoint,
    server: SocketAddr,
    expired: &Credentials,
) -> Result<Credentials, JoinError> {
    let connection = connect(endpoint, server, Fingerprint::of(&expired.authority)).await?;
    let material = proof_material(&connection).ok_or(CertificateError::NotOurs)?;
    let request = RecertifyRequest {
        certificate: Bytes::copy_from_slice(&expired.certificate),
        proof: expired.prove(&material)?,
    };
    let answer = ask(&connection, server, &Joining::Recertify(request)).await?;
    Ok(expired.renewed(&answer.certificate)?)
}

/// Exchanges a certificate that expired too long ago for [`recertify`] for a new one, with a token
/// of its role.
///
/// # Errors
/// See [`JoinError`].
pub async fn readmit(
    endpoint: &Endpoint,
    server: SocketAddr,
    expired: &Credentials,
    token: &Token,
) -> Result<Credentials, JoinError> {
    patiently(|| readmit_once(endpoint, server, expired, token)).await
}

async fn readmit_once(
    endpoint: &Endpoint,
    server: SocketAddr,
    expired: &Credentials,
    token: &Token,
) -> Result<Credentials, JoinError> {
    let connection = connect(endpoint, server, Fingerprint::of(&expired.authority)).await?;
    let material = proof_material(&connection).ok_or(CertificateError::NotOurs)?;
    let certificate = Bytes::copy_from_slice(&expired.certificate);
    let again = RecertifyRequest { certificate, proof: expired.prove(&material)? };
    let request = ReadmitRequest { again, token: token.id, secret: token.secret };
    let answer = ask(&connection, server, &Joining::Readmit(request)).await?;
    Ok(expired.renewed(&answer.certificate)?)
}

/// Retries for up to [`REQUEST_TIMEOUT`] while the server gives the slot of the connection to
/// others before the request was sent.
async fn patiently<F: Future<Output = Result<Credentials, JoinError>>>(
    attempt: impl Fn() -> F,
) -> Result<Credentials, JoinError> {
    let begun = Instant::now();
    loop {
        match attempt().await {
            Err(JoinError::Connect(ConnectError::Busy { .. }))
                if begun.elapsed() < REQUEST_TIMEOUT =>
            {
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            other => return other,
        }
    }
}

async fn connect(
    endpoint: &Endpoint,
    server: SocketAddr,
    authority: Fingerprint,
) -> Result<quinn::Connection, JoinError> {
    endpoint.connect_to_join(server, authority).await.map_err(|error| match error {
        ConnectError::Refused { .. } => JoinError::OtherNetwork(server),
        other => JoinError::Connect(other),
    })
}

async fn ask(
    connection: &quinn::Connection,
    server: SocketAddr,
    request: &Joining,
) -> Result<JoinAnswer, JoinError> {
    let answer: Result<JoinAnswer, JoinRefusal> =
        call(connection, None::<&()>, request, JOIN_FRAME_BYTES_MAX, REQUEST_TIMEOUT)
            .await
            .map_err(|error| not_answered(connection, server, error))?;
    Close::Done.close(connection, "joined");
    answer.map_err(JoinError::Refused)
}

fn not_answered(connection: &quinn::Connection, server: SocketAddr, error: RpcError) -> JoinError {
    let lost = connection.close_reason().map(|why| ConnectError::from_lost(server, &why));
    match lost {
        Some(busy @ ConnectError::Busy { .. }) => JoinError::Connect(busy),
        _ => JoinError::Call(server, error),
    }
}

#[cfg(test)]
mod tests;
