//! Transactions: `txn`, `increment` and `append`.

mod text;

use std::path::Path;

use dkv_api::{Client, Error, OperationResult, Transacted, Transaction, TransactionOperation};
use dkv_console::Console;
use dkv_console::problem::{Abort, Failure, Problem};
use dkv_console::quote;
use dkv_gateway::bytes_json::Encoding;
use dkv_gateway::transaction_json::{self, ParsedTransaction};

use self::text::Written;
use crate::api_problems::{of_key, request_problem};
use crate::grammar::{Key, ValueSource};
use crate::{input, json_results};

/// Most bytes of the text of a transaction: values may be quoted.
const TEXT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Executes the transaction in a file.
pub(crate) async fn run(file: &Path, client: &Client, console: &mut Console) -> Result<(), Abort> {
    let name = if input::is_stdin(file) { "standard input".into() } else { quoted_path(file) };
    let text = input::read_all(file, TEXT_BYTES_MAX, "the transaction").await?;
    let parsed = parse(&text)
        .map_err(|error| Problem::usage(format!("{name}, {error}; nothing was done")))?;
    let ParsedTransaction { transaction, has_else, encoding } = parsed;
    let done = client.transact(transaction.clone()).await;
    let done = done.map_err(|error| problem(&transaction, &error))?;
    let branch = transaction_json::branch(done.succeeded);
    let (revision, shard) = (done.receipt.revision, done.receipt.shard);
    if !done.succeeded && !has_else {
        let why = "the transaction was not executed: a condition does not hold, and it has no else";
        let why = Problem::new(Failure::Conflict, why);
        return Err(why.with("revision", revision.0).with("shard", shard.0).into());
    }
    let operations = transaction.operations(done.succeeded);
    let mut lines = match done.changed {
        true => format!("{branch}: executed at revision {revision} (shard {shard})"),
        false => format!("{branch}: nothing changed, at revision {revision} (shard {shard})"),
    };
    for part in &done.parts {
        let (shard, revision) = (part.shard, part.not_before);
        lines.push_str(&format!(", from revision {revision} on (shard {shard})"));
    }
    match &done.results {
        Some(results) => {
            for (operation, result) in operations.iter().zip(results) {
                lines.push('\n');
                lines.push_str(&result_line(operation, result));
            }
        }
        None if done.parts.is_empty() => {
            lines.push_str("\nits results are no longer in the history of the shard");
        }
        None => lines.push_str("\nits results are too long, or were lost on the way"),
    }
    let document = || json_results::transacted(operations, &done, encoding);
    match done.changed {
        true => console.changed(&lines, document)?,
        false => console.result(&lines, document)?,
    }
    Ok(())
}

/// Parses a transaction: JSON if it begins with a brace, which no line of a text does.
fn parse(text: &[u8]) -> Result<ParsedTransaction, String> {
    if text.trim_ascii_start().starts_with(b"{") {
        return transaction_json::parse(text).map_err(|error| error.to_string());
    }
    let Written { transaction, has_else } = text::parse(text).map_err(|error| error.to_string())?;
    Ok(ParsedTransaction { transaction, has_else, encoding: Encoding::Text })
}

/// Adds to the number that is a key's value, and prints the sum.
pub(crate) async fn increment(
    key: &[u8],
    by: i64,
    client: &Client,
    console: &mut Console,
) -> Result<(), Abort> {
    let key = key_of(key)?;
    let operation = TransactionOperation::increment(key.as_bytes(), by);
    let (done, value) = change(&key, "incremented", operation, client).await?;
    let text = quote::escaped(&value);
    console.changed(&text, || json_results::changed("increment", &key, &value, &done))?;
    Ok(())
}

/// Appends to a key's value, and prints its new length.
pub(crate) async fn append(
    key: &[u8],
    value: &[u8],
    client: &Client,
    console: &mut Console,
) -> Result<(), Abort> {
    let key = key_of(key)?;
    let ValueSource::Inline(bytes) = ValueSource::of_operand(value).map_err(Problem::from)? else {
        return Err(Problem::failed("the value has not been read").into());
    };
    let operation = TransactionOperation::append(key.as_bytes(), bytes);
    let (done, value) = change(&key, "appended to", operation, client).await?;
    let text = format!(
        "{key} has {} bytes at revision {} (shard {})",
        value.len(),
        done.receipt.revision,
        done.receipt.shard
    );
    console.changed(&text, || json_results::changed("append", &key, &value, &done))?;
    Ok(())
}

fn key_of(bytes: &[u8]) -> Result<Key, Problem> {
    Key::new(bytes).map_err(|error| Problem::usage(format!("{error}; give another key")))
}

fn quoted_path(path: &Path) -> String {
    quote::escaped(path.as_os_str().as_encoded_bytes())
}

/// Executes one operation; returns the outcome and the new value.
async fn change(
    key: &Key,
    done: &str,
    operation: TransactionOperation,
    client: &Client,
) -> Result<(Transacted, dkv_api::Bytes), Problem> {
    let outcome = client.transact(Transaction::new().then(operation)).await;
    let problem = |error: &Error| match error {
        Error::Unfit { why, .. } => Problem::failed(format!("{key} was not {done}: {why}")),
        Error::Unavailable(why) => Problem::new(
            Failure::Unavailable,
            format!("{key} was not {done}: {why}; nothing was changed, try again"),
        ),
        Error::Unknown(why) => Problem::new(
            Failure::Unknown,
            format!(
                "outcome unknown: {key} may have been {done}, or may still be: {why}; read the \
                 key to check"
            ),
        ),
        other => request_problem(other),
    };
    let outcome = outcome.map_err(|error| of_key(problem(&error), key))?;
    let value = match outcome.results.as_deref() {
        Some([OperationResult::Changed(version)]) => version.value.clone(),
        _ => None,
    };
    match value {
        Some(value) => Ok((outcome, value)),
        None => {
            let why = format!(
                "{key} was {done} at revision {}, but its new value is no longer in the history \
                 of the shard",
                outcome.receipt.revision
            );
            let problem = Problem::failed(why).with_effect(dkv_console::problem::Effect::Done);
            Err(of_key(problem, key))
        }
    }
}

/// Explains a failed transaction.
fn problem(transaction: &Transaction, error: &Error) -> Problem {
    match error {
        Error::Unfit { operation, why } => {
            // The list that was executed is known only to the shard.
            let number = operation + 1;
            let at = |succeeded| transaction.operations(succeeded).get(*operation as usize);
            let words = |operation: &TransactionOperation| {
                format!("{} {}", operation.name(), quote::escaped(operation.first_key()))
            };
            let which = match (at(true).map(words), at(false).map(words)) {
                (Some(only), None) | (None, Some(only)) => format!(" ({only})"),
                _ => String::new(),
            };
            let why = format!("operation {number}{which}: {why}; nothing was changed");
            Problem::failed(why).with("operation", number)
        }
        Error::Unknown(why) => Problem::new(
            Failure::Unknown,
            format!(
                "outcome unknown: the transaction may have been executed, or may still be: {why}; \
                 read its keys to check"
            ),
        ),
        other => request_problem(other),
    }
}

/// Returns the line of a result.
fn result_line(operation: &TransactionOperation, result: &OperationResult) -> String {
    let said = match result {
        OperationResult::Got(Some(version)) | OperationResult::Changed(version) => {
            quote::quoted(version.value.as_deref().unwrap_or_default())
        }
        OperationResult::Got(None) | OperationResult::Deleted(0) => "absent".to_owned(),
        OperationResult::Deleted(_) => "deleted".to_owned(),
        OperationResult::Put { version: 1, .. } => "created".to_owned(),
        OperationResult::Put { version, .. } => format!("replaced, version {version}"),
        OperationResult::Listed { keys, .. } => format!("{} keys", keys.len()),
        OperationResult::Replaced { .. } => "put".to_owned(),
        OperationResult::Removed { deleted, .. } => format!("{deleted} keys deleted"),
        OperationResult::Ranged { count, .. } => format!("{count} keys"),
        OperationResult::Nested { succeeded, .. } => format!("succeeded: {succeeded}"),
    };
    format!("{} {} {said}", operation.name(), quote::quoted(operation.first_key()))
}
