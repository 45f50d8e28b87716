//! The commands that change the directory, as the log of the control group stores them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use bytes::Bytes;
use dkv_base::id::{GroupId, HolderId, KeyspaceId, NetworkId, NodeId, Revision};
use dkv_wire::codec::{self, DecodeError};
use dkv_wire::message::{BooksChange, PolicyChange};
use dkv_wire::network::{KeyspaceChange, KeyspaceSettings, Settings};
use dkv_wire::region::Region;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A node's description of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// The node's id.
    pub id: NodeId,
    /// The name that people use for the node.
    pub name: String,
    /// The address that the node listens on.
    pub address: SocketAddr,
    /// The region of the node, if one is configured.
    pub region: Option<Region>,
}

/// One change of the directory. Every change may be repeated without harm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DirectoryCommand {
    /// The first entry of the control group: the network begins, with one node.
    Create {
        /// The id of the network.
        network: NetworkId,
        /// The settings that its nodes agree on.
        settings: Settings,
        /// The node that holds all groups at first.
        founder: Announcement,
    },
    /// Adds a node, or updates its name, address and region. A node that had left counts as back.
    Announce(Announcement),
    /// Announces a node in the place of one that is gone and had its name. The old node gets
    /// another name, and retires.
    Supersede {
        /// The node that is gone.
        old: NodeId,
        /// The node that has its name now.
        new: Announcement,
    },
    /// Records that a node stops in good order. It keeps its replicas.
    Leave(NodeId),
    /// Sets the planned members of a group. Its leader moves toward them, one change at a time.
    SetMembers {
        /// The group.
        group: GroupId,
        /// Nodes that should vote.
        voters: BTreeSet<NodeId>,
        /// Nodes that should follow without a vote.
        learners: BTreeSet<NodeId>,
    },
    /// Records that the first voters of a shard have begun its Raft group: it has had a leader.
    /// From now on its members may change.
    ShardStarted(GroupId),
    /// Records that an administrator wants a node emptied, or used again. It stays in the network.
    Drain {
        /// The node.
        node: NodeId,
        /// Whether the node is to be emptied.
        on: bool,
    },
    /// Records that an administrator wants a node gone. It stays a member until others have taken
    /// over its replicas.
    Retire(NodeId),
    /// Records that an administrator wants a node gone whose word counts for nothing: it is denied
    /// at once, and removed as soon as no group counts on it.
    Expel(NodeId),
    /// Removes a retired node that has no replicas left from the directory, and denies it for good.
    Remove(NodeId),
    /// Denies the holder of a certificate that is not a node.
    Deny(HolderId),
    /// Records that the members of a group were as planned when its leader knew this revision of
    /// the directory: the group no longer counts on nodes that the plan had lost by then.
    Settle {
        /// The group.
        group: GroupId,
        /// The revision of the directory that its leader knew.
        seen: Revision,
    },
    /// Creates a keyspace, with the groups of its shards.
    CreateKeyspace {
        /// The request that asks for it. A repetition of it has no effect.
        creation: Uuid,
        /// Its name.
        name: String,
        /// Its settings.
        settings: KeyspaceSettings,
        /// The first voters of each shard.
        voters: Vec<BTreeSet<NodeId>>,
    },
    /// Changes the settings of a keyspace.
    SetKeyspace {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// The change.
        change: KeyspaceChange,
    },
    /// Drops a keyspace, with its groups and everything in them.
    DropKeyspace(KeyspaceId),
    /// Goes on after groups have lost their majorities for good. Only an offline recovery writes
    /// this entry, into the log of the replica that goes on.
    Recover(Recovery),
    /// Changes the books of the registration servers.
    ChangeBooks {
        /// The server that has decided on the change. It may have been denied since it asked.
        server: HolderId,
        /// The change.
        change: Box<BooksChange>,
    },
    /// Changes a policy.
    Policy(PolicyChange),
}

/// What an offline recovery leaves of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// Tells it from others.
    pub id: Uuid,
    /// Nodes that are lost: they are removed and denied for good, with all of their places.
    pub gone: BTreeSet<NodeId>,
    /// The nodes that should vote in each group from now on, and whether the group begins anew
    /// because no replica of it is left.
    pub groups: BTreeMap<GroupId, (BTreeSet<NodeId>, bool)>,
}

/// One entry of the control group's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryEntry {
    /// The reading of the coordinator's clock, in milliseconds since 1970.
    pub time_ms: u64,
    /// The change.
    pub command: DirectoryCommand,
}

impl DirectoryEntry {
    /// Encodes the entry for the log.
    pub fn encode(&self) -> Bytes {
        codec::encode(self)
    }

    /// Decodes an entry of the log.
    ///
    /// # Errors
    /// If the bytes are not exactly one entry: a replica that meets this must stop.
    pub fn decode(encoded: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(encoded)
    }
}

/// The result of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryResult {
    /// The change is in effect, as of now or from before.
    Done,
    /// The change is impossible, for this reason. No effect.
    Rejected(String),
}
