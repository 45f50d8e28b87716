//! The form of keyspaces in JSON.

use dkv_api::KeyspaceUse;
use serde_json::{Value, json};

/// Returns a keyspace as a JSON object.
pub fn object(used: &KeyspaceUse) -> Value {
    let KeyspaceUse { keyspace, shards_led, bytes } = used;
    let settings = &keyspace.settings;
    json!({
        "id": keyspace.id.0,
        "name": keyspace.name,
        "shards": settings.shards,
        "shards_led": shards_led,
        "replication": settings.replication,
        "history_age_ms": settings.history_age_ms,
        "history_bytes": settings.history_bytes,
        "quota_bytes": settings.quota_bytes,
        "used_bytes": bytes,
    })
}
