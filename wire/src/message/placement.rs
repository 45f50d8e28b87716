//! Where replicas are, where they are going, and what decides that.

use serde::{Deserialize, Serialize};

use dkv_base::id::{GroupId, NodeId, Revision, Term};

/// What a node tells the coordinator of itself and of what it leads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measures {
    /// Groups of which it has anything, wanted or not.
    pub holds: Vec<GroupId>,
    /// Groups that it leads.
    pub leads: Vec<LedGroup>,
    /// Bytes that it could take in: room on its disk beyond what it keeps in reserve.
    pub free_bytes: u64,
    /// Whether it has eventual writes that are not delivered yet, or may take some yet: also
    /// because somebody may take back that it is to be emptied.
    pub keeps_writes: bool,
    /// The revision of the directory that it knew when it looked at what it leads.
    pub directory: Revision,
}

/// What is left on a node that is to be emptied, by its own word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remainder {
    /// Whether it may take an eventual write yet. Once it takes none, it takes none after a restart
    /// either.
    pub takes_writes: bool,
    /// Whether it has eventual writes that are not delivered yet.
    pub keeps_writes: bool,
    /// Shards of which it has anything.
    pub shards: u32,
}

impl Remainder {
    /// Whether nothing is left that nobody else has, and nothing comes.
    pub fn is_nothing(&self) -> bool {
        !self.takes_writes && !self.keeps_writes && self.shards == 0
    }
}

/// A group, by the word of its leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedGroup {
    /// Which group.
    pub group: GroupId,
    /// The term in which it is led.
    pub term: Term,
    /// Nodes whose vote counts; of a joint configuration, those of the newer half.
    pub voters: Vec<NodeId>,
    /// All other members.
    pub learners: Vec<NodeId>,
    /// Whether a change of voters was begun and is not finished.
    pub is_joint: bool,
    /// Bytes of its keys and values.
    pub bytes: u64,
    /// Last entry of the leader's log.
    pub last_index: u64,
    /// How far each other member is.
    pub members: Vec<MemberProgress>,
    /// Whether these members are not committed yet.
    pub is_changing: bool,
}

/// How far a member is, as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberProgress {
    /// Which node.
    pub node: NodeId,
    /// Last entry that it is known to have.
    pub matched_index: u64,
    /// Whether it answers, and has all but the newest entries.
    pub is_ready: bool,
}

/// Where replicas are and where they are going, as the coordinator has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// What each node has.
    pub nodes: Vec<NodePlaces>,
    /// What is under way.
    pub moves: Vec<Move>,
    /// What is going to be done after that, if nothing else happens; only if it was asked for.
    pub planned: Vec<PlannedMove>,
    /// Primaries that are going to change hands after that; only if it was asked for.
    pub transfers: Vec<PlannedMove>,
}

/// What one node has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePlaces {
    /// Which node.
    pub node: NodeId,
    /// Shards that count on it now, or that are to.
    pub shards: u32,
    /// Shards that it leads.
    pub primaries: u32,
    /// Bytes of keys and values in these shards.
    pub bytes: u64,
    /// Whether it is to be emptied.
    pub draining: bool,
    /// Whether it is to be removed.
    pub retiring: bool,
    /// Whether it is to be emptied or removed and nothing would miss it: no shard counts on it,
    /// neither does the control group, and it has said itself, after this was asked, that it is
    /// empty.
    pub may_stop: bool,
    /// Why it is not getting emptied although it is to be.
    pub obstacle: Option<String>,
}

/// A replica that is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The shard.
    pub group: GroupId,
    /// Whose replica goes, if one does.
    pub from: Option<NodeId>,
    /// Who gets one, if somebody does.
    pub to: Option<NodeId>,
    /// How far it is.
    pub step: MoveStep,
    /// Last entry that the one who gets it has.
    pub matched_index: u64,
    /// Last entry that there is.
    pub last_index: u64,
    /// Bytes of keys and values in the shard.
    pub bytes: u64,
}

/// How far a replica on its way is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MoveStep {
    /// Nobody is known to lead the shard.
    Waiting,
    /// The new replica follows, and is behind.
    Learning,
    /// The new replica has caught up and is given its vote.
    Promoting,
    /// The old replica is taken out.
    Removing,
}

/// A replica, or a primary, that is going to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedMove {
    /// The shard.
    pub group: GroupId,
    /// From which node.
    pub from: Option<NodeId>,
    /// To which node.
    pub to: Option<NodeId>,
    /// Bytes of keys and values in the shard.
    pub bytes: u64,
}
