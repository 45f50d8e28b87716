//! What changes the directory, as it stands in the log of the control group.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use bytes::Bytes;
use dkv_base::id::{GroupId, HolderId, NetworkId, NodeId, Revision};
use dkv_wire::codec::{self, DecodeError};
use dkv_wire::network::Settings;
use dkv_wire::region::Region;
use serde::{Deserialize, Serialize};

/// A node's own account of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// Its identity.
    pub id: NodeId,
    /// What people call it.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// The region that it is in, if it was told.
    pub region: Option<Region>,
}

/// One change of the directory. All of them may be repeated without harm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DirectoryCommand {
    /// The first entry of the control group: the network begins, with one node.
    Create {
        /// Its id.
        network: NetworkId,
        /// What its nodes agree on.
        settings: Settings,
        /// The node that holds everything at first.
        founder: Announcement,
    },
    /// Adds a node, or brings its name, address and region up to date. A node that had left is
    /// back.
    Announce(Announcement),
    /// A node comes in the place of one that is gone and had its name: the old one is to give up
    /// its places, under another name, and the new one is announced.
    Supersede {
        /// The node that is gone.
        old: NodeId,
        /// The node that has its name now.
        new: Announcement,
    },
    /// A node stops in good order. It keeps its place.
    Leave(NodeId),
    /// The wanted members of a group. Its leader moves toward them, one change at a time.
    SetMembers {
        /// Which group.
        group: GroupId,
        /// Nodes whose vote shall count.
        voters: BTreeSet<NodeId>,
        /// Nodes that shall follow without a vote.
        learners: BTreeSet<NodeId>,
    },
    /// The founder has initialised the Raft group: from now on its members may change.
    ShardStarted(GroupId),
    /// An administrator wants a node emptied, or used again. It stays a node.
    Drain {
        /// Which node.
        node: NodeId,
        /// Whether it is to be emptied.
        on: bool,
    },
    /// An administrator wants a node gone. It stays a member until others have taken its places.
    Retire(NodeId),
    /// Takes a retired node that has no places left out of the directory, and denies it for good.
    Remove(NodeId),
    /// Refuses the holder of a certificate that is not a node.
    Deny(HolderId),
    /// The members of a group were as planned when its leader knew that revision of the directory:
    /// it counts no more on nodes that the plan had lost by then.
    Settle {
        /// Which group.
        group: GroupId,
        /// The revision of the directory that its leader knew.
        seen: Revision,
    },
}

/// One entry of the control group's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryEntry {
    /// What the coordinator's clock showed, in milliseconds since 1970.
    pub time_ms: u64,
    /// The change.
    pub command: DirectoryCommand,
}

impl DirectoryEntry {
    /// As it stands in the log.
    pub fn encode(&self) -> Bytes {
        codec::encode(self)
    }

    /// Reads an entry of the log.
    ///
    /// # Errors
    /// If the bytes are not exactly one entry: a replica that meets this must stop.
    pub fn decode(encoded: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(encoded)
    }
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryResult {
    /// It is so, now or already before.
    Done,
    /// It cannot be, for this reason. No effect.
    Rejected(String),
}
