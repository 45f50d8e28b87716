//! Requests to a node.

use std::net::SocketAddr;

use bytes::Bytes;
use dkv_base::id::{GroupId, HolderId, NodeId, Stamp, Term};
use serde::{Deserialize, Serialize};

use super::placement::Measures;
use super::read::ReadMode;
use super::scan::Span;
use crate::region::Region;

/// One request on a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the client, repeated in the reply; unique among those under way on the stream.
    pub id: u64,
    /// Time that the client will wait, in milliseconds. What has not been begun by then is dropped;
    /// what has been is brought to its end, whether or not anybody still waits for it.
    pub deadline_ms: u32,
    /// Whether a node that does not serve it itself passes it on to the one that does, and the
    /// answer back; otherwise it says where to go.
    pub forward: bool,
    /// What is asked.
    pub body: RequestBody,
}

/// What a client may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestBody {
    /// The network as this node sees it.
    View,
    /// How this node and its replicas are.
    Status,
    /// The value of a key.
    Read {
        /// The key's shard.
        shard: GroupId,
        /// The key.
        key: Bytes,
        /// What the answer must guarantee, and who may give it.
        mode: ReadMode,
    },
    /// Keys of a shard in order, as many as fit a page.
    Scan {
        /// The shard.
        shard: GroupId,
        /// Which keys, and how many.
        span: Span,
        /// What the answer must guarantee, and who may give it.
        mode: ReadMode,
    },
    /// A command for the log of a shard.
    Propose {
        /// The key's shard.
        shard: GroupId,
        /// Whether the answer waits for every replica rather than for a quorum.
        everywhere: bool,
        /// An encoded [`Command`](super::Command): it goes into the log as it came.
        command: Bytes,
    },
    /// An eventual write: keep it, and bring it to the primary when that can be reached.
    Deposit {
        /// The key's shard.
        shard: GroupId,
        /// Its moment. The client keeps it through all attempts: what comes twice is done once.
        /// Zero asks for the time: [`Refusal::Clock`](super::Refusal::Clock).
        stamp: Stamp,
        /// Whether an attempt with this stamp may have been taken. Otherwise the write must not be
        /// far behind what the node has for the key: [`Refusal::Clock`](super::Refusal::Clock) if
        /// it is.
        again: bool,
        /// The key.
        key: Bytes,
        /// The value; nothing for a delete.
        value: Option<Bytes>,
    },
    /// From a node that holds a replica: what had been committed in a shard when this was asked.
    Committed {
        /// The shard.
        shard: GroupId,
        /// The term in which the asker follows the node that is asked, by the vote that it has put
        /// into its log last. With it a voter confirms the primary that it asks.
        followed: Option<Term>,
    },
    /// From the primary: answer once this replica has applied that entry.
    Reach {
        /// The shard.
        shard: GroupId,
        /// Index of the entry.
        index: u64,
    },
    /// From a node: this is my name, my address and my region, now.
    Announce {
        /// What people call it.
        name: String,
        /// Where it listens.
        address: SocketAddr,
        /// The region that it is in, if it was told.
        region: Option<Region>,
    },
    /// From a node: I am stopping in good order.
    Leaving,
    /// From an administrator: this node shall never take part again.
    RemoveNode(NodeId),
    /// From an administrator: refuse this certificate holder from now on.
    Revoke(HolderId),
    /// From a node: how it and the groups that it leads are.
    Measures(Box<Measures>),
    /// From a node that the directory does not name for a shard any more: whether the shard still
    /// counts on it.
    Departed(GroupId),
    /// From the coordinator: hand a shard over to that node.
    HandOver {
        /// The shard.
        shard: GroupId,
        /// Who should lead it.
        to: NodeId,
    },
    /// From an administrator: empty this node, or use it again.
    Drain {
        /// Which node.
        node: NodeId,
        /// Whether it is to be emptied.
        on: bool,
    },
    /// From an administrator: even out what the nodes hold and lead, now.
    Rebalance,
    /// Where replicas are and where they are going.
    Placement {
        /// Whether to tell what is going to be done besides what is under way.
        forecast: bool,
    },
    /// From a node: whether that node is a member of a group by the log of the one that is asked.
    Member {
        /// Which group.
        group: GroupId,
        /// Which node.
        node: NodeId,
    },
    /// From the coordinator, to a node that is to be emptied: what is left there.
    Remainder {
        /// The entry of the directory that the node must have applied before it answers.
        applied: u64,
    },
}

impl RequestBody {
    /// Whether a request that was sent and not answered may have changed what anybody can see, so
    /// that nobody may say that nothing was changed.
    pub fn has_effect(&self) -> bool {
        match self {
            Self::Propose { .. }
            | Self::Deposit { .. }
            | Self::Announce { .. }
            | Self::Leaving
            | Self::RemoveNode(_)
            | Self::Revoke(_)
            | Self::HandOver { .. }
            | Self::Drain { .. }
            | Self::Rebalance => true,
            Self::View
            | Self::Status
            | Self::Read { .. }
            | Self::Scan { .. }
            | Self::Committed { .. }
            | Self::Reach { .. }
            | Self::Measures(_)
            | Self::Departed(_)
            | Self::Placement { .. }
            | Self::Member { .. }
            | Self::Remainder { .. } => false,
        }
    }
}
