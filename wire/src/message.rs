//! The messages, by who speaks to whom.
//!
//! Every stream to a node begins with one [`Opening`] frame, which names the purpose of the stream.
//! The frames of that conversation follow. docs/protocol.md has the table of all messages.

mod books;
mod join;
mod request;
mod history;
mod keys;
mod keyspace;
mod lease;
mod read;
mod scan;
mod command;
mod commit;
mod diagnosis;
mod reply;
mod placement;
mod policy;
mod status;
mod transaction;
mod server;
mod watch;

use dkv_base::id::{GroupId, NodeId, Term};
use serde::{Deserialize, Serialize};

pub use books::{BookKey, BooksChange, BooksPage, BooksVersion};
pub use command::{Command, Condition, Deposited, Operation, Write, WriteAttached};
pub use commit::{
    Attempt, AttemptId, Commitment, Decide, Decision, PartReceipt, Prepare, PrepareAnswer,
    PrepareHome, Prospect, Resolution, TransactOver,
};
pub use diagnosis::{ChangeReason, Diagnosis, DiskFacts, LeaderChange, LogChange, LogFilter};
pub use history::{Cut, Version, VersionExpiry, Versions};
pub use join::{JoinAnswer, JoinRefusal, JoinRequest, Joining, ReadmitRequest, RecertifyRequest};
pub use keys::{KeyRange, Keys};
pub use keyspace::KeyspaceUse;
pub use lease::{Attach, Expire, KeyExpiry, LeaseAction, LeaseCommand, LeaseStatus};
pub use placement::{
    LedGroup, Measures, MemberProgress, Move, MoveStep, NodePlaces, Placement, PlannedMove,
    Remainder,
};
pub use policy::{
    BadLimit, BadRules, InvalidRights, LimitKind, PolicyAct, PolicyChange, PolicyInfo,
    PolicyLimits, PolicyList, PolicyRule, Right, RightSet, allows, allows_some, check_rules,
};
pub use read::{Level, Reach, ReadBounds, ReadMode};
pub use reply::{Answer, Receipt, Refusal, Reply, Stored};
pub use request::{Request, RequestBody};
pub use scan::{Page, Pair, RangePage, Span};
pub use server::{
    Admission, BearerLife, Confirmation, ControlGroup, CoordinatorReport, Enlistment, HolderInfo,
    HolderKind, NodeReport, Question, RunChoice, RunReport, ServerAnswer, ServerRefusal,
    ServerRequest, ServerStatus, Stand, Standing, TokenInfo,
};
pub use status::{GroupRole, GroupStatus, NodeStatus, ReplicaStatus};
pub use transaction::{
    BadTransaction, Compare, OperationResult, PutAttach, RangeOptions, RangePart, Relation, Test,
    Transact, Transaction, TransactionOperation, Unfit,
};
pub use watch::{Change, WatchFrame, WatchRequest};

use crate::seal::Seal;

/// The first frame of a stream to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Opening {
    /// [`Request`] frames, each answered by a [`Reply`] frame, in any order.
    Requests,
    /// Calls of one Raft group with one answer each: votes, leadership transfer. The node crate
    /// defines the frames; answers come in the order of the calls.
    RaftCalls {
        /// The group.
        group: GroupId,
        /// The calling node; must be the one of the certificate.
        from: NodeId,
    },
    /// Heartbeats of all groups that a node leads, those due together in one frame. The node crate
    /// defines the frames; they are numbered and answered in any order.
    RaftHeartbeats {
        /// The leader; must be the node of the certificate.
        from: NodeId,
    },
    /// Log entries of one group from its leader, pipelined: requests one way, acknowledgements the
    /// other, in order.
    RaftAppend {
        /// The group.
        group: GroupId,
        /// The leader; must be the node of the certificate.
        from: NodeId,
        /// What the receiver has acknowledged to this leader, if it is a voter and has acknowledged
        /// anything.
        acknowledged: Option<Acknowledged>,
    },
    /// One snapshot of one group from its leader, in chunks, and one answer.
    RaftSnapshot {
        /// The group.
        group: GroupId,
        /// The leader; must be the node of the certificate.
        from: NodeId,
    },
    /// Introduces the run of the node's process that speaks on this connection. It precedes
    /// everything else that only nodes send, and is repeated every few seconds. The node crate
    /// defines the frames; the dialled node answers each with its own.
    Run {
        /// The dialling node; must be the one of the certificate.
        from: NodeId,
    },
    /// One [`WatchRequest`], answered by [`WatchFrame`]s.
    Watch,
}

/// What a voter has acknowledged in the term of a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// The leader's term.
    pub term: Term,
    /// Index of the last acknowledged entry.
    pub index: u64,
    /// The voter's own seal, which came with the acknowledgement.
    pub seal: Seal,
}

#[cfg(test)]
mod tests;
