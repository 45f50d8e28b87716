//! Tasks that bring the members of each group in line with the directory.
//!
//! Each group has one on every node; it acts only while this node leads the group.
//! `dkv_state::reconciler` computes the next step from facts alone: a leader that succeeds one that
//! died half way finds the same facts and goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dkv_base::id::NodeId;
use tracing::{debug, info};

use crate::node::Node;
use crate::raft::Configured;
use crate::replica::Replica;
use dkv_state::reconciler::{Desired, Membership, Progress, Step, next_step};

/// Interval between checks of a leader.
const TICK: Duration = Duration::from_millis(100);
/// Interval until the next check after a step.
const TICK_AFTER_STEP: Duration = Duration::from_millis(10);
/// Interval at which a follower checks whether it leads.
const TICK_FOLLOWING: Duration = Duration::from_millis(250);
/// Time that one step may take before the task checks the facts again.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs for the life of a group.
pub(crate) async fn run(node: Arc<Node>, group: Arc<Replica>) {
    let mut tick = TICK;
    loop {
        node.ticks().pause(tick).await;
        group.note_leader();
        tick = if group.leads() { TICK } else { TICK_FOLLOWING };
        if !group.leads() {
            continue;
        }
        let Some(step) = step(&node, &group) else { continue };
        if step.follows_the_plan() {
            // With an old plan it would undo the work of a newer one.
            if let Err(why) = node.catch_up_with_directory().await {
                debug!(group = %group.id(), %why, "members are not changed: the plan may be old");
                continue;
            }
            if self::step(&node, &group).as_ref() != Some(&step) {
                tick = TICK_AFTER_STEP;
                continue;
            }
        }
        info!(group = %group.id(), ?step, "changing members");
        match tokio::time::timeout(STEP_TIMEOUT, group.take_step(&step)).await {
            Ok(Ok(())) => tick = TICK_AFTER_STEP,
            Ok(Err(error)) => debug!(group = %group.id(), %error, "members were not changed"),
            Err(_) => debug!(group = %group.id(), "a change of members takes long"),
        }
    }
}

/// The next step, by the plan that this node knows.
fn step(node: &Node, group: &Replica) -> Option<Step> {
    let desired = node.control().state_machine().with_directory(|directory| {
        let plan = directory.groups().get(&group.id())?;
        plan.started
            .then(|| Desired { voters: plan.voters.clone(), learners: plan.learners.clone() })
    });
    let (actual, progress) = facts(group);
    next_step(&desired??, &actual, &progress, node.id())
}

fn facts(group: &Replica) -> (Membership, BTreeMap<NodeId, Progress>) {
    let Configured { voters, others, is_joint, .. } = group.configured();
    let membership = Membership { voters, learners: others, is_joint };
    let Some(led) = group.measure() else { return (membership, BTreeMap::new()) };
    let silence = group.silence();
    let progress = led.members.iter().map(|member| {
        let live =
            silence.get(&member.node).is_some_and(|silent| *silent <= group.live_within_ms());
        (member.node, Progress { live, caught_up: member.is_ready })
    });
    (membership, progress.collect())
}
