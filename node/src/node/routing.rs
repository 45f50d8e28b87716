//! The locations of shards, on this node and on others, as far as this node knows.

use std::collections::BTreeSet;
use std::io;

use dkv_base::id::{GroupId, NodeId};
use dkv_base::platform::run_blocking;
use dkv_base::sync::lock;
use dkv_wire::message::{LedGroup, Measures, Remainder};
use tokio::time::Instant;

use super::Node;
use crate::node::reports::{NodeReports, ReportError};
use crate::outbox::WriteGateState;
use dkv_state::Member;
use dkv_state::placement::Measured;

impl Node {
    /// Records the report of a node in the directory.
    ///
    /// # Errors
    /// Fails if the report cannot be true. None of it is recorded then.
    pub(crate) fn hear(&self, node: NodeId, mut measures: Measures) -> Result<(), ReportError> {
        let unknown = self.control().state_machine().with_directory(|directory| {
            // The node may not know yet that a keyspace was dropped.
            measures.leads.retain(|led| !directory.was_dropped(led.group));
            let groups = directory.groups();
            measures.leads.iter().map(|led| led.group).find(|group| !groups.contains_key(group))
        });
        if let Some(group) = unknown.unwrap_or_else(|| measures.leads.first().map(|led| led.group))
        {
            return Err(ReportError::NoGroup(group));
        }
        // A primary that was replaced may not know it yet, and a directory that is just being
        // caught up with may not plan it yet. A node that votes nowhere has never led.
        if let Some(led) = measures.leads.first()
            && !self.replicas.is_to_lead_any(node)
        {
            return Err(ReportError::NoVoter(led.group));
        }
        measures.leads = believed(measures.leads, |group| self.replicas.is_to_lead(group, node));
        lock(&self.coordination.heard).hear(node, measures, Instant::now())
    }

    /// Gives `look` the reports of all nodes, including a fresh one of this node.
    pub(crate) fn heard<T>(&self, look: impl FnOnce(&NodeReports, Instant) -> T) -> T {
        let (own, now) = (self.measure(), Instant::now());
        let mut heard = lock(&self.coordination.heard);
        // The node's own report is always valid.
        let _ = heard.hear(self.id(), own, now);
        look(&heard, now)
    }

    /// Returns the input for placement, which only a coordinator has.
    pub(crate) fn measured(&self, since: Instant) -> Measured {
        let silence = self.silence(since);
        let live_within_ms = self.control().live_within_ms();
        self.heard(|heard, now| heard.measured(&silence, live_within_ms, now))
    }

    /// Returns the leader of a shard, as far as this node knows.
    pub(crate) fn primary_of(&self, shard: GroupId) -> Option<NodeId> {
        let own = self.group(shard).filter(|group| group.configured().voters.contains(&self.id()));
        if let Some(leader) = own.and_then(|group| group.leader()) {
            return Some(leader);
        }
        if self.coordination.leader_since().is_some()
            && let Some((leader, _)) = self.heard(|heard, now| heard.led(now).remove(&shard))
        {
            return Some(leader);
        }
        lock(&self.coordination.primaries)
            .get(&shard)
            .copied()
            .filter(|primary| *primary != self.id())
    }

    /// Returns another node that should have a replica of a shard and is not in `without`.
    pub(crate) fn holder_of(&self, shard: GroupId, without: &BTreeSet<NodeId>) -> Option<NodeId> {
        let holder = self.control().state_machine().with_directory(|directory| {
            let mut voters = directory.groups().get(&shard)?.voters.iter();
            voters.find(|node| **node != self.id() && !without.contains(node)).copied()
        });
        holder.flatten()
    }

    /// Returns whether an administrator wants this node to be emptied.
    pub(crate) fn is_going(&self) -> bool {
        self.entry_says(|member| member.draining || member.retiring)
    }

    fn entry_says(&self, so: impl FnOnce(&Member) -> bool) -> bool {
        let found = self
            .control()
            .state_machine()
            .with_directory(|directory| directory.nodes().get(&self.id()).is_some_and(so));
        found.unwrap_or_default()
    }

    /// Returns whether this node, at its removal, may have eventual writes that no other node has.
    /// The answer `false` is final: unlike the order to empty a node, the order to remove it is
    /// never withdrawn.
    pub(crate) fn keeps_writes(&self) -> bool {
        let is_closed =
            matches!(self.outboxes().write_gate().state(), WriteGateState::Closed { .. });
        let is_final = is_closed && self.entry_says(|member| member.retiring);
        !(is_final && self.outboxes().are_empty())
    }

    /// Returns what is left on this node, for the case that it is to be emptied.
    pub(crate) fn remainder(&self) -> Remainder {
        // The order matters: a closed gate stays closed as long as the node is to be emptied, and
        // no writes come in.
        let is_closed =
            matches!(self.outboxes().write_gate().state(), WriteGateState::Closed { .. });
        let takes_writes = !(is_closed && self.is_going());
        let keeps_writes = !self.outboxes().are_empty();
        let shards = self.groups().iter().filter(|group| group.id().is_shard()).count();
        Remainder { takes_writes, keeps_writes, shards: u32::try_from(shards).unwrap_or(u32::MAX) }
    }

    /// Closes the outboxes if this node is to be emptied, and opens them if that is no longer so.
    pub(crate) async fn follow_intake(&self) -> io::Result<()> {
        let write_gate = self.outboxes().write_gate().clone();
        let is_going = self.is_going();
        // The index is read afterwards, so the directory that decided `is_going` is as of this
        // entry or of an earlier one.
        let applied = self.control().state_machine().summary().applied_index;
        let directory = self.store.data_dir().path().to_owned();
        let control = self.control().state_machine().clone();
        let me = self.id();
        let goes = move || {
            let going = control.with_directory(|directory| {
                directory.nodes().get(&me).is_some_and(|it| it.draining || it.retiring)
            });
            going.unwrap_or_default()
        };
        match (is_going, write_gate.state()) {
            (true, WriteGateState::Open | WriteGateState::Closing) => {
                run_blocking(move || write_gate.close(&directory, applied)).await?
            }
            // A directory from before entry `at` does not count: it may have been read at a start,
            // before the log was.
            (false, WriteGateState::Closed { at }) if applied >= at => {
                run_blocking(move || write_gate.open(&directory, goes)).await?
            }
            (false, WriteGateState::Closing) => {
                run_blocking(move || write_gate.open(&directory, goes)).await?
            }
            _ => Ok(()),
        }
    }
}

/// Returns what counts of the groups that a node says it leads.
fn believed(mut leads: Vec<LedGroup>, may_lead: impl Fn(GroupId) -> bool) -> Vec<LedGroup> {
    leads.retain(|led| may_lead(led.group));
    leads
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_leads_only_where_it_may_whatever_it_says() {
        let led = |group| LedGroup {
            group: GroupId(group),
            term: dkv_base::id::Term(9),
            voters: Vec::new(),
            learners: Vec::new(),
            members: Default::default(),
            is_joint: false,
            bytes: 0,
            last_index: 1,
            is_changing: false,
        };
        let kept = believed(vec![led(1), led(2), led(3)], |group| group == GroupId(2));
        assert_eq!(kept.iter().map(|led| led.group).collect::<Vec<_>>(), [GroupId(2)]);
    }
}
