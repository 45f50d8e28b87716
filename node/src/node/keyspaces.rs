//! Keyspaces on this node: new shards begin, and the policies of keyspaces reach their replicas.
//!
//! A new shard has its first voters in the directory. Each of them opens the group and begins it by
//! itself, with these voters and no others, as long as its log is empty: all of them make the same
//! first entry, so it does not matter how many do. They take turns, so that usually the first is
//! elected before another stands. The coordinator records that the shard has begun when it has a
//! leader; from then on its members may change, and no node begins it any more.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dkv_base::id::GroupId;
use dkv_base::sync::lock;
use dkv_wire::message::Refusal;
use tracing::{debug, info};

use super::Node;
use crate::replica::Replica;
use dkv_base::id::NodeId;
use dkv_state::Directory;

/// Time between the turns of two voters of a new shard.
const TURN: Duration = Duration::from_millis(50);
/// Time between two attempts to begin a shard.
const AGAIN_EVERY: Duration = Duration::from_millis(200);

/// Tells a replica how large its shard may be.
pub(super) fn limit_size(group: &Replica, directory: &Directory) {
    if group.id().is_shard() {
        let settings = directory.settings_of(group.id());
        group.set_quota(settings.and_then(|settings| settings.shard_quota()));
    }
}

impl Node {
    /// Hands the policies of the keyspaces on to the replicas here, and forgets who led shards that
    /// were dropped.
    pub(super) fn follow_keyspaces(&self) {
        let groups = self.groups();
        self.replicas.with_directory(|directory| {
            for group in &groups {
                limit_size(group, directory);
            }
            lock(&self.coordination.primaries).retain(|shard, _| !directory.was_dropped(*shard));
        });
    }

    /// Begins a shard if this node is one of its first voters and nothing is in its log. Ends once
    /// the shard has begun.
    pub(super) async fn begin_shard(self: Arc<Self>, group: Arc<Replica>) {
        self.begin_in_turn(&group).await;
        group.set_to_begin(false);
    }

    async fn begin_in_turn(&self, group: &Replica) {
        let mut turn = true;
        while let Some(voters) = self.voters_to_begin(group.id()) {
            if !group.members().is_empty() {
                return;
            }
            if std::mem::take(&mut turn) {
                // The turns of different shards begin at different voters.
                let place = voters.iter().position(|voter| *voter == self.id()).unwrap_or(0);
                let first = group.id().0 as usize % voters.len();
                let place = (place + voters.len() - first) % voters.len();
                tokio::time::sleep(TURN * place as u32).await;
                continue;
            }
            if let Err(why) = self.begin_now(group).await {
                debug!(group = %group.id(), %why, "could not initialize the shard yet");
            }
            tokio::time::sleep(AGAIN_EVERY).await;
        }
    }

    /// Returns the voters with which this node is to begin a shard.
    pub(super) fn voters_to_begin(&self, shard: GroupId) -> Option<BTreeSet<NodeId>> {
        let voters = self.replicas.with_directory(|directory| {
            let plan = directory.groups().get(&shard)?;
            let begins = !plan.started && plan.voters.contains(&self.id());
            begins.then(|| plan.voters.clone())
        });
        voters.flatten()
    }

    async fn begin_now(&self, group: &Replica) -> Result<(), Refusal> {
        if let Some(why) = self.incarnations().doubted() {
            return Err(Refusal::Unavailable(why.to_string()));
        }
        // An old directory may show a shard as new that has begun, or was dropped, long ago.
        self.catch_up_with_directory().await?;
        let Some(voters) = self.voters_to_begin(group.id()) else { return Ok(()) };
        info!(group = %group.id(), voters = voters.len(), "beginning a shard");
        let begun = group.initialize(&voters).await;
        begun.map_err(|error| Refusal::Unavailable(error.to_string()))
    }
}
