//! The state of a network: the server and all nodes are asked in parallel, and the silent ones are
//! reported as silent.

use std::pin::pin;
use std::time::Duration;

use dkv_base::id::NodeId;
use dkv_wire::message::{
    Answer, NodeStatus, RequestBody, ServerAnswer, ServerRequest, ServerStatus,
};
use dkv_wire::network::{NodeInfo, NodeState, ServerInfo};
use dkv_wire::quic::Close;
use tokio::time::timeout;

use crate::client::Client;
use crate::error::Error;
use crate::options::{NetworkStatus, StatusError};
use crate::registration_server::{ServerError, ask_on, dial};
use crate::router::RequestKind;

/// Time that each process has to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1000);
/// Time that a node has which the network considers alive: it may be far away, and connecting takes
/// a round trip before the request does.
const LIVE_TIMEOUT: Duration = Duration::from_millis(4000);

/// Time between two checks of a silent node's state. The coordinator suspects a node a few election
/// timeouts after it falls silent, so right after a crash the state changes while we wait.
const CHECK_EVERY: Duration = Duration::from_millis(250);

/// Returns the time that a node in this state has to answer.
pub(crate) fn answer_timeout(state: NodeState) -> Duration {
    match state {
        NodeState::Live | NodeState::Joining => LIVE_TIMEOUT,
        NodeState::Suspect | NodeState::Down | NodeState::Left => ANSWER_TIMEOUT,
    }
}

impl Client {
    /// Asks the server and every node for their status, in parallel.
    ///
    /// Each has a second to answer, and a node that the network considers alive has four. Silent
    /// ones are part of the result, so this never fails.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) {
    /// for (node, status) in client.status().await.nodes {
    ///     match status {
    ///         Ok(status) => println!("{}: up for {} ms", node.name, status.uptime_ms),
    ///         Err(why) => println!("{}: {why}", node.name),
    ///     }
    /// }
    /// # }
    /// ```
    pub async fn status(&self) -> NetworkStatus {
        gather(self).await
    }
}

impl Client {
    /// Asks a node for its status.
    ///
    /// # Errors
    /// The node does not answer in time, or does not answer this client.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let view = client.view().await?;
    /// for node in &view.nodes {
    ///     match client.node_status(node.id).await {
    ///         Ok(status) => println!("{}: up for {} ms", node.name, status.uptime_ms),
    ///         Err(why) => println!("{}: {why}", node.name),
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn node_status(&self, node: NodeId) -> Result<NodeStatus, StatusError> {
        let known = self.cached_view();
        match known.as_ref().and_then(|view| view.node(node)) {
            Some(info) => ask(self, info).await,
            None => Err(StatusError::Silent(format!("there is no node {}", node.short()))),
        }
    }
}

async fn gather(client: &Client) -> NetworkStatus {
    let driver = client.driver();
    let known = client.cached_view().map_or(Vec::new(), |view| view.nodes);
    let asked: Vec<NodeId> = known.iter().map(|node| node.id).collect();
    let server = async {
        if !client.has_server() {
            return Err(StatusError::Silent("no address of it was given".to_owned()));
        }
        let request = ServerRequest::Status;
        match driver.server.ask(&driver.endpoint, &request, ANSWER_TIMEOUT).await {
            Ok(ServerAnswer::Status(status)) => Ok(*status),
            Ok(_) => Err(another_question()),
            Err(error) => Err(error.into()),
        }
    };
    // The coordinator's own view is newer than its last report to the server.
    let refreshed = async {
        if !asked.is_empty() {
            refresh(client).await;
        }
    };
    let placed = RequestBody::Placement { forecast: false };
    let placed = client.request(RequestKind::Control(placed), Some(ANSWER_TIMEOUT / 2));
    let placed = async {
        match placed.await {
            Ok(Answer::Placement(placement)) => Some(*placement),
            _ => None,
        }
    };
    let placed = async { if asked.is_empty() { None } else { placed.await } };
    let (server, _, placement, mut nodes) =
        tokio::join!(server, refreshed, placed, ask_all(client, known));
    let mut others = Vec::new();
    if let Ok(status) = &server {
        if let Some(view) = &status.view {
            let view = view.clone();
            driver.with(|router, now| router.handle_view(now, view));
        }
        let reports = status.nodes.iter().map(|report| NodeInfo {
            id: report.id,
            name: report.name.clone(),
            address: report.address,
            region: report.region.clone(),
            state: report.state,
        });
        others.extend(reports);
    }
    let view = client.cached_view();
    // The view has newer states than the server.
    if let Some(view) = &view {
        others.retain(|other| view.node(other.id).is_none());
        others.extend(view.nodes.iter().cloned());
        for (info, _) in &mut nodes {
            if let Some(newer) = view.node(info.id) {
                *info = newer.clone();
            }
        }
    }
    others.retain(|other| !asked.contains(&other.id));
    nodes.extend(ask_all(client, others).await);
    nodes.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
    let servers = ask_servers(client, view.as_ref().map_or(&[], |view| &view.servers)).await;
    NetworkStatus { server, servers, nodes, view, placement }
}

/// Asks all registration servers at once.
async fn ask_servers(
    client: &Client,
    servers: &[ServerInfo],
) -> Vec<(ServerInfo, Result<ServerStatus, StatusError>)> {
    let mut answers = tokio::task::JoinSet::new();
    for &server in servers {
        let client = client.clone();
        answers.spawn(async move {
            let endpoint = &client.driver().endpoint;
            let asked = async {
                let connection = dial(endpoint, server.address).await?;
                let answer = ask_on(&connection, &ServerRequest::Status, ANSWER_TIMEOUT).await;
                Close::Done.close(&connection, "the question is answered");
                answer
            };
            let status = match timeout(ANSWER_TIMEOUT, asked).await {
                Ok(Ok(ServerAnswer::Status(status))) => Ok(*status),
                Ok(Ok(_)) => Err(another_question()),
                Ok(Err(error)) => Err(error.into()),
                Err(_) => Err(StatusError::Silent("no answer in time".to_owned())),
            };
            (server, status)
        });
    }
    let mut statuses = answers.join_all().await;
    statuses.sort_by_key(|(server, _)| server.id);
    statuses
}

async fn ask_all(
    client: &Client,
    nodes: Vec<NodeInfo>,
) -> Vec<(NodeInfo, Result<NodeStatus, StatusError>)> {
    let addresses: Vec<_> = nodes.iter().map(|node| (node.id, node.address)).collect();
    client.driver().with(|router, _| router.add_registered_nodes(addresses));
    let mut answers = tokio::task::JoinSet::new();
    for node in nodes {
        let client = client.clone();
        answers.spawn(async move {
            let answer = ask(&client, &node).await;
            (node, answer)
        });
    }
    let mut answers = pin!(answers.join_all());
    loop {
        match timeout(CHECK_EVERY, &mut answers).await {
            Ok(answers) => return answers,
            // A node is silent. How long it has depends on its state, so refresh that.
            Err(_) => {
                tokio::select! {
                    biased;
                    answers = &mut answers => return answers,
                    () = refresh(client) => {}
                }
            }
        }
    }
}

/// Asks the coordinator for its view, which the router applies.
async fn refresh(client: &Client) {
    let asked = client.request(RequestKind::Control(RequestBody::View), Some(ANSWER_TIMEOUT / 2));
    // Without a coordinator the view stays unchanged.
    let _ = asked.await;
}

/// Asks a node for its status. Stops waiting early if the network comes to consider the node dead.
async fn ask(client: &Client, node: &NodeInfo) -> Result<NodeStatus, StatusError> {
    let kind = RequestKind::Direct { node: node.id, body: RequestBody::Status };
    let mut answer = pin!(client.request(kind, Some(answer_timeout(node.state))));
    let mut timeout_now = ANSWER_TIMEOUT;
    let answer = loop {
        match timeout(timeout_now, &mut answer).await {
            Ok(answer) => break answer,
            Err(_) => {
                let known = client.driver().with(|router, _| router.view().cloned());
                let newer = known.and_then(|view| view.node(node.id).map(|newer| newer.state));
                let state = newer.unwrap_or(node.state);
                if answer_timeout(state) == ANSWER_TIMEOUT {
                    return Err(StatusError::Silent(format!(
                        "{} at {} is {state}, and did not answer within {} ms",
                        node.name,
                        node.address,
                        ANSWER_TIMEOUT.as_millis(),
                    )));
                }
                timeout_now = CHECK_EVERY;
            }
        }
    };
    match answer {
        Ok(Answer::Status(status)) => Ok(*status),
        Ok(_) => Err(another_question()),
        Err(error @ Error::Unavailable(_)) => Err(StatusError::Silent(error.to_string())),
        Err(error) => Err(StatusError::Refused(error.to_string())),
    }
}

fn another_question() -> StatusError {
    StatusError::Refused("unexpected answer".to_owned())
}

impl From<ServerError> for StatusError {
    fn from(error: ServerError) -> Self {
        let why = error.to_string();
        match error {
            ServerError::Unreachable(_) | ServerError::NoAnswer(_) => Self::Silent(why),
            ServerError::OtherNetwork(_) | ServerError::Denied(_) | ServerError::Refused(_) => {
                Self::Refused(why)
            }
        }
    }
}
