//! The first voters of new shards.

use std::collections::BTreeSet;

use dkv_base::id::NodeId;
use dkv_wire::network::KeyspaceSettings;

use super::{Measured, Planner, WEIGHT};
use crate::directory::Directory;

/// No node can take a replica of a new shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no node can take a replica now: a node must be live, not leaving, and have disk space")]
pub struct NoPlace;

/// Returns the first voters of each shard of a new keyspace: as many as its replication asks for,
/// or as there are nodes that can take a replica now. They are spread over regions and then over
/// the nodes with the least load. More are added once there are more nodes.
///
/// # Errors
/// If no node can take a replica.
pub fn first_voters(
    directory: &Directory,
    measured: &Measured,
    settings: &KeyspaceSettings,
) -> Result<Vec<BTreeSet<NodeId>>, NoPlace> {
    let mut planner = Planner::new(directory, measured).ok_or(NoPlace)?;
    let mut shards = Vec::new();
    for _ in 0..settings.shards {
        let mut voters = BTreeSet::new();
        while voters.len() < settings.replication as usize {
            let fitting = planner.nodes.keys().copied();
            let fitting = fitting.filter(|node| !voters.contains(node) && planner.may_begin(*node));
            let Some(best) = planner.best(fitting, &voters) else { break };
            *planner.loads.entry(best).or_default() += 2 * WEIGHT;
            voters.insert(best);
        }
        if voters.is_empty() {
            return Err(NoPlace);
        }
        shards.push(voters);
    }
    Ok(shards)
}

impl Planner<'_> {
    /// Returns whether a node can take a replica of a new shard.
    fn may_begin(&self, node: NodeId) -> bool {
        let seen = self.measured.nodes.get(&node);
        let report = seen.and_then(|seen| seen.report.as_ref());
        self.is_usable(node) && report.is_some_and(|report| report.free_bytes > 0)
    }
}
