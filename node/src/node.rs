//! A running node: the state that its tasks share.
//!
//! The modules below act on it: the node [opens groups](groups), [follows the
//! directory](directory), [tracks where shards are](routing), [reports its status](status), and
//! [stops](shutdown).

pub(crate) mod peer_access;
pub(crate) mod observer;

mod directory;
mod groups;
pub(crate) mod reports;
mod routing;
mod status;
mod shutdown;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use dkv_base::id::{GroupId, NetworkId, NodeId};
use dkv_base::supervise::Failure;
use dkv_wire::acceptor::Acceptor;
use dkv_wire::network::Settings;
use dkv_wire::quic::Endpoint;
use dkv_wire::region::Region;
use futures::future::BoxFuture;
use tokio::time::Instant;
use tracing::{info, warn};

pub(crate) use self::groups::GroupError;
use self::groups::GroupOpener;
use crate::common::clock::{self, NodeClock};
use crate::common::counters::Counters;
use crate::common::task_set::TaskSet;
use crate::common::ticks::Ticks;
use crate::net::incarnations::{self, Farewell, Incarnations};
use crate::net::peers::Peers;
use crate::net::quota::Quotas;
use crate::net::server_link::ServerLink;
use crate::node::peer_access::Vouchers;
use crate::node::reports::NodeReports;
use crate::outbox::{Outbox, Outboxes, WriteGate, WriteGateError};
use crate::raft::{self, ConfigError, HeartbeatCoalescer, OperationError};
use crate::replica::Replica;
use crate::storage::data_dir::{DataDir, DataDirError};
use dkv_state::Engine;
use dkv_wal::Wal;

/// The identity and address of the node.
#[derive(Clone, Debug)]
pub(crate) struct Me {
    pub(crate) network: NetworkId,
    pub(crate) id: NodeId,
    pub(crate) name: String,
    /// The address where others reach the node.
    pub(crate) address: SocketAddr,
    /// The node's region, if one was configured.
    pub(crate) region: Option<Region>,
}

/// The parts of which a node consists.
pub(crate) struct Parts {
    pub(crate) me: Me,
    pub(crate) settings: Settings,
    pub(crate) founder: bool,
    pub(crate) data_dir: DataDir,
    pub(crate) endpoint: Endpoint,
    pub(crate) acceptor: Arc<Acceptor>,
    pub(crate) wal: Wal,
    pub(crate) engine: Engine,
    pub(crate) server: Arc<ServerLink>,
    pub(crate) incarnations: Incarnations,
    pub(crate) task_factories: TaskFactories,
    /// The reason why the process must stop, once there is one.
    pub(crate) failure: Failure,
}

/// Tasks that a node starts for what it opens. They use the node, so the layers above supply them.
#[derive(Clone, Copy)]
pub(crate) struct TaskFactories {
    /// Brings the members of a group into line with the directory.
    pub(crate) reconcile: fn(Arc<Node>, Arc<Replica>) -> BoxFuture<'static, ()>,
    /// Empties an outbox.
    pub(crate) relay: fn(Arc<Node>, Arc<Outbox>) -> BoxFuture<'static, ()>,
}

/// Reason why a node did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The network's settings contradict each other.
    #[error(transparent)]
    Settings(#[from] ConfigError),
    /// The record whether the node takes eventual writes cannot be read.
    #[error(transparent)]
    WriteGate(#[from] WriteGateError),
    /// The data directory is damaged.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// This incarnation must end.
    #[error(transparent)]
    MustEnd(#[from] Farewell),
    /// A replica cannot be opened.
    #[error(transparent)]
    Replica(#[from] GroupError),
    /// The network that this node founds did not begin.
    #[error(transparent)]
    Founding(#[from] OperationError),
    /// No replica of the control group was prepared.
    #[error("there is no control group")]
    NoControlGroup,
}

/// A running node.
pub(crate) struct Node {
    me: Me,
    settings: RwLock<Settings>,
    founder: bool,
    data_dir: DataDir,
    endpoint: Endpoint,
    acceptor: Arc<Acceptor>,
    peers: Peers,
    heartbeats: HeartbeatCoalescer,
    wal: Wal,
    engine: Engine,
    server: Arc<ServerLink>,
    incarnations: Incarnations,
    config: Arc<raft::Config>,
    clock: NodeClock,
    outboxes: Outboxes,
    control: Arc<Replica>,
    groups: RwLock<BTreeMap<GroupId, Arc<Replica>>>,
    leader_since: Mutex<Option<Instant>>,
    /// The addresses of the nodes in the directory as it was last followed.
    listed: Mutex<BTreeMap<NodeId, SocketAddr>>,
    /// The reports of other nodes about themselves, if this one is the coordinator.
    heard: Mutex<NodeReports>,
    /// The last known primaries of shards that are not on this node.
    primaries: Mutex<BTreeMap<GroupId, NodeId>>,
    /// Nodes that the server or members vouch for.
    vouchers: Vouchers,
    /// Locked while a group is opened or closed. The set has the groups whose leftover rows are
    /// still to be deleted.
    opening: tokio::sync::Mutex<BTreeSet<GroupId>>,
    /// Whether an administrator wants replicas and primaries rebalanced at once.
    rebalancing: AtomicBool,
    started: Instant,
    disk_full: AtomicBool,
    counters: Arc<Counters>,
    /// Whether the server has called this node back at its address.
    called_back: AtomicBool,
    quotas: Quotas,
    task_factories: TaskFactories,
    failure: Failure,
    tasks: TaskSet,
}

impl Node {
    /// Starts the control group, and the shards that this node held before.
    pub(crate) async fn start(parts: Parts) -> Result<Arc<Self>, StartError> {
        let Parts {
            me,
            settings,
            founder,
            data_dir,
            endpoint,
            acceptor,
            wal,
            engine,
            server,
            incarnations,
            task_factories,
            failure,
        } = parts;
        let peers = Peers::greeting(endpoint.clone(), Arc::clone(&acceptor), incarnations.clone());
        let heartbeats = HeartbeatCoalescer::new(me.id, peers.clone());
        let config = raft::config(&settings)?;
        let clock = NodeClock::default();
        let write_gate = WriteGate::load(data_dir.path())?;
        let (log, log_bytes_max) = (wal.clone(), settings.log_bytes_max);
        let outboxes = Outboxes::open(me.id, log, log_bytes_max, write_gate, clock::wall());
        let outboxes = outboxes.map_err(|problem| data_dir.damaged(problem.to_string()))?;
        clock.observe(outboxes.last_stamp());
        let opener = GroupOpener {
            me: me.id,
            data_dir: &data_dir,
            config: &config,
            wal: &wal,
            engine: &engine,
            peers: &peers,
            heartbeats: &heartbeats,
            clock: &clock,
            log_bytes_max: settings.log_bytes_max,
            failure: &failure,
        };
        let held_before = wal.groups().into_iter().filter(|id| id.is_shard());
        let mut replicas = vec![opener.prepare(GroupId::CONTROL).await?];
        for id in held_before {
            replicas.push(opener.prepare(id).await?);
        }
        // A node that could lead some group alone has no other node to ask.
        let mut is_alone = false;
        for replica in &mut replicas {
            is_alone |= replica.is_led_alone(me.id, founder).await;
        }
        incarnations::before_serving(&incarnations, &server, me.address, is_alone).await?;
        let mut replicas = replicas.into_iter();
        let control = replicas.next().ok_or(StartError::NoControlGroup)?;
        let control = Arc::new(opener.begin(control).await?);
        let mut shards = BTreeMap::new();
        for replica in replicas {
            let shard = Arc::new(opener.begin(replica).await?);
            shards.insert(shard.id(), shard);
        }
        let node = Arc::new(Self {
            groups: RwLock::new(BTreeMap::from([(GroupId::CONTROL, Arc::clone(&control))])),
            me,
            settings: RwLock::new(settings),
            founder,
            data_dir,
            endpoint,
            acceptor,
            peers,
            heartbeats,
            wal,
            engine,
            server,
            incarnations,
            config,
            clock,
            outboxes,
            control,
            leader_since: Mutex::default(),
            listed: Mutex::default(),
            heard: Mutex::default(),
            primaries: Mutex::default(),
            vouchers: Vouchers::default(),
            opening: tokio::sync::Mutex::default(),
            rebalancing: AtomicBool::new(false),
            started: Instant::now(),
            disk_full: AtomicBool::new(false),
            counters: Arc::default(),
            quotas: Quotas::default(),
            called_back: AtomicBool::new(false),
            task_factories,
            failure,
            tasks: TaskSet::default(),
        });
        node.attend(&node.control);
        // This happens whatever the directory wants by now: as long as this node is among a group's
        // voters, the group may need its vote, and no other node has its log.
        for shard in shards.into_values() {
            node.adopt_group(shard);
        }
        for outbox in node.outboxes.all() {
            node.guard("an outbox's task", (node.task_factories.relay)(Arc::clone(&node), outbox));
        }
        node.find_leftovers().await?;
        node.follow_directory().await?;
        if founder {
            node.control.initialize().await?;
        }
        Ok(node)
    }

    /// Returns the node's copy of the network's clock.
    pub(crate) fn clock(&self) -> &NodeClock {
        &self.clock
    }

    /// Returns the outboxes: eventual writes that the node has accepted but not delivered yet.
    pub(crate) fn outboxes(&self) -> &Outboxes {
        &self.outboxes
    }

    /// Returns the node's id.
    pub(crate) fn id(&self) -> NodeId {
        self.me.id
    }

    /// Returns the node's identity and address.
    pub(crate) fn me(&self) -> &Me {
        &self.me
    }

    /// Returns the network's settings.
    pub(crate) fn settings(&self) -> Settings {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the connections to the other nodes.
    pub(crate) fn peers(&self) -> &Peers {
        &self.peers
    }

    /// Returns the nodes that are vouched for by others than this node's logs.
    pub(crate) fn vouchers(&self) -> &Vouchers {
        &self.vouchers
    }

    /// Returns the link to the registration server.
    pub(crate) fn server(&self) -> &Arc<ServerLink> {
        &self.server
    }

    /// Returns this incarnation of the process, and the known ones of the other nodes.
    pub(crate) fn incarnations(&self) -> &Incarnations {
        &self.incarnations
    }

    /// Returns the node's log.
    pub(crate) fn wal(&self) -> &Wal {
        &self.wal
    }

    /// Returns the node's end of its connections.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Returns the data directory.
    pub(crate) fn data_dir(&self) -> &DataDir {
        &self.data_dir
    }

    /// Returns the quotas of the peers.
    pub(crate) fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// Returns the control group.
    pub(crate) fn control(&self) -> &Arc<Replica> {
        &self.control
    }

    /// Returns a group, if this node holds it.
    pub(crate) fn group(&self, id: GroupId) -> Option<Arc<Replica>> {
        self.groups.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Returns all groups that this node holds, the control group first.
    pub(crate) fn groups(&self) -> Vec<Arc<Replica>> {
        self.groups.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Returns whether this node neither leads nor votes in any group.
    pub(crate) fn only_follows(&self) -> bool {
        self.groups().iter().all(|group| group.only_follows())
    }

    /// Returns whether the network has that shard, held here or not.
    pub(crate) fn knows_shard(&self, id: GroupId) -> bool {
        let known = self.control.state_machine().with_directory(|directory| {
            // Before the directory has arrived, no shard can be ruled out.
            !directory.exists() || directory.groups().contains_key(&id)
        });
        id.is_shard() && known.unwrap_or(true)
    }

    /// Returns whether writes are refused because the disk is full.
    pub(crate) fn disk_full(&self) -> bool {
        self.disk_full.load(Ordering::Relaxed)
    }

    /// Sets whether the disk is full.
    pub(crate) fn set_disk_full(&self, full: bool) {
        if self.disk_full.swap(full, Ordering::Relaxed) != full {
            if full {
                warn!("the disk is full: writes are refused until there is room again");
            } else {
                info!("there is room on the disk again: writes are taken");
            }
        }
    }

    /// Returns the store of checkpoints.
    #[cfg(test)]
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Sets since when this node has been the coordinator; `None` if it is not.
    pub(crate) fn set_leader_since(&self, since: Option<Instant>) {
        *lock(&self.leader_since) = since;
    }

    /// Returns since when this node has been the coordinator; `None` if it is not.
    pub(crate) fn leader_since(&self) -> Option<Instant> {
        *lock(&self.leader_since)
    }

    /// Sets whether replicas and primaries are to be rebalanced at once.
    pub(crate) fn set_rebalancing(&self, on: bool) {
        self.rebalancing.store(on, Ordering::Relaxed);
    }

    /// Returns whether replicas and primaries are to be rebalanced at once.
    pub(crate) fn is_rebalancing(&self) -> bool {
        self.rebalancing.load(Ordering::Relaxed)
    }

    /// Announces that heartbeats for this many groups are being sent now.
    pub(crate) fn expect_heartbeats(&self, groups: usize) {
        self.heartbeats.expect(groups);
    }

    /// Returns the ticks of the node's periodic tasks.
    pub(crate) fn ticks(&self) -> Ticks {
        self.heartbeats.ticks()
    }

    /// Stops the process because of a failure after which it must not go on.
    pub(crate) fn fail(&self, why: impl fmt::Display) {
        self.failure.fail(why.to_string());
    }

    /// Records that the server has called this node back at its address.
    pub(crate) fn set_called_back(&self) {
        self.called_back.store(true, Ordering::Relaxed);
    }

    /// Returns whether the server has called this node back at its address.
    pub(crate) fn was_called_back(&self) -> bool {
        self.called_back.load(Ordering::Relaxed)
    }

    /// Runs a task that the node cannot do without: if it ends before the node does, the process
    /// must stop.
    pub(crate) fn keep(&self, what: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.failure.if_ended(what, task));
    }

    /// Runs a task that may end but must not panic, because a panic would leave its work for others
    /// undone.
    pub(crate) fn guard(
        &self,
        what: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.tasks.spawn(self.failure.if_panicked(what, task));
    }

    /// Runs a task that ends with the node at the latest. It serves one request or one connection,
    /// and a panic ends only that.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Ends every task of the node, whatever it is doing.
    pub(crate) async fn end_tasks(&self) {
        self.heartbeats.end().await;
        self.tasks.end().await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
