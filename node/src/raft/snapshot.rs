//! Snapshots in transfer: rows of our newest checkpoint to another node, or its rows to us.
//!
//! To openraft, an error while a snapshot is installed is fatal to the node. So openraft learns of
//! a snapshot only once everything that can go wrong with a transfer is over: an [`Incoming`] takes
//! rows as they arrive, and becomes an [`Arrived`] once they match the head, are durable, and were
//! read back as a state. A failure before that is reported to the sender, which tries again.
//! Installing is then only a switch.
//!
//! Deliberately missing: several snapshots at a time. A complete one keeps others from completing
//! until it is installed or given up.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use dkv_base::platform::{self, run_blocking};
use dkv_wire::codec::{DecodeError, decode, encode};
use dkv_wire::frame::FrameError;
use openraft::errors::Fatal;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::codec::invalid;
use super::refusal::Refused;
use super::{LogId, Snapshot, SnapshotMeta, StoredMembership, Types};
use dkv_state::{Completed, EngineError, GroupState, GroupStore, Installer, Meta, SnapshotReader};

/// The position of a state in the log, as stored in its checkpoints.
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

/// The snapshot type that openraft passes around.
pub(crate) enum SnapshotData {
    /// Rows of our newest checkpoint, to send to another node.
    Outgoing(Outgoing),
    /// Rows from another node, complete and durable, that are not the state yet.
    Arrived(Arrived),
}

/// Rows of our newest checkpoint.
pub(crate) struct Outgoing {
    reader: OffThread<SnapshotReader>,
    meta: Bytes,
}

impl Outgoing {
    /// Returns the store's metadata about the rows.
    pub(crate) fn meta(&self) -> Bytes {
        self.meta.clone()
    }

    /// Returns the next rows; `None` after the last.
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

/// Opens our newest checkpoint for sending, if there is one.
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

/// Reason why a snapshot was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotTaken {
    /// The snapshot or its transfer is at fault, or there is no room: the sender may try again.
    #[error(transparent)]
    Refused(#[from] TransferError),
    /// This node is at fault and must stop.
    #[error(transparent)]
    Unfit(#[from] Unfit),
}

/// Reason why a transfer failed without harm to this node.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransferError {
    /// The sender may not send this message.
    #[error(transparent)]
    Message(#[from] Refused),
    /// The stream broke.
    #[error(transparent)]
    Stream(#[from] FrameError),
    /// The stream ended too early.
    #[error("the stream ended inside the snapshot")]
    Cut,
    /// A frame cannot be decoded.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// The rows belong to another position than the head names.
    #[error("the snapshot does not match its header")]
    OtherMoment,
    /// An earlier part of the transfer failed.
    #[error("the transfer was already aborted")]
    BrokenOff,
    /// The engine did not take the rows.
    #[error(transparent)]
    Store(EngineError),
    /// The group has stopped.
    #[error(transparent)]
    Stopped(#[from] Fatal<Types>),
}

/// Reason why this node cannot take a snapshot, and must stop.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    /// The engine failed, or found damage.
    #[error(transparent)]
    Store(EngineError),
    /// A thread ended without an answer.
    #[error(transparent)]
    Thread(io::Error),
}

impl From<EngineError> for NotTaken {
    fn from(error: EngineError) -> Self {
        if error.is_fatal() {
            Self::Unfit(Unfit::Store(error))
        } else {
            Self::Refused(TransferError::Store(error))
        }
    }
}

/// Converts the error of a thread that ended without an answer.
impl From<io::Error> for NotTaken {
    fn from(error: io::Error) -> Self {
        Self::Unfit(Unfit::Thread(error))
    }
}

/// Rows from another node, as they arrive.
pub(crate) struct Incoming {
    installer: OffThread<Installer>,
    meta: Meta,
    installing: Arc<Mutex<()>>,
}

impl Incoming {
    /// Begins to receive a snapshot that has the metadata `meta` from its sender's store.
    /// `installing` is the same for all snapshots of a group.
    pub(super) async fn begin(
        store: GroupStore,
        meta: Bytes,
        installing: Arc<Mutex<()>>,
    ) -> Result<Self, NotTaken> {
        let meta = Meta::decode(&meta).map_err(EngineError::from)?;
        let begun = run_blocking(move || store.install().map(OffThread::new));
        Ok(Self { installer: begun.await??, meta, installing })
    }

    /// Writes rows that have arrived.
    pub(crate) async fn rows(&mut self, rows: Bytes) -> Result<(), NotTaken> {
        let mut installer = self.take_installer()?;
        let taken = run_blocking(move || {
            installer.write_chunk(&rows)?;
            Ok::<_, EngineError>(OffThread::new(installer))
        });
        self.installer = taken.await??;
        Ok(())
    }

    /// Completes the transfer: checks that the rows belong to the position that `head` names and
    /// that they are all there, and makes them durable.
    pub(crate) async fn complete(mut self, head: &SnapshotMeta) -> Result<Arrived, NotTaken> {
        let position =
            Position { applied: head.last_log_id, membership: head.last_membership.clone() };
        if self.meta.applied != encode(&position) {
            return Err(TransferError::OtherMoment.into());
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
        self.installer.take().ok_or(NotTaken::Refused(TransferError::BrokenOff))
    }
}

/// Complete and durable rows from another node, and the state that they represent. Dropping it
/// leaves nothing behind.
pub(crate) struct Arrived {
    rows: OffThread<(Completed, GroupState)>,
    position: Position,
    _turn: OwnedMutexGuard<()>,
}

impl Arrived {
    /// Puts the rows in place of the current ones and returns their state.
    pub(super) async fn switch(mut self) -> io::Result<(GroupState, Position)> {
        let gone = || io::Error::other("a snapshot is installed once");
        let (completed, state) = self.rows.take().ok_or_else(gone)?;
        run_blocking(move || completed.switch()).await?.map_err(io::Error::other)?;
        Ok((state, self.position.clone()))
    }
}

/// A value whose drop may wait for the disk or take long. It is dropped on a thread where that
/// delays no other work.
pub(super) struct OffThread<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> OffThread<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Some(value))
    }

    /// Takes out the value, which the caller must then drop; `None` if it was taken before.
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
