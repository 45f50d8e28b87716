//! Where shards are, as far as this node knows: its own, and those of others.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use dkv_wire::id::{GroupId, NodeId};
use dkv_wire::message::Measures;
use tokio::time::Instant;

use super::{Node, lock};
use crate::coordinator;
use crate::measuring::{self, Heard};
use crate::state::placement::Measured;

impl Node {
    /// A node of the directory tells how it is.
    ///
    /// # Errors
    /// If it cannot be so. Nothing of it is noted then.
    pub(crate) fn hear(&self, node: NodeId, measures: Measures) -> Result<(), String> {
        let groups = self.control().machine().with_directory(|directory| {
            directory.groups().keys().copied().collect::<BTreeSet<_>>()
        });
        let groups = groups.unwrap_or_default();
        if let Some(led) = measures.leads.iter().find(|led| !groups.contains(&led.group)) {
            return Err(format!("it claims to lead group {}, which there is not", led.group));
        }
        lock(&self.heard).hear(node, measures, Instant::now())
    }

    /// What the nodes have told, this one included.
    pub(crate) fn heard<T>(&self, look: impl FnOnce(&Heard, Instant) -> T) -> T {
        let (own, now) = (measuring::measure(self), Instant::now());
        let mut heard = lock(&self.heard);
        // What it says itself is so.
        let _ = heard.hear(self.id(), own, now);
        look(&heard, now)
    }

    /// What placement decides by; only a coordinator knows.
    pub(crate) fn measured(&self, since: Instant) -> Measured {
        let silence = coordinator::silence(self, since);
        let live_within_ms = self.control().live_within_ms();
        self.heard(|heard, now| heard.measured(&silence, live_within_ms, now))
    }

    /// Who leads a shard, as far as is known here.
    pub(crate) fn primary_of(&self, shard: GroupId) -> Option<NodeId> {
        let own = self.group(shard).filter(|group| group.configured().voters.contains(&self.id()));
        if let Some(leader) = own.and_then(|group| group.leader()) {
            return Some(leader);
        }
        if self.reign().is_some()
            && let Some((leader, _)) = self.heard(|heard, now| heard.led(now).remove(&shard))
        {
            return Some(leader);
        }
        lock(&self.primaries).get(&shard).copied().filter(|primary| *primary != self.id())
    }

    /// A node has answered as the primary of a shard that is not here.
    pub(crate) fn learn_primary(&self, shard: GroupId, primary: NodeId) {
        lock(&self.primaries).insert(shard, primary);
    }

    /// Another node that should have a replica of a shard, and is none of those.
    pub(crate) fn holder_of(&self, shard: GroupId, without: &BTreeSet<NodeId>) -> Option<NodeId> {
        let holder = self.control().machine().with_directory(|directory| {
            let mut voters = directory.groups().get(&shard)?.voters.iter();
            voters.find(|node| **node != self.id() && !without.contains(node)).copied()
        });
        holder.flatten()
    }

    /// Whether an administrator wants this node to be empty.
    pub(crate) fn is_going(&self) -> bool {
        let going = self.control().machine().with_directory(|directory| {
            let member = directory.nodes().get(&self.id());
            member.is_some_and(|member| member.draining || member.retiring)
        });
        going.unwrap_or_default()
    }

    /// Bytes that this node could take in.
    pub(crate) fn free_bytes(&self) -> u64 {
        if self.disk_full() { 0 } else { self.engine.free_bytes() }
    }

    /// A group is here no more.
    pub(super) fn forget_group(&self, id: GroupId) {
        self.groups.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}
