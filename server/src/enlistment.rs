//! How a new server joins a network that exists.
//!
//! It joins with a token as everybody does, and receives a certificate of the role `server`. With
//! that it connects again, and asks for the authority's key and for what the network looks like.
//! The books it reads from the control group later, as every server does.
//!
//! A server that waits for the control group may be cut off from it, so the next one in the list is
//! asked then. Deliberately missing: any other second attempt. A token is usually good for one use,
//! so an operator who reads why it failed creates another one.

use std::net::SocketAddr;
use std::path::Path;

use dkv_base::platform;
use dkv_wire::certificate::{Authority, CertificateError, Credentials};
use dkv_wire::identity::Role;
use dkv_wire::join::{JoinError, TokenError, find_token, join};
use dkv_wire::limits::{REQUEST_TIMEOUT, SERVER_FRAME_BYTES_MAX};
use dkv_wire::message::{Enlistment, JoinRefusal, ServerAnswer, ServerRefusal, ServerRequest};
use dkv_wire::quic::{Close, ConnectError, Endpoint};
use dkv_wire::race::answering_first;
use dkv_wire::rpc::{RpcError, call};
use dkv_wire::server_address::{Unresolved, resolve_list};
use dkv_wire::tls::Expect;
use tracing::info;

use crate::clock;
use crate::data_dir::StoredNetwork;
use crate::registry::Registry;

/// Why a server did not join the network of another one.
#[derive(Debug, thiserror::Error)]
pub enum EnlistError {
    /// The other server's address cannot be resolved.
    #[error("{0}")]
    Unresolved(#[from] Unresolved),
    /// There is no usable token.
    #[error("{0}; create one with dkv token create --role server")]
    Token(#[from] TokenError),
    /// The network does not admit this server, or cannot be asked.
    #[error("{0}")]
    Join(#[from] JoinError),
    /// The other server was lost after it had admitted this one.
    #[error("cannot reach the server that admitted this one: {0}; create another token")]
    Connect(#[from] ConnectError),
    /// The other server did not answer.
    #[error("the server that admitted this one did not answer: {0}; create another token")]
    Call(#[from] RpcError),
    /// The other server refused.
    #[error("the other server refused: {0}")]
    Refused(ServerRefusal),
    /// The other server answered another question.
    #[error("the other server gave an unexpected answer; run the same release everywhere")]
    Unexpected,
    /// No socket could be opened.
    #[error("cannot open a socket: {0}")]
    Socket(#[from] std::io::Error),
    /// The authority's key is unusable.
    #[error("the other server gave an unusable key of the network's authority: {0}")]
    Authority(#[from] CertificateError),
    /// Reading the token was interrupted.
    #[error("reading the token was interrupted")]
    Interrupted,
}

/// Joins the network of the first server in the list that answers, and does not wait for the
/// control group.
///
/// # Errors
/// See [`EnlistError`].
pub(crate) async fn enlist(
    list: &str,
    token_file: Option<&Path>,
) -> Result<StoredNetwork, EnlistError> {
    let endpoint = Endpoint::dial_only(None)?;
    let addresses = resolve_list(list).await?;
    let addresses = answering_first(&endpoint, &addresses).await;
    let (server, credentials) = admitted(&endpoint, &addresses, token_file).await?;
    let identity = credentials.identity;
    let certificate = credentials.authority.clone();
    endpoint.set_credentials(credentials, None)?;
    let connection = endpoint.connect(server, Expect::Server).await?;
    let request = ServerRequest::Enlist;
    let answer: ServerAnswer =
        call(&connection, None::<&()>, &request, SERVER_FRAME_BYTES_MAX, REQUEST_TIMEOUT).await?;
    Close::Done.close(&connection, "enlisted");
    let enlistment: Enlistment = match answer {
        ServerAnswer::Enlisted(enlistment) => *enlistment,
        ServerAnswer::Refused(refusal) => return Err(EnlistError::Refused(refusal)),
        _ => return Err(EnlistError::Unexpected),
    };
    if enlistment.view.network != identity.network {
        return Err(EnlistError::Unexpected);
    }
    let authority = Authority::from_der(identity.network, &certificate, &enlistment.authority_key)?;
    info!(network = %identity.network, server = %identity.holder, %server, "joined as another server");
    let registry = Registry::enlisted(identity.holder, &enlistment, clock::now_ms());
    Ok(StoredNetwork::enlisted(registry, authority))
}

/// Joins at one server after the other until one does not wait for the control group.
async fn admitted(
    endpoint: &Endpoint,
    addresses: &[SocketAddr],
    token_file: Option<&Path>,
) -> Result<(SocketAddr, Credentials), EnlistError> {
    // A list that resolves is not empty.
    let mut failed = EnlistError::Unexpected;
    for &server in addresses {
        let file = token_file.map(Path::to_owned);
        let find = move || find_token(server, Role::Server, file.as_deref());
        let found = platform::run_blocking(find).await.map_err(|_| EnlistError::Interrupted)?;
        let has_failed = matches!(failed, EnlistError::Join(_));
        let token = match found {
            Ok(token) => token,
            // What the first one said is the reason that matters.
            Err(_) if has_failed => continue,
            Err(error) => return Err(error.into()),
        };
        match join(endpoint, server, &token).await {
            Ok(credentials) => return Ok((server, credentials)),
            Err(error @ JoinError::Refused(JoinRefusal::Waiting(_) | JoinRefusal::Busy)) => {
                failed = error.into();
            }
            Err(JoinError::Connect(_)) if has_failed => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(failed)
}
