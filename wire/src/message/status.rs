//! How a node and its replicas are.

use serde::{Deserialize, Serialize};

use dkv_base::id::{GroupId, NodeId, Revision, Term};

/// One node, as it sees itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its identity.
    pub id: NodeId,
    /// What people call it.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Time since it started, in milliseconds.
    pub uptime_ms: u64,
    /// Whether its last conversation with the server succeeded, and how long ago that was, in
    /// milliseconds. `None` if it never had one since it started.
    pub server_seen_ms: Option<u64>,
    /// Its replicas, the control group's first.
    pub groups: Vec<GroupStatus>,
    /// Bytes of its logs on disk.
    pub log_bytes: u64,
    /// Median time of a recent fsync, in microseconds.
    pub fsync_us: u64,
    /// Whether it refuses writes because its disk is full.
    pub disk_full: bool,
    /// Eventual writes that it has taken and that are not delivered yet.
    pub pending: u64,
    /// What an administrator should know, in sentences: why it holds back, and whom it refuses.
    pub notes: Vec<String>,
}

/// One replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Which group.
    pub group: GroupId,
    /// What the replica is in it.
    pub role: GroupRole,
    /// Its term.
    pub term: Term,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// Voters of the newest configuration that it knows.
    pub voters: Vec<NodeId>,
    /// Learners of that configuration.
    pub learners: Vec<NodeId>,
    /// Last entry of its log.
    pub last_index: u64,
    /// Last entry that it has applied.
    pub applied_index: u64,
    /// Last entry that its newest checkpoint holds.
    pub checkpoint_index: u64,
    /// Last entry that was purged from its log.
    pub purged_index: u64,
    /// Keys that it holds.
    pub keys: u64,
    /// Bytes of keys and values that it holds.
    pub bytes: u64,
    /// Its latest revision.
    pub revision: Revision,
    /// Hash of its state at `applied_index`: equal on all replicas at an equal index.
    pub state_hash: u64,
    /// From the leader only: how far each other member is.
    pub replicas: Vec<ReplicaStatus>,
}

/// What a replica is in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupRole {
    /// Leads: the group's primary, or the coordinator.
    Leader,
    /// Follows and votes.
    Follower,
    /// Stands for election.
    Candidate,
    /// Follows without a vote.
    Learner,
}

/// A member as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// Which node.
    pub node: NodeId,
    /// Last entry that it is known to have.
    pub matched_index: u64,
    /// Time since it last answered, in milliseconds.
    pub silent_ms: Option<u64>,
}
