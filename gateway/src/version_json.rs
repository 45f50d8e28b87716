//! Versions and changes of keys in JSON, over HTTP as on the command line.

use dkv_api::{KeyChange, LeaseId, Stamp, Version};
use serde_json::{Map, Value};

use crate::bytes_json::{self, Encoding};

/// Inserts a version into an object: `what` is `put` or `delete`, and only the former has a value.
/// `lease` or `ttl_ms` is there if the put attached the key.
pub fn put(object: &mut Map<String, Value>, version: &Version, encoding: Encoding) {
    let Version { revision, created, version, stamp, value, lease, expiry } = version;
    let what = if value.is_some() { "put" } else { "delete" };
    object.insert("what".into(), what.into());
    if let Some(value) = value {
        bytes_json::put(object, "value", value, encoding);
    }
    object.insert("revision".into(), revision.0.into());
    object.insert("created_revision".into(), created.0.into());
    object.insert("version".into(), (*version).into());
    object.insert("changed_at_ms".into(), changed_at_ms(*stamp));
    if *lease != LeaseId::default() {
        object.insert("lease".into(), lease.to_string().into());
    }
    if let Some(expiry) = expiry {
        object.insert("ttl_ms".into(), expiry.ttl_ms.into());
    }
}

/// Returns a change of a key; `with_previous` adds the version before it, or null.
pub fn change(change: &KeyChange, with_previous: bool, encoding: Encoding) -> Value {
    let KeyChange { shard, key, value, previous, .. } = change;
    let mut object = Map::new();
    bytes_json::put(&mut object, "key", key, encoding);
    object.insert("shard".into(), shard.0.into());
    let changed = Version {
        revision: change.revision,
        created: change.created,
        version: change.version,
        stamp: change.stamp,
        value: value.clone(),
        lease: change.lease,
        expiry: change.expiry,
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

#[cfg(test)]
mod tests {
    use dkv_api::{GroupId, Revision, VersionExpiry};

    use super::*;

    #[test]
    fn a_change_says_what_its_key_is_attached_to() {
        let plain = KeyChange {
            shard: GroupId(1),
            key: "k".into(),
            value: Some("v".into()),
            revision: Revision(3),
            created: Revision(2),
            version: 2,
            stamp: Stamp(0),
            lease: LeaseId::default(),
            expiry: None,
            previous: None,
        };
        let said = |change: &KeyChange| super::change(change, false, Encoding::Text);
        assert_eq!((said(&plain)["lease"].as_str(), said(&plain)["ttl_ms"].as_u64()), (None, None));
        let leased = KeyChange { lease: LeaseId(7), ..plain.clone() };
        assert_eq!(said(&leased)["lease"], LeaseId(7).to_string());
        let expiry = Some(VersionExpiry { ttl_ms: 5000, remaining_ms: 10 });
        assert_eq!(said(&KeyChange { expiry, ..plain })["ttl_ms"], 5000);
    }
}
