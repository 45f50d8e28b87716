//! Transactions: compares, and one of two lists of operations.
//!
//! A transaction is executed as a whole: in one shard by one entry of its log, in several shards in
//! two rounds. The types here own their keys and values; those of the protocol borrow them.

mod check;
mod compare;
mod open;
mod operation;

pub use compare::{Compare, Test};
pub use open::OpenTransaction;
pub use operation::{NestedTransaction, PutAttach, TransactionOperation};

use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::Stamp;
use dkv_wire::codec;
use dkv_wire::message::{self, Answer, OperationResult, PartReceipt, Receipt};

use compare::compare_to_wire;
use operation::operations_to_wire;

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
    ///
    /// # Examples
    /// ```
    /// use dkv_api::Transaction;
    ///
    /// assert!(Transaction::new().operations(true).is_empty());
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a compare. Without any, the operations of [`then`](Self::then) are executed.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{Compare, Transaction};
    ///
    /// let if_new = Transaction::new().when(Compare::absent("order/17"));
    /// assert_eq!(if_new.compares().len(), 1);
    /// ```
    pub fn when(mut self, compare: Compare) -> Self {
        self.compares.push(compare);
        self
    }

    /// Adds an operation to execute if all compares hold.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{Transaction, TransactionOperation};
    ///
    /// let both = Transaction::new()
    ///     .then(TransactionOperation::put("color", "blue"))
    ///     .then(TransactionOperation::increment("changes", 1));
    /// assert_eq!(both.operations(true).len(), 2);
    /// ```
    pub fn then(mut self, operation: TransactionOperation) -> Self {
        self.then.push(operation);
        self
    }

    /// Adds an operation to execute if a compare does not hold.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{Compare, Transaction, TransactionOperation};
    ///
    /// let create_or_read = Transaction::new()
    ///     .when(Compare::absent("color"))
    ///     .then(TransactionOperation::put("color", "blue"))
    ///     .otherwise(TransactionOperation::get("color"));
    /// assert_eq!(create_or_read.operations(false).len(), 1);
    /// ```
    pub fn otherwise(mut self, operation: TransactionOperation) -> Self {
        self.otherwise.push(operation);
        self
    }

    /// Sets the longest time to wait for the outcome [default: that of the client].
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use dkv_api::{Transaction, TransactionOperation};
    ///
    /// let hurried = Transaction::new()
    ///     .then(TransactionOperation::increment("visits", 1))
    ///     .timeout(Duration::from_millis(200));
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Returns the operations that are executed if the compares hold, or those if they do not.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{Transaction, TransactionOperation};
    ///
    /// let read = Transaction::new().then(TransactionOperation::get("color"));
    /// assert_eq!(read.operations(true), [TransactionOperation::get("color")]);
    /// assert!(read.operations(false).is_empty());
    /// ```
    pub fn operations(&self, succeeded: bool) -> &[TransactionOperation] {
        if succeeded { &self.then } else { &self.otherwise }
    }

    /// Returns the compares.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{Compare, Transaction};
    ///
    /// let guarded = Transaction::new().when(Compare::exists("color"));
    /// assert_eq!(guarded.compares(), [Compare::exists("color")]);
    /// ```
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
    /// if it was executed so long ago that the shard has forgotten them, or if it has several
    /// shards and its answer was lost on the way or is too long, or finds too many answers in
    /// memory that this client has not read. The revision of a version that it made is zero outside
    /// the shard of `receipt`, where it is not known yet.
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
            let why = "it was executed, but not told its result: too many answers were unread, or \
                       the shard has forgotten it";
            return Err(Error::Unknown(why.into()));
        };
        match results.into_iter().next() {
            Some(OperationResult::Changed(version)) => version.value.ok_or_else(wrong_answer),
            _ => Err(wrong_answer()),
        }
    }
}
