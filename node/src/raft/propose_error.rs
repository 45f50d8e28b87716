//! The reasons why a group did not answer a proposal.

use dkv_base::id::NodeId;
use dkv_wire::message::Refusal;

/// The reason why a proposal to a group got no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ProposeError {
    /// This replica does not lead. The proposal had no effect.
    #[error("not the leader")]
    NotLeader(Option<NodeId>),
    /// No quorum answers. The proposal had no effect.
    #[error("{0}")]
    Unavailable(String),
    /// The proposal is in a log, and another leader decides whether it stays there.
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
