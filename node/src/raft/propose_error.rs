//! Why a group did not answer what was proposed to it.

use dkv_base::id::NodeId;
use dkv_wire::message::Refusal;

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
