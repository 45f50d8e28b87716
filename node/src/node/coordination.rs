//! What a node knows of the network beyond its own replicas, and its part as the coordinator.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, RwLock};

use dkv_base::id::{GroupId, NodeId};
use dkv_base::sync::{lock, read, write};
use dkv_wire::network::Settings;
use tokio::time::Instant;

use super::reports::NodeReports;

/// A node's knowledge of the network, and its part as the coordinator.
pub(crate) struct Coordination {
    settings: RwLock<Settings>,
    /// Whether this node founds the network.
    pub(super) founder: bool,
    /// Since when this node has been the coordinator.
    leader_since: Mutex<Option<Instant>>,
    /// The addresses of the nodes in the directory as it was last followed.
    pub(super) listed: Mutex<BTreeMap<NodeId, SocketAddr>>,
    /// The reports of other nodes about themselves, if this one is the coordinator.
    pub(super) heard: Mutex<NodeReports>,
    /// The last known primaries of shards that are not on this node.
    pub(super) primaries: Mutex<BTreeMap<GroupId, NodeId>>,
    /// Whether an administrator wants replicas and primaries rebalanced at once.
    rebalancing: AtomicBool,
}

impl Coordination {
    pub(super) fn new(settings: Settings, founder: bool) -> Self {
        let (leader_since, listed, heard, primaries, rebalancing) = Default::default();
        let settings = RwLock::new(settings);
        Self { settings, founder, leader_since, listed, heard, primaries, rebalancing }
    }

    /// Returns the network's settings.
    pub(crate) fn settings(&self) -> Settings {
        read(&self.settings).clone()
    }

    /// Sets the network's settings, as the directory has them.
    pub(super) fn set_settings(&self, settings: Settings) {
        *write(&self.settings) = settings;
    }

    /// Sets since when this node has been the coordinator; `None` if it is not.
    pub(crate) fn set_leader_since(&self, since: Option<Instant>) {
        *lock(&self.leader_since) = since;
    }

    /// Returns since when this node has been the coordinator; `None` if it is not.
    pub(crate) fn leader_since(&self) -> Option<Instant> {
        *lock(&self.leader_since)
    }

    /// Sets whether replicas and primaries are to be rebalanced at once.
    pub(crate) fn set_rebalancing(&self, on: bool) {
        self.rebalancing.store(on, Ordering::Relaxed);
    }

    /// Returns whether replicas and primaries are to be rebalanced at once.
    pub(crate) fn is_rebalancing(&self) -> bool {
        self.rebalancing.load(Ordering::Relaxed)
    }

    /// Records that a node has answered as the primary of a shard that is not here.
    pub(crate) fn learn_primary(&self, shard: GroupId, primary: NodeId) {
        lock(&self.primaries).insert(shard, primary);
    }
}
