//! Warnings: what in a report needs attention, one sentence each.

use std::collections::BTreeMap;

use dkv_api::{GroupId, NodeId, NodeState};
use dkv_wire::incarnation::Verdict;
use dkv_wire::message::RunReport;

use super::answers::Answers;
use super::report::{Report, group_name};

/// Says how many more nodes may fail: `tolerates 1 more failure`.
pub fn tolerated_failures(count: u32) -> String {
    match count {
        0 => "tolerates no further failures".to_owned(),
        1 => "tolerates 1 more failure".to_owned(),
        _ => format!("tolerates {count} more failures"),
    }
}

/// Warns of nodes on an older copy of their data directory, of nodes that run twice, and of what
/// nodes say of themselves.
fn run_warnings(answers: &Answers<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    let runs = answers.status.server.as_ref().map(|server| server.runs.as_slice());
    for run in runs.unwrap_or_default() {
        let RunReport { name, address, start, mark, .. } = run;
        warnings.push(match run.verdict {
            Verdict::Older { start: known, mark: had } => format!(
                "{name} at {address} is held back: its data directory (start {start}, {mark} entries and \
                 votes) is an older copy of one seen before (start {known}, {had} entries and \
                 votes); restore the newer one; only if that is lost, keep {name} {address} \
                 lets this one continue without the missing entries"
            ),
            Verdict::Dismissed { .. } => {
                format!("{name} at {address} (start {start}) was dismissed, and is stopping")
            }
            Verdict::Twice { .. } | Verdict::Sound => format!(
                "{name} runs twice, and is held back: one of its processes is at {address} (start \
                 {start}, {mark} entries and votes); keep {name} {address} lets this one continue, \
                 and stops the other"
            ),
        });
    }
    for answer in answers.nodes() {
        let name = answers.name(answer.id);
        warnings.extend(answer.notes.iter().map(|note| format!("{name}: {note}")));
    }
    warnings
}

/// Returns all warnings about a report and the answers behind it.
pub(super) fn warnings(report: &Report, answers: &Answers<'_>) -> Vec<String> {
    let mut warnings = divergences(answers);
    if let Some(error) = &report.server.error {
        warnings.push(format!(
            "the server does not answer ({error}); reads and writes continue, but nothing can join"
        ));
    }
    let answered = answers.status.server.as_ref().ok().map(|status| status.server.to_string());
    for server in &report.servers {
        // A server that is asked as the main one too has its warning above.
        if let Some(error) = &server.error
            && report.server.error.is_none()
        {
            let (id, address) = (server.id.get(..8).unwrap_or(&server.id), &server.address);
            warnings.push(if answered.as_ref() == Some(&server.id) {
                format!(
                    "the registration server {id} answers, but not at {address}, where the others \
                     expect it ({error}); start it with --advertise and an address at which nodes \
                     and clients reach it"
                )
            } else {
                format!(
                    "the registration server {id} at {address} does not answer ({error}); others \
                     admit meanwhile; if it is lost for good, start another one and revoke {}",
                    server.id
                )
            });
        }
    }
    warnings.extend(run_warnings(answers));
    for group in &report.groups {
        let name = group_name(group.group);
        let changes = answers.replicas(GroupId(group.group)).any(|(_, it)| !it.halves.is_empty());
        if group.spare.is_some_and(|spare| spare < 0) && changes {
            warnings.push(format!(
                "{name}: a majority of its former or of its new voters does not answer, and both \
                 are needed while they change"
            ));
        } else if let Some(spare) = group.spare.filter(|spare| *spare < 0) {
            let live = group.voters.iter().filter(|voter| voter.reachable).count();
            warnings.push(format!(
                "{name}: {live} of {} voters answer, {} more {} needed",
                group.voters.len(),
                -spare,
                if spare == -1 { "is" } else { "are" },
            ));
        } else if let Some((node, _)) =
            answers.claimant(GroupId(group.group)).filter(|_| group.primary.is_none())
        {
            warnings.push(format!(
                "{name}: {} leads and hears no majority of the voters; see whether the nodes reach \
                 each other",
                answers.name(node)
            ));
        } else if group.primary.is_none() {
            warnings.push(format!("{name}: no leader answers; an election may be under way"));
        }
    }
    let placed = answers.status.placement.iter().flat_map(|placement| &placement.nodes);
    let obstacles: Vec<(NodeId, &String)> =
        placed.filter_map(|places| Some((places.node, places.obstacle.as_ref()?))).collect();
    for node in &report.nodes {
        if let Some(error) = node.error.as_ref().filter(|_| node.state != NodeState::Left) {
            warnings.push(format!("{} does not answer: {error}", node.name));
        }
        if let Some(pending @ 1..) = node.pending {
            let writes = if pending == 1 { "write" } else { "writes" };
            warnings.push(format!("{} has {pending} undelivered eventual {writes}", node.name));
        }
        if let Some(why) = obstacles.iter().find(|(id, _)| *id == node.id).map(|(_, why)| why) {
            warnings.push(format!("{} cannot be emptied: {why}", node.name));
        }
        if node.disk_full {
            warnings.push(format!("{} refuses writes: its disk is full", node.name));
        }
    }
    if let Some(coordinator) = &report.coordinator
        && report.server.reachable
        && !coordinator.confirmed
    {
        warnings.push(format!(
            "the server has not confirmed {} in term {} yet",
            coordinator.name, coordinator.term
        ));
    }
    warnings
}

/// Warns of groups with two replicas that have applied the same entries and differ, which must
/// never happen.
fn divergences(answers: &Answers<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for group in answers.groups() {
        let mut hashes: BTreeMap<u64, (NodeId, u64)> = BTreeMap::new();
        for (node, replica) in answers.replicas(group) {
            let (first, hash) =
                *hashes.entry(replica.applied_index).or_insert((node, replica.state_hash));
            if hash != replica.state_hash {
                found.push(format!(
                    "{}: {} and {} differ after the same entries (index {}); stop writing to \
                     it and keep both data directories",
                    group_name(group.0),
                    answers.name(first),
                    answers.name(node),
                    replica.applied_index
                ));
            }
        }
    }
    found
}
