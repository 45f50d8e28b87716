//! Proposals and confirmations of leadership for the tasks of a group.

use std::collections::BTreeMap;

use bytes::Bytes;
use dkv_base::id::{NodeId, Term};

use super::status;
use crate::common::suspend;
use crate::net::peers::Peers;
use crate::raft::{
    self, BatchTimes, DurabilityCheck, Leader, Metrics, MetricsWatch, Network, Outcome,
    ProposeError, Raft, ServerState, StateMachineHandle, TimeScale,
};
use dkv_state::CommandResult;

/// Times that a change of leadership may take for which a new leader has to apply an entry of its
/// own, before the caller is sent on.
const CATCH_UP_FACTOR: u32 = 4;

/// The time of a batch that is to get its time when it is proposed.
pub(crate) const UNSTAMPED: u64 = 0;

/// Whether a replica may stamp batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It leads in this term, and has applied everything before it.
    Leads(Term),
    /// It leads, and has yet to apply an entry of its own.
    CatchesUp,
    /// It follows this leader, if it knows one.
    Follows(Option<NodeId>),
}

fn standing(metrics: &Metrics) -> Standing {
    match (status::leading(metrics), metrics.state) {
        (Some(term), _) => Standing::Leads(term),
        (None, ServerState::Leader) => Standing::CatchesUp,
        (None, _) => Standing::Follows(metrics.current_leader),
    }
}

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
    /// Proposes a batch to a shard, with the time of now, and waits until it is applied.
    pub(crate) async fn propose_batch(
        &self,
        batch: Bytes,
    ) -> Result<(Term, Vec<CommandResult>), ProposeError> {
        self.propose_timed(batch).await.map(|(term, results, _)| (term, results))
    }

    /// Proposes a batch to a shard, with the time of now, and waits until it is applied. Returns
    /// its times too.
    ///
    /// The time is that of a leader which has applied everything before its term, and the batch is
    /// of that term or of none: in another, it would not be the time of the shard's clock.
    pub(crate) async fn propose_timed(
        &self,
        mut batch: Bytes,
    ) -> Result<(Term, Vec<CommandResult>, BatchTimes), ProposeError> {
        self.time_scale.wake();
        let mut has_led_before = false;
        loop {
            let term = self.caught_up().await?;
            batch = dkv_state::stamp_batch(batch, self.state_machine.clock_ms());
            let entry = batch.clone();
            match raft::propose_at(&self.raft, &self.time_scale, Some(term), entry).await {
                Ok((term, index, Outcome::Shard(results))) => {
                    return Ok((term, results, self.state_machine.entry_times().of(index)));
                }
                Ok((_, _, other)) => {
                    return Err(ProposeError::Unknown(format!("a shard answered {other}")));
                }
                // It leads again, in a later term.
                Err(ProposeError::NotLeader(_)) if !has_led_before && self.leads() => {
                    has_led_before = true;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn leads(&self) -> bool {
        !matches!(standing(&MetricsWatch::of(&self.raft).borrow()), Standing::Follows(_))
    }

    /// Returns the term in which this replica leads, once it has applied an entry of it, which is
    /// within a round trip of its election.
    async fn caught_up(&self) -> Result<Term, ProposeError> {
        let mut metrics = MetricsWatch::of(&self.raft);
        let mut has_waited = false;
        loop {
            let found = standing(&metrics.borrow());
            match found {
                Standing::Leads(term) => return Ok(term),
                Standing::CatchesUp => {
                    let caught_up = metrics
                        .wait_for(|metrics| !matches!(standing(metrics), Standing::CatchesUp));
                    let patience = raft::turnover_wait(&self.time_scale) * CATCH_UP_FACTOR;
                    match tokio::time::timeout(patience, caught_up).await {
                        Ok(Ok(_)) => {}
                        Ok(Err(_)) => return Err(ProposeError::NotLeader(None)),
                        Err(_) => {
                            return Err(ProposeError::Unavailable("no quorum answers".into()));
                        }
                    }
                }
                Standing::Follows(known) => {
                    let leader =
                        raft::next_leader(&self.raft, &self.time_scale, known, false).await;
                    if !matches!(leader, Leader::Me) || has_waited {
                        return Err(leader.into());
                    }
                    has_waited = true;
                }
            }
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

    /// The handle of the state machine.
    pub(crate) fn state_machine(&self) -> &StateMachineHandle {
        &self.state_machine
    }

    /// The other nodes.
    pub(crate) fn peers(&self) -> &Peers {
        &self.peers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::log_id;

    #[test]
    fn a_leader_stamps_once_it_has_applied_an_entry_of_its_own() {
        let [me, other] = [(); 2].map(|()| NodeId::random());
        let mut metrics = Metrics::new_initial(me);
        assert_eq!(standing(&metrics), Standing::Follows(None));

        metrics.current_term = 7;
        metrics.current_leader = Some(other);
        assert_eq!(standing(&metrics), Standing::Follows(Some(other)));

        metrics.state = ServerState::Leader;
        metrics.current_leader = Some(me);
        metrics.last_applied = Some(log_id(6, 40));
        assert_eq!(standing(&metrics), Standing::CatchesUp);
        metrics.last_applied = Some(log_id(7, 41));
        assert_eq!(standing(&metrics), Standing::Leads(Term(7)));
    }
}
