//! What a backup is of, and what it turned out to hold.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::chunk::Hash;

/// The kind of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Everything.
    Full,
    /// What changed since another backup.
    Increment,
    /// Everything, and what changes from then on.
    Followed,
}

impl Kind {
    /// Returns a word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Increment => "increment",
            Self::Followed => "followed",
        }
    }
}

/// What a backup is of; written before anything else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) backup: String,
    pub(crate) kind: Kind,
    pub(crate) network: Uuid,
    /// When it began, in milliseconds since 1970.
    pub(crate) begun_ms: u64,
    /// Whether it is of all keyspaces that there were.
    pub(crate) all: bool,
    /// The keyspaces; empty for a followed backup of all keyspaces.
    pub(crate) keyspaces: Vec<String>,
    /// The backup that an increment goes on from.
    pub(crate) parent: Option<String>,
}

/// The contents of a backup that is complete; written after everything else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// The hash of the plan.
    pub(crate) plan: Hash,
    /// A chain for each keyspace.
    pub(crate) chains: Vec<ChainSummary>,
}

/// A whole chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChainSummary {
    pub(crate) keyspace: String,
    /// The number of the first chunk that counts.
    pub(crate) first: u64,
    /// The hashes of the chunks from then on.
    pub(crate) hashes: Vec<Hash>,
}
