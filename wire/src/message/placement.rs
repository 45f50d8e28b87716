//! Placement: where replicas are, where they are moving, and the measurements that decide it.

use serde::{Deserialize, Serialize};

use dkv_base::id::{GroupId, NodeId, Revision, Term};

/// A node's measurements of itself and of the groups that it leads, for the coordinator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measures {
    /// Groups of which it has any data, assigned to it or not.
    pub holds: Vec<GroupId>,
    /// Groups that it leads.
    pub leads: Vec<LedGroup>,
    /// Bytes that it can take in: free space on its disk beyond its reserve.
    pub free_bytes: u64,
    /// Whether it has undelivered eventual writes or may still accept some, for example because the
    /// drain may be cancelled.
    pub keeps_writes: bool,
    /// The revision of the directory that it knew when it looked at what it leads.
    pub directory: Revision,
}

/// The remainder on a node being drained, by its own report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remainder {
    /// Whether it may still accept an eventual write. Once it accepts none, that holds across
    /// restarts.
    pub takes_writes: bool,
    /// Whether it has undelivered eventual writes.
    pub keeps_writes: bool,
    /// Number of shards of which it has any data.
    pub shards: u32,
}

impl Remainder {
    /// Whether the node holds no data of its own any more, and will get none.
    pub fn is_nothing(&self) -> bool {
        !self.takes_writes && !self.keeps_writes && self.shards == 0
    }
}

/// A group, by the report of its leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedGroup {
    /// The group.
    pub group: GroupId,
    /// The term of the leader.
    pub term: Term,
    /// The voters; of a joint configuration, those of the newer half.
    pub voters: Vec<NodeId>,
    /// All other members.
    pub learners: Vec<NodeId>,
    /// Whether a change of voters is in progress.
    pub is_joint: bool,
    /// Size of its keys and values, in bytes.
    pub bytes: u64,
    /// Index of the last entry of the leader's log.
    pub last_index: u64,
    /// The progress of each other member.
    pub members: Vec<MemberProgress>,
    /// Whether these members are not committed yet.
    pub is_changing: bool,
}

/// The progress of a member, as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberProgress {
    /// The node.
    pub node: NodeId,
    /// Index of the last entry that it is known to have.
    pub matched_index: u64,
    /// Whether it is responsive and has all but the newest entries.
    pub is_ready: bool,
}

/// The placement of all replicas and the moves in progress, as the coordinator sees them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The load of each node.
    pub nodes: Vec<NodePlaces>,
    /// The moves in progress.
    pub moves: Vec<Move>,
    /// The moves planned after those, if nothing else happens; only if the request asks for them.
    pub planned: Vec<PlannedMove>,
    /// The leadership transfers planned after those; only if the request asks for them.
    pub transfers: Vec<PlannedMove>,
}

/// The load of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePlaces {
    /// The node.
    pub node: NodeId,
    /// Number of shards of which it is a member, or is to become one.
    pub shards: u32,
    /// Number of shards that it leads.
    pub primaries: u32,
    /// Size of the keys and values in these shards, in bytes.
    pub bytes: u64,
    /// Whether it is being drained.
    pub draining: bool,
    /// Whether it is being removed.
    pub retiring: bool,
    /// Whether it is being drained or removed and may be stopped: it is a member of no shard and
    /// not of the control group, and has itself reported, after this request, that it is empty.
    pub may_stop: bool,
    /// Why its drain does not make progress.
    pub obstacle: Option<String>,
}

/// A move of a replica in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The shard.
    pub group: GroupId,
    /// The node that loses its replica, if one does.
    pub from: Option<NodeId>,
    /// The node that gets one, if one does.
    pub to: Option<NodeId>,
    /// The current step.
    pub step: MoveStep,
    /// Index of the last entry that the new replica has.
    pub matched_index: u64,
    /// Index of the last entry of the shard.
    pub last_index: u64,
    /// Size of the keys and values in the shard, in bytes.
    pub bytes: u64,
}

/// The step of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MoveStep {
    /// The shard has no known leader.
    Waiting,
    /// The new replica is a learner and is catching up.
    Learning,
    /// The new replica has caught up and is becoming a voter.
    Promoting,
    /// The old replica is being removed.
    Removing,
}

/// A planned move of a replica or of a leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedMove {
    /// The shard.
    pub group: GroupId,
    /// The node that it leaves.
    pub from: Option<NodeId>,
    /// The node that it goes to.
    pub to: Option<NodeId>,
    /// Size of the keys and values in the shard, in bytes.
    pub bytes: u64,
}
