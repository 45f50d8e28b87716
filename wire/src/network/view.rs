//! The network as one process sees it: its nodes, its shards, and where keys belong.

use std::net::SocketAddr;

use dkv_base::id::{GroupId, HolderId, KeyspaceId, NetworkId, NodeId, Revision, Term};
use serde::{Deserialize, Serialize};

use super::keyspace::KeyspaceInfo;
use super::settings::{Delays, LinkDelay, Settings};
use crate::region::Region;

/// The state of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Admitted, and not yet a member that has caught up.
    Joining,
    /// Heard of within the last election time.
    Live,
    /// Silent for longer than an election time.
    Suspect,
    /// Silent for much longer, and presumed dead.
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

/// A node, as the directory describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its id.
    pub id: NodeId,
    /// Its name, unique among the nodes that are not removed.
    pub name: String,
    /// The address at which it listens.
    pub address: SocketAddr,
    /// Its region, if it has one.
    pub region: Option<Region>,
    /// Its state.
    pub state: NodeState,
}

/// A registration server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerInfo {
    /// Its id.
    pub id: HolderId,
    /// The address at which others reach it.
    pub address: SocketAddr,
}

/// A shard and its replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardInfo {
    /// Its Raft group.
    pub group: GroupId,
    /// The keyspace of its keys.
    pub keyspace: KeyspaceId,
    /// The smallest hash that belongs to it. It ends where the next shard of its keyspace begins.
    pub first_hash: u64,
    /// Its leader, as far as the sender knows.
    pub primary: Option<NodeId>,
    /// The nodes that vote in it.
    pub voters: Vec<NodeId>,
    /// The nodes that follow it without a vote.
    pub learners: Vec<NodeId>,
}

/// The network as one process sees it at one moment. It may be outdated, but was true once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkView {
    /// The network.
    pub network: NetworkId,
    /// The control group's term; views of a later term are newer.
    pub term: Term,
    /// Leader of the control group in that term.
    pub coordinator: Option<NodeId>,
    /// All nodes that were not removed. One that was expelled is denied, and is here until no group
    /// counts on it.
    pub nodes: Vec<NodeInfo>,
    /// The revision of the directory that this view shows; views of a later one have newer
    /// keyspaces.
    pub revision: Revision,
    /// All keyspaces, by ascending id.
    pub keyspaces: Vec<KeyspaceInfo>,
    /// All shards, by ascending keyspace and then `first_hash`; the first one's of each keyspace is
    /// zero.
    pub shards: Vec<ShardInfo>,
    /// The settings that the nodes share.
    pub settings: Settings,
    /// The deny list: ids of removed nodes and of revoked certificates and tokens, which every
    /// process must refuse.
    pub denied: Vec<HolderId>,
    /// The registration servers that were not removed, by ascending id. Empty until the first one
    /// has handed its books over.
    #[serde(default)]
    pub servers: Vec<ServerInfo>,
}

impl NetworkView {
    /// The node with that id.
    pub fn node(&self, id: NodeId) -> Option<&NodeInfo> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// The shard of a keyspace that a key belongs to; `None` if the view has no such keyspace.
    pub fn shard_of(&self, keyspace: KeyspaceId, key: &[u8]) -> Option<&ShardInfo> {
        shard_of(&self.shards, keyspace, key_hash(key))
    }

    /// The shards of a keyspace, by ascending `first_hash`.
    pub fn shards_of(&self, keyspace: KeyspaceId) -> &[ShardInfo] {
        let first = self.shards.partition_point(|shard| shard.keyspace < keyspace);
        let after = self.shards.partition_point(|shard| shard.keyspace <= keyspace);
        self.shards.get(first..after).unwrap_or_default()
    }

    /// The keyspace with that id.
    pub fn keyspace(&self, id: KeyspaceId) -> Option<&KeyspaceInfo> {
        self.keyspaces.iter().find(|keyspace| keyspace.id == id)
    }

    /// The keyspace with that name.
    pub fn keyspace_named(&self, name: &str) -> Option<&KeyspaceInfo> {
        self.keyspaces.iter().find(|keyspace| keyspace.name == name)
    }
}

impl Delays {
    /// The delays between a process at the [place](Self::place) `own` and each of these nodes, by
    /// the address of the node. Nodes without a delay are left out.
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

/// The shard of a keyspace whose range contains `hash`. `shards` must ascend by keyspace and
/// `first_hash`.
fn shard_of(shards: &[ShardInfo], keyspace: KeyspaceId, hash: u64) -> Option<&ShardInfo> {
    let after =
        shards.partition_point(|shard| (shard.keyspace, shard.first_hash) <= (keyspace, hash));
    let shard = after.checked_sub(1).and_then(|index| shards.get(index));
    shard.filter(|shard| shard.keyspace == keyspace)
}

/// The hash that places a key: XXH3 with 64 bits and seed 0.
///
/// It is part of the protocol: <https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md>.
pub fn key_hash(key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(key)
}

/// The smallest hash of each of `count` shards of equal size.
pub fn shard_starts(count: u32) -> impl Iterator<Item = u64> {
    (0..count).map(move |index| shard_start(index, count))
}

/// The smallest hash of one of `count` shards of equal size, counted from zero.
pub fn shard_start(index: u32, count: u32) -> u64 {
    ((u128::from(index) << 64) / u128::from(count.max(1))) as u64
}

#[cfg(test)]
mod tests;
