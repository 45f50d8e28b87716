//! No order costs a shard replicas.
//!
//! A shard that has been whole keeps as many voters whatever is drained, moved and evened out; only
//! the removal of a node may cost it one, that of this node. And whoever votes has a replica, as
//! long as the group counts on it.

use std::collections::{BTreeMap, BTreeSet};

use dkv_api::{NodeInfo, NodeStatus};
use dkv_base::id::{GroupId, NodeId};
use dkv_wire::message::GroupRole;

/// Looks in a row in which a voter must be without a replica: the answers of one look are of
/// different moments.
const LOOKS: u32 = 3;

/// What was seen of replicas, look after look.
#[derive(Default)]
pub(crate) struct Copies {
    /// Shards that there are.
    pub(crate) shards: usize,
    /// Voters that a shard is to have.
    pub(crate) replication: usize,
    /// Nodes of which the removal was ordered.
    pub(crate) removed: BTreeSet<NodeId>,
    /// For each shard that has been whole, how many of those did not vote in it when it last was.
    whole: BTreeMap<GroupId, usize>,
    /// Voters without a replica, and in how many looks in a row.
    without: BTreeMap<(GroupId, NodeId), u32>,
}

impl Copies {
    /// What one look shows that must not be.
    pub(crate) fn look(&mut self, nodes: &[(NodeInfo, Result<NodeStatus, String>)]) -> Vec<String> {
        let answers: Vec<&NodeStatus> =
            nodes.iter().filter_map(|(_, status)| status.as_ref().ok()).collect();
        let mut wrong = Vec::new();
        let mut without = BTreeMap::new();
        for (group, voters) in committed_voters(&answers) {
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

    /// Whether every shard has been whole.
    pub(crate) fn are_whole(&self) -> bool {
        self.whole.len() >= self.shards
    }

    fn too_few(&mut self, group: GroupId, voters: &BTreeSet<NodeId>) -> Option<String> {
        let excused = self.removed.difference(voters).count();
        if voters.len() >= self.replication {
            self.whole.insert(group, excused);
            return None;
        }
        let before = *self.whole.get(&group)?;
        let wanted = self.replication.saturating_sub(excused.saturating_sub(before));
        (voters.len() < wanted).then(|| {
            format!("shard {group} was whole and has only {} of {wanted} voters", voters.len())
        })
    }
}

/// The voters of each shard, by the word of its latest leader, if they are committed.
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
        let mut copies = Copies { replication: 3, ..Copies::default() };
        assert_eq!(copies.too_few(GroupId(1), &voters(&[0])), None, "it has not been whole");
        assert_eq!(copies.too_few(GroupId(1), &voters(&[0, 1, 2])), None);
        assert!(copies.too_few(GroupId(1), &voters(&[0, 1])).is_some());
        // That of a node which did not vote is no excuse.
        copies.removed.insert(nodes[3]);
        assert_eq!(copies.too_few(GroupId(1), &voters(&[0, 1, 2])), None);
        assert!(copies.too_few(GroupId(1), &voters(&[0, 1])).is_some());
        copies.removed.insert(nodes[2]);
        assert_eq!(copies.too_few(GroupId(1), &voters(&[0, 1])), None);
        assert!(copies.too_few(GroupId(1), &voters(&[0])).is_some());
    }
}
