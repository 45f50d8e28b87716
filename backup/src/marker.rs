//! The restore marker, which a restore leaves in a keyspace until it is complete.

use serde::{Deserialize, Serialize};

/// The key of the restore marker. No backup has it.
pub(crate) const KEY: &[u8] = b"\0dkv-restore-in-progress";

/// The value of the restore marker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marker {
    /// The backup.
    pub(crate) backup: String,
    /// The keyspace in the backup.
    pub(crate) keyspace: String,
    /// The token of the cut.
    pub(crate) cut: String,
    /// Every key up to this one is restored.
    pub(crate) through: Vec<u8>,
    /// Whether the keyspace was created for the restore.
    pub(crate) created: bool,
}
