//! Distribution of leadership: spreads primaries over regions, and then over nodes.
//!
//! A primary moves by a transfer of leadership to another voter that is up to date. This module
//! proposes one transfer at a time, which is a suggestion to the group's leader and no part of the
//! directory. A node may lead two more shards than another with which it shares no shard. Then a
//! breadth-first search finds a path over the nodes in between, and the last hop of the path is
//! taken first, so that no node ever leads more shards than the most before.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dkv_base::id::{GroupId, NodeId};

use super::{GroupMeasure, Measured};
use crate::directory::Directory;

/// A primary that should move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The shard.
    pub group: GroupId,
    /// The current leader.
    pub from: NodeId,
    /// The proposed leader.
    pub to: NodeId,
}

/// Returns the next transfer, or `None` if the primaries are spread well enough.
pub fn transfer(directory: &Directory, measured: &Measured) -> Option<Transfer> {
    let primaries = Primaries::new(directory, measured);
    primaries.between_regions().or_else(|| primaries.between_nodes())
}

/// Returns all transfers that are possible now, whether they would spread the primaries or not.
pub fn transfers(directory: &Directory, measured: &Measured) -> Vec<Transfer> {
    Primaries::new(directory, measured).possible
}

struct Primaries<'a> {
    directory: &'a Directory,
    measured: &'a Measured,
    /// The number of shards led by each node that may lead.
    led: BTreeMap<NodeId, usize>,
    by_region: BTreeMap<&'a str, usize>,
    /// All transfers that are possible.
    possible: Vec<Transfer>,
}

impl<'a> Primaries<'a> {
    fn new(directory: &'a Directory, measured: &'a Measured) -> Self {
        let mut primaries = Self {
            directory,
            measured,
            led: BTreeMap::new(),
            by_region: BTreeMap::new(),
            possible: Vec::new(),
        };
        for node in directory.nodes().keys() {
            if primaries.may_lead(*node) {
                primaries.led.insert(*node, 0);
                primaries.by_region.insert(region(directory, *node), 0);
            }
        }
        for (group, actual) in measured.groups.iter().filter(|(group, _)| group.is_shard()) {
            let from = actual.leader;
            if let Some(led) = primaries.led.get_mut(&from) {
                *led += 1;
                *primaries.by_region.entry(region(directory, from)).or_default() += 1;
            }
            if primaries.is_at_rest(*group, actual) {
                let others = actual.voters.intersection(&actual.ready);
                let others = others.filter(|to| **to != from && primaries.led.contains_key(to));
                let transfers = others.map(|to| Transfer { group: *group, from, to: *to });
                let transfers: Vec<_> = transfers.collect();
                primaries.possible.extend(transfers);
            }
        }
        primaries
    }

    fn may_lead(&self, node: NodeId) -> bool {
        let member = self.directory.nodes().get(&node);
        let stays =
            member.is_some_and(|member| !member.left && !member.retiring && !member.draining);
        stays && self.measured.nodes.get(&node).is_some_and(|seen| seen.live)
    }

    /// While the members of a group change, its own leader decides who leads it.
    fn is_at_rest(&self, group: GroupId, actual: &GroupMeasure) -> bool {
        let plan = self.directory.groups().get(&group);
        !actual.is_joint && plan.is_some_and(|plan| plan.voters == actual.voters)
    }

    fn region(&self, node: NodeId) -> &'a str {
        region(self.directory, node)
    }

    fn led(&self, node: NodeId) -> usize {
        self.led.get(&node).copied().unwrap_or_default()
    }

    fn in_region(&self, region: &str) -> usize {
        self.by_region.get(region).copied().unwrap_or_default()
    }

    /// Returns a transfer from a region to one that leads at least two fewer shards.
    fn between_regions(&self) -> Option<Transfer> {
        let mut possible: Vec<&Transfer> = self
            .possible
            .iter()
            .filter(|it| {
                let (from, to) = (self.region(it.from), self.region(it.to));
                self.in_region(from) >= self.in_region(to) + 2
            })
            .collect();
        possible.sort_by_key(|it| {
            let (from, to) = (self.region(it.from), self.region(it.to));
            let gained = self.in_region(from) - self.in_region(to);
            let evened = self.led(it.from) as i64 - self.led(it.to) as i64;
            (std::cmp::Reverse((gained, evened)), it.group, it.to)
        });
        possible.first().copied().copied()
    }

    /// Returns a transfer on the path from a node to one that leads at least two fewer shards.
    fn between_nodes(&self) -> Option<Transfer> {
        let mut nodes: Vec<NodeId> = self.led.keys().copied().collect();
        nodes.sort_by_key(|node| std::cmp::Reverse(self.led(*node)));
        nodes.into_iter().find_map(|node| self.way_from(node))
    }

    /// Returns the last hop of the shortest path from a node, within its region, to a node there
    /// that leads at least two fewer shards, or a single hop to such a node in a region that leads
    /// fewer.
    fn way_from(&self, start: NodeId) -> Option<Transfer> {
        let mut seen = BTreeSet::from([start]);
        let mut next = VecDeque::from([start]);
        let here = self.region(start);
        while let Some(node) = next.pop_front() {
            for it in self.possible.iter().filter(|it| it.from == node) {
                let there = self.region(it.to);
                let near = here == there;
                let far = node == start && self.in_region(there) < self.in_region(here);
                if !(near || far) || !seen.insert(it.to) {
                    continue;
                }
                if self.led(start) >= self.led(it.to) + 2 {
                    return Some(*it);
                }
                if near {
                    next.push_back(it.to);
                }
            }
        }
        None
    }
}

fn region(directory: &Directory, node: NodeId) -> &str {
    directory.nodes().get(&node).map_or("", |member| member.region_name())
}
