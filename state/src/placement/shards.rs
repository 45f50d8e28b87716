//! The changes that a group needs: voters that are missing, gone, or leaving.

use std::collections::BTreeSet;

use dkv_base::id::{GroupId, NodeId};

use super::{GroupMeasure, Planner};
use crate::directory::DirectoryCommand;

/// The order in which changes are made, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// A planned voter can no longer arrive.
    Lost,
    /// A voter is gone.
    Gone,
    /// There are too few voters.
    Missing,
    /// A voter has been asked to leave.
    Leaving,
    /// There are too many voters.
    Surplus,
}

impl Planner<'_> {
    /// Returns the most urgent change that any shard needs.
    pub(super) fn urgent(&self) -> Option<DirectoryCommand> {
        let needs = self.shards().filter_map(|(group, _)| Some((self.need(group)?, group)));
        let ((_, voters), group) = needs.min_by_key(|((urgency, _), group)| (*urgency, *group))?;
        self.wish(group, voters, BTreeSet::new())
    }

    /// Returns the change that a shard needs, if it is possible now.
    fn need(&self, group: GroupId) -> Option<(Urgency, BTreeSet<NodeId>)> {
        let wished = &self.directory.groups().get(&group)?.voters;
        // Without a known leader, no one could carry the change out.
        let actual = self.measured.groups.get(&group)?;
        if actual.is_joint {
            return None;
        }
        if actual.voters != *wished {
            return Some((Urgency::Lost, self.without_the_lost(group)?));
        }
        let replication = self.replication(group);
        self.next_voters(wished, replication, |others| self.candidate(group, actual, others))
    }

    /// Returns the planned voters with a replacement for one that went down before it arrived.
    pub(super) fn without_the_lost(&self, group: GroupId) -> Option<BTreeSet<NodeId>> {
        let wished = &self.directory.groups().get(&group)?.voters;
        let actual = self.measured.groups.get(&group)?;
        let mut coming = wished.difference(&actual.voters);
        let lost = coming.find(|node| self.is_down(**node) || !self.is_staying(**node))?;
        let mut others = wished.clone();
        others.remove(lost);
        let instead = match group.is_shard() {
            true => self.candidate(group, actual, &others),
            false => {
                let candidates = self.nodes.keys().copied().filter(|node| self.is_usable(*node));
                self.best(candidates.filter(|node| !others.contains(node)), &others)
            }
        };
        others.insert(instead.filter(|instead| instead != lost)?);
        Some(others)
    }

    /// Returns the voters with at most one of them exchanged, added or dropped; `None` if they can
    /// stay as they are. `newcomer` returns the best node to add to the given ones.
    pub(super) fn next_voters(
        &self,
        current: &BTreeSet<NodeId>,
        target: usize,
        newcomer: impl Fn(&BTreeSet<NodeId>) -> Option<NodeId>,
    ) -> Option<(Urgency, BTreeSet<NodeId>)> {
        let going = self.first_to_go(current);
        let urgency = match going {
            Some(node) if self.is_gone(node) => Urgency::Gone,
            _ => Urgency::Leaving,
        };
        let without = |node: NodeId| {
            let mut others = current.clone();
            others.remove(&node);
            others
        };
        let with = |mut others: BTreeSet<NodeId>| {
            let newcomer = newcomer(&others)?;
            others.insert(newcomer);
            Some(others)
        };
        if current.len() > target && current.len() > 1 {
            return Some((Urgency::Surplus, without(going.or_else(|| self.newest(current))?)));
        }
        // A node leaves without a replacement only if an administrator has it removed, and the
        // remaining voters are as many as there could be.
        let staying = current.iter().filter(|node| !self.is_retiring(**node)).count();
        if let Some(going) = going.filter(|node| self.is_retiring(*node))
            && staying > 0
            && staying >= self.possible_voters(current, target)
        {
            return Some((urgency, without(going)));
        }
        if current.len() < target {
            return Some((Urgency::Missing, with(current.clone())?));
        }
        Some((urgency, with(without(going?))?))
    }

    /// Returns how many voters there could be: usable nodes, and current voters that may stay.
    fn possible_voters(&self, current: &BTreeSet<NodeId>, target: usize) -> usize {
        let possible = self.nodes.iter().filter(|(node, member)| {
            let usable = !self.is_gone(**node) && !member.left && !member.draining;
            !member.retiring && (usable || current.contains(node))
        });
        possible.count().min(target)
    }

    /// Returns the voter that most needs replacing: one that is gone before one that is asked to
    /// leave, since the latter still votes.
    fn first_to_go(&self, current: &BTreeSet<NodeId>) -> Option<NodeId> {
        let gone = current.iter().filter(|node| self.is_gone(**node));
        let gone = gone.max_by_key(|node| self.is_retiring(**node));
        gone.or_else(|| current.iter().find(|node| !self.is_staying(**node))).copied()
    }

    fn newest(&self, current: &BTreeSet<NodeId>) -> Option<NodeId> {
        let joined = |node: &&NodeId| self.nodes.get(node).map(|member| member.joined);
        current.iter().max_by_key(joined).copied()
    }

    /// Returns the node that is the best addition to `others` as a replica of a shard.
    fn candidate(
        &self,
        group: GroupId,
        actual: &GroupMeasure,
        others: &BTreeSet<NodeId>,
    ) -> Option<NodeId> {
        let candidates = self.nodes.keys().copied();
        let candidates =
            candidates.filter(|node| !others.contains(node) && self.may_take(group, actual, *node));
        self.best(candidates, others)
    }

    /// Returns whether a node can be given a replica of a shard now.
    pub(super) fn may_take(&self, group: GroupId, actual: &GroupMeasure, node: NodeId) -> bool {
        let Some(report) = self.measured.nodes.get(&node).and_then(|seen| seen.report.as_ref())
        else {
            return false;
        };
        // The node itself has to delete the remains of an earlier replica first.
        let is_clean = actual.has(node) || !report.holds.contains(&group);
        // The data needs space twice: once when it is received, and once when it is merged.
        let has_room = actual.voters.contains(&node) || report.free_bytes / 2 >= actual.bytes;
        let flows =
            actual.voters.contains(&node) || self.flow.takes(actual.leader, node, actual.bytes);
        self.is_usable(node) && is_clean && has_room && flows
    }
}
