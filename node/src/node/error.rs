//! Why a node does not start, and why it cannot hold a replica.

use std::io;

use crate::net::incarnations::Farewell;
use crate::outbox::WriteGateError;
use crate::raft::{ConfigError, OperationError};
use crate::storage::data_dir::DataDirError;
use dkv_state::EngineError;

/// Reason why a node did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The network's settings contradict each other.
    #[error(transparent)]
    Settings(#[from] ConfigError),
    /// The record whether the node takes eventual writes cannot be read.
    #[error(transparent)]
    WriteGate(#[from] WriteGateError),
    /// The data directory is damaged.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// This incarnation must end.
    #[error(transparent)]
    MustEnd(#[from] Farewell),
    /// A replica cannot be opened.
    #[error(transparent)]
    Replica(#[from] GroupError),
    /// The network that this node founds did not begin.
    #[error(transparent)]
    Founding(#[from] OperationError),
    /// No replica of the control group was prepared.
    #[error("there is no control group")]
    NoControlGroup,
}

/// Reason why the node cannot open a replica, or delete it. Except where a deletion can be repeated
/// later, the node must stop: a group may count on its replica.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GroupError {
    /// The data directory is damaged, or cannot be used now.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The engine cannot read or delete the rows of a group.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The log was not changed.
    #[error(transparent)]
    Log(io::Error),
    /// The log ended before it had stored a change.
    #[error("the log has stopped")]
    LogStopped,
    /// A thread that used the disk ended without an answer.
    #[error(transparent)]
    Thread(io::Error),
    /// openraft did not start the group.
    #[error(transparent)]
    Start(#[from] OperationError),
}
