//! A forecast of the planned changes, for people who want to know them in advance.

use std::collections::BTreeSet;

use dkv_base::id::{GroupId, NodeId};

use super::{Balance, Measured, Transfer, plan, transfer};
use crate::directory::{Directory, DirectoryCommand, DirectoryEntry, DirectoryResult};

/// Maximum number of steps to look ahead.
const STEPS_MAX: usize = 16 * 1024;

/// The changes that are to come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forecast {
    /// Replicas that would move or be added, in order: the shard, the source, the destination.
    pub moves: Vec<(GroupId, Option<NodeId>, Option<NodeId>)>,
    /// Primaries that would move afterwards.
    pub transfers: Vec<Transfer>,
}

/// Returns the changes until everything is at rest, if every step succeeded.
pub fn forecast(directory: &Directory, measured: &Measured, balance: Balance) -> Forecast {
    let (mut directory, mut measured) = (directory.clone(), measured.clone());
    let mut forecast = Forecast::default();
    arrive(&directory, &mut measured);
    for _ in 0..STEPS_MAX {
        let Some(command) = plan(&directory, &measured, balance) else { break };
        if let DirectoryCommand::SetMembers { group, voters, .. } = &command
            && group.is_shard()
        {
            let before = directory.groups().get(group).map(|plan| plan.voters.clone());
            let before: BTreeSet<NodeId> = before.unwrap_or_default();
            let from = before.difference(voters).next().copied();
            let to = voters.difference(&before).next().copied();
            forecast.moves.push((*group, from, to));
        }
        let entry = DirectoryEntry { time_ms: directory.clock_ms(), command };
        if directory.execute(&entry) != DirectoryResult::Done {
            break;
        }
        arrive(&directory, &mut measured);
    }
    for _ in 0..STEPS_MAX {
        let Some(next) = transfer(&directory, &measured) else { break };
        if let Some(group) = measured.groups.get_mut(&next.group) {
            group.leader = next.to;
        }
        forecast.transfers.push(next);
    }
    forecast
}

/// Makes the measurements agree with the directory, as if every planned change had been carried
/// out.
fn arrive(directory: &Directory, measured: &mut Measured) {
    for (group, plan) in directory.groups() {
        let Some(actual) = measured.groups.get_mut(group) else { continue };
        actual.voters.clone_from(&plan.voters);
        actual.learners.clone_from(&plan.learners);
        actual.is_joint = false;
        actual.ready.clone_from(&plan.voters);
        if !actual.voters.contains(&actual.leader)
            && let Some(first) = actual.voters.first()
        {
            actual.leader = *first;
        }
    }
    for (node, seen) in &mut measured.nodes {
        if let Some(report) = &mut seen.report {
            let holds = directory.groups().iter().filter(|(_, plan)| plan.has(*node));
            report.holds = holds.map(|(group, _)| *group).collect();
        }
    }
}
