//! The JSON of a transaction, and its check.

use std::time::Duration;

use dkv_api::{
    Attach, Compare, KeyRange, LeaseId, Relation, Revision, Test, Transaction, TransactionOperation,
};
use dkv_wire::limits::TRANSACTION_OPERATIONS_MAX as OPERATIONS_MAX;
use serde::Deserialize;

use super::ParsedTransaction;
use super::members::{AtMost, Members};
use crate::bytes_json::Encoding;
use crate::limits::{LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX};

/// Why JSON is no transaction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionJsonError {
    /// It is not JSON, or not of the form.
    #[error("the transaction does not have the required form: {0}")]
    Form(String),
    /// A condition or an operation is wrong.
    #[error("{part} {number}: {why}")]
    Element {
        /// `condition`, `operation of then` or `operation of else`.
        part: &'static str,
        /// Its number, counted from one.
        number: usize,
        /// The fault.
        why: String,
    },
    /// A list is too long.
    #[error("a transaction has at most {OPERATIONS_MAX} {what}, not {count}")]
    TooMany {
        /// `conditions` or `operations`.
        what: &'static str,
        /// Its length.
        count: usize,
    },
    /// It does nothing.
    #[error("the transaction has no operation")]
    Empty,
}

type List = AtMost<Members, OPERATIONS_MAX>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    #[serde(default, rename = "if")]
    conditions: List,
    #[serde(default)]
    then: List,
    #[serde(default, rename = "else", deserialize_with = "present")]
    otherwise: Option<List>,
    #[serde(default)]
    encoding: Encoding,
}

/// Deserializes a list that is present; `null` is none.
fn present<'a, D: serde::Deserializer<'a>>(from: D) -> Result<Option<List>, D::Error> {
    List::deserialize(from).map(Some)
}

/// Parses a transaction.
///
/// # Errors
/// Names the first part that is wrong. What only the network knows, such as a key that is written
/// twice, is found out when the transaction is executed.
pub fn parse(text: &[u8]) -> Result<ParsedTransaction, TransactionJsonError> {
    let form = serde_json::from_slice(text);
    let Form { conditions, then, otherwise, encoding } =
        form.map_err(|error| TransactionJsonError::Form(error.to_string()))?;
    let has_else = otherwise.is_some();
    let mut transaction = Transaction::new();
    for compare in all(conditions, "conditions", "condition", compare)? {
        transaction = transaction.when(compare);
    }
    for operation in all(then, "operations", "operation of then", operation)? {
        transaction = transaction.then(operation);
    }
    let otherwise = otherwise.unwrap_or_default();
    for operation in all(otherwise, "operations", "operation of else", operation)? {
        transaction = transaction.otherwise(operation);
    }
    if [true, false].iter().all(|&then| transaction.operations(then).is_empty()) {
        return Err(TransactionJsonError::Empty);
    }
    Ok(ParsedTransaction { transaction, has_else, encoding })
}

/// Converts each element of a list.
fn all<T>(
    list: List,
    what: &'static str,
    part: &'static str,
    convert: impl Fn(Members) -> Result<T, String>,
) -> Result<Vec<T>, TransactionJsonError> {
    if list.count > list.items.len() {
        return Err(TransactionJsonError::TooMany { what, count: list.count });
    }
    let elements = list.items.into_iter().enumerate().map(|(index, members)| {
        let number = index + 1;
        convert(members).map_err(|why| TransactionJsonError::Element { part, number, why })
    });
    elements.collect()
}

fn compare(mut members: Members) -> Result<Compare, String> {
    let keys = keys(&mut members)?;
    let relation = relation(&mut members)?;
    let or_equal = relation.unwrap_or(Relation::Equal);
    let revision = |number| Revision(number);
    let tests = [
        members.boolean("exists")?.map(Test::Exists),
        members.bytes("value")?.map(|value| Test::Value(or_equal, value.into())),
        members.whole("revision")?.map(|number| Test::Revision(or_equal, revision(number))),
        members.whole("created_revision")?.map(|number| Test::Created(or_equal, revision(number))),
        members.whole("version")?.map(|number| Test::Version(or_equal, number)),
    ];
    members.finish("a condition")?;
    let mut tests = tests.into_iter().flatten();
    let (Some(test), None) = (tests.next(), tests.next()) else {
        return Err("a condition has one of exists, value, revision, created_revision and version"
            .to_owned());
    };
    if matches!(test, Test::Exists(_)) && relation.is_some() {
        return Err("exists takes no relation".to_owned());
    }
    Ok(Compare::of(keys, test))
}

fn relation(members: &mut Members) -> Result<Option<Relation>, String> {
    match members.text("relation")?.as_deref() {
        None => Ok(None),
        Some("=") => Ok(Some(Relation::Equal)),
        Some("!=") => Ok(Some(Relation::NotEqual)),
        Some("<") => Ok(Some(Relation::Less)),
        Some(">") => Ok(Some(Relation::Greater)),
        Some(_) => Err("relation must be =, !=, < or >".to_owned()),
    }
}

fn operation(mut members: Members) -> Result<TransactionOperation, String> {
    let op = members.text("op")?.ok_or("op is missing")?;
    let (what, operation) = match op.as_str() {
        "get" => ("a get", TransactionOperation::get(key(&mut members)?)),
        "put" => {
            let (key, value) = (key(&mut members)?, value(&mut members)?);
            let operation = match attach(&mut members)? {
                Some(attach) => TransactionOperation::put_attached(key, value, attach),
                None => TransactionOperation::put(key, value),
            };
            ("a put", operation)
        }
        "delete" => ("a delete", TransactionOperation::delete(key(&mut members)?)),
        "increment" => {
            let (key, by) = (key(&mut members)?, members.signed("by")?.unwrap_or(1));
            ("an increment", TransactionOperation::increment(key, by))
        }
        "append" => {
            let (key, value) = (key(&mut members)?, value(&mut members)?);
            ("an append", TransactionOperation::append(key, value))
        }
        "list" => {
            let limit = members.whole("limit")?.unwrap_or(LIST_LIMIT_DEFAULT as u64);
            if !(1..=LIST_LIMIT_MAX as u64).contains(&limit) {
                return Err(format!("limit must be from 1 to {LIST_LIMIT_MAX}"));
            }
            let keys = keys(&mut members)?;
            ("a list", TransactionOperation::List { keys, keys_max: limit as u32 })
        }
        "delete-all" => ("a delete-all", TransactionOperation::DeleteAll(keys(&mut members)?)),
        _ => {
            let known = "get, put, delete, increment, append, list or delete-all";
            return Err(format!("op must be {known}"));
        }
    };
    members.finish(what)?;
    Ok(operation)
}

fn key(members: &mut Members) -> Result<Vec<u8>, String> {
    members.bytes("key")?.ok_or_else(|| "the key is missing".to_owned())
}

fn value(members: &mut Members) -> Result<Vec<u8>, String> {
    members.bytes("value")?.ok_or_else(|| "the value is missing".to_owned())
}

/// Takes how long the key of a put will live.
fn attach(members: &mut Members) -> Result<Option<Attach>, String> {
    match (members.whole("ttl_ms")?, members.text("lease")?) {
        (None, None) => Ok(None),
        (Some(ms), None) => Ok(Some(Attach::Ttl(Duration::from_millis(ms)))),
        (None, Some(lease)) => {
            let lease = lease.parse::<LeaseId>();
            lease.map(|lease| Some(Attach::Lease(lease))).map_err(|error| error.to_string())
        }
        (Some(_), Some(_)) => Err("give either ttl_ms or lease, not both".to_owned()),
    }
}

/// Takes a key, a prefix or a range.
fn keys(members: &mut Members) -> Result<KeyRange, String> {
    let (key, prefix) = (members.bytes("key")?, members.bytes("prefix")?);
    match (key, prefix, members.bytes("from")?, members.bytes("to")?) {
        (Some(key), None, None, None) => Ok(KeyRange::Key(key.into())),
        (None, Some(prefix), None, None) => Ok(KeyRange::Prefix(prefix.into())),
        (None, None, Some(from), to) => {
            Ok(KeyRange::Range(from.into(), to.unwrap_or_default().into()))
        }
        (None, None, None, None) => Err("the key is missing".to_owned()),
        _ => Err("give one of key, prefix, and from with to".to_owned()),
    }
}
