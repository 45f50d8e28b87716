//! Samples of messages about keyspaces.

use dkv_base::id::{GroupId, KeyspaceId};

use crate::message::*;
use crate::network::{KeyspaceChange, KeyspaceInfo, KeyspaceSettings};

pub(super) fn keyspace() -> KeyspaceInfo {
    let settings = KeyspaceSettings { quota_bytes: Some(4 << 30), ..KeyspaceSettings::default() };
    KeyspaceInfo { id: KeyspaceId(3), name: "k8s".into(), settings }
}

pub(super) fn requests() -> Vec<RequestBody> {
    let KeyspaceInfo { id, name, settings } = keyspace();
    let change = KeyspaceChange {
        replication: Some(5),
        quota_bytes: Some(None),
        ..KeyspaceChange::default()
    };
    vec![
        RequestBody::CreateKeyspace { creation: super::uuid('k'), name, settings },
        RequestBody::SetKeyspace { keyspace: id, change },
        RequestBody::DropKeyspace(id),
        RequestBody::Keyspaces,
    ]
}

pub(super) fn answers() -> Vec<Answer> {
    let keyspace = keyspace();
    vec![Answer::Keyspaces(vec![KeyspaceUse { keyspace, shards_led: 1, bytes: 1 << 20 }])]
}

pub(super) fn refusals() -> Vec<Refusal> {
    vec![Refusal::OverQuota { used: 1000, limit: 999 }, Refusal::Dropped { shard: GroupId(9) }]
}
