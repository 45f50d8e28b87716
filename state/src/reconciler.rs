//! The reconciler: how a group's leader brings its members to what the directory wants, as pure
//! code.
//!
//! [`next_step`] compares the wanted members with the membership in the group's Raft log and
//! returns the next single step. The leader executes it, waits until it is committed, and asks
//! again. A leader that takes over from one that died half-way asks the same question about the
//! same facts.
//!
//! Every step preserves these invariants:
//! - one change at a time, and a joint configuration that was left behind is finished first;
//! - only a learner that has caught up becomes a voter;
//! - there are never fewer voters than before, or than wanted, whichever is less;
//! - a set of voters is proposed only if a majority of it is answering, so that the group can still
//!   commit once the change is made;
//! - a leader that is to lose its vote hands over before it is removed.
//!
//! Voters change by joint consensus (section 6 of the Raft paper), so an exchange of one voter for
//! another is one step in which both majorities must agree: the new voter votes before the old one
//! is gone.

use std::collections::{BTreeMap, BTreeSet};

use dkv_base::id::NodeId;

/// The members that the directory wants for a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Nodes that should vote.
    pub voters: BTreeSet<NodeId>,
    /// Nodes that should follow without a vote.
    pub learners: BTreeSet<NodeId>,
}

/// The membership of the group according to its own log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Nodes that vote; in a joint configuration, those of the newer half.
    pub voters: BTreeSet<NodeId>,
    /// Nodes that follow without a vote.
    pub learners: BTreeSet<NodeId>,
    /// Whether the configuration is joint: a change of voters has begun and is not finished.
    pub is_joint: bool,
}

/// The progress of another member, as seen by the leader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Whether the member answered within the last election timeout.
    pub live: bool,
    /// Whether it has all but the newest entries, so that its vote would not hold up commits.
    pub caught_up: bool,
}

/// One action for the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Finish the change of voters that has begun.
    FinishJoint,
    /// Add these nodes as learners.
    AddLearners(BTreeSet<NodeId>),
    /// Make these the voters. Former voters stay as learners.
    ChangeVoters(BTreeSet<NodeId>),
    /// Transfer the leadership: this leader is to lose its vote.
    Transfer(NodeId),
    /// Remove a learner.
    RemoveLearner(NodeId),
}

impl Step {
    /// Returns whether the step brings the members closer to the plan, in which case the plan must
    /// be the newest. The other steps are due whatever the plan says, or do no harm.
    pub fn follows_the_plan(&self) -> bool {
        matches!(self, Self::AddLearners(_) | Self::ChangeVoters(_) | Self::RemoveLearner(_))
    }
}

/// Returns the next step from `actual` toward `desired`, or `None` if they agree or the time has
/// not come.
///
/// `progress` is what this leader, `own`, knows about the others; a node that is missing there
/// counts as neither live nor caught up.
pub fn next_step(
    desired: &Desired,
    actual: &Membership,
    progress: &BTreeMap<NodeId, Progress>,
    own: NodeId,
) -> Option<Step> {
    if actual.is_joint {
        return Some(Step::FinishJoint);
    }
    if desired.voters.is_empty() {
        return None;
    }
    let reconciler = Reconciler { desired, actual, progress, own };
    if !actual.voters.contains(&own) {
        // Another leader began to remove this one, and died; this one was elected while the change
        // was half done. It leads until it hands over.
        return reconciler.transfer().or_else(|| reconciler.transfer_to_any());
    }
    reconciler
        .add_learners()
        .or_else(|| reconciler.change_voters())
        .or_else(|| reconciler.remove_learner())
}

struct Reconciler<'a> {
    desired: &'a Desired,
    actual: &'a Membership,
    progress: &'a BTreeMap<NodeId, Progress>,
    own: NodeId,
}

impl Reconciler<'_> {
    /// Adds all missing learners at once: learners do not count towards any majority.
    fn add_learners(&self) -> Option<Step> {
        let wanted = self.desired.voters.union(&self.desired.learners);
        let missing = wanted.filter(|node| {
            !self.actual.voters.contains(node) && !self.actual.learners.contains(node)
        });
        let missing: BTreeSet<NodeId> = missing.copied().collect();
        (!missing.is_empty()).then_some(Step::AddLearners(missing))
    }

    fn change_voters(&self) -> Option<Step> {
        let mut coming = self.desired.voters.difference(&self.actual.voters);
        let coming = coming.find(|node| self.is_ready(**node)).copied();
        let going = self.first_to_go();
        let others_to_go = going.is_some_and(|node| node != self.own);
        let spare = self.actual.voters.len() > self.desired.voters.len();
        match (coming, going) {
            // An exchange. If only the leader itself is to go, the newcomer is added first, so that
            // it can lead.
            (Some(coming), _) => {
                let mut voters = self.actual.voters.clone();
                voters.insert(coming);
                if others_to_go && let Some(going) = going {
                    voters.remove(&going);
                }
                self.checked(voters)
            }
            (None, Some(going)) if spare && others_to_go => {
                let mut voters = self.actual.voters.clone();
                voters.remove(&going);
                self.checked(voters)
            }
            (None, Some(_)) if !others_to_go => self.transfer(),
            _ => None,
        }
    }

    /// Returns the voter to remove next: one that does not answer before one that does, and this
    /// leader last.
    fn first_to_go(&self) -> Option<NodeId> {
        let going = self.actual.voters.difference(&self.desired.voters);
        going.min_by_key(|node| (**node == self.own, self.is_live(**node))).copied()
    }

    /// Transfers the leadership to a voter that stays and is up to date.
    fn transfer(&self) -> Option<Step> {
        let mut staying = self.actual.voters.intersection(&self.desired.voters);
        staying.find(|node| self.is_ready(**node)).map(|node| Step::Transfer(*node))
    }

    /// Transfers the leadership to any voter that is up to date.
    fn transfer_to_any(&self) -> Option<Step> {
        let mut voters = self.actual.voters.iter();
        voters.find(|node| self.is_ready(**node)).map(|node| Step::Transfer(*node))
    }

    fn remove_learner(&self) -> Option<Step> {
        let mut extra = self.actual.learners.iter().filter(|node| {
            !self.desired.voters.contains(node) && !self.desired.learners.contains(node)
        });
        extra.next().map(|node| Step::RemoveLearner(*node))
    }

    /// Returns the change to these voters, unless the group could not commit with them.
    fn checked(&self, voters: BTreeSet<NodeId>) -> Option<Step> {
        let live = voters.iter().filter(|node| self.is_live(**node)).count();
        (live > voters.len() / 2).then_some(Step::ChangeVoters(voters))
    }

    fn is_live(&self, node: NodeId) -> bool {
        node == self.own || self.progress.get(&node).is_some_and(|progress| progress.live)
    }

    fn is_ready(&self, node: NodeId) -> bool {
        let ready = |progress: &Progress| progress.live && progress.caught_up;
        node == self.own || self.progress.get(&node).is_some_and(ready)
    }
}
