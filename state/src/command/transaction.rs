//! Validation of transactions.

use dkv_wire::message::{
    Attach, Compare, Decide, Decision, Keys, Prepare, Refusal, TransactOver, Transaction,
    TransactionOperation,
};
use dkv_wire::{codec, limits};

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
    let transaction: Transaction<'_> =
        codec::decode(body).map_err(|error| Refusal::Invalid(error.to_string()))?;
    let Transaction { compares, then, otherwise } = &transaction;
    for (what, count) in
        [("compares", compares.len()), ("operations", then.len()), ("operations", otherwise.len())]
    {
        if count > limits::TRANSACTION_OPERATIONS_MAX {
            return Err(Refusal::Invalid(format!(
                "a transaction has at most {} {what}, not {count}",
                limits::TRANSACTION_OPERATIONS_MAX
            )));
        }
    }
    for Compare { keys, .. } in compares {
        check_keys(keys)?;
    }
    for operations in [then, otherwise] {
        check_operations(operations, value_bytes_max)?;
    }
    Ok(transaction)
}

fn check_operations(
    operations: &[TransactionOperation<'_>],
    value_bytes_max: u64,
) -> Result<(), Refusal> {
    let mut written: Vec<Keys<'_>> = Vec::new();
    for operation in operations {
        match operation {
            TransactionOperation::Get(key) => check_key(key)?,
            TransactionOperation::List { keys, .. } => check_keys(keys)?,
            TransactionOperation::Put(key, value) => {
                check_key(key)?;
                check_size("value", value, value_bytes_max)?;
            }
            TransactionOperation::Delete(key) | TransactionOperation::Increment { key, .. } => {
                check_key(key)?;
            }
            TransactionOperation::Append { key, bytes } => {
                check_key(key)?;
                check_size("value", bytes, value_bytes_max)?;
            }
            TransactionOperation::PutAttached { key, value, attach } => {
                check_key(key)?;
                check_size("value", value, value_bytes_max)?;
                check_attach(attach)?;
            }
            TransactionOperation::DeleteAll(keys) => check_keys(keys)?,
        }
        let Some(writes) = operation.written() else { continue };
        if let Some(twice) = written.iter().find(|other| overlap(other, &writes)) {
            let both = [*twice, writes].into_iter().find_map(|keys| match keys {
                Keys::Key(key) => Some(key),
                Keys::Prefix(_) | Keys::Range(..) => None,
            });
            return Err(Refusal::Invalid(match both {
                Some(key) => {
                    format!("the transaction writes key \"{}\" twice", String::from_utf8_lossy(key))
                }
                None => "the transaction deletes keys twice".to_owned(),
            }));
        }
        written.push(writes);
    }
    Ok(())
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

/// Returns whether two ranges may have a key in common: then one of them begins in the other.
fn overlap(a: &Keys<'_>, b: &Keys<'_>) -> bool {
    a.contains(b.first()) || b.contains(a.first())
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
            "a transaction over several shards attaches no key to a lease".into(),
        ));
    }
    match PartKeys::of(transaction) {
        Some(_) => Ok(()),
        None => {
            Err(Refusal::Invalid("a transaction over several shards has no ranges of keys".into()))
        }
    }
}
