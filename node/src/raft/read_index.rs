//! The rounds to a quorum by which a leader makes sure that it leads.
//!
//! The leader asks the voters itself, in as many rounds at once as it likes, whether they still
//! follow it, and asks those who have not said so again, until enough have or its patience ends.
//! Nothing else is evidence: a heartbeat or an acknowledgement that openraft counts may answer what
//! was sent before the read began (see docs/decisions.md). openraft is only nudged to send a
//! heartbeat, from which a voter that has not heard of the election learns of it, and the leader of
//! a later one.
//!
//! Why that is enough for a read that came at a moment `t` to a leader of term `T` (section 6.4 of
//! Ongaro's dissertation, "Consensus: Bridging Theory and Practice"): each voter of a majority
//! says, of a moment after `t`, that the vote which it has put into its log last is that of `T`.
//! Votes only grow, so none of them had voted in a later term by `t`. The first leader of a later
//! term that is elected by `t` would have needed one of them: its configuration is that of the
//! majority which was asked or the one before or after it, and any two majorities of such share a
//! voter. So by `t` nobody but this leader had acknowledged anything since it was elected; what it
//! had acknowledged it had committed, as was everything of earlier terms once an entry of `T` is
//! committed. Whoever then has applied what this leader has committed at any moment from `t` on has
//! all that was acknowledged by `t`.
//!
//! openraft says, of one moment after `t`, who leads, who votes, and what is committed. The
//! configuration is the newest in the leader's log, committed or not, and both halves of it if it
//! is joint. It is looked at again with each round: a leader that finds that it was deposed says so
//! at once.

use std::collections::BTreeSet;
use std::time::Duration;

use dkv_base::id::{NodeId, Term};
use dkv_base::mutants::{Mutant, planted};
use futures::stream::{FuturesUnordered, StreamExt};
use openraft::RaftState;
use openraft::raft::ReadPolicy;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::adapter::{Leader, next_leader};
use super::{MachineHandle, MetricsWatch, Network, Pace, Raft, ServerState, Types, Vote};
use crate::replica::ProposeError;

/// Time that a leader has to make sure that it leads, between near members.
const PATIENCE: Duration = Duration::from_secs(2);
/// Time after which a voter that does not follow yet is asked again; each further time it is twice
/// as long, and at most as long as a voter has to answer.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// Time that a leader has to make sure that it leads: longer, the farther the members are.
pub(crate) fn patience(pace: &Pace) -> Duration {
    PATIENCE.max(pace.round_trip() * 3)
}

/// What a leader claims, at one moment.
struct Claim {
    vote: Vote,
    /// Of each of these sets a majority has to confirm it: one, or the two of a joint
    /// configuration.
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

/// What a replica is, at one moment.
enum Standing {
    /// It leads, and may say so.
    Leads(Claim),
    /// It leads, and has committed nothing of its term yet.
    Begins,
    /// It does not lead.
    Follows,
}

impl Standing {
    fn of(me: NodeId, state: &RaftState<Types>) -> Self {
        match Claim::of(me, state) {
            Some(claim) => Self::Leads(claim),
            None if state.server_state == ServerState::Leader => Self::Begins,
            None => Self::Follows,
        }
    }
}

/// Makes sure, by a round to a quorum, that this replica leads and has applied what was committed
/// before the call.
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
    let asking = ask_voters(raft, machine, network);
    if planted(Mutant::TrustLateAcknowledgements) {
        return match timeout(network.pace().patience(), asking).await {
            Ok(answer) => answer,
            Err(_) => openrafts_round(raft, network).await,
        };
    }
    timeout(patience(network.pace()), asking).await.unwrap_or_else(|_| Err(no_quorum()))
}

fn no_quorum() -> ProposeError {
    ProposeError::Unavailable("no quorum answers".into())
}

/// Asks the voters, those who have not confirmed again and again, for as long as this replica
/// leads.
async fn ask_voters(
    raft: &Raft,
    machine: &MachineHandle,
    network: &Network,
) -> Result<Term, ProposeError> {
    let me = network.me();
    let (mut asked, mut under_way) = (BTreeSet::new(), FuturesUnordered::new());
    let (mut confirmed, mut vote) = (BTreeSet::from([me]), None);
    let mut has_waited = false;
    loop {
        let standing = raft.with_raft_state(move |state| Standing::of(me, state)).await;
        let standing = standing.map_err(|error| ProposeError::Unavailable(error.to_string()))?;
        let look_again = Instant::now() + network.pace().patience();
        let claim = match standing {
            Standing::Leads(claim) => claim,
            Standing::Begins => {
                begun(raft, look_again).await;
                continue;
            }
            Standing::Follows => {
                let known = MetricsWatch::of(raft).borrow().current_leader.filter(|it| *it != me);
                match next_leader(raft, network.pace(), known, false).await {
                    Leader::Me if !has_waited => has_waited = true,
                    leader => return Err(leader.into()),
                }
                continue;
            }
        };
        if vote.is_some_and(|before| before != claim.vote) {
            // Who followed it in an earlier term has said nothing of this one.
            (asked, under_way) = Default::default();
            confirmed = BTreeSet::from([me]);
        }
        vote = Some(claim.vote);
        for voter in claim.voters.iter().flatten().filter(|voter| **voter != me) {
            if asked.insert(*voter) {
                under_way.push(ask_until_it_follows(raft, network, *voter, claim.vote));
            }
        }
        let mut metrics = MetricsWatch::of(raft);
        while !claim.is_confirmed_by(&confirmed) {
            tokio::select! {
                biased;
                Some(voter) = under_way.next() => drop(confirmed.insert(voter)),
                _ = metrics.wait_for(|metrics| metrics.state != ServerState::Leader) => break,
                () = sleep_until(look_again) => break,
            }
        }
        if claim.is_confirmed_by(&confirmed) {
            return match machine.applied().wait_for(|applied| *applied >= claim.committed).await {
                Ok(_) => Ok(Term(claim.vote.leader_id.term)),
                Err(_) => Err(ProposeError::Unavailable("the group is stopping".into())),
            };
        }
        // Who follows another leader tells openraft so, and openraft's state tells this loop.
        let _ = raft.trigger().heartbeat().await;
    }
}

/// Asks a voter until it says that it follows the leader that has this vote.
async fn ask_until_it_follows(raft: &Raft, network: &Network, voter: NodeId, vote: Vote) -> NodeId {
    let mut pause = ASK_AGAIN_AFTER;
    loop {
        let patience = network.pace().patience();
        match timeout(patience, network.follows(voter, vote)).await {
            Ok(true) => return voter,
            Ok(false) => {
                // It may not have heard of the election.
                let _hurry = network.hurry();
                let _ = raft.trigger().heartbeat().await;
                tokio::time::sleep(pause).await;
                pause = patience.min(pause * 2);
            }
            Err(_) => {}
        }
    }
}

/// Waits until this leader has committed an entry of its own term, or does not lead any more.
async fn begun(raft: &Raft, until: Instant) {
    let mut metrics = MetricsWatch::of(raft);
    let begun = metrics.wait_for(|metrics| {
        let of_term = |last: super::LogId| *last.leader_id == metrics.current_term;
        metrics.state != ServerState::Leader || metrics.local_committed.is_some_and(of_term)
    });
    let _ = timeout_at(until, begun).await;
}

/// What is committed, if this replica leads in that term and makes a quorum with one voter who says
/// that it follows it there. What the voter has said it found after the read had come that it asks
/// for: it is as good as its answer to a question.
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

/// openraft's own round, which is no evidence: see [`Mutant::TrustLateAcknowledgements`].
async fn openrafts_round(raft: &Raft, network: &Network) -> Result<Term, ProposeError> {
    let _hurry = network.hurry();
    let read = raft.ensure_linearizable(ReadPolicy::ReadIndex).await;
    read.map(|read| Term(**read.committed_leader_id())).map_err(|_| no_quorum())
}

#[cfg(test)]
mod tests;
