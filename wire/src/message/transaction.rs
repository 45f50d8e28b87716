//! Transactions: compares, and one of two lists of operations, in one shard and one entry of its
//! log.
//!
//! A transaction takes effect as a whole and at one revision. Its compares, those of the
//! transactions within it included, and its reads before it has written the key itself, see the
//! state before it; later reads see what it wrote.

mod rules;

use bytes::Bytes;
use dkv_base::id::{Revision, Serial, SessionId, Stamp};
use serde::{Deserialize, Serialize};

use super::history::Version;
use super::keys::Keys;
use super::lease::Attach;

pub use rules::BadTransaction;

/// A transaction on its way into the log, identified by (session, serial) like a write. A shard
/// executes it at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transact<'a> {
    /// The session.
    pub session: SessionId,
    /// Its number among the session's writes to this shard, from one.
    pub serial: Serial,
    /// Every serial below this one is settled.
    pub settled: Serial,
    /// The latest stamp of an eventual write that the client has made or seen; this one is later.
    pub after: Stamp,
    /// An encoded [`Transaction`].
    #[serde(borrow, with = "serde_bytes")]
    pub body: &'a [u8],
}

/// What a transaction does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction<'a> {
    /// All of these must hold for `then` to be executed.
    #[serde(borrow)]
    pub compares: Vec<Compare<'a>>,
    /// The operations if they do.
    #[serde(borrow)]
    pub then: Vec<TransactionOperation<'a>>,
    /// The operations if one does not.
    #[serde(borrow)]
    pub otherwise: Vec<TransactionOperation<'a>>,
}

/// A condition on every key of a range that exists. If none does, it is a condition on a key that
/// does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare<'a> {
    /// The keys.
    #[serde(borrow)]
    pub keys: Keys<'a>,
    /// The condition.
    #[serde(borrow)]
    pub test: Test<'a>,
}

/// The condition of a compare. A key that does not exist has zero for every number, and fails every
/// test of its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Test<'a> {
    /// Whether the key exists; for a range, whether any key does.
    Exists(bool),
    /// The revision of the last write of the key.
    Revision(Relation, Revision),
    /// The revision of the write that created the key.
    Created(Relation, Revision),
    /// The number of writes of the key since it was created.
    Version(Relation, u64),
    /// The value, in the order of bytes.
    Value(Relation, #[serde(borrow, with = "serde_bytes")] &'a [u8]),
    /// The lease of the key, by its number; zero for a key without one.
    Lease(Relation, u64),
}

/// How the key's part relates to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Relation {
    /// It is the same.
    Equal,
    /// It is another.
    NotEqual,
    /// It is less.
    Less,
    /// It is greater.
    Greater,
}

/// What a put does with the attachment of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PutAttach {
    /// The key is attached to nothing.
    Nothing,
    /// The key is attached to this.
    To(Attach),
    /// The key must exist, and stays attached to what it is: [`Unfit::NoKey`].
    AsBefore,
}

/// Which keys of a range are read, and how much of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeOptions {
    /// Most keys, after all filters; zero for no limit.
    pub keys_max: u64,
    /// What of the keys is wanted.
    pub part: RangePart,
    /// The revision at which they are read; `None` for the latest.
    pub at: Option<Revision>,
    /// Only keys that were last written at these revisions, both included.
    pub written: (Revision, Revision),
    /// Only keys that were created at these revisions, both included.
    pub created: (Revision, Revision),
}

/// What of the keys of a range is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RangePart {
    /// Keys and values.
    Values,
    /// Keys. Their versions come without values.
    Keys,
    /// How many there are.
    Count,
}

impl Default for RangeOptions {
    fn default() -> Self {
        let any = (Revision(0), Revision(u64::MAX));
        Self { keys_max: 0, part: RangePart::Values, at: None, written: any, created: any }
    }
}

impl RangeOptions {
    /// Returns whether the filters let a version pass.
    pub fn pass(&self, revision: Revision, created: Revision) -> bool {
        let within = |(least, most), at| least <= at && at <= most;
        within(self.written, revision) && within(self.created, created)
    }
}

/// One operation of a transaction. No key that is put may be written twice on one way through the
/// transaction; several operations may delete a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransactionOperation<'a> {
    /// Reads a key.
    #[serde(borrow, with = "serde_bytes")]
    Get(&'a [u8]),
    /// Reads the first keys of a range.
    List {
        /// The range.
        #[serde(borrow)]
        keys: Keys<'a>,
        /// Most keys, capped at [`SCAN_KEYS_MAX`](crate::limits::SCAN_KEYS_MAX).
        keys_max: u32,
    },
    /// Stores a value.
    Put(
        #[serde(borrow, with = "serde_bytes")] &'a [u8],
        #[serde(borrow, with = "serde_bytes")] &'a [u8],
    ),
    /// Removes a key.
    #[serde(borrow, with = "serde_bytes")]
    Delete(&'a [u8]),
    /// Removes all keys of a range.
    #[serde(borrow)]
    DeleteAll(Keys<'a>),
    /// Adds to the number that is a key's value, in decimal digits with an optional minus sign; a
    /// key that does not exist counts as zero. The number and the result are within 64 signed bits.
    Increment {
        /// The key.
        #[serde(borrow, with = "serde_bytes")]
        key: &'a [u8],
        /// The number to add.
        by: i64,
    },
    /// Appends bytes to a key's value; a key that does not exist counts as empty.
    Append {
        /// The key.
        #[serde(borrow, with = "serde_bytes")]
        key: &'a [u8],
        /// The bytes.
        #[serde(borrow, with = "serde_bytes")]
        bytes: &'a [u8],
    },
    /// Stores a value and attaches its key to a lease or gives it an expiry. The result is that of
    /// a put.
    PutAttached {
        /// The key.
        #[serde(borrow, with = "serde_bytes")]
        key: &'a [u8],
        /// The value.
        #[serde(borrow, with = "serde_bytes")]
        value: &'a [u8],
        /// What to attach the key to.
        attach: Attach,
    },
    /// Stores a value or a new attachment, and can tell what was there. Needs a keyspace with one
    /// shard.
    PutWith {
        /// The key.
        #[serde(borrow, with = "serde_bytes")]
        key: &'a [u8],
        /// The value; `None` keeps that of the key, which must exist: [`Unfit::NoKey`].
        #[serde(borrow, with = "serde_bytes")]
        value: Option<&'a [u8]>,
        /// What becomes of the attachment.
        attach: PutAttach,
        /// Whether the result has the version before.
        previous: bool,
    },
    /// Removes all keys of a range, and can tell what they were. Needs a keyspace with one shard.
    DeleteWith {
        /// The range.
        #[serde(borrow)]
        keys: Keys<'a>,
        /// Whether the result has the versions before.
        previous: bool,
    },
    /// Reads a range. Needs a keyspace with one shard.
    Range {
        /// The range.
        #[serde(borrow)]
        keys: Keys<'a>,
        /// Which keys of it, and what of them.
        options: RangeOptions,
    },
    /// Executes an encoded [`Transaction`] as a part of this one. Needs a keyspace with one shard.
    #[serde(borrow, with = "serde_bytes")]
    Nested(&'a [u8]),
}

impl<'a> TransactionOperation<'a> {
    /// Returns the keys that the operation reads or writes; all keys for a nested transaction.
    pub fn keys(&self) -> Keys<'a> {
        match *self {
            Self::Get(key)
            | Self::Put(key, _)
            | Self::PutAttached { key, .. }
            | Self::PutWith { key, .. }
            | Self::Delete(key)
            | Self::Increment { key, .. }
            | Self::Append { key, .. } => Keys::Key(key),
            Self::List { keys, .. }
            | Self::DeleteAll(keys)
            | Self::DeleteWith { keys, .. }
            | Self::Range { keys, .. } => keys,
            Self::Nested(_) => Keys::Prefix(&[]),
        }
    }

    /// Returns whether a keyspace must have one shard for the operation. A transaction over several
    /// shards knows all its keys beforehand.
    pub fn needs_one_shard(&self) -> bool {
        match self {
            Self::PutWith { .. } | Self::DeleteWith { .. } => true,
            Self::Range { .. } | Self::Nested(_) => true,
            Self::List { keys, .. } | Self::DeleteAll(keys) => !matches!(keys, Keys::Key(_)),
            Self::Get(_) | Self::Put(..) | Self::PutAttached { .. } => false,
            Self::Delete(_) | Self::Increment { .. } | Self::Append { .. } => false,
        }
    }

    /// Returns the keys that the operation writes, if it does; all keys for a nested transaction.
    pub fn written(&self) -> Option<Keys<'a>> {
        match self {
            Self::Get(_) | Self::List { .. } | Self::Range { .. } => None,
            Self::Put(..)
            | Self::PutAttached { .. }
            | Self::PutWith { .. }
            | Self::Delete(_)
            | Self::DeleteAll(_)
            | Self::DeleteWith { .. }
            | Self::Increment { .. }
            | Self::Append { .. }
            | Self::Nested(_) => Some(self.keys()),
        }
    }
}

/// The result of one operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationResult {
    /// The key that a get read; `None` if it does not exist.
    Got(Option<Version>),
    /// The keys that a list read.
    Listed {
        /// The keys, in order.
        keys: Vec<(Bytes, Version)>,
        /// Whether there are more.
        more: bool,
    },
    /// The version that a put made.
    Put {
        /// The revision of the write that created the key.
        created: Revision,
        /// The number of writes of the key since then, this one included.
        version: u64,
    },
    /// The number of keys that a delete removed.
    Deleted(u64),
    /// The version that an increment or an append made.
    Changed(Version),
    /// The answer to [`TransactionOperation::PutWith`].
    Replaced {
        /// The version before, if it was asked for and the key existed.
        previous: Option<Version>,
    },
    /// The answer to [`TransactionOperation::DeleteWith`].
    Removed {
        /// The number of keys that were removed.
        deleted: u64,
        /// They as they were, in order, if that was asked for.
        previous: Vec<(Bytes, Version)>,
        /// The revision of the state after the operation.
        revision: Revision,
    },
    /// The answer to [`TransactionOperation::Range`].
    Ranged {
        /// The keys, in order.
        keys: Vec<(Bytes, Version)>,
        /// Whether there are more that pass the filters.
        more: bool,
        /// The number of all keys of the range, whatever the limit and the filters.
        count: u64,
        /// The revision of the state that the operation saw; later than that which it read, if it
        /// names an earlier one.
        revision: Revision,
    },
    /// The answer to [`TransactionOperation::Nested`]. The results of its operations follow.
    Nested {
        /// Whether its compares held.
        succeeded: bool,
        /// The number of results that follow and belong to it.
        results: u32,
    },
}

/// Why an operation of a transaction could not be executed. The transaction had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Unfit {
    /// The value that is to be incremented is no number.
    #[error("the value is not a decimal number of 64 bits")]
    NotANumber,
    /// The result of the increment has more than 64 bits.
    #[error("the result is not within 64 bits")]
    Overflow,
    /// The result of the append is over the limit of a value.
    #[error("the value would be longer than a value may be")]
    TooLong,
    /// The lease does not exist.
    #[error("the lease does not exist; it may have ended")]
    NoLease,
    /// The key whose value or attachment is to be kept does not exist.
    #[error("the key does not exist")]
    NoKey,
    /// The shard has forgotten its history at the revision that is to be read.
    #[error("the history before that revision is compacted")]
    Compacted,
    /// The shard has not reached the revision that is to be read.
    #[error("that revision does not exist yet")]
    NotYet,
    /// The compares, or the operations up to this one, need too much at once.
    #[error("the transaction would compare, read or write more than 32 MiB")]
    TooMuch,
}
