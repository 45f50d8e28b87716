//! The members of the control group: which nodes vote, and which follow.
//!
//! All nodes follow: each needs the directory for as long as a shard may count on it or it keeps
//! eventual writes. Only a few vote, since a change waits for a sync per vote that it needs. Three
//! voters survive one failure even where shards have a single replica.

use std::collections::BTreeSet;

use dkv_base::id::{GroupId, NodeId};

use super::{Balance, Planner};
use crate::directory::DirectoryCommand;

/// Fewest and most voters, given enough nodes.
const VOTERS: (usize, usize) = (3, 5);

impl Planner<'_> {
    pub(super) fn control(&self, balance: Balance) -> Option<DirectoryCommand> {
        let current = self.directory.groups().get(&GroupId::CONTROL)?;
        let actual = self.measured.groups.get(&GroupId::CONTROL)?;
        let settled = !actual.is_joint && actual.voters == current.voters;
        let voters = if settled {
            self.next_control_voters(&current.voters, balance)
        } else {
            self.without_the_lost(GroupId::CONTROL).unwrap_or_else(|| current.voters.clone())
        };
        let learners = self
            .nodes
            .iter()
            // A node that leads a shard has to learn that it should not; a node that keeps eventual
            // writes, that it is to go.
            .filter(|(node, member)| {
                !member.retiring || self.may_hold_shards(**node) || !self.has_delivered(**node)
            })
            .filter(|(node, _)| !voters.contains(node))
            .map(|(node, _)| *node);
        let learners = learners.collect();
        self.wish(GroupId::CONTROL, voters, learners)
    }

    fn next_control_voters(
        &self,
        current: &BTreeSet<NodeId>,
        balance: Balance,
    ) -> BTreeSet<NodeId> {
        let (fewest, most) = VOTERS;
        let target = (self.settings.replication as usize).clamp(fewest, most);
        let next = self.next_voters(current, target, |others| {
            let candidates = self.nodes.keys().filter(|node| !current.contains(node));
            let candidates = candidates.filter(|node| self.is_usable(**node));
            // Prefer the nodes that joined first over those with the least load.
            candidates.copied().min_by_key(|node| {
                let joined = self.nodes.get(node).map(|member| member.joined);
                (self.count_in(others, self.region(*node)), joined)
            })
        });
        match next {
            Some((_, voters)) => voters,
            None if balance != Balance::Off => {
                self.spread_control(current).unwrap_or_else(|| current.clone())
            }
            None => current.clone(),
        }
    }

    /// Exchanges one voter for a node in a region that has fewer voters.
    fn spread_control(&self, current: &BTreeSet<NodeId>) -> Option<BTreeSet<NodeId>> {
        for from in current {
            let mut others = current.clone();
            others.remove(from);
            let here = self.count_in(&others, self.region(*from));
            let candidates = self.nodes.keys().filter(|node| !current.contains(node));
            let better = candidates.copied().find(|node| {
                self.is_usable(*node) && self.count_in(&others, self.region(*node)) < here
            });
            if let Some(to) = better {
                others.insert(to);
                return Some(others);
            }
        }
        None
    }
}
