//! Versions and changes of keys in JSON, over HTTP as on the command line.

use dkv_api::{KeyChange, LeaseId, Stamp, Version};
use serde_json::{Map, Value};

use crate::bytes_json::{self, Encoding};

/// Inserts a version into an object: `what` is `put` or `delete`, and only the former has a value.
pub fn put(object: &mut Map<String, Value>, version: &Version, encoding: Encoding) {
    let Version { revision, created, version, stamp, value, .. } = version;
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

/// Returns a change of a key; `with_previous` adds the version before it, or null.
pub fn change(change: &KeyChange, with_previous: bool, encoding: Encoding) -> Value {
    let KeyChange { shard, key, value, revision, created, version, stamp, previous, .. } = change;
    let mut object = Map::new();
    bytes_json::put(&mut object, "key", key, encoding);
    object.insert("shard".into(), shard.0.into());
    let changed = Version {
        revision: *revision,
        created: *created,
        version: *version,
        stamp: *stamp,
        value: value.clone(),
        lease: LeaseId::default(),
        expiry: None,
    };
    put(&mut object, &changed, encoding);
    if with_previous {
        let previous = previous.as_ref().map(|version| {
            let mut object = Map::new();
            put(&mut object, version, encoding);
            object
        });
        object.insert("previous".into(), previous.into());
    }
    Value::Object(object)
}

/// Returns the time of a write, in milliseconds since 1970; null if it is not known.
pub fn changed_at_ms(stamp: Stamp) -> Value {
    let at_ms = u64::try_from(stamp.since_1970().as_millis()).unwrap_or(u64::MAX);
    (at_ms > 0).then_some(at_ms).into()
}
