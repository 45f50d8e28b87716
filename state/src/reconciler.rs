//! How the leader of a group brings its members to what the directory wants, as plain code.
//!
//! [`next_step`] compares the wanted members with the membership in the group's Raft log and names
//! the next single step. The leader executes it, waits until it is committed, and asks again; a
//! leader that comes after another that died half-way asks the same question of the same facts.
//!
//! What every step keeps:
//! - one change at a time, and a joint configuration that was left behind is finished first;
//! - only a learner that has caught up becomes a voter;
//! - there are never fewer voters than before, or than wanted, whichever is less;
//! - a set of voters is asked for only if a majority of it is answering, so that the group can
//!   still commit once the change is made;
//! - a leader that shall not vote any more hands over before it is taken out.
//!
//! Voters change by joint consensus (section 6 of the Raft paper), so an exchange of one voter for
//! another is one step in which both majorities must agree: the new one votes before the old one
//! has gone.

use std::collections::{BTreeMap, BTreeSet};

use dkv_base::id::NodeId;

/// The members that the directory wants for a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Nodes whose vote shall count.
    pub voters: BTreeSet<NodeId>,
    /// Nodes that shall follow without a vote.
    pub learners: BTreeSet<NodeId>,
}

/// The membership that the group has by its own log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Nodes whose vote counts; of a joint configuration, those of the newer half.
    pub voters: BTreeSet<NodeId>,
    /// Nodes that follow without a vote.
    pub learners: BTreeSet<NodeId>,
    /// Whether it is joint: a change of voters was begun and is not finished.
    pub is_joint: bool,
}

/// How far another member is, as the leader sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Whether it answered within the last election time.
    pub live: bool,
    /// Whether it has all but the newest entries, so that its vote would not hold up commits.
    pub caught_up: bool,
}

/// One thing for the leader to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Bring the change of voters to its end that was begun.
    FinishJoint,
    /// Let these nodes follow.
    AddLearners(BTreeSet<NodeId>),
    /// Make these the voters. Those that are none any more follow as learners.
    ChangeVoters(BTreeSet<NodeId>),
    /// Hand the leadership over: this leader shall not vote any more.
    Transfer(NodeId),
    /// Let a learner go.
    RemoveLearner(NodeId),
}

impl Step {
    /// Whether it makes the members more like the plan, which has to be the newest then. The others
    /// are due whatever the plan says, or do no harm.
    pub fn follows_the_plan(&self) -> bool {
        matches!(self, Self::AddLearners(_) | Self::ChangeVoters(_) | Self::RemoveLearner(_))
    }
}

/// The next step from `actual` toward `desired`, or nothing if they agree or it is not the time.
///
/// `progress` is what this leader, `own`, knows of the others; of a node that is missing there
/// nothing good is assumed.
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
        // Another leader began to take this one out, and died; while that was half done, this one
        // was elected. It leads until it says that it does not.
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
    /// All at once: no majority has to be found among those that follow.
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
            // An exchange; and where the leader itself is to go, first the newcomer that can lead.
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

    /// The voter to be taken out next: one that does not answer before one that does, and this
    /// leader last.
    fn first_to_go(&self) -> Option<NodeId> {
        let going = self.actual.voters.difference(&self.desired.voters);
        going.min_by_key(|node| (**node == self.own, self.is_live(**node))).copied()
    }

    /// Hands over to a voter that stays and is up to date.
    fn transfer(&self) -> Option<Step> {
        let mut staying = self.actual.voters.intersection(&self.desired.voters);
        staying.find(|node| self.is_ready(**node)).map(|node| Step::Transfer(*node))
    }

    /// Hands over to whatever voter is up to date.
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

    /// The change to these voters, unless the group could not commit with them.
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
