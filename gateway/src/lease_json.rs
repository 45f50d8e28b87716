//! Leases and the lifetimes of keys in JSON, over HTTP as on the command line.

use std::time::Duration;

use dkv_api::{LeaseInfo, LeaseKeys, Lifetime};
use serde_json::{Map, Value};

use crate::bytes_json::{self, Encoding};

/// Returns a lease. Ids are hexadecimal text, because not every reader of JSON knows 64 bits.
pub fn lease(lease: &LeaseInfo) -> Value {
    members(lease).into()
}

/// Returns a lease with its first keys.
pub fn lease_with_keys(lease: &LeaseInfo, found: &LeaseKeys, encoding: Encoding) -> Value {
    let mut object = members(lease);
    let keys = found.keys.iter().map(|key| {
        let mut object = Map::new();
        bytes_json::put(&mut object, "key", key, encoding);
        Value::from(object)
    });
    object.insert("first_keys".into(), keys.collect());
    object.insert("more".into(), found.more.into());
    object.into()
}

/// Inserts how long a key will live: `ttl_ms`, `remaining_ms` and `lease`, which are null where
/// they do not apply.
pub fn put_lifetime(object: &mut Map<String, Value>, lifetime: &Lifetime) {
    let (ttl, remaining, lease) = match lifetime {
        Lifetime::Ttl { ttl, remaining } => (Some(*ttl), Some(*remaining), None),
        Lifetime::Lease { lease, ttl, remaining } => (Some(*ttl), Some(*remaining), Some(*lease)),
        _ => (None, None, None),
    };
    object.insert("ttl_ms".into(), ttl.map(whole_ms).into());
    object.insert("remaining_ms".into(), remaining.map(whole_ms).into());
    object.insert("lease".into(), lease.map(|lease| lease.to_string()).into());
}

/// Returns a time in milliseconds.
pub(crate) fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn members(lease: &LeaseInfo) -> Map<String, Value> {
    let LeaseInfo { id, ttl, remaining, keys, missing } = lease;
    let mut object = Map::new();
    object.insert("lease".into(), id.to_string().into());
    object.insert("ttl_ms".into(), whole_ms(*ttl).into());
    object.insert("remaining_ms".into(), whole_ms(*remaining).into());
    object.insert("keys".into(), (*keys).into());
    let missing: Vec<u32> = missing.iter().map(|shard| shard.0).collect();
    object.insert("missing_shards".into(), missing.into());
    object
}
