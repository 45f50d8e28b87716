//! Proposals and confirmations of leadership for the tasks of a group.

use std::collections::BTreeMap;

use bytes::Bytes;
use dkv_base::id::{NodeId, Term};

use super::status;
use crate::common::suspend;
use crate::net::peers::Peers;
use crate::raft::{
    self, BatchTimes, DurabilityCheck, MetricsWatch, Network, Outcome, ProposeError, Raft,
    ServerState, StateMachineHandle, TimeScale,
};
use dkv_state::CommandResult;

/// The path by which the tasks of a group propose entries and confirm leadership.
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
        self.propose_timed(batch).await.map(|(term, results, _)| (term, results))
    }

    /// Proposes a batch to a shard and waits until it is applied. Returns its times too.
    pub(crate) async fn propose_timed(
        &self,
        batch: Bytes,
    ) -> Result<(Term, Vec<CommandResult>, BatchTimes), ProposeError> {
        self.time_scale.wake();
        match raft::propose_at(&self.raft, &self.time_scale, batch).await? {
            (term, index, Outcome::Shard(results)) => {
                Ok((term, results, self.state_machine.entry_times().of(index)))
            }
            (_, _, other) => Err(ProposeError::Unknown(format!("a shard answered {other}"))),
        }
    }

    /// Confirms that this replica leads and has applied everything committed before the call.
    pub(crate) async fn confirm_leadership(&self) -> Result<Term, ProposeError> {
        self.time_scale.wake();
        raft::confirm_leadership(&self.raft, &self.state_machine, &self.network).await
    }

    /// Returns the commit index if this replica leads in `term` and forms a quorum with `voter`,
    /// which says that it follows this replica.
    pub(crate) async fn confirmed_by(&self, voter: NodeId, term: Term) -> Option<u64> {
        self.time_scale.wake();
        raft::confirmed_by(&self.raft, &self.network, voter, term).await
    }

    /// Returns the term in which this replica follows `leader`, if it does.
    pub(crate) fn followed(&self, leader: NodeId) -> Option<Term> {
        self.durability.followed(leader)
    }

    /// Time since each other member last answered this leader, in milliseconds. Empty on a
    /// follower.
    pub(super) fn silence(&self) -> BTreeMap<NodeId, u64> {
        self.network.silence()
    }

    /// The distance to the group's members, and the factor by which it stretches its timeouts.
    pub(crate) fn time_scale(&self) -> &TimeScale {
        &self.time_scale
    }

    /// Upper bound on the age of this replica's state, in milliseconds.
    ///
    /// A leader counts from the last time that a quorum confirmed it. Other replicas count from the
    /// last time that a quorum confirmed the leader they heard from, provided that they have
    /// everything it had committed. The age is unknown for a while after the machine was suspended.
    pub(crate) fn staleness_ms(&self) -> Option<u64> {
        if suspend::woke_lately() {
            return None;
        }
        let metrics = MetricsWatch::of(&self.raft);
        let metrics = metrics.borrow();
        // A leader may lack the last entries that its predecessor committed until it has applied an
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

    /// Returns the time by the shard's clock for a batch made now.
    ///
    /// Unless this replica leads and has applied everything before its term, that is the time of
    /// the last entry: its own reading may be ahead of the clock of the last primary.
    pub(crate) fn clock_ms(&self) -> u64 {
        let (term, has_caught_up) = {
            let metrics = MetricsWatch::of(&self.raft);
            let metrics = metrics.borrow();
            let leads = metrics.state == ServerState::Leader;
            let term = leads.then_some(Term(metrics.current_term));
            (term, status::leading(&metrics).is_some())
        };
        self.state_machine.stamp_ms(term, has_caught_up)
    }

    /// The handle of the state machine.
    pub(crate) fn state_machine(&self) -> &StateMachineHandle {
        &self.state_machine
    }

    /// The other nodes.
    pub(crate) fn peers(&self) -> &Peers {
        &self.peers
    }
}
