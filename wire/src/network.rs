//! What a network is made of, as every process sees it: settings, nodes, shards, the view.

use std::net::SocketAddr;

use dkv_base::id::{GroupId, HolderId, NetworkId, NodeId, Term};
use serde::{Deserialize, Serialize};

use crate::delays::Delays;
use crate::limits;
use crate::region::Region;

/// What all nodes of a network must agree on. The server's configuration gives it to the first
/// node; from then on the directory keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Voters that each group should have.
    pub replication: u32,
    /// Shards of the network, fixed when it is created.
    pub shards: u32,
    /// Time between two heartbeats, in milliseconds.
    pub heartbeat_ms: u64,
    /// Shortest time without a heartbeat after which a voter stands for election, in milliseconds.
    pub election_min_ms: u64,
    /// Longest such time, in milliseconds.
    pub election_max_ms: u64,
    /// Longest value, in bytes.
    pub value_bytes_max: u64,
    /// Log that a node keeps before it takes a checkpoint and purges, in bytes.
    pub log_bytes_max: u64,
    /// Time that a voter may be down before a learner takes its place, in milliseconds.
    pub replace_after_ms: u64,
    /// How long what is sent between regions is held back, for rehearsal.
    pub delays: Delays,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            replication: 3,
            shards: 1,
            heartbeat_ms: 50,
            election_min_ms: 150,
            election_max_ms: 250,
            value_bytes_max: limits::VALUE_BYTES_DEFAULT as u64,
            log_bytes_max: 256 * 1024 * 1024,
            replace_after_ms: 300_000,
            delays: Delays::default(),
        }
    }
}

/// A setting that cannot be, with what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {problem}")]
pub struct SettingsError {
    /// Name of the setting, as in config.json.
    pub setting: &'static str,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl Settings {
    /// Checks each setting and the settings against each other.
    pub fn check(&self) -> Result<(), SettingsError> {
        let fail = |setting, problem: String| Err(SettingsError { setting, problem });
        if self.replication == 0 || self.replication > limits::REPLICATION_MAX {
            return fail("replication", format!("must be from 1 to {}", limits::REPLICATION_MAX));
        }
        if self.shards == 0 || self.shards > limits::SHARDS_MAX {
            return fail("shards", format!("must be from 1 to {}", limits::SHARDS_MAX));
        }
        if !(10..=10_000).contains(&self.heartbeat_ms) {
            return fail("heartbeat_ms", "must be from 10 to 10000".into());
        }
        if self.election_min_ms < 3 * self.heartbeat_ms {
            return fail(
                "election_min_ms",
                format!(
                    "must be at least three heartbeats, that is {}, so that one lost heartbeat \
                     does not cause an election",
                    3 * self.heartbeat_ms
                ),
            );
        }
        let election_max_least_ms = self.election_min_ms.saturating_add(self.heartbeat_ms);
        if self.election_max_ms < election_max_least_ms {
            return fail(
                "election_max_ms",
                format!(
                    "must be at least election_min_ms and one heartbeat, that is \
                     {election_max_least_ms}, so that voters do not stand at the same moment"
                ),
            );
        }
        if self.election_max_ms > 60_000 {
            return fail("election_max_ms", "must be at most 60000".into());
        }
        if !(1024..=limits::VALUE_BYTES_MAX as u64).contains(&self.value_bytes_max) {
            return fail(
                "value_bytes_max",
                format!("must be from 1024 to {}", limits::VALUE_BYTES_MAX),
            );
        }
        if self.log_bytes_max < 16 * 1024 * 1024 {
            return fail("log_bytes_max", "must be at least 16777216 (16 MiB)".into());
        }
        if self.replace_after_ms < 10 * self.election_max_ms {
            return fail(
                "replace_after_ms",
                format!("must be at least ten elections, that is {}", 10 * self.election_max_ms),
            );
        }
        self.delays.check()
    }
}

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
