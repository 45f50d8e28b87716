//! The reasons why a replica does not answer a message as asked, by their consequence.
//!
//! The sender is sent the text. A message that cannot be true is also reported to the operator.

use std::io;

use dkv_base::id::{GroupId, NodeId, Term};
use dkv_wire::codec::DecodeError;
use openraft::errors::RaftError;

use super::validation::Implausible;
use super::{LogId, Types};

/// Reason why a message was not answered as asked, by what becomes of its stream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// The stream goes on: the message may succeed at another time.
    #[error(transparent)]
    Now(#[from] NotNow),
    /// The stream ends: neither this message nor whatever follows it can be valid.
    #[error("group {group}: {why}")]
    ForGood {
        /// The group that the message is about.
        group: GroupId,
        /// The fault of the message.
        why: Untrue,
    },
}

/// Reason why a message cannot be answered now. Its sender may try again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotNow {
    /// The sender has no vote in the group, as far as this node knows.
    #[error("denied: node {node:?} is no voter of group {group}")]
    NoVoter {
        /// The sender.
        node: NodeId,
        /// The group.
        group: GroupId,
    },
    /// This node has no replica of the group.
    #[error("group {0} is not here")]
    NotHere(GroupId),
    /// The replica takes no part in elections yet.
    #[error("this replica is new and still catching up")]
    Filling,
    /// The group did not answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The group has stopped.
    #[error(transparent)]
    Stopped(#[from] RaftError<Types>),
}

/// Reason why a message cannot be true.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Untrue {
    /// It cannot be decoded.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// Its terms, positions or entries are impossible.
    #[error(transparent)]
    Implausible(#[from] Implausible),
    /// It carries the vote of another node than its sender.
    #[error("denied: a vote for {voted_for:?} from {from:?}")]
    ForeignVote {
        /// The node that the vote is for.
        voted_for: NodeId,
        /// The sender.
        from: NodeId,
    },
    /// It is a heartbeat with entries.
    #[error("entries in a heartbeat")]
    EntriesInHeartbeat,
    /// It names another entry in the place of a committed one.
    #[error("entry {0} is not the one that is committed here")]
    Contradiction(LogId),
    /// It is a snapshot that does not continue what is committed here.
    #[error("a snapshot up to {last} leaves out entry {committed}, which is committed")]
    LeavesOut {
        /// The last entry of the snapshot.
        last: LogId,
        /// The committed entry.
        committed: LogId,
    },
    /// It names an acknowledgement that this node cannot keep, or never made.
    #[error(transparent)]
    Promise(#[from] PromiseError),
    /// It could not be compared with this node's log, which cannot be read.
    #[error(transparent)]
    Unverified(#[from] io::Error),
}

/// Reason why a leader's statement about an acknowledgement of this node does not hold.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum PromiseError {
    /// This node never made the acknowledgement: the statement is refused, and no action is needed.
    #[error("this node has never acknowledged entry {index} in term {term}")]
    NeverMade {
        /// The index of the entry.
        index: u64,
        /// The term of the acknowledgement.
        term: Term,
    },
    /// This node made the acknowledgement and no longer has the entry: it must stop for good.
    #[error(transparent)]
    Broken(BrokenPromise),
}

/// An acknowledged entry that a replica no longer has.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "the log ends at entry {last} of group {group}, and this node has acknowledged entry {index} to \
     node {leader:?} in term {term} under its own seal"
)]
pub(crate) struct BrokenPromise {
    pub(super) group: GroupId,
    /// The index of the last entry that the replica has.
    pub(super) last: u64,
    /// The index of the entry that it acknowledged.
    pub(super) index: u64,
    /// The leader that has the acknowledgement, and its term.
    pub(super) leader: NodeId,
    pub(super) term: Term,
}
