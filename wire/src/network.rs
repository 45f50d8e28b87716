//! What a network consists of, as every process sees it: settings, nodes, shards, the view.

mod keyspace;
mod settings;
mod view;

pub use keyspace::{DEFAULT_KEYSPACE, KeyspaceChange, KeyspaceInfo, KeyspaceSettings};
pub use settings::{Delays, LinkDelay, Settings, SettingsError, UnknownRegion};
pub use view::{
    NetworkView, NodeInfo, NodeState, ServerInfo, ShardInfo, key_hash, shard_start, shard_starts,
};
