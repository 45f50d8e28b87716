//! Starts a node from its command line, runs it, and stops it.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dkv_base::platform;
use dkv_base::signals::Starting;
use dkv_base::supervise::Failure;
use dkv_wire::acceptor::Acceptor;
use dkv_wire::certificate::Credentials;
use dkv_wire::net_platform;
use dkv_wire::quic::Endpoint;
use dkv_wire::tls::Admit;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tracing::info;

use crate::cluster::announcement;
use crate::cluster::coordinator;
use crate::cluster::membership_reconciler;
use crate::cluster::node_reports;
use crate::cluster::replica_removal;
use crate::common::suspend;
use crate::net::incarnations;
use crate::net::server_link::{ServerLink, resolve};
use crate::node::observer::{Observer, Serving};
use crate::node::{Me, Node, Parts, TaskFactories};
use crate::process::args::Args;
use crate::process::enrolment::{
    Registration, admit, certify_again, keep_certified, keep_registered, learn,
};
use crate::process::error::NodeError;
use crate::process::memory_limit;
use crate::serve::connection;
use crate::storage::data_dir::{DataDir, NodeFile};
use crate::storage::disk_check;
use crate::storage::stores::{RealStorage, Storage, StorageError};
use crate::tasks::failure_detector;
use crate::tasks::heartbeat_ticker;
use crate::tasks::history_retention;
use crate::tasks::log_retention;
use crate::tasks::outbox_relay;
use crate::tasks::reachability;
use crate::tasks::round_trips;
use dkv_state::{Engine, EngineOptions};
use dkv_wal::{Wal, WalOptions};

/// First port that a node tries if it has no configured port and no previous one.
const FIRST_PORT: u16 = 4401;
/// Number of further ports to try before the node takes any free one.
const PORTS_TRIED: u16 = 100;
/// Time that a hand-over may take when the node stops.
const HAND_OVER_PATIENCE: Duration = Duration::from_millis(1500);
/// Bytes of log entries that stay in memory.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// Runs a node until `stop` completes or a failure forbids it to go on. Calls `ready` with the
/// listening address once the node serves.
///
/// # Errors
/// If it cannot start, or must not go on.
pub async fn run(
    args: Args,
    ready: impl FnOnce(Serving),
    stop: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let starting = Starting::begin();
    let starting =
        starting.map_err(|error| NodeError(format!("cannot watch for signals: {error}")))?;
    // Dropped once the node serves, or once its own task has noticed that it must stop.
    let starting = Mutex::new(Some(starting));
    let over = || drop(starting.lock().unwrap_or_else(PoisonError::into_inner).take());
    let ready = |serving| {
        over();
        ready(serving);
    };
    let stop = async {
        stop.await;
        over();
    };
    run_on(RealStorage, args, ready, stop).await
}

/// Runs a node as [`run`] does, with its data in a storage of the caller's choice.
///
/// # Errors
/// As for [`run`].
pub async fn run_on(
    storage: impl Storage,
    args: Args,
    ready: impl FnOnce(Serving),
    stop: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let mut stop = std::pin::pin!(stop);
    let started = tokio::select! {
        biased;
        started = start(storage, args) => started?,
        () = &mut stop => return Ok(()),
    };
    let Started { node, mut failure } = started;
    // Clients can count on the node only from then on.
    let run = async {
        reachability::made(&node).await;
        ready(Serving { address: node.me().address, observer: Observer::of(&node) });
        std::future::pending::<()>().await;
    };
    let failed = tokio::select! {
        biased;
        failed = failure.wait_for(Option::is_some) => failed.ok().and_then(|why| why.clone()),
        () = &mut stop => None,
        () = run => None,
    };
    match failed {
        // Only a restart shows which data is durable; until then the node hands over and promises
        // nothing.
        Some(why) => {
            end_tasks(node).await;
            Err(NodeError(why))
        }
        None => {
            info!("stopping");
            stop_serving(node).await;
            Ok(())
        }
    }
}

struct Started {
    node: Arc<Node>,
    failure: watch::Receiver<Option<String>>,
}

/// Starts a node with its data in `storage`.
fn start(storage: impl Storage, args: Args) -> BoxFuture<'static, Result<Started, NodeError>> {
    start_boxed(Box::new(storage), args)
}

/// Starts a node. The future is boxed so that it is compiled in this crate, once: the body of an
/// `async fn` is compiled again in every crate that awaits it, with all that it awaits itself.
fn start_boxed(
    storage: Box<dyn Storage>,
    args: Args,
) -> BoxFuture<'static, Result<Started, NodeError>> {
    Box::pin(start_with(storage, args))
}

/// Hands over and stops. Boxed as [`start_boxed`] is.
fn stop_serving(node: Arc<Node>) -> BoxFuture<'static, ()> {
    Box::pin(async move { node.stop(HAND_OVER_PATIENCE).await })
}

/// Ends all tasks of a node. Boxed as [`start_boxed`] is.
fn end_tasks(node: Arc<Node>) -> BoxFuture<'static, ()> {
    Box::pin(async move { node.end_tasks().await })
}

async fn start_with(storage: Box<dyn Storage>, args: Args) -> Result<Started, NodeError> {
    let directory = match &args.data_dir {
        Some(path) => DataDir::open(path),
        None => match &args.name {
            Some(name) if is_file_name(name) => DataDir::open(&Path::new("data").join(name)),
            _ => DataDir::open_default(Path::new("data")),
        },
    }
    .map_err(NodeError::new)?;
    info!(directory = %directory.path().display(), "data directory");
    // From here on the node notices a suspend.
    suspend::woke_lately();
    let credentials = match directory.credentials().map_err(NodeError::new)? {
        Some(credentials)
            if credentials.expired(platform::wall_clock()).map_err(NodeError::new)? =>
        {
            certify_again(&args, &directory, credentials).await?
        }
        Some(credentials) => credentials,
        None => {
            // A token may be good for one use: everything else that the start needs comes first.
            may_listen(&args)?;
            disk_check::require_room(directory.path()).map_err(NodeError::new)?;
            admit(&args, &directory).await?
        }
    };
    let identity = credentials.identity;
    let id = identity.as_node().ok_or_else(|| NodeError::new("this is not a node's directory"))?;
    let known = directory.node_file(&credentials).map_err(NodeError::new)?;
    // This happens before the node sends anything to another process.
    let log_begun = known.as_ref().is_some_and(|file| file.log_begun);
    let incarnations =
        incarnations::begin(id, directory.path(), log_begun).map_err(NodeError::new)?;
    let acceptor = Arc::new(Acceptor::default());
    let endpoint = listen(&args, &credentials, known.as_ref()).await?;
    let bound = endpoint.local_address().map_err(NodeError::new)?;
    let address = args.advertise.unwrap_or(bound);
    if address.ip().is_unspecified() {
        return Err(NodeError(format!(
            "others cannot reach this node at {address}; say with --advertise where they can"
        )));
    }
    let server =
        Arc::new(ServerLink::new(args.server.clone(), endpoint.clone(), Arc::clone(&acceptor)));
    let name = args.name.clone().or_else(|| known.as_ref().map(|file| file.name.clone()));
    let region = args.region.clone().or_else(|| known.as_ref()?.region.clone());
    let registration =
        Registration { server: Arc::clone(&server), name, address, region: region.clone() };
    let mut admission = None;
    let mut file = match known {
        Some(mut file) => {
            file.listen = bound;
            file.region.clone_from(&region);
            if let Some(name) = &args.name {
                file.name = name.clone();
            }
            file
        }
        None => {
            // A node must not go on under an identity whose directory has lost everything else.
            let standing =
                incarnations::before_serving(&incarnations, &server, address, true).await;
            standing.map_err(NodeError)?;
            let admitted = registration.insist(&directory).await?;
            let file = NodeFile::new(
                identity.network,
                id,
                admitted.name.clone(),
                bound,
                region.clone(),
                admitted.settings.clone(),
                admitted.bootstrap,
            );
            directory.save_node_file(&file).map_err(NodeError::new)?;
            admission = Some(admitted);
            file
        }
    };
    let failure = Failure::default();
    let failed = failure.subscribe();
    let (wal, engine) = open_stores(&args, &directory, &file, storage, failure.clone()).await?;
    incarnations.open(wal.clone()).map_err(NodeError::new)?;
    incarnations.name(&file.name, address);
    file.log_begun = true;
    directory.save_node_file(&file).map_err(NodeError::new)?;
    let me = Me { network: identity.network, id, name: file.name.clone(), address, region };
    info!(name = me.name, %id, network = %me.network, "starting");
    let node = Node::start(Parts {
        me,
        settings: file.settings.clone(),
        founder: file.bootstrap,
        data_dir: directory,
        endpoint: endpoint.clone(),
        acceptor: Arc::clone(&acceptor),
        wal,
        engine,
        server,
        incarnations,
        task_factories: TaskFactories {
            reconcile: |node, group| Box::pin(membership_reconciler::run(node, group)),
            relay: |node, outbox| Box::pin(outbox_relay::run(node, outbox)),
        },
        failure,
    })
    .await
    .map_err(NodeError)?;
    if let Some(admission) = &admission {
        learn(&node, admission);
    }
    let serving = Arc::clone(&node);
    let accepting = acceptor.serve(endpoint, move |connection, peer| {
        connection::serve(Arc::clone(&serving), connection, peer)
    });
    // Without any of these the node would look alive and be of no use, or lag behind for ever.
    node.keep("the task that accepts connections", accepting);
    node.keep("the coordinator's task", coordinator::run(Arc::clone(&node)));
    node.keep("the task that reports to the coordinator", node_reports::run(Arc::clone(&node)));
    node.keep("the task that deletes replicas", replica_removal::run(Arc::clone(&node)));
    node.keep("the task that notices dead leaders", failure_detector::run(Arc::clone(&node)));
    node.keep("the task that times heartbeats", heartbeat_ticker::run(Arc::clone(&node)));
    node.keep("the task that fits times to distances", round_trips::run(Arc::clone(&node)));
    node.keep("the task that takes checkpoints", log_retention::run(Arc::clone(&node)));
    node.keep("the task that limits histories", history_retention::run(Arc::clone(&node)));
    node.keep("the task that announces the node", announcement::run(Arc::clone(&node)));
    node.keep("the task that follows the directory", follow_directory(Arc::clone(&node)));
    node.keep("the task that registers the node", keep_registered(Arc::clone(&node), registration));
    node.keep("the task that renews the certificate", keep_certified(Arc::clone(&node)));
    node.keep("the task that watches who reaches the node", reachability::run(Arc::clone(&node)));
    node.keep("the task that asks which run goes on", keep_asking(Arc::clone(&node)));
    node.keep(
        "the task that keeps the book of runs",
        incarnations::keep_book(node.incarnations().clone()),
    );
    Ok(Started { node, failure: failed })
}

/// Checks that the node may listen at its configured address.
fn may_listen(args: &Args) -> Result<(), NodeError> {
    let Some(address) = args.listen else { return Ok(()) };
    net_platform::may_bind(address).map_err(|error| cannot_listen(address, &error))
}

fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> NodeError {
    let advice = match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            ": another process uses that UDP port; stop it, or choose another address with --listen"
        }
        _ => "; choose an address of this machine with --listen",
    };
    match error.kind() {
        std::io::ErrorKind::AddrInUse => NodeError(format!("cannot listen on {address}{advice}")),
        _ => NodeError(format!("cannot listen on {address}: {error}{advice}")),
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
        return bind(address).map_err(|error| cannot_listen(address, &error));
    }
    if let Some(file) = known
        && let Ok(endpoint) = bind(file.listen)
    {
        return Ok(endpoint);
    }
    let ip = match resolve(&args.server).await {
        Ok(server) => local_ip_towards(server).map_err(NodeError::new)?,
        // If the server's address is unknown, the previous address is the best guess.
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

/// Returns the address of this machine from which it reaches a server.
fn local_ip_towards(server: SocketAddr) -> std::io::Result<IpAddr> {
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    // Connecting a datagram socket sends nothing: it asks the kernel for the route.
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    Ok(socket.local_addr()?.ip())
}

async fn open_stores(
    args: &Args,
    directory: &DataDir,
    file: &NodeFile,
    storage: Box<dyn Storage>,
    failure: Failure,
) -> Result<(Wal, Engine), NodeError> {
    let (log_path, state_path) = (directory.log_path(), directory.state_path());
    let settings = file.settings.clone();
    let must_exist = file.log_begun;
    let mib = |count: u32| u64::from(count) * 1024 * 1024;
    let value_bytes = args.value_memory.map_or_else(memory_limit::default_value_bytes, mib);
    disk_check::check(directory.path(), &settings, must_exist).await.map_err(NodeError)?;
    let opened = platform::run_blocking(move || {
        let options = WalOptions {
            segment_bytes: segment_bytes(settings.log_bytes_max),
            cache_bytes: CACHE_BYTES,
            must_exist,
            ..WalOptions::default()
        };
        let on_fatal = move |why: &str| {
            failure.fail(format!(
                "the log cannot be written any more: {why}; see to the disk, then start the node again"
            ));
        };
        let wal = storage.open_log(&log_path, options, Box::new(on_fatal))?;
        let engine_options = EngineOptions { value_bytes, ..EngineOptions::default() };
        let engine = storage.open_engine(&state_path, engine_options)?;
        Ok::<_, StorageError>((wal, engine))
    });
    let opened = opened.await.map_err(NodeError::new)?;
    opened.map_err(|error| match error {
        StorageError::Damaged(problem) => NodeError::new(directory.damaged(problem)),
        StorageError::Missing(file) => NodeError::new(directory.missing(file)),
        StorageError::Unusable(why) => {
            let path = directory.path().display();
            NodeError(format!("the data directory {path} cannot be used: {why}"))
        }
    })
}

/// A sixteenth of the log, so that it is purged in small steps; a multiple of 64 KiB.
fn segment_bytes(log_bytes_max: u64) -> u64 {
    const STEP: u64 = 64 * 1024;
    (log_bytes_max / 16 / STEP * STEP).clamp(1024 * 1024, 16 * 1024 * 1024)
}

/// Asks the server, for the life of the node, whether this incarnation may go on.
async fn keep_asking(node: Arc<Node>) {
    let (incarnations, server) = (node.incarnations().clone(), Arc::clone(node.server()));
    let farewell =
        incarnations::keep_asking(incarnations, server, node.me().address, node.ticks()).await;
    node.fail(farewell);
}

/// Follows the directory for the life of the node.
async fn follow_directory(node: Arc<Node>) {
    let mut applied = node.control().state_machine().applied();
    loop {
        if let Err(error) = node.follow_directory().await {
            return node.fail(error);
        }
        if applied.changed().await.is_err() {
            return;
        }
    }
}

fn is_file_name(name: &str) -> bool {
    !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && !name.starts_with('.')
}

#[cfg(test)]
mod draining;
#[cfg(test)]
pub(crate) mod founder;
#[cfg(test)]
mod history;
#[cfg(test)]
mod tests;
