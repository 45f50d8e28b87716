//! A running node: everything that its tasks share.
//!
//! What it does with that is in the modules below: it [opens groups](groups), [does what the
//! directory says](directory), [knows where shards are](routing), [says how it is](status), and
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

use self::groups::GroupOpener;
use crate::common::clock::{self, NodeClock};
use crate::common::counters::Counters;
use crate::common::task_set::TaskSet;
use crate::common::ticks::Ticks;
use crate::net::incarnations::{self, Incarnations};
use crate::net::peers::Peers;
use crate::net::quota::Quotas;
use crate::net::server_link::ServerLink;
use crate::node::peer_access::Vouchers;
use crate::node::reports::NodeReports;
use crate::outbox::{Outbox, Outboxes, WriteGate};
use crate::raft::{self, HeartbeatCoalescer};
use crate::replica::Group;
use crate::storage::data_dir::DataDir;
use dkv_state::Engine;
use dkv_wal::Wal;

/// Who the node is, and where.
#[derive(Clone, Debug)]
pub(crate) struct Me {
    pub(crate) network: NetworkId,
    pub(crate) id: NodeId,
    pub(crate) name: String,
    /// Where others reach it.
    pub(crate) address: SocketAddr,
    /// The region that it is in, if it was told.
    pub(crate) region: Option<Region>,
}

/// What a node is made of.
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
    /// Why the process must stop, once something says so.
    pub(crate) failure: Failure,
}

/// Tasks that a node starts with what it opens. They use the node, so the layers above name them.
#[derive(Clone, Copy)]
pub(crate) struct TaskFactories {
    /// Brings the members of a group to what the directory wants.
    pub(crate) reconcile: fn(Arc<Node>, Arc<Group>) -> BoxFuture<'static, ()>,
    /// Empties an outbox.
    pub(crate) relay: fn(Arc<Node>, Arc<Outbox>) -> BoxFuture<'static, ()>,
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
    control: Arc<Group>,
    groups: RwLock<BTreeMap<GroupId, Arc<Group>>>,
    leader_since: Mutex<Option<Instant>>,
    /// Where the nodes are by the directory, as it was followed last.
    listed: Mutex<BTreeMap<NodeId, SocketAddr>>,
    /// What other nodes have told of themselves, if this one is the coordinator.
    heard: Mutex<NodeReports>,
    /// Who led the shards that are not here, when it was heard last.
    primaries: Mutex<BTreeMap<GroupId, NodeId>>,
    /// Who is vouched for.
    vouchers: Vouchers,
    /// Held while a group is opened or closed: groups of which there are rows that are to be
    /// deleted yet.
    opening: tokio::sync::Mutex<BTreeSet<GroupId>>,
    /// Whether an administrator wants replicas and primaries evened out at once.
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
    pub(crate) async fn start(parts: Parts) -> Result<Arc<Self>, String> {
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
        let outboxes = outboxes.map_err(|problem| data_dir.damaged(problem).to_string())?;
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
        // A node that could lead something without any other has nobody else to ask.
        let mut is_alone = false;
        for replica in &mut replicas {
            is_alone |= replica.is_led_alone(me.id, founder).await;
        }
        incarnations::before_serving(&incarnations, &server, me.address, is_alone).await?;
        let mut replicas = replicas.into_iter();
        let control = replicas.next().ok_or("there is no control group")?;
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
        // Whatever the directory wishes by now: as long as a group has this node among its voters,
        // it may need the vote, and nobody else has its log.
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

    /// Its copy of the network's clock.
    pub(crate) fn clock(&self) -> &NodeClock {
        &self.clock
    }

    /// Eventual writes that it has taken and that are not delivered yet.
    pub(crate) fn outboxes(&self) -> &Outboxes {
        &self.outboxes
    }

    /// Its identity.
    pub(crate) fn id(&self) -> NodeId {
        self.me.id
    }

    /// Who it is, and where.
    pub(crate) fn me(&self) -> &Me {
        &self.me
    }

    /// What the network runs with.
    pub(crate) fn settings(&self) -> Settings {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The other nodes.
    pub(crate) fn peers(&self) -> &Peers {
        &self.peers
    }

    /// Who is vouched for by others than this node's logs.
    pub(crate) fn vouchers(&self) -> &Vouchers {
        &self.vouchers
    }

    /// The registration server.
    pub(crate) fn server(&self) -> &Arc<ServerLink> {
        &self.server
    }

    /// Which run of its process this is, and which of the others were heard.
    pub(crate) fn incarnations(&self) -> &Incarnations {
        &self.incarnations
    }

    /// The node's log.
    pub(crate) fn wal(&self) -> &Wal {
        &self.wal
    }

    /// The node's end of its connections.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Where it keeps everything.
    pub(crate) fn data_dir(&self) -> &DataDir {
        &self.data_dir
    }

    /// What each peer may have under way.
    pub(crate) fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// The control group.
    pub(crate) fn control(&self) -> &Arc<Group> {
        &self.control
    }

    /// A group, if this node holds it.
    pub(crate) fn group(&self, id: GroupId) -> Option<Arc<Group>> {
        self.groups.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// All groups that this node holds, the control group first.
    pub(crate) fn groups(&self) -> Vec<Arc<Group>> {
        self.groups.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Whether this node neither leads nor votes in any group.
    pub(crate) fn only_follows(&self) -> bool {
        self.groups().iter().all(|group| group.only_follows())
    }

    /// Whether the network has that shard, held here or not.
    pub(crate) fn knows_shard(&self, id: GroupId) -> bool {
        let known = self.control.state_machine().with_directory(|directory| {
            // Before the directory has arrived nothing can be ruled out.
            !directory.exists() || directory.groups().contains_key(&id)
        });
        id.is_shard() && known.unwrap_or(true)
    }

    /// Whether writes are refused for want of room on the disk.
    pub(crate) fn disk_full(&self) -> bool {
        self.disk_full.load(Ordering::Relaxed)
    }

    /// Notes whether there is room on the disk.
    pub(crate) fn set_disk_full(&self, full: bool) {
        if self.disk_full.swap(full, Ordering::Relaxed) != full {
            if full {
                warn!("the disk is full: writes are refused until there is room again");
            } else {
                info!("there is room on the disk again: writes are taken");
            }
        }
    }

    /// Its checkpoints.
    #[cfg(test)]
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Notes since when this node has been the coordinator, if it is.
    pub(crate) fn set_leader_since(&self, since: Option<Instant>) {
        *lock(&self.leader_since) = since;
    }

    /// Since when this node has been the coordinator, if it is.
    pub(crate) fn leader_since(&self) -> Option<Instant> {
        *lock(&self.leader_since)
    }

    /// Says whether replicas and primaries are to be evened out at once.
    pub(crate) fn set_rebalancing(&self, on: bool) {
        self.rebalancing.store(on, Ordering::Relaxed);
    }

    /// Whether replicas and primaries are to be evened out at once.
    pub(crate) fn is_rebalancing(&self) -> bool {
        self.rebalancing.load(Ordering::Relaxed)
    }

    /// Says that heartbeats of so many groups are sent now.
    pub(crate) fn expect_heartbeats(&self, groups: usize) {
        self.heartbeats.expect(groups);
    }

    /// When it looks after things.
    pub(crate) fn ticks(&self) -> Ticks {
        self.heartbeats.ticks()
    }

    /// Something has happened after which the process must not go on.
    pub(crate) fn fail(&self, why: String) {
        self.failure.fail(why);
    }

    /// Notes that the server has called this node back at its address.
    pub(crate) fn set_called_back(&self) {
        self.called_back.store(true, Ordering::Relaxed);
    }

    /// Whether the server has called this node back at its address.
    pub(crate) fn was_called_back(&self) -> bool {
        self.called_back.load(Ordering::Relaxed)
    }

    /// Runs a task that the node cannot be without: if it ends before the node does, the
    /// process must stop.
    pub(crate) fn keep(&self, what: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.failure.if_ended(what, task));
    }

    /// Runs a task that may end, and must not panic: what it did for others would not be
    /// done any more.
    pub(crate) fn guard(
        &self,
        what: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.tasks.spawn(self.failure.if_panicked(what, task));
    }

    /// Runs a task that ends with the node at the latest. It serves one request or one
    /// connection: a panic ends that, and nothing else.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Ends every task of the node, whatever it does.
    pub(crate) async fn end_tasks(&self) {
        self.heartbeats.end().await;
        self.tasks.end().await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
