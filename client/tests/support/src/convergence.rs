//! Judges from the statuses of the nodes whether they agree.

use dkv_api::{GroupId, NetworkStatus, NodeId, NodeState, NodeStatus};

/// Checks that the network has exactly these nodes, all of them live; that every node holds the
/// control group, and the right number of nodes each shard; and that all nodes agree on this and on
/// the leaders.
///
/// # Errors
/// The first condition that does not hold.
pub fn settled(
    status: &NetworkStatus,
    nodes: &[NodeId],
    drained: &[NodeId],
    replication: usize,
) -> Result<(), String> {
    let all = nodes.len();
    let view = status.view.as_ref().ok_or("nobody knows the network")?;
    if view.nodes.len() != all {
        return Err(format!("{} of {all} nodes are known", view.nodes.len()));
    }
    for node in nodes {
        let state = view.node(*node).map(|info| info.state);
        if state != Some(NodeState::Live) {
            return Err(format!("{node:?} is {state:?}"));
        }
    }
    let statuses = said(status, nodes)?;
    for group in groups(&statuses) {
        let replicas: Vec<_> = statuses
            .iter()
            .filter_map(|node| node.groups.iter().find(|replica| replica.group == group))
            .collect();
        let takers = all - drained.len();
        let voters =
            takers.min(if group.is_shard() { replication } else { replication.clamp(3, 5) });
        let wanted = if group.is_shard() { voters } else { all };
        if replicas.len() != wanted {
            return Err(format!("group {group} is held by {}, not {wanted}", replicas.len()));
        }
        let leader = replicas[0].leader.ok_or(format!("group {group} has no leader"))?;
        for replica in replicas {
            let emptied = !drained.iter().any(|node| replica.voters.contains(node));
            if !emptied
                || replica.leader != Some(leader)
                || replica.voters.len() != voters
                || replica.learners.len() != wanted - voters
            {
                return Err(format!("group {group} is {replica:?}"));
            }
        }
    }
    Ok(())
}

/// Returns the coordinator that these nodes agree on.
///
/// # Errors
/// They do not agree, or one does not answer.
pub fn coordinator(status: &NetworkStatus, nodes: &[NodeId]) -> Result<NodeId, String> {
    let statuses = said(status, nodes)?;
    let mut leaders = statuses.iter().map(|node| node.groups[0].leader);
    let first = leaders.next().flatten().ok_or("no leader is known")?;
    if !leaders.all(|leader| leader == Some(first)) {
        return Err("the nodes do not agree".to_owned());
    }
    Ok(first)
}

/// Returns the statuses of these nodes once they have applied the same entries.
///
/// # Errors
/// They have not, or one does not answer.
///
/// # Panics
/// If the same entries have led to different states.
pub fn same_state(status: &NetworkStatus, nodes: &[NodeId]) -> Result<Vec<NodeStatus>, String> {
    let statuses = said(status, nodes)?;
    for group in groups(&statuses) {
        let mut seen: Option<(u64, u64)> = None;
        for node in &statuses {
            let replica = node.groups.iter().find(|replica| replica.group == group);
            // `settled` judges replicas that are still moving.
            let Some(replica) = replica else { continue };
            let (index, hash) = *seen.get_or_insert((replica.applied_index, replica.state_hash));
            if index != replica.applied_index {
                return Err(format!("{} is at another entry of {group}", node.name));
            }
            assert_eq!(hash, replica.state_hash, "{} differs in {group}", node.name);
        }
    }
    Ok(statuses)
}

/// Returns the statuses of these nodes, if all of them answer.
fn said(status: &NetworkStatus, nodes: &[NodeId]) -> Result<Vec<NodeStatus>, String> {
    let of = |id: &NodeId| {
        let found = status.nodes.iter().find(|(info, _)| info.id == *id);
        found.ok_or(format!("{id:?} is not known"))?.1.clone().map_err(|error| error.to_string())
    };
    nodes.iter().map(of).collect()
}

fn groups(statuses: &[NodeStatus]) -> Vec<GroupId> {
    statuses.iter().flat_map(|node| &node.groups).map(|replica| replica.group).collect()
}
