//! The round to a quorum by which a leader makes sure that it leads.
//!
//! openraft makes such rounds by heartbeats, of which it has one at a time under way to each member: who
//! asks while one is on a long way waits for its end, and then for a whole one. So the leader asks the
//! voters itself, in as many rounds at once as it likes, whether they still follow it.
//!
//! Why that is enough for a read that came at a moment `t` to a leader of term `T` (section 6.4 of Ongaro's
//! dissertation, "Consensus: Bridging Theory and Practice"): each voter of a majority says, of a moment after
//! `t`, that the vote which it has put into its log last is that of `T`. Votes only grow, so none of them
//! had voted in a later term by `t`. The first leader of a later term that is elected by `t` would have needed
//! one of them: its configuration is that of the majority which was asked or the one before or after it, and
//! any two majorities of such share a voter. So by `t` nobody but this leader had acknowledged anything
//! since it was elected; what it had acknowledged it had committed, as was everything of earlier terms
//! once an entry of `T` is committed. Whoever then has applied what this leader has committed at any moment from `t`
//! on has all that was acknowledged by `t`.
//!
//! openraft says, of one moment after `t`, who leads, who votes, and what is committed. If it says that
//! nothing of the term is committed yet, or if the voters do not confirm at once, as one that has not
//! heard of the election yet, openraft's own round is made, which brings them up to date or says who leads now.

use std::collections::BTreeSet;

use dkv_wire::id::{NodeId, Term};
use dkv_wire::mutants::{Mutant, planted};
use futures::stream::{FuturesUnordered, StreamExt};
use openraft::RaftState;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::raft::ReadPolicy;

use super::drive::{Leader, leader_of};
use super::{MachineHandle, MetricsWatch, Network, Raft, ServerState, Types, Vote};
use crate::group::ProposeError;

/// What a leader claims, at one moment.
struct Claim {
    vote: Vote,
    /// Of each of these sets a majority has to confirm it: one, or the two of a joint configuration.
    voters: Vec<BTreeSet<NodeId>>,
    /// The last entry that is committed, which is of its own term.
    committed: u64,
}

impl Claim {
    /// What a node may claim; nothing, unless it leads and has committed something.
    fn of(me: NodeId, state: &RaftState<Types>) -> Option<Self> {
        let vote = *state.vote_ref();
        let leads = state.server_state == ServerState::Leader
            && vote.committed
            && vote.leader_id.voted_for == me;
        let committed = state.local_committed().filter(|_| leads)?;
        let is_of_term = *committed.leader_id == vote.leader_id.term;
        let voters = state.membership_state.effective().membership().get_joint_config().clone();
        is_of_term.then_some(Self { vote, voters, committed: committed.index })
    }

    /// Whether these are enough of the voters.
    fn is_confirmed_by(&self, confirmed: &BTreeSet<NodeId>) -> bool {
        let is_majority =
            |voters: &BTreeSet<NodeId>| voters.intersection(confirmed).count() > voters.len() / 2;
        self.voters.iter().all(is_majority)
    }
}

/// One round to a quorum: this replica leads, and has applied what was committed before the call.
pub(crate) async fn confirm_leadership(
    raft: &Raft,
    machine: &MachineHandle,
    network: &Network,
) -> Result<Term, ProposeError> {
    if planted(Mutant::ReadWithoutQuorum) {
        let metrics = MetricsWatch::of(raft);
        let metrics = metrics.borrow();
        if metrics.state == ServerState::Leader {
            return Ok(Term(metrics.current_term));
        }
    }
    match ask_voters(raft, machine, network).await {
        Some(term) => Ok(term),
        None => openrafts_round(raft, network).await,
    }
}

/// Asks the voters, each once. Nothing, if they do not confirm at once.
async fn ask_voters(raft: &Raft, machine: &MachineHandle, network: &Network) -> Option<Term> {
    let me = network.me();
    let claim = raft.with_raft_state(move |state| Claim::of(me, state)).await.ok()??;
    let mut confirmed = BTreeSet::from([me]);
    let others: BTreeSet<NodeId> =
        claim.voters.iter().flatten().copied().filter(|voter| *voter != me).collect();
    let mut asked: FuturesUnordered<_> = others
        .into_iter()
        .map(|voter| async move { (voter, network.follows(voter, claim.vote).await) })
        .collect();
    let round = async {
        while !claim.is_confirmed_by(&confirmed) {
            let (voter, follows) = asked.next().await?;
            if follows {
                confirmed.insert(voter);
            }
        }
        Some(())
    };
    tokio::time::timeout(network.pace().patience(), round).await.ok()??;
    machine.applied().wait_for(|applied| *applied >= claim.committed).await.ok()?;
    Some(Term(claim.vote.leader_id.term))
}

/// What is committed, if this replica leads in that term and makes a quorum with one voter who says that it
/// follows it there. What the voter has said it found after the read had come that it asks for: it is as
/// good as its answer to a question.
pub(crate) async fn confirmed_by(
    raft: &Raft,
    network: &Network,
    voter: NodeId,
    term: Term,
) -> Option<u64> {
    let me = network.me();
    let claim = raft.with_raft_state(move |state| Claim::of(me, state)).await.ok()??;
    let is_confirmed = Term(claim.vote.leader_id.term) == term
        && claim.is_confirmed_by(&BTreeSet::from([me, voter]));
    is_confirmed.then_some(claim.committed)
}

async fn openrafts_round(raft: &Raft, network: &Network) -> Result<Term, ProposeError> {
    let _hurry = network.hurry();
    let mut has_waited = false;
    loop {
        match raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(read) => return Ok(Term(**read.committed_leader_id())),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                match leader_of(raft, network.pace(), forward).await {
                    Leader::Me if !has_waited => has_waited = true,
                    leader => return Err(leader.into()),
                }
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                return Err(ProposeError::Unavailable("no quorum answers".into()));
            }
            Err(RaftError::Fatal(error)) => {
                return Err(ProposeError::Unavailable(error.to_string()));
            }
        }
    }
}

#[cfg(test)]
mod tests;
