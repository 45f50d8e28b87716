//! Transactions, increments and appends over an in-memory store.

use axum::body::Body;
use axum::http::Request;
use dkv_api::Error;
use serde_json::{Value as Json, json};

use crate::memory_store::{MemoryStore, TestResponse, ask};

async fn post(
    store: &MemoryStore,
    path: &str,
    fields: &[(&str, &str)],
    body: impl Into<Body>,
) -> (u16, TestResponse) {
    let mut request = Request::post(path);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let answered = ask(store, request.body(body.into()).unwrap()).await;
    (answered.status.as_u16(), answered)
}

async fn transact(store: &MemoryStore, transaction: &Json) -> (u16, Json) {
    let (status, answered) = post(store, "/v1/txn", &[], transaction.to_string()).await;
    (status, serde_json::from_slice(&answered.body).unwrap())
}

#[tokio::test]
async fn a_transaction_is_answered_with_its_branch_revision_and_results() {
    let store = MemoryStore::default();
    let order = json!({
        "if": [{ "key": "order", "exists": false }],
        "then": [
            { "op": "put", "key": "order", "value": "bolt" },
            { "op": "increment", "key": "stock", "by": -1 },
        ],
        "else": [{ "op": "get", "key": "order" }],
    });
    let (status, said) = transact(&store, &order).await;
    assert_eq!(status, 200, "{said}");
    let results = json!([
        { "operation": "put", "key": "order", "created_revision": 1, "version": 1 },
        { "operation": "increment", "key": "stock", "what": "put", "value": "-1", "revision": 1,
          "created_revision": 1, "version": 1, "changed_at_ms": null },
    ]);
    let expected = json!({
        "branch": "then", "changed": true, "revision": 1, "shard": 1, "parts": [], "results": results,
    });
    assert_eq!(said, expected);
    let (status, answered) = post(&store, "/v1/txn", &[], order.to_string()).await;
    let said: Json = serde_json::from_slice(&answered.body).unwrap();
    assert_eq!((status, &said["branch"], &said["changed"]), (200, &json!("else"), &json!(false)));
    assert_eq!(said["results"][0]["value"], "bolt");
    assert_eq!((answered.field("dkv-revision"), answered.field("dkv-shard")), ("1", "1"));
    assert_eq!(answered.field("cache-control"), "no-store");

    // Without an else, a condition that does not hold is a conflict.
    let mut only = order.clone();
    only.as_object_mut().unwrap().remove("else");
    let (status, said) = transact(&store, &only).await;
    assert_eq!((status, &said["code"], &said["effect"]), (409, &json!("conflict"), &json!("none")));
    only["else"] = json!([]);
    only["encoding"] = "base64".into();
    let (status, said) = transact(&store, &only).await;
    assert_eq!((status, &said["branch"], &said["results"]), (200, &json!("else"), &json!([])));
    let read = json!({ "then": [{ "op": "get", "key": "order" }], "encoding": "base64" });
    let (_, said) = transact(&store, &read).await;
    assert_eq!(said["results"][0]["value_base64"], "Ym9sdA==");
}

#[tokio::test]
async fn a_transaction_that_cannot_be_executed_says_why() {
    let store = MemoryStore::default();
    let put = json!({ "then": [{ "op": "put", "key": "word", "value": "blue" }] });
    assert_eq!(transact(&store, &put).await.0, 200);
    let unfit = json!({ "then": [
        { "op": "put", "key": "other", "value": "1" },
        { "op": "increment", "key": "word" },
    ]});
    let (status, said) = transact(&store, &unfit).await;
    assert_eq!((status, &said["code"], &said["operation"]), (409, &json!("unfit"), &json!(2)));
    let why = "nothing was changed: operation 2: the value is not a decimal number of 64 bits";
    assert_eq!((&said["detail"], &said["effect"]), (&json!(why), &json!("none")));

    let many = json!({ "then": vec![json!({ "op": "get", "key": "k" }); 129] });
    let (status, said) = transact(&store, &many).await;
    assert_eq!((status, &said["code"]), (413, &json!("too-many-operations")));
    assert_eq!(said["detail"], "a transaction has at most 128 operations, not 129");
    for wrong in [json!({}), json!([]), json!({ "then": [{ "op": "set", "key": "k" }] })] {
        let (status, said) = transact(&store, &wrong).await;
        assert_eq!((status, &said["code"]), (400, &json!("invalid")), "{wrong}");
    }
    for (error, status, code, effect) in [
        (Error::Invalid("the transaction writes key \"k\" twice".into()), 400, "invalid", "none"),
        (
            Error::TooLarge { what: "key".into(), bytes: 9, limit: 8 },
            413,
            "transaction-too-large",
            "none",
        ),
        (Error::SeveralShards, 400, "several-shards", "none"),
        (Error::Unavailable("no majority".into()), 503, "unavailable", "none"),
        (Error::Unknown("no answer".into()), 504, "outcome-unknown", "unknown"),
    ] {
        store.fail_with(error);
        let (answered, said) = transact(&store, &put).await;
        assert_eq!(
            (answered, &said["code"], &said["effect"]),
            (status, &json!(code), &json!(effect))
        );
    }
    let get = Request::get("/v1/txn").body(Body::empty()).unwrap();
    assert_eq!(ask(&store, get).await.field("allow"), "POST");
    assert_eq!(post(&store, "/v1/txn?x=1", &[], "{}").await.0, 400);
}

#[tokio::test]
async fn a_number_is_incremented_and_text_appended() {
    let store = MemoryStore::default();
    let increment = async |query: &str, fields: &[_]| {
        let path = format!("/v1/increment/visits%2Fall{query}");
        let (status, answered) = post(&store, &path, fields, "").await;
        (status, String::from_utf8(answered.body.clone()).unwrap(), answered)
    };
    let (status, sum, answered) = increment("", &[]).await;
    assert_eq!((status, sum.as_str(), answered.field("etag")), (200, "1", "\"1\""));
    assert_eq!(answered.field("content-type"), "text/plain; charset=utf-8");
    assert_eq!(increment("?by=-5", &[]).await.1, "-4");
    assert_eq!(increment("?by=1", &[("if-match", "\"2\"")]).await.1, "-3");
    for fields in [("if-match", "\"2\""), ("if-none-match", "*"), ("if-match", "\"x\"")] {
        let (status, said, _) = increment("", &[fields]).await;
        assert_eq!(status, 412, "{said}");
    }
    let (_, _, answered) = increment("", &[("if-match", "\"2\"")]).await;
    assert_eq!(answered.field("etag"), "\"3\"");
    for query in ["?by=x", "?by=", "?by=+1", "?by=9223372036854775808", "?to=1", "?by=1&by=1"] {
        assert_eq!(increment(query, &[]).await.0, 400, "{query}");
    }
    assert_eq!(post(&store, "/v1/increment/visits", &[], "5").await.0, 400);
    assert_eq!(post(&store, "/v1/increment/visits", &[], "555").await.0, 400);
    assert_eq!(post(&store, "/v1/increment/", &[], "").await.0, 400);

    let append = async |body: &'static str| post(&store, "/v1/append/log", &[], body).await;
    let (status, answered) = append("a line\n").await;
    assert_eq!((status, answered.field("etag")), (201, "\"4\""));
    assert_eq!(append("another\n").await.0, 204);
    let read = Request::get("/v1/kv/log").body(Body::empty()).unwrap();
    assert_eq!(ask(&store, read).await.body, b"a line\nanother\n");
    let (status, answered) = post(&store, "/v1/increment/log", &[], "").await;
    let said: Json = serde_json::from_slice(&answered.body).unwrap();
    assert_eq!((status, &said["code"]), (409, &json!("unfit")));
    assert_eq!(said["detail"], "nothing was changed: the value is not a decimal number of 64 bits");
    let long = "k".repeat(4097);
    for path in ["increment", "append"] {
        let (status, _) = post(&store, &format!("/v1/{path}/{long}"), &[], "").await;
        assert_eq!(status, 414);
    }
}
