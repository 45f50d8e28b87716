//! Validation of transactions.

use dkv_wire::message::{Compare, Keys, Refusal, Transaction, TransactionOperation};
use dkv_wire::{codec, limits};

use super::{check_attach, check_key, check_size};

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
        let Some(writes) = written_by(operation) else { continue };
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

/// Returns the keys that an operation writes.
pub(crate) fn written_by<'a>(operation: &TransactionOperation<'a>) -> Option<Keys<'a>> {
    match *operation {
        TransactionOperation::Get(_) | TransactionOperation::List { .. } => None,
        TransactionOperation::Put(key, _)
        | TransactionOperation::PutAttached { key, .. }
        | TransactionOperation::Delete(key)
        | TransactionOperation::Increment { key, .. }
        | TransactionOperation::Append { key, .. } => Some(Keys::Key(key)),
        TransactionOperation::DeleteAll(keys) => Some(keys),
    }
}

/// Returns whether two ranges may have a key in common: then one of them begins in the other.
fn overlap(a: &Keys<'_>, b: &Keys<'_>) -> bool {
    a.contains(b.first()) || b.contains(a.first())
}
