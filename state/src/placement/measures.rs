//! The coordinator's measurements of nodes and groups, which the directory does not contain.

use std::collections::{BTreeMap, BTreeSet};

use dkv_base::id::{GroupId, NodeId, Revision, Term};

/// The state of the network as reported to the coordinator. Nothing is known about a node or group
/// that is missing here, so placement neither gives it anything nor changes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// The measurements of each node.
    pub nodes: BTreeMap<NodeId, NodeMeasure>,
    /// The measurements of each group, as reported by its leader.
    pub groups: BTreeMap<GroupId, GroupMeasure>,
}

/// The coordinator's measurements of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeMeasure {
    /// Whether the coordinator heard from the node within the last election timeout.
    pub live: bool,
    /// Time since it last heard from the node, or since it began to listen, in milliseconds.
    pub silent_ms: u64,
    /// The node's report on itself, if there is a recent one.
    pub report: Option<NodeReport>,
}

/// A node's report on itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeReport {
    /// Groups that the node stores anything of, wanted or not.
    pub holds: BTreeSet<GroupId>,
    /// Bytes that the node could take in: free disk space beyond its reserve.
    pub free_bytes: u64,
    /// Whether the node has eventual writes that are not delivered yet, or may still accept some.
    /// For a node that is to be removed, a report of having none is final, however old.
    pub keeps_writes: bool,
    /// The revision of the directory that the node knew when it inspected the groups it leads.
    pub directory: Revision,
}

/// The measurements of one group, as reported by its leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMeasure {
    /// The leader of the group.
    pub leader: NodeId,
    /// The term of that leader.
    pub term: Term,
    /// Nodes that vote; in a joint configuration, those of the newer half.
    pub voters: BTreeSet<NodeId>,
    /// Nodes that follow without a vote, and those that lose theirs in a joint configuration.
    pub learners: BTreeSet<NodeId>,
    /// Whether a change of voters has begun and is not finished.
    pub is_joint: bool,
    /// Whether a change of members has begun and is not committed.
    pub is_changing: bool,
    /// Members that are live and have all but the newest entries, the leader included.
    pub ready: BTreeSet<NodeId>,
    /// Bytes of the group's keys and values.
    pub bytes: u64,
}

impl GroupMeasure {
    /// Returns whether the node is a voter or a learner of the group.
    pub fn has(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.learners.contains(&node)
    }
}
