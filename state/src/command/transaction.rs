//! Validation of transactions.

use dkv_wire::limits;
use dkv_wire::message::{
    Attach, Decide, Decision, Keys, Prepare, PutAttach, Refusal, TransactOver, Transaction,
    TransactionOperation,
};

use super::{check_attach, check_key, check_size};
use crate::locks::PartKeys;

/// Decodes the body of a transaction and checks everything that can be checked without the state.
///
/// # Errors
/// [`Refusal::TooLarge`] for a key, a value or the whole over its limit, [`Refusal::Invalid`] for
/// anything else that makes the transaction impossible.
pub(crate) fn validate(body: &[u8], value_bytes_max: u64) -> Result<Transaction<'_>, Refusal> {
    let whole_max = value_bytes_max.saturating_add(value_bytes_max / 2);
    check_size("transaction", body, whole_max)?;
    let transaction = Transaction::decode(body)?;
    transaction.visit(
        |compare| check_keys(&compare.keys),
        |operation| check_operation(operation, value_bytes_max),
    )?;
    Ok(transaction)
}

fn check_operation(
    operation: &TransactionOperation<'_>,
    value_bytes_max: u64,
) -> Result<(), Refusal> {
    match operation {
        TransactionOperation::Get(key)
        | TransactionOperation::Delete(key)
        | TransactionOperation::Increment { key, .. } => check_key(key),
        TransactionOperation::List { keys, .. }
        | TransactionOperation::DeleteAll(keys)
        | TransactionOperation::DeleteWith { keys, .. }
        | TransactionOperation::Range { keys, .. } => check_keys(keys),
        TransactionOperation::Put(key, value)
        | TransactionOperation::Append { key, bytes: value } => {
            check_key(key)?;
            check_size("value", value, value_bytes_max)
        }
        TransactionOperation::PutAttached { key, value, attach } => {
            check_key(key)?;
            check_size("value", value, value_bytes_max)?;
            check_attach(attach)
        }
        TransactionOperation::PutWith { key, value, attach, .. } => {
            check_key(key)?;
            check_size("value", value.unwrap_or_default(), value_bytes_max)?;
            match attach {
                PutAttach::To(attach) => check_attach(attach),
                PutAttach::Nothing | PutAttach::AsBefore => Ok(()),
            }
        }
        // Its operations are checked one by one.
        TransactionOperation::Nested(_) => Ok(()),
    }
}

fn check_keys(keys: &Keys<'_>) -> Result<(), Refusal> {
    match keys {
        Keys::Key(key) => check_key(key),
        Keys::Prefix(prefix) => check_size("key", prefix, limits::KEY_BYTES_MAX as u64),
        Keys::Range(from, to) => {
            check_size("key", from, limits::KEY_BYTES_MAX as u64)?;
            check_size("key", to, limits::KEY_BYTES_MAX as u64)?;
            if !to.is_empty() && from >= to {
                return Err(Refusal::Invalid("the range ends before it begins".into()));
            }
            Ok(())
        }
    }
}

/// Decodes the part of a transaction that one shard executes; `None` if it is none.
pub(crate) fn validate_part(body: &[u8]) -> Option<Transaction<'_>> {
    let transaction = validate(body, limits::VALUE_BYTES_MAX as u64).ok()?;
    check_divisible(&transaction).ok()?;
    Some(transaction)
}

/// Checks a transaction over several shards; returns it decoded.
///
/// # Errors
/// As for [`validate`], and [`Refusal::Invalid`] if it has ranges of keys, or its shards are not
/// those of its compares and operations.
pub(crate) fn validate_over<'a>(
    over: &TransactOver<'a>,
    value_bytes_max: u64,
) -> Result<Transaction<'a>, Refusal> {
    let transaction = validate(over.body, value_bytes_max)?;
    check_divisible(&transaction)?;
    let Transaction { compares, then, otherwise } = &transaction;
    if over.shards.len() != compares.len() + then.len() + otherwise.len() {
        return Err(Refusal::Invalid("a transaction names the shard of each key".into()));
    }
    if let Some(shard) = over.shards.iter().find(|shard| !shard.is_shard()) {
        return Err(Refusal::Invalid(format!("there is no shard {shard}")));
    }
    Ok(transaction)
}

/// Checks a command that prepares a part.
pub(super) fn validate_prepare(prepare: &Prepare<'_>) -> Result<(), Refusal> {
    let Prepare { id, over, at_home, body, .. } = prepare;
    if *over > id.attempt {
        return Err(Refusal::Invalid("an attempt is over before it begins".into()));
    }
    if let Some(home) = at_home {
        super::check_serial(id.serial, home.settled)?;
        check_shards(home.participants.len())?;
    }
    // The limit on values is that of the whole transaction, which the home's primary has checked.
    let transaction = validate(body, limits::VALUE_BYTES_MAX as u64)?;
    check_divisible(&transaction)
}

/// Checks a decision.
pub(super) fn validate_decide(decide: &Decide) -> Result<(), Refusal> {
    match &decide.decision {
        Decision::Commit { parts, .. } => check_shards(parts.len()),
        Decision::Unfit { .. } => Ok(()),
    }
}

fn check_shards(count: usize) -> Result<(), Refusal> {
    if count > limits::TRANSACTION_SHARDS_MAX {
        return Err(Refusal::Invalid("the transaction has too many shards".into()));
    }
    Ok(())
}

/// Checks that a transaction can be divided: it has no ranges of keys, and attaches none to a
/// lease, which could end between the two phases.
fn check_divisible(transaction: &Transaction<'_>) -> Result<(), Refusal> {
    let Transaction { then, otherwise, .. } = transaction;
    let needs_lease = |operation: &TransactionOperation<'_>| {
        matches!(operation, TransactionOperation::PutAttached { attach: Attach::Lease(_), .. })
    };
    if then.iter().chain(otherwise).any(needs_lease) {
        return Err(Refusal::Invalid(
            "a transaction over several shards cannot attach a key to a lease".into(),
        ));
    }
    match PartKeys::of(transaction) {
        Some(_) => Ok(()),
        None => Err(Refusal::Invalid(
            "a transaction over several shards cannot contain key ranges".into(),
        )),
    }
}
