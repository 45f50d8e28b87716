//! The status of a node and its replicas.

use serde::{Deserialize, Serialize};

use dkv_base::id::{GroupId, NodeId, Revision, Term};

/// The status of a node, by its own report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// The version of its program.
    pub version: String,
    /// Time since it started, in milliseconds.
    pub uptime_ms: u64,
    /// Time since its last successful contact with the registration server, in milliseconds. `None`
    /// if there was none since it started.
    pub server_seen_ms: Option<u64>,
    /// Its replicas, the control group's first.
    pub groups: Vec<GroupStatus>,
    /// Size of its logs on disk, in bytes.
    pub log_bytes: u64,
    /// Median time of a recent fsync, in microseconds.
    pub fsync_us: u64,
    /// Whether it refuses writes because its disk is full.
    pub disk_full: bool,
    /// Number of eventual writes that it has accepted and not delivered yet.
    pub pending: u64,
    /// Notes for an administrator, as sentences: why it does not take part, and whom it refuses.
    pub notes: Vec<String>,
}

/// The status of one replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// The group.
    pub group: GroupId,
    /// The role of the replica in its group.
    pub role: GroupRole,
    /// Its term.
    pub term: Term,
    /// The leader: the replica itself, or the one that it has heard lately.
    pub leader: Option<NodeId>,
    /// Voters of the newest configuration that it knows; during a change of members, those of both
    /// halves.
    pub voters: Vec<NodeId>,
    /// The halves of that configuration during a change of members, of each of which a majority
    /// must agree; empty otherwise.
    pub halves: Vec<Vec<NodeId>>,
    /// Learners of that configuration.
    pub learners: Vec<NodeId>,
    /// Index of the last entry of its log.
    pub last_index: u64,
    /// Index of the last entry that it has applied.
    pub applied_index: u64,
    /// Index of the last entry in its newest checkpoint.
    pub checkpoint_index: u64,
    /// Index of the last entry purged from its log.
    pub purged_index: u64,
    /// Number of keys that it holds.
    pub keys: u64,
    /// Size of the keys and values that it holds, in bytes.
    pub bytes: u64,
    /// Its latest revision.
    pub revision: Revision,
    /// Hash of its state at `applied_index`: equal on all replicas at an equal index.
    // A hash of keys and tokens: its length on the wire must not depend on them.
    #[serde(with = "postcard::fixint::le")]
    pub state_hash: u64,
    /// The progress of each other member; only on the leader.
    pub replicas: Vec<ReplicaStatus>,
}

impl GroupStatus {
    /// Returns whether the group has a leader, as far as this replica knows. One that leads and
    /// hears no majority of the voters leads nobody.
    pub fn has_leader(&self) -> bool {
        match self.role {
            GroupRole::Leader => self.spare(|voter| self.hears(voter)).is_some_and(|it| it >= 0),
            _ => self.leader.is_some(),
        }
    }

    /// Returns whether this replica leads and has heard from a voter lately, or is that voter.
    pub fn hears(&self, voter: NodeId) -> bool {
        let is_self = self.leader == Some(voter) && self.role == GroupRole::Leader;
        is_self || self.replicas.iter().any(|replica| replica.node == voter && replica.is_heard)
    }

    /// Returns how many voters may fail beside those that are not `live`, or how many are missing
    /// for a majority, as a negative number: the least of both halves during a change of members.
    /// `None` without voters.
    pub fn spare(&self, live: impl Fn(NodeId) -> bool) -> Option<i64> {
        let spare = |half: &Vec<NodeId>| {
            let live = half.iter().filter(|voter| live(**voter)).count();
            live as i64 - (half.len() / 2 + 1) as i64
        };
        let whole = std::iter::once(&self.voters).filter(|_| self.halves.is_empty());
        whole.chain(&self.halves).filter(|half| !half.is_empty()).map(spare).min()
    }
}

/// The role of a replica in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupRole {
    /// Leads the group: the primary of a shard, or the coordinator.
    Leader,
    /// Follows the leader and votes.
    Follower,
    /// Stands for election.
    Candidate,
    /// Follows the leader without a vote.
    Learner,
}

/// A member, as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// The node.
    pub node: NodeId,
    /// Index of the last entry that it is known to have.
    pub matched_index: u64,
    /// Time since it last answered, in milliseconds.
    pub silent_ms: Option<u64>,
    /// Whether that is less than the silence of a member that is down, with the group's heartbeat
    /// and distances.
    pub is_heard: bool,
}
