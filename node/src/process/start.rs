//! Starts a node from its command line, runs it, and stops it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dkv_base::platform;
use dkv_base::signals::Starting;
use dkv_base::supervise::Failure;
use dkv_base::sync::lock;
use dkv_wire::acceptor::Acceptor;
use dkv_wire::certificate::Credentials;
use dkv_wire::message::Admission;
use dkv_wire::quic::Endpoint;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tracing::info;

use crate::cluster::announcement;
use crate::cluster::coordinator;
use crate::cluster::membership_reconciler;
use crate::cluster::node_reports;
use crate::cluster::replica_removal;
use crate::common::suspend;
use crate::net::incarnations::{self, Incarnations};
use crate::net::server_link::ServerLink;
use crate::node::observer::{Observer, Serving};
use crate::node::{Me, Node, Parts, TaskFactories};
use crate::process::args::Args;
use crate::process::enrolment::{admit, certify_again};
use crate::process::error::{NodeError, ProcessError};
use crate::process::listen::{listen, may_listen};
use crate::process::node_registration::{Registration, keep_registered, learn};
use crate::process::other_servers;
use crate::process::renewal::keep_certified;
use crate::process::stores::open_stores;
use crate::replica::recovery_mark::RecoveryMark;
use crate::serve::connection;
use crate::serve::transaction_resolver;
use crate::storage::data_dir::{DataDir, NodeFile};
use crate::storage::disk_check;
use crate::storage::stores::{RealStorage, Storage};
use crate::tasks::failure_detector;
use crate::tasks::heartbeat_ticker;
use crate::tasks::history_retention;
use crate::tasks::log_retention;
use crate::tasks::reachability;
use crate::tasks::round_trips;
use crate::tasks::{lease_expiry, outbox_relay};

/// Time that a hand-over may take when the node stops.
const HAND_OVER_PATIENCE: Duration = Duration::from_millis(1500);

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
    let starting = starting.map_err(ProcessError::Signals)?;
    // Dropped once the node serves, or once its own task has noticed that it must stop.
    let starting = Mutex::new(Some(starting));
    let over = || drop(lock(&starting).take());
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
            Err(ProcessError::Failed(why).into())
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
fn start(storage: impl Storage, args: Args) -> BoxFuture<'static, Result<Started, ProcessError>> {
    start_boxed(Box::new(storage), args)
}

/// Starts a node. The future is boxed so that it is compiled in this crate, once: the body of an
/// `async fn` is compiled again in every crate that awaits it, with all that it awaits itself.
fn start_boxed(
    storage: Box<dyn Storage>,
    args: Args,
) -> BoxFuture<'static, Result<Started, ProcessError>> {
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

async fn start_with(storage: Box<dyn Storage>, args: Args) -> Result<Started, ProcessError> {
    let directory = open_data_dir(&args)?;
    info!(directory = %directory.path().display(), "data directory");
    // From here on the node notices a suspend.
    suspend::woke_lately();
    let credentials = find_credentials(&args, &directory).await?;
    let id = credentials.identity.as_node().ok_or(ProcessError::NotANode)?;
    let network = credentials.identity.network;
    let known = directory.node_file(&credentials)?;
    RecoveryMark::require_finished(directory.path())?;
    // This happens before the node sends anything to another process.
    let log_begun = known.as_ref().is_some_and(|file| file.log_begun);
    let incarnations = incarnations::begin(id, directory.path(), log_begun)?;
    let links = Links::open(&args, &credentials, known.as_ref()).await?;
    let registration = links.registration(&args, known.as_ref());
    let (mut file, admission) = match known {
        Some(file) => (updated(file, &args, &links, &registration), None),
        None => {
            let admission = register_first(&registration, &incarnations, &directory).await?;
            let Admission { name, settings, bootstrap, .. } = admission.clone();
            let region = registration.region.clone();
            let file = NodeFile::new(network, id, name, links.bound, region, settings, bootstrap);
            directory.save_node_file(&file)?;
            (file, Some(admission))
        }
    };
    let failure = Failure::default();
    let failed = failure.subscribe();
    let (wal, engine) = open_stores(&args, &directory, &file, storage, failure.clone()).await?;
    incarnations.open(wal.clone())?;
    incarnations.name(&file.name, links.address);
    file.log_begun = true;
    directory.save_node_file(&file)?;
    let NodeFile { name, settings, bootstrap, .. } = file;
    let me = Me { network, id, name, address: links.address, region: registration.region.clone() };
    info!(name = me.name, %id, network = %me.network, "starting");
    let Links { endpoint, acceptor, server, .. } = links;
    let node = Node::start(Parts {
        me,
        settings,
        slow_request: Duration::from_millis(u64::from(args.slow_request_ms)),
        founder: bootstrap,
        data_dir: directory,
        endpoint: endpoint.clone(),
        acceptor: Arc::clone(&acceptor),
        wal,
        engine,
        server,
        incarnations,
        task_factories: TaskFactories {
            reconcile: |node, replica| Box::pin(membership_reconciler::run(node, replica)),
            expire: |node, replica| Box::pin(lease_expiry::run(node, replica)),
            relay: |node, outbox| Box::pin(outbox_relay::run(node, outbox)),
        },
        failure,
    })
    .await?;
    if let Some(admission) = &admission {
        learn(&node, admission);
    }
    accept_connections(&node, acceptor, endpoint);
    start_tasks(&node, registration);
    Ok(Started { node, failure: failed })
}

/// Opens the configured data directory, or the one that goes with the node's name, or the first
/// default one that is free.
fn open_data_dir(args: &Args) -> Result<DataDir, ProcessError> {
    let opened = match &args.data_dir {
        Some(path) => DataDir::open(path),
        None => match &args.name {
            Some(name) if is_file_name(name) => DataDir::open(&Path::new("data").join(name)),
            _ => DataDir::open_default(Path::new("data")),
        },
    };
    Ok(opened?)
}

/// Returns the credentials in a data directory, renewed if they have expired. If there are none,
/// joins the network.
async fn find_credentials(args: &Args, directory: &DataDir) -> Result<Credentials, ProcessError> {
    match directory.credentials()? {
        Some(credentials) if credentials.expired(platform::wall_clock())? => {
            certify_again(args, directory, credentials).await
        }
        Some(credentials) => Ok(credentials),
        None => {
            // A token may be good for one use: everything else that the start needs comes first.
            may_listen(args)?;
            disk_check::require_room(directory.path())?;
            admit(args, directory).await
        }
    }
}

/// The node's way to the others and to the server, before the node starts.
struct Links {
    endpoint: Endpoint,
    acceptor: Arc<Acceptor>,
    server: Arc<ServerLink>,
    /// The address where the node listens.
    bound: SocketAddr,
    /// The address where others reach it.
    address: SocketAddr,
}

impl Links {
    async fn open(
        args: &Args,
        credentials: &Credentials,
        known: Option<&NodeFile>,
    ) -> Result<Self, ProcessError> {
        let acceptor = Arc::new(Acceptor::default());
        let endpoint = listen(args, credentials, known).await?;
        let bound = endpoint.local_address()?;
        let address = args.advertise.unwrap_or(bound);
        if address.ip().is_unspecified() {
            return Err(ProcessError::NotReachable(address));
        }
        let server = ServerLink::new(args.server.clone(), endpoint.clone(), Arc::clone(&acceptor));
        Ok(Self { endpoint, acceptor, server: Arc::new(server), bound, address })
    }

    /// Returns what the node tells the server: the arguments, or else what it told it before.
    fn registration(&self, args: &Args, known: Option<&NodeFile>) -> Registration {
        let name = args.name.clone().or_else(|| known.map(|file| file.name.clone()));
        let region = args.region.clone().or_else(|| known?.region.clone());
        Registration { server: Arc::clone(&self.server), name, address: self.address, region }
    }
}

/// Returns node.json as it is from this start on.
fn updated(file: NodeFile, args: &Args, links: &Links, registration: &Registration) -> NodeFile {
    let mut file = file;
    file.listen = links.bound;
    file.region.clone_from(&registration.region);
    if let Some(name) = &args.name {
        file.name.clone_from(name);
    }
    file
}

/// Registers a node that has its identity and nothing else, as long as it takes.
async fn register_first(
    registration: &Registration,
    incarnations: &Incarnations,
    directory: &DataDir,
) -> Result<Admission, ProcessError> {
    // A node must not go on under an identity whose directory has lost everything else.
    let Registration { server, address, .. } = registration;
    incarnations::before_serving(incarnations, server, *address, true).await?;
    registration.insist(directory).await
}

/// Serves the connections of others, for the life of the node.
fn accept_connections(node: &Arc<Node>, acceptor: Arc<Acceptor>, endpoint: Endpoint) {
    let serving = Arc::clone(node);
    let accepting = acceptor.serve(endpoint, move |connection, peer| {
        connection::serve(Arc::clone(&serving), connection, peer)
    });
    node.tasks().keep("the task that accepts connections", accepting);
}

/// Starts the tasks of a node. Without any of these the node would look alive and be useless, or
/// fall behind forever.
fn start_tasks(node: &Arc<Node>, registration: Registration) {
    node.tasks().keep("the coordinator's task", coordinator::run(Arc::clone(node)));
    node.tasks()
        .keep("the task that reports to the coordinator", node_reports::run(Arc::clone(node)));
    node.tasks().keep("the task that deletes replicas", replica_removal::run(Arc::clone(node)));
    node.tasks()
        .keep("the task that notices dead leaders", failure_detector::run(Arc::clone(node)));
    node.tasks().keep("the task that times heartbeats", heartbeat_ticker::run(Arc::clone(node)));
    node.tasks().keep("the task that fits times to distances", round_trips::run(Arc::clone(node)));
    node.tasks().keep("the task that takes checkpoints", log_retention::run(Arc::clone(node)));
    node.tasks().keep("the task that limits histories", history_retention::run(Arc::clone(node)));
    let resolver = transaction_resolver::run(Arc::clone(node));
    node.tasks().keep("the task that ends transactions in doubt", resolver);
    node.tasks().keep("the task that announces the node", announcement::run(Arc::clone(node)));
    node.tasks().keep("the task that follows the directory", follow_directory(Arc::clone(node)));
    node.tasks()
        .keep("the task that registers the node", keep_registered(Arc::clone(node), registration));
    node.tasks()
        .keep("the task that tells the other servers", other_servers::run(Arc::clone(node)));
    node.tasks().keep("the task that renews the certificate", keep_certified(Arc::clone(node)));
    node.tasks()
        .keep("the task that watches who reaches the node", reachability::run(Arc::clone(node)));
    node.tasks()
        .keep("the task that asks which incarnation goes on", keep_asking(Arc::clone(node)));
    node.tasks().keep(
        "the task that saves the known incarnations",
        incarnations::keep_records(node.incarnations().clone()),
    );
}

/// Asks the server, for the life of the node, whether this incarnation may go on.
async fn keep_asking(node: Arc<Node>) {
    let (incarnations, server) =
        (node.incarnations().clone(), Arc::clone(node.connections().server()));
    let farewell =
        incarnations::keep_asking(incarnations, server, node.me().address, node.ticks()).await;
    node.tasks().fail(farewell);
}

/// Follows the directory for the life of the node.
async fn follow_directory(node: Arc<Node>) {
    let mut applied = node.control().state_machine().applied();
    loop {
        if let Err(error) = node.follow_directory().await {
            return node.tasks().fail(error);
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
mod keyspaces;
#[cfg(test)]
mod leases;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod transactions;
