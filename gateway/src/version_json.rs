//! Versions of keys in JSON.

use dkv_api::{Stamp, Version};
use serde_json::{Map, Value};

use crate::bytes_json::{self, Encoding};

/// Inserts a version into an object: `what` is `put` or `delete`, and only the former has a value.
pub fn put(object: &mut Map<String, Value>, version: &Version, encoding: Encoding) {
    let Version { revision, created, version, stamp, value } = version;
    let what = if value.is_some() { "put" } else { "delete" };
    object.insert("what".into(), what.into());
    if let Some(value) = value {
        bytes_json::put(object, "value", value, encoding);
    }
    object.insert("revision".into(), revision.0.into());
    object.insert("created_revision".into(), created.0.into());
    object.insert("version".into(), (*version).into());
    object.insert("changed_at_ms".into(), changed_at_ms(*stamp));
}

/// Returns the time of a write, in milliseconds since 1970; null if it is not known.
pub fn changed_at_ms(stamp: Stamp) -> Value {
    let at_ms = u64::try_from(stamp.since_1970().as_millis()).unwrap_or(u64::MAX);
    (at_ms > 0).then_some(at_ms).into()
}
