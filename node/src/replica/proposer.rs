//! What the tasks of a group propose and confirm through.

use std::collections::BTreeMap;

use bytes::Bytes;
use dkv_base::id::{NodeId, Term};

use crate::common::suspend;
use crate::net::peers::Peers;
use crate::raft::{
    self, DurabilityCheck, MetricsWatch, Network, Outcome, ProposeError, Raft, ServerState,
    StateMachineHandle, TimeScale,
};
use dkv_state::CommandResult;

/// What the tasks of a group propose and confirm through.
pub(crate) struct Proposer {
    pub(super) raft: Raft,
    pub(super) state_machine: StateMachineHandle,
    pub(super) durability: DurabilityCheck,
    pub(super) network: Network,
    pub(super) peers: Peers,
    pub(super) time_scale: TimeScale,
}

impl Proposer {
    /// Proposes a batch to a shard and waits until it is applied.
    pub(crate) async fn propose_batch(
        &self,
        batch: Bytes,
    ) -> Result<(Term, Vec<CommandResult>), ProposeError> {
        self.time_scale.wake();
        match raft::propose(&self.raft, &self.time_scale, batch).await? {
            (term, Outcome::Shard(results)) => Ok((term, results)),
            (_, other) => Err(ProposeError::Unknown(format!("a shard answered {other}"))),
        }
    }

    /// Makes sure that this replica leads and has applied what was committed before the call.
    pub(crate) async fn confirm_leadership(&self) -> Result<Term, ProposeError> {
        self.time_scale.wake();
        raft::confirm_leadership(&self.raft, &self.state_machine, &self.network).await
    }

    /// What is committed, if this replica leads in that term and a voter that says it follows it
    /// makes a quorum with it.
    pub(crate) async fn confirmed_by(&self, voter: NodeId, term: Term) -> Option<u64> {
        self.time_scale.wake();
        raft::confirmed_by(&self.raft, &self.network, voter, term).await
    }

    /// The term in which this replica follows `leader`, if it does.
    pub(crate) fn followed(&self, leader: NodeId) -> Option<Term> {
        self.durability.followed(leader)
    }

    /// Time since each other member last answered this leader, in milliseconds. Empty on a
    /// follower.
    pub(super) fn silence(&self) -> BTreeMap<NodeId, u64> {
        self.network.silence()
    }

    /// How far the group's members are, and how much longer its times are for it.
    pub(crate) fn time_scale(&self) -> &TimeScale {
        &self.time_scale
    }

    /// How old this replica's state may be, in milliseconds: of a leader, since a quorum last
    /// confirmed it; of others, since a quorum confirmed the leader that they heard, provided that
    /// they have all that it had committed. Nothing is known of it for a while after the machine
    /// was suspended.
    pub(crate) fn staleness_ms(&self) -> Option<u64> {
        if suspend::woke_lately() {
            return None;
        }
        let metrics = MetricsWatch::of(&self.raft);
        let metrics = metrics.borrow();
        // A leader may lack the last of what the one before it committed, until it has applied an
        // entry of its own.
        let applied_own =
            metrics.last_applied.is_some_and(|last| *last.leader_id == metrics.current_term);
        match metrics.state {
            ServerState::Leader if applied_own => {
                let confirmed = self.network.quorum_at()?;
                Some(confirmed.elapsed().as_millis() as u64)
            }
            _ => self.state_machine.staleness_ms(),
        }
    }

    /// The state.
    pub(crate) fn state_machine(&self) -> &StateMachineHandle {
        &self.state_machine
    }

    /// The other nodes.
    pub(crate) fn peers(&self) -> &Peers {
        &self.peers
    }
}
