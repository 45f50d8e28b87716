//! Placement of replicas: where the coordinator wants them, as pure code.
//!
//! [`plan`] looks at the directory and at the measurements, and returns the next single change of
//! the directory, or nothing. The coordinator proposes it, waits until it is applied, and asks
//! again. The directory may run ahead of the membership in a group's Raft log. The group's leader
//! follows it: it adds a learner, lets it catch up, promotes it, and removes the old replica, in
//! this order (see [`reconciler`](super::reconciler)). A move has no other state: the target is in
//! the directory, the actual members are measured, and a coordinator that takes over finds both.
//!
//! Each shard has as many voters as its keyspace's `replication` says, on as many nodes. Those of a
//! new shard are chosen when it is created (`first_voters`). The changes, the most urgent first:
//! - a planned voter that can no longer arrive, because its node went down on the way, is replaced
//!   by another node;
//! - a voter that has been silent for longer than `replace_after_ms` is replaced;
//! - a shard with too few voters gets one more;
//! - replicas on a node that drains or retires move to other nodes;
//! - replicas move to where there are fewer (`balance`), and primaries (`primaries`).
//!
//! The control group has three to five voters; all other nodes follow it, since each needs the
//! directory (`control`).
//!
//! A node that gets a replica is live, has room, and is in the region that has the fewest replicas
//! of the shard; among such nodes, the one with the least load is chosen. Each change adds at most
//! one voter and removes at most one, no group gets another change before the last one is complete,
//! and the transfers into a node and out of a primary are bounded (`flow`). No change lowers the
//! number of voters below what usable nodes could make up, and only a live node replaces another.
//! All nodes refuse a removed node, so a node is removed only once no group counts on it.

mod balance;
mod control;
mod first_voters;
mod flow;
mod forecast;
mod measures;
mod obstacle;
mod primaries;
mod shards;

pub use self::balance::Balance;
pub use self::first_voters::{NoPlace, first_voters};
pub use self::forecast::{Forecast, forecast};
pub use self::measures::{GroupMeasure, Measured, NodeMeasure, NodeReport};
pub use self::obstacle::obstacle;
pub use self::primaries::{Transfer, transfer, transfers};

use std::collections::{BTreeMap, BTreeSet};

use dkv_base::id::{GroupId, NodeId};
use dkv_wire::network::Settings;

use self::flow::Flow;
use super::directory::{Directory, DirectoryCommand, GroupPlan, Member};

/// Load of a replica whose bytes do not count.
const WEIGHT: u64 = 1000;
/// Mean size of a shard, in bytes, from which bytes count as load.
const BYTES_COUNT_FROM: u64 = 1024 * 1024;

/// Returns the next change of the directory, or `None` if everything is as it should be or nothing
/// can be done. `balance` says whether replicas may move for balance.
pub fn plan(
    directory: &Directory,
    measured: &Measured,
    balance: Balance,
) -> Option<DirectoryCommand> {
    let planner = Planner::new(directory, measured)?;
    planner
        .beginning()
        .or_else(|| planner.control(balance))
        .or_else(|| planner.urgent())
        .or_else(|| planner.balance(balance))
        .or_else(|| planner.settlement())
        .or_else(|| planner.removal())
}

/// Returns the silence after which a node counts as down, in milliseconds, given that a live node
/// is silent for at most `live_within_ms`.
pub fn down_after_ms(live_within_ms: u64) -> u64 {
    (10 * live_within_ms).max(5000)
}

/// The inputs of a decision, with derived values that are computed once.
struct Planner<'a> {
    directory: &'a Directory,
    settings: &'a Settings,
    nodes: &'a BTreeMap<NodeId, Member>,
    measured: &'a Measured,
    /// The weight of each shard.
    weights: BTreeMap<GroupId, u64>,
    /// The total weight of the shards planned on each node.
    loads: BTreeMap<NodeId, u64>,
    flow: Flow,
}

impl<'a> Planner<'a> {
    /// Returns `None` if the network has not begun.
    fn new(directory: &'a Directory, measured: &'a Measured) -> Option<Self> {
        let weights = weights(directory, measured);
        let mut loads: BTreeMap<NodeId, u64> =
            directory.nodes().keys().map(|node| (*node, 0)).collect();
        for (group, plan) in directory.groups() {
            for node in &plan.voters {
                *loads.entry(*node).or_default() += weights.get(group).copied().unwrap_or_default();
            }
        }
        Some(Self {
            directory,
            settings: directory.settings()?,
            nodes: directory.nodes(),
            measured,
            weights,
            loads,
            flow: Flow::new(directory, measured),
        })
    }

    /// Returns the shards that were started, with their plans.
    fn shards(&self) -> impl Iterator<Item = (GroupId, &'a GroupPlan)> {
        let groups = self.directory.groups().iter();
        groups.filter(|(id, plan)| id.is_shard() && plan.started).map(|(id, plan)| (*id, plan))
    }

    /// Returns how many voters a shard should have.
    fn replication(&self, shard: GroupId) -> usize {
        let settings = self.directory.settings_of(shard);
        settings.map_or(1, |settings| settings.replication.max(1) as usize)
    }

    /// Returns the change of a shard that has begun: it has a leader, by the word of that leader.
    fn beginning(&self) -> Option<DirectoryCommand> {
        let groups = self.directory.groups().iter();
        let mut waiting = groups.filter(|(id, plan)| id.is_shard() && !plan.started);
        let begun = waiting.find(|(id, _)| {
            let measure = self.measured.groups.get(id);
            measure.is_some_and(|it| !it.voters.is_empty() && !it.is_changing)
        });
        begun.map(|(id, _)| DirectoryCommand::ShardStarted(*id))
    }

    /// Returns the change that settles a group: once its members are as planned, it no longer
    /// counts on the members of earlier plans.
    fn settlement(&self) -> Option<DirectoryCommand> {
        let groups = self.directory.groups().iter();
        let mut displacing = groups.filter(|(_, plan)| !plan.displaced.is_empty());
        displacing.find_map(|(group, plan)| {
            let actual = self.measured.groups.get(group)?;
            let as_planned = !actual.is_changing
                && actual.voters == plan.voters
                && actual.learners == plan.learners;
            let leader = self.measured.nodes.get(&actual.leader)?;
            let seen = leader.report.as_ref().filter(|_| as_planned)?.directory;
            // A leader cannot have seen revisions that do not exist yet.
            let seen = seen.min(self.directory.revision());
            let is_settled = plan.displaced.values().any(|displaced| *displaced <= seen);
            is_settled.then_some(DirectoryCommand::Settle { group: *group, seen })
        })
    }

    /// Returns the removal of a retiring node that no group counts on any more.
    fn removal(&self) -> Option<DirectoryCommand> {
        let mut retiring = self.nodes.iter().filter(|(_, member)| member.retiring);
        let free = retiring.find(|(node, _)| self.is_free(**node));
        free.map(|(node, _)| DirectoryCommand::Remove(*node))
    }

    fn is_free(&self, node: NodeId) -> bool {
        let mut groups = self.directory.groups().iter();
        // A group without a measurement may have any member, unless it has not begun.
        let free = |group| self.measured.groups.get(group).is_some_and(|it| !it.has(node));
        groups.all(|(group, plan)| !plan.has(node) && (!plan.started || free(group)))
            && self.has_delivered(node)
    }

    /// Returns whether no eventual writes would be lost with a node. Placement does not wait for a
    /// node that is down, but it does wait for one that has only missed a few heartbeats.
    fn has_delivered(&self, node: NodeId) -> bool {
        let seen = self.measured.nodes.get(&node);
        let Some(seen) = seen.filter(|_| !self.is_down(node)) else { return true };
        seen.report.as_ref().is_some_and(|report| !report.keeps_writes)
    }

    /// Returns whether a shard counts on a node, or may do so.
    fn may_hold_shards(&self, node: NodeId) -> bool {
        self.shards().any(|(group, plan)| {
            plan.has(node) || self.measured.groups.get(&group).is_none_or(|it| it.has(node))
        })
    }

    /// Returns whether a node can be given replicas: it is live and staying.
    fn is_usable(&self, node: NodeId) -> bool {
        self.is_staying(node)
            && self.nodes.get(&node).is_some_and(|member| !member.left)
            && self.measured.nodes.get(&node).is_some_and(|seen| seen.live)
    }

    /// Returns whether no administrator has asked for the node to be emptied.
    fn is_staying(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|member| !member.retiring && !member.draining)
    }

    fn is_retiring(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_none_or(|member| member.retiring)
    }

    /// Returns whether a node has been silent for long enough to be replaced.
    fn is_gone(&self, node: NodeId) -> bool {
        self.is_silent_for(node, self.settings.replace_after_ms)
    }

    fn is_down(&self, node: NodeId) -> bool {
        self.is_silent_for(node, down_after_ms(self.settings.election_max_ms))
    }

    /// Returns whether a node has been silent for longer than that. What a denied node says does
    /// not count.
    fn is_silent_for(&self, node: NodeId, ms: u64) -> bool {
        if self.directory.denied().contains(&node.into()) {
            return true;
        }
        self.measured.nodes.get(&node).is_some_and(|seen| !seen.live && seen.silent_ms > ms)
    }

    fn region(&self, node: NodeId) -> &'a str {
        self.nodes.get(&node).map_or("", |member| member.region_name())
    }

    /// Returns how many of the nodes are in a region.
    fn count_in(&self, nodes: &BTreeSet<NodeId>, region: &str) -> usize {
        nodes.iter().filter(|node| self.region(**node) == region).count()
    }

    /// Returns the candidate that is the best addition to `others`.
    fn best(
        &self,
        candidates: impl Iterator<Item = NodeId>,
        others: &BTreeSet<NodeId>,
    ) -> Option<NodeId> {
        candidates.min_by_key(|node| {
            let joined = self.nodes.get(node).map(|member| member.joined);
            (self.count_in(others, self.region(*node)), self.load(*node), joined)
        })
    }

    fn load(&self, node: NodeId) -> u64 {
        self.loads.get(&node).copied().unwrap_or_default()
    }

    fn weight(&self, group: GroupId) -> u64 {
        self.weights.get(&group).copied().unwrap_or_default()
    }

    /// Returns the change of the plan to these members, if they differ from the planned ones.
    fn wish(
        &self,
        group: GroupId,
        voters: BTreeSet<NodeId>,
        learners: BTreeSet<NodeId>,
    ) -> Option<DirectoryCommand> {
        let current = self.directory.groups().get(&group)?;
        (current.voters != voters || current.learners != learners)
            .then_some(DirectoryCommand::SetMembers { group, voters, learners })
    }
}

/// Computes the weights: a fixed part for each shard, and a part for its bytes that is equally
/// large on average.
fn weights(directory: &Directory, measured: &Measured) -> BTreeMap<GroupId, u64> {
    let shards = directory.groups().keys().filter(|group| group.is_shard());
    let bytes = |group: &GroupId| measured.groups.get(group).map_or(0, |it| it.bytes);
    let shards: Vec<(GroupId, u64)> = shards.map(|group| (*group, bytes(group))).collect();
    let all: u128 = shards.iter().map(|(_, bytes)| u128::from(*bytes)).sum();
    let mean = all / (shards.len().max(1) as u128);
    let weight = |bytes: u64| match mean {
        mean if mean < u128::from(BYTES_COUNT_FROM) => 2 * WEIGHT,
        mean => WEIGHT + (u128::from(bytes) * u128::from(WEIGHT) / mean) as u64,
    };
    shards.into_iter().map(|(group, bytes)| (group, weight(bytes))).collect()
}
