//! The document of `dkv ADDR status --json`.
//!
//! Fields are added, never renamed or given another meaning. Times of day are milliseconds since
//! 1970, ages and uptimes milliseconds, sizes bytes. What is not known is `null`.

use std::net::SocketAddr;

use dkv_base::id::NodeId;
use dkv_wire::message::MoveStep;
use dkv_wire::network::NodeState;
use dkv_wire::region::Region;
use serde::Serialize;

/// A network at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Id of the network; `null` if neither the server nor a node answered.
    pub network: Option<String>,
    /// The registration server.
    pub server: Server,
    /// The coordinator, as the nodes have it.
    pub coordinator: Option<Coordinator>,
    /// How many more nodes may fail, whichever they are, with every key still readable and
    /// writable. Zero also if some are not even now. `null` if no group is known.
    pub may_fail: Option<u32>,
    /// Whether every group has a majority of its voters.
    pub available: bool,
    /// What needs somebody's attention, a sentence each.
    pub warnings: Vec<String>,
    /// All nodes that were not removed.
    pub nodes: Vec<Node>,
    /// The control group, and then the shards.
    pub groups: Vec<Group>,
    /// Replicas that are on their way.
    pub moves: Vec<Move>,
}

/// The registration server.
#[derive(Clone, Debug, Serialize)]
pub struct Server {
    /// Where it was asked.
    pub address: String,
    /// Whether it answered.
    pub reachable: bool,
    /// Why not.
    pub error: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Time since it started.
    pub uptime_ms: Option<u64>,
    /// Name of the coordinator that it confirmed last.
    pub confirmed_coordinator: Option<String>,
    /// In which term.
    pub confirmed_term: Option<u64>,
    /// When.
    pub confirmed_at_ms: Option<u64>,
    /// How long ago a coordinator last reported.
    pub report_age_ms: Option<u64>,
}

/// The coordinator.
#[derive(Clone, Debug, Serialize)]
pub struct Coordinator {
    /// Its id.
    pub id: NodeId,
    /// What people call it.
    pub name: String,
    /// The term that it leads.
    pub term: u64,
    /// Whether it answered.
    pub reachable: bool,
    /// Whether the server has confirmed it in that term.
    pub confirmed: bool,
    /// When the server confirmed it.
    pub confirmed_at_ms: Option<u64>,
}

/// What a node is in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Leads the control group.
    Coordinator,
    /// Every other node.
    Replicant,
}

/// A node.
#[derive(Clone, Debug, Serialize)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// What people call it.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// Where it is in its life, as the directory has it.
    pub state: NodeState,
    /// Whether it answered.
    pub reachable: bool,
    /// Why not.
    pub error: Option<String>,
    /// Where it listens.
    pub address: SocketAddr,
    /// The region that it is in; `null` if it was told none.
    pub region: Option<Region>,
    /// Its version.
    pub version: Option<String>,
    /// Time since it started.
    pub uptime_ms: Option<u64>,
    /// Shards whose primary it is.
    pub primaries: Vec<u32>,
    /// Replicas of shards that it holds.
    pub replicas: u32,
    /// Most entries that one of its logs is behind that group's leader.
    pub log_lag: Option<u64>,
    /// Most entries that one of its states is behind that group's leader's log.
    pub applied_lag: Option<u64>,
    /// Keys of all its replicas.
    pub keys: Option<u64>,
    /// Bytes of keys and values of all its replicas.
    pub data_bytes: Option<u64>,
    /// Bytes of its logs on disk.
    pub log_bytes: Option<u64>,
    /// Median time of a recent fsync, in microseconds.
    pub fsync_us: Option<u64>,
    /// Whether it refuses writes because its disk is full.
    pub disk_full: bool,
    /// Eventual writes that it has taken and that are not delivered yet.
    pub pending: Option<u64>,
    /// How long ago it last spoke with the server.
    pub server_seen_ms: Option<u64>,
    /// Whether it is to be emptied.
    pub draining: bool,
    /// Whether it is to be removed.
    pub retiring: bool,
    /// Whether nothing would miss it if it were switched off. `null` if no coordinator answers.
    pub may_stop: Option<bool>,
}

/// A Raft group.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// Its number; zero is the control group, every other one a shard.
    pub group: u32,
    /// Name of its leader: of a shard the primary, of the control group the coordinator.
    pub primary: Option<String>,
    /// Its term.
    pub term: Option<u64>,
    /// The latest revision that is known.
    pub revision: Option<u64>,
    /// Keys that it holds.
    pub keys: Option<u64>,
    /// Bytes of keys and values.
    pub data_bytes: Option<u64>,
    /// Its voters.
    pub voters: Vec<Replica>,
    /// Nodes that follow it without a vote.
    pub learners: Vec<Replica>,
    /// Voters that answer, less the majority that it needs: how many more may fail. Negative if it
    /// has no majority. `null` if its voters are not known.
    pub spare: Option<i64>,
}

/// A replica of a group.
#[derive(Clone, Debug, Serialize)]
pub struct Replica {
    /// The node's id.
    pub id: NodeId,
    /// The node's name.
    pub name: String,
    /// Whether the node answered.
    pub reachable: bool,
    /// Whether it leads the group.
    pub leader: bool,
    /// Entries that its log is behind the leader's, as the leader knows.
    pub log_lag: Option<u64>,
    /// Entries that its state is behind the leader's log.
    pub applied_lag: Option<u64>,
    /// How long ago it last answered its leader.
    pub silent_ms: Option<u64>,
}

/// A replica that is on its way.
#[derive(Clone, Debug, Serialize)]
pub struct Move {
    /// The shard.
    pub group: u32,
    /// Name of the node whose replica goes, if one does.
    pub from: Option<String>,
    /// Name of the node that gets one, if one does.
    pub to: Option<String>,
    /// How far it is: `waiting`, `learning`, `promoting` or `removing`.
    pub step: MoveStep,
    /// Last entry that the node has which gets one.
    pub matched_index: u64,
    /// Last entry that there is.
    pub last_index: u64,
    /// Bytes of keys and values in the shard.
    pub data_bytes: u64,
}
