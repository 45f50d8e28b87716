//! The mark that an offline recovery leaves in each data directory.
//!
//! A recovery writes into several directories, and can be cut off between any two writes. Before
//! the first one it says in all of them what it is about to write. A node does not start on a
//! directory with the mark of an unfinished recovery, and the next recovery first takes back what
//! was written. The mark of a finished recovery stays, as a record.

use std::io;
use std::path::{Path, PathBuf};

use dkv_base::durable;
use dkv_base::id::GroupId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::common::checked;
use crate::raft::offline::Unfinished;

const NAME: &str = "recovery";
const VERSION: u32 = 1;

/// What a recovery is about to write into a directory, or has written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecoveryMark {
    version: u32,
    /// The recovery: the same in all directories.
    pub(crate) id: Uuid,
    /// Whether everything was written, in all directories.
    pub(crate) is_finished: bool,
    /// The names of the nodes whose directories it was given.
    pub(crate) nodes: Vec<String>,
    /// What it writes into the logs of this directory.
    pub(crate) writes: Vec<(GroupId, MarkedWrite)>,
}

/// What a recovery writes into the log of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MarkedWrite {
    /// Entries at its end.
    Extended(Unfinished),
    /// All of it goes, and the group begins anew in `term`. The replica has known what is up to the
    /// entry `owed`.
    Emptied {
        /// The term.
        term: u64,
        /// The index of that entry.
        owed: u64,
    },
}

/// Why a mark cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MarkError {
    /// The file cannot be read or written. The error names it.
    #[error("{0}")]
    Io(io::Error),
    /// The file is not what a recovery wrote.
    #[error(
        "{} is malformed, so nothing tells whether a recovery was cut off here; put the copy of the data \
         directory back that was made before the recovery; or, once `dkv status` shows no lag on the other \
         nodes, keep this directory and start the node with another, empty one", .0.display()
    )]
    Malformed(PathBuf),
    /// A later release has written it.
    #[error("{} is of a later release of dkv: run that one", .0.display())]
    Version(PathBuf),
    /// A recovery was not finished.
    #[error(
        "a recovery of {} was cut off; run `dkv recover group` again, with the data directories of {}: \
         until it is finished no node may start here", .path.display(), .nodes.join(", ")
    )]
    Unfinished {
        /// The data directory.
        path: PathBuf,
        /// The nodes whose directories it was given.
        nodes: Vec<String>,
    },
}

impl RecoveryMark {
    /// Makes the mark of a recovery that is about to write.
    pub(crate) fn new(id: Uuid, nodes: Vec<String>, writes: Vec<(GroupId, MarkedWrite)>) -> Self {
        Self { version: VERSION, id, is_finished: false, nodes, writes }
    }

    /// Returns the mark of the same recovery for a directory into which it writes this.
    pub(crate) fn with(&self, writes: Vec<(GroupId, MarkedWrite)>, is_finished: bool) -> Self {
        Self { writes, is_finished, ..self.clone() }
    }

    /// Writes the mark durably.
    ///
    /// # Errors
    /// If the directory cannot be written.
    pub(crate) fn save(&self, directory: &Path) -> Result<(), MarkError> {
        let path = directory.join(NAME);
        checked::save(&path, self).map_err(MarkError::Io)
    }

    /// Returns the mark in a directory.
    ///
    /// # Errors
    /// If it cannot be read, or is malformed.
    pub(crate) fn load(directory: &Path) -> Result<Option<Self>, MarkError> {
        let path = directory.join(NAME);
        match checked::load::<Self>(&path) {
            Ok(None) => Ok(None),
            Ok(Some(Some(mark))) if mark.version == VERSION => Ok(Some(mark)),
            Ok(Some(Some(_))) => Err(MarkError::Version(path)),
            Ok(Some(None)) => Err(MarkError::Malformed(path)),
            Err(source) => Err(MarkError::Io(source)),
        }
    }

    /// Deletes the mark in a directory.
    ///
    /// # Errors
    /// If the directory cannot be written.
    pub(crate) fn delete(directory: &Path) -> Result<(), MarkError> {
        let path = directory.join(NAME);
        durable::remove(&path).map_err(MarkError::Io)
    }

    /// Checks that no recovery of a directory is unfinished.
    ///
    /// # Errors
    /// If there is one, or nobody can tell.
    pub(crate) fn require_finished(directory: &Path) -> Result<(), MarkError> {
        match Self::load(directory)? {
            Some(mark) if !mark.is_finished => {
                Err(MarkError::Unfinished { path: directory.to_owned(), nodes: mark.nodes })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_finished_unfinished_or_known_to_be_malformed() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(RecoveryMark::load(home.path()).unwrap(), None);
        RecoveryMark::require_finished(home.path()).unwrap();
        let write = MarkedWrite::Extended(Unfinished { first: 9, term: 99, committed: 7 });
        let writes = vec![(GroupId::CONTROL, write)];
        let mut mark = RecoveryMark::new(Uuid::nil(), vec!["n1".into(), "n3".into()], writes);
        mark.save(home.path()).unwrap();
        assert_eq!(RecoveryMark::load(home.path()).unwrap(), Some(mark.clone()));
        let refused = RecoveryMark::require_finished(home.path()).unwrap_err().to_string();
        assert!(refused.contains("was cut off") && refused.contains("of n1, n3:"), "{refused}");
        mark.is_finished = true;
        mark.save(home.path()).unwrap();
        RecoveryMark::require_finished(home.path()).unwrap();
        let whole = std::fs::read(home.path().join(NAME)).unwrap();
        for length in 0..whole.len() {
            std::fs::write(home.path().join(NAME), &whole[..length]).unwrap();
            let refused = RecoveryMark::require_finished(home.path());
            assert!(matches!(refused, Err(MarkError::Malformed(_))), "{length}");
        }
        RecoveryMark::delete(home.path()).unwrap();
        RecoveryMark::require_finished(home.path()).unwrap();
    }
}
