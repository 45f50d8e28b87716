//! `/v1` over an in-memory store that fails on demand.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use dkv_api::{Condition, Error, Revision};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use crate::memory_store::{MemoryStore, TestResponse, ask};

async fn send(
    store: &MemoryStore,
    method: Method,
    path: &str,
    fields: &[(&str, &str)],
) -> TestResponse {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    ask(store, request.body(Body::from("value")).unwrap()).await
}

fn problem(answered: &TestResponse, status: u16, code: &str) {
    assert_eq!(answered.status, StatusCode::from_u16(status).unwrap(), "{answered:?}");
    assert_eq!(answered.field("content-type"), "application/problem+json");
    let document: Json = serde_json::from_slice(&answered.body).unwrap();
    assert_eq!(
        (document["status"].as_u64(), &document["code"]),
        (Some(status.into()), &code.into())
    );
}

#[tokio::test]
async fn a_key_is_written_read_and_deleted() {
    let store = MemoryStore::default();
    problem(&send(&store, Method::GET, "/v1/kv/a%2Fb", &[]).await, 404, "key-not-found");
    let written = send(&store, Method::PUT, "/v1/kv/a%2Fb", &[]).await;
    assert_eq!((written.status, written.field("etag")), (StatusCode::CREATED, "\"1\""));
    assert_eq!(written.field("dkv-revision"), "1");
    let again = send(&store, Method::PUT, "/v1/kv/a/b", &[]).await;
    assert_eq!((again.status, again.field("etag")), (StatusCode::NO_CONTENT, "\"2\""));
    let read = send(&store, Method::GET, "/v1/kv/a/b", &[]).await;
    assert_eq!((read.status, read.body.as_slice()), (StatusCode::OK, &b"value"[..]));
    assert_eq!((read.field("etag"), read.field("dkv-level")), ("\"2\"", "strong"));
    assert_eq!(read.field("content-type"), "application/octet-stream");
    let near = send(&store, Method::GET, "/v1/kv/a/b?consistency=eventual", &[]).await;
    assert_eq!((near.field("dkv-level"), near.field("dkv-staleness-ms")), ("eventual", "40"));
    for stricter in ["max_staleness=39", "at_least=3"] {
        let path = format!("/v1/kv/a/b?consistency=eventual&{stricter}");
        assert_eq!(send(&store, Method::GET, &path, &[]).await.field("dkv-level"), "strong");
    }
    let same = send(&store, Method::GET, "/v1/kv/a/b", &[("if-none-match", "\"2\"")]).await;
    assert_eq!((same.status, same.body.len()), (StatusCode::NOT_MODIFIED, 0));
    problem(
        &send(&store, Method::GET, "/v1/kv/a/b", &[("if-match", "\"1\"")]).await,
        412,
        "precondition-failed",
    );
    let deleted = send(&store, Method::DELETE, "/v1/kv/a/b", &[("if-match", "\"2\"")]).await;
    assert_eq!((deleted.status, deleted.field("dkv-revision")), (StatusCode::NO_CONTENT, "3"));
    problem(&send(&store, Method::DELETE, "/v1/kv/a/b", &[]).await, 404, "key-not-found");
}

#[tokio::test]
async fn conditional_writes_check_the_revision() {
    let store = MemoryStore::default();
    let put = async |fields: &[_]| send(&store, Method::PUT, "/v1/kv/k", fields).await;
    let absent = &[("if-none-match", "*")];
    problem(&put(&[("if-match", "*")]).await, 412, "precondition-failed");
    assert_eq!(put(absent).await.status, StatusCode::CREATED);
    let refused = put(absent).await;
    problem(&refused, 412, "precondition-failed");
    assert_eq!(refused.field("etag"), "\"1\"");
    assert_eq!(put(&[("if-match", "\"1\"")]).await.status, StatusCode::NO_CONTENT);
    problem(&put(&[("if-match", "\"1\"")]).await, 412, "precondition-failed");
    problem(&put(&[("if-match", "\"other\"")]).await, 412, "precondition-failed");
    problem(&put(&[("if-match", "1")]).await, 400, "invalid");
    problem(&put(&[("if-none-match", "\"1\"")]).await, 400, "invalid");
}

#[tokio::test]
async fn writes_are_served_at_every_level() {
    let store = MemoryStore::default();
    let put = async |path: &str, fields: &[_]| send(&store, Method::PUT, path, fields).await;
    let all = put("/v1/kv/k?consistency=all", &[]).await;
    assert_eq!((all.status, all.field("dkv-level")), (StatusCode::CREATED, "all"));
    let part = put("/v1/kv/not%20everywhere?consistency=all", &[]).await;
    problem(&part, 504, "incomplete");
    let document: Json = serde_json::from_slice(&part.body).unwrap();
    assert_eq!((&document["effect"], part.field("dkv-revision")), (&"done".into(), "2"));
    // A write that is not ordered yet has a number and no revision.
    for method in [Method::PUT, Method::DELETE] {
        let near = send(&store, method, "/v1/kv/k?consistency=eventual", &[]).await;
        assert_eq!((near.status, near.field("dkv-level")), (StatusCode::ACCEPTED, "eventual"));
        assert_eq!((near.field("dkv-pending"), near.field("dkv-revision")), ("7", ""));
        assert_eq!(near.field("etag"), "");
    }
    let when = [("if-match", "*")];
    problem(&put("/v1/kv/k?consistency=eventual", &when).await, 400, "invalid");
    let operations = json!({ "operations": [
        { "op": "put", "key": "k", "value": "v", "consistency": "eventual" },
        { "op": "delete", "key": "k", "consistency": "eventual" },
        { "op": "put", "key": "k", "value": "v", "consistency": "all" },
        { "op": "put", "key": "k", "value": "v", "consistency": "eventual", "if": "present" },
    ]});
    let request = Request::post("/v1/batch").body(Body::from(operations.to_string())).unwrap();
    let document: Json = serde_json::from_slice(&ask(&store, request).await.body).unwrap();
    let statuses = document["results"].as_array().unwrap().iter().map(|it| it["status"].as_u64());
    assert_eq!(statuses.collect::<Vec<_>>(), [202, 202, 204, 400].map(Some));
    assert_eq!(
        (&document["results"][0]["pending"], &document["results"][0]["revision"]),
        (&7.into(), &Json::Null)
    );
}

#[tokio::test]
async fn malformed_requests_are_refused() {
    let store = MemoryStore::default();
    for (method, path, status, code) in [
        (Method::GET, "/v1/kv/", 400, "invalid"),
        (Method::GET, "/v1/kv/%zz", 400, "invalid"),
        (Method::GET, "/v1/kv/k?consistency=some", 400, "invalid"),
        (Method::PUT, "/v1/kv/k?consistency=session", 400, "invalid"),
        (Method::DELETE, "/v1/kv/k?at_least=1", 400, "invalid"),
        (Method::POST, "/v1/kv/k", 405, "method"),
        (Method::PUT, "/v1/status", 405, "method"),
        (Method::GET, "/v1/kv?limit=0", 400, "invalid"),
        (Method::PUT, "/v1/kv", 405, "method"),
        (Method::GET, "/v1/batch", 405, "method"),
        (Method::GET, "/v2", 404, "no-such-path"),
    ] {
        problem(&send(&store, method, path, &[]).await, status, code);
    }
    let long = format!("/v1/kv/{}", "k".repeat(4097));
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        problem(&send(&store, method, &long, &[]).await, 414, "key-too-long");
    }
    let request = Request::put("/v1/kv/k").body(Body::from(vec![0; (16 << 20) + 1])).unwrap();
    problem(&ask(&store, request).await, 413, "value-too-large");
    let any_bytes = send(&store, Method::PUT, "/v1/kv/%00%ff", &[]).await;
    assert_eq!(any_bytes.status, StatusCode::CREATED);
}

#[tokio::test]
async fn keys_are_listed_in_pages() {
    let store = MemoryStore::default();
    for name in ["a%2F1", "a%2F2", "a%2F%ff", "b"] {
        send(&store, Method::PUT, &format!("/v1/kv/{name}"), &[]).await;
    }
    let list = async |target: &str| -> Json {
        let listed = send(&store, Method::GET, target, &[]).await;
        assert_eq!(
            (listed.status, listed.field("content-type")),
            (200.try_into().unwrap(), "application/json")
        );
        let document: Json = serde_json::from_slice(&listed.body).unwrap();
        let link = document["next"].as_str().map(|next| format!("<{next}>; rel=\"next\""));
        assert_eq!(listed.field("link"), link.unwrap_or_default());
        document
    };
    let first = list("/v1/kv?prefix=a/&limit=2").await;
    let pair =
        |key: &str, revision: u64| json!({ "key": key, "value": "value", "revision": revision });
    assert_eq!(first["pairs"], json!([pair("a/1", 1), pair("a/2", 2)]));
    let second = list(first["next"].as_str().unwrap()).await;
    let odd = json!([{ "key_base64": "YS//", "value": "value", "revision": 3 }]);
    assert_eq!(second, json!({ "pairs": odd, "next": null }));
    let keys = list("/v1/kv?values=false&encoding=base64&after=a/%ff").await;
    assert_eq!(keys["pairs"], json!([{ "key_base64": "Yg==", "revision": 4 }]));
    assert_eq!(list("/v1/kv?prefix=c").await, json!({ "pairs": [], "next": null }));
    store.fail_with(Error::Unavailable("no majority".into()));
    problem(&send(&store, Method::GET, "/v1/kv", &[]).await, 503, "unavailable");
}

#[tokio::test]
async fn batches_answer_each_operation() {
    let store = MemoryStore::default();
    let batch = async |body: String| {
        let request = Request::post("/v1/batch").body(Body::from(body)).unwrap();
        let answered = ask(&store, request).await;
        let document: Json = serde_json::from_slice(&answered.body).unwrap();
        (answered.status.as_u16(), document)
    };
    let operations = json!({ "operations": [
        { "op": "put", "key": "a", "value": "1" },
        { "op": "get", "key": "a" },
        { "op": "put", "key": "a", "value_base64": "/w==", "if_revision": 1.0 },
        { "op": "get", "key": "a", "consistency": "eventual" },
        { "op": "put", "key_base64": "YQ==", "value": "x", "if": "absent" },
        { "op": "delete", "key": "none" },
        { "op": "delete", "key": "a", "if": "present" },
    ]});
    let (status, said) = batch(operations.to_string()).await;
    assert_eq!(status, 200, "{said}");
    let results = said["results"].as_array().unwrap();
    let statuses: Vec<u64> = results.iter().map(|it| it["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [201, 200, 204, 200, 409, 404, 204]);
    assert_eq!((&results[1]["value"], &results[3]["value_base64"]), (&"1".into(), &"/w==".into()));
    assert_eq!(results[5]["code"], "key-not-found");
    for wrong in [
        "",
        "[]",
        "{}",
        "{\"operations\":[{}]}",
        "{\"operations\":[],\"x\":1}",
        "{\"operations\":[{\"op\":\"put\",\"key\":\"k\"}]}",
        "{\"operations\":[{\"op\":\"get\",\"key\":\"k\",\"value\":null}]}",
        "{\"operations\":[{\"op\":\"get\",\"key\":\"\"}]}",
        "{\"operations\":[{\"op\":\"delete\",\"key\":\"k\",\"if_revision\":1.5}]}",
        "{\"operations\":[{\"op\":\"get\",\"key\":\"k\",\"value\":\"v\"}]}",
        "{\"operations\":[{\"op\":\"delete\",\"key\":\"k\",\"key_base64\":\"aw==\"}]}",
    ] {
        let (status, said) = batch(wrong.into()).await;
        assert_eq!((status, &said["code"]), (400, &"invalid".into()), "{wrong}");
    }
    let many = vec![json!({ "op": "get", "key": "k" }); 1001];
    let (status, said) = batch(json!({ "operations": many }).to_string()).await;
    assert_eq!((status, &said["code"]), (413, &"too-many-operations".into()));
    assert_eq!(batch("{\"operations\":[]}".into()).await, (200, json!({ "results": [] })));
}

#[tokio::test]
async fn a_batch_with_an_oversized_answer_reports_its_writes() {
    let store = MemoryStore::default();
    // As text in JSON each of these bytes takes six.
    let request = Request::put("/v1/kv/long").body(Body::from(vec![1; 11 << 20])).unwrap();
    assert_eq!(ask(&store, request).await.status, StatusCode::CREATED);
    let operations = json!({ "operations": [
        { "op": "put", "key": "short", "value": "v" },
        { "op": "get", "key": "long" },
        { "op": "get", "key": "short" },
    ]});
    let request = Request::post("/v1/batch").body(Body::from(operations.to_string())).unwrap();
    let answered = ask(&store, request).await;
    let document: Json = serde_json::from_slice(&answered.body).unwrap();
    let result = |index: usize| &document["results"][index];
    assert_eq!(answered.status, StatusCode::OK);
    assert_eq!((&result(0)["status"], &result(1)["status"]), (&201.into(), &413.into()));
    assert_eq!(
        (&result(1)["code"], &result(2)["status"]),
        (&"answer-too-large".into(), &200.into())
    );
}

#[tokio::test]
async fn errors_of_the_network_become_problems() {
    let store = MemoryStore::default();
    let put = async |error: Error| {
        store.fail_with(error);
        send(&store, Method::PUT, "/v1/kv/k", &[]).await
    };
    let unavailable = put(Error::Unavailable("no majority".into())).await;
    problem(&unavailable, 503, "unavailable");
    assert_eq!(unavailable.field("retry-after"), "1");
    let unknown = put(Error::Unknown("no answer".into())).await;
    problem(&unknown, 504, "outcome-unknown");
    let document: Json = serde_json::from_slice(&unknown.body).unwrap();
    assert_eq!(document["effect"], "unknown");
    problem(&put(Error::Denied("revoked".into())).await, 403, "denied");
    let (what, bytes, limit) = ("value".to_owned(), 3, 2);
    problem(&put(Error::TooLarge { what, bytes, limit }).await, 413, "value-too-large");
    let receipt = store.receipt(Condition::Always);
    problem(&put(Error::Conflict { current: None, receipt }).await, 409, "conflict");
    problem(&put(Error::Invalid("x".into())).await, 400, "invalid");
    store.fail_with(Error::Unavailable("no majority".into()));
    problem(&send(&store, Method::GET, "/readyz", &[]).await, 503, "unavailable");
    assert_eq!(send(&store, Method::GET, "/livez", &[]).await.status, StatusCode::OK);
    store.recover();
    assert_eq!(send(&store, Method::GET, "/readyz", &[]).await.status, StatusCode::OK);
    let status = send(&store, Method::GET, "/v1/status", &[]).await;
    let document: Json = serde_json::from_slice(&status.body).unwrap();
    assert_eq!(document["server"]["reachable"], false);
}

proptest! {
    #[test]
    fn no_request_causes_a_server_error(
        method in "GET|PUT|DELETE|HEAD|POST",
        path in "/(v1/kv/)?[a-z%/?=&0-9]{0,20}",
        field in "if-match|if-none-match|x",
        value in "[ -~]{0,12}",
    ) {
        let request = Request::builder().method(method.as_str()).uri(path).header(field, value);
        let request = request.body(Body::from("v")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answered = runtime.block_on(ask(&MemoryStore::default(), request));
        prop_assert!(answered.status.as_u16() < 500);
    }
}

#[tokio::test]
async fn earlier_values_are_read_listed_and_gone_once_compacted() {
    let store = MemoryStore::default();
    let get = async |path: &str| send(&store, Method::GET, path, &[]).await;
    for _ in 0..3 {
        send(&store, Method::PUT, "/v1/kv/k%ff", &[]).await;
    }
    send(&store, Method::DELETE, "/v1/kv/k%ff", &[]).await;
    problem(&get("/v1/kv/k%ff").await, 404, "key-not-found");
    let old = get("/v1/kv/k%ff?revision=2").await;
    assert_eq!((old.status, old.body.as_slice()), (StatusCode::OK, &b"value"[..]));
    assert_eq!((old.field("etag"), old.field("dkv-revision")), ("\"2\"", "2"));
    let same = send(&store, Method::GET, "/v1/kv/k%ff?revision=2", &[("if-none-match", "\"2\"")]);
    assert_eq!(same.await.status, StatusCode::NOT_MODIFIED);
    problem(&get("/v1/kv/k%ff?revision=4").await, 404, "key-not-found");

    let page = get("/v1/history?key=k%ff&limit=3").await;
    let document: Json = serde_json::from_slice(&page.body).unwrap();
    assert_eq!(document["key_base64"], "a/8=");
    let shown = |version: &Json| (version["what"].clone(), version["revision"].clone());
    let versions: Vec<_> = document["versions"].as_array().unwrap().iter().map(shown).collect();
    assert_eq!(
        versions,
        [("delete", 4), ("put", 3), ("put", 2)].map(|(a, b)| (json!(a), json!(b)))
    );
    assert_eq!(document["versions"][1]["value"], "value");
    assert_eq!((&document["shard"], &document["floor_revision"]), (&json!(1), &json!(0)));
    let next = document["next"].as_str().unwrap();
    assert_eq!(next, "/v1/history?key=k%FF&before=2&limit=3");
    assert_eq!(page.field("link"), format!("<{next}>; rel=\"next\""));
    let last: Json = serde_json::from_slice(&get(next).await.body).unwrap();
    assert_eq!(last["versions"].as_array().unwrap().len(), 1);
    assert_eq!(last["next"], Json::Null);
    let none: Json = serde_json::from_slice(&get("/v1/history?key=none").await.body).unwrap();
    assert_eq!(none["versions"], json!([]));

    store.compact(3);
    let gone = get("/v1/kv/k%ff?revision=2").await;
    problem(&gone, 410, "compacted");
    let document: Json = serde_json::from_slice(&gone.body).unwrap();
    assert_eq!(document["floor_revision"], 3);
    let early = get("/v1/kv/k%ff?revision=9").await;
    problem(&early, 400, "not-yet");
    let document: Json = serde_json::from_slice(&early.body).unwrap();
    assert_eq!(document["latest_revision"], 4);
    for wrong in [
        "/v1/kv/k?revision=x",
        "/v1/kv/k?revision=-1",
        "/v1/kv/k?revision=99999999999999999999",
        "/v1/kv/k?revision=1&consistency=eventual",
        "/v1/kv/k?revision=1&at_least=1",
        "/v1/kv?revision=1&consistency=strong",
        "/v1/kv?revision=",
        "/v1/history",
        "/v1/history?key=",
        "/v1/history?key=k&limit=0",
        "/v1/history?key=k&before=x",
        "/v1/history?key=k&key=k",
        "/v1/history?key=k&revision=1",
    ] {
        problem(&get(wrong).await, 400, "invalid");
    }
    problem(&send(&store, Method::DELETE, "/v1/history?key=k", &[]).await, 405, "method");
}

#[tokio::test]
async fn a_watch_shows_changes_with_ids_from_which_it_is_resumed() {
    let store = MemoryStore::default();
    for path in ["/v1/kv/w/1", "/v1/kv/other", "/v1/kv/w/%ff"] {
        send(&store, Method::PUT, path, &[]).await;
    }
    send(&store, Method::DELETE, "/v1/kv/w/1", &[]).await;
    let watch = async |path: &str, fields: &[_]| {
        let answered = send(&store, Method::GET, path, fields).await;
        assert_eq!(answered.status, StatusCode::OK, "{answered:?}");
        assert_eq!(answered.field("content-type"), "text/event-stream");
        assert_eq!(answered.field("cache-control"), "no-store");
        String::from_utf8(answered.body).unwrap()
    };
    let said = watch("/v1/watch?prefix=w/&from=1%3A0", &[]).await;
    let events: Vec<&str> = said.split_terminator("\n\n").collect();
    assert_eq!(events[0], "retry: 1000\nevent: begin\nid: 1:0\ndata: {\"token\":\"1:0\"}");
    assert!(events[1].starts_with("event: put\nid: 1:1\ndata: {"), "{said}");
    assert!(events[2].starts_with("event: put\nid: 1:3\ndata: {"), "{said}");
    assert!(events[2].contains("\"key_base64\":\"dy//\""), "{said}");
    assert!(events[3].starts_with("event: delete\nid: 1:4\n"), "{said}");
    assert_eq!(events.len(), 4, "{said}");
    let data = events[1].split_once("data: ").unwrap().1;
    let change: Json = serde_json::from_str(data).unwrap();
    let expected = json!({ "key": "w/1", "shard": 1, "what": "put", "value": "value",
        "revision": 1, "created_revision": 1, "version": 1, "changed_at_ms": null });
    assert_eq!(change, expected);

    // The field is later than the query.
    let said = watch("/v1/watch?key=w/1&from=1:0&previous=true", &[("last-event-id", "1:3")]).await;
    assert!(said.contains("event: delete\nid: 1:4\n") && !said.contains("event: put"), "{said}");
    assert!(said.contains("\"previous\":null"), "{said}");
    let said = watch("/v1/watch", &[("last-event-id", "")]).await;
    assert!(said.contains("id: 1:4\n") && said.matches("event: ").count() == 1, "{said}");
    let head = send(&store, Method::HEAD, "/v1/watch", &[]).await;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));

    store.end_watches_with(Error::Compacted { floor: Revision(3) });
    let said = watch("/v1/watch?from=1:3", &[]).await;
    let (name, data) = said.trim_end().rsplit_once("\ndata: ").unwrap();
    assert!(name.ends_with("\n\nevent: error"), "{said}");
    let document: Json = serde_json::from_str(data).unwrap();
    assert_eq!((&document["status"], &document["floor_revision"]), (&json!(410), &json!(3)));

    store.compact(3);
    let gone = send(&store, Method::GET, "/v1/watch", &[("last-event-id", "1:2")]).await;
    problem(&gone, 410, "compacted");
    let get = async |path: &str| send(&store, Method::GET, path, &[]).await;
    problem(&get("/v1/watch?from=1:9").await, 400, "not-yet");
    for wrong in [
        "/v1/watch?key=a&prefix=a",
        "/v1/watch?key=",
        "/v1/watch?from=x",
        "/v1/watch?from=",
        "/v1/watch?from=1:3%2B1:4",
        "/v1/watch?previous=1",
        "/v1/watch?revision=1",
        "/v1/watch?prefix=%f",
    ] {
        problem(&get(wrong).await, 400, "invalid");
    }
    let twice = [("last-event-id", "1:3"), ("last-event-id", "1:3")];
    problem(&send(&store, Method::GET, "/v1/watch", &twice).await, 400, "invalid");
    problem(&send(&store, Method::POST, "/v1/watch", &[]).await, 405, "method");
    store.fail_with(Error::Unavailable("no quorum".into()));
    problem(&get("/v1/watch").await, 503, "unavailable");
}

#[tokio::test]
async fn a_request_names_its_keyspace() {
    let store = MemoryStore::default();
    store.create("orders");
    let get = async |path: &str| send(&store, Method::GET, path, &[]).await;
    for key in ["a", "b", "c"] {
        let path = format!("/v1/kv/{key}?keyspace=orders");
        assert_eq!(send(&store, Method::PUT, &path, &[]).await.status, StatusCode::CREATED);
    }
    assert_eq!(get("/v1/kv/a?consistency=all&keyspace=orders").await.status, StatusCode::OK);
    problem(&get("/v1/kv/a").await, 404, "key-not-found");
    problem(&get("/v1/kv/a?keyspace=default").await, 404, "key-not-found");
    for path in ["/v1/kv/a", "/v1/kv", "/v1/history", "/v1/watch", "/v1/batch"] {
        let missing = get(&format!("{path}?keyspace=nobodys")).await;
        problem(&missing, 404, "keyspace-not-found");
        let text = String::from_utf8(missing.body).unwrap();
        assert!(text.contains("there is no keyspace nobodys"), "{text}");
        problem(&get(&format!("{path}?keyspace=a%20b")).await, 400, "invalid");
        problem(&get(&format!("{path}?keyspace=orders&keyspace=orders")).await, 400, "invalid");
    }
    // The next page is of the same keyspace.
    let page = get("/v1/kv?limit=2&keyspace=orders").await;
    let page: Json = serde_json::from_slice(&page.body).unwrap();
    let next = page["next"].as_str().unwrap();
    assert_eq!(next, "/v1/kv?after=b&limit=2&keyspace=orders");
    let page: Json = serde_json::from_slice(&get(next).await.body).unwrap();
    assert_eq!((page["pairs"][0]["key"].as_str(), &page["next"]), (Some("c"), &Json::Null));
    send(&store, Method::PUT, "/v1/kv/a?keyspace=orders", &[]).await;
    let page = get("/v1/history?key=a&limit=1&keyspace=orders").await;
    let page: Json = serde_json::from_slice(&page.body).unwrap();
    assert_eq!(page["next"], "/v1/history?key=a&before=4&limit=1&keyspace=orders");

    let listed: Json = serde_json::from_slice(&get("/v1/keyspaces").await.body).unwrap();
    let names: Vec<_> =
        listed["keyspaces"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["default", "orders"]);
    assert_eq!(listed["keyspaces"][1]["used_bytes"], 17);
    problem(&get("/v1/keyspaces?x=1").await, 400, "invalid");
    store.fail_with(Error::OverQuota { used: 10, limit: 9 });
    problem(&send(&store, Method::PUT, "/v1/kv/a", &[]).await, 507, "over-quota");
}
