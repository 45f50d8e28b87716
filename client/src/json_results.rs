//! Results as JSON for programs, one object per line.
//!
//! Numbers are plain, names contain units, and ids are complete. Bytes that are UTF-8 are a string,
//! other bytes are base64 under a name that ends in `_base64`, as over HTTP. Members may be added,
//! but are never renamed; docs/cli.md lists them.

use dkv_api::{Bytes, Transacted, TransactionOperation};
use dkv_api::{GroupId, NetworkView, NodeId, ReplicaValue, ValueAt, Version};
use dkv_api::{Pair, Placement, PlannedMove, Receipt, Revision, TokenInfo, Value as Read, Written};
use dkv_gateway::bytes_json::{Encoding, put};
use dkv_gateway::{transaction_json, version_json};
use serde_json::{Map, Value, json};

use crate::grammar::Key;

/// Returns an object that begins with the name of its command.
fn of(command: &str) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("command".into(), command.into());
    object
}

fn with_receipt(object: &mut Map<String, Value>, receipt: &Receipt) {
    let revision = receipt.pending.is_none().then_some(receipt.revision.0);
    object.insert("revision".into(), revision.into());
    object.insert("pending_number".into(), receipt.pending.map(|number| number.0).into());
    object.insert("shard".into(), receipt.shard.0.into());
    object.insert("level".into(), receipt.level.word().into());
    object.insert("node".into(), receipt.node.to_string().into());
    object.insert("term".into(), receipt.term.0.into());
    object.insert("staleness_ms".into(), receipt.staleness_ms.into());
}

/// Returns the result of a read; `mended` and `missing` are names of nodes.
pub(crate) fn read(key: &Key, read: &Read, mended: Vec<String>, missing: Vec<String>) -> Value {
    let mut object = of("get");
    put(&mut object, "key", key.as_bytes(), Encoding::Text);
    put(&mut object, "value", &read.value, Encoding::Text);
    with_receipt(&mut object, &read.receipt);
    object.insert("mended".into(), mended.into());
    object.insert("missing".into(), missing.into());
    object.into()
}

/// Returns the result of a read at a revision.
pub(crate) fn read_at(key: &Key, at: Revision, read: &ValueAt) -> Value {
    let mut object = of("get");
    put(&mut object, "key", key.as_bytes(), Encoding::Text);
    put(&mut object, "value", &read.value, Encoding::Text);
    with_receipt(&mut object, &read.receipt);
    object.insert("revision".into(), read.revision.0.into());
    object.insert("at_revision".into(), at.0.into());
    object.insert("created_revision".into(), read.created.0.into());
    object.insert("version".into(), read.version.into());
    object.insert("changed_at_ms".into(), version_json::changed_at_ms(read.stamp));
    object.into()
}

/// Returns a version of a key.
pub(crate) fn version(key: &Key, shard: GroupId, version: &Version) -> Value {
    let mut object = Map::new();
    put(&mut object, "key", key.as_bytes(), Encoding::Text);
    object.insert("shard".into(), shard.0.into());
    version_json::put(&mut object, version, Encoding::Text);
    object.into()
}

/// Returns the result of a write or a delete.
pub(crate) fn written(command: &str, key: &Key, written: &Written) -> Value {
    let mut object = of(command);
    put(&mut object, "key", key.as_bytes(), Encoding::Text);
    // Whether it replaces a value is known only once it is ordered.
    let existed = written.receipt.pending.is_none().then_some(written.existed);
    object.insert("existed".into(), existed.into());
    with_receipt(&mut object, &written.receipt);
    object.into()
}

/// Returns the result of an increment or an append.
pub(crate) fn changed(command: &str, key: &Key, value: &Bytes, done: &Transacted) -> Value {
    let mut object = of(command);
    put(&mut object, "key", key.as_bytes(), Encoding::Text);
    put(&mut object, "value", value, Encoding::Text);
    with_receipt(&mut object, &done.receipt);
    object.into()
}

/// Returns the result of a transaction.
pub(crate) fn transacted(
    operations: &[TransactionOperation],
    done: &Transacted,
    encoding: Encoding,
) -> Value {
    let mut object = of("txn");
    object.insert("branch".into(), transaction_json::branch(done.succeeded).into());
    object.insert("changed".into(), done.changed.into());
    with_receipt(&mut object, &done.receipt);
    let parts = done
        .parts
        .iter()
        .map(|part| json!({ "shard": part.shard.0, "not_before": part.not_before.0 }));
    object.insert("parts".into(), parts.collect());
    let results = done.results.as_ref();
    let results = results.map(|results| transaction_json::results(operations, results, encoding));
    object.insert("results".into(), results.into());
    object.into()
}

/// Returns a key of a list.
pub(crate) fn pair(pair: &Pair) -> Value {
    let mut object = Map::new();
    put(&mut object, "key", &pair.key, Encoding::Text);
    if let Some(value) = &pair.value {
        put(&mut object, "value", value, Encoding::Text);
    }
    match pair.revision {
        Revision(0) => object.insert("pending".into(), true.into()),
        Revision(revision) => object.insert("revision".into(), revision.into()),
    };
    if let Some(expiry) = pair.expiry {
        object.insert("ttl_ms".into(), expiry.remaining_ms.max(1).into());
    }
    object.into()
}

/// Returns what each replica has of a key.
pub(crate) fn search(
    key: &Key,
    names: &[String],
    replicas: &[ReplicaValue],
    behind: &[&str],
) -> Value {
    let mut object = of("search");
    put(&mut object, "key", key.as_bytes(), Encoding::Text);
    let replica = |(name, held): (&String, &ReplicaValue)| -> Value {
        let mut replica = Map::new();
        replica.insert("name".into(), name.as_str().into());
        replica.insert("node".into(), held.node.to_string().into());
        match &held.found {
            Ok((receipt, value)) => {
                replica.insert("exists".into(), value.is_some().into());
                if let Some(value) = value {
                    put(&mut replica, "value", value, Encoding::Text);
                }
                with_receipt(&mut replica, receipt);
                let at_ms = receipt.stamp.since_1970().as_millis() as u64;
                replica.insert("changed_at_ms".into(), (at_ms > 0).then_some(at_ms).into());
            }
            Err(error) => {
                replica.insert("error".into(), error.to_string().into());
            }
        }
        replica.into()
    };
    let all: Vec<Value> = names.iter().zip(replicas).map(replica).collect();
    object.insert("replicas".into(), all.into());
    object.insert("behind".into(), behind.into());
    object.into()
}

/// Returns a join token.
pub(crate) fn token(token: &TokenInfo) -> Value {
    json!({
        "id": token.id.to_string(),
        "role": token.role.as_str(),
        "user": token.user.map(|user| user.to_string()),
        "name": token.name,
        "expires_at_ms": token.expires_ms,
        "used": token.used,
        "uses_max": token.uses,
        "admitted": token.admitted.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

/// Returns what a rebalancing would move.
pub(crate) fn plan(placement: &Placement, view: &NetworkView) -> Value {
    let node = |node: Option<NodeId>| {
        let node = node?;
        let name = view.node(node).map(|node| node.name.clone());
        Some(json!({ "id": node.to_string(), "name": name }))
    };
    let moves = |moves: &[PlannedMove]| -> Vec<Value> {
        let of = |it: &PlannedMove| {
            json!({
                "shard": it.group.0,
                "from": node(it.from),
                "to": node(it.to),
                "data_bytes": it.bytes,
            })
        };
        moves.iter().map(of).collect()
    };
    json!({
        "command": "rebalance",
        "dry_run": true,
        "under_way": placement.moves.len(),
        "replicas": moves(&placement.planned),
        "primaries": moves(&placement.transfers),
    })
}
