//! Leases and times to live over an in-memory store.

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::{Value as Json, json};

use crate::memory_store::{MemoryStore, TestResponse, ask};

async fn send(store: &MemoryStore, method: Method, path: &str) -> (u16, TestResponse, Json) {
    let body = if method == Method::PUT { "value" } else { "" };
    let request = Request::builder().method(method).uri(path).body(Body::from(body)).unwrap();
    let answered = ask(store, request).await;
    let document = serde_json::from_slice(&answered.body).unwrap_or_default();
    (answered.status.as_u16(), answered, document)
}

#[tokio::test]
async fn a_lease_is_granted_used_kept_shown_and_ended() {
    let store = MemoryStore::default();
    let (status, granted, said) = send(&store, Method::POST, "/v1/leases?ttl=5000").await;
    let id = "000000000000001f";
    assert_eq!((status, granted.field("location")), (201, &*format!("/v1/leases/{id}")));
    assert_eq!(said, json!({ "lease": id, "ttl_ms": 5000 }));
    for key in ["a", "b%ff"] {
        let (status, ..) = send(&store, Method::PUT, &format!("/v1/kv/{key}?lease=1F")).await;
        assert_eq!(status, 201);
    }
    send(&store, Method::PUT, "/v1/kv/c?ttl=9000").await;
    let (_, read, _) = send(&store, Method::GET, "/v1/kv/a?ttl=true").await;
    assert_eq!((read.field("dkv-expires-ms"), read.field("dkv-lease")), ("5000", id));
    let (_, read, _) = send(&store, Method::GET, "/v1/kv/c?ttl=true").await;
    assert_eq!((read.field("dkv-expires-ms"), read.field("dkv-lease")), ("9000", ""));
    let (_, read, _) = send(&store, Method::GET, "/v1/kv/c").await;
    assert_eq!(read.field("dkv-expires-ms"), "");

    let (_, _, said) = send(&store, Method::POST, &format!("/v1/leases/{id}/keep")).await;
    assert_eq!(said, json!({ "lease": id, "remaining_ms": 5000 }));
    let (_, _, said) = send(&store, Method::GET, &format!("/v1/leases/{id}?limit=1")).await;
    let shown = json!({ "lease": id, "ttl_ms": 5000, "remaining_ms": 5000, "keys": 2,
        "missing_shards": [], "first_keys": [{ "key": "a" }], "more": true });
    assert_eq!(said, shown);
    send(&store, Method::POST, "/v1/leases?ttl=1000").await;
    let (_, page, said) = send(&store, Method::GET, "/v1/leases?limit=1").await;
    assert_eq!(
        (&said["leases"][0]["lease"], said["leases"].as_array().unwrap().len()),
        (&json!(id), 1)
    );
    let next = format!("/v1/leases?after={id}&limit=1");
    assert_eq!(
        (&said["next"], page.field("link")),
        (&json!(next), &*format!("<{next}>; rel=\"next\""))
    );
    let (_, _, said) = send(&store, Method::GET, &next).await;
    assert_eq!((&said["leases"][0]["ttl_ms"], &said["next"]), (&json!(1000), &Json::Null));

    let path = format!("/v1/leases/{id}");
    let (status, _, said) = send(&store, Method::DELETE, &path).await;
    assert_eq!((status, said), (200, json!({ "lease": id, "deleted": 2 })));
    assert_eq!(send(&store, Method::GET, "/v1/kv/a").await.0, 404);
    for (method, path) in [
        (Method::DELETE, path.clone()),
        (Method::GET, path.clone()),
        (Method::POST, format!("{path}/keep")),
    ] {
        let (status, _, said) = send(&store, method, &path).await;
        assert_eq!((status, &said["code"]), (404, &json!("no-lease")), "{path}");
    }
    let (status, _, said) = send(&store, Method::PUT, &format!("/v1/kv/a?lease={id}")).await;
    assert_eq!((status, &said["code"]), (409, &json!("no-lease")));
}

#[tokio::test]
async fn malformed_requests_for_leases_are_refused() {
    let store = MemoryStore::default();
    for (method, path, status) in [
        (Method::POST, "/v1/leases", 400),
        (Method::POST, "/v1/leases?ttl=x", 400),
        (Method::POST, "/v1/leases?ttl=999", 400),
        (Method::POST, "/v1/leases?ttl=5000&limit=1", 400),
        (Method::GET, "/v1/leases?after=x", 400),
        (Method::GET, "/v1/leases?ttl=5000", 400),
        (Method::GET, "/v1/leases/x", 400),
        (Method::GET, "/v1/leases/0", 400),
        (Method::GET, "/v1/leases/8000000000000000", 400),
        (Method::GET, "/v1/leases/1?ttl=1", 400),
        (Method::DELETE, "/v1/leases/1?x=1", 400),
        (Method::POST, "/v1/leases/1", 405),
        (Method::DELETE, "/v1/leases", 405),
        (Method::GET, "/v1/leases/1/keep", 405),
        (Method::PUT, "/v1/kv/k?ttl=x", 400),
        (Method::PUT, "/v1/kv/k?ttl=0", 400),
        (Method::PUT, "/v1/kv/k?ttl=500&lease=1", 400),
        (Method::DELETE, "/v1/kv/k?ttl=500", 400),
        (Method::GET, "/v1/kv/k?ttl=500", 400),
        (Method::GET, "/v1/kv/k?ttl=true&revision=1", 400),
    ] {
        let (answered, _, said) = send(&store, method.clone(), path).await;
        assert_eq!(answered, status, "{method} {path}: {said}");
    }
    let batch = |operation: &str| {
        let text = format!("{{\"operations\":[{operation}]}}");
        Request::post("/v1/batch").body(Body::from(text)).unwrap()
    };
    for (operation, status) in [
        (r#"{"op":"put","key":"k","value":"","ttl_ms":500}"#, 200),
        (r#"{"op":"put","key":"k","value":"","ttl_ms":500,"lease":"1"}"#, 400),
        (r#"{"op":"put","key":"k","value":"","ttl_ms":99}"#, 400),
        (r#"{"op":"put","key":"k","value":"","ttl_ms":315360000001}"#, 400),
        (r#"{"op":"put","key":"k","value":"","lease":"x"}"#, 400),
        (r#"{"op":"get","key":"k","ttl_ms":500}"#, 400),
    ] {
        let answered = ask(&store, batch(operation)).await;
        assert_eq!(answered.status.as_u16(), status, "{operation}");
    }
}
