//! Decides whether a network is complete, and sums it up in a line.

use dkv_api::NodeState;
use dkv_console::units::plural;
use dkv_gateway::status::{Report, group_name, tolerated_failures};

/// Returns whether the node of that name answers and is live.
pub(crate) fn is_live(report: &Report, name: &str) -> bool {
    let live = |node: &dkv_gateway::status::Node| node.reachable && node.state == NodeState::Live;
    report.nodes.iter().any(|node| node.name == name && live(node))
}

/// Returns what the network still lacks, or `None` once all nodes are live, every group has its
/// leader and its voters, and the server has confirmed the coordinator.
pub(crate) fn missing(
    report: &Report,
    names: &[String],
    shards: u32,
    replication: u32,
) -> Option<String> {
    if let Some(name) = names.iter().find(|name| !is_live(report, name)) {
        return Some(format!("{name} is not live"));
    }
    let known = report.groups.iter().filter(|group| group.group != 0).count();
    if known < shards as usize {
        return Some(format!("only {known} of {shards} shards exist"));
    }
    let voters = names.len().min(replication as usize);
    for group in &report.groups {
        let name = match group.group {
            0 => "the control group".to_owned(),
            shard => group_name(shard),
        };
        if group.primary.is_none() {
            return Some(format!("{name} has no leader"));
        }
        if group.voters.len() < voters {
            return Some(format!("{name} has {} of {voters} voters", group.voters.len()));
        }
    }
    match &report.coordinator {
        Some(coordinator) if coordinator.confirmed => None,
        _ => Some("the server has not confirmed a coordinator".into()),
    }
}

/// Sums up a network: `3 nodes live, 1 shard, coordinator n1, tolerates 1 more failure`.
pub(crate) fn summary(report: &Report) -> String {
    let shards = report.groups.iter().filter(|group| group.group != 0).count() as u64;
    let nodes = report.nodes.len() as u64;
    let coordinator = report.coordinator.as_ref().map_or("none", |it| it.name.as_str());
    let may_fail = tolerated_failures(report.may_fail.unwrap_or(0));
    format!(
        "{nodes} {} live, {shards} {}, coordinator {coordinator}, {may_fail}",
        plural(nodes, "node", "nodes"),
        plural(shards, "shard", "shards"),
    )
}
