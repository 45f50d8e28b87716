//! What a replica leaves behind when it is deleted, for one of the same shard that comes after it
//! here.
//!
//! Raft counts on members that forget neither their votes nor what they acknowledged. A replica
//! that was deleted has forgotten both, and its node may be given one of the same shard again,
//! under the same id. Its log is then filled from the beginning, and for a while names members of
//! long ago, of which it may have been the only one: it would elect itself, and take writes that
//! nobody else has. Or it would give its vote, or its acknowledgement, to a leader that was deposed
//! while the old replica looked on.
//!
//! So the entry by which the old one was let go is kept, and a vote for the leader that said so.
//! The new one begins with that vote, so that no earlier leader can use it, and takes no part in
//! elections until it has that entry: by then it knows everything that the old one knew.

use std::io;
use std::path::{Path, PathBuf};

use dkv_base::durable;
use dkv_base::id::GroupId;
use dkv_base::mutants::{Mutant, planted};
use dkv_wire::codec::{decode, encode};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::raft::Vote;

/// What is kept of a replica that was deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Former {
    /// The entry by which the shard did not count on it any more.
    pub(crate) index: u64,
    /// The last vote that it gave, or one for the leader of that entry, whichever is the later.
    pub(crate) vote: Vote,
}

/// Why what was kept is not known.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormerError {
    /// The file cannot be read now.
    #[error("{0}")]
    Io(String),
    /// It was read, and is not what was written.
    #[error("{} is malformed", .0.display())]
    Malformed(PathBuf),
}

impl Former {
    /// What is to be kept of a replica that has given `own` vote, and was let go by that entry, by
    /// the word of a leader of that vote.
    pub(crate) fn new(index: u64, leader: Vote, own: Option<Vote>) -> Self {
        let own = own.filter(|own| own.leader_id.term > leader.leader_id.term);
        Self { index, vote: own.unwrap_or(leader) }
    }

    /// Keeps it, in place of one that was kept before.
    pub(crate) fn save(&self, directory: &Path, group: GroupId) -> io::Result<()> {
        let content = encode(self);
        let mut file = xxh3_64(&content).to_le_bytes().to_vec();
        file.extend_from_slice(&content);
        let path = path(directory, group);
        if let Some(parent) = path.parent() {
            durable::create_dir(parent)?;
        }
        durable::write(&path, &file)
    }

    /// What was kept of the replica of a group, if there was one.
    ///
    /// # Errors
    /// If it cannot be read, with what is wrong.
    pub(crate) fn load(directory: &Path, group: GroupId) -> Result<Option<Self>, FormerError> {
        if planted(Mutant::ForgetFormer) {
            return Ok(None);
        }
        let path = path(directory, group);
        let content = durable::read(&path).map_err(|error| FormerError::Io(error.to_string()))?;
        let Some(content) = content else { return Ok(None) };
        let whole = content.split_first_chunk().and_then(|(checksum, content)| {
            (u64::from_le_bytes(*checksum) == xxh3_64(content)).then_some(content)
        });
        let former = whole.and_then(|content| decode(content).ok());
        former.map(Some).ok_or(FormerError::Malformed(path))
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
            assert_eq!(Former::new(9, led, vote), Former { index: 9, vote: kept });
        }
    }

    #[test]
    fn it_is_kept_and_found_malformed() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(Former::load(home.path(), SHARD), Ok(None));
        for index in [7, 8] {
            let former = Former::new(index, Vote::new(5, NodeId::random()), None);
            former.save(home.path(), SHARD).unwrap();
            assert_eq!(Former::load(home.path(), SHARD), Ok(Some(former)));
        }
        assert_eq!(Former::load(home.path(), GroupId(4)), Ok(None));
        let path = path(home.path(), SHARD);
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = Former::load(home.path(), SHARD).unwrap_err();
            assert_eq!(error, FormerError::Malformed(path.clone()));
        }
    }
}
