//! The tasks that bring the members of each group to what the directory wants.
//!
//! Each group has one on every node; it acts only while this node leads the group. What to do next
//! is for `state::steward` to say, from facts alone: a leader that comes after one that died half
//! way finds the same facts and goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info};

use crate::group::Group;
use crate::node::Node;
use crate::raft;
use crate::state::steward::{Desired, Membership, Progress, next_step};

/// How often a leader looks.
const TICK: Duration = Duration::from_millis(100);
/// Entries that a learner may lack and still be promoted: about what is under way anyhow.
const CAUGHT_UP_ENTRIES: u64 = 16;
/// Time that one step may take before the facts are looked at again.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs for the life of a group.
pub(crate) async fn run(node: Arc<Node>, group: Arc<Group>) {
    loop {
        tokio::time::sleep(TICK).await;
        group.note_leader();
        if !group.leads() {
            continue;
        }
        let desired = node.control().machine().with_directory(|directory| {
            let plan = directory.groups().get(&group.id())?;
            plan.started
                .then(|| Desired { voters: plan.voters.clone(), learners: plan.learners.clone() })
        });
        let Some(Some(desired)) = desired else { continue };
        let (actual, progress) = facts(&group);
        let Some(step) = next_step(&desired, &actual, &progress, node.id()) else { continue };
        info!(group = %group.id(), ?step, "changing members");
        match tokio::time::timeout(STEP_TIMEOUT, group.take_step(&step)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(group = %group.id(), %error, "members were not changed"),
            Err(_) => debug!(group = %group.id(), "a change of members takes long"),
        }
    }
}

fn facts(group: &Group) -> (Membership, BTreeMap<dkv_wire::id::NodeId, Progress>) {
    let live_within_ms = group.live_within_ms();
    let metrics = group.metrics();
    let metrics = metrics.borrow();
    let configured = metrics.membership_config.membership();
    let is_joint = configured.get_joint_config().len() > 1;
    let voters = configured.get_joint_config().last().cloned().unwrap_or_default();
    let learners = configured.learner_ids().collect();
    let silence = raft::silence(&metrics);
    let last = metrics.last_log_index.unwrap_or_default();
    let replication = metrics.replication.iter().flatten();
    let progress = replication.map(|(node, matched)| {
        let live = silence.get(node).is_some_and(|silent| *silent <= live_within_ms);
        let matched = matched.map_or(0, |matched| matched.index);
        let caught_up = matched > 0 && last.saturating_sub(matched) <= CAUGHT_UP_ENTRIES;
        (*node, Progress { live, caught_up })
    });
    (Membership { voters, learners, is_joint }, progress.collect())
}
