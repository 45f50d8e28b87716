//! Opens the data directories that are left, and reads what each has of every group.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use dkv_base::id::{GroupId, NodeId};
use dkv_wire::certificate::Credentials;
use uuid::Uuid;

use super::error::RecoveryError;
use crate::common::clock::NodeClock;
use crate::net::incarnations::{self, IncarnationFileError};
use crate::process::stores::open_stopped;
use crate::raft::StateMachine;
use crate::raft::offline::{self, OnDisk};
use crate::replica::recovery_mark::{MarkError, MarkedWrite, RecoveryMark};
use crate::replica::tombstone::{ReplicaTombstone, TombstoneError};
use crate::storage::data_dir::{DataDir, DataDirError, NodeFile};
use dkv_state::{Directory, Engine, EngineError};
use dkv_wal::{GroupLog, Wal};

/// A data directory that is open for a recovery.
pub(super) struct Opened {
    directory: DataDir,
    file: NodeFile,
    pub(super) credentials: Credentials,
    /// What an earlier recovery has written here.
    mark: Option<RecoveryMark>,
    /// Whether that recovery is finished, by the mark in another directory, and does not say so
    /// here.
    is_late: bool,
    wal: Wal,
    engine: Engine,
}

impl Opened {
    /// Opens a directory, which stays as it is.
    fn open(path: &Path) -> Result<Self, RecoveryError> {
        let no_node = || RecoveryError::NoNode(path.to_owned());
        // Otherwise it would be created.
        match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => {}
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                let path = path.display();
                return Err(RecoveryError::Directory(format!("{path} cannot be read: {source}")));
            }
            Ok(_) | Err(_) => return Err(no_node()),
        }
        let directory = DataDir::open(path)?;
        let credentials = directory.credentials()?.ok_or_else(no_node)?;
        let file = directory.node_file(&credentials)?.ok_or_else(no_node)?;
        if !file.log_begun {
            return Err(no_node());
        }
        let mark = RecoveryMark::load(path)?;
        let (wal, engine) = open_stopped(&directory, &file)?;
        Ok(Self { directory, file, credentials, mark, is_late: false, wal, engine })
    }

    pub(super) fn id(&self) -> NodeId {
        self.file.id
    }

    pub(super) fn file(&self) -> &NodeFile {
        &self.file
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn log(&self, group: GroupId) -> GroupLog {
        self.wal.group(group)
    }

    /// Returns the mark of a recovery that was cut off.
    pub(super) fn unfinished(&self) -> Option<&RecoveryMark> {
        self.mark.as_ref().filter(|mark| !mark.is_finished && !self.is_late)
    }

    /// Returns whether the mark keeps the node from starting.
    pub(super) fn is_held(&self) -> bool {
        self.mark.as_ref().is_some_and(|mark| !mark.is_finished)
    }

    /// Lets the node start.
    pub(super) fn release(&self) -> Result<(), MarkError> {
        match &self.mark {
            Some(mark) if self.is_late => mark.with(mark.writes.clone(), true).save(self.path()),
            Some(mark) if !mark.is_finished => RecoveryMark::delete(self.path()),
            _ => Ok(()),
        }
    }

    /// Returns the index of the last entry that a replica of a group has known that this directory
    /// has, or has had; `None` if there has been none.
    pub(super) fn owes(&self, group: GroupId, copy: Option<&Copy>) -> io::Result<Option<u64>> {
        if let Some(copy) = copy {
            return Ok(Some(copy.owed.max(copy.disk.last.1)));
        }
        let tombstone = ReplicaTombstone::load(self.path(), group).map_err(io::Error::other)?;
        Ok(tombstone.map(|tombstone| tombstone.index))
    }

    /// Returns what a recovery that was cut off has written into the log of a group, or was about
    /// to write.
    fn marked(&self, group: GroupId) -> Option<MarkedWrite> {
        let writes = self.unfinished()?.writes.iter();
        writes.clone().find(|(marked, _)| *marked == group).map(|(_, write)| *write)
    }

    /// Begins an incarnation of the node, as a start does: what is written now is written by a run
    /// that no older copy of the directory has had.
    pub(super) fn begin_incarnation(&self) -> Result<(), IncarnationFileError> {
        incarnations::begin(self.id(), self.path(), true)?.open(self.wal.clone())
    }

    /// Deletes the rows of a group.
    pub(super) fn delete_rows(&self, group: GroupId) -> Result<(), EngineError> {
        self.engine.group(group)?.remove()
    }

    /// Closes the log: everything that was written is on disk.
    pub(super) fn close(&self) {
        self.wal.close();
    }

    /// Makes an error that says why the log of a group, or a row that one of its entries changes,
    /// cannot be read. Only what was read, and is not what was written, is damage: an empty
    /// directory instead of a good one is the last thing that a recovery may advise.
    fn of_reading(&self, error: io::Error) -> DataDirError {
        let error = match error.downcast::<EngineError>() {
            Ok(error) => return self.directory.of_engine(error),
            Err(error) => error,
        };
        match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                self.directory.damaged(error.to_string())
            }
            _ => self.directory.unusable(&error),
        }
    }

    /// Reads the replica of a group. The directory is that of the control group.
    fn read(&self, group: GroupId) -> Result<(Copy, Option<Directory>), RecoveryError> {
        let loaded = self.engine.group(group);
        let loaded = loaded.and_then(|store| StateMachine::load(store, NodeClock::default()));
        let state = loaded.map_err(|error| self.directory.of_engine(error))?;
        let log = self.wal.group(group);
        let marked = self.marked(group);
        let extended = match marked {
            Some(MarkedWrite::Extended(unfinished)) => Some(unfinished),
            _ => None,
        };
        let disk = offline::read(&log, &state, extended);
        let mut disk = disk.map_err(|error| self.of_reading(error))?;
        let tombstone = ReplicaTombstone::load(self.path(), group);
        let tombstone = tombstone.map_err(|error| match error {
            TombstoneError::Malformed(_) => self.directory.damaged(error.to_string()),
            TombstoneError::Io(_) => self.directory.unusable(&error),
        })?;
        let mut owed = tombstone.map_or(0, |tombstone| tombstone.index);
        if let Some(MarkedWrite::Emptied { term, owed: before }) = marked {
            // Whatever is here, it is not what was here.
            (disk.term, owed) = (disk.term.max(term), owed.max(before));
            (disk.last, disk.committed) = ((0, 0), 0);
            (disk.voters, disk.members) = (Vec::new(), BTreeSet::new());
        }
        let (summary, handle) = (state.handle().summary(), state.handle());
        let copy = Copy {
            node: self.file.id,
            is_whole: !disk.voters.is_empty() && owed <= disk.last.1,
            revision: summary.revision.0,
            keys: summary.keys,
            bytes: summary.bytes,
            owed,
            disk,
        };
        Ok((copy, handle.with_directory(Directory::clone)))
    }
}

/// What one directory has of a group.
#[derive(Clone, Debug)]
pub(super) struct Copy {
    pub(super) node: NodeId,
    pub(super) disk: OnDisk,
    /// Whether it may go on: it has begun, and has everything that an earlier replica in its place
    /// has known.
    pub(super) is_whole: bool,
    /// Index of the last entry that an earlier replica in its place has known; zero if there was
    /// none.
    pub(super) owed: u64,
    pub(super) revision: u64,
    pub(super) keys: u64,
    pub(super) bytes: u64,
}

impl Copy {
    /// Returns whether the replica votes in its newest configuration.
    pub(super) fn votes(&self) -> bool {
        self.disk.voters.iter().any(|voters| voters.contains(&self.node))
    }
}

/// Returns the most complete of some replicas: the one with the latest last entry, which has all
/// that any of them knows to be committed.
pub(super) fn most_complete(copies: &[Copy]) -> Option<&Copy> {
    let whole = copies.iter().filter(|copy| copy.is_whole);
    // The ids settle a tie, so that a repetition finds the same one.
    whole.max_by_key(|copy| (copy.disk.last, copy.votes(), copy.node))
}

/// What all directories have.
pub(super) struct Found {
    /// The nodes of the directories.
    pub(super) given: Vec<NodeId>,
    /// The newest directory of the network among them.
    pub(super) directory: Directory,
    /// The replicas of each group.
    pub(super) copies: BTreeMap<GroupId, Vec<Copy>>,
}

/// Opens all directories and reads all of their replicas, one after the other.
pub(super) fn open(paths: &[PathBuf]) -> Result<(Vec<Opened>, Found), RecoveryError> {
    let mut nodes: Vec<Opened> = Vec::new();
    for path in paths {
        let node = Opened::open(path)?;
        let of = |other: &Opened| (other.path().to_owned(), path.clone());
        if let Some(first) = nodes.first().filter(|it| it.file.network != node.file.network) {
            let (first, this) = of(first);
            return Err(RecoveryError::OtherNetwork(first, this));
        }
        if let Some(same) = nodes.iter().find(|it| it.id() == node.id()) {
            let (same, this) = of(same);
            return Err(RecoveryError::Twice(same, this));
        }
        nodes.push(node);
    }
    let marks = nodes.iter().filter_map(|node| node.mark.as_ref());
    let finished: BTreeSet<Uuid> = marks.filter(|it| it.is_finished).map(|it| it.id).collect();
    for node in &mut nodes {
        // It was cut off after the last write, while it said so.
        let mark = node.mark.as_ref().filter(|mark| finished.contains(&mark.id));
        node.is_late = mark.is_some_and(|mark| !mark.is_finished);
    }
    let mut copies: BTreeMap<GroupId, Vec<Copy>> = BTreeMap::new();
    let mut directories = BTreeMap::new();
    for node in &nodes {
        let (copy, directory) = node.read(GroupId::CONTROL)?;
        directories.insert(copy.node, directory);
        copies.entry(GroupId::CONTROL).or_default().push(copy);
    }
    let keeper = most_complete(&copies[&GroupId::CONTROL]);
    let directory = keeper.and_then(|keeper| directories.remove(&keeper.node).flatten());
    let directory = directory.filter(Directory::exists).ok_or(RecoveryError::NoControlGroup)?;
    for node in &nodes {
        if !directory.nodes().contains_key(&node.id()) {
            return Err(RecoveryError::Stranger(node.file.name.clone()));
        }
        for shard in node.wal.groups().into_iter().filter(|group| group.is_shard()) {
            if directory.was_dropped(shard) {
                continue;
            }
            if !directory.groups().contains_key(&shard) {
                return Err(RecoveryError::UnknownShard(shard));
            }
            copies.entry(shard).or_default().push(node.read(shard)?.0);
        }
    }
    let given = nodes.iter().map(Opened::id).collect();
    Ok((nodes, Found { given, directory, copies }))
}

#[cfg(test)]
mod tests;
