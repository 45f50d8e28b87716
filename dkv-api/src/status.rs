//! How a network is: everybody is asked at once, and whoever is silent is reported as silent.

use std::pin::pin;
use std::time::Duration;

use dkv_base::id::NodeId;
use dkv_wire::message::{Answer, NodeStatus, RequestBody, ServerAnswer, ServerRequest};
use dkv_wire::network::{NodeInfo, NodeState};

use tokio::time::timeout;

use crate::Client;
use crate::options::NetworkStatus;
use crate::router::Work;

/// Time that each process has to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1000);
/// The same of a node that the network takes to be alive: it may be far, and a connection to it
/// takes a round trip before the question does.
const LIVE_TIMEOUT: Duration = Duration::from_millis(4000);

/// Time between two looks at what the network takes a silent node to be. The coordinator suspects a
/// node some election times after it fell silent, so whoever asks right after a death learns of it
/// by asking again.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Time that a node has to answer.
pub(crate) fn patience(state: NodeState) -> Duration {
    match state {
        NodeState::Live | NodeState::Joining => LIVE_TIMEOUT,
        NodeState::Suspect | NodeState::Down | NodeState::Left => ANSWER_TIMEOUT,
    }
}

pub(crate) async fn gather(client: &Client) -> NetworkStatus {
    let shared = client.shared();
    let seen = |client: &Client| {
        client.shared().with(|router, _| router.view().map(|view| (**view).clone()))
    };
    let known = seen(client).map_or(Vec::new(), |view| view.nodes);
    let asked: Vec<NodeId> = known.iter().map(|node| node.id).collect();
    let server = async {
        if !client.has_server() {
            return Err("no address of it was given".to_owned());
        }
        let request = ServerRequest::Status;
        match shared.server.ask(&shared.endpoint, &request, ANSWER_TIMEOUT).await {
            Ok(ServerAnswer::Status(status)) => Ok(*status),
            Ok(_) => Err("the answer is to another question".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    };
    // The coordinator's own view is newer than what it has reported.
    let refreshed = async {
        if !asked.is_empty() {
            refresh(client).await;
        }
    };
    let placed = RequestBody::Placement { forecast: false };
    let placed = client.request(Work::Control(placed), Some(ANSWER_TIMEOUT / 2));
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
            shared.with(|router, now| router.handle_view(now, view));
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
    let view = seen(client);
    // The view speaks of states later than the server does.
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
    NetworkStatus { server, nodes, view, placement }
}

async fn ask_all(
    client: &Client,
    nodes: Vec<NodeInfo>,
) -> Vec<(NodeInfo, Result<NodeStatus, String>)> {
    let addresses: Vec<_> = nodes.iter().map(|node| (node.id, node.address)).collect();
    client.shared().with(|router, _| router.meet_nodes(addresses));
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
        match timeout(LOOK_EVERY, &mut answers).await {
            Ok(answers) => return answers,
            // Somebody is silent: what the network takes it to be decides how long it has.
            Err(_) => {
                tokio::select! {
                    answers = &mut answers => return answers,
                    () = refresh(client) => {}
                }
            }
        }
    }
}

/// Asks the coordinator for its view; the router takes it in.
async fn refresh(client: &Client) {
    let asked = client.request(Work::Control(RequestBody::View), Some(ANSWER_TIMEOUT / 2));
    // Without a coordinator the view stays as it is.
    let _ = asked.await;
}

/// Asks a node. If it turns out meanwhile that the network does not take it to be alive, it has no
/// longer than any such node.
async fn ask(client: &Client, node: &NodeInfo) -> Result<NodeStatus, String> {
    let work = Work::Direct { node: node.id, body: RequestBody::Status };
    let mut answer = pin!(client.request(work, Some(patience(node.state))));
    let mut patience_now = ANSWER_TIMEOUT;
    let answer = loop {
        match timeout(patience_now, &mut answer).await {
            Ok(answer) => break answer,
            Err(_) => {
                let known = client.shared().with(|router, _| router.view().cloned());
                let newer = known.and_then(|view| view.node(node.id).map(|newer| newer.state));
                let state = newer.unwrap_or(node.state);
                if patience(state) == ANSWER_TIMEOUT {
                    return Err(format!(
                        "{} at {} is {state}, and did not answer within {} ms",
                        node.name,
                        node.address,
                        ANSWER_TIMEOUT.as_millis(),
                    ));
                }
                patience_now = LOOK_EVERY;
            }
        }
    };
    match answer {
        Ok(Answer::Status(status)) => Ok(*status),
        Ok(_) => Err("the answer is to another question".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
