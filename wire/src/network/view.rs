//! The network as one process sees it: its nodes, its shards, and where keys belong.

use std::net::SocketAddr;

use dkv_base::id::{GroupId, HolderId, NetworkId, NodeId, Term};
use serde::{Deserialize, Serialize};

use super::settings::{Delays, LinkDelay, Settings};
use crate::region::Region;

/// Where a node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Admitted, and not yet a caught-up member.
    Joining,
    /// Heard of within the last election time.
    Live,
    /// Silent for longer than an election time.
    Suspect,
    /// Silent for much longer; taken to be dead.
    Down,
    /// Stopped in good order.
    Left,
}

impl std::fmt::Display for NodeState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Joining => "joining",
            Self::Live => "live",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Left => "left",
        })
    }
}

/// A node as the directory has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its identity.
    pub id: NodeId,
    /// What people call it; unique among the nodes that are not removed.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// The region that it is in, if it was told.
    pub region: Option<Region>,
    /// Where it is in its life.
    pub state: NodeState,
}

/// A shard and who holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardInfo {
    /// Its Raft group.
    pub group: GroupId,
    /// The smallest hash that belongs to it; the next shard's is where it ends.
    pub first_hash: u64,
    /// Its leader, as far as the sender knows.
    pub primary: Option<NodeId>,
    /// Nodes whose vote counts in it.
    pub voters: Vec<NodeId>,
    /// Nodes that follow it without a vote.
    pub learners: Vec<NodeId>,
}

/// The network as one process sees it at one moment. It may be late; it is never invented.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkView {
    /// Which network.
    pub network: NetworkId,
    /// The control group's term; views of a later term are newer.
    pub term: Term,
    /// Leader of the control group in that term.
    pub coordinator: Option<NodeId>,
    /// All nodes that were not removed.
    pub nodes: Vec<NodeInfo>,
    /// All shards, by ascending `first_hash`; the first one's is zero.
    pub shards: Vec<ShardInfo>,
    /// What the nodes agreed on.
    pub settings: Settings,
    /// Whom every process must refuse: ids of removed nodes and of revoked certificates.
    pub denied: Vec<HolderId>,
}

impl NetworkView {
    /// The node of that id.
    pub fn node(&self, id: NodeId) -> Option<&NodeInfo> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// The shard that a key belongs to.
    ///
    /// # Errors
    /// `None` only for a view without shards: a network that nobody has bootstrapped yet.
    pub fn shard_of(&self, key: &[u8]) -> Option<&ShardInfo> {
        shard_of(&self.shards, key_hash(key))
    }
}

impl Delays {
    /// The delays between a process at the [place](Self::place) `own` and each of these nodes, by the
    /// address of the node. Nodes without a delay are left out.
    pub fn link_delays<'a>(
        &self,
        own: Option<usize>,
        nodes: impl IntoIterator<Item = &'a NodeInfo>,
    ) -> Vec<(SocketAddr, LinkDelay)> {
        let Some(own) = own else { return Vec::new() };
        let delays = nodes.into_iter().filter_map(|node| {
            let there = self.place(Some(&node.name), node.region.as_ref())?;
            let delay = LinkDelay { to: self.average(own, there), from: self.average(there, own) };
            (delay != LinkDelay::default()).then_some((node.address, delay))
        });
        delays.collect()
    }
}

/// The shard whose range holds `hash`; `shards` ascend by `first_hash`.
fn shard_of(shards: &[ShardInfo], hash: u64) -> Option<&ShardInfo> {
    let after = shards.partition_point(|shard| shard.first_hash <= hash);
    after.checked_sub(1).map(|index| &shards[index])
}

/// The hash that places a key: XXH3 with 64 bits and seed 0.
///
/// It is part of the protocol: <https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md>.
pub fn key_hash(key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(key)
}

/// The smallest hash of each of `count` equal shards.
pub fn shard_starts(count: u32) -> impl Iterator<Item = u64> {
    (0..count).map(move |index| ((u128::from(index) << 64) / u128::from(count.max(1))) as u64)
}

#[cfg(test)]
mod tests;
