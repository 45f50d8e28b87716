//! From the command line to a running node, and back.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dkv_wire::certificate::Credentials;
use dkv_wire::gate::Gate;
use dkv_wire::identity::Role;
use dkv_wire::join::{JoinError, find_token, join, recertify};
use dkv_wire::limits;
use dkv_wire::message::{Admission, ServerAnswer, ServerRefusal, ServerRequest};
use dkv_wire::quic::{ConnectError, Endpoint};
use dkv_wire::tls::Admit;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::args::Args;
use crate::data_dir::{DataDir, NodeFile};
use crate::disk::RealDisk;
use crate::disk_check::{self, Verdict};
use crate::node::{Me, Node, Parts};
use crate::registration::{ServerError, ServerLink, resolve};
use crate::state::{Engine, EngineOptions};
use crate::wal::{Wal, WalOptions};
use crate::{announce, compaction, coordinator, incoming};

/// First port that a node tries if it is told none and had none before.
const FIRST_PORT: u16 = 4401;
/// How many ports after that it tries before it takes any.
const PORTS_TRIED: u16 = 100;
/// Time between two attempts to reach a server without which a node cannot go on.
const SERVER_RETRY: Duration = Duration::from_millis(500);
/// How often a person is told that the server cannot be reached.
const SERVER_REMIND: Duration = Duration::from_secs(5);
/// How often a running node registers again, so that the server has it after it was restarted.
const REGISTER_EVERY: Duration = Duration::from_secs(10);
/// How often the age of the certificate is looked at.
const RENEW_CHECK_EVERY: Duration = Duration::from_secs(600);
/// Time that a hand-over may take when the node stops.
const HAND_OVER_PATIENCE: Duration = Duration::from_millis(1500);
/// Bytes of entries that stay in memory.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// Why a node did not start, or stopped by itself. Its text is one sentence for a person.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NodeError(String);

impl NodeError {
    fn new(error: impl ToString) -> Self {
        Self(error.to_string())
    }
}

/// Runs a node until `stop` completes or something forbids to go on. `ready` is told where the node
/// listens once it serves.
///
/// # Errors
/// If it cannot start, or must not go on.
pub async fn run(
    args: Args,
    ready: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let mut stop = std::pin::pin!(stop);
    let started = tokio::select! {
        started = start(args) => started?,
        () = &mut stop => return Ok(()),
    };
    let Started { node, mut failure } = started;
    ready(node.me().address);
    let failed = tokio::select! {
        failed = failure.wait_for(Option::is_some) => failed.ok().and_then(|why| why.clone()),
        () = &mut stop => None,
    };
    match failed {
        // What is durable is known after a restart; until then nothing is handed over or promised.
        Some(why) => Err(NodeError(why)),
        None => {
            info!("stopping");
            node.stop(HAND_OVER_PATIENCE).await;
            Ok(())
        }
    }
}

struct Started {
    node: Arc<Node>,
    failure: watch::Receiver<Option<String>>,
}

async fn start(args: Args) -> Result<Started, NodeError> {
    let directory = match &args.data_dir {
        Some(path) => DataDir::open(path),
        None => match &args.name {
            Some(name) if is_file_name(name) => DataDir::open(&Path::new("data").join(name)),
            _ => DataDir::open_default(Path::new("data")),
        },
    }
    .map_err(NodeError::new)?;
    info!(directory = %directory.path().display(), "data directory");
    let credentials = match directory.credentials().map_err(NodeError::new)? {
        Some(credentials) if credentials.expired(SystemTime::now()).map_err(NodeError::new)? => {
            certify_again(&args, &directory, credentials).await?
        }
        Some(credentials) => credentials,
        None => admit(&args, &directory).await?,
    };
    let identity = credentials.identity;
    let id = identity.as_node().ok_or_else(|| NodeError::new("this is not a node's directory"))?;
    let known = directory.node_file(&credentials).map_err(NodeError::new)?;
    let gate = Arc::new(Gate::default());
    let endpoint = listen(&args, &credentials, known.as_ref()).await?;
    let bound = endpoint.local_address().map_err(NodeError::new)?;
    let address = args.advertise.unwrap_or(bound);
    if address.ip().is_unspecified() {
        return Err(NodeError(format!(
            "others cannot reach this node at {address}; say with --advertise where they can"
        )));
    }
    let server =
        Arc::new(ServerLink::new(args.server.clone(), endpoint.clone(), Arc::clone(&gate)));
    let name = args.name.clone().or_else(|| known.as_ref().map(|file| file.name.clone()));
    let registration = Registration { server: Arc::clone(&server), name, address };
    let mut admission = None;
    let mut file = match known {
        Some(mut file) => {
            file.listen = bound;
            if let Some(name) = &args.name {
                file.name = name.clone();
            }
            file
        }
        None => {
            let admitted = registration.insist(&directory).await?;
            let file = NodeFile::new(
                identity.network,
                id,
                admitted.name.clone(),
                bound,
                admitted.settings.clone(),
                admitted.bootstrap,
            );
            directory.save_node_file(&file).map_err(NodeError::new)?;
            admission = Some(admitted);
            file
        }
    };
    let (failure, failed) = watch::channel(None);
    let (wal, engine) = open_stores(&directory, &file, failure.clone()).await?;
    file.log_begun = true;
    directory.save_node_file(&file).map_err(NodeError::new)?;
    let me = Me { network: identity.network, id, name: file.name.clone(), address };
    info!(name = me.name, %id, network = %me.network, "starting");
    let node = Node::start(Parts {
        me,
        settings: file.settings.clone(),
        founder: file.bootstrap,
        directory,
        endpoint: endpoint.clone(),
        gate: Arc::clone(&gate),
        wal,
        engine,
        server,
        failure,
    })
    .await
    .map_err(NodeError)?;
    if let Some(admission) = &admission {
        learn(&node, admission);
    }
    let serving = Arc::clone(&node);
    tokio::spawn(gate.serve(endpoint, move |connection, peer| {
        incoming::serve(Arc::clone(&serving), connection, peer)
    }));
    tokio::spawn(coordinator::run(Arc::clone(&node)));
    tokio::spawn(compaction::run(Arc::clone(&node)));
    tokio::spawn(announce::run(Arc::clone(&node)));
    tokio::spawn(follow_directory(Arc::clone(&node)));
    tokio::spawn(keep_registered(Arc::clone(&node), registration));
    tokio::spawn(keep_certified(Arc::clone(&node)));
    Ok(Started { node, failure: failed })
}

/// Joins with a token.
async fn admit(args: &Args, directory: &DataDir) -> Result<Credentials, NodeError> {
    let endpoint = Endpoint::dial_only(None).map_err(NodeError::new)?;
    let mut waiting = Waiting::default();
    loop {
        let server = resolve(&args.server).await.map_err(NodeError::new)?;
        // Looked for each time: a server that is just starting may not have left it yet.
        let token = find_token(server, Role::Node, args.token_file.as_deref());
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

/// Gets a new certificate for a node that was away for longer than its last one lived.
async fn certify_again(
    args: &Args,
    directory: &DataDir,
    expired: Credentials,
) -> Result<Credentials, NodeError> {
    warn!("the certificate of this node has expired: asking the server for a new one");
    let endpoint = Endpoint::dial_only(None).map_err(NodeError::new)?;
    let mut waiting = Waiting::default();
    loop {
        let server = resolve(&args.server).await.map_err(NodeError::new)?;
        match recertify(&endpoint, server, &expired).await {
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
    told: Option<tokio::time::Instant>,
}

impl Waiting {
    async fn on(&mut self, what: &str, why: &str) {
        if self.told.is_none_or(|told| told.elapsed() >= SERVER_REMIND) {
            warn!("waiting for {what}: {why}");
            self.told = Some(tokio::time::Instant::now());
        }
        tokio::time::sleep(SERVER_RETRY).await;
    }
}

async fn listen(
    args: &Args,
    credentials: &Credentials,
    known: Option<&NodeFile>,
) -> Result<Endpoint, NodeError> {
    let bind = |address| {
        Endpoint::listen(address, credentials.clone(), Admit::Certified, credentials.secret())
    };
    if let Some(address) = args.listen {
        return bind(address)
            .map_err(|error| NodeError(format!("cannot listen at {address}: {error}")));
    }
    if let Some(file) = known
        && let Ok(endpoint) = bind(file.listen)
    {
        return Ok(endpoint);
    }
    let ip = match resolve(&args.server).await {
        Ok(server) => local_ip_towards(server).map_err(NodeError::new)?,
        // Without the server's address, where it was last is the best guess.
        Err(error) => known.map(|file| file.listen.ip()).ok_or_else(|| NodeError::new(error))?,
    };
    let mut ports = (FIRST_PORT..FIRST_PORT + PORTS_TRIED).chain([0]);
    let mut failed = None;
    let bound = ports.find_map(|port| {
        bind(SocketAddr::new(ip, port)).map_err(|error| failed = Some(error)).ok()
    });
    bound.ok_or_else(|| {
        let why = failed.map_or(String::new(), |error| error.to_string());
        NodeError(format!("cannot listen at {ip}: {why}"))
    })
}

/// The address of this machine from which it reaches a server.
fn local_ip_towards(server: SocketAddr) -> std::io::Result<IpAddr> {
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    // Connecting a datagram socket sends nothing: it asks the kernel for the route.
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    Ok(socket.local_addr()?.ip())
}

async fn open_stores(
    directory: &DataDir,
    file: &NodeFile,
    failure: watch::Sender<Option<String>>,
) -> Result<(Wal, Engine), NodeError> {
    let (log_path, state_path) = (directory.log_path(), directory.state_path());
    let settings = file.settings.clone();
    let must_exist = file.log_begun;
    let damaged = |problem: String| directory.damaged(problem);
    let data_path = directory.path().to_owned();
    let checked = settings.clone();
    let measured = tokio::task::spawn_blocking(move || disk_check::measure(&data_path));
    match measured.await.map_err(NodeError::new)? {
        Ok(time) => match disk_check::judge(time, &checked) {
            Verdict::Fine => debug!(?time, "the disk is fast enough"),
            Verdict::Slow(warning) => warn!("{warning}"),
            Verdict::Unfit(problem) => return Err(NodeError(problem)),
        },
        // A full disk still lets a node start, and serve reads.
        Err(error) => warn!(%error, "the speed of the disk could not be measured"),
    }
    let opened = tokio::task::spawn_blocking(move || {
        let disk = RealDisk::open(&log_path).map_err(|error| error.to_string())?;
        let options = WalOptions {
            segment_bytes: segment_bytes(settings.log_bytes_max),
            cache_bytes: CACHE_BYTES,
            must_exist,
            ..WalOptions::default()
        };
        let on_fatal = move |why: &str| {
            failure.send_if_modified(|failure| {
                let first = failure.is_none();
                failure.get_or_insert_with(|| format!("the log cannot be written any more: {why}"));
                first
            });
        };
        let wal = Wal::open(Arc::new(disk), options, Box::new(on_fatal))
            .map_err(|error| error.to_string())?;
        let engine = Engine::open(&state_path, EngineOptions::default())
            .map_err(|error| error.to_string())?;
        Ok::<_, String>((wal, engine))
    });
    let opened = opened.await.map_err(NodeError::new)?;
    opened.map_err(|problem| NodeError::new(damaged(problem)))
}

/// A sixteenth of the log, so that it is purged in small steps; a multiple of 64 KiB.
fn segment_bytes(log_bytes_max: u64) -> u64 {
    const STEP: u64 = 64 * 1024;
    (log_bytes_max / 16 / STEP * STEP).clamp(1024 * 1024, 16 * 1024 * 1024)
}

/// What a node says to the server at every start, and now and then.
struct Registration {
    server: Arc<ServerLink>,
    name: Option<String>,
    address: SocketAddr,
}

impl Registration {
    async fn register(&self) -> Result<Admission, ServerError> {
        let request = ServerRequest::Register { name: self.name.clone(), address: self.address };
        match self.server.ask(&request).await? {
            ServerAnswer::Admitted(admission) => Ok(*admission),
            _ => Err(ServerError::Unexpected),
        }
    }

    /// Registers, and waits for the server as long as it takes.
    async fn insist(&self, directory: &DataDir) -> Result<Admission, NodeError> {
        let mut waiting = Waiting::default();
        loop {
            match self.register().await {
                Ok(admission) => return Ok(admission),
                Err(error) => match fatal(&error, directory) {
                    Some(fatal) => return Err(fatal),
                    None => waiting.on("the registration server", &error.to_string()).await,
                },
            }
        }
    }
}

/// What of a server's answers makes it useless to ask again.
fn fatal(error: &ServerError, directory: &DataDir) -> Option<NodeError> {
    match error {
        ServerError::Connect(ConnectError::Refused { address, why }) => Some(NodeError(format!(
            "the data directory {} belongs to another network than the server at {address}, or \
             was removed from it ({why}); to join that network, choose another directory with \
             --data-dir",
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
fn learn(node: &Node, admission: &Admission) {
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

/// Follows the directory for the life of the node.
async fn follow_directory(node: Arc<Node>) {
    let mut applied = node.control().machine().applied();
    loop {
        if let Err(error) = node.follow_directory().await {
            return node.fail(error);
        }
        if applied.changed().await.is_err() {
            return;
        }
    }
}

/// Registers until it succeeded, and again now and then.
async fn keep_registered(node: Arc<Node>, registration: Registration) {
    let registration = Registration { name: Some(node.me().name.clone()), ..registration };
    loop {
        let pause = match registration.register().await {
            Ok(admission) => {
                learn(&node, &admission);
                // The network has not begun, or nobody is where it was: the server hears of it first.
                if node.control().leader().is_some() { REGISTER_EVERY } else { SERVER_RETRY }
            }
            Err(error) => match fatal(&error, node.directory()) {
                Some(fatal) => return node.fail(fatal.to_string()),
                None => {
                    debug!(%error, "not registered");
                    SERVER_RETRY * 2
                }
            },
        };
        tokio::time::sleep(pause).await;
    }
}

/// Renews the certificate when it has reached a good part of its life.
async fn keep_certified(node: Arc<Node>) {
    loop {
        if let Err(error) = renew_if_due(&node).await {
            warn!(%error, "the certificate was not renewed");
        }
        tokio::time::sleep(RENEW_CHECK_EVERY).await;
    }
}

async fn renew_if_due(node: &Node) -> Result<(), NodeError> {
    let Some(credentials) = node.endpoint().credentials() else { return Ok(()) };
    let age = credentials.age(SystemTime::now()).map_err(NodeError::new)?;
    if age < limits::CERTIFICATE_RENEW {
        return Ok(());
    }
    let renewed = if credentials.expired(SystemTime::now()).map_err(NodeError::new)? {
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
    node.directory().save_credentials(&renewed).map_err(NodeError::new)?;
    node.endpoint().set_credentials(renewed, Some(Admit::Certified)).map_err(NodeError::new)?;
    info!("certificate renewed");
    Ok(())
}

fn is_file_name(name: &str) -> bool {
    !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && !name.starts_with('.')
}

#[cfg(test)]
mod tests;
