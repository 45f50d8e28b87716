//! Consistency levels, and what a read may ask for.

use dkv_base::id::{NodeId, Number, Revision};
use serde::{Deserialize, Serialize};

/// What a read or a write guarantees. docs/consistency.md says it precisely.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Linearizable: not older than any write or strong read that was finished before it began.
    Strong,
    /// What one replica has at once, and how old that may be.
    Eventual,
    /// Eventual, and never older than what the asking client has written or seen. Nodes know it as
    /// eventual with a bound, which is what a receipt says then.
    Session,
    /// Strong, and every replica has it.
    All,
}

impl Level {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Strong => "strong",
            Self::Eventual => "eventual",
            Self::Session => "session",
            Self::All => "all",
        }
    }
}

/// What the answer to a read must guarantee, and who may give it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadMode {
    /// Strong, from the primary; any other node says who that is.
    Primary,
    /// Strong, from whichever replica is asked: it asks the primary how far to go.
    Replica,
    /// From the replica that is asked, as it is, within bounds.
    Eventual(ReadBounds),
    /// Strong, from the primary, and after it every replica that can be reached has as much.
    All,
    /// Of a scan: what this node has and nobody else's, be it no more than what waits in its
    /// outbox.
    Held,
}

/// How much an eventual answer may be behind. A replica that is further behind first goes as far as
/// the primary, if it can, and otherwise answers [`Refusal::Behind`](super::Refusal::Behind).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadBounds {
    /// How old it may be, in milliseconds.
    pub max_staleness_ms: Option<u64>,
    /// The revision that the shard must have reached there.
    pub at_least: Revision,
    /// Eventual writes that must be there: of these outboxes, all up to these numbers.
    pub deposits: Vec<(NodeId, Number)>,
}

impl ReadBounds {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a replica keeps within those of age and revision.
    pub fn allow(&self, revision: Revision, staleness_ms: Option<u64>) -> bool {
        let fresh =
            self.max_staleness_ms.is_none_or(|most| staleness_ms.is_some_and(|ms| ms <= most));
        fresh && revision >= self.at_least
    }
}

/// How far an answer at [`Level::All`] got.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// Replicas that were behind when they were asked, and are not any more.
    pub mended: Vec<NodeId>,
    /// Replicas of which it is not known that they have it.
    pub missing: Vec<NodeId>,
}
