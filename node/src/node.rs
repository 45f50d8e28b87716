//! A running node: everything that its tasks share.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use dkv_wire::gate::Gate;
use dkv_wire::id::{GroupId, NetworkId, NodeId};
use dkv_wire::message::NodeStatus;
use dkv_wire::network::{NetworkView, NodeState, Settings};
use dkv_wire::platform::run_blocking;
use dkv_wire::quic::Endpoint;
use dkv_wire::region::Region;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::data_dir::DataDir;
use crate::group::{Group, GroupParts, ProposeError};
use crate::peers::Peers;
use crate::raft::{self, Machine, Pulses};
use crate::registration::ServerLink;
use crate::shell::unix_ms;
use crate::state::{
    Announcement, DirectoryCommand, DirectoryEntry, DirectoryResult, Engine, EngineError, Observed,
};
use crate::tasks::Tasks;
use crate::wal::Wal;
use crate::{coordinator, stewards};

/// Time in which a node that has handed over tells those who ask it yet where to go.
const REDIRECT_FOR: Duration = Duration::from_millis(100);

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
    pub(crate) directory: DataDir,
    pub(crate) endpoint: Endpoint,
    pub(crate) gate: Arc<Gate>,
    pub(crate) wal: Wal,
    pub(crate) engine: Engine,
    pub(crate) server: Arc<ServerLink>,
    /// Why the process must stop, once something says so.
    pub(crate) failure: watch::Sender<Option<String>>,
}

/// A running node.
pub(crate) struct Node {
    me: Me,
    settings: RwLock<Settings>,
    founder: bool,
    directory: DataDir,
    endpoint: Endpoint,
    gate: Arc<Gate>,
    peers: Peers,
    pulses: Pulses,
    wal: Wal,
    engine: Engine,
    server: Arc<ServerLink>,
    config: Arc<raft::Config>,
    control: Arc<Group>,
    groups: RwLock<BTreeMap<GroupId, Arc<Group>>>,
    reign: Mutex<Option<Instant>>,
    /// Where the nodes are by the directory, as it was followed last.
    listed: Mutex<BTreeMap<NodeId, SocketAddr>>,
    started: Instant,
    disk_full: AtomicBool,
    failure: watch::Sender<Option<String>>,
    tasks: Tasks,
}

impl Node {
    /// Starts the control group, and the shards that this node held before.
    pub(crate) async fn start(parts: Parts) -> Result<Arc<Self>, String> {
        let Parts {
            me,
            settings,
            founder,
            directory,
            endpoint,
            gate,
            wal,
            engine,
            server,
            failure,
        } = parts;
        let peers = Peers::new(endpoint.clone(), Arc::clone(&gate));
        let pulses = Pulses::new(me.id, peers.clone());
        let config = raft::config(&settings)?;
        let opener = Opener {
            me: me.id,
            directory: &directory,
            config: &config,
            wal: &wal,
            engine: &engine,
            peers: &peers,
            pulses: &pulses,
            log_bytes_max: settings.log_bytes_max,
        };
        let control = Arc::new(opener.open(GroupId::CONTROL).await?);
        let node = Arc::new(Self {
            groups: RwLock::new(BTreeMap::from([(GroupId::CONTROL, Arc::clone(&control))])),
            me,
            settings: RwLock::new(settings),
            founder,
            directory,
            endpoint,
            gate,
            peers,
            pulses,
            wal,
            engine,
            server,
            config,
            control,
            reign: Mutex::default(),
            listed: Mutex::default(),
            started: Instant::now(),
            disk_full: AtomicBool::new(false),
            failure,
            tasks: Tasks::default(),
        });
        node.attend(&node.control);
        // Whatever the directory wishes by now: as long as a group has this node among its voters, it may
        // need the vote, and nobody else has its log.
        for id in node.wal.groups().into_iter().filter(|id| id.is_shard()) {
            node.open_group(id).await?;
        }
        node.follow_directory().await?;
        if founder {
            node.control.initialize().await?;
        }
        Ok(node)
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

    /// The registration server.
    pub(crate) fn server(&self) -> &Arc<ServerLink> {
        &self.server
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
    pub(crate) fn directory(&self) -> &DataDir {
        &self.directory
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

    /// Whether the network has that shard, held here or not.
    pub(crate) fn knows_shard(&self, id: GroupId) -> bool {
        let known = self.control.machine().with_directory(|directory| {
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
    pub(crate) fn set_reign(&self, since: Option<Instant>) {
        *lock(&self.reign) = since;
    }

    /// Since when this node has been the coordinator, if it is.
    pub(crate) fn reign(&self) -> Option<Instant> {
        *lock(&self.reign)
    }

    /// Something has happened after which the process must not go on.
    pub(crate) fn fail(&self, why: String) {
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            failure.get_or_insert(why);
            first
        });
    }

    /// Changes the directory, if this node is the coordinator.
    pub(crate) async fn change_directory(
        &self,
        command: DirectoryCommand,
    ) -> Result<DirectoryResult, ProposeError> {
        if !self.control.leads() {
            return Err(ProposeError::NotLeader(self.control.leader()));
        }
        let begins = matches!(command, DirectoryCommand::Create { .. });
        if !begins
            && !self.control.machine().with_directory(|found| found.exists()).unwrap_or(false)
        {
            // A leader applies what there is before it is of use; a founder has to begin first.
            return Err(ProposeError::Unavailable("the network has not begun yet".into()));
        }
        let entry = DirectoryEntry { time_ms: unix_ms(), command };
        self.control.propose_directory(&entry).await
    }

    /// The first entry of a network that this node founds and that has none yet.
    pub(crate) fn creation(&self) -> Option<DirectoryCommand> {
        let exists =
            self.control.machine().with_directory(|directory| directory.exists()).unwrap_or(true);
        if exists || !self.founder {
            return None;
        }
        Some(DirectoryCommand::Create {
            network: self.me.network,
            settings: self.settings(),
            founder: self.announcement(),
        })
    }

    /// What this node says of itself.
    pub(crate) fn announcement(&self) -> Announcement {
        let Me { id, name, address, region, network: _ } = self.me.clone();
        Announcement { id, name, address, region }
    }

    /// Initialises the shards of a network that this node founds. Returns whether there are any
    /// left to do: until then nobody else becomes a member of anything.
    pub(crate) async fn start_founded_shards(&self) -> bool {
        let unstarted = self.control.machine().with_directory(|directory| {
            let groups = directory.groups().iter();
            let unstarted = groups.filter(|(id, plan)| id.is_shard() && !plan.started);
            unstarted.map(|(id, _)| *id).collect::<Vec<_>>()
        });
        let unstarted = unstarted.unwrap_or_default();
        for id in &unstarted {
            let Some(group) = self.group(*id) else { continue };
            if !self.founder {
                warn!(group = %id, "a shard was never started by the node that founded the network");
                continue;
            }
            if let Err(error) = group.initialize().await {
                warn!(group = %id, %error, "the shard was not initialised");
                continue;
            }
            if let Err(error) = self.change_directory(DirectoryCommand::ShardStarted(*id)).await {
                warn!(group = %id, %error, "the shard was not noted as started");
            }
        }
        !unstarted.is_empty()
    }

    /// Does what the directory says concerns this node: learns addresses and the deny list, starts
    /// the groups that it shall hold.
    pub(crate) async fn follow_directory(self: &Arc<Self>) -> Result<(), String> {
        let news = self.control.machine().with_directory(|directory| {
            let addresses: Vec<_> =
                directory.nodes().iter().map(|(id, member)| (*id, member.address)).collect();
            let wanted: BTreeSet<GroupId> = directory
                .groups()
                .iter()
                .filter(|(_, plan)| plan.has(self.me.id))
                .map(|(id, _)| *id)
                .collect();
            let denied: Vec<_> = directory.denied().iter().copied().collect();
            (addresses, wanted, denied, directory.settings().cloned())
        });
        let Some((addresses, wanted, denied, settings)) = news else { return Ok(()) };
        if denied.contains(&self.me.id.into()) {
            self.fail(format!(
                "this node was removed from the network; to join again, start it with an empty \
                 data directory (this one is {})",
                self.directory.path().display()
            ));
            return Ok(());
        }
        for (id, address) in addresses {
            // Only what is new in it: of what has stayed as it was, the server may know better.
            let before = lock(&self.listed).insert(id, address);
            if id != self.me.id && before != Some(address) {
                self.peers.learn(id, address);
            }
        }
        self.gate.set_denied(denied);
        if let Some(settings) = settings {
            *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
        }
        for id in wanted {
            if self.group(id).is_none() {
                self.open_group(id).await?;
            }
        }
        Ok(())
    }

    async fn open_group(self: &Arc<Self>, id: GroupId) -> Result<(), String> {
        let opener = Opener {
            me: self.me.id,
            directory: &self.directory,
            config: &self.config,
            wal: &self.wal,
            engine: &self.engine,
            peers: &self.peers,
            pulses: &self.pulses,
            log_bytes_max: self.settings().log_bytes_max,
        };
        let group = Arc::new(opener.open(id).await?);
        self.groups.write().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&group));
        self.attend(&group);
        Ok(())
    }

    /// Starts what goes with every group: its steward, and somebody who notices if it breaks.
    fn attend(self: &Arc<Self>, group: &Arc<Group>) {
        self.spawn(stewards::run(Arc::clone(self), Arc::clone(group)));
        let (node, group) = (Arc::clone(self), Arc::clone(group));
        self.spawn(async move {
            let mut metrics = group.metrics();
            let broken = metrics.wait_for(|metrics| metrics.running_state.is_err()).await;
            let why = match broken {
                Ok(()) => metrics.borrow().running_state.as_ref().err().map(ToString::to_string),
                // A stop in good order leaves a last word.
                Err(_) => Some("it panicked".to_owned()),
            };
            if let Some(why) = why {
                node.fail(format!("group {} has stopped: {why}", group.id()));
            }
        });
    }

    /// The network as this node sees it; `None` before it has begun.
    pub(crate) fn view(&self) -> Option<NetworkView> {
        let control = self.control.metrics();
        let (term, coordinator) = {
            let control = control.borrow();
            (dkv_wire::id::Term(control.current_term), control.current_leader)
        };
        let primaries = self.groups().into_iter().filter(|group| group.id().is_shard());
        let primaries = primaries.filter_map(|group| Some((group.id(), group.leader()?))).collect();
        let states = match self.reign() {
            Some(since) if coordinator == Some(self.me.id) => coordinator::states(self, since),
            // A replicant knows of the coordinator's and its own life only; the rest it assumes.
            _ => self.peers.known().into_iter().map(|(id, _)| (id, NodeState::Live)).collect(),
        };
        let mut observed = Observed { term, coordinator, states, primaries };
        observed.states.insert(self.me.id, NodeState::Live);
        self.control.machine().with_directory(|directory| directory.to_view(&observed))?
    }

    /// How this node is.
    pub(crate) fn status(&self) -> NodeStatus {
        let stats = self.wal.stats();
        NodeStatus {
            id: self.me.id,
            name: self.me.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: self.started.elapsed().as_millis() as u64,
            server_seen_ms: self.server.seen().map(|seen| seen.as_millis() as u64),
            groups: self.groups().iter().map(|group| group.status()).collect(),
            log_bytes: stats.bytes_on_disk,
            fsync_us: stats.fsync_us_median,
            disk_full: self.disk_full(),
        }
    }

    /// Hands over whatever this node leads, and stops.
    pub(crate) async fn stop(&self, patience: Duration) {
        let groups = self.groups();
        let hand_over = groups.iter().filter(|group| group.leads());
        let handed = futures::future::join_all(hand_over.map(|group| group.hand_over(patience)));
        let handed = handed.await;
        if handed.contains(&false) {
            warn!("not everything that this node led was taken over by another");
        }
        self.say_goodbye(patience).await;
        if handed.contains(&true) {
            tokio::time::sleep(REDIRECT_FOR).await;
        }
        // A group whose log waits for its disk cannot stop by itself; closing the log ends it.
        let stops = groups.iter().map(|group| tokio::time::timeout(patience, group.stop()));
        futures::future::join_all(stops).await;
        self.endpoint.close().await;
        self.end_tasks().await;
        self.wal.close();
    }

    /// Runs a task that ends with the node at the latest.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Ends every task of the node, whatever it does.
    pub(crate) async fn end_tasks(&self) {
        self.pulses.end().await;
        self.tasks.end().await;
    }

    async fn say_goodbye(&self, patience: Duration) {
        let Some(coordinator) = self.control.leader().filter(|leader| *leader != self.me.id) else {
            return;
        };
        let goodbye = crate::announce::tell(
            self,
            coordinator,
            dkv_wire::message::RequestBody::Leaving,
            patience,
        );
        if let Err(error) = goodbye.await {
            info!(%error, "the coordinator was not told that this node leaves");
        }
    }
}

/// Opens groups.
struct Opener<'a> {
    me: NodeId,
    directory: &'a DataDir,
    config: &'a Arc<raft::Config>,
    wal: &'a Wal,
    engine: &'a Engine,
    peers: &'a Peers,
    pulses: &'a Pulses,
    log_bytes_max: u64,
}

impl Opener<'_> {
    async fn open(&self, id: GroupId) -> Result<Group, String> {
        let engine = self.engine.clone();
        let loaded = run_blocking(move || Machine::load(engine.group(id)?));
        let damaged = |problem: String| self.directory.damaged(problem).to_string();
        let machine =
            loaded.await.map_err(|error| error.to_string())?.map_err(|error| match error {
                EngineError::Damaged { .. } => damaged(error.to_string()),
                error => error.to_string(),
            })?;
        let log = self.wal.group(id);
        check_fit(id, &machine, &log).map_err(damaged)?;
        Group::start(GroupParts {
            id,
            me: self.me,
            config: Arc::clone(self.config),
            log,
            machine,
            peers: self.peers.clone(),
            pulses: self.pulses.clone(),
            log_bytes_max: self.log_bytes_max,
        })
        .await
    }
}

/// A log that begins after the state ends has lost entries in between.
fn check_fit(id: GroupId, machine: &Machine, log: &crate::wal::GroupLog) -> Result<(), String> {
    let applied = machine.handle().summary().applied_index;
    match log.state().purged {
        Some((purged, _)) if purged > applied => Err(format!(
            "the checkpoint of group {id} in state ends at entry {applied}, and its log begins after \
             entry {purged}"
        )),
        _ => Ok(()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
