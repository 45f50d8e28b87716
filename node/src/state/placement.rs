//! Where replicas shall be: what the coordinator wishes, as plain code.
//!
//! [`plan`] looks at the directory and at how the nodes seem to be, and names the next single change
//! of the directory, or nothing. The coordinator proposes it, waits until it is applied, and asks
//! again. Every node holds every group; the voters of a group are the nodes that have them now,
//! and beyond these the ones that have been in the network longest.
//!
//! A voter is replaced when it is to go, or when it has been silent for longer than the network's
//! settings allow, and then only by a live node. Nothing here ever lowers the number of voters below
//! what the usable nodes could make up, and one step changes at most one voter of one group.
//!
//! The wish may run ahead of the Raft memberships; the groups' leaders follow it at their own pace
//! (see [`steward`](super::steward)). The one thing that must not run ahead is the removal of a
//! node, since a removed node is refused by all: it waits until no group counts on it.
//!
//! Deliberately missing: balance by load or by bytes, failure zones, and moving shards between
//! subsets of the nodes.

use std::collections::{BTreeMap, BTreeSet};

use dkv_wire::id::NodeId;

use super::directory::{Directory, DirectoryCommand, GroupPlan, Member};

/// How one node seems to the coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Whether it was heard of within the last election time.
    pub live: bool,
    /// Time since it was last heard of, or since this coordinator began to listen, in milliseconds.
    pub silent_ms: u64,
    /// Whether the Raft membership of any group still has it, or may have it as far as is known.
    pub member: bool,
}

/// How the nodes seem to the coordinator. Of a node that is missing here nothing is known: it is
/// neither given places nor replaced.
pub type Liveness = BTreeMap<NodeId, Sighting>;

/// The next change of the directory, or nothing if all is as it should be or nothing can be done.
/// `replication` is the number of voters that each group should have.
pub fn plan(
    directory: &Directory,
    liveness: &Liveness,
    replication: u32,
) -> Option<DirectoryCommand> {
    let settings = directory.settings()?;
    let planner = Planner {
        nodes: directory.nodes(),
        liveness,
        replication: replication.max(1) as usize,
        replace_after_ms: settings.replace_after_ms,
    };
    for (group, current) in directory.groups() {
        if !current.started {
            continue;
        }
        let wanted = planner.next(current);
        if wanted.voters != current.voters || wanted.learners != current.learners {
            return Some(DirectoryCommand::SetMembers {
                group: *group,
                voters: wanted.voters,
                learners: wanted.learners,
            });
        }
    }
    directory
        .nodes()
        .iter()
        .find(|(node, member)| member.retiring && is_free(directory, liveness, **node))
        .map(|(node, _)| DirectoryCommand::Remove(*node))
}

/// Whether nothing counts on a node any more.
fn is_free(directory: &Directory, liveness: &Liveness, node: NodeId) -> bool {
    let wanted = directory.groups().values().any(|plan: &GroupPlan| plan.has(node));
    let actual = liveness.get(&node).is_none_or(|sighting| sighting.member);
    !wanted && !actual
}

struct Planner<'a> {
    nodes: &'a BTreeMap<NodeId, Member>,
    liveness: &'a Liveness,
    replication: usize,
    replace_after_ms: u64,
}

impl Planner<'_> {
    /// The members that a group should want next.
    fn next(&self, current: &GroupPlan) -> GroupPlan {
        let voters = self.next_voters(&current.voters);
        let learners = self
            .nodes
            .iter()
            .filter(|(node, member)| !member.retiring && !voters.contains(node))
            .map(|(node, _)| *node);
        GroupPlan { learners: learners.collect(), voters, started: current.started }
    }

    /// The voters with at most one of them exchanged, added or dropped.
    fn next_voters(&self, current: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        let mut voters = current.clone();
        let newcomer = self.best_newcomer(current);
        let going = self.first_to_go(current);
        // One goes without a replacement if there are more than asked for, or if it is to go and
        // every node that could vote does.
        let staying = current.iter().filter(|node| !self.is_retiring(**node)).count();
        let last_resort = going.is_some_and(|node| self.is_retiring(node))
            && staying > 0
            && staying >= self.possible_voters(current);
        let too_many = current.len() > self.replication || last_resort;
        if current.len() > 1 && too_many {
            if let Some(node) = going.or_else(|| self.newest(current)) {
                voters.remove(&node);
            }
        } else if let Some(newcomer) = newcomer {
            if current.len() < self.replication {
                voters.insert(newcomer);
            } else if let Some(going) = going {
                voters.remove(&going);
                voters.insert(newcomer);
            }
        }
        voters
    }

    /// How many voters the group could have: usable nodes, and those that vote now and may stay.
    fn possible_voters(&self, current: &BTreeSet<NodeId>) -> usize {
        let possible = self.nodes.keys().filter(|node| {
            !self.is_retiring(**node) && (self.is_usable(**node) || current.contains(node))
        });
        possible.count().min(self.replication)
    }

    /// The live node that has been here longest and does not vote.
    fn best_newcomer(&self, current: &BTreeSet<NodeId>) -> Option<NodeId> {
        let candidates = self.nodes.iter().filter(|(node, member)| {
            !current.contains(node)
                && !member.retiring
                && !member.left
                && self.liveness.get(node).is_some_and(|sighting| sighting.live)
        });
        candidates.min_by_key(|(_, member)| member.joined).map(|(node, _)| *node)
    }

    /// The voter that most needs replacing: silent ones before those that are asked to go, since a
    /// retiring voter still votes.
    fn first_to_go(&self, current: &BTreeSet<NodeId>) -> Option<NodeId> {
        let silent = current.iter().filter(|node| self.is_silent(**node));
        let silent = silent.max_by_key(|node| self.is_retiring(**node));
        silent.or_else(|| current.iter().find(|node| self.is_retiring(**node))).copied()
    }

    fn newest(&self, current: &BTreeSet<NodeId>) -> Option<NodeId> {
        let joined = |node: &&NodeId| self.nodes.get(node).map(|member| member.joined);
        current.iter().max_by_key(joined).copied()
    }

    fn is_retiring(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_none_or(|member| member.retiring)
    }

    fn is_silent(&self, node: NodeId) -> bool {
        let sighting = self.liveness.get(&node);
        sighting
            .is_some_and(|sighting| !sighting.live && sighting.silent_ms > self.replace_after_ms)
    }

    fn is_usable(&self, node: NodeId) -> bool {
        !self.is_silent(node) && self.nodes.get(&node).is_some_and(|member| !member.left)
    }
}
