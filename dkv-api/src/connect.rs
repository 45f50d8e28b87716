//! First contact: from addresses to accepted credentials and a view of the network.
//!
//! For each server address, in the given order ([`server`]):
//!
//! 1. If the client has a valid certificate for the network last met at that address, it presents
//!    it. If the server does not answer soon, the client also asks the nodes last seen; the first
//!    answer suffices.
//! 2. If the stored certificate has expired, the client proves to the server that it holds the key
//!    and gets a new certificate for the same holder.
//! 3. Without a certificate, or if the server now belongs to another network, the client joins with
//!    a token and stores what it gets.
//!
//! A holder that was *denied* does not join again by itself: an administrator revoked it on
//! purpose. Node addresses come last ([`nodes`]). Nodes accept only stored credentials, because
//! only the server admits.

mod nodes;
mod server;
mod view_vote;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use dkv_base::id::NodeId;
use dkv_wire::certificate::Credentials;
use dkv_wire::identity::Role;
use dkv_wire::network::NetworkView;
use dkv_wire::quic::Endpoint;
use dkv_wire::race::answering_first;
use dkv_wire::token::Token;
use tracing::warn;
use uuid::Uuid;

use crate::address::HostPort;
use crate::credential_store::CredentialStore;
use crate::error::ConnectError;

/// Time that one process has to answer where several could.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// What to connect as, and with what.
pub(crate) struct ContactOptions<'a> {
    pub(crate) role: Role,
    /// The file of the join token; see [`ClientBuilder::token_file`](crate::ClientBuilder).
    pub(crate) token_file: Option<PathBuf>,
    /// The token that was named, once it was read: a pipe can be read only once.
    pub(crate) token: OnceLock<Token>,
    pub(crate) store: &'a CredentialStore,
}

/// A network that has answered.
pub(crate) struct Contact {
    pub(crate) endpoint: Endpoint,
    pub(crate) credentials: Credentials,
    /// The connection to the server, if the server answered.
    pub(crate) connection: Option<quinn::Connection>,
    /// `None` if the network has not been bootstrapped yet.
    pub(crate) view: Option<NetworkView>,
    /// The id of the token with which the credentials were got, if it is known.
    pub(crate) token: Option<Uuid>,
}

/// Makes first contact by the first address that leads to the network.
pub(crate) async fn contact(
    options: &ContactOptions<'_>,
    servers: &[HostPort],
    nodes: &[HostPort],
) -> Result<Contact, ConnectError> {
    let mut failures = Vec::new();
    for address in &in_order(options, servers).await {
        match server::contact(options, address).await {
            Ok(contact) => return Ok(contact),
            Err(error @ ConnectError::Stored { .. }) => return Err(error),
            Err(error) => failures.push(error),
        }
    }
    if !nodes.is_empty() {
        match nodes::contact(options, nodes).await {
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

/// Returns the servers in the order in which to try them: one that answers first, then the others
/// that were given, then those that the network named when it was met last.
async fn in_order(options: &ContactOptions<'_>, servers: &[HostPort]) -> Vec<HostPort> {
    let mut ordered = servers.to_vec();
    for network in servers.iter().filter_map(|server| options.store.network_at(server)) {
        for known in options.store.servers(network, options.role) {
            if !ordered.contains(&known) {
                ordered.push(known);
            }
        }
    }
    let Some(second) = ordered.get(1..).filter(|others| !others.is_empty()) else {
        return ordered;
    };
    let mut resolved = Vec::new();
    for server in std::iter::once(&ordered[0]).chain(second) {
        let addresses = server.resolve().await.unwrap_or_default();
        resolved.extend(addresses.into_iter().map(|address| (address, server.clone())));
    }
    let addresses: Vec<SocketAddr> = resolved.iter().map(|(address, _)| *address).collect();
    let Ok(endpoint) = Endpoint::dial_only(None) else { return ordered };
    let first = answering_first(&endpoint, &addresses).await.into_iter().next();
    let first = resolved.into_iter().find(|(address, _)| Some(*address) == first);
    if let Some((_, first)) = first {
        ordered.retain(|server| *server != first);
        ordered.insert(0, first);
    }
    ordered
}

/// Installs and stores a renewed certificate. Returns `None` if it is unusable.
pub(crate) fn install_renewed(
    endpoint: &Endpoint,
    credentials: &Credentials,
    certificate: &[u8],
    store: &CredentialStore,
) -> Option<Credentials> {
    let renewed = credentials.renewed(certificate).ok()?;
    endpoint.set_credentials(renewed.clone(), None).ok()?;
    store.save(&renewed, None);
    Some(renewed)
}

/// Installs and stores new credentials.
pub(crate) fn install(endpoint: &Endpoint, credentials: &Credentials, store: &CredentialStore) {
    match endpoint.set_credentials(credentials.clone(), None) {
        Ok(()) => store.save(credentials, None),
        Err(error) => warn!(%error, "the new certificate is not usable"),
    }
}

/// Returns the addresses of the nodes last seen, for a router that has no view.
pub(crate) fn known_nodes(
    store: &CredentialStore,
    credentials: &Credentials,
) -> Vec<(NodeId, SocketAddr)> {
    store.nodes(credentials.identity.network, credentials.identity.role)
}
