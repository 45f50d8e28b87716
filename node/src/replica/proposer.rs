//! What the tasks of a group propose and confirm through.

use std::collections::BTreeMap;

use bytes::Bytes;
use dkv_base::id::{NodeId, Term};
use dkv_wire::message::Refusal;

use crate::common::suspend;
use crate::net::peers::Peers;
use crate::raft::{
    self, MachineHandle, MetricsWatch, Network, Outcome, Pace, Promises, Raft, ServerState,
};
use dkv_state::CommandResult;

/// Why something that was proposed to a group did not come to an answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ProposeError {
    /// This replica does not lead. No effect.
    #[error("not the leader")]
    NotLeader(Option<NodeId>),
    /// No quorum answers. No effect.
    #[error("{0}")]
    Unavailable(String),
    /// It is in a log, and whether it stays there is for another leader to say.
    #[error("{0}")]
    Unknown(String),
}

impl From<ProposeError> for Refusal {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NotLeader(primary) => Self::NotPrimary { primary },
            ProposeError::Unavailable(why) => Self::Unavailable(why),
            ProposeError::Unknown(why) => Self::Unknown(why),
        }
    }
}

/// What the tasks of a group propose and confirm through.
pub(crate) struct Proposer {
    pub(super) raft: Raft,
    pub(super) machine: MachineHandle,
    pub(super) promises: Promises,
    pub(super) network: Network,
    pub(super) peers: Peers,
    pub(super) pace: Pace,
}

impl Proposer {
    /// Proposes a batch to a shard and waits until it is applied.
    pub(crate) async fn propose_batch(
        &self,
        batch: Bytes,
    ) -> Result<(Term, Vec<CommandResult>), ProposeError> {
        self.pace.stir();
        match raft::propose(&self.raft, &self.pace, batch).await? {
            (term, Outcome::Shard(results)) => Ok((term, results)),
            (_, other) => Err(ProposeError::Unknown(format!("a shard answered {other}"))),
        }
    }

    /// Makes sure that this replica leads and has applied what was committed before the call.
    pub(crate) async fn confirm_leadership(&self) -> Result<Term, ProposeError> {
        self.pace.stir();
        raft::confirm_leadership(&self.raft, &self.machine, &self.network).await
    }

    /// What is committed, if this replica leads in that term and a voter that says it follows it
    /// makes a quorum with it.
    pub(crate) async fn confirmed_by(&self, voter: NodeId, term: Term) -> Option<u64> {
        self.pace.stir();
        raft::confirmed_by(&self.raft, &self.network, voter, term).await
    }

    /// The term in which this replica follows `leader`, if it does.
    pub(crate) fn followed(&self, leader: NodeId) -> Option<Term> {
        self.promises.followed(leader)
    }

    /// Time since each other member last answered this leader, in milliseconds. Empty on a
    /// follower.
    pub(super) fn silence(&self) -> BTreeMap<NodeId, u64> {
        self.network.silence()
    }

    /// How far the group's members are, and how much longer its times are for it.
    pub(crate) fn pace(&self) -> &Pace {
        &self.pace
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
            _ => self.machine.staleness_ms(),
        }
    }

    /// The state.
    pub(crate) fn machine(&self) -> &MachineHandle {
        &self.machine
    }

    /// The other nodes.
    pub(crate) fn peers(&self) -> &Peers {
        &self.peers
    }
}
