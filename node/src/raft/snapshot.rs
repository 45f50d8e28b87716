//! Snapshots on their way: rows of our newest checkpoint to another node, or its rows to us.
//!
//! For openraft an error while a snapshot is installed is the end of the node. So it hears of one
//! only when all that can go wrong with a transfer is behind it: an [`Incoming`] takes rows as they
//! come, and becomes an [`Arrived`] once they are those that the head named, durable, and read back
//! as a state. What fails before that is answered to the sender, who tries again. Installing is a
//! switch.
//!
//! Deliberately missing: a second snapshot at a time. One that is complete keeps others from
//! becoming so until it is installed or given up.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use dkv_base::platform::{self, run_blocking};
use dkv_wire::codec::{decode, encode};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::codec::invalid;
use super::{LogId, Snapshot, SnapshotMeta, StoredMembership};
use dkv_state::{Completed, EngineError, GroupState, GroupStore, Installer, Meta, SnapshotReader};

/// The moment that a state is of, as it stands in its checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Position {
    pub(super) applied: Option<LogId>,
    pub(super) membership: StoredMembership,
}

impl Position {
    pub(super) fn decode(bytes: &[u8]) -> io::Result<Self> {
        decode(bytes).map_err(invalid)
    }
}

/// What openraft passes around as a snapshot.
pub(crate) enum SnapshotData {
    /// Rows of our newest checkpoint, on their way to another node.
    Outgoing(Outgoing),
    /// Rows from another node, whole and durable, that are not the state yet.
    Arrived(Arrived),
}

/// Rows of our newest checkpoint.
pub(crate) struct Outgoing {
    reader: OffThread<SnapshotReader>,
    meta: Bytes,
}

impl Outgoing {
    /// What the store says of the rows.
    pub(crate) fn meta(&self) -> Bytes {
        self.meta.clone()
    }

    /// The next rows; `None` after the last.
    pub(crate) async fn next_rows(&mut self) -> io::Result<Option<Bytes>> {
        let Some(mut reader) = self.reader.take() else { return Ok(None) };
        let read = run_blocking(move || {
            let rows = reader.next_chunk()?;
            Ok::<_, EngineError>((rows.is_some().then(|| OffThread::new(reader)), rows))
        });
        let (reader, rows) = read.await?.map_err(io::Error::other)?;
        self.reader = reader.unwrap_or_default();
        Ok(rows)
    }
}

/// Our newest checkpoint, if there is one.
pub(super) async fn outgoing(store: GroupStore) -> io::Result<Option<Snapshot>> {
    let opened = run_blocking(move || Ok::<_, EngineError>(store.snapshot()?.map(open))).await?;
    let Some((reader, meta)) = opened.map_err(io::Error::other)? else { return Ok(None) };
    let position = Position::decode(&meta.applied)?;
    let outgoing = Outgoing { reader, meta: Bytes::from(meta.encode()) };
    Ok(Some(Snapshot {
        meta: SnapshotMeta { last_log_id: position.applied, last_membership: position.membership },
        snapshot: SnapshotData::Outgoing(outgoing),
    }))
}

fn open(reader: SnapshotReader) -> (OffThread<SnapshotReader>, Meta) {
    let meta = reader.meta().clone();
    (OffThread::new(reader), meta)
}

/// Why a snapshot was not taken.
#[derive(Debug)]
pub(crate) enum NotTaken {
    /// It, or its transfer, is to blame, or there is no room: the sender may try again.
    Refused(String),
    /// This node is: it must stop.
    Unfit(String),
}

impl From<String> for NotTaken {
    fn from(why: String) -> Self {
        Self::Refused(why)
    }
}

impl From<EngineError> for NotTaken {
    fn from(error: EngineError) -> Self {
        if error.is_fatal() {
            Self::Unfit(error.to_string())
        } else {
            Self::Refused(error.to_string())
        }
    }
}

/// Of a thread that ended without an answer.
impl From<io::Error> for NotTaken {
    fn from(error: io::Error) -> Self {
        Self::Unfit(error.to_string())
    }
}

/// Rows from another node, as they come.
pub(crate) struct Incoming {
    installer: OffThread<Installer>,
    meta: Meta,
    installing: Arc<Mutex<()>>,
}

impl Incoming {
    /// Begins to take a snapshot of which its sender's store says `meta`. `installing` is the same
    /// for all snapshots of a group.
    pub(super) async fn begin(
        store: GroupStore,
        meta: Bytes,
        installing: Arc<Mutex<()>>,
    ) -> Result<Self, NotTaken> {
        let meta = Meta::decode(&meta).map_err(|error| error.to_string())?;
        let begun = run_blocking(move || store.install().map(OffThread::new));
        Ok(Self { installer: begun.await??, meta, installing })
    }

    /// Takes some rows in.
    pub(crate) async fn rows(&mut self, rows: Bytes) -> Result<(), NotTaken> {
        let mut installer = self.take_installer()?;
        let taken = run_blocking(move || {
            installer.write_chunk(&rows)?;
            Ok::<_, EngineError>(OffThread::new(installer))
        });
        self.installer = taken.await??;
        Ok(())
    }

    /// Ends the transfer: the rows are all there, they are those of the moment that `head` names,
    /// and they are durable.
    pub(crate) async fn complete(mut self, head: &SnapshotMeta) -> Result<Arrived, NotTaken> {
        let position =
            Position { applied: head.last_log_id, membership: head.last_membership.clone() };
        if self.meta.applied != encode(&position) {
            let other = "the snapshot is of another moment than its head says";
            return Err(NotTaken::Refused(other.into()));
        }
        let turn = Arc::clone(&self.installing).lock_owned().await;
        let installer = self.take_installer()?;
        let meta = self.meta.clone();
        let completed = run_blocking(move || {
            let completed = installer.complete(&meta)?;
            let state = GroupState::load_completed(&completed)?;
            Ok::<_, EngineError>(OffThread::new((completed, state)))
        });
        Ok(Arrived { rows: completed.await??, position, _turn: turn })
    }

    fn take_installer(&mut self) -> Result<Installer, NotTaken> {
        let broken = || NotTaken::Refused("the transfer has broken off before".into());
        self.installer.take().ok_or_else(broken)
    }
}

/// Rows from another node that are whole and durable, and the state that they are. Dropped, it
/// leaves nothing behind.
pub(crate) struct Arrived {
    rows: OffThread<(Completed, GroupState)>,
    position: Position,
    _turn: OwnedMutexGuard<()>,
}

impl Arrived {
    /// Makes the rows those that stand, and returns the state that goes with them.
    pub(super) async fn switch(mut self) -> io::Result<(GroupState, Position)> {
        let gone = || io::Error::other("a snapshot is installed once");
        let (completed, state) = self.rows.take().ok_or_else(gone)?;
        run_blocking(move || completed.switch()).await?.map_err(io::Error::other)?;
        Ok((state, self.position.clone()))
    }
}

/// A value whose end may wait for the disk or take long. It ends where that holds nobody up.
pub(super) struct OffThread<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> OffThread<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Some(value))
    }

    /// The value, whose end is now somebody else's business; nothing if it was taken before.
    pub(super) fn take(&mut self) -> Option<T> {
        self.0.take()
    }
}

impl<T: Send + 'static> Default for OffThread<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Send + 'static> Drop for OffThread<T> {
    fn drop(&mut self) {
        if let Some(value) = self.0.take() {
            platform::spawn_blocking(move || drop(value));
        }
    }
}

#[cfg(test)]
mod tests;
