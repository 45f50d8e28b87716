//! The reasons why a member gave no usable answer to a call.

use std::io;

use dkv_wire::rpc::RpcError;
use openraft::errors::{RPCError, Unreachable};

use super::Types;
use super::validation::Implausible;
use crate::net::peers::PeerError;

/// Reason why a call to another member got no usable answer. openraft waits before it calls again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// There is no connection to the member.
    #[error(transparent)]
    NoConnection(#[from] PeerError),
    /// The connection or the stream broke.
    #[error(transparent)]
    Broken(#[from] RpcError),
    /// The member did not answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The member did not install a snapshot in time.
    #[error("the snapshot was not installed in time")]
    NotInstalled,
    /// The stream of heartbeats ended before the answer arrived.
    #[error("no answer")]
    Unanswered,
    /// Too many calls to the member wait already.
    #[error("too many heartbeats wait")]
    QueueFull,
    /// The member refused, with this reason.
    #[error("{0}")]
    Refused(String),
    /// The answer belongs to a question of another kind.
    #[error("unexpected answer")]
    WrongAnswer,
    /// The answer cannot be true.
    #[error(transparent)]
    Implausible(#[from] Implausible),
    /// The heartbeat was left out, because the member is a learner that has answered lately.
    #[error("skipped for a learner")]
    Spared,
    /// The log is being purged beyond what the member has: it needs a snapshot.
    #[error("the log no longer has the entries it needs")]
    LeftBehind,
    /// This node's checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(io::Error),
    /// The snapshot came from another node and is not this node's checkpoint.
    #[error("a snapshot that was received cannot be sent")]
    NotOurs,
}

impl From<CallError> for Unreachable<Types> {
    fn from(error: CallError) -> Self {
        Self::from_string(error)
    }
}

impl From<CallError> for RPCError<Types> {
    fn from(error: CallError) -> Self {
        Self::Unreachable(error.into())
    }
}
