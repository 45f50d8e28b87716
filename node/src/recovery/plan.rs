//! Which groups have lost their majorities, and which replica of each goes on. Plain code.

use std::collections::{BTreeMap, BTreeSet};

use dkv_base::id::{GroupId, NodeId, Term};
use dkv_state::Recovery;
use dkv_wire::limits;
use uuid::Uuid;

use super::directories::{Found, most_complete};
use super::error::RecoveryError;

/// Least number of terms by which a recovered group is ahead of all that is known here: more
/// elections than lost members can have had meanwhile, and few enough that nobody takes the term
/// for a forgery, nor twice as many.
const LEAP_MIN: u64 = limits::TERMS_AHEAD_MAX / 16;

/// Returns a number of terms for a recovery, given a random number: two recoveries of the same
/// replicas that know nothing of each other must not write different entries in one term.
pub(super) fn leap(random: u64) -> u64 {
    LEAP_MIN + random % LEAP_MIN
}

/// What becomes of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// A majority of its voters is here: it goes on by itself.
    Serves {
        /// The most complete replica.
        best: NodeId,
    },
    /// One replica goes on as the only voter.
    Recovered {
        /// The replica's node.
        keeper: NodeId,
        /// The term of the new configuration.
        term: u64,
    },
    /// It has begun, or may have, and no usable replica of it is here. It can only begin anew.
    Nowhere {
        /// The term in which it does.
        term: u64,
    },
    /// It has never begun, so it has nothing to lose.
    NotBegun,
}

/// What a recovery does.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// What becomes of each group.
    pub(super) fates: BTreeMap<GroupId, Fate>,
    /// Nodes that are neither here nor removed.
    pub(super) missing: BTreeSet<NodeId>,
    /// The node whose replica of the control group goes on.
    pub(super) keeper: NodeId,
    /// Shards that go on with a replica that the directory does not count among theirs.
    pub(super) stale: Vec<GroupId>,
    /// Terms that this recovery skips.
    leap: u64,
    /// The change of the directory.
    pub(super) recovery: Recovery,
}

impl Plan {
    /// Returns the groups with such a fate.
    pub(super) fn with_fate(&self, is: impl Fn(&Fate) -> bool) -> Vec<GroupId> {
        self.fates.iter().filter(|(_, fate)| is(fate)).map(|(group, _)| *group).collect()
    }

    /// Raises the term of the control group above the one that the server has confirmed.
    pub(super) fn raise_control_term(&mut self, confirmed: Option<Term>) {
        let Some(Term(confirmed)) = confirmed else { return };
        if let Some(Fate::Recovered { term, .. }) = self.fates.get_mut(&GroupId::CONTROL)
            && *term <= confirmed
        {
            *term = confirmed.saturating_add(self.leap);
        }
    }
}

/// Returns whether the nodes that are here can elect a leader in a configuration.
pub(super) fn have_majority(voters: &[BTreeSet<NodeId>], here: &BTreeSet<NodeId>) -> bool {
    !voters.is_empty() && voters.iter().all(|half| half.intersection(here).count() > half.len() / 2)
}

/// Decides what becomes of each group of the directory, by terms that are `leap` later than what is
/// known.
pub(super) fn plan(found: &Found, leap: u64) -> Result<Plan, RecoveryError> {
    let given: BTreeSet<NodeId> = found.given.iter().copied().collect();
    let mut fates: BTreeMap<GroupId, Fate> = BTreeMap::new();
    let mut stale = Vec::new();
    let mut members: BTreeSet<NodeId> = found.directory.nodes().keys().copied().collect();
    for (group, planned) in found.directory.groups() {
        let copies = found.copies.get(group).map_or(&[][..], Vec::as_slice);
        members.extend(copies.iter().flat_map(|copy| &copy.disk.members));
        let here = copies.iter().filter(|copy| copy.is_whole).map(|copy| copy.node).collect();
        let known = copies.iter().map(|copy| copy.disk.term.max(copy.disk.last.0)).max();
        let term = known.unwrap_or(0).saturating_add(leap);
        let fate = match most_complete(copies) {
            // That it has begun may be recorded at lost nodes only.
            None if planned.started || !planned.voters.is_subset(&given) => Fate::Nowhere { term },
            None => Fate::NotBegun,
            Some(best) if have_majority(&best.disk.voters, &here) => {
                Fate::Serves { best: best.node }
            }
            Some(best) => {
                if group.is_shard() && !planned.may_count_on(best.node) {
                    stale.push(*group);
                }
                Fate::Recovered { keeper: best.node, term }
            }
        };
        fates.insert(*group, fate);
    }
    let lost = |fate: &Fate| matches!(fate, Fate::Recovered { .. } | Fate::Nowhere { .. });
    if !fates.values().any(lost) {
        return Err(RecoveryError::NothingLost);
    }
    let copies = &found.copies[&GroupId::CONTROL];
    let best = most_complete(copies).ok_or(RecoveryError::NoControlGroup)?;
    let keeper = best.node;
    // Also with a majority here: lost nodes must be removed before anybody meets them, and only one
    // replica can be given that entry.
    let known = copies.iter().map(|copy| copy.disk.term.max(copy.disk.last.0)).max();
    let term = known.unwrap_or(0).saturating_add(leap);
    fates.insert(GroupId::CONTROL, Fate::Recovered { keeper, term });
    let is_gone =
        |node: &NodeId| !given.contains(node) && !found.directory.is_denied((*node).into());
    let missing: BTreeSet<NodeId> = members.into_iter().filter(is_gone).collect();
    let groups = fates
        .iter()
        .map(|(group, fate)| (*group, places(found, *group, *fate, &given, keeper)))
        .collect();
    // No two recoveries of one history write in the same term.
    let id = Uuid::from_u64_pair(term, leap);
    let recovery = Recovery { id, gone: missing.clone(), groups };
    Ok(Plan { fates, missing, keeper, stale, leap, recovery })
}

/// Returns the voters that a group should have from now on, and whether it begins anew.
fn places(
    found: &Found,
    group: GroupId,
    fate: Fate,
    given: &BTreeSet<NodeId>,
    control: NodeId,
) -> (BTreeSet<NodeId>, bool) {
    let planned = found.directory.groups().get(&group);
    let mut voters: BTreeSet<NodeId> =
        planned.into_iter().flat_map(|plan| &plan.voters).copied().collect();
    voters.retain(|node| given.contains(node));
    let keeper = match fate {
        // The nodes that stay members have its replicas, so they stay its voters, too.
        Fate::Serves { best } if voters.is_empty() => best,
        Fate::Serves { .. } => return (voters, false),
        Fate::Recovered { keeper, .. } => keeper,
        Fate::Nowhere { .. } => return (BTreeSet::from([control]), true),
        Fate::NotBegun if voters.is_empty() => return (BTreeSet::from([control]), true),
        Fate::NotBegun => return (voters, true),
    };
    voters.remove(&keeper);
    while voters.len() >= limits::REPLICATION_MAX as usize {
        voters.pop_last();
    }
    voters.insert(keeper);
    (voters, false)
}

#[cfg(test)]
mod tests;
