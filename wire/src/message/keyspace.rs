//! Keyspaces, as administrators ask for them.

use serde::{Deserialize, Serialize};

use crate::network::KeyspaceInfo;

/// A keyspace and its use, by the reports of its primaries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyspaceUse {
    /// The keyspace.
    pub keyspace: KeyspaceInfo,
    /// Number of its shards whose primary has reported a moment ago.
    pub shards_led: u32,
    /// Size of the keys and values in these shards, in bytes.
    pub bytes: u64,
}
