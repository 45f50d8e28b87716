//! The state of any group behind one face, for whoever binds groups to Raft and does not care which
//! kind one is.

use bytes::Bytes;
use dkv_base::id::{GroupId, Revision, Stamp};
use dkv_wire::codec::DecodeError;

use super::batch::CorruptBatch;
use super::command::CommandResult;
use super::directory::{Directory, DirectoryResult};
use super::engine::{Completed, EngineError, GroupStore, Rows};
use super::rows::{Changes, Counts, Meta};
use super::shard::ShardState;

/// The state of one replica of a group.
#[derive(Debug)]
pub enum GroupState {
    /// Of a shard.
    Shard(Box<ShardState>),
    /// Of the control group.
    Control(Box<Directory>),
}

/// What became of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Of a shard's batch: of each command, in order.
    Shard(Vec<CommandResult>),
    /// Of a change of the directory.
    Control(DirectoryResult),
}

/// An entry of the log that this node cannot apply. The replica must stop: going on would make it
/// differ from those that can.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CorruptEntry {
    /// In the log of a shard.
    #[error(transparent)]
    Batch(#[from] CorruptBatch),
    /// In the log of the control group.
    #[error("corrupt change of the directory: {0}")]
    Directory(#[from] DecodeError),
}

impl GroupState {
    /// The state of that group before its first entry.
    pub fn new(group: GroupId) -> Self {
        if group.is_shard() { Self::Shard(Box::default()) } else { Self::Control(Box::default()) }
    }

    /// The state at the last checkpoint or installed snapshot, with the moment that it is of, or an
    /// empty state if there is none.
    ///
    /// # Errors
    /// [`EngineError::Damaged`] or [`EngineError::Failed`].
    pub fn load(store: &GroupStore) -> Result<(Self, Option<Meta>), EngineError> {
        Self::load_rows(store)
    }

    /// The state that a snapshot is of, which does not stand yet.
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

    /// Applies one entry of the log.
    ///
    /// # Errors
    /// If it is not an entry of this group. Nothing was applied then.
    pub fn apply(&mut self, entry: &[u8]) -> Result<Applied, CorruptEntry> {
        match self {
            Self::Shard(shard) => Ok(Applied::Shard(shard.apply(entry)?)),
            Self::Control(directory) => Ok(Applied::Control(directory.apply(entry)?)),
        }
    }

    /// Takes what changed since the last call. `applied` is the caller's name for the last entry
    /// that was applied, at most [`limits::APPLIED_BYTES_MAX`](super::limits::APPLIED_BYTES_MAX).
    pub fn take_changes(&mut self, applied: Bytes) -> Changes {
        match self {
            Self::Shard(shard) => shard.take_changes(applied),
            Self::Control(directory) => directory.take_changes(applied),
        }
    }

    /// Takes back changes that could not be written.
    pub fn restore_changes(&mut self, changes: Changes) {
        match self {
            Self::Shard(shard) => shard.restore_changes(changes),
            Self::Control(directory) => directory.restore_changes(changes),
        }
    }

    /// A hash of all of the state.
    pub fn hash(&self) -> u64 {
        match self {
            Self::Shard(shard) => shard.hash(),
            Self::Control(directory) => directory.hash(),
        }
    }

    /// The latest revision.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Shard(shard) => shard.revision(),
            Self::Control(directory) => directory.revision(),
        }
    }

    /// The log's clock, in milliseconds.
    pub fn clock_ms(&self) -> u64 {
        match self {
            Self::Shard(shard) => shard.clock_ms(),
            Self::Control(directory) => directory.clock_ms(),
        }
    }

    /// The latest stamp of a write; of a shard.
    pub fn stamp(&self) -> Stamp {
        match self {
            Self::Shard(shard) => shard.stamp(),
            Self::Control(_) => Stamp::default(),
        }
    }

    /// How much the state holds. The control group's is not counted.
    pub fn counts(&self) -> Counts {
        match self {
            Self::Shard(shard) => shard.counts(),
            Self::Control(_) => Counts::default(),
        }
    }

    /// Bytes that the next checkpoint writes at most; see [`ShardState::changed_bytes`].
    pub fn changed_bytes(&self) -> usize {
        match self {
            Self::Shard(shard) => shard.changed_bytes(),
            Self::Control(_) => 0,
        }
    }

    /// The state of a shard, if this is one.
    pub fn as_shard(&self) -> Option<&ShardState> {
        match self {
            Self::Shard(shard) => Some(shard),
            Self::Control(_) => None,
        }
    }

    /// The same, to be changed in what is nobody else's business: which values are in memory.
    pub fn as_shard_mut(&mut self) -> Option<&mut ShardState> {
        match self {
            Self::Shard(shard) => Some(shard),
            Self::Control(_) => None,
        }
    }

    /// The directory, if this is the control group's state.
    pub fn as_directory(&self) -> Option<&Directory> {
        match self {
            Self::Shard(_) => None,
            Self::Control(directory) => Some(directory),
        }
    }
}
