//! First contact by the addresses of nodes, without the server.

use std::net::SocketAddr;
use std::time::Duration;

use dkv_base::id::{NetworkId, NodeId};
use dkv_wire::limits::FRAME_BYTES_MAX;
use dkv_wire::message::{Answer, Opening, Reply, Request, RequestBody};
use dkv_wire::network::NetworkView;
use dkv_wire::quic::{Close, Endpoint, peer_identity};
use dkv_wire::rpc::call;
use dkv_wire::tls::Expect;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::view_vote::choose_view;
use super::{ANSWER_TIMEOUT, Contact, ContactOptions};
use crate::address::HostPort;
use crate::error::ConnectError;
use crate::registration_server::is_denial;

/// Time that the others have to contradict the first node that answers.
const OTHERS_TIMEOUT: Duration = Duration::from_millis(100);
/// Nodes that are asked at once.
const NODES_ASKED_MAX: usize = 16;

/// Makes first contact with the stored credentials of any network that these nodes accept.
pub(super) async fn contact(
    options: &ContactOptions<'_>,
    nodes: &[HostPort],
) -> Result<Contact, ConnectError> {
    let ContactOptions { role, store, .. } = *options;
    let mut named = Vec::new();
    let mut failures = Vec::new();
    for node in nodes {
        match node.resolve().await {
            Ok(found) => named.extend(found.into_iter().map(|address| (Expect::AnyNode, address))),
            Err(error) => failures.push(error.to_string()),
        }
    }
    let met: Vec<_> = nodes.iter().filter_map(|node| store.network_at(node)).collect();
    let mut networks = met.clone();
    networks.extend(store.networks().into_iter().filter(|network| !met.contains(network)));
    networks.dedup();
    let (mut tried, mut unusable) = (false, None);
    for network in networks {
        let credentials = match store.credentials(network, role) {
            Ok(Some(credentials)) => credentials,
            Ok(None) => continue,
            Err(error) if met.contains(&network) => return Err(error),
            // These nodes may not be of that network.
            Err(error) => {
                unusable.get_or_insert(error);
                continue;
            }
        };
        tried = true;
        let mut asked = named.clone();
        if met.contains(&network) {
            let known = store.nodes(network, credentials.identity.role);
            asked.extend(known.into_iter().map(|(node, at)| (Expect::Node(node), at)));
        }
        let endpoint =
            Endpoint::dial_only(Some(credentials.clone())).map_err(ConnectError::Socket)?;
        match ask_nodes(&endpoint, asked).await {
            Ok(view) => {
                for node in nodes {
                    store.save_network_at(node, network);
                }
                let (connection, view) = (None, Some(view));
                let token = store.token(network, credentials.identity.role);
                return Ok(Contact { endpoint, credentials, connection, view, token });
            }
            Err(NodesError { denied: true, why }) => return Err(ConnectError::Denied(why)),
            Err(NodesError { why, .. }) => failures.push(why),
        }
    }
    if tried {
        return Err(ConnectError::Unreachable(failures.join("; ")));
    }
    let has_expired = |network: &NetworkId| matches!(store.expired(*network, role), Ok(Some(_)));
    if met.iter().any(has_expired) {
        return Err(ConnectError::Expired { role });
    }
    Err(unusable.unwrap_or(ConnectError::NoCredentials { role }))
}

/// Why no node gave a view.
pub(super) struct NodesError {
    /// Whether a node refused our certificate.
    denied: bool,
    why: String,
}

/// Asks nodes for their views and returns the one to trust; see [`super::view_vote`].
pub(super) async fn ask_nodes(
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
    let (mut views, mut until) = (Vec::new(), None);
    while views.len() < enough {
        let next = match until {
            None => asked.join_next().await,
            Some(until) => tokio::time::timeout_at(until, asked.join_next()).await.unwrap_or(None),
        };
        match next {
            None => break,
            Some(Ok(Ok(view))) => {
                views.push(view);
                until.get_or_insert_with(|| Instant::now() + OTHERS_TIMEOUT);
            }
            Some(Ok(Err(failure))) if !failures.denied => failures = failure,
            _ => {}
        }
    }
    match choose_view(views) {
        Ok(view) => Ok(view),
        Err(Some(why)) => Err(NodesError { denied: false, why }),
        Err(None) => Err(failures),
    }
}

/// Asks one node for its view; returns it with the node's id.
async fn ask_node(
    endpoint: &Endpoint,
    expect: Expect,
    address: SocketAddr,
) -> Result<(NodeId, NetworkView), NodesError> {
    let failed = |why: String| NodesError { denied: false, why };
    let connection =
        endpoint.connect(address, expect).await.map_err(|error| failed(error.to_string()))?;
    let node = peer_identity(&connection).and_then(|identity| identity.as_node());
    let node = node.ok_or_else(|| failed(format!("{address} is not a node")))?;
    let deadline_ms = ANSWER_TIMEOUT.as_millis() as u32;
    let body = RequestBody::View;
    let request = Request { id: 0, deadline_ms, forward: false, user: None, body };
    let answer: Result<Reply, _> =
        call(&connection, Some(&Opening::Requests), &request, FRAME_BYTES_MAX, ANSWER_TIMEOUT)
            .await;
    let denied = connection.close_reason().is_some_and(|reason| is_denial(&reason));
    Close::Done.close(&connection, "asked");
    match answer {
        Ok(Reply { result: Ok(Answer::View(view)), .. }) => Ok((node, *view)),
        Ok(Reply { result: Err(refusal), .. }) => Err(failed(format!("{address}: {refusal}"))),
        Ok(_) => Err(failed(format!("{address}: unexpected answer"))),
        Err(error) => Err(NodesError { denied, why: format!("{address}: {error}") }),
    }
}
