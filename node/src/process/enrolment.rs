//! How a node comes to belong to a network, and stays in the server's books.
//!
//! Once in its life a node joins, with a token, and gets its identity. At every start it registers:
//! it tells the server where it is, and is told where the others are, and, the very first node of
//! all, that it shall bootstrap the network. After that the server is needed only now and then, for
//! a new certificate; while it is down a node that has been here before does without it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dkv_base::platform;
use dkv_wire::certificate::Credentials;
use dkv_wire::identity::Role;
use dkv_wire::join::{JoinError, TokenError, find_token, join, readmit, recertify};
use dkv_wire::limits;
use dkv_wire::message::{
    Admission, ControlGroup, JoinRefusal, ServerAnswer, ServerRefusal, ServerRequest,
};
use dkv_wire::quic::{ConnectError, Endpoint};
use dkv_wire::region::Region;
use dkv_wire::tls::Admit;
use dkv_wire::token::Token;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::net::server_link::{ServerError, ServerLink, resolve};
use crate::node::Node;
use crate::process::args::Args;
use crate::process::error::NodeError;
use crate::storage::data_dir::DataDir;

/// Time between two attempts to reach a server without which a node cannot go on.
const SERVER_RETRY: Duration = Duration::from_millis(500);
/// How often a person is told that the server cannot be reached.
const SERVER_REMIND: Duration = Duration::from_secs(5);
/// Time in which a name may become free because the node that had it is found to be gone.
const NAME_PATIENCE: Duration = Duration::from_secs(20);
/// How often a running node registers again, so that the server has it after it was restarted.
const REGISTER_EVERY: Duration = Duration::from_secs(10);
/// Time after the start in which a server of another network is taken for an operator's mistake.
const FIRST_MEETING: Duration = Duration::from_secs(10);
/// Time between two attempts to renew a certificate that is still valid.
const RENEW_AGAIN: Duration = Duration::from_secs(600);
/// How often a person is told again that the server is not reached.
const UNREACHED_REMIND: Duration = Duration::from_secs(600);

/// Joins with a token.
pub(crate) async fn admit(args: &Args, directory: &DataDir) -> Result<Credentials, NodeError> {
    let endpoint = Endpoint::dial_only(None).map_err(NodeError::new)?;
    let mut waiting = Waiting::default();
    loop {
        let server = resolve(&args.server).await.map_err(NodeError::new)?;
        // Looked for each time: a server that is just starting may not have left it yet.
        let token = token_for(args, server).await?;
        let failed = match token {
            Ok(token) => match join(&endpoint, server, &token).await {
                Ok(credentials) => {
                    directory.save_credentials(&credentials).map_err(NodeError::new)?;
                    endpoint.close().await;
                    return Ok(credentials);
                }
                Err(JoinError::Connect(error)) => error.to_string(),
                Err(error @ JoinError::Call(..)) => error.to_string(),
                Err(error) => return Err(NodeError::new(error)),
            },
            Err(error) => return Err(NodeError::new(error)),
        };
        waiting.on("the registration server", &failed).await;
    }
}

/// The token to join with. Its file may be one that does not come to an end, which must hold up
/// nobody else.
async fn token_for(
    args: &Args,
    server: SocketAddr,
) -> Result<Result<Token, TokenError>, NodeError> {
    let file = args.token_file.clone();
    let find = move || find_token(server, Role::Node, file.as_deref());
    platform::run_blocking(find).await.map_err(NodeError::new)
}

/// Gets a new certificate for a node that was away for longer than its last one lived.
pub(crate) async fn certify_again(
    args: &Args,
    directory: &DataDir,
    expired: Credentials,
) -> Result<Credentials, NodeError> {
    let life = expired.life().map_err(NodeError::new)?;
    warn!(
        "the certificate of this node is not valid now: {}; asking the server for a new one",
        life.at_odds_with(platform::wall_clock())
    );
    let endpoint = Endpoint::dial_only(None).map_err(NodeError::new)?;
    let mut waiting = Waiting::default();
    loop {
        let server = resolve(&args.server).await.map_err(NodeError::new)?;
        let certified = match recertify(&endpoint, server, &expired).await {
            // Away for so long that its key is not enough: whoever starts it has a token for it.
            Err(JoinError::Refused(JoinRefusal::Lapsed)) => {
                let token = token_for(args, server).await?;
                let token = token.map_err(|error| {
                    NodeError(format!("{}, as this node's: {error}", JoinRefusal::Lapsed))
                })?;
                readmit(&endpoint, server, &expired, &token).await
            }
            other => other,
        };
        match certified {
            Ok(credentials) => {
                directory.save_credentials(&credentials).map_err(NodeError::new)?;
                endpoint.close().await;
                return Ok(credentials);
            }
            Err(error @ (JoinError::Connect(_) | JoinError::Call(..))) => {
                waiting.on("the registration server", &error.to_string()).await;
            }
            Err(error) => return Err(NodeError::new(error)),
        }
    }
}

/// Says now and then what a node waits for.
#[derive(Default)]
struct Waiting {
    told: Option<Instant>,
}

impl Waiting {
    async fn on(&mut self, what: &str, why: &str) {
        if self.told.is_none_or(|told| told.elapsed() >= SERVER_REMIND) {
            warn!("waiting for {what}: {why}");
            self.told = Some(Instant::now());
        }
        tokio::time::sleep(SERVER_RETRY).await;
    }
}

/// What a node says to the server at every start, and now and then.
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
    pub(crate) async fn insist(&self, directory: &DataDir) -> Result<Admission, NodeError> {
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

/// What of a server's answers makes it useless to ask again.
///
/// For a node that runs, only the word of its own network's server counts: whoever else answers at
/// the server's address must not be able to stop it.
fn fatal_while_running(error: &ServerError, directory: &DataDir) -> Option<NodeError> {
    match error {
        ServerError::Connect(ConnectError::Refused { .. }) | ServerError::Resolve(..) => None,
        other => fatal(other, directory),
    }
}

/// The same when a node that was here before meets the server for the first time after its start.
/// It serves without the server, so that the name of that cannot be resolved does not stop it.
fn fatal_at_restart(error: &ServerError, directory: &DataDir) -> Option<NodeError> {
    match error {
        ServerError::Resolve(..) => None,
        other => fatal(other, directory),
    }
}

/// What of a server's answers makes it useless to ask again, for a node that is just starting.
fn fatal(error: &ServerError, directory: &DataDir) -> Option<NodeError> {
    match error {
        ServerError::Connect(ConnectError::Removed { why, .. }) => Some(NodeError(format!(
            "this node was {why}; to join again, start it with an empty data directory (this one \
             is {})",
            directory.path().display()
        ))),
        ServerError::Connect(ConnectError::Refused { address, why }) => Some(NodeError(format!(
            "the data directory {} belongs to another network than the server at {address} \
             ({why}); to join that network, choose another directory with --data-dir",
            directory.path().display()
        ))),
        ServerError::Refused(ServerRefusal::Storage(_)) => None,
        ServerError::Refused(refusal) => Some(NodeError::new(refusal)),
        ServerError::Resolve(..) => Some(NodeError::new(error)),
        ServerError::Connect(_) | ServerError::Silent(_) | ServerError::Unexpected => None,
    }
}

/// Learns from the server where the other nodes are.
///
/// The directory knows better, as long as it can be followed. When all nodes have moved, nobody is
/// left at the addresses in it: so of a node to which there is no connection, the address under
/// which it has registered is tried.
pub(crate) fn learn(node: &Node, admission: &Admission) {
    node.vouched_by_server(&admission.vouched);
    let begun = node.control().state_machine().with_directory(|directory| directory.exists());
    if let (Some(view), false) = (&admission.view, begun.unwrap_or(false)) {
        node.keep_apart(&view.settings.delays, &view.nodes);
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

/// Registers until it succeeded, and again now and then.
pub(crate) async fn keep_registered(node: Arc<Node>, registration: Registration) {
    let registration = Registration { name: Some(node.me().name.clone()), ..registration };
    let begun = Instant::now();
    let mut met = false;
    let mut told: Option<(String, Instant)> = None;
    loop {
        if node.incarnations().held().is_some() {
            // Where this run is, is of no use to anybody.
            tokio::time::sleep(SERVER_RETRY).await;
            continue;
        }
        // The first meeting shows whether directory and server are of one network.
        let is_first = !met && begun.elapsed() <= FIRST_MEETING;
        let judge = if is_first { fatal_at_restart } else { fatal_while_running };
        let pause = match registration.register(node.control_group()).await {
            Ok(admission) => {
                met = true;
                if told.take().is_some() {
                    info!("the registration server answers");
                }
                learn(&node, &admission);
                // The network has not begun, or nobody is where it was: the server hears of it
                // first.
                if node.control().leader().is_some() { REGISTER_EVERY } else { SERVER_RETRY }
            }
            // The directory's word stands against the server's books: it does not stop for a name.
            Err(error @ ServerError::Refused(ServerRefusal::NameTaken(_)))
                if node.is_listed(node.id()) =>
            {
                warn!(%error, "not registered");
                REGISTER_EVERY
            }
            Err(error) => match judge(&error, node.data_dir()) {
                Some(fatal) => return node.fail(fatal.to_string()),
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
                    if is_told || node.endpoint().is_closing() {
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

/// Renews the certificate when it has reached a good part of its life. Looks often, for the clock
/// may jump at any moment: it may be set, or the machine may have slept.
pub(crate) async fn keep_certified(node: Arc<Node>) {
    let mut failed: Option<Instant> = None;
    loop {
        node.ticks().pause(limits::CERTIFICATE_CHECK).await;
        let rests = |credentials: &Credentials| {
            let valid = !credentials.expired(platform::wall_clock()).unwrap_or(true);
            failed.is_some_and(|at| valid && at.elapsed() < RENEW_AGAIN)
        };
        if node.endpoint().credentials().is_none_or(|credentials| rests(&credentials)) {
            continue;
        }
        failed = match renew_if_due(&node).await {
            Ok(()) => None,
            Err(error) => {
                // One that is not valid is tried for without a pause, and told now and then.
                if failed.is_none_or(|at| at.elapsed() >= RENEW_AGAIN) {
                    warn!(%error, "the certificate was not renewed");
                    Some(Instant::now())
                } else {
                    failed
                }
            }
        };
    }
}

async fn renew_if_due(node: &Node) -> Result<(), NodeError> {
    let Some(credentials) = node.endpoint().credentials() else { return Ok(()) };
    let now = platform::wall_clock();
    let is_valid = !credentials.expired(now).map_err(NodeError::new)?;
    if is_valid && !credentials.is_due(now).map_err(NodeError::new)? {
        return Ok(());
    }
    let renewed = if !is_valid {
        let server = node.server().resolve().await.map_err(NodeError::new)?;
        let endpoint = Endpoint::dial_only(None).map_err(NodeError::new)?;
        recertify(&endpoint, server, &credentials).await.map_err(NodeError::new)?
    } else {
        let public_key = credentials.public_key().map_err(NodeError::new)?;
        let answer = node.server().ask(&ServerRequest::Renew { public_key }).await;
        let ServerAnswer::Certificate(certificate) = answer.map_err(NodeError::new)? else {
            return Err(NodeError::new(ServerError::Unexpected));
        };
        credentials.renewed(&certificate).map_err(NodeError::new)?
    };
    node.data_dir().save_credentials(&renewed).map_err(NodeError::new)?;
    node.endpoint().set_credentials(renewed, Some(Admit::Certified)).map_err(NodeError::new)?;
    info!("certificate renewed");
    Ok(())
}

#[cfg(test)]
mod tests;
