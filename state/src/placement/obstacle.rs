//! The reason why a draining node does not become empty, for people.

use dkv_base::id::NodeId;

use super::{Balance, Measured, Planner, forecast};
use crate::directory::Directory;

/// Returns what keeps replicas on a node, if the planned changes would leave some there.
pub fn obstacle(directory: &Directory, measured: &Measured, node: NodeId) -> Option<String> {
    let planner = Planner::new(directory, measured)?;
    let unknown = planner.shards().find(|(group, _)| !measured.groups.contains_key(group));
    if let Some((group, _)) = unknown {
        return Some(format!("nobody is known to lead shard {group}"));
    }
    let foreseen = forecast(directory, measured, Balance::Off);
    let mut stays: Vec<_> =
        planner.shards().filter(|(_, plan)| plan.has(node)).map(|(group, _)| group).collect();
    stays.retain(|group| {
        !foreseen.moves.iter().any(|(it, from, _)| it == group && *from == Some(node))
    });
    let first = *stays.first()?;
    let voters = directory.groups().get(&first)?.voters.len();
    let usable = planner.nodes.keys().filter(|node| planner.is_usable(**node)).count();
    Some(if usable < voters {
        format!("{} shards need {voters} nodes, and {usable} other ones are live", stays.len())
    } else {
        format!("no other node has room for shard {first}")
    })
}
