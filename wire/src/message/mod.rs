//! The messages, by who speaks to whom.
//!
//! Every stream begins with one [`Opening`] frame that says what it is for; then both sides send
//! the frames of that conversation. docs/protocol.md has the table of all of them.

mod client;
mod join;
mod placement;
mod server;
mod status;

pub use client::{
    Answer, Command, Condition, Deposited, Level, Operation, Page, Pair, Reach, ReadBounds,
    ReadMode, Receipt, Refusal, Reply, Request, RequestBody, Span, Stored, Write,
};
use dkv_base::id::{GroupId, NodeId, Term};
pub use join::{JoinAnswer, JoinRefusal, JoinRequest, Joining, ReadmitRequest, RecertifyRequest};
pub use placement::{
    LedGroup, Measures, MemberProgress, Move, MoveStep, NodePlaces, Placement, PlannedMove,
    Remainder,
};
pub use server::{
    Admission, BearerLife, Confirmation, ControlGroup, CoordinatorReport, HolderInfo, HolderKind,
    NodeReport, Question, RunChoice, RunReport, ServerAnswer, ServerRefusal, ServerRequest,
    ServerStatus, Stand, Standing, TokenInfo,
};
pub use status::{GroupRole, GroupStatus, NodeStatus, ReplicaStatus};

use serde::{Deserialize, Serialize};

use crate::seal::Seal;

/// The first frame of a stream to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Opening {
    /// [`Request`] frames, each answered by a [`Reply`] frame in any order.
    Requests,
    /// Calls of one Raft group that have one answer each: votes, transfer. The frames
    /// are the node crate's; answers come in the order of the calls.
    RaftCalls {
        /// Which group.
        group: GroupId,
        /// Who calls; must be the certificate's.
        from: NodeId,
    },
    /// Heartbeats of all groups that a node leads, those of one time in one frame. The frames are
    /// the node crate's; they are numbered, and answered in any order.
    RaftPulse {
        /// Who leads; must be the certificate's.
        from: NodeId,
    },
    /// Log entries of one group from its leader, pipelined: requests one way, acknowledgements the
    /// other, in order.
    RaftAppend {
        /// Which group.
        group: GroupId,
        /// Who leads; must be the certificate's.
        from: NodeId,
        /// How far the leader knows the receiver to be, if it votes and has acknowledged anything.
        acknowledged: Option<Acknowledged>,
    },
    /// One snapshot of one group from its leader, in chunks, and one answer.
    RaftSnapshot {
        /// Which group.
        group: GroupId,
        /// Who leads; must be the certificate's.
        from: NodeId,
    },
    /// Which run of a node's process speaks on this connection, before anything else that only
    /// nodes say, and every few seconds. The frames are the node crate's; each is answered by the
    /// same of whoever was dialed.
    Run {
        /// Who dialed; must be the certificate's.
        from: NodeId,
    },
}

/// How far a leader knows a voter to be: what it has acknowledged in the leader's term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// The leader's term.
    pub term: Term,
    /// The last entry.
    pub index: u64,
    /// The voter's own seal on that, as it came with the acknowledgement.
    pub seal: Seal,
}

#[cfg(test)]
mod tests;
