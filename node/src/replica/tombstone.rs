//! The tombstone of a deleted replica, for a later replica of the same shard on this node.
//!
//! Raft relies on members that forget neither their votes nor their acknowledgements. A deleted
//! replica has forgotten both, and its node may be given a replica of the same shard again, under
//! the same id. The log of the new replica is then filled from the beginning, and for a while names
//! members of long ago, of which this node may have been the only one: it would elect itself, and
//! take writes that no other node has. Or it would give its vote, or its acknowledgement, to a
//! leader that was deposed while the old replica looked on.
//!
//! So the node keeps the index of the entry that released the old replica, and a vote for the
//! leader that said so. The new replica begins with that vote, so that no earlier leader can use
//! it, and takes no part in elections until it has that entry: by then it knows everything that the
//! old one knew.

use std::io;
use std::path::{Path, PathBuf};

use dkv_base::durable;
use dkv_base::id::GroupId;
use dkv_base::mutants::{Mutant, planted};
use serde::{Deserialize, Serialize};

use crate::common::checked;
use crate::raft::Vote;

/// The record that a deleted replica leaves behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReplicaTombstone {
    /// Index of the entry from which on the shard no longer counted on the replica.
    pub(crate) index: u64,
    /// The replica's last vote, or one for the leader of that entry, whichever is later.
    pub(crate) vote: Vote,
}

/// The reason why a tombstone cannot be loaded.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TombstoneError {
    /// The file cannot be read now.
    #[error("{0}")]
    Io(String),
    /// The file was read, and does not contain what was written.
    #[error("{} is malformed", .0.display())]
    Malformed(PathBuf),
}

impl ReplicaTombstone {
    /// Makes the tombstone of a replica that gave the vote `own` and was released by entry `index`,
    /// on the word of a leader with the vote `leader`.
    pub(crate) fn new(index: u64, leader: Vote, own: Option<Vote>) -> Self {
        let own = own.filter(|own| own.leader_id.term > leader.leader_id.term);
        Self { index, vote: own.unwrap_or(leader) }
    }

    /// Saves the tombstone, in place of an earlier one.
    pub(crate) fn save(&self, directory: &Path, group: GroupId) -> io::Result<()> {
        let path = path(directory, group);
        if let Some(parent) = path.parent() {
            durable::create_dir(parent)?;
        }
        checked::save(&path, self)
    }

    /// Returns the shards of which there is a tombstone, as far as the directory can be read.
    pub(crate) fn list(directory: &Path) -> Vec<GroupId> {
        let files = std::fs::read_dir(directory.join("former")).into_iter().flatten();
        let names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
        names.filter_map(|name| name.parse().ok().map(GroupId)).collect()
    }

    /// Deletes the tombstone of a shard, if there is one.
    pub(crate) fn delete(directory: &Path, group: GroupId) -> io::Result<()> {
        durable::remove(&path(directory, group))
    }

    /// Loads the tombstone of a group's replica, if there is one.
    ///
    /// # Errors
    /// Returns the problem, if the file cannot be read or is malformed.
    pub(crate) fn load(directory: &Path, group: GroupId) -> Result<Option<Self>, TombstoneError> {
        if planted(Mutant::ForgetTombstone) {
            return Ok(None);
        }
        let path = path(directory, group);
        let found = checked::load(&path).map_err(|error| TombstoneError::Io(error.to_string()))?;
        found.map(|whole| whole.ok_or(TombstoneError::Malformed(path))).transpose()
    }
}

fn path(directory: &Path, group: GroupId) -> PathBuf {
    directory.join("former").join(group.0.to_string())
}

#[cfg(test)]
mod tests {
    use dkv_base::id::NodeId;

    use super::*;

    const SHARD: GroupId = GroupId(3);

    #[test]
    fn the_later_vote_is_kept() {
        let (own, leader) = (NodeId::random(), NodeId::random());
        let led = Vote::new(5, leader);
        for (vote, kept) in [
            (None, led),
            (Some(Vote::new(4, own)), led),
            // Another leader is known to have been elected in that term: the vote was in vain.
            (Some(Vote::new(5, own)), led),
            (Some(Vote::new(6, own)), Vote::new(6, own)),
        ] {
            assert_eq!(
                ReplicaTombstone::new(9, led, vote),
                ReplicaTombstone { index: 9, vote: kept }
            );
        }
    }

    #[test]
    fn it_is_kept_and_found_malformed() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(ReplicaTombstone::load(home.path(), SHARD), Ok(None));
        for index in [7, 8] {
            let tombstone = ReplicaTombstone::new(index, Vote::new(5, NodeId::random()), None);
            tombstone.save(home.path(), SHARD).unwrap();
            assert_eq!(ReplicaTombstone::load(home.path(), SHARD), Ok(Some(tombstone)));
        }
        assert_eq!(ReplicaTombstone::load(home.path(), GroupId(4)), Ok(None));
        assert_eq!(ReplicaTombstone::list(home.path()), [SHARD]);
        let other = ReplicaTombstone::new(7, Vote::new(5, NodeId::random()), None);
        other.save(home.path(), GroupId(4)).unwrap();
        ReplicaTombstone::delete(home.path(), GroupId(4)).unwrap();
        ReplicaTombstone::delete(home.path(), GroupId(4)).unwrap();
        assert_eq!(ReplicaTombstone::list(home.path()), [SHARD]);
        let path = path(home.path(), SHARD);
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = ReplicaTombstone::load(home.path(), SHARD).unwrap_err();
            assert_eq!(error, TombstoneError::Malformed(path.clone()));
        }
    }
}
