//! Transactions: compares, and one of two lists of operations.
//!
//! A transaction is executed as a whole: in one shard by one entry of its log, in several shards in
//! two rounds. The types here own their keys and values; those of the protocol borrow them.

mod check;
mod open;

pub use open::OpenTransaction;

use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::{Revision, Stamp};
use dkv_wire::codec;
use dkv_wire::message::{
    self, Answer, KeyRange, OperationResult, PartReceipt, RangeOptions, Receipt, Relation,
};

use crate::attach::Attach;
use crate::client::{Client, wrong_answer};
use crate::error::Error;
use crate::router::RequestKind;
use crate::time_bounds::checked_attach;

/// Compares, the operations to execute if all of them hold, and those to execute if one does not.
///
/// A transaction takes effect as a whole, at one revision of each of its shards. The compares see
/// the state before it. A read sees what an operation wrote before it. No key may be written twice,
/// and each list has at most 128 operations. Its keys may be in any shards; a transaction of one
/// shard is faster. Ranges of keys need a network with one shard.
///
/// # Examples
/// ```
/// use dkv_api::{Compare, Transaction, TransactionOperation};
///
/// // Moves a unit of stock to an order, unless the order exists.
/// let order = Transaction::new()
///     .when(Compare::absent("order/17"))
///     .then(TransactionOperation::put("order/17", "1 bolt"))
///     .then(TransactionOperation::increment("stock/bolt", -1))
///     .otherwise(TransactionOperation::get("order/17"));
/// ```
#[must_use]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    compares: Vec<Compare>,
    then: Vec<TransactionOperation>,
    otherwise: Vec<TransactionOperation>,
    timeout: Option<Duration>,
}

impl Transaction {
    /// Creates a transaction that does nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a compare. Without any, the operations of [`then`](Self::then) are executed.
    pub fn when(mut self, compare: Compare) -> Self {
        self.compares.push(compare);
        self
    }

    /// Adds an operation to execute if all compares hold.
    pub fn then(mut self, operation: TransactionOperation) -> Self {
        self.then.push(operation);
        self
    }

    /// Adds an operation to execute if a compare does not hold.
    pub fn otherwise(mut self, operation: TransactionOperation) -> Self {
        self.otherwise.push(operation);
        self
    }

    /// Sets the longest time to wait for the outcome [default: that of the client].
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Returns the operations that are executed if the compares hold, or those if they do not.
    pub fn operations(&self, succeeded: bool) -> &[TransactionOperation] {
        if succeeded { &self.then } else { &self.otherwise }
    }

    /// Returns the compares.
    pub fn compares(&self) -> &[Compare] {
        &self.compares
    }

    /// Returns the transaction as the protocol has it.
    fn to_wire(&self) -> message::Transaction<'_> {
        message::Transaction {
            compares: self.compares.iter().map(compare_to_wire).collect(),
            then: operations_to_wire(&self.then),
            otherwise: operations_to_wire(&self.otherwise),
        }
    }
}

/// A condition on one key, or on all existing keys of a range.
///
/// A key that does not exist has zero for every number, and fails every test of its value. So does
/// a range in which no key exists.
///
/// # Examples
/// ```
/// use dkv_api::{Compare, KeyRange, Relation, Revision, Test};
///
/// let unchanged = Compare::revision("planet", Relation::Equal, Revision(17));
/// let none = Compare::of(KeyRange::Prefix("user/".into()), Test::Exists(false));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    keys: KeyRange,
    test: Test,
}

/// What a [`Compare`] tests.
///
/// # Examples
/// ```
/// use dkv_api::{Relation, Test};
///
/// let changed_often = Test::Version(Relation::Greater, 100);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// Whether the key exists; for a range, whether any key does.
    Exists(bool),
    /// The revision of the last write of the key.
    Revision(Relation, Revision),
    /// The revision of the write that created the key.
    Created(Relation, Revision),
    /// The number of writes of the key since it was created.
    Version(Relation, u64),
    /// The value, in the order of bytes.
    Value(Relation, Bytes),
    /// The lease of the key, by its number; zero for a key without one.
    Lease(Relation, u64),
}

impl Compare {
    /// Tests the keys of a range. More than one key needs a network with one shard.
    pub fn of(keys: KeyRange, test: Test) -> Self {
        Self { keys, test }
    }

    /// Returns the keys that it is about.
    pub fn keys(&self) -> &KeyRange {
        &self.keys
    }

    /// Returns what it tests.
    pub fn test(&self) -> &Test {
        &self.test
    }

    fn of_key(key: impl AsRef<[u8]>, test: Test) -> Self {
        Self { keys: KeyRange::Key(Bytes::copy_from_slice(key.as_ref())), test }
    }

    /// Holds if the key exists.
    pub fn exists(key: impl AsRef<[u8]>) -> Self {
        Self::of_key(key, Test::Exists(true))
    }

    /// Holds if the key does not exist.
    pub fn absent(key: impl AsRef<[u8]>) -> Self {
        Self::of_key(key, Test::Exists(false))
    }

    /// Compares the value of a key.
    pub fn value(key: impl AsRef<[u8]>, relation: Relation, value: impl Into<Bytes>) -> Self {
        Self::of_key(key, Test::Value(relation, value.into()))
    }

    /// Compares the revision of the last write of a key.
    pub fn revision(key: impl AsRef<[u8]>, relation: Relation, revision: Revision) -> Self {
        Self::of_key(key, Test::Revision(relation, revision))
    }

    /// Compares the revision of the write that created a key.
    pub fn created(key: impl AsRef<[u8]>, relation: Relation, revision: Revision) -> Self {
        Self::of_key(key, Test::Created(relation, revision))
    }

    /// Compares the number of writes of a key since it was created.
    pub fn version(key: impl AsRef<[u8]>, relation: Relation, version: u64) -> Self {
        Self::of_key(key, Test::Version(relation, version))
    }
}

/// One operation of a transaction.
///
/// # Examples
/// ```
/// use dkv_api::TransactionOperation;
///
/// let count = TransactionOperation::increment("visits", 1);
/// assert!(matches!(count, TransactionOperation::Increment { by: 1, .. }));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionOperation {
    /// Reads a key.
    Get(Bytes),
    /// Reads the first keys of a range.
    List {
        /// The range. More than one key needs a network with one shard.
        keys: KeyRange,
        /// Most keys.
        keys_max: u32,
    },
    /// Stores a value.
    Put(Bytes, Bytes),
    /// Removes a key.
    Delete(Bytes),
    /// Removes all keys of a range. More than one key needs a network with one shard.
    DeleteAll(KeyRange),
    /// Adds to the number that is a key's value, in decimal digits with an optional minus sign; a
    /// key that does not exist counts as zero. The number and the result are within 64 signed bits.
    Increment {
        /// The key.
        key: Bytes,
        /// The number to add.
        by: i64,
    },
    /// Appends bytes to a key's value; a key that does not exist counts as empty.
    Append {
        /// The key.
        key: Bytes,
        /// The bytes.
        bytes: Bytes,
    },
    /// Stores a value, and attaches its key to a lease or gives it a time to live.
    PutAttached {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
        /// How long the key will live.
        attach: Attach,
    },
    /// Stores a value or a new attachment, and can tell what was there. Needs a keyspace with one
    /// shard.
    PutWith {
        /// The key.
        key: Bytes,
        /// The value; `None` keeps that of the key, which must exist.
        value: Option<Bytes>,
        /// How long the key will live.
        attach: PutAttach,
        /// Whether the result has the version before.
        previous: bool,
    },
    /// Removes all keys of a range, and can tell what they were. Needs a keyspace with one shard.
    DeleteWith {
        /// The range.
        keys: KeyRange,
        /// Whether the result has the versions before.
        previous: bool,
    },
    /// Reads a range. Needs a keyspace with one shard.
    Range {
        /// The range.
        keys: KeyRange,
        /// Which keys of it, and what of them.
        options: RangeOptions,
    },
    /// Executes another transaction as a part of this one. Its compares see the state before the
    /// whole. Needs a keyspace with one shard.
    Nested(NestedTransaction),
}

/// How long a key lives that a put of a transaction stores.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use dkv_api::{Attach, PutAttach};
///
/// let soon_gone = PutAttach::To(Attach::Ttl(Duration::from_secs(30)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutAttach {
    /// Until it is deleted.
    Nothing,
    /// As this says.
    To(Attach),
    /// As long as before; the key must exist.
    AsBefore,
}

impl PutAttach {
    fn to_wire(self) -> message::PutAttach {
        match self {
            Self::Nothing => message::PutAttach::Nothing,
            Self::To(attach) => message::PutAttach::To(attach.to_wire()),
            Self::AsBefore => message::PutAttach::AsBefore,
        }
    }
}

/// A transaction within another; see [`TransactionOperation::nested`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NestedTransaction {
    body: Bytes,
}

impl From<Transaction> for NestedTransaction {
    fn from(transaction: Transaction) -> Self {
        Self { body: codec::encode(&transaction.to_wire()) }
    }
}

impl TransactionOperation {
    /// Executes another transaction as a part of this one. The results of its operations follow its
    /// own in [`Transacted::results`].
    pub fn nested(transaction: Transaction) -> Self {
        Self::Nested(transaction.into())
    }

    /// Stores a value, and attaches its key to a lease or gives it a time to live.
    pub fn put_attached(key: impl AsRef<[u8]>, value: impl Into<Bytes>, attach: Attach) -> Self {
        let key = Bytes::copy_from_slice(key.as_ref());
        Self::PutAttached { key, value: value.into(), attach }
    }

    /// Reads a key.
    pub fn get(key: impl AsRef<[u8]>) -> Self {
        Self::Get(Bytes::copy_from_slice(key.as_ref()))
    }

    /// Stores a value.
    pub fn put(key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Self {
        Self::Put(Bytes::copy_from_slice(key.as_ref()), value.into())
    }

    /// Removes a key.
    pub fn delete(key: impl AsRef<[u8]>) -> Self {
        Self::Delete(Bytes::copy_from_slice(key.as_ref()))
    }

    /// Adds to a number.
    pub fn increment(key: impl AsRef<[u8]>, by: i64) -> Self {
        Self::Increment { key: Bytes::copy_from_slice(key.as_ref()), by }
    }

    /// Appends to a value.
    pub fn append(key: impl AsRef<[u8]>, bytes: impl Into<Bytes>) -> Self {
        Self::Append { key: Bytes::copy_from_slice(key.as_ref()), bytes: bytes.into() }
    }

    /// Returns the name of the operation: `get`, `list`, `put`, `delete`, `delete-all`,
    /// `increment`, `append`, `range` or `transaction`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Get(_) => "get",
            Self::List { .. } => "list",
            Self::Put(..) | Self::PutAttached { .. } | Self::PutWith { .. } => "put",
            Self::Delete(_) => "delete",
            Self::DeleteAll(_) | Self::DeleteWith { .. } => "delete-all",
            Self::Range { .. } => "range",
            Self::Nested(_) => "transaction",
            Self::Increment { .. } => "increment",
            Self::Append { .. } => "append",
        }
    }

    /// Returns whether it changes nothing. A nested transaction may change something.
    pub fn is_read(&self) -> bool {
        matches!(self, Self::Get(_) | Self::List { .. } | Self::Range { .. })
    }

    /// Returns its key, or the beginning of its range; nothing for a nested transaction.
    pub fn first_key(&self) -> &[u8] {
        match self {
            Self::Get(key)
            | Self::Put(key, _)
            | Self::Delete(key)
            | Self::Increment { key, .. }
            | Self::Append { key, .. }
            | Self::PutAttached { key, .. }
            | Self::PutWith { key, .. } => key,
            Self::List { keys, .. }
            | Self::DeleteAll(keys)
            | Self::DeleteWith { keys, .. }
            | Self::Range { keys, .. } => match keys {
                KeyRange::Key(first) | KeyRange::Prefix(first) | KeyRange::Range(first, _) => first,
            },
            Self::Nested(_) => &[],
        }
    }
}

/// The outcome of a transaction that was executed.
///
/// # Examples
/// ```
/// # use dkv_api::{Client, Error, Transaction, TransactionOperation};
/// # async fn example(client: &Client) -> Result<(), Error> {
/// let both = Transaction::new()
///     .then(TransactionOperation::get("{a}"))
///     .then(TransactionOperation::increment("{a}", 1));
/// let done = client.transact(both).await?;
/// println!("{:?} at revision {}", done.results, done.receipt.revision);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transacted {
    /// Whether its compares held, so that the operations of [`Transaction::then`] were executed.
    pub succeeded: bool,
    /// Whether it changed anything.
    pub changed: bool,
    /// The results of the operations, in order, those of a nested transaction after its own; `None`
    /// if it was executed so long ago that the
    /// shard has forgotten them, or if it has several shards and its answer was lost on the way or
    /// is too long. The revision of a version that it made is zero outside the shard of `receipt`,
    /// where it is not known yet.
    pub results: Option<Vec<OperationResult>>,
    /// The receipt of the shard that decided it: that of its first key. Its revision is that of the
    /// transaction's writes there, or the shard's latest if it changed nothing there.
    pub receipt: Receipt,
    /// The receipts of its other shards.
    pub parts: Vec<PartReceipt>,
}

impl Client {
    /// Executes a transaction: strictly serializable with all strong operations, in one shard or in
    /// several.
    ///
    /// However often the client has to send it, it is executed at most once, and the call returns
    /// the result of that execution.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::TooLarge`] if it breaks a rule of [`Transaction`];
    /// [`Error::SeveralShards`] if it has a range of keys and the network several shards;
    /// [`Error::Unfit`] if an operation cannot be executed; [`Error::Unknown`] if it was sent and
    /// its outcome could not be learnt in time. After every other error it had no effect. That a
    /// compare does not hold is no error.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{Client, Compare, Error, Relation, Transaction, TransactionOperation};
    ///
    /// # async fn example(client: &Client) -> Result<(), Error> {
    /// let swap = Transaction::new()
    ///     .when(Compare::value("planet", Relation::Equal, "Mars"))
    ///     .then(TransactionOperation::put("planet", "Venus"))
    ///     .otherwise(TransactionOperation::get("planet"));
    /// if !client.transact(swap).await?.succeeded {
    ///     println!("somebody else was faster");
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn transact(&self, transaction: Transaction) -> Result<Transacted, Error> {
        for operation in transaction.then.iter().chain(&transaction.otherwise) {
            if let TransactionOperation::PutAttached { attach, .. }
            | TransactionOperation::PutWith { attach: PutAttach::To(attach), .. } = operation
            {
                checked_attach(*attach)?;
            }
        }
        let wire = transaction.to_wire();
        let (keys, ranges) = check::checked(&wire)?;
        let (body, after) = (codec::encode(&wire), Stamp(0));
        let shards = Vec::new();
        let kind = RequestKind::Transact { keys, ranges, shards, body, write_id: None, after };
        let done = match self.request(kind, transaction.timeout).await? {
            Answer::Transacted { receipt, succeeded, changed, results, .. } => {
                Transacted { succeeded, changed, results, receipt, parts: Vec::new() }
            }
            Answer::TransactedOver { receipt, succeeded, changed, parts, results } => {
                Transacted { succeeded, changed, results, receipt, parts }
            }
            _ => return Err(wrong_answer()),
        };
        let asked = transaction.operations(done.succeeded);
        let fits = done.results.as_ref().is_none_or(|results| check::answers(asked, results));
        if fits { Ok(done) } else { Err(wrong_answer()) }
    }

    /// Adds to the number that is a key's value, exactly once, and returns the sum. A key that does
    /// not exist counts as zero.
    ///
    /// # Errors
    /// [`Error::Unfit`] if the value is no decimal number of 64 bits, or the sum is none; otherwise
    /// as for [`transact`](Self::transact).
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// println!("visitor {}", client.increment("visitors", 1).await?);
    /// # Ok(()) }
    /// ```
    pub async fn increment(&self, key: impl AsRef<[u8]>, by: i64) -> Result<i64, Error> {
        let value = self.change(TransactionOperation::increment(key, by)).await?;
        let number = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
        number.ok_or_else(wrong_answer)
    }

    /// Appends bytes to a key's value, exactly once, and returns the new value. A key that does not
    /// exist counts as empty.
    ///
    /// # Errors
    /// [`Error::Unfit`] if the value would be too long; otherwise as for
    /// [`transact`](Self::transact).
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let log = client.append("log", "a line\n").await?;
    /// println!("{} bytes", log.len());
    /// # Ok(()) }
    /// ```
    pub async fn append(
        &self,
        key: impl AsRef<[u8]>,
        bytes: impl Into<Bytes>,
    ) -> Result<Bytes, Error> {
        self.change(TransactionOperation::append(key, bytes)).await
    }

    /// Executes one increment or append, and returns the new value.
    async fn change(&self, operation: TransactionOperation) -> Result<Bytes, Error> {
        let done = self.transact(Transaction::new().then(operation)).await?;
        let Some(results) = done.results else {
            let why = "it was executed, but its result is no longer in the shard's history";
            return Err(Error::Unknown(why.into()));
        };
        match results.into_iter().next() {
            Some(OperationResult::Changed(version)) => version.value.ok_or_else(wrong_answer),
            _ => Err(wrong_answer()),
        }
    }
}

fn keys_to_wire(keys: &KeyRange) -> message::Keys<'_> {
    match keys {
        KeyRange::Key(key) => message::Keys::Key(key),
        KeyRange::Prefix(prefix) => message::Keys::Prefix(prefix),
        KeyRange::Range(from, to) => message::Keys::Range(from, to),
    }
}

fn compare_to_wire(compare: &Compare) -> message::Compare<'_> {
    let test = match &compare.test {
        Test::Exists(exists) => message::Test::Exists(*exists),
        Test::Revision(relation, revision) => message::Test::Revision(*relation, *revision),
        Test::Created(relation, revision) => message::Test::Created(*relation, *revision),
        Test::Version(relation, version) => message::Test::Version(*relation, *version),
        Test::Value(relation, value) => message::Test::Value(*relation, value),
        Test::Lease(relation, lease) => message::Test::Lease(*relation, *lease),
    };
    message::Compare { keys: keys_to_wire(&compare.keys), test }
}

fn operations_to_wire(all: &[TransactionOperation]) -> Vec<message::TransactionOperation<'_>> {
    all.iter().map(operation_to_wire).collect()
}

fn operation_to_wire(operation: &TransactionOperation) -> message::TransactionOperation<'_> {
    use message::TransactionOperation as Wire;

    match operation {
        TransactionOperation::Get(key) => Wire::Get(key),
        TransactionOperation::List { keys, keys_max } => {
            Wire::List { keys: keys_to_wire(keys), keys_max: *keys_max }
        }
        TransactionOperation::Put(key, value) => Wire::Put(key, value),
        TransactionOperation::Delete(key) => Wire::Delete(key),
        TransactionOperation::DeleteAll(keys) => Wire::DeleteAll(keys_to_wire(keys)),
        TransactionOperation::Increment { key, by } => Wire::Increment { key, by: *by },
        TransactionOperation::Append { key, bytes } => Wire::Append { key, bytes },
        TransactionOperation::PutAttached { key, value, attach } => {
            Wire::PutAttached { key, value, attach: attach.to_wire() }
        }
        TransactionOperation::PutWith { key, value, attach, previous } => Wire::PutWith {
            key,
            value: value.as_deref(),
            attach: attach.to_wire(),
            previous: *previous,
        },
        TransactionOperation::DeleteWith { keys, previous } => {
            Wire::DeleteWith { keys: keys_to_wire(keys), previous: *previous }
        }
        TransactionOperation::Range { keys, options } => {
            Wire::Range { keys: keys_to_wire(keys), options: *options }
        }
        TransactionOperation::Nested(nested) => Wire::Nested(&nested.body),
    }
}
