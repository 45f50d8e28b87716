//! Transactions over several shards: two phases, each of them an entry in the logs.
//!
//! The shard of the transaction's first key is its *home*, whose primary drives it. [`Prepare`] is
//! an entry in every shard: it judges the compares and locks the keys. [`Decide`] is an entry in
//! the home, and is what counts. [`Finish`](super::Command::Finish) then executes the part of each
//! other shard, or forgets it. A shard in doubt asks the home:
//! [`Resolve`](super::Command::Resolve).

use dkv_base::id::{GroupId, Revision, Serial, SessionId, Stamp, Term};
use serde::{Deserialize, Serialize};

use super::transaction::{OperationResult, Unfit};

/// A transaction over several shards on its way to the primary of its home, identified by (session,
/// serial) there like a write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactOver<'a> {
    /// The session at the home.
    pub session: SessionId,
    /// Its number among the session's writes to the home, from one.
    pub serial: Serial,
    /// Every serial below this one is settled.
    pub settled: Serial,
    /// The latest stamp of an eventual write that the client has made or seen; this one is later.
    pub after: Stamp,
    /// The shards of the compares, of the operations of `then` and of those of `otherwise`, in this
    /// order.
    pub shards: Vec<GroupId>,
    /// An encoded [`Transaction`](super::Transaction) without ranges of keys.
    #[serde(borrow, with = "serde_bytes")]
    pub body: &'a [u8],
}

/// The number of an attempt at a transaction. The home's primary uses none twice, and they only
/// grow.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Attempt {
    /// The term of the home's primary.
    pub term: Term,
    /// Its number in the term, from one, over all transactions.
    pub number: u64,
}

/// The name of an attempt at a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId {
    /// The shard that decides.
    pub home: GroupId,
    /// The session at the home.
    pub session: SessionId,
    /// The serial of the transaction.
    pub serial: Serial,
    /// The attempt.
    pub attempt: Attempt,
}

/// The first phase of an attempt in one shard: judges the compares there, and locks the keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepare<'a> {
    /// The attempt.
    pub id: AttemptId,
    /// All attempts of the home below this one are over: no further one of them is to be prepared.
    pub over: Attempt,
    /// As for the transaction.
    pub after: Stamp,
    /// Whether the primary is to wait for a while if a key is locked. An attempt may hold locks in
    /// one shard while it waits in another only if it goes through its shards in ascending order.
    pub patient: bool,
    /// In the home only.
    pub at_home: Option<PrepareHome>,
    /// An encoded [`Transaction`](super::Transaction) with the part of this shard.
    #[serde(borrow, with = "serde_bytes")]
    pub body: &'a [u8],
}

/// What only the home has to know of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareHome {
    /// Every serial of the session below this one is settled.
    pub settled: Serial,
    /// Time by the home's log after which anybody may have the attempt aborted, in milliseconds.
    pub patience_ms: u32,
    /// The other shards.
    pub participants: Vec<GroupId>,
}

/// The second phase of an attempt, in its home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decide {
    /// The attempt.
    pub id: AttemptId,
    /// The decision.
    pub decision: Decision,
}

/// What becomes of a prepared transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    /// It is executed.
    Commit {
        /// Whether all compares hold.
        succeeded: bool,
        /// Whether it changes anything.
        changed: bool,
        /// The transaction gets a later stamp than this: the latest that any of its shards had
        /// given when its part was prepared there.
        after: Stamp,
        /// The other shards.
        parts: Vec<PartReceipt>,
    },
    /// An operation cannot be executed, and nothing is.
    Unfit {
        /// The operation, counted from zero in the list that was to be executed.
        operation: u32,
        /// Why.
        why: Unfit,
    },
}

/// The receipt of a transaction's part in a shard other than its home. The part is committed; it
/// gets its revision as soon as the shard learns of it. Until then the shard's keys that it writes
/// are locked, and strong reads wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartReceipt {
    /// The shard.
    pub shard: GroupId,
    /// The earliest revision that the part can have; the shard's latest if it changes nothing
    /// there.
    pub not_before: Revision,
}

/// The answer to a [`Prepare`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PrepareAnswer {
    /// The keys are locked until the attempt is decided.
    Prepared {
        /// Whether the compares of this shard hold.
        holds: bool,
        /// The shard's latest revision when the keys were locked.
        revision: Revision,
        /// The latest stamp that the shard had given.
        stamp: Stamp,
        /// The operations that are executed if all compares hold.
        then: Prospect,
        /// Those that are executed if one does not.
        otherwise: Prospect,
    },
    /// Another transaction has locked a key. No effect.
    Locked,
    /// The attempt is over. No effect.
    Over,
}

/// What a list of operations would do in a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prospect {
    /// The first operation of the part that cannot be executed, counted from zero, and why.
    pub unfit: Option<(u32, Unfit)>,
    /// Whether it changes anything.
    pub changes: bool,
    /// The results, in order. Numbers that the execution gives are zero. `None` if they are too
    /// long to be told.
    pub results: Option<Vec<OperationResult>>,
}

/// What all shards of a committed transaction have to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Commitment {
    /// Whether all compares held.
    pub succeeded: bool,
    /// The stamp of the writes in all shards, so that a snapshot shows all of them or none.
    pub stamp: Stamp,
}

/// What has become of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Resolution {
    /// It is committed.
    Committed(Commitment),
    /// It never takes effect.
    Aborted,
    /// It is not decided yet, and its time is not over.
    Pending,
}
