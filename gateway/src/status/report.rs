//! The document of `dkv ADDR status --json`.
//!
//! Fields may be added; existing ones are never renamed and never change their meaning. Points in
//! time are milliseconds since 1970, ages and uptimes milliseconds, sizes bytes. Unknown values are
//! `null`.

use std::net::SocketAddr;

use dkv_base::id::{GroupId, NodeId};
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
    /// All registration servers that the directory names.
    pub servers: Vec<ListedServer>,
    /// The coordinator, according to the nodes.
    pub coordinator: Option<Coordinator>,
    /// Number of further node failures, whichever nodes fail, that leave every key readable and
    /// writable. Also zero if some keys are not even now. `null` if no group is known.
    pub may_fail: Option<u32>,
    /// Whether every group has a leader that answers and hears a majority of its voters.
    pub available: bool,
    /// What needs attention, one sentence each.
    pub warnings: Vec<String>,
    /// All nodes, without the removed ones.
    pub nodes: Vec<Node>,
    /// The control group, then the shards.
    pub groups: Vec<Group>,
    /// Replicas that are moving.
    pub moves: Vec<Move>,
}

impl Report {
    /// The names of the groups without a majority.
    pub fn without_majority(&self) -> Vec<String> {
        self.names(|group| group.spare.is_some_and(|spare| spare < 0))
    }

    /// The names of the groups without a leader that answers.
    pub fn without_leader(&self) -> Vec<String> {
        self.names(|group| group.primary.is_none())
    }

    fn names(&self, holds: impl Fn(&Group) -> bool) -> Vec<String> {
        let groups = self.groups.iter().filter(|group| holds(group));
        groups.map(|group| group_name(group.group)).collect()
    }
}

/// Returns the display name of a group.
pub fn group_name(group: u32) -> String {
    if group == GroupId::CONTROL.0 { "control group".into() } else { format!("shard {group}") }
}

/// The registration server.
#[derive(Clone, Debug, Serialize)]
pub struct Server {
    /// Address at which it was asked.
    pub address: String,
    /// Whether it answered.
    pub reachable: bool,
    /// Why it did not answer.
    pub error: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Time since it started.
    pub uptime_ms: Option<u64>,
    /// Name of the coordinator that it confirmed last.
    pub confirmed_coordinator: Option<String>,
    /// Term of that coordinator.
    pub confirmed_term: Option<u64>,
    /// When it confirmed that coordinator.
    pub confirmed_at_ms: Option<u64>,
    /// Time since a coordinator last reported.
    pub report_age_ms: Option<u64>,
}

/// A registration server that the directory names.
#[derive(Clone, Debug, Serialize)]
pub struct ListedServer {
    /// Its id.
    pub id: String,
    /// The address at which others reach it.
    pub address: String,
    /// Whether it answered.
    pub reachable: bool,
    /// Why it did not answer.
    pub error: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Time since it started.
    pub uptime_ms: Option<u64>,
    /// Time since a coordinator last reported to it.
    pub report_age_ms: Option<u64>,
}

/// The coordinator.
#[derive(Clone, Debug, Serialize)]
pub struct Coordinator {
    /// Its id.
    pub id: NodeId,
    /// Its name.
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

/// The role of a node in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Leads the control group.
    Coordinator,
    /// Any other node.
    Replicant,
}

/// A node.
#[derive(Clone, Debug, Serialize)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// Where it is in its life, as the directory has it.
    pub state: NodeState,
    /// Whether it answered.
    pub reachable: bool,
    /// Why not.
    pub error: Option<String>,
    /// Its address.
    pub address: SocketAddr,
    /// Its region; `null` if it was started without one.
    pub region: Option<Region>,
    /// Its version.
    pub version: Option<String>,
    /// Time since it started.
    pub uptime_ms: Option<u64>,
    /// Shards of which it is the primary.
    pub primaries: Vec<u32>,
    /// Number of shard replicas that it holds.
    pub replicas: u32,
    /// Largest number of entries by which one of its logs lags behind the leader's.
    pub log_lag: Option<u64>,
    /// Largest number of entries by which one of its states lags behind the leader's log.
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
    /// Eventual writes that it has accepted and not delivered yet.
    pub pending: Option<u64>,
    /// Time since it last spoke with the server.
    pub server_seen_ms: Option<u64>,
    /// Whether it is being drained.
    pub draining: bool,
    /// Whether it will be removed.
    pub retiring: bool,
    /// Whether it can be switched off without loss. `null` if no coordinator answers.
    pub may_stop: Option<bool>,
}

/// A Raft group.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// Its number: zero for the control group, else the shard's.
    pub group: u32,
    /// Name of its leader: the primary of a shard, or the coordinator.
    pub primary: Option<String>,
    /// Its term.
    pub term: Option<u64>,
    /// Latest known revision.
    pub revision: Option<u64>,
    /// Keys that it holds.
    pub keys: Option<u64>,
    /// Bytes of keys and values.
    pub data_bytes: Option<u64>,
    /// Its voters.
    pub voters: Vec<Replica>,
    /// Its learners.
    pub learners: Vec<Replica>,
    /// Further failures that it tolerates: voters that answer, and that its leader hears, less the
    /// majority; the least of both halves while its voters change. Not negative while it has a
    /// leader, whomever the asking client reaches; otherwise negative without a majority. `null` if
    /// its voters are unknown.
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
    /// Entries by which its log lags behind the leader's, according to the leader.
    pub log_lag: Option<u64>,
    /// Entries by which its state lags behind the leader's log.
    pub applied_lag: Option<u64>,
    /// Time since it last answered its leader.
    pub silent_ms: Option<u64>,
}

/// A move of a replica.
#[derive(Clone, Debug, Serialize)]
pub struct Move {
    /// The shard.
    pub group: u32,
    /// Name of the node that loses its replica, if any.
    pub from: Option<String>,
    /// Name of the node that gets a replica, if any.
    pub to: Option<String>,
    /// Progress: `waiting`, `learning`, `promoting` or `removing`.
    pub step: MoveStep,
    /// Last log entry that the new replica has.
    pub matched_index: u64,
    /// Last log entry of the group.
    pub last_index: u64,
    /// Bytes of keys and values in the shard.
    pub data_bytes: u64,
}
