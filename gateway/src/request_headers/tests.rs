//! Each request header field of RFC 9110, over an in-memory store.

use axum::body::Body;
use axum::http::Request;

use crate::memory_store::{MemoryStore, TestResponse, ask};

type Fields<'a> = &'a [(&'a str, &'a str)];

async fn send(
    store: &MemoryStore,
    method: &str,
    path: &str,
    fields: Fields<'_>,
    body: &str,
) -> TestResponse {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    ask(store, request.body(Body::from(body.to_owned())).unwrap()).await
}

/// A valid body for each path that takes one.
const WRITES: [(&str, &str, &str); 6] = [
    ("PUT", "/v1/kv/k", "v"),
    ("POST", "/v1/batch", r#"{"operations": [{"op": "put", "key": "k", "value": "v"}]}"#),
    ("PUT", "/kvs/k", "val=v"),
    (
        "PUT",
        "/set",
        r#"[{"key": {"encoding": "string", "data": "a"}, "value": {"encoding": "string", "data": "a"}}]"#,
    ),
    ("POST", "/fetch", r#"[{"encoding": "string", "data": "a"}]"#),
    ("POST", "/query", r#"[{"encoding": "string", "data": "a"}]"#),
];

#[tokio::test]
async fn an_encoded_body_is_refused_on_every_path() {
    for (method, path, body) in WRITES {
        let store = MemoryStore::default();
        for encodings in [
            &[("content-encoding", "gzip")][..],
            &[("content-encoding", "GZip")],
            &[("content-encoding", "identity, br")],
            &[("content-encoding", "identity"), ("content-encoding", "zstd")],
            &[("content-encoding", "x-unknown")],
        ] {
            let answered = send(&store, method, path, encodings, body).await;
            assert_eq!(answered.status, 415, "{path} {encodings:?}");
            assert_eq!(answered.field("accept-encoding"), "identity");
        }
        assert_eq!(store.receipt(dkv_api::Condition::Always).revision.0, 0, "{path}");
        for encodings in [&[("content-encoding", "identity")][..], &[("content-encoding", "")]] {
            let answered = send(&store, method, path, encodings, body).await;
            assert!(answered.status.is_success(), "{path} {answered:?}");
        }
    }
}

#[tokio::test]
async fn fields_that_change_a_write_are_refused() {
    for (method, path, body) in WRITES {
        let store = MemoryStore::default();
        for (field, status) in [
            (("expect", "200-ok"), 417),
            (("expect", "100-continue, other"), 417),
            (("transfer-encoding", "gzip, chunked"), 501),
            (("transfer-encoding", "identity"), 501),
            (("x-http-method-override", "DELETE"), 400),
            (("x-http-method", "PATCH"), 400),
            (("x-method-override", "GET"), 400),
        ] {
            let answered = send(&store, method, path, &[field], body).await;
            assert_eq!(answered.status, status, "{path} {field:?} {answered:?}");
        }
        if method == "PUT" {
            let part = [("content-range", "bytes 0-0/2")];
            assert_eq!(send(&store, method, path, &part, body).await.status, 400, "{path}");
        }
        if path != "/v1/kv/k" {
            for name in ["if-match", "if-none-match"] {
                assert_eq!(send(&store, method, path, &[(name, "*")], body).await.status, 400);
            }
        }
        assert_eq!(store.receipt(dkv_api::Condition::Always).revision.0, 0, "{path}");
        let same = [("x-http-method-override", method), ("expect", "100-Continue")];
        assert!(send(&store, method, path, &same, body).await.status.is_success(), "{path}");
    }
}

#[tokio::test]
async fn ignored_fields_change_no_answer() {
    let store = MemoryStore::default();
    for (name, value) in [
        ("content-type", "multipart/form-data; boundary=x"),
        ("content-language", "de"),
        ("content-location", "/elsewhere"),
        ("content-digest", "sha-256=:AAAA:"),
        ("if-unmodified-since", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("if-modified-since", "Thu, 01 Jan 2099 00:00:00 GMT"),
        ("if-range", "\"1\""),
        ("range", "bytes=0-0"),
        ("prefer", "respond-async, return=representation"),
        ("te", "trailers, gzip"),
        ("trailer", "etag"),
        ("upgrade", "h2c"),
        ("idempotency-key", "1"),
    ] {
        let put = send(&store, "PUT", "/v1/kv/k", &[(name, value)], "value").await;
        assert!(put.status.is_success() && put.body.is_empty(), "{name} {put:?}");
        let deleted = send(&store, "DELETE", "/v1/kv/k", &[(name, value)], "").await;
        assert_eq!(deleted.status, 204, "{name}");
    }
    let tag = send(&store, "PUT", "/v1/kv/k", &[], "value").await.field("etag").to_owned();
    for fields in [
        &[("range", "bytes=1-2")][..],
        &[("range", "bytes=99-")],
        &[("range", "bytes=1-2"), ("if-range", &tag)],
        &[("if-modified-since", "Thu, 01 Jan 2099 00:00:00 GMT")],
        &[("if-unmodified-since", "Thu, 01 Jan 1970 00:00:00 GMT")],
        &[("accept", "text/html")],
        &[("accept-encoding", "gzip, identity;q=0")],
        &[("accept-charset", "utf-16")],
        &[("accept-language", "de")],
        &[("cache-control", "only-if-cached, max-age=100")],
        &[("pragma", "no-cache")],
        &[("max-forwards", "0")],
        &[("content-encoding", "gzip")],
        &[("if-none-match", "\"99\""), ("if-modified-since", "Thu, 01 Jan 2099 00:00:00 GMT")],
    ] {
        let read = send(&store, "GET", "/v1/kv/k", fields, "").await;
        assert_eq!(
            (read.status.as_u16(), read.body.as_slice()),
            (200, &b"value"[..]),
            "{fields:?}"
        );
        assert_eq!((read.field("accept-ranges"), read.field("content-range")), ("none", ""));
    }
}

#[tokio::test]
async fn weak_and_repeated_entity_tags_are_compared_as_rfc_9110_says() {
    let store = MemoryStore::default();
    let put = async |fields| send(&store, "PUT", "/v1/kv/k", fields, "v").await.status.as_u16();
    assert_eq!(put(&[]).await, 201);
    // One tag that counts, among others that match nothing.
    assert_eq!(put(&[("if-match", "W/\"1\", \"other\", \"1\", \"1\"")]).await, 204);
    assert_eq!(put(&[("if-match", "\"1\""), ("if-match", "\"2\"")]).await, 400);
    assert_eq!(put(&[("if-match", "W/\"2\"")]).await, 412);
    assert_eq!(put(&[("if-match", "\"x\""), ("if-match", "W/\"2\"")]).await, 412);
    assert_eq!(put(&[("if-match", "\"2\""), ("if-match", "\"2\"")]).await, 204);
    let get = async |fields| send(&store, "GET", "/v1/kv/k", fields, "").await.status.as_u16();
    assert_eq!(get(&[("if-none-match", "W/\"3\"")]).await, 304);
    assert_eq!(get(&[("if-none-match", "\"1\""), ("if-none-match", "\"3\"")]).await, 304);
    assert_eq!(get(&[("if-match", "W/\"3\"")]).await, 412);
    assert_eq!(get(&[("if-match", "\"1\", \"3\"")]).await, 200);
    // Resources without an entity tag.
    for path in ["/v1/kv", "/v1/status", "/metrics", "/kvs/none", "/", "/livez"] {
        let get = async |fields| send(&store, "GET", path, fields, "").await.status.as_u16();
        let found = get(&[]).await;
        let ok = found == 200;
        assert_eq!(get(&[("if-match", "\"1\"")]).await, if ok { 412 } else { found }, "{path}");
        assert_eq!(get(&[("if-none-match", "*")]).await, if ok { 304 } else { found }, "{path}");
        assert_eq!(get(&[("if-match", "*"), ("if-none-match", "\"1\"")]).await, found, "{path}");
    }
}
