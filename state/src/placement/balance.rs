//! Balance: moves replicas from nodes with much load to nodes with little.
//!
//! A move has to be worth its cost. It is if it spreads the shard over more regions, or if it keeps
//! the spread and evens out the load of the nodes by more than a tolerance, so that the replica
//! does not move back. Every move lowers the sum of the squares of the loads, so moving comes to an
//! end. When a node joins a balanced network, it gets its share and nothing else moves.

use std::collections::BTreeSet;

use dkv_base::id::{GroupId, NodeId};

use super::{GroupMeasure, Planner};
use crate::directory::DirectoryCommand;

/// The policy on moving replicas for balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// No replica moves.
    Off,
    /// Replicas move where the gain is clear.
    Gentle,
    /// Replicas move where there is any gain.
    Eager,
}

impl Balance {
    /// Returns by how much two loads must differ for a replica of this weight to move.
    fn threshold(self, weight: u64) -> u64 {
        match self {
            Self::Off => u64::MAX,
            Self::Gentle => weight + weight / 4,
            Self::Eager => weight + weight / 50,
        }
    }
}

/// A replica that could move.
struct Movable<'a> {
    group: GroupId,
    from: NodeId,
    voters: &'a BTreeSet<NodeId>,
    actual: &'a GroupMeasure,
}

impl Planner<'_> {
    /// Returns the most valuable move.
    pub(super) fn balance(&self, balance: Balance) -> Option<DirectoryCommand> {
        if balance == Balance::Off {
            return None;
        }
        let movable = self.movable();
        let (moved, to) = self.spread(&movable).or_else(|| self.even_out(&movable, balance))?;
        let mut voters = moved.voters.clone();
        voters.remove(&moved.from);
        voters.insert(to);
        self.wish(moved.group, voters, BTreeSet::new())
    }

    /// Returns the replicas on usable nodes whose shard has no change in progress.
    fn movable(&self) -> Vec<Movable<'_>> {
        let mut movable = Vec::new();
        for (group, plan) in self.shards() {
            let Some(actual) = self.measured.groups.get(&group) else { continue };
            let at_rest =
                !actual.is_joint && actual.voters == plan.voters && actual.learners.is_empty();
            if at_rest {
                let well = plan.voters.iter().filter(|node| self.is_usable(**node));
                movable.extend(well.map(|from| Movable {
                    group,
                    from: *from,
                    voters: &plan.voters,
                    actual,
                }));
            }
        }
        // A leading replica moves only if no other will do, since that costs a transfer of
        // leadership.
        movable.sort_by_key(|it| (it.actual.leader == it.from, it.group));
        movable
    }

    /// Returns the number of replicas of the shard in the region of a node, without the one that
    /// moves.
    fn beside(&self, moved: &Movable<'_>, node: NodeId) -> usize {
        let region = self.region(node);
        let others = moved.voters.iter().filter(|it| **it != moved.from);
        others.filter(|it| self.region(**it) == region).count()
    }

    /// Returns a move to a region that has fewer replicas of the shard.
    fn spread<'a, 'b>(&self, movable: &'a [Movable<'b>]) -> Option<(&'a Movable<'b>, NodeId)> {
        movable.iter().find_map(|moved| {
            let here = self.beside(moved, moved.from);
            let nodes = self.nodes.keys().copied().filter(|to| !moved.voters.contains(to));
            let better = nodes.filter(|to| self.beside(moved, *to) < here);
            let better = better.filter(|to| self.may_take(moved.group, moved.actual, *to));
            let best = better.min_by_key(|to| (self.beside(moved, *to), self.load(*to)))?;
            Some((moved, best))
        })
    }

    /// Returns a move from a node with more load to one with less that keeps the spread of the
    /// shard.
    fn even_out<'a, 'b>(
        &self,
        movable: &'a [Movable<'b>],
        balance: Balance,
    ) -> Option<(&'a Movable<'b>, NodeId)> {
        let mut from: Vec<NodeId> =
            self.nodes.keys().copied().filter(|node| self.is_usable(*node)).collect();
        let mut to = from.clone();
        from.sort_by_key(|node| std::cmp::Reverse(self.load(*node)));
        to.sort_by_key(|node| self.load(*node));
        let lightest = self.weights.values().min().copied()?;
        for from in from {
            for to in &to {
                let gap = self.load(from).saturating_sub(self.load(*to));
                if gap <= balance.threshold(lightest) {
                    break;
                }
                let fits = |moved: &&Movable<'_>| {
                    moved.from == from
                        && !moved.voters.contains(to)
                        && gap > balance.threshold(self.weight(moved.group))
                        && self.beside(moved, *to) <= self.beside(moved, from)
                        && self.may_take(moved.group, moved.actual, *to)
                };
                // The weight closest to half of the gap evens it out best.
                let distance = |moved: &&Movable<'_>| {
                    let leads = moved.actual.leader == from;
                    (gap.abs_diff(2 * self.weight(moved.group)) / super::WEIGHT, leads, moved.group)
                };
                if let Some(best) = movable.iter().filter(fits).min_by_key(distance) {
                    return Some((best, *to));
                }
            }
        }
        None
    }
}
