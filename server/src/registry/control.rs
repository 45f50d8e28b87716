//! Whose word about the network counts: the voters of the control group.
//!
//! A report comes from the coordinator, who was elected by the control group's voters and is one of
//! them. So the server takes reports from the voters that it knows of, and each report says who the
//! voters are from then on. At first that is the node that was told to bootstrap.
//!
//! While the server is down the voters change without it. Every node registers every ten seconds
//! and says what its own log has of the control group; from that the server follows, in one of two
//! ways:
//!
//! - A majority of the voters that it knew last say the same of a later configuration. By Raft, no
//!   configuration comes into force without a majority of the one before it; most of them still
//!   run, as voters or not.
//! - That majority has not been heard for a minute, as most of it was removed meanwhile. Then all
//!   nodes of the last view that do register have to say the same, among them a majority of the new
//!   voters and one at least of the old ones.
//!
//! A stranger is in neither of them, however many of its kind have joined. A node of the network
//! that lies is one voice. If not one of the voters is left that the server knew, nothing tells the
//! network from nodes that a thief has brought in while it was switched off: the operator has to
//! name a voter ([`Registry::trust`]).

use std::collections::BTreeSet;

use dkv_base::id::{NodeId, Term};
use dkv_wire::limits;
use dkv_wire::message::{ControlGroup, CoordinatorReport, ServerRefusal};
use tracing::{info, warn};

use super::{Effects, Registry};
use crate::limits::{SAID_FOR_MS, SILENCE_MS};

/// Most voters of a configuration that is changing.
const VOTERS_MAX: usize = 2 * limits::REPLICATION_MAX as usize;

/// What a node has said of the control group.
#[derive(Clone, Debug)]
pub(super) struct Said {
    at_ms: u64,
    index: u64,
    voters: BTreeSet<NodeId>,
}

impl Registry {
    /// Whose reports are taken.
    pub(super) fn reporters(&self) -> BTreeSet<NodeId> {
        if !self.voters.is_empty() {
            return self.voters.clone();
        }
        let confirmed = self.coordinator.map(|confirmed| confirmed.node);
        confirmed.or(self.bootstrap).into_iter().collect()
    }

    /// Who may speak to a node that does not know the control group yet.
    pub(super) fn vouched(&self) -> Vec<NodeId> {
        let mut vouched = self.reporters();
        vouched.extend(self.coordinator.map(|confirmed| confirmed.node));
        vouched.into_iter().filter(|node| !self.denied.contains(&(*node).into())).collect()
    }

    /// Whether a report is of somebody whose word counts, and of a term that can be.
    pub(super) fn check_reporter(
        &self,
        node: NodeId,
        report: &CoordinatorReport,
    ) -> Result<(), ServerRefusal> {
        if !(1..=VOTERS_MAX).contains(&report.control.voters.len()) {
            return Err(ServerRefusal::Invalid("no control group has so many voters".into()));
        }
        if !self.reporters().contains(&node) {
            return Err(ServerRefusal::Denied(
                "only a voter of the control group reports, and the server does not know this node \
                 as one"
                    .into(),
            ));
        }
        self.check_term(report.term)
    }

    fn check_term(&self, term: Term) -> Result<(), ServerRefusal> {
        let known = self.coordinator.map(|confirmed| confirmed.term);
        if term.may_follow(known) {
            return Ok(());
        }
        let known = known.unwrap_or_default();
        Err(ServerRefusal::Invalid(format!("the term leaps to {term} from {known}")))
    }

    /// Takes the operator's word that this node is a voter of the control group.
    pub fn trust(&mut self, node: NodeId) {
        self.voters = BTreeSet::from([node]);
    }

    /// Takes the control group from a report; says whether it has changed.
    pub(super) fn take_control(&mut self, control: &ControlGroup) -> bool {
        let voters: BTreeSet<NodeId> = control.voters.iter().copied().collect();
        let changes = self.voters != voters;
        self.voters = voters;
        self.voters_index = control.index;
        changes
    }

    /// Hears what a node that registers knows of the control group, and follows if enough say the
    /// same.
    pub fn handle_control(&mut self, node: NodeId, control: &ControlGroup, now_ms: u64) -> Effects {
        let voters: BTreeSet<NodeId> = control.voters.iter().copied().collect();
        let is_known = |node: &NodeId| self.nodes.contains_key(node);
        let can_be = (1..=VOTERS_MAX).contains(&voters.len())
            && voters.iter().all(is_known)
            && control.index <= self.voters_index.saturating_add(limits::ENTRIES_AHEAD_MAX)
            && self.check_term(control.term).is_ok();
        if !can_be || !self.has_a_voice(node) {
            return Effects::NONE;
        }
        let index = control.index;
        self.said.retain(|_, said| now_ms.saturating_sub(said.at_ms) < SILENCE_MS);
        self.said.insert(node, Said { at_ms: now_ms, index, voters: voters.clone() });
        if index <= self.voters_index || voters == self.reporters() {
            return Effects::NONE;
        }
        let by_majority = self.is_said_by_majority(index, &voters, now_ms);
        if !by_majority && !self.is_said_by_all_that_are_left(index, &voters, now_ms) {
            return Effects::NONE;
        }
        if by_majority {
            info!(?voters, "the control group has other voters: most of those before say so");
        } else {
            warn!(?voters, "the control group has other voters: all nodes that are left say so");
        }
        self.voters = voters;
        self.voters_index = index;
        Effects::SAVE
    }

    /// Whether a node is one of those that the server knew by the last word of the voters.
    fn has_a_voice(&self, node: NodeId) -> bool {
        let denied = self.denied.contains(&node.into());
        let listed = self.view.as_ref().is_some_and(|view| view.node(node).is_some());
        !denied && (listed || self.reporters().contains(&node))
    }

    /// Those who say that these are the voters.
    fn who_say(&self, index: u64, voters: &BTreeSet<NodeId>, now_ms: u64) -> BTreeSet<NodeId> {
        let fresh = self.said.iter().filter(|(_, said)| is_fresh(said, now_ms));
        let say = fresh.filter(|(_, said)| said.index == index && said.voters == *voters);
        say.map(|(node, _)| *node).filter(|node| self.has_a_voice(*node)).collect()
    }

    fn is_said_by_majority(&self, index: u64, voters: &BTreeSet<NodeId>, now_ms: u64) -> bool {
        is_majority(&self.who_say(index, voters, now_ms), &self.reporters())
    }

    fn is_said_by_all_that_are_left(
        &self,
        index: u64,
        voters: &BTreeSet<NodeId>,
        now_ms: u64,
    ) -> bool {
        let silent_ms = now_ms.saturating_sub(self.reported_ms.unwrap_or(self.started_ms));
        let heard: BTreeSet<NodeId> = self.said.keys().copied().collect();
        if silent_ms < SILENCE_MS || is_majority(&heard, &self.reporters()) {
            return false;
        }
        let say = self.who_say(index, voters, now_ms);
        let fresh = self.said.iter().filter(|(_, said)| is_fresh(said, now_ms));
        let all_say = fresh.into_iter().all(|(node, _)| say.contains(node));
        // A node that lies is one voice; where there was one voter, there is no more than one.
        let enough = say.len() >= 2 || self.reporters().len() == 1;
        let can_be = index <= self.voters_index.saturating_add(LEFT_AHEAD_MAX);
        enough
            && can_be
            && all_say
            && is_majority(&say, voters)
            && !say.is_disjoint(&self.reporters())
    }
}

/// Entries by which those who are left may be ahead of what the server knew: otherwise their word
/// would count for good, whatever the others say when they are back.
const LEFT_AHEAD_MAX: u64 = 1 << 20;

fn is_fresh(said: &Said, now_ms: u64) -> bool {
    now_ms.saturating_sub(said.at_ms) < SAID_FOR_MS
}

fn is_majority(some: &BTreeSet<NodeId>, all: &BTreeSet<NodeId>) -> bool {
    some.intersection(all).count() > all.len() / 2
}
