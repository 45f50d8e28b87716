//! What a network consists of, as every process sees it: settings, nodes, shards, the view.

mod settings;
mod view;

pub use settings::{Delays, LinkDelay, Settings, SettingsError, UnknownRegion};
pub use view::{NetworkView, NodeInfo, NodeState, ShardInfo, key_hash, shard_starts};
