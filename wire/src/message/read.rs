//! Consistency levels, and what a read may ask for.

use dkv_base::id::{NodeId, Number, Revision};
use serde::{Deserialize, Serialize};

/// What a read or a write guarantees. docs/consistency.md says it precisely.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Linearizable: not older than any write or strong read that ended before it began.
    Strong,
    /// The state of one replica, without waiting, with a bound on its age.
    Eventual,
    /// Eventual, and never older than what the client has written or seen. For nodes it is an
    /// eventual read with bounds, and the receipt says so.
    Session,
    /// Strong, and every replica has caught up.
    All,
}

impl Level {
    /// The name of the level in commands and outputs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Strong => "strong",
            Self::Eventual => "eventual",
            Self::Session => "session",
            Self::All => "all",
        }
    }
}

/// The guarantee that the answer to a read must give, and which replica may answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadMode {
    /// Strong, from the primary. Any other node replies which node that is.
    Primary,
    /// Strong, from any replica: it asks the primary for the commit index and catches up.
    Replica,
    /// Eventual, from any replica that is within the bounds.
    Eventual(ReadBounds),
    /// Strong, from the primary, which first brings every reachable replica up to date.
    All,
    /// For scans only: what this very node holds, be it only in its outbox.
    Held,
}

/// How far an eventual answer may be behind. A replica that is further behind catches up with the
/// primary if it can, and otherwise answers [`Refusal::Behind`](super::Refusal::Behind).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadBounds {
    /// Greatest age of the answer, in milliseconds.
    pub max_staleness_ms: Option<u64>,
    /// The revision that the replica must have reached.
    pub at_least: Revision,
    /// Eventual writes that the answer must include: for each outbox, all up to this number.
    pub deposits: Vec<(NodeId, Number)>,
}

impl ReadBounds {
    /// Whether nothing is bounded.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a replica at that revision and of that age is within the bounds.
    pub fn allow(&self, revision: Revision, staleness_ms: Option<u64>) -> bool {
        let fresh =
            self.max_staleness_ms.is_none_or(|most| staleness_ms.is_some_and(|ms| ms <= most));
        fresh && revision >= self.at_least
    }
}

/// The replicas behind an answer at [`Level::All`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// Replicas that were behind and have caught up.
    pub mended: Vec<NodeId>,
    /// Replicas that are not known to have caught up.
    pub missing: Vec<NodeId>,
}
