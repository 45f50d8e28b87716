//! Checks that no order costs a shard replicas.
//!
//! Once a shard has all its voters, it keeps as many, whatever is drained, moved and rebalanced.
//! Only the removal of a node may cost it a voter: the one on that node. And every voter has a
//! replica as long as the group counts on it.

use std::collections::{BTreeMap, BTreeSet};

use dkv_api::{NodeInfo, NodeStatus, StatusError};
use dkv_base::id::{GroupId, NodeId};
use dkv_wire::message::GroupRole;

/// Looks in a row in which a voter must lack its replica. One look is not enough: its answers are
/// of different moments.
const LOOKS: u32 = 3;

/// What the administrator has seen of replicas, look after look.
#[derive(Default)]
pub(crate) struct ReplicationCheck {
    /// Number of shards of the first keyspace.
    pub(crate) shards: usize,
    /// Number of voters that a shard should have.
    pub(crate) replication: usize,
    /// Nodes whose removal was ordered.
    pub(crate) removed: BTreeSet<NodeId>,
    /// Removed nodes that the directory does not list any more. Any other may still get a replica
    /// that was decided on before the order, and lose it again.
    gone: BTreeSet<NodeId>,
    /// For each shard that has had all its voters, the nodes that were gone when it last had.
    whole: BTreeMap<GroupId, BTreeSet<NodeId>>,
    /// Voters without a replica, and in how many looks in a row.
    without: BTreeMap<(GroupId, NodeId), u32>,
}

impl ReplicationCheck {
    /// Takes one look, and returns what must not be.
    pub(crate) fn look(
        &mut self,
        nodes: &[(NodeInfo, Result<NodeStatus, StatusError>)],
    ) -> Vec<String> {
        let answers: Vec<&NodeStatus> =
            nodes.iter().filter_map(|(_, status)| status.as_ref().ok()).collect();
        let is_named = |id: &NodeId| nodes.iter().any(|(node, _)| node.id == *id);
        self.gone = self.removed.iter().filter(|id| !is_named(id)).copied().collect();
        let mut wrong = Vec::new();
        let mut without = BTreeMap::new();
        // A shard of another keyspace may be dropped between two of the answers.
        let shards = self.shards;
        let stays = |(group, _): &(GroupId, _)| group.0 as usize <= shards;
        for (group, voters) in committed_voters(&answers).into_iter().filter(stays) {
            wrong.extend(self.too_few(group, &voters));
            for status in answers.iter().filter(|status| voters.contains(&status.id)) {
                if status.groups.iter().all(|seen| seen.group != group) {
                    let place = (group, status.id);
                    let looks = self.without.get(&place).copied().unwrap_or_default() + 1;
                    without.insert(place, looks);
                    if looks == LOOKS {
                        wrong.push(format!(
                            "{} votes in shard {group} and has nothing of it",
                            status.name
                        ));
                    }
                }
            }
        }
        self.without = without;
        wrong
    }

    /// Returns whether every shard has had all its voters.
    pub(crate) fn are_whole(&self) -> bool {
        self.whole.len() >= self.shards
    }

    fn too_few(&mut self, group: GroupId, voters: &BTreeSet<NodeId>) -> Option<String> {
        if voters.len() >= self.replication {
            self.whole.insert(group, self.gone.difference(voters).copied().collect());
            return None;
        }
        let before = self.whole.get(&group)?;
        let excused = self.removed.difference(voters).filter(|node| !before.contains(node)).count();
        let wanted = self.replication.saturating_sub(excused);
        (voters.len() < wanted).then(|| {
            format!("shard {group} was whole and has only {} of {wanted} voters", voters.len())
        })
    }
}

/// Returns the committed voters of each shard, as its latest leader reports them.
fn committed_voters(answers: &[&NodeStatus]) -> BTreeMap<GroupId, BTreeSet<NodeId>> {
    let mut latest = BTreeMap::new();
    for seen in answers.iter().flat_map(|status| &status.groups) {
        let leads = seen.role == GroupRole::Leader && seen.group.is_shard();
        let known = latest.get(&seen.group).map(|(term, _)| *term);
        if leads && known.is_none_or(|known| known < seen.term) {
            let is_committed = seen.applied_index == seen.last_index;
            let voters: BTreeSet<NodeId> = seen.voters.iter().copied().collect();
            latest.insert(seen.group, (seen.term, is_committed.then_some(voters)));
        }
    }
    latest.into_iter().filter_map(|(group, (_, voters))| Some((group, voters?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_removal_excuses_a_voter_less() {
        let nodes: Vec<NodeId> = (0..4).map(|_| NodeId::random()).collect();
        let voters = |places: &[usize]| places.iter().map(|place| nodes[*place]).collect();
        let mut check = ReplicationCheck { replication: 3, ..ReplicationCheck::default() };
        assert_eq!(check.too_few(GroupId(1), &voters(&[0])), None, "it has not been whole");
        assert_eq!(check.too_few(GroupId(1), &voters(&[0, 1, 2])), None);
        assert!(check.too_few(GroupId(1), &voters(&[0, 1])).is_some());
        // That of a node which had gone before is no excuse.
        check.removed.insert(nodes[3]);
        check.gone.insert(nodes[3]);
        assert_eq!(check.too_few(GroupId(1), &voters(&[0, 1, 2])), None);
        assert!(check.too_few(GroupId(1), &voters(&[0, 1])).is_some());
        check.removed.insert(nodes[2]);
        assert_eq!(check.too_few(GroupId(1), &voters(&[0, 1])), None);
        assert!(check.too_few(GroupId(1), &voters(&[0])).is_some());
    }

    #[test]
    fn a_node_that_goes_may_have_had_a_replica_unseen() {
        let nodes: Vec<NodeId> = (0..4).map(|_| NodeId::random()).collect();
        let voters = |places: &[usize]| places.iter().map(|place| nodes[*place]).collect();
        let mut check = ReplicationCheck { replication: 3, ..ReplicationCheck::default() };
        check.removed.insert(nodes[3]);
        assert_eq!(check.too_few(GroupId(1), &voters(&[0, 1, 2])), None);
        // The third was exchanged for the fourth, which has gone, between two looks.
        assert_eq!(check.too_few(GroupId(1), &voters(&[0, 1])), None);
        assert!(check.too_few(GroupId(1), &voters(&[0])).is_some());
    }
}
