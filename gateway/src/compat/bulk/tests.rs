//! `/set`, `/fetch` and `/query` over an in-memory store.

use axum::body::Body;
use axum::http::Request;
use dkv_api::Error;
use serde_json::{Value, json};

use crate::memory_store::{MemoryStore, ask};

async fn send(
    store: &MemoryStore,
    method: &str,
    path: &str,
    body: impl Into<Body>,
) -> (u16, Value) {
    let request = Request::builder().method(method).uri(path);
    let request = request.header("content-type", "text/plain").body(body.into()).unwrap();
    let answered = ask(store, request).await;
    assert_eq!(answered.field("content-type"), "application/json");
    (answered.status.as_u16(), serde_json::from_slice(&answered.body).unwrap())
}

fn string(data: &str) -> Value {
    json!({ "encoding": "string", "data": data })
}

fn binary(data: &str) -> Value {
    json!({ "encoding": "binary", "data": data })
}

fn pair(key: &Value, value: &Value) -> Value {
    json!({ "key": key, "value": value })
}

#[tokio::test]
async fn pairs_are_stored_and_fetched() {
    let store = MemoryStore::default();
    let set = json!([
        pair(&string("01"), &string("a")),
        pair(&binary("01"), &binary("10")),
        pair(&string("01"), &string("b")),
    ]);
    let added = json!([{ "keys_added": 3, "keys_failed": [] }]);
    for _ in 0..2 {
        assert_eq!(send(&store, "PUT", "/set", set.to_string()).await, (200, added.clone()));
    }
    let keys = json!([binary("01"), string("01")]).to_string();
    let found = json!([pair(&binary("01"), &binary("10")), pair(&string("01"), &string("b"))]);
    assert_eq!(send(&store, "POST", "/fetch", keys.clone()).await, (200, found));
    let (status, all) = send(&store, "GET", "/fetch", "").await;
    assert_eq!((status, all.as_array().unwrap().len()), (200, 2), "{all}");
    assert!(all.as_array().unwrap().contains(&pair(&string("01"), &string("b"))));
    // Word for word, in the order of the specification.
    let one = r#"[{"encoding":"string","data":"01"}]"#;
    let request = Request::builder().method("POST").uri("/fetch").body(one.into()).unwrap();
    let text = String::from_utf8(ask(&store, request).await.body).unwrap();
    assert_eq!(
        text,
        r#"[{"key":{"encoding":"string","data":"01"},"value":{"encoding":"string","data":"b"}}]"#
    );
    let asked = json!([string("01"), string("none")]).to_string();
    let told = json!([pair(&string("01"), &true.into()), pair(&string("none"), &false.into())]);
    assert_eq!(send(&store, "POST", "/query", asked.clone()).await, (200, told));
    let partly = json!([pair(&string("01"), &string("b")), pair(&string("none"), &Value::Null)]);
    assert_eq!(send(&store, "POST", "/fetch", asked).await, (206, partly));
}

#[tokio::test]
async fn failed_keys_are_listed() {
    let store = MemoryStore::default();
    let long = string(&"k".repeat(5000));
    let set = json!([
        pair(&string("good"), &binary("")),
        pair(&binary("2"), &string("x")),
        pair(&string("x"), &binary("a")),
        pair(&json!({ "encoding": "hex", "data": "0" }), &string("x")),
        pair(&long, &string("x")),
    ]);
    let (status, said) = send(&store, "PUT", "/set", set.to_string()).await;
    assert_eq!((status, &said[0]["keys_added"]), (206, &1.into()), "{said}");
    assert_eq!(said[0]["keys_failed"].as_array().unwrap().len(), 4);
    assert_eq!(said[0]["keys_failed"][0], binary("2"));
    let keys = json!([binary("2"), string("good")]).to_string();
    let told = json!([pair(&binary("2"), &false.into()), pair(&string("good"), &true.into())]);
    assert_eq!(send(&store, "POST", "/query", keys.clone()).await, (206, told));
    store.fail_with(Error::Unavailable("no majority".into()));
    assert_eq!(send(&store, "POST", "/query", json!([string("a")]).to_string()).await.0, 503);
    assert_eq!(send(&store, "GET", "/fetch", "").await.0, 503);
    let (status, said) = send(&store, "PUT", "/set", set.to_string()).await;
    assert_eq!((status, &said[0]["keys_added"]), (206, &0.into()));
    let (status, said) = send(&store, "POST", "/fetch", keys).await;
    assert_eq!((status, said[1]["error"].is_string()), (206, true), "{said}");
}

#[tokio::test]
async fn malformed_requests_are_refused() {
    let store = MemoryStore::default();
    for body in ["", "{", "{}", "[1]", "[{}]", "[{\"key\":1}]", "[\"a\"]", "[]x", "null", "\u{ff}"]
    {
        for (method, path) in [("PUT", "/set"), ("POST", "/fetch"), ("POST", "/query")] {
            let (status, said) = send(&store, method, path, body).await;
            assert_eq!((status, said["error"].is_string()), (400, true), "{path} {body} {said}");
        }
    }
    let deep = "[".repeat(100_000);
    assert_eq!(send(&store, "POST", "/fetch", deep).await.0, 400);
    let many = json!(vec![string("k"); 10_001]).to_string();
    assert_eq!(send(&store, "POST", "/query", many).await.0, 413);
    for path in ["/set/a", "/fetch/", "/query/a/b"] {
        assert_eq!(send(&store, "GET", path, "").await.0, 501, "{path}");
    }
    for (method, path) in [("POST", "/set"), ("PUT", "/fetch"), ("GET", "/query")] {
        assert_eq!(send(&store, method, path, "[]").await.0, 405, "{path}");
    }
    assert_eq!(send(&store, "GET", "/fetch", "").await, (200, json!([])));
    let nothing = json!([{ "keys_added": 0, "keys_failed": [] }]);
    assert_eq!(send(&store, "PUT", "/set", "[]").await, (200, nothing));
}
