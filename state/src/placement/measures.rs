//! What the coordinator knows of nodes and groups beside the directory.

use std::collections::{BTreeMap, BTreeSet};

use dkv_base::id::{GroupId, NodeId, Revision, Term};

/// How the network is, as the coordinator has heard. Of a node or group that is missing here
/// nothing is known: it is neither given anything nor changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// How each node seems.
    pub nodes: BTreeMap<NodeId, NodeMeasure>,
    /// How each group is, by the word of its leader.
    pub groups: BTreeMap<GroupId, GroupMeasure>,
}

/// How one node seems to the coordinator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeMeasure {
    /// Whether it was heard of within the last election time.
    pub live: bool,
    /// Time since it was last heard of, or since this coordinator began to listen, in milliseconds.
    pub silent_ms: u64,
    /// What it said of itself, if it did so lately.
    pub report: Option<NodeReport>,
}

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeReport {
    /// Groups of which it has anything, wanted or not.
    pub holds: BTreeSet<GroupId>,
    /// Bytes that it could take in: room on its disk beyond what it keeps in reserve.
    pub free_bytes: u64,
    /// Whether it has eventual writes that are not delivered yet, or may take some yet. Of a node
    /// that is to be removed, that it has none is its last word, however old.
    pub keeps_writes: bool,
    /// The revision of the directory that it knew when it looked at what it leads.
    pub directory: Revision,
}

/// How one group is, by the word of its leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMeasure {
    /// Who leads.
    pub leader: NodeId,
    /// In which term.
    pub term: Term,
    /// Nodes whose vote counts; of a joint configuration, those of the newer half.
    pub voters: BTreeSet<NodeId>,
    /// Nodes that follow without a vote, and those that lose theirs in a joint configuration.
    pub learners: BTreeSet<NodeId>,
    /// Whether a change of voters was begun and is not finished.
    pub is_joint: bool,
    /// Whether a change of members was begun and is not committed.
    pub is_changing: bool,
    /// Members that live and have all but the newest entries, the leader included.
    pub ready: BTreeSet<NodeId>,
    /// Bytes of its keys and values.
    pub bytes: u64,
}

impl GroupMeasure {
    /// Whether the group counts on a node in any way.
    pub fn has(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.learners.contains(&node)
    }
}
