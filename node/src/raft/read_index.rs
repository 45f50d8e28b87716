//! The rounds to a quorum by which a leader confirms that it leads.
//!
//! The leader itself asks the voters whether they still follow it, in as many concurrent rounds as
//! it likes. It asks those that have not confirmed again, until enough have or its patience ends.
//! Nothing else is evidence: a heartbeat or an acknowledgement that openraft counts may answer a
//! message that was sent before the read began (see docs/decisions.md). The leader only nudges
//! openraft to send a heartbeat. From it, a voter that has not heard of the election learns of it,
//! and the leader learns of a later election.
//!
//! This is enough for a read that reached a leader of term `T` at a moment `t`, for the following
//! reason (section 6.4 of Ongaro's dissertation, "Consensus: Bridging Theory and Practice"). Each
//! voter of a majority states that, at a moment after `t`, the vote that it last put into its log
//! is that of `T`. Votes only grow, so none of these voters had voted in a later term by `t`. The
//! first leader of a later term, if elected by `t`, would have needed the vote of one of them: its
//! configuration is the one whose majority was asked, or the one before or after it, and any two
//! majorities of such configurations share a voter. So from this leader's election until `t`, no
//! other node acknowledged anything. This leader had committed what it had acknowledged, and
//! everything of earlier terms is committed too once an entry of `T` is. A replica that has applied
//! what this leader has committed at any moment from `t` on therefore has everything that was
//! acknowledged by `t`.
//!
//! openraft's state gives, for one moment after `t`, the leader, the voters, and the last committed
//! entry. The configuration is the newest in the leader's log, committed or not, with both halves
//! if it is joint. Each round reads the state again: a leader that finds itself deposed says so at
//! once.

use std::collections::BTreeSet;
use std::time::Duration;

use dkv_base::id::{NodeId, Term};
use dkv_base::mutants::{Mutant, planted};
use futures::stream::{FuturesUnordered, StreamExt};
use openraft::RaftState;
use openraft::raft::ReadPolicy;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::adapter::{Leader, next_leader};
use super::{MetricsWatch, Network, Raft, ServerState, StateMachineHandle, TimeScale, Types, Vote};
use crate::raft::ProposeError;

/// Time that a leader has to confirm that it leads, between nearby members.
const PATIENCE: Duration = Duration::from_secs(2);
/// Time after which the leader asks a voter again that does not follow it yet. It doubles with each
/// further attempt, up to the time that a voter has to answer.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// Returns the time that a leader has to confirm that it leads: longer, the farther the members
/// are.
pub(crate) fn patience(time_scale: &TimeScale) -> Duration {
    PATIENCE.max(time_scale.round_trip() * 3)
}

/// A leader's claim at one moment.
struct Claim {
    vote: Vote,
    /// Sets of voters, each of which must confirm the claim by a majority: one set, or the two of a
    /// joint configuration.
    voters: Vec<BTreeSet<NodeId>>,
    /// Index of the last committed entry, which is of the leader's own term.
    committed: u64,
}

impl Claim {
    /// Returns the claim that a node may make; `None` unless it leads and has committed an entry of
    /// its own term.
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

    /// Returns whether these nodes are a majority of each set of voters.
    fn is_confirmed_by(&self, confirmed: &BTreeSet<NodeId>) -> bool {
        let is_majority =
            |voters: &BTreeSet<NodeId>| voters.intersection(confirmed).count() > voters.len() / 2;
        self.voters.iter().all(is_majority)
    }
}

/// The role of a replica at one moment.
enum Standing {
    /// It leads, and may claim to.
    Leads(Claim),
    /// It leads, but has committed nothing of its term yet.
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

/// Confirms, by a round to a quorum, that this replica leads and has applied everything that was
/// committed before the call.
pub(crate) async fn confirm_leadership(
    raft: &Raft,
    state_machine: &StateMachineHandle,
    network: &Network,
) -> Result<Term, ProposeError> {
    if planted(Mutant::ReadWithoutQuorum) {
        let metrics = MetricsWatch::of(raft);
        let metrics = metrics.borrow();
        if metrics.state == ServerState::Leader {
            return Ok(Term(metrics.current_term));
        }
    }
    let asking = ask_voters(raft, state_machine, network);
    if planted(Mutant::TrustLateAcknowledgements) {
        return match timeout(network.time_scale().patience(), asking).await {
            Ok(answer) => answer,
            Err(_) => openrafts_round(raft, network).await,
        };
    }
    timeout(patience(network.time_scale()), asking).await.unwrap_or_else(|_| Err(no_quorum()))
}

fn no_quorum() -> ProposeError {
    ProposeError::Unavailable("no quorum answers".into())
}

/// Asks the voters, and asks those that have not confirmed again and again, for as long as this
/// replica leads.
async fn ask_voters(
    raft: &Raft,
    state_machine: &StateMachineHandle,
    network: &Network,
) -> Result<Term, ProposeError> {
    let me = network.me();
    let (mut asked, mut under_way) = (BTreeSet::new(), FuturesUnordered::new());
    let (mut confirmed, mut vote) = (BTreeSet::from([me]), None);
    let mut has_waited = false;
    loop {
        let standing = raft.with_raft_state(move |state| Standing::of(me, state)).await;
        let standing = standing.map_err(|error| ProposeError::Unavailable(error.to_string()))?;
        let look_again = Instant::now() + network.time_scale().patience();
        let claim = match standing {
            Standing::Leads(claim) => claim,
            Standing::Begins => {
                begun(raft, look_again).await;
                continue;
            }
            Standing::Follows => {
                let known = MetricsWatch::of(raft).borrow().current_leader.filter(|it| *it != me);
                match next_leader(raft, network.time_scale(), known, false).await {
                    Leader::Me if !has_waited => has_waited = true,
                    leader => return Err(leader.into()),
                }
                continue;
            }
        };
        if vote.is_some_and(|before| before != claim.vote) {
            // A voter that followed this leader in an earlier term has said nothing about this one.
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
            return match state_machine
                .applied()
                .wait_for(|applied| *applied >= claim.committed)
                .await
            {
                Ok(_) => Ok(Term(claim.vote.leader_id.term)),
                Err(_) => Err(ProposeError::Unavailable("the group is stopping".into())),
            };
        }
        // A voter that follows another leader tells openraft, and this loop reads openraft's state.
        let _ = raft.trigger().heartbeat().await;
    }
}

/// Asks a voter until it says that it follows the leader with this vote.
async fn ask_until_it_follows(raft: &Raft, network: &Network, voter: NodeId, vote: Vote) -> NodeId {
    let mut pause = ASK_AGAIN_AFTER;
    loop {
        let patience = network.time_scale().patience();
        match timeout(patience, network.follows(voter, vote)).await {
            Ok(true) => return voter,
            Ok(false) => {
                // The voter may not have heard of the election.
                let _hurry = network.mark_urgent();
                let _ = raft.trigger().heartbeat().await;
                tokio::time::sleep(pause).await;
                pause = patience.min(pause * 2);
            }
            Err(_) => {}
        }
    }
}

/// Waits until this leader has committed an entry of its own term, or no longer leads.
async fn begun(raft: &Raft, until: Instant) {
    let mut metrics = MetricsWatch::of(raft);
    let begun = metrics.wait_for(|metrics| {
        let of_term = |last: super::LogId| *last.leader_id == metrics.current_term;
        metrics.state != ServerState::Leader || metrics.local_committed.is_some_and(of_term)
    });
    let _ = timeout_at(until, begun).await;
}

/// Returns the index of the last committed entry, if this replica leads in that term and makes a
/// quorum with one voter that says that it follows this replica there.
///
/// The voter's statement is as good as its answer to a question: the voter established it after the
/// arrival of the read for which it asks.
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

/// Runs openraft's own round, which is no evidence: see [`Mutant::TrustLateAcknowledgements`].
async fn openrafts_round(raft: &Raft, network: &Network) -> Result<Term, ProposeError> {
    let _hurry = network.mark_urgent();
    let read = raft.ensure_linearizable(ReadPolicy::ReadIndex).await;
    read.map(|read| Term(**read.committed_leader_id())).map_err(|_| no_quorum())
}

#[cfg(test)]
mod tests;
