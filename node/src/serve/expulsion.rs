//! Whether the network can do without a node that is to be thrown out.
//!
//! The plan in the directory may be ahead of what a group is, and knows of nobody who is down; what
//! the node itself reports may be a lie that keeps it in. So the other voters are asked for what
//! their own logs say of the members, and count as live if they answer. A group may change between
//! their answers and the node's end; the directory refuses what its plan for such a group forbids.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dkv_base::id::{GroupId, NodeId};
use dkv_wire::message::{Answer, GroupStatus, Refusal, RequestBody};
use futures::future::join_all;
use tokio::time::Instant;

use crate::net::peers::Lane;
use crate::net::rpc::ask;
use crate::node::Node;
use dkv_state::Directory;
use dkv_state::placement::Measured;

/// Longest time that a voter has to tell its status.
const PATIENCE: Duration = Duration::from_secs(1);

/// The groups that may count on a node, each with its other possible voters.
type Counting = BTreeMap<GroupId, BTreeSet<NodeId>>;

/// Checks that each group has a majority of live voters without a node.
///
/// # Errors
/// [`Refusal::Invalid`] if one has not, and [`Refusal::Unavailable`] if no other voter of one
/// answers.
pub(super) async fn check(
    node: &Arc<Node>,
    since: Instant,
    expelled: NodeId,
) -> Result<(), Refusal> {
    let measured = node.measured(since);
    let counting = node.replicas().with_directory(|plan| counting(plan, &measured, expelled));
    let counting = counting.unwrap_or_default();
    let voters: BTreeSet<NodeId> = counting.values().flatten().copied().collect();
    let asked = voters.into_iter().map(async |voter| (voter, status_of(node, voter).await));
    let answers = join_all(asked).await.into_iter();
    let answers = answers.filter_map(|(voter, groups)| Some((voter, groups?))).collect();
    can_spare(&counting, &answers, expelled)
}

/// Returns what a node says of its groups, if it answers.
async fn status_of(node: &Arc<Node>, voter: NodeId) -> Option<Vec<GroupStatus>> {
    if voter == node.id() {
        return Some(node.status().groups);
    }
    match ask(node.peers(), voter, Lane::Urgent, RequestBody::Status, PATIENCE).await {
        Ok(Answer::Status(status)) => Some(status.groups),
        _ => None,
    }
}

/// Finds the groups that count on a node by the plan, or by the report of one that is not to go.
fn counting(directory: &Directory, measured: &Measured, expelled: NodeId) -> Counting {
    let stays = |id: &NodeId| *id != expelled && !directory.is_denied((*id).into());
    let mut counting = Counting::new();
    for (group, plan) in directory.groups().iter().filter(|(_, plan)| plan.started) {
        let planned: BTreeSet<NodeId> =
            plan.voters.iter().chain(plan.displaced.keys()).copied().collect();
        let reported = measured.groups.get(group).filter(|found| stays(&found.leader));
        let reported = reported.map(|found| found.voters.clone()).unwrap_or_default();
        if planned.contains(&expelled) || reported.contains(&expelled) {
            counting.insert(*group, planned.union(&reported).copied().filter(stays).collect());
        }
    }
    counting
}

/// Judges by the answers of the voters that are to stay.
fn can_spare(
    counting: &Counting,
    answers: &BTreeMap<NodeId, Vec<GroupStatus>>,
    expelled: NodeId,
) -> Result<(), Refusal> {
    let short = expelled.short();
    for (group, voters) in counting {
        let found: BTreeMap<NodeId, &GroupStatus> = answers
            .iter()
            .filter(|(node, _)| voters.contains(node))
            .filter_map(|(node, said)| Some((*node, said.iter().find(|it| it.group == *group)?)))
            .collect();
        if found.is_empty() && !voters.is_empty() {
            return Err(Refusal::Unavailable(format!(
                "no other voter of group {group} answers, and it may need node {short}; start them"
            )));
        }
        for (voter, status) in &found {
            let needs = std::iter::once(&status.voters).chain(&status.halves);
            if !needs.flatten().any(|voter| *voter == expelled) {
                continue;
            }
            if status.spare(|id| found.contains_key(&id)).is_some_and(|spare| spare < 0) {
                return Err(Refusal::Invalid(format!(
                    "without node {short} group {group} would have no majority of its voters now, \
                     says node {}; start those that are down, add nodes until it has others, or \
                     have the node leave in good order",
                    voter.short()
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use dkv_base::id::{Revision, Term};
    use dkv_wire::message::GroupRole;

    use super::*;

    const SHARD: GroupId = GroupId(1);

    fn says(halves: &[&[NodeId]]) -> Vec<GroupStatus> {
        let mut voters: Vec<NodeId> = halves.iter().copied().flatten().copied().collect();
        voters.sort();
        voters.dedup();
        let is_joint = halves.len() > 1;
        vec![GroupStatus {
            group: SHARD,
            role: GroupRole::Follower,
            term: Term(1),
            leader: None,
            voters,
            halves: halves.iter().filter(|_| is_joint).map(|half| half.to_vec()).collect(),
            learners: Vec::new(),
            last_index: 1,
            applied_index: 1,
            checkpoint_index: 0,
            purged_index: 0,
            keys: 0,
            bytes: 0,
            revision: Revision(0),
            state_hash: 0,
            replicas: Vec::new(),
        }]
    }

    #[test]
    fn nobody_is_thrown_out_of_a_group_that_needs_it() {
        let [x, a, b, c] = [(); 4].map(|()| NodeId::random());
        let judged = |asked: &[NodeId], answers: &[(NodeId, Vec<GroupStatus>)]| {
            let counting = Counting::from([(SHARD, asked.iter().copied().collect())]);
            can_spare(&counting, &answers.iter().cloned().collect(), x)
        };
        let whole = says(&[&[x, a, b]]);
        assert_eq!(judged(&[a, b], &[(a, whole.clone()), (b, whole.clone())]), Ok(()));
        assert_eq!(judged(&[a, b], &[(a, says(&[&[a, b]]))]), Ok(()), "it has no vote");
        // It is alone, as the directory judges.
        assert_eq!(judged(&[], &[]), Ok(()));
        // One of three is down, or a voter has yet to get the group, or the log has two voters,
        // whatever the plan.
        for answers in [
            vec![(a, whole.clone())],
            vec![(a, whole.clone()), (b, Vec::new())],
            vec![(a, says(&[&[x, a]])), (b, says(&[&[x, a]]))],
        ] {
            let refused = judged(&[a, b], &answers);
            assert!(matches!(refused, Err(Refusal::Invalid(_))), "{answers:?}");
        }
        // While members change, either half counts.
        let joint = says(&[&[x, a], &[a, b, c]]);
        let answers = [a, b, c].map(|id| (id, joint.clone()));
        assert!(matches!(judged(&[a, b, c], &answers), Err(Refusal::Invalid(_))));
        let joint = says(&[&[x, a, b], &[x, b, c]]);
        assert_eq!(judged(&[a, b, c], &[a, b, c].map(|id| (id, joint.clone()))), Ok(()));
        // None of them answers.
        assert!(matches!(judged(&[a, b], &[]), Err(Refusal::Unavailable(_))));
        // What the node says of itself, or one that was not asked, is not heard.
        let lie = [(x, says(&[&[x, a]])), (c, says(&[&[x]])), (a, whole.clone()), (b, whole)];
        assert_eq!(judged(&[a, b], &lie), Ok(()));
    }
}
