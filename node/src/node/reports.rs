//! The reports that nodes send the coordinator about themselves, and the report of this node.

use std::collections::BTreeMap;
use std::time::Duration;

use dkv_base::id::{GroupId, NodeId, Term};
use dkv_wire::message::{LedGroup, Measures};
use tokio::time::Instant;

use super::Node;
use dkv_state::placement::{GroupMeasure, Measured, NodeMeasure, NodeReport};

/// Age at which a node's report no longer counts.
const OLD_AFTER: Duration = Duration::from_secs(5);

/// Reason why a report cannot be true. The coordinator refuses all of it, and logs its sender.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReportError {
    /// It claims to lead a group that does not exist.
    #[error("it claims to lead group {0}, which does not exist")]
    NoGroup(GroupId),
    /// It claims to lead groups, and has a vote in none by the directory.
    #[error("it claims to lead group {0}, and has no vote in any")]
    NoVoter(GroupId),
    /// A term in it is too far ahead.
    #[error("the term of group {group} leaps to {term}")]
    TermLeap {
        /// The group.
        group: GroupId,
        /// The term in the report.
        term: Term,
    },
}

/// The latest reports of all nodes.
#[derive(Default)]
pub(crate) struct NodeReports {
    by_node: BTreeMap<NodeId, (Instant, Measures)>,
}

impl NodeReports {
    /// Records a node's report.
    ///
    /// # Errors
    /// Fails if a term in the report leaps ahead of the last known one: it would hide every later
    /// leader.
    pub(crate) fn hear(
        &mut self,
        node: NodeId,
        measures: Measures,
        now: Instant,
    ) -> Result<(), ReportError> {
        self.by_node.retain(|_, (when, _)| now.saturating_duration_since(*when) < OLD_AFTER);
        let known = self.led(now);
        let known = |group| known.get(&group).map(|(_, led)| led.term);
        let leaps = |led: &&LedGroup| !led.term.may_follow(known(led.group));
        if let Some(led) = measures.leads.iter().find(leaps) {
            return Err(ReportError::TermLeap { group: led.group, term: led.term });
        }
        self.by_node.insert(node, (now, measures));
        Ok(())
    }

    /// Returns the reports that still count.
    fn fresh(&self, now: Instant) -> impl Iterator<Item = (NodeId, &Measures)> {
        let fresh = move |when: Instant| now.saturating_duration_since(when) < OLD_AFTER;
        self.by_node
            .iter()
            .filter(move |(_, (when, _))| fresh(*when))
            .map(|(node, (_, said))| (*node, said))
    }

    /// Returns the leader's report of each group. If two nodes claim to lead, the later term wins.
    pub(crate) fn led(&self, now: Instant) -> BTreeMap<GroupId, (NodeId, LedGroup)> {
        let mut led: BTreeMap<GroupId, (NodeId, LedGroup)> = BTreeMap::new();
        for (node, said) in self.fresh(now) {
            for group in &said.leads {
                let known = led.get(&group.group).map_or(Term(0), |(_, known)| known.term);
                if group.term > known {
                    led.insert(group.group, (node, group.clone()));
                }
            }
        }
        led
    }

    /// Returns the input for placement. `silence` has the time since each node was last heard, in
    /// milliseconds.
    pub(crate) fn measured(
        &self,
        silence: &BTreeMap<NodeId, u64>,
        live_within_ms: u64,
        now: Instant,
    ) -> Measured {
        let reports: BTreeMap<NodeId, NodeReport> = self
            .fresh(now)
            .map(|(node, said)| {
                let holds = said.holds.iter().copied().collect();
                let Measures { free_bytes, keeps_writes, directory, .. } = *said;
                (node, NodeReport { holds, free_bytes, keeps_writes, directory })
            })
            .collect();
        let nodes = silence.iter().map(|(node, silent_ms)| {
            let report = reports.get(node).cloned();
            let live = *silent_ms <= live_within_ms;
            (*node, NodeMeasure { live, silent_ms: *silent_ms, report })
        });
        let groups = self.led(now).into_iter().map(|(group, (leader, led))| {
            let ready = led.members.iter().filter(|member| member.is_ready);
            let measure = GroupMeasure {
                leader,
                term: led.term,
                ready: ready.map(|member| member.node).chain([leader]).collect(),
                voters: led.voters.into_iter().collect(),
                learners: led.learners.into_iter().collect(),
                is_joint: led.is_joint,
                is_changing: led.is_changing,
                bytes: led.bytes,
            };
            (group, measure)
        });
        Measured { nodes: nodes.collect(), groups: groups.collect() }
    }
}

impl Node {
    /// Returns the report of this node and of the groups that it leads.
    pub(crate) fn measure(&self) -> Measures {
        Measures { free_bytes: self.store.free_bytes(), ..self.holdings() }
    }

    /// Returns the same report without the free space on disk, which takes a system call to
    /// determine.
    pub(crate) fn holdings(&self) -> Measures {
        // The directory's revision is read first: the leaders below have acted on that directory or
        // will.
        let directory =
            self.control().state_machine().with_directory(|directory| directory.revision());
        let groups = self.groups();
        Measures {
            holds: groups.iter().map(|group| group.id()).collect(),
            leads: groups.iter().filter_map(|group| group.measure()).collect(),
            free_bytes: 0,
            keeps_writes: self.keeps_writes(),
            directory: directory.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(term: u64) -> Measures {
        let led = LedGroup {
            group: GroupId(1),
            term: Term(term),
            voters: Vec::new(),
            learners: Vec::new(),
            is_joint: false,
            bytes: 0,
            last_index: 0,
            members: Vec::new(),
            is_changing: false,
        };
        Measures { leads: vec![led], ..Measures::default() }
    }

    #[test]
    fn the_later_term_leads_and_old_words_do_not_count() {
        let (mut heard, start) = (NodeReports::default(), Instant::now());
        let (one, other) = (NodeId::random(), NodeId::random());
        heard.hear(one, says(3), start).unwrap();
        heard.hear(other, says(2), start + OLD_AFTER / 2).unwrap();
        let leader =
            |heard: &NodeReports, now| heard.led(now).get(&GroupId(1)).map(|(node, _)| *node);
        assert_eq!(leader(&heard, start + OLD_AFTER / 2), Some(one));
        assert_eq!(leader(&heard, start + OLD_AFTER), Some(other));
        assert_eq!(leader(&heard, start + 2 * OLD_AFTER), None);
        // A node that lies about its term hides no other node.
        for term in [u64::MAX, 1 << 41] {
            assert!(heard.hear(other, says(term), start + OLD_AFTER).is_err());
        }
        assert_eq!(leader(&heard, start + OLD_AFTER), Some(other));
        let silence = BTreeMap::from([(one, 0), (other, 10)]);
        let measured = heard.measured(&silence, 5, start + OLD_AFTER);
        assert_eq!(measured.nodes[&one].report, None);
        assert!(measured.nodes[&other].report.is_some() && !measured.nodes[&other].live);
    }
}
