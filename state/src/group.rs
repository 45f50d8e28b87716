//! The state of any group behind one interface, for the code that binds groups to Raft without
//! regard to their kind.

use bytes::Bytes;
use dkv_base::id::{GroupId, Revision, Stamp};
use dkv_wire::codec::DecodeError;

use super::batch::CorruptBatch;
use super::command::CommandResult;
use super::directory::{Directory, DirectoryResult};
use super::engine::{Completed, EngineError, GroupStore, Rows};
use super::rows::{Changes, Counts, Meta};
use super::shard::ShardState;
use super::shard::needed::Needed;

/// The state of one replica of a group.
#[derive(Debug)]
pub enum GroupState {
    /// The state of a shard.
    Shard(Box<ShardState>),
    /// The state of the control group.
    Control(Box<Directory>),
}

/// The result of applying an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The results of the commands of a shard's batch, in order.
    Shard(Vec<CommandResult>),
    /// The result of a change of the directory.
    Control(DirectoryResult),
}

/// An entry of the log that this node cannot apply. The replica must stop: if it went on, it would
/// differ from the replicas that can apply the entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CorruptEntry {
    /// An entry in the log of a shard.
    #[error(transparent)]
    Batch(#[from] CorruptBatch),
    /// An entry in the log of the control group.
    #[error("corrupt change of the directory: {0}")]
    Directory(#[from] DecodeError),
}

impl GroupState {
    /// Creates the state of a group before its first entry.
    pub fn new(group: GroupId) -> Self {
        if group.is_shard() { Self::Shard(Box::default()) } else { Self::Control(Box::default()) }
    }

    /// Loads the state at the last checkpoint or installed snapshot, with the moment it belongs to,
    /// or an empty state if there is none.
    ///
    /// # Errors
    /// [`EngineError::Damaged`] or [`EngineError::Failed`].
    pub fn load(store: &GroupStore) -> Result<(Self, Option<Meta>), EngineError> {
        Self::load_rows(store)
    }

    /// Loads the state of a snapshot that is complete but not switched to yet.
    ///
    /// # Errors
    /// [`EngineError::Damaged`] or [`EngineError::Failed`].
    pub fn load_completed(snapshot: &Completed) -> Result<Self, EngineError> {
        Ok(Self::load_rows(snapshot)?.0)
    }

    fn load_rows(rows: &impl Rows) -> Result<(Self, Option<Meta>), EngineError> {
        let mut state = Self::new(rows.group());
        if let Self::Shard(shard) = &mut state {
            shard.set_memory(rows.value_memory());
        }
        let (meta, generation) = match &mut state {
            Self::Shard(shard) => rows.load(shard.as_mut())?,
            Self::Control(directory) => rows.load(directory.as_mut())?,
        };
        match (&mut state, &meta) {
            (Self::Shard(shard), None) => shard.set_generation(generation),
            (Self::Control(directory), None) => directory.set_generation(generation),
            (Self::Shard(shard), Some(meta)) => {
                shard.finish_load(meta, generation).map_err(|error| rows.damaged(error.0))?;
            }
            (Self::Control(directory), Some(meta)) => {
                directory.finish_load(meta, generation).map_err(|error| rows.damaged(error.0))?;
            }
        }
        Ok((state, meta))
    }

    /// Applies one entry of the log. All values that its transactions need must be in memory.
    ///
    /// # Errors
    /// As for [`Self::apply_with`].
    pub fn apply(&mut self, entry: &[u8]) -> Result<Applied, CorruptEntry> {
        self.apply_with(entry, &Needed::default())
    }

    /// Applies one entry of the log, with the values that its transactions need
    /// ([`ShardState::needed`]).
    ///
    /// # Errors
    /// If the bytes are not an entry of this group, or a value is missing. The replica cannot go on
    /// then.
    pub fn apply_with(&mut self, entry: &[u8], needed: &Needed) -> Result<Applied, CorruptEntry> {
        match self {
            Self::Shard(shard) => Ok(Applied::Shard(shard.apply_with(entry, needed)?)),
            Self::Control(directory) => Ok(Applied::Control(directory.apply(entry)?)),
        }
    }

    /// Takes the changes since the last call. `applied` is the caller's name for the last entry
    /// that was applied, at most [`limits::APPLIED_BYTES_MAX`](super::limits::APPLIED_BYTES_MAX)
    /// bytes long.
    pub fn take_changes(&mut self, applied: Bytes) -> Changes {
        match self {
            Self::Shard(shard) => shard.take_changes(applied),
            Self::Control(directory) => directory.take_changes(applied),
        }
    }

    /// Puts back changes that could not be written.
    pub fn restore_changes(&mut self, changes: Changes) {
        match self {
            Self::Shard(shard) => shard.restore_changes(changes),
            Self::Control(directory) => directory.restore_changes(changes),
        }
    }

    /// Returns a hash of the whole state.
    pub fn hash(&self) -> u64 {
        match self {
            Self::Shard(shard) => shard.hash(),
            Self::Control(directory) => directory.hash(),
        }
    }

    /// Returns the latest revision.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Shard(shard) => shard.revision(),
            Self::Control(directory) => directory.revision(),
        }
    }

    /// Returns the log's clock, in milliseconds.
    pub fn clock_ms(&self) -> u64 {
        match self {
            Self::Shard(shard) => shard.clock_ms(),
            Self::Control(directory) => directory.clock_ms(),
        }
    }

    /// Returns the latest stamp of a write; the default for the control group.
    pub fn stamp(&self) -> Stamp {
        match self {
            Self::Shard(shard) => shard.stamp(),
            Self::Control(_) => Stamp::default(),
        }
    }

    /// Returns the size of the state; the default for the control group.
    pub fn counts(&self) -> Counts {
        match self {
            Self::Shard(shard) => shard.counts(),
            Self::Control(_) => Counts::default(),
        }
    }

    /// Returns the most bytes that the next checkpoint can write; see
    /// [`ShardState::changed_bytes`].
    pub fn changed_bytes(&self) -> usize {
        match self {
            Self::Shard(shard) => shard.changed_bytes(),
            Self::Control(_) => 0,
        }
    }

    /// Returns the state of a shard, if this is one.
    pub fn as_shard(&self) -> Option<&ShardState> {
        match self {
            Self::Shard(shard) => Some(shard),
            Self::Control(_) => None,
        }
    }

    /// Returns the same for changing which values are in memory, which affects no other node.
    pub fn as_shard_mut(&mut self) -> Option<&mut ShardState> {
        match self {
            Self::Shard(shard) => Some(shard),
            Self::Control(_) => None,
        }
    }

    /// Returns the directory, if this is the control group's state.
    pub fn as_directory(&self) -> Option<&Directory> {
        match self {
            Self::Shard(_) => None,
            Self::Control(directory) => Some(directory),
        }
    }
}
