//! The control group: whose reports about the network the server believes.
//!
//! A report comes from the coordinator, which the voters of the control group elected among
//! themselves. So the server accepts reports from the voters that it knows, and each report names
//! the voters from then on. At first that is the node that was told to bootstrap.
//!
//! While the server is down, the voters change without it. Every node registers every ten seconds
//! and says what its own log holds about the control group. From these claims the server adopts a
//! later configuration in one of two ways:
//!
//! - A majority of the voters that it knew last claims the same configuration. In Raft, no
//!   configuration takes effect without a majority of the one before it; most of those nodes still
//!   run, as voters or not.
//! - That majority has been silent for a minute, because most of it was removed meanwhile. Then all
//!   nodes of the last view that do register must claim the same configuration, among them a
//!   majority of the new voters and at least one of the old ones.
//!
//! A stranger counts in neither way, however many strangers have joined. A node of the network that
//! lies is one voice. If none of the voters that the server knew is left, nothing distinguishes the
//! network from nodes that a thief brought in while it was switched off: the operator has to name a
//! voter ([`Registry::trust`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use dkv_base::id::{NodeId, Term};
use dkv_wire::limits;
use dkv_wire::message::{ControlGroup, CoordinatorReport, ServerRefusal};
use tracing::{info, warn};

use super::{Effects, Registry};
use crate::limits::{CLAIM_VALID_MS, VOTERS_SILENT_MS};

/// Most voters of a configuration: twice the replication, during joint consensus.
const VOTERS_MAX: usize = 2 * limits::REPLICATION_MAX as usize;

/// Entries by which the survivors' claim may be ahead of what the server knew. A higher index would
/// make their claim permanent, whatever the other nodes say when they return.
const SURVIVORS_AHEAD_MAX: u64 = 1 << 20;

/// A node's claim about the configuration of the control group.
#[derive(Clone, Debug)]
pub(super) struct ConfigClaim {
    at_ms: u64,
    index: u64,
    voters: BTreeSet<NodeId>,
}

impl Registry {
    /// Returns the nodes whose reports the server accepts.
    pub(super) fn trusted_reporters(&self) -> BTreeSet<NodeId> {
        if !self.voters.is_empty() {
            return self.voters.clone();
        }
        let confirmed = self.coordinator.map(|confirmed| confirmed.node);
        confirmed.or(self.bootstrap).into_iter().collect()
    }

    /// Returns the nodes that the server asks about the books, and where they are: those whose
    /// reports it accepts. Any process with a certificate of a node may register, at an address of
    /// its choice, and the node that answers here decides who is a server.
    pub fn book_keepers(&self) -> BTreeMap<NodeId, SocketAddr> {
        let known = |node| Some((node, self.nodes.get(&node)?.address));
        self.trusted_reporters().into_iter().filter_map(known).collect()
    }

    /// Returns the nodes that a node without the control group's log may trust.
    pub(super) fn vouched(&self) -> Vec<NodeId> {
        let mut vouched = self.trusted_reporters();
        vouched.extend(self.coordinator.map(|confirmed| confirmed.node));
        vouched.into_iter().filter(|node| !self.denied.contains(&(*node).into())).collect()
    }

    /// Checks that the sender of a report is trusted and that its term is plausible.
    pub(super) fn check_sender(
        &self,
        node: NodeId,
        report: &CoordinatorReport,
    ) -> Result<(), ServerRefusal> {
        if !(1..=VOTERS_MAX).contains(&report.control.voters.len()) {
            return Err(ServerRefusal::Invalid("the number of voters is out of range".into()));
        }
        if !self.trusted_reporters().contains(&node) {
            return Err(ServerRefusal::Denied(
                "only voters of the control group may report, and the server does not know this \
                 node as one"
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
        Err(ServerRefusal::Invalid(format!("the term leaps from {known} to {term}")))
    }

    /// Trusts this node as a voter of the control group, because the operator vouches for it.
    pub fn trust(&mut self, node: NodeId) {
        self.voters = BTreeSet::from([node]);
    }

    /// Adopts the control group of a report. True if its voters have changed.
    pub(super) fn adopt_control_group(&mut self, control: &ControlGroup) -> bool {
        let voters: BTreeSet<NodeId> = control.voters.iter().copied().collect();
        let changes = self.voters != voters;
        self.voters = voters;
        self.voters_index = control.index;
        changes
    }

    /// Handles the claim of a registering node about the control group, and adopts it once enough
    /// nodes agree.
    ///
    /// Whatever a node claims, the network has begun: this server decides nothing alone any more,
    /// and tells no other node to bootstrap. The one that was told already hears the order until it
    /// claims something itself: a stranger's claim would withdraw it before it was obeyed.
    pub fn handle_control_claim(
        &mut self,
        node: NodeId,
        control: &ControlGroup,
        now_ms: u64,
    ) -> Effects {
        let mut effects = Effects::NONE;
        let voters: BTreeSet<NodeId> = control.voters.iter().copied().collect();
        if self.coordinator.is_none() && self.check_not_removed(node).is_ok() {
            if self.bootstrap == Some(node) && !self.has_obeyed {
                self.has_obeyed = true;
                effects.save = true;
            }
            let is_other = self.bootstrap.is_none_or(|bootstrap| !voters.contains(&bootstrap));
            if is_other && self.voters.is_empty() && !self.nodes.contains_key(&node) {
                warn!(
                    %node,
                    "a node claims a control group that this server does not know: if the network \
                     has begun, this server is from before, see the runbook of a lost server for \
                     --trust-voter; if it is new, the node lies"
                );
            }
            if !self.is_kept_by_control_group() {
                self.has_begun = true;
                effects.save = true;
            }
        }
        let is_known = |node: &NodeId| self.nodes.contains_key(node);
        let is_plausible = (1..=VOTERS_MAX).contains(&voters.len())
            && voters.iter().all(is_known)
            && control.index <= self.voters_index.saturating_add(limits::ENTRIES_AHEAD_MAX)
            && self.check_term(control.term).is_ok();
        if !is_plausible || !self.may_claim(node) {
            return effects;
        }
        let index = control.index;
        self.claims.retain(|_, claim| now_ms.saturating_sub(claim.at_ms) < VOTERS_SILENT_MS);
        let claim = ConfigClaim { at_ms: now_ms, index, voters: voters.clone() };
        self.claims.insert(node, claim);
        if index <= self.voters_index || voters == self.trusted_reporters() {
            return effects;
        }
        let agreed = self.claimants(&voters, now_ms);
        let by_majority = is_majority(&agreed.nodes, &self.trusted_reporters());
        if !by_majority && !self.is_claimed_by_all_survivors(&agreed, &voters, now_ms) {
            return effects;
        }
        if by_majority {
            info!(
                ?voters,
                "adopting new voters of the control group, claimed by most of the old ones"
            );
        } else {
            warn!(
                ?voters,
                "adopting new voters of the control group, claimed by all surviving nodes"
            );
        }
        self.voters = voters;
        self.voters_index = agreed.index;
        Effects::SAVE
    }

    /// Whether a node's claim counts: it is a trusted reporter, or a node of the last view.
    fn may_claim(&self, node: NodeId) -> bool {
        let denied = self.denied.contains(&node.into());
        let listed = self.view.as_ref().is_some_and(|view| view.node(node).is_some());
        !denied && (listed || self.trusted_reporters().contains(&node))
    }

    /// Returns the nodes whose valid claims name these voters, in entries later than the known one.
    ///
    /// The entries may differ: a change of learners makes another one with the same voters, of
    /// which a node that was removed never hears.
    fn claimants(&self, voters: &BTreeSet<NodeId>, now_ms: u64) -> Claimants {
        let mut found = Claimants { nodes: BTreeSet::new(), index: u64::MAX };
        for (node, claim) in &self.claims {
            let is_later = claim.index > self.voters_index && claim.voters == *voters;
            if is_later && is_valid(claim, now_ms) && self.may_claim(*node) {
                found.nodes.insert(*node);
                found.index = found.index.min(claim.index);
            }
        }
        found
    }

    /// Whether the known majority is silent, and all nodes that do register claim these voters. A
    /// node that does not vote any more, by its own claim, is not silent as a voter, and what it
    /// says of earlier entries is no objection: it may have been removed, and hears no later ones.
    fn is_claimed_by_all_survivors(
        &self,
        agreed: &Claimants,
        voters: &BTreeSet<NodeId>,
        now_ms: u64,
    ) -> bool {
        let still_votes = |(node, claim): &(&NodeId, &ConfigClaim)| claim.voters.contains(*node);
        let silent_ms = now_ms.saturating_sub(self.reported_ms.unwrap_or(self.started_ms));
        let heard = self.claims.iter().filter(still_votes).map(|(node, _)| *node).collect();
        if silent_ms < VOTERS_SILENT_MS || is_majority(&heard, &self.trusted_reporters()) {
            return false;
        }
        let valid = self.claims.iter().filter(|(_, claim)| is_valid(claim, now_ms));
        // A configuration follows another by the will of most of its voters.
        let followed = |claim: &ConfigClaim| {
            claim.index < agreed.index && is_majority(&agreed.nodes, &claim.voters)
        };
        let mut counting = valid.filter(|it| still_votes(it) || !followed(it.1));
        let all_agree = counting.all(|(node, _)| agreed.nodes.contains(node));
        // One node may lie, so two must agree, unless the server knew no more than one voter.
        let enough = agreed.nodes.len() >= 2 || self.trusted_reporters().len() == 1;
        let is_plausible = agreed.index <= self.voters_index.saturating_add(SURVIVORS_AHEAD_MAX);
        enough
            && is_plausible
            && all_agree
            && is_majority(&agreed.nodes, voters)
            && !agreed.nodes.is_disjoint(&self.trusted_reporters())
    }
}

/// Nodes that claim the same voters.
struct Claimants {
    nodes: BTreeSet<NodeId>,
    /// The least index of their entries: a later one is the word of one node.
    index: u64,
}

fn is_valid(claim: &ConfigClaim, now_ms: u64) -> bool {
    now_ms.saturating_sub(claim.at_ms) < CLAIM_VALID_MS
}

/// Whether `some` holds more than half of `all`.
fn is_majority(some: &BTreeSet<NodeId>, all: &BTreeSet<NodeId>) -> bool {
    some.intersection(all).count() > all.len() / 2
}
