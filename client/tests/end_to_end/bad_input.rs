//! Requests that can never be right, in every face: one clear error each, and nothing is done.

use std::time::Duration;

use dkv_api::{
    Attach, Bytes, Client, Error, KeyRange, LeaseId, Revision, Transaction, TransactionOperation,
    WatchOptions, WriteOptions,
};
use dkv_test_support::{output, within};
use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::gateway::http::Http;
use crate::harness::{Network, PATIENCE};

const CENTURY: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// A network with one shard and three keys, at revision 5, of which the first two are forgotten.
async fn begin() -> (Network, Client) {
    let network = Network::with(json!({ "shards": 1 }), 1).await;
    let (client, admin) = (network.client().await, network.admin().await);
    for key in ["a", "a", "b", "c", "a"] {
        client.write(key, "old").await.unwrap();
    }
    admin.compact(Revision(3)).await.unwrap();
    (network, client)
}

/// Checks that the shard is where it was.
async fn nothing_was_done(client: &Client) {
    let (mut scan, mut revisions) = (client.scan(Default::default()), Vec::new());
    while let Some(pair) = scan.next().await.unwrap() {
        assert_eq!(pair.value.as_deref(), Some(&b"old"[..]));
        revisions.push(pair.revision.0);
    }
    assert_eq!(revisions, [5, 3, 4]);
    assert_eq!(client.write("a", "old").await.unwrap().receipt.revision, Revision(6));
}

fn many() -> Vec<TransactionOperation> {
    (0..129).map(|number| TransactionOperation::put(number.to_string(), "new")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_library_refuses_what_can_never_be() {
    let (_network, client) = begin().await;
    let ended = LeaseId(77);
    let range = |from: &str, to: &str| {
        KeyRange::Range(
            Bytes::copy_from_slice(from.as_bytes()),
            Bytes::copy_from_slice(to.as_bytes()),
        )
    };
    let transact = async |operations: Vec<TransactionOperation>| {
        let all = operations.into_iter().fold(Transaction::new(), Transaction::then);
        client.transact(all).await.unwrap_err()
    };
    let put = |key: &str| TransactionOperation::put(key, "new");
    let with = |options: WriteOptions| client.write_with("a", "new", options);
    let errors = [
        (
            transact(vec![put("a"), TransactionOperation::DeleteAll(range("z", "b"))]).await,
            "the range ends before it begins",
        ),
        (transact(many()).await, "at most 128 operations, not 129"),
        (
            transact(vec![put("a"), put("b"), put("a")]).await,
            "the transaction writes key \"a\" twice",
        ),
        (
            transact(vec![
                put("b"),
                TransactionOperation::put_attached("a", "new", Attach::Lease(ended)),
            ])
            .await,
            "does not exist",
        ),
        (with(WriteOptions::default().ttl(Duration::ZERO)).await.unwrap_err(), "out of bounds"),
        (with(WriteOptions::default().ttl(CENTURY)).await.unwrap_err(), "out of bounds"),
        (with(WriteOptions::default().lease(ended)).await.unwrap_err(), "does not exist"),
        (client.grant_lease(Duration::ZERO).await.unwrap_err(), "out of bounds"),
        (client.grant_lease(CENTURY).await.unwrap_err(), "out of bounds"),
        (client.refresh_lease(ended).await.unwrap_err(), "does not exist"),
        (
            client.read_at("a", Revision(99)).await.unwrap_err(),
            "revision 99 does not exist yet: the latest is 5",
        ),
        (
            client.read_at("a", Revision(1)).await.unwrap_err(),
            "compacted: the history begins at revision 3",
        ),
    ];
    for (error, says) in errors {
        let said = error.to_string();
        assert!(said.contains(says) && said.lines().count() == 1, "{said}, not {says}");
        assert!(!error.may_have_had_effect(), "{said}");
    }
    // A watch says so at once, or with its first event.
    for (keys, from, says) in [
        (range("z", "b"), None, "the range ends before it begins"),
        (range("", ""), Some(1), "compacted: the history begins at revision 3"),
        (range("", ""), Some(99), "revision 99 does not exist yet"),
    ] {
        let options = WatchOptions::default();
        let options = match from {
            Some(from) => options.from(Revision(from)),
            None => options,
        };
        let error = match client.watch(keys.clone(), options).await {
            Ok(mut watch) => within(PATIENCE, "the error", watch.next()).await.unwrap_err(),
            Err(error) => error,
        };
        assert!(error.to_string().contains(says), "{keys:?}: {error}, not {says}");
    }
    let none = client.keyspace("none").await.unwrap_err();
    assert_eq!(none, Error::NoKeyspace { name: "none".into() });
    nothing_was_done(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_refuses_what_can_never_be() {
    let (network, client) = begin().await;
    let file = network.path("transaction");
    let path = file.to_str().unwrap();
    let mut wrong = Vec::new();
    for (line, status, says) in [
        (&["get", "a", "--revision", "99"][..], 1, "revision 99"),
        (&["get", "a", "--revision", "1"], 1, "3"),
        (&["scan", "--revision", "99"], 1, "revision 99"),
        (&["scan", "--revision", "1"], 1, "3"),
        (&["watch", "a", "--from", "99"], 1, "99"),
        (&["watch", "a", "--from", "1"], 1, "3"),
        (&["watch", "a", "--keyspace", "none"], 3, "none"),
        (&["put", "a", "new", "--ttl", "0"], 2, "ttl"),
        (&["put", "a", "new", "--ttl", "36600d"], 2, "ttl"),
        (&["lease", "grant", "0s"], 2, ""),
        (&["lease", "grant", "36600d"], 2, ""),
        (&["lease", "keep", "4d"], 3, "lease"),
        (&["lease", "show", "4d"], 3, "lease"),
        (&["lease", "revoke", "4d"], 3, "lease"),
        (&["put", "a", "new", "--lease", "4d"], 4, "lease"),
    ] {
        let ended = within(PATIENCE, "the command", network.dkv(line)).await;
        let said = output(&ended.stderr);
        let is_clear = said.contains("error: ") && said.to_lowercase().contains(says);
        if !is_clear || ended.status.code() != Some(status) {
            wrong.push(format!("{line:?}: {:?} {said}", ended.status.code()));
        }
    }
    let put = |key: String| json!({ "op": "put", "key": key, "value": "new" });
    for (then, says) in [
        (
            vec![put("a".into()), json!({ "op": "delete-all", "from": "z", "to": "b" })],
            "ends before it begins",
        ),
        ((0..129).map(|number| put(number.to_string())).collect(), "not 129"),
        (vec![put("a".into()), put("a".into())], "twice"),
        (vec![json!({ "op": "put", "key": "a", "value": "new", "ttl_ms": 0 })], ""),
        (vec![json!({ "op": "put", "key": "a", "value": "new", "lease": "4d" })], "lease"),
    ] {
        std::fs::write(&file, json!({ "then": then }).to_string()).unwrap();
        let ended = network.dkv(&["txn", path]).await;
        let said = output(&ended.stderr);
        if !said.starts_with("error: ") || !said.contains(says) || ended.status.success() {
            wrong.push(format!("{then:?}: {:?} {said}", ended.status.code()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    nothing_was_done(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_refuses_what_can_never_be() {
    let (network, client) = begin().await;
    let gateway = Gateway::start(&network).await;
    let http = Http::new(false);
    let century = CENTURY.as_millis();
    let put = |key: String| json!({ "op": "put", "key": key, "value": "new" });
    let txn = |then: Vec<Value>| json!({ "then": then }).to_string();
    let (nothing, mut wrong) = (String::new, Vec::new());
    for (method, path, body, status, code) in [
        ("GET", "/v1/kv/a?revision=99", nothing(), 400, "not-yet"),
        ("GET", "/v1/kv/a?revision=1", nothing(), 410, "compacted"),
        ("GET", "/v1/kv?revision=99", nothing(), 400, "not-yet"),
        ("GET", "/v1/kv?revision=1", nothing(), 410, "compacted"),
        ("GET", "/v1/watch?from=99", nothing(), 400, "not-yet"),
        ("GET", "/v1/watch?from=1", nothing(), 410, "compacted"),
        ("GET", "/v1/watch?keyspace=none", nothing(), 404, "keyspace-not-found"),
        ("PUT", "/v1/kv/a?ttl=0", "new".into(), 400, "invalid"),
        ("PUT", &format!("/v1/kv/a?ttl={century}"), "new".into(), 400, "invalid"),
        ("PUT", "/v1/kv/a?lease=4d", "new".into(), 409, "no-lease"),
        ("POST", "/v1/leases?ttl=0", nothing(), 400, "invalid"),
        ("POST", &format!("/v1/leases?ttl={century}"), nothing(), 400, "invalid"),
        ("POST", "/v1/leases/4d/keep", nothing(), 404, "no-lease"),
        ("GET", "/v1/leases/4d", nothing(), 404, "no-lease"),
        ("DELETE", "/v1/leases/4d", nothing(), 404, "no-lease"),
        (
            "POST",
            "/v1/txn",
            txn(vec![put("a".into()), json!({ "op": "delete-all", "from": "z", "to": "b" })]),
            400,
            "invalid",
        ),
        (
            "POST",
            "/v1/txn",
            txn((0..129).map(|number| put(number.to_string())).collect()),
            413,
            "too-many-operations",
        ),
        ("POST", "/v1/txn", txn(vec![put("a".into()), put("a".into())]), 400, "invalid"),
        (
            "POST",
            "/v1/txn",
            txn(vec![json!({ "op": "put", "key": "a", "value": "new", "ttl_ms": 0 })]),
            400,
            "invalid",
        ),
        (
            "POST",
            "/v1/txn",
            txn(vec![json!({ "op": "put", "key": "a", "value": "new", "lease": "4d" })]),
            409,
            "unfit",
        ),
    ] {
        let answer = http.send(method, &gateway.url(path), &[], body).await;
        let said = answer.json();
        let is_line = said["detail"].as_str().is_some_and(|detail| detail.lines().count() == 1);
        let is_right = (answer.status, &said["code"]) == (status, &json!(code));
        if !is_right || !is_line || said["effect"] != "none" {
            wrong.push(format!("{method} {path}: {} {said}", answer.status));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    nothing_was_done(&client).await;
}
