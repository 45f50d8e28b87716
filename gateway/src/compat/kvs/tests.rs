//! `/kvs` over an in-memory store, compared word for word.

use axum::body::Body;
use axum::http::Request;
use dkv_api::Error;

use crate::memory_store::{MemoryStore, ask};

async fn send(
    store: &MemoryStore,
    method: &str,
    path: &str,
    body: impl Into<Body>,
) -> (u16, String) {
    let request = Request::builder().method(method).uri(path).body(body.into()).unwrap();
    let answered = ask(store, request).await;
    assert_eq!(answered.field("content-type"), "application/json");
    (answered.status.as_u16(), String::from_utf8(answered.body).unwrap())
}

fn expect(status: u16, text: &str) -> (u16, String) {
    (status, text.to_owned())
}

#[tokio::test]
async fn answers_are_those_of_the_specification() {
    let store = MemoryStore::default();
    let missing = expect(404, r#"{"msg":"error","error":"key does not exist"}"#);
    assert_eq!(send(&store, "GET", "/kvs/foo", "").await, missing);
    assert_eq!(send(&store, "DELETE", "/kvs/foo", "").await, missing);
    let put = async |form: &'static str| send(&store, "PUT", "/kvs/foo", form).await;
    assert_eq!(put("val=bart").await, expect(201, r#"{"replaced":0,"msg":"success"}"#));
    assert_eq!(put("val=a+b%26").await, expect(200, r#"{"replaced":1,"msg":"success"}"#));
    let read = send(&store, "GET", "/kvs/foo", "").await;
    assert_eq!(read, expect(200, r#"{"msg":"success","value":"a b&"}"#));
    assert_eq!(send(&store, "GET", "/kvs/FOO", "").await, missing);
    assert_eq!(send(&store, "DELETE", "/kvs/foo", "").await, expect(200, r#"{"msg":"success"}"#));
    assert_eq!(send(&store, "GET", "/kvs/foo", "").await, missing);
    for error in [Error::Unavailable("x".into()), Error::Unknown("x".into())] {
        store.fail_with(error);
        let down = expect(404, r#"{"msg":"error","error":"service is not available"}"#);
        assert_eq!(send(&store, "GET", "/kvs/foo", "").await, down);
        assert_eq!(put("val=1").await, down);
        assert_eq!(send(&store, "DELETE", "/kvs/foo", "").await, down);
    }
}

#[tokio::test]
async fn other_requests_are_client_errors() {
    let store = MemoryStore::default();
    let long = |length| format!("/kvs/{}", "k".repeat(length));
    assert_eq!(send(&store, "PUT", &long(250), "val=").await.0, 201);
    for (method, path, body, status) in [
        ("PUT", long(251).as_str(), "val=1", 400),
        ("PUT", "/kvs", "val=1", 400),
        ("GET", "/kvs/", "", 400),
        ("GET", "/kvs/a-b", "", 400),
        ("GET", "/kvs/a/b", "", 400),
        ("GET", "/kvs/a%20b", "", 400),
        ("GET", "/kvs/%zz", "", 400),
        ("GET", "/kvs/%C3%A9", "", 400),
        ("PUT", "/kvs/a", "", 400),
        ("PUT", "/kvs/a", "value=1", 400),
        ("PUT", "/kvs/a", "val=%ff", 400),
        ("POST", "/kvs/a", "val=1", 405),
        ("PATCH", "/kvs/a", "val=1", 405),
    ] {
        let (answered, text) = send(&store, method, path, body.to_owned()).await;
        assert_eq!(answered, status, "{method} {path} {text}");
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["msg"], "error", "{text}");
    }
    for (bytes, status) in [(1_500_000, 201), (1_572_864, 201), (1_572_865, 413)] {
        let path = format!("/kvs/size{bytes}");
        let form = format!("val={}", "%41".repeat(bytes));
        assert_eq!(send(&store, "PUT", &path, form).await.0, status, "{bytes}");
    }
    assert_eq!(send(&store, "PUT", "/kvs/a", vec![b'x'; 5 << 20]).await.0, 413);
}
