//! How a node stays registered with the server.
//!
//! At every start a node tells the server its address and learns the addresses of the others. The
//! very first node of all also learns that it must bootstrap the network. While the server is down,
//! a node that has registered before does without it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dkv_wire::message::{Admission, ControlGroup, ServerAnswer, ServerRefusal, ServerRequest};
use dkv_wire::quic::ConnectError;
use dkv_wire::region::Region;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::enrolment::{SERVER_RETRY, Waiting};
use crate::net::server_link::{ServerError, ServerLink};
use crate::node::{Me, Node};
use crate::process::error::ProcessError;
use crate::storage::data_dir::DataDir;

/// Time within which a name may become free because the node that had it is found to be gone.
const NAME_PATIENCE: Duration = Duration::from_secs(20);
/// Interval at which a running node registers again, so that a restarted server knows it.
const REGISTER_EVERY: Duration = Duration::from_secs(10);
/// Time after the start within which a server of another network counts as an operator's mistake.
const FIRST_MEETING: Duration = Duration::from_secs(10);
/// Interval between reminders that a running node does not reach the server.
const UNREACHED_REMIND: Duration = Duration::from_secs(600);

/// What a node tells the server at every start, and now and then.
pub(crate) struct Registration {
    pub(crate) server: Arc<ServerLink>,
    pub(crate) name: Option<String>,
    pub(crate) address: SocketAddr,
    pub(crate) region: Option<Region>,
}

impl Registration {
    async fn register(&self, control: Option<ControlGroup>) -> Result<Admission, ServerError> {
        let request = ServerRequest::Register {
            name: self.name.clone(),
            address: self.address,
            region: self.region.clone(),
            control,
        };
        match self.server.ask(&request).await? {
            ServerAnswer::Admitted(admission) => Ok(*admission),
            _ => Err(ServerError::Unexpected),
        }
    }

    /// Registers, and waits for the server as long as it takes.
    pub(crate) async fn insist(&self, directory: &DataDir) -> Result<Admission, ProcessError> {
        let mut waiting = Waiting::default();
        let begun = Instant::now();
        loop {
            match self.register(None).await {
                Ok(admission) => return Ok(admission),
                // The machine that had the name may just have lost its data, and be this one.
                Err(error @ ServerError::Refused(ServerRefusal::NameTaken(_)))
                    if begun.elapsed() < NAME_PATIENCE =>
                {
                    waiting.on("the name", &error.to_string()).await;
                }
                Err(error) => match fatal(&error, directory) {
                    Some(fatal) => return Err(fatal),
                    None => waiting.on("the registration server", &error.to_string()).await,
                },
            }
        }
    }
}

/// Returns the error that stops a running node, if the server's answer makes asking again useless.
///
/// A running node accepts only the word of its own network's server: another process that answers
/// at the server's address must not be able to stop it.
fn fatal_while_running(error: &ServerError, directory: &DataDir) -> Option<ProcessError> {
    match error {
        ServerError::Connect(ConnectError::Refused { .. }) | ServerError::Resolve(..) => None,
        other => fatal(other, directory),
    }
}

/// The same for a node that was here before and meets the server for the first time after its
/// start. Such a node serves without the server, so a server name that does not resolve must not
/// stop it.
fn fatal_at_restart(error: &ServerError, directory: &DataDir) -> Option<ProcessError> {
    match error {
        ServerError::Resolve(..) => None,
        other => fatal(other, directory),
    }
}

/// Whether such an error stops a node that the directory lists, too: the directory overrides the
/// server's books. A server that was restored from an old copy does not know such a node, and may
/// find its name taken or no room for it.
fn fatal_if_listed(error: &ServerError) -> bool {
    match error {
        ServerError::Refused(refusal) => matches!(refusal, ServerRefusal::Denied(_)),
        _ => true,
    }
}

/// Returns the error that stops a node that is just starting, if the answer makes asking again
/// useless.
fn fatal(error: &ServerError, directory: &DataDir) -> Option<ProcessError> {
    let directory = directory.path().to_owned();
    match error {
        ServerError::Connect(ConnectError::Removed { why, .. }) => {
            Some(ProcessError::Removed { why: why.clone(), directory })
        }
        ServerError::Connect(ConnectError::Refused { address, why }) => {
            Some(ProcessError::OtherNetwork { directory, address: *address, why: why.clone() })
        }
        ServerError::Refused(ServerRefusal::Storage(_) | ServerRefusal::Waiting(_)) => None,
        ServerError::Refused(refusal) => Some(ProcessError::Refused(refusal.clone())),
        ServerError::Resolve(name, why) => {
            Some(ServerError::Resolve(name.clone(), why.clone()).into())
        }
        ServerError::Connect(_) | ServerError::Silent(_) | ServerError::Unexpected => None,
    }
}

/// Learns from the server where the other nodes are.
///
/// The directory knows better, as long as this node can follow it. When all nodes have moved, the
/// addresses in the directory are stale; so for a node without a connection, this node tries the
/// address under which that node has registered.
pub(crate) fn learn(node: &Node, admission: &Admission) {
    node.vouched_by_server(&admission.vouched);
    let begun = node.control().state_machine().with_directory(|directory| directory.exists());
    if let (Some(view), false) = (&admission.view, begun.unwrap_or(false)) {
        node.connections().keep_apart(node.me(), &view.settings.delays, &view.nodes);
    }
    let reported = admission.view.iter().flat_map(|view| &view.nodes);
    let reported = reported.map(|node| (node.id, node.address));
    // A node registers under its new address before any coordinator can report it.
    let known: BTreeMap<_, _> = reported.chain(admission.peers.iter().copied()).collect();
    for (id, address) in known {
        if id != node.id() && !node.peers().is_connected(id) {
            node.peers().learn(id, address);
        }
    }
}

/// Registers at a server beside the one that this node keeps to, now and then. That one decides;
/// the others only need to know that the node is there.
pub(crate) async fn keep_known(node: Arc<Node>, server: Arc<ServerLink>) {
    let Me { name, address, region, .. } = node.me().clone();
    let registration = Registration { server, name: Some(name), address, region };
    loop {
        if node.incarnations().held().is_none() {
            match registration.register(node.replicas().control_group()).await {
                Ok(admission) => learn(&node, &admission),
                Err(error) => debug!(%error, "not registered at another server"),
            }
        }
        tokio::time::sleep(REGISTER_EVERY).await;
    }
}

/// Registers until it succeeds, and again now and then.
pub(crate) async fn keep_registered(node: Arc<Node>, registration: Registration) {
    let registration = Registration { name: Some(node.me().name.clone()), ..registration };
    let begun = Instant::now();
    let mut met = false;
    let mut told: Option<(String, Instant)> = None;
    loop {
        if node.incarnations().held().is_some() {
            // The address of this incarnation is of no use to other nodes.
            tokio::time::sleep(SERVER_RETRY).await;
            continue;
        }
        // The first meeting shows whether directory and server belong to the same network.
        let is_first = !met && begun.elapsed() <= FIRST_MEETING;
        let judge = if is_first { fatal_at_restart } else { fatal_while_running };
        let pause = match registration.register(node.replicas().control_group()).await {
            Ok(admission) => {
                met = true;
                if told.take().is_some() {
                    info!("the registration server answers");
                }
                learn(&node, &admission);
                // The network has not begun, or all nodes have moved: the server hears of it first.
                if node.control().leader().is_some() { REGISTER_EVERY } else { SERVER_RETRY }
            }
            Err(error) => match judge(&error, node.store().data_dir()) {
                Some(fatal) if fatal_if_listed(&error) || !node.replicas().is_listed(node.id()) => {
                    return node.tasks().fail(fatal);
                }
                Some(_) => {
                    warn!(%error, "the registration server does not take this node, which goes on");
                    REGISTER_EVERY
                }
                None => {
                    let text = match &error {
                        ServerError::Connect(ConnectError::Refused { .. }) => {
                            format!("the server's address is answered by somebody else: {error}")
                        }
                        _ => format!(
                            "the registration server is not reached, and this node goes on without it: {error}"
                        ),
                    };
                    let is_told = told
                        .as_ref()
                        .is_some_and(|(last, at)| *last == text && at.elapsed() < UNREACHED_REMIND);
                    if is_told || node.connections().endpoint().is_closing() {
                        debug!("{text}");
                    } else {
                        warn!("{text}");
                        told = Some((text, Instant::now()));
                    }
                    SERVER_RETRY * 2
                }
            },
        };
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests;
