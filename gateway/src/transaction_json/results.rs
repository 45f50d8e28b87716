//! The JSON of what a transaction's operations returned.

use dkv_api::{Bytes, OperationResult, TransactionOperation, Version};
use serde_json::{Map, Value};

use crate::bytes_json::{self, Encoding};
use crate::version_json;

/// Returns the results of operations, in order.
pub fn results(
    operations: &[TransactionOperation],
    results: &[OperationResult],
    encoding: Encoding,
) -> Value {
    let each = operations.iter().zip(results);
    each.map(|(operation, result)| of_operation(operation, result, encoding)).collect()
}

fn of_operation(
    operation: &TransactionOperation,
    result: &OperationResult,
    encoding: Encoding,
) -> Value {
    let mut object = Map::new();
    object.insert("operation".into(), operation.name().into());
    bytes_json::put(&mut object, "key", operation.first_key(), encoding);
    match result {
        OperationResult::Got(found) => {
            object.insert("exists".into(), found.is_some().into());
            if let Some(version) = found {
                version_json::put(&mut object, version, encoding);
            }
        }
        OperationResult::Changed(version) => version_json::put(&mut object, version, encoding),
        OperationResult::Put { created, version } => {
            object.insert("created_revision".into(), created.0.into());
            object.insert("version".into(), (*version).into());
        }
        OperationResult::Deleted(count) => {
            object.insert("deleted".into(), (*count).into());
        }
        OperationResult::Listed { keys, more } => {
            object.insert("keys".into(), pairs(keys, encoding));
            object.insert("more".into(), (*more).into());
        }
        OperationResult::Replaced { previous } => {
            if let Some(version) = previous {
                version_json::put(&mut object, version, encoding);
            }
        }
        OperationResult::Removed { deleted, previous, .. } => {
            object.insert("deleted".into(), (*deleted).into());
            object.insert("keys".into(), pairs(previous, encoding));
        }
        OperationResult::Ranged { keys, more, count, .. } => {
            object.insert("keys".into(), pairs(keys, encoding));
            object.insert("more".into(), (*more).into());
            object.insert("count".into(), (*count).into());
        }
        OperationResult::Nested { succeeded, .. } => {
            object.insert("succeeded".into(), (*succeeded).into());
        }
    }
    object.into()
}

fn pairs(keys: &[(Bytes, Version)], encoding: Encoding) -> Value {
    let listed = keys.iter().map(|(key, version)| {
        let mut object = Map::new();
        bytes_json::put(&mut object, "key", key, encoding);
        version_json::put(&mut object, version, encoding);
        Value::from(object)
    });
    listed.collect()
}
