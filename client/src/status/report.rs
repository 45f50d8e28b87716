//! The document of `dkv ADDR status --json`.
//!
//! Fields are added, never renamed or given another meaning. Times of day are milliseconds since
//! 1970, ages and uptimes milliseconds, sizes bytes. What is not known is `null`.

use std::net::SocketAddr;

use dkv_wire::id::NodeId;
use dkv_wire::network::NodeState;
use serde::Serialize;

/// A network at one moment.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// Id of the network; `null` if neither the server nor a node answered.
    pub(crate) network: Option<String>,
    /// The registration server.
    pub(crate) server: Server,
    /// The coordinator, as the nodes have it.
    pub(crate) coordinator: Option<Coordinator>,
    /// How many more nodes may fail, whichever they are, with every key still readable and
    /// writable. Zero also if some are not even now. `null` if no group is known.
    pub(crate) may_fail: Option<u32>,
    /// Whether every group has a majority of its voters.
    pub(crate) available: bool,
    /// What needs somebody's attention, a sentence each.
    pub(crate) warnings: Vec<String>,
    /// All nodes that were not removed.
    pub(crate) nodes: Vec<Node>,
    /// The control group, and then the shards.
    pub(crate) groups: Vec<Group>,
}

/// The registration server.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Server {
    /// Where it was asked.
    pub(crate) address: String,
    /// Whether it answered.
    pub(crate) reachable: bool,
    /// Why not.
    pub(crate) error: Option<String>,
    /// Its version.
    pub(crate) version: Option<String>,
    /// Time since it started.
    pub(crate) uptime_ms: Option<u64>,
    /// Name of the coordinator that it confirmed last.
    pub(crate) confirmed_coordinator: Option<String>,
    /// In which term.
    pub(crate) confirmed_term: Option<u64>,
    /// When.
    pub(crate) confirmed_at_ms: Option<u64>,
    /// How long ago a coordinator last reported.
    pub(crate) report_age_ms: Option<u64>,
}

/// The coordinator.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Coordinator {
    /// Its id.
    pub(crate) id: NodeId,
    /// What people call it.
    pub(crate) name: String,
    /// The term that it leads.
    pub(crate) term: u64,
    /// Whether it answered.
    pub(crate) reachable: bool,
    /// Whether the server has confirmed it in that term.
    pub(crate) confirmed: bool,
    /// When the server confirmed it.
    pub(crate) confirmed_at_ms: Option<u64>,
}

/// What a node is in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Leads the control group.
    Coordinator,
    /// Every other node.
    Replicant,
}

/// A node.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Node {
    /// Its id.
    pub(crate) id: NodeId,
    /// What people call it.
    pub(crate) name: String,
    /// What it is.
    pub(crate) role: Role,
    /// Where it is in its life, as the directory has it.
    pub(crate) state: NodeState,
    /// Whether it answered.
    pub(crate) reachable: bool,
    /// Why not.
    pub(crate) error: Option<String>,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Its version.
    pub(crate) version: Option<String>,
    /// Time since it started.
    pub(crate) uptime_ms: Option<u64>,
    /// Shards whose primary it is.
    pub(crate) primaries: Vec<u32>,
    /// Replicas of shards that it holds.
    pub(crate) replicas: u32,
    /// Most entries that one of its logs is behind that group's leader.
    pub(crate) log_lag: Option<u64>,
    /// Most entries that one of its states is behind that group's leader's log.
    pub(crate) applied_lag: Option<u64>,
    /// Keys of all its replicas.
    pub(crate) keys: Option<u64>,
    /// Bytes of keys and values of all its replicas.
    pub(crate) data_bytes: Option<u64>,
    /// Bytes of its logs on disk.
    pub(crate) log_bytes: Option<u64>,
    /// Median time of a recent fsync, in microseconds.
    pub(crate) fsync_us: Option<u64>,
    /// Whether it refuses writes because its disk is full.
    pub(crate) disk_full: bool,
    /// How long ago it last spoke with the server.
    pub(crate) server_seen_ms: Option<u64>,
}

/// A Raft group.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Group {
    /// Its number; zero is the control group, every other one a shard.
    pub(crate) group: u32,
    /// Name of its leader: of a shard the primary, of the control group the coordinator.
    pub(crate) primary: Option<String>,
    /// Its term.
    pub(crate) term: Option<u64>,
    /// The latest revision that is known.
    pub(crate) revision: Option<u64>,
    /// Keys that it holds.
    pub(crate) keys: Option<u64>,
    /// Bytes of keys and values.
    pub(crate) data_bytes: Option<u64>,
    /// Its voters.
    pub(crate) voters: Vec<Replica>,
    /// Nodes that follow it without a vote.
    pub(crate) learners: Vec<Replica>,
    /// Voters that answer, less the majority that it needs: how many more may fail. Negative if it
    /// has no majority. `null` if its voters are not known.
    pub(crate) spare: Option<i64>,
}

/// A replica of a group.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Replica {
    /// The node's id.
    pub(crate) id: NodeId,
    /// The node's name.
    pub(crate) name: String,
    /// Whether the node answered.
    pub(crate) reachable: bool,
    /// Whether it leads the group.
    pub(crate) leader: bool,
    /// Entries that its log is behind the leader's, as the leader knows.
    pub(crate) log_lag: Option<u64>,
    /// Entries that its state is behind the leader's log.
    pub(crate) applied_lag: Option<u64>,
    /// How long ago it last answered its leader.
    pub(crate) silent_ms: Option<u64>,
}
