//! The operations of the rest of the node on a group, in the node's own terms.
//!
//! This module sorts openraft's errors by the one thing that matters to a client: whether the
//! proposal can still have an effect.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::{NodeId, Term};
use openraft::errors::{
    ClientWriteError, Fatal, ForwardReason, ForwardToLeader, InitializeError, RaftError,
};
use openraft::impls::ProgressResponder;
use openraft::raft::{ClientWriteResponse, TransferLeaderRequest};
use openraft::vote::leader_id_std::CommittedLeaderId;
use openraft::{ChangeMembers, EmptyNode, StorageHelper};

use super::{
    LogStore, MetricsWatch, Network, Outcome, Proposal, Raft, ServerState, StateMachine, TimeScale,
    Types,
};
use crate::raft::ProposeError;
use crate::raft::checkpointed::Checkpointed;
use crate::raft::entry_times::EntryTimes;
use dkv_state::reconciler::Step;
use dkv_wal::GroupLog;

type Written = ClientWriteResponse<Types>;
type WriteError = RaftError<Types, ClientWriteError<Types>>;

/// Longest time that a request waits for a change of leader between nearby members.
const TURNOVER_WAIT: Duration = Duration::from_millis(300);

/// Returns the longest time that a request waits for a change of leader: at least a vote and the
/// first round of the new leader.
pub(crate) fn turnover_wait(time_scale: &TimeScale) -> Duration {
    TURNOVER_WAIT.max(time_scale.round_trip() * 3)
}

/// Reason why openraft did not do what the node asked of a group.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OperationError {
    /// The group has stopped, or did not start.
    #[error(transparent)]
    Stopped(#[from] Fatal<Types>),
    /// The group cannot begin with this member.
    #[error(transparent)]
    Initialize(Box<InitializeError<Types>>),
    /// The members were not changed, or the change may have been lost: the caller looks at the
    /// members again before its next step.
    #[error(transparent)]
    Membership(Box<ClientWriteError<Types>>),
}

/// Starts a group from the contents of its log and its state.
///
/// The replica stands for election only if `elects`, until the group's runtime configuration says
/// otherwise.
pub(crate) async fn start(
    me: NodeId,
    config: Arc<openraft::Config>,
    log: GroupLog,
    state_machine: StateMachine,
    network: Network,
    time_scale: &TimeScale,
    elects: bool,
) -> Result<Raft, OperationError> {
    // Set before the start, because the only member that a log names elects itself at once.
    let config = Arc::new(openraft::Config { enable_elect: elects, ..(*config).clone() });
    network.shows(state_machine.handle());
    let handle = state_machine.handle();
    let log = LogStore::new(log, handle.entry_times().clone(), handle.checkpointed_log().clone());
    let raft = Raft::new(me, config, network.clone(), log, state_machine);
    let raft = time_scale.run(raft).await;
    let raft = raft?;
    network.told_by(&raft);
    Ok(raft)
}

/// Returns the voters of the newest configuration on disk, or none if it cannot be read.
pub(crate) async fn voters(log: &GroupLog, state_machine: &mut StateMachine) -> BTreeSet<NodeId> {
    let mut log = LogStore::new(log.clone(), EntryTimes::default(), Checkpointed::default());
    let found = StorageHelper::<Types, _, _>::new(&mut log, state_machine).get_membership().await;
    found.map(|found| found.effective().membership().voter_ids().collect()).unwrap_or_default()
}

/// Begins a group with these voters, if nothing is in its log; leaves any other group as it is.
/// Each of the voters may do this, with the same voters: they make the same first entry.
pub(crate) async fn initialize(
    raft: &Raft,
    voters: &BTreeSet<NodeId>,
) -> Result<(), OperationError> {
    let voters: BTreeMap<NodeId, EmptyNode> =
        voters.iter().map(|voter| (*voter, EmptyNode {})).collect();
    match raft.initialize(voters).await {
        Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(RaftError::APIError(error)) => Err(OperationError::Initialize(Box::new(error))),
        Err(RaftError::Fatal(error)) => Err(error.into()),
    }
}

/// Proposes an entry and waits until it is applied.
pub(crate) async fn propose(
    raft: &Raft,
    time_scale: &TimeScale,
    entry: Bytes,
) -> Result<(Term, Outcome), ProposeError> {
    propose_at(raft, time_scale, None, entry).await.map(|(term, _, outcome)| (term, outcome))
}

/// Proposes an entry and waits until it is applied. Returns its index too. If a term is given, the
/// entry is of that term or of none.
pub(crate) async fn propose_at(
    raft: &Raft,
    time_scale: &TimeScale,
    term: Option<Term>,
    entry: Bytes,
) -> Result<(Term, u64, Outcome), ProposeError> {
    let patience = tokio::time::Instant::now() + turnover_wait(time_scale);
    let mut has_waited = false;
    loop {
        let written = match term {
            Some(term) => write_in(raft, term, entry.clone()).await,
            None => raft.client_write(Proposal(entry.clone())).await,
        };
        match written {
            Ok(response) => {
                let log_id = response.log_id;
                return Ok((Term(*log_id.leader_id), log_id.index, response.data));
            }
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                // A leader that was just elected accepts no entries before a quorum has answered
                // it, which happens within a round trip.
                let fresh = forward.reason == ForwardReason::LeaseExpired;
                if fresh
                    && tokio::time::timeout_at(patience, quorum_answers(raft, time_scale))
                        .await
                        .is_ok()
                {
                    continue;
                }
                match leader_of(raft, time_scale, forward).await {
                    Leader::Me if !has_waited && term.is_none() => has_waited = true,
                    leader => return Err(leader.into()),
                }
            }
            Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))) => {
                let why = "the primary changed while it was under way";
                return Err(ProposeError::Unknown(why.into()));
            }
            // Neither of the remaining errors is an answer to an ordinary entry, and neither says
            // that nothing was appended.
            Err(RaftError::APIError(error)) => {
                return Err(ProposeError::Unknown(error.to_string()));
            }
            Err(RaftError::Fatal(error)) => return Err(ProposeError::Unknown(error.to_string())),
        }
    }
}

/// Proposes an entry if this replica leads in that term.
async fn write_in(raft: &Raft, term: Term, entry: Bytes) -> Result<Written, WriteError> {
    let (responder, completed) = ProgressResponder::complete_only();
    let write = raft.write(Proposal(entry)).with_leader(CommittedLeaderId::new(term.0));
    write.responder(responder).await.map_err(RaftError::Fatal)?;
    match completed.await {
        Ok(result) => result.map_err(RaftError::APIError),
        // The core is gone, and with it what it knew of the entry.
        Err(_) => Err(RaftError::Fatal(Fatal::Stopped)),
    }
}

/// Waits until a quorum has answered this leader within its lease, or until it no longer leads.
///
/// This guarantees nothing: it is the condition under which openraft accepts entries again.
async fn quorum_answers(raft: &Raft, time_scale: &TimeScale) {
    let lease = time_scale.stretch(Duration::from_millis(raft.config().election_timeout_max));
    let _ = MetricsWatch::of(raft)
        .wait_for(|metrics| {
            let answered = metrics.last_quorum_acked.as_ref();
            metrics.state != ServerState::Leader
                || answered.is_some_and(|answered| answered.age() < lease)
        })
        .await;
}

/// The leader, as far as a replica knows that could not act as leader when it was asked.
pub(crate) enum Leader {
    /// This replica, which has become the leader in the meantime.
    Me,
    /// Another replica, or none that is known.
    Other(Option<NodeId>),
    /// This replica, but no quorum answers it.
    Alone,
}

impl From<Leader> for ProposeError {
    fn from(leader: Leader) -> Self {
        match leader {
            Leader::Me => Self::NotLeader(None),
            Leader::Other(leader) => Self::NotLeader(leader),
            Leader::Alone => Self::Unavailable("no quorum answers".into()),
        }
    }
}

/// Returns the leader once it is known, or the last known one if that takes too long.
pub(super) async fn leader_of(
    raft: &Raft,
    time_scale: &TimeScale,
    forward: ForwardToLeader<Types>,
) -> Leader {
    match forward.reason {
        ForwardReason::LeaseExpired => Leader::Alone,
        ForwardReason::NotLeader => next_leader(raft, time_scale, forward.leader_id, false).await,
        ForwardReason::LeadershipTransfer => {
            next_leader(raft, time_scale, forward.leader_id, true).await
        }
    }
}

/// Returns the leader, for a replica that does not lead or that `hands_over`, and that knows of
/// `known`.
pub(crate) async fn next_leader(
    raft: &Raft,
    time_scale: &TimeScale,
    known: Option<NodeId>,
    hands_over: bool,
) -> Leader {
    if !hands_over && known.is_some() {
        return Leader::Other(known);
    }
    // The caller is sent on once there is a leader. Sent on at once, it would not know where to go,
    // and would find out later than the change of leader takes. The leader may be this replica,
    // except while this replica hands over: it names itself until another one leads.
    let mut metrics = MetricsWatch::of(raft);
    let taken_over = metrics.wait_for(|metrics| {
        let is_me = metrics.state == ServerState::Leader;
        let leads = metrics.current_leader.is_some_and(|leader| is_me == (leader == metrics.id));
        leads && !(hands_over && is_me)
    });
    let _ = tokio::time::timeout(turnover_wait(time_scale), taken_over).await;
    let metrics = metrics.borrow();
    match metrics.current_leader {
        Some(leader) if leader == metrics.id && !hands_over => Leader::Me,
        leader => Leader::Other(leader.or(known)),
    }
}

/// Takes one step toward the wanted members and waits until the step is committed.
pub(crate) async fn take_step(raft: &Raft, step: &Step) -> Result<(), OperationError> {
    let change = match step {
        Step::FinishJoint => ChangeMembers::AddVoterIds(BTreeSet::new()),
        Step::AddLearners(nodes) => {
            ChangeMembers::AddNodes(nodes.iter().map(|node| (*node, EmptyNode {})).collect())
        }
        Step::ChangeVoters(voters) => ChangeMembers::ReplaceAllVoters(voters.clone()),
        Step::RemoveLearner(node) => ChangeMembers::RemoveNodes(BTreeSet::from([*node])),
        Step::Transfer(node) => {
            return Ok(raft.trigger().transfer_leader(*node).await?);
        }
    };
    // A voter that is removed stays a learner: the reconciler decides when it leaves.
    match raft.change_membership(change, true).await {
        Ok(_) => Ok(()),
        Err(RaftError::APIError(error)) => Err(OperationError::Membership(Box::new(error))),
        Err(RaftError::Fatal(error)) => Err(error.into()),
    }
}

/// Takes back the promise to this leader of the current term to vote for no other node for a while.
pub(crate) async fn forget_leader(raft: &Raft, leader: NodeId) {
    let vote = {
        let metrics = MetricsWatch::of(raft);
        let metrics = metrics.borrow();
        metrics.vote
    };
    if vote.leader_id.voted_for != leader {
        return;
    }
    // A leader sends this request when it hands over to another node: all members but that node
    // only forget their promise.
    let request = TransferLeaderRequest::new(vote, leader, None);
    let _ = raft.handle_transfer_leader(request).await;
}

#[cfg(test)]
mod tests;
