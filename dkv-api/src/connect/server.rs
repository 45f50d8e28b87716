//! First contact by the address of the registration server.

use std::net::SocketAddr;
use std::time::Duration;

use dkv_base::platform;
use dkv_wire::certificate::Credentials;
use dkv_wire::identity::Identity;
use dkv_wire::join::{JoinError, TOKEN_VARIABLE, TokenError, find_token, join, recertify};
use dkv_wire::limits::CERTIFICATE_RENEW;
use dkv_wire::local;
use dkv_wire::message::{JoinRefusal, ServerAnswer, ServerRequest};
use dkv_wire::network::NetworkView;
use dkv_wire::quic::Endpoint;
use dkv_wire::tls::Expect;
use dkv_wire::token::Token;
use tracing::{debug, warn};
use uuid::Uuid;

use super::nodes::ask_nodes;
use super::{ANSWER_TIMEOUT, Contact, ContactOptions, install_renewed};
use crate::address::HostPort;
use crate::credential_store::CredentialStore;
use crate::error::ConnectError;
use crate::registration_server::{self, ServerError};

/// Time that the server has before the nodes are asked as well.
const SERVER_HEAD_START: Duration = Duration::from_millis(150);

/// Makes first contact by one address of the server; see [`super`].
pub(super) async fn contact(
    options: &ContactOptions<'_>,
    address: &HostPort,
) -> Result<Contact, ConnectError> {
    let ContactOptions { role, store, .. } = *options;
    let resolved = address.resolve().await;
    let network = store.network_at(address);
    let stored = network.map(|network| store.credentials(network, role)).transpose()?;
    if let Some(stored) = stored.flatten() {
        let endpoint = Endpoint::dial_only(Some(stored.clone())).map_err(ConnectError::Socket)?;
        let addresses = resolved.as_ref().map_or(&[][..], |resolved| resolved);
        match present_stored(&endpoint, stored, addresses, store).await {
            Ok(contact) => return Ok(contact),
            Err(ServerError::Denied(why)) => return Err(ConnectError::Denied(why)),
            // The server at this address is not of the network that we know.
            Err(ServerError::OtherNetwork(why)) => {
                debug!(%address, why, "the stored certificate is not accepted; joining again");
            }
            Err(other) => return Err(ConnectError::Unreachable(other.to_string())),
        }
    }
    let resolved = resolved.map_err(|error| ConnectError::Unresolved(error.to_string()))?;
    let expired = network.map(|network| store.expired(network, role)).transpose()?;
    if let Some(expired) = expired.flatten()
        && let Some(contact) = replace_expired(&expired, &resolved, store).await?
    {
        return Ok(contact);
    }
    join_with_token(options, address, &resolved).await
}

/// Gets a new certificate for the holder of an expired one. Returns `None` if the server belongs to
/// another network or the certificate expired too long ago, so that the client has to join again.
async fn replace_expired(
    expired: &Credentials,
    resolved: &[SocketAddr],
    store: &CredentialStore,
) -> Result<Option<Contact>, ConnectError> {
    let endpoint = Endpoint::dial_only(None).map_err(ConnectError::Socket)?;
    let mut failure = "its name has no address".to_owned();
    for &server in resolved {
        match recertify(&endpoint, server, expired).await {
            Ok(credentials) => {
                store.save(&credentials, None);
                let Identity { network, role, .. } = credentials.identity;
                let token = store.token(network, role);
                return introduce(endpoint, credentials, server, token).await.map(Some);
            }
            Err(JoinError::OtherNetwork(_) | JoinError::Refused(JoinRefusal::Certificate)) => {
                debug!(%server, "the expired certificate is not of this network; joining again");
                return Ok(None);
            }
            Err(JoinError::Refused(JoinRefusal::Lapsed)) => {
                debug!(%server, "the certificate expired too long ago; joining again");
                return Ok(None);
            }
            Err(JoinError::Refused(why @ JoinRefusal::Denied)) => {
                return Err(ConnectError::Denied(format!(
                    "the certificate has expired, and the server issues no new one: {why}"
                )));
            }
            Err(error) if may_be_other_elsewhere(&error) => failure = error.to_string(),
            Err(error) => return Err(error.into()),
        }
    }
    Err(ConnectError::Unreachable(format!(
        "the stored certificate has expired, and only the registration server issues a new one: \
         {failure}"
    )))
}

/// Whether another server of the network may admit whom this one has not: it is down, busy or cut
/// off from the control group.
fn may_be_other_elsewhere(error: &JoinError) -> bool {
    matches!(
        error,
        JoinError::Connect(_)
            | JoinError::Call(..)
            | JoinError::Refused(
                JoinRefusal::Waiting(_) | JoinRefusal::Busy | JoinRefusal::Storage(_)
            )
    )
}

/// Presents new credentials to the server that issued them.
async fn introduce(
    endpoint: Endpoint,
    credentials: Credentials,
    server: SocketAddr,
    token: Option<Uuid>,
) -> Result<Contact, ConnectError> {
    endpoint.set_credentials(credentials.clone(), None).map_err(ConnectError::Socket)?;
    let (connection, view) = ask_server(&endpoint, &[server])
        .await
        .map_err(|error| ConnectError::Unreachable(error.to_string()))?;
    let connection = Some(connection);
    Ok(Contact { endpoint, credentials, connection, view, token })
}

/// Presents a stored certificate to the server and, if that takes long, to the nodes.
async fn present_stored(
    endpoint: &Endpoint,
    credentials: Credentials,
    addresses: &[SocketAddr],
    store: &CredentialStore,
) -> Result<Contact, ServerError> {
    let identity = credentials.identity;
    let known = store.nodes(identity.network, identity.role);
    let known = known.into_iter().map(|(node, address)| (Expect::Node(node), address)).collect();
    let server = ask_server(endpoint, addresses);
    let nodes = async {
        tokio::time::sleep(SERVER_HEAD_START).await;
        ask_nodes(endpoint, known).await
    };
    tokio::pin!(server, nodes);
    let contact = |connection, view| Contact {
        endpoint: endpoint.clone(),
        credentials: credentials.clone(),
        connection,
        view,
        token: store.token(identity.network, identity.role),
    };
    tokio::select! {
        biased;
        answer = &mut server => match answer {
            Ok((connection, view)) => {
                let mut contact = contact(Some(connection), view);
                renew_if_old(&mut contact, store).await;
                Ok(contact)
            }
            Err(error @ (ServerError::OtherNetwork(_) | ServerError::Denied(_))) => Err(error),
            Err(error) => nodes.await.map(|view| contact(None, Some(view))).map_err(|_| error),
        },
        answer = &mut nodes => match answer {
            Ok(view) => Ok(contact(None, Some(view))),
            Err(_) => server.await.map(|(connection, view)| contact(Some(connection), view)),
        },
    }
}

/// Joins the network of a server with a token.
async fn join_with_token(
    options: &ContactOptions<'_>,
    address: &HostPort,
    resolved: &[SocketAddr],
) -> Result<Contact, ConnectError> {
    let endpoint = Endpoint::dial_only(None).map_err(ConnectError::Socket)?;
    // The first failure that is not a dead server: it tells most, and a later server's word that
    // the token is used up may be due to it.
    let mut telling: Option<ConnectError> = None;
    let mut failure = ConnectError::NoAddress;
    for &server in resolved {
        let token = match token_for(options, server) {
            Ok(token) => token,
            Err(error) => return Err(telling.unwrap_or(error.into())),
        };
        let credentials = match join(&endpoint, server, &token).await {
            Ok(credentials) => credentials,
            Err(error @ JoinError::Connect(_)) => {
                failure = error.into();
                continue;
            }
            Err(error) if may_be_other_elsewhere(&error) => {
                telling.get_or_insert(error.into());
                continue;
            }
            Err(error) => return Err(telling.unwrap_or(error.into())),
        };
        options.store.save(&credentials, Some(token.id));
        options.store.save_network_at(address, credentials.identity.network);
        return introduce(endpoint, credentials, server, Some(token.id)).await;
    }
    Err(telling.unwrap_or(failure))
}

/// Does what [`find_token`] does, with the client's home directory instead of the user's.
fn token_for(options: &ContactOptions<'_>, server: SocketAddr) -> Result<Token, TokenError> {
    let ContactOptions { role, store, ref token_file, ref token } = *options;
    if let Some(token) = token.get() {
        return Ok(token.clone());
    }
    let named = dkv_base::environment::value(TOKEN_VARIABLE).is_some();
    if token_file.is_some() || named {
        let read = find_token(server, role, token_file.as_deref())?;
        return Ok(token.get_or_init(|| read).clone());
    }
    let left = store.home().map(|home| local::find_token(home, server, role)).transpose();
    left.map_err(TokenError::File)?.flatten().ok_or(TokenError::Missing { server, role })
}

/// Asks the server for its view.
async fn ask_server(
    endpoint: &Endpoint,
    addresses: &[SocketAddr],
) -> Result<(quinn::Connection, Option<NetworkView>), ServerError> {
    let mut failure = ServerError::Unreachable("its name has no address".into());
    for &address in addresses {
        let asked = async {
            let connection = registration_server::dial(endpoint, address).await?;
            let lookup = ServerRequest::Lookup;
            let answer = registration_server::ask_on(&connection, &lookup, ANSWER_TIMEOUT).await?;
            match answer {
                ServerAnswer::View(view) => Ok((connection, view.map(|view| *view))),
                _ => Err(ServerError::NoAnswer("unexpected answer".into())),
            }
        };
        match asked.await {
            Ok(answer) => return Ok(answer),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Renews an old certificate on connecting: a client that only ever runs for a moment never reaches
/// its background renewal.
async fn renew_if_old(contact: &mut Contact, store: &CredentialStore) {
    let old =
        contact.credentials.age(platform::wall_clock()).is_ok_and(|age| age > CERTIFICATE_RENEW);
    let (true, Some(connection)) = (old, &contact.connection) else { return };
    let Ok(public_key) = contact.credentials.public_key() else { return };
    let request = ServerRequest::Renew { public_key };
    match registration_server::ask_on(connection, &request, ANSWER_TIMEOUT).await {
        Ok(ServerAnswer::Certificate(certificate)) => {
            match install_renewed(&contact.endpoint, &contact.credentials, &certificate, store) {
                Some(renewed) => contact.credentials = renewed,
                None => warn!("the renewed certificate is not usable"),
            }
        }
        Ok(_) => warn!("the certificate was not renewed: unexpected answer"),
        Err(error) => warn!(%error, "the certificate was not renewed"),
    }
}
