//! First contact: from addresses to credentials that are accepted and a view of the network.
//!
//! For each server, in the order given:
//!
//! 1. If a certificate is stored for the network that was last met at that address, and has not
//!    expired, it is shown. A server that does not answer soon is not waited for: the nodes that
//!    were last seen are asked as well, and whoever answers first is enough.
//! 2. If the stored certificate has expired, the client proves to the server that it has the key of
//!    it, and gets another for the same holder.
//! 3. Without one, or if the server turns out to be another network's by now, the client joins with
//!    a token, and keeps what it gets.
//!
//! A holder that was *denied* does not join again by itself: somebody has revoked it on purpose.
//! Given nodes come last; they only accept stored credentials, because only the server admits.

use std::net::SocketAddr;
use std::time::Duration;

use dkv_base::id::{NetworkId, NodeId};
use dkv_base::platform;
use dkv_wire::call::call;
use dkv_wire::certificate::Credentials;
use dkv_wire::join::{JoinError, TOKEN_VARIABLE, TokenError, find_token, join, recertify};
use dkv_wire::limits::{CERTIFICATE_RENEW, FRAME_BYTES_MAX};
use dkv_wire::local;
use dkv_wire::message::{
    Answer, JoinRefusal, Opening, Reply, Request, RequestBody, ServerAnswer, ServerRequest,
};
use dkv_wire::network::NetworkView;
use dkv_wire::quic::{Close, Endpoint, peer_identity};
use dkv_wire::tls::Expect;
use dkv_wire::token::Token;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::address::HostPort;
use crate::builder::ClientBuilder;
use crate::error::ConnectError;
use crate::first_view;
use crate::keep::Keep;
use crate::server::{self, ServerError, is_denial};

/// Time that the server has before nodes are asked as well.
const SERVER_HEAD_START: Duration = Duration::from_millis(150);
/// Time that one process has to answer when several could.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Time in which others may contradict the first node that answers.
const OTHERS_TIMEOUT: Duration = Duration::from_millis(100);
/// Nodes that are asked at once.
const NODES_ASKED_MAX: usize = 16;

/// The network answers.
pub(crate) struct Contact {
    pub(crate) endpoint: Endpoint,
    pub(crate) credentials: Credentials,
    /// To the server, if that is who answered.
    pub(crate) connection: Option<quinn::Connection>,
    /// `None` if nobody has bootstrapped the network yet.
    pub(crate) view: Option<NetworkView>,
}

/// Makes the first contact.
pub(crate) async fn contact(
    builder: &ClientBuilder,
    servers: &[HostPort],
    nodes: &[HostPort],
    keep: &Keep,
) -> Result<Contact, ConnectError> {
    let mut failures = Vec::new();
    for address in servers {
        match by_server(builder, address, keep).await {
            Ok(contact) => return Ok(contact),
            Err(error @ ConnectError::Stored { .. }) => return Err(error),
            Err(error) => failures.push(error),
        }
    }
    if !nodes.is_empty() {
        match by_nodes(builder, nodes, keep).await {
            Ok(contact) => return Ok(contact),
            Err(error @ ConnectError::Stored { .. }) => return Err(error),
            Err(error) => failures.push(error),
        }
    }
    if failures.len() > 1 {
        let texts: Vec<String> = failures.iter().map(ToString::to_string).collect();
        return Err(ConnectError::Unreachable(texts.join("; ")));
    }
    Err(failures.pop().unwrap_or(ConnectError::NoAddress))
}

async fn by_server(
    builder: &ClientBuilder,
    address: &HostPort,
    keep: &Keep,
) -> Result<Contact, ConnectError> {
    let resolved = address.resolve().await;
    let network = keep.network_at(address);
    let stored = network.map(|network| keep.credentials(network, builder.role)).transpose()?;
    if let Some(stored) = stored.flatten() {
        let endpoint = Endpoint::dial_only(Some(stored.clone())).map_err(ConnectError::Socket)?;
        let addresses = resolved.as_ref().map_or(&[][..], |resolved| resolved);
        match by_stored(&endpoint, stored, addresses, keep).await {
            Ok(contact) => return Ok(contact),
            Err(ServerError::Denied(why)) => return Err(ConnectError::Denied(why)),
            // Whoever is there now, it is not the network that we know.
            Err(ServerError::OtherNetwork(why)) => {
                debug!(%address, why, "the stored certificate is not accepted; joining again");
            }
            Err(other) => return Err(ConnectError::Unreachable(other.to_string())),
        }
    }
    let resolved = resolved.map_err(ConnectError::Unresolved)?;
    let expired = network.map(|network| keep.expired(network, builder.role)).transpose()?;
    if let Some(expired) = expired.flatten()
        && let Some(contact) = by_expired(&expired, &resolved, keep).await?
    {
        return Ok(contact);
    }
    by_token(builder, address, &resolved, keep).await
}

/// Gets a new certificate for the holder of one that has expired; nothing if the server is of
/// another network by now.
async fn by_expired(
    expired: &Credentials,
    resolved: &[SocketAddr],
    keep: &Keep,
) -> Result<Option<Contact>, ConnectError> {
    let endpoint = Endpoint::dial_only(None).map_err(ConnectError::Socket)?;
    let mut failure = "its name has no address".to_owned();
    for &server in resolved {
        match recertify(&endpoint, server, expired).await {
            Ok(credentials) => {
                keep.save(&credentials);
                return introduce(endpoint, credentials, server).await.map(Some);
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
                    "the certificate has expired, and the server gives no new one: {why}"
                )));
            }
            Err(error @ (JoinError::Connect(_) | JoinError::Call(..))) => {
                failure = error.to_string();
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(ConnectError::Unreachable(format!(
        "the stored certificate has expired, and only the registration server gives a new one: \
         {failure}"
    )))
}

/// Shows fresh credentials to the server.
async fn introduce(
    endpoint: Endpoint,
    credentials: Credentials,
    server: SocketAddr,
) -> Result<Contact, ConnectError> {
    endpoint.set_credentials(credentials.clone(), None).map_err(ConnectError::Socket)?;
    let (connection, view) = ask_server(&endpoint, &[server])
        .await
        .map_err(|error| ConnectError::Unreachable(error.to_string()))?;
    Ok(Contact { endpoint, credentials, connection: Some(connection), view })
}

/// Shows a stored certificate to the server and, if that takes long, to the nodes.
async fn by_stored(
    endpoint: &Endpoint,
    credentials: Credentials,
    addresses: &[SocketAddr],
    keep: &Keep,
) -> Result<Contact, ServerError> {
    let identity = credentials.identity;
    let known = keep.nodes(identity.network, identity.role);
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
    };
    tokio::select! {
        biased;
        answer = &mut server => match answer {
            Ok((connection, view)) => {
                let mut contact = contact(Some(connection), view);
                renew_if_old(&mut contact, keep).await;
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

/// Joins the network of a server.
async fn by_token(
    builder: &ClientBuilder,
    address: &HostPort,
    resolved: &[SocketAddr],
    keep: &Keep,
) -> Result<Contact, ConnectError> {
    let endpoint = Endpoint::dial_only(None).map_err(ConnectError::Socket)?;
    let mut failure = ConnectError::NoAddress;
    for &server in resolved {
        let token = token_for(builder, server, keep)?;
        let credentials = match join(&endpoint, server, &token).await {
            Ok(credentials) => credentials,
            Err(error @ (JoinError::Connect(_) | JoinError::Call(..))) => {
                failure = error.into();
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        keep.save(&credentials);
        keep.met(address, credentials.identity.network);
        return introduce(endpoint, credentials, server).await;
    }
    Err(failure)
}

/// As [`find_token`], in the builder's home instead of the user's.
fn token_for(
    builder: &ClientBuilder,
    server: SocketAddr,
    keep: &Keep,
) -> Result<Token, TokenError> {
    let role = builder.role;
    let named = dkv_base::environment::value(TOKEN_VARIABLE).is_some();
    if builder.token_file.is_some() || named {
        return find_token(server, role, builder.token_file.as_deref());
    }
    let left = keep.home().map(|home| local::find_token(home, server, role)).transpose();
    left.map_err(TokenError::File)?.flatten().ok_or(TokenError::Missing { server, role })
}

async fn by_nodes(
    builder: &ClientBuilder,
    nodes: &[HostPort],
    keep: &Keep,
) -> Result<Contact, ConnectError> {
    let mut named = Vec::new();
    let mut failures = Vec::new();
    for node in nodes {
        match node.resolve().await {
            Ok(found) => named.extend(found.into_iter().map(|address| (Expect::AnyNode, address))),
            Err(why) => failures.push(why),
        }
    }
    let met: Vec<_> = nodes.iter().filter_map(|node| keep.network_at(node)).collect();
    let mut networks = met.clone();
    networks.extend(keep.networks().into_iter().filter(|network| !met.contains(network)));
    networks.dedup();
    let (mut tried, mut unusable) = (false, None);
    for network in networks {
        let credentials = match keep.credentials(network, builder.role) {
            Ok(Some(credentials)) => credentials,
            Ok(None) => continue,
            Err(error) if met.contains(&network) => return Err(error),
            // It may be of a network that these nodes are not of.
            Err(error) => {
                unusable.get_or_insert(error);
                continue;
            }
        };
        tried = true;
        let mut asked = named.clone();
        if met.contains(&network) {
            let known = keep.nodes(network, credentials.identity.role);
            asked.extend(known.into_iter().map(|(node, at)| (Expect::Node(node), at)));
        }
        let endpoint =
            Endpoint::dial_only(Some(credentials.clone())).map_err(ConnectError::Socket)?;
        match ask_nodes(&endpoint, asked).await {
            Ok(view) => {
                for node in nodes {
                    keep.met(node, network);
                }
                return Ok(Contact { endpoint, credentials, connection: None, view: Some(view) });
            }
            Err(NodesError { denied: true, why }) => return Err(ConnectError::Denied(why)),
            Err(NodesError { why, .. }) => failures.push(why),
        }
    }
    if tried {
        return Err(ConnectError::Unreachable(failures.join("; ")));
    }
    let has_expired =
        |network: &NetworkId| matches!(keep.expired(*network, builder.role), Ok(Some(_)));
    if met.iter().any(has_expired) {
        return Err(ConnectError::Expired { role: builder.role });
    }
    Err(unusable.unwrap_or(ConnectError::NoCredentials { role: builder.role }))
}

async fn ask_server(
    endpoint: &Endpoint,
    addresses: &[SocketAddr],
) -> Result<(quinn::Connection, Option<NetworkView>), ServerError> {
    let mut failure = ServerError::Unreachable("its name has no address".into());
    for &address in addresses {
        let asked = async {
            let connection = server::dial(endpoint, address).await?;
            let answer =
                server::ask_on(&connection, &ServerRequest::Lookup, ANSWER_TIMEOUT).await?;
            match answer {
                ServerAnswer::View(view) => Ok((connection, view.map(|view| *view))),
                _ => Err(ServerError::NoAnswer("the answer is to another question".into())),
            }
        };
        match asked.await {
            Ok(answer) => return Ok(answer),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

struct NodesError {
    denied: bool,
    why: String,
}

/// The view that most of these nodes agree with of those that answer.
async fn ask_nodes(
    endpoint: &Endpoint,
    nodes: Vec<(Expect, SocketAddr)>,
) -> Result<NetworkView, NodesError> {
    let mut asked = JoinSet::new();
    for (expect, address) in nodes.into_iter().take(NODES_ASKED_MAX) {
        let endpoint = endpoint.clone();
        asked.spawn(async move { ask_node(&endpoint, expect, address).await });
    }
    let enough = asked.len() / 2 + 1;
    let mut failures = NodesError { denied: false, why: "no node is known".into() };
    let (mut told, mut until) = (Vec::new(), None);
    while told.len() < enough {
        let next = match until {
            None => asked.join_next().await,
            Some(until) => tokio::time::timeout_at(until, asked.join_next()).await.unwrap_or(None),
        };
        match next {
            None => break,
            Some(Ok(Ok(view))) => {
                told.push(view);
                until.get_or_insert_with(|| Instant::now() + OTHERS_TIMEOUT);
            }
            Some(Ok(Err(failure))) if !failures.denied => failures = failure,
            _ => {}
        }
    }
    match first_view::choose(told) {
        Ok(view) => Ok(view),
        Err(Some(why)) => Err(NodesError { denied: false, why }),
        Err(None) => Err(failures),
    }
}

async fn ask_node(
    endpoint: &Endpoint,
    expect: Expect,
    address: SocketAddr,
) -> Result<(NodeId, NetworkView), NodesError> {
    let failed = |why: String| NodesError { denied: false, why };
    let connection =
        endpoint.connect(address, expect).await.map_err(|error| failed(error.to_string()))?;
    let node = peer_identity(&connection).and_then(|identity| identity.as_node());
    let node = node.ok_or_else(|| failed(format!("{address}: it is no node")))?;
    let deadline_ms = ANSWER_TIMEOUT.as_millis() as u32;
    let request = Request { id: 0, deadline_ms, forward: false, body: RequestBody::View };
    let answer: Result<Reply, _> =
        call(&connection, Some(&Opening::Requests), &request, FRAME_BYTES_MAX, ANSWER_TIMEOUT)
            .await;
    let denied = connection.close_reason().is_some_and(|reason| is_denial(&reason));
    Close::Done.close(&connection, "asked");
    match answer {
        Ok(Reply { result: Ok(Answer::View(view)), .. }) => Ok((node, *view)),
        Ok(Reply { result: Err(refusal), .. }) => Err(failed(format!("{address}: {refusal}"))),
        Ok(_) => Err(failed(format!("{address}: the answer is to another question"))),
        Err(error) => Err(NodesError { denied, why: format!("{address}: {error}") }),
    }
}

/// A client that runs for a moment only, again and again, has no background to renew in.
async fn renew_if_old(contact: &mut Contact, keep: &Keep) {
    let old =
        contact.credentials.age(platform::wall_clock()).is_ok_and(|age| age > CERTIFICATE_RENEW);
    let (true, Some(connection)) = (old, &contact.connection) else { return };
    let Ok(public_key) = contact.credentials.public_key() else { return };
    let request = ServerRequest::Renew { public_key };
    match server::ask_on(connection, &request, ANSWER_TIMEOUT).await {
        Ok(ServerAnswer::Certificate(certificate)) => {
            match take_renewed(&contact.endpoint, &contact.credentials, &certificate, keep) {
                Some(renewed) => contact.credentials = renewed,
                None => warn!("the renewed certificate is not usable"),
            }
        }
        Ok(_) => warn!("the certificate was not renewed: the answer is to another question"),
        Err(error) => warn!(%error, "the certificate was not renewed"),
    }
}

/// Uses and keeps a renewed certificate.
pub(crate) fn take_renewed(
    endpoint: &Endpoint,
    credentials: &Credentials,
    certificate: &[u8],
    keep: &Keep,
) -> Option<Credentials> {
    let renewed = credentials.renewed(certificate).ok()?;
    endpoint.set_credentials(renewed.clone(), None).ok()?;
    keep.save(&renewed);
    Some(renewed)
}

/// Uses and keeps fresh credentials.
pub(crate) fn take(endpoint: &Endpoint, credentials: &Credentials, keep: &Keep) {
    match endpoint.set_credentials(credentials.clone(), None) {
        Ok(()) => keep.save(credentials),
        Err(error) => warn!(%error, "the new certificate is not usable"),
    }
}

/// The nodes that were last seen, for a router that has no view.
pub(crate) fn known_nodes(keep: &Keep, credentials: &Credentials) -> Vec<(NodeId, SocketAddr)> {
    keep.nodes(credentials.identity.network, credentials.identity.role)
}
