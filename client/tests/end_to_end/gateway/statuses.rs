//! `/v1` on a running network: pages, batches, and errors.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Gateway;
use super::http::{Answer, Http};
use crate::harness::{Network, eventually};

/// Asserts that an answer is a valid problem document.
fn problem(answer: &Answer, status: u16, code: &str, effect: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.field("content-type"), "application/problem+json");
    let document = answer.json();
    for (name, value) in
        [("status", json!(status)), ("code", json!(code)), ("effect", json!(effect))]
    {
        assert_eq!(document[name], value, "{document}");
    }
    assert!(document["title"].is_string() && document["detail"].is_string(), "{document}");
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_explained() {
    let network = Network::start(1).await;
    let gateway = Gateway::start(&network).await;
    for http in [Http::new(false), Http::new(true)] {
        for (method, path, status, code) in [
            ("GET", "/v1/kv/none", 404, "key-not-found"),
            ("GET", "/v1/none", 404, "no-such-path"),
            ("GET", "/v1/kv/%zz", 400, "invalid"),
            ("GET", "/v1/kv/", 400, "invalid"),
            ("GET", "/v1/kv/k?consistency=some", 400, "invalid"),
            ("GET", "/v1/kv?limit=1001", 400, "invalid"),
            ("PATCH", "/v1/kv/k", 405, "method"),
            ("POST", "/v1/kv", 405, "method"),
        ] {
            let answer = http.send(method, &gateway.url(path), &[], "").await;
            problem(&answer, status, code, "none");
        }
        let wrong = http.send("POST", &gateway.url("/v1/batch"), &[], "{").await;
        problem(&wrong, 400, "invalid", "none");
        let url = gateway.url("/v1/kv/k");
        let never = http.send("PUT", &url, &[("if-match", "\"7\"")], "v").await;
        problem(&never, 412, "precondition-failed", "none");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_batches() {
    let network = Network::start(3).await;
    let gateway = Gateway::start(&network).await;
    let http = Http::new(false);
    let put = |number: usize| json!({ "op": "put", "key": format!("p/{number:03}"), "value": "v" });
    let puts: Vec<Value> = (0..250).map(put).collect();
    let batch = async |operations: Value| {
        let body = json!({ "operations": operations }).to_string();
        let answer = http.send("POST", &gateway.url("/v1/batch"), &[], body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["results"].as_array().unwrap().clone()
    };
    let results = batch(Value::Array(puts)).await;
    assert!(results.len() == 250 && results.iter().all(|result| result["status"] == 201));
    let revision = &results[7]["revision"];
    let results = batch(json!([
        { "op": "get", "key": "p/007" },
        { "op": "put", "key": "p/007", "value": "w", "if_revision": revision },
        { "op": "put", "key": "p/007", "value": "x", "if_revision": revision },
        { "op": "get", "key": "p/007" },
        { "op": "delete", "key": "none" },
        { "op": "delete", "key": "p/249" },
    ]))
    .await;
    let statuses: Vec<u64> = results.iter().map(|it| it["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [200, 204, 409, 200, 404, 204]);
    assert_eq!((&results[3]["value"], &results[2]["code"]), (&"w".into(), &"conflict".into()));

    // From page to page, until every key was listed once.
    let (mut keys, mut next) = (Vec::new(), "/v1/kv?prefix=p/&limit=60".to_owned());
    loop {
        let page = http.send("GET", &gateway.url(&next), &[], "").await;
        assert_eq!((page.status, page.field("content-type")), (200, "application/json"));
        let page = page.json();
        let pairs = page["pairs"].as_array().unwrap();
        assert!(pairs.len() <= 60);
        keys.extend(pairs.iter().map(|pair| pair["key"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(target) => next = target.to_owned(),
            None => break,
        }
    }
    assert_eq!(keys, (0..249).map(|number| format!("p/{number:03}")).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_outcomes_are_reported_as_unknown() {
    let mut network = Network::start(3).await;
    let gateway = Gateway::start_with(&network, &["--timeout", "700ms"]).await;
    let (http, url) = (Http::new(false), gateway.url("/v1/kv/k"));
    let written = http.send("PUT", &url, &[], "v").await;
    assert_eq!(written.status, 201);
    // The gateway waits for a revision that is not reached yet, then says which one is.
    let revision: u64 = written.field("dkv-revision").parse().unwrap();
    let path = format!("/v1/kv/k?consistency=eventual&at_least={}", revision + 1);
    let ahead = http.send("GET", &gateway.url(&path), &[], "").await;
    problem(&ahead, 503, "unavailable", "none");
    let told = format!("it is at revision {revision}");
    assert!(ahead.json()["detail"].as_str().unwrap().contains(&told), "{ahead:?}");
    let fresh = gateway.url("/v1/kv/k?consistency=eventual&max_staleness=60000");
    let fresh = http.send("GET", &fresh, &[], "").await;
    assert!(fresh.field("dkv-staleness-ms").parse::<u64>().unwrap() <= 60_000, "{fresh:?}");

    // Suspended nodes receive a write over the gateway's connection, and do not answer.
    (0..3).for_each(|index| network.pause_node(index));
    let unknown = http.send("PUT", &url, &[], "w").await;
    problem(&unknown, 504, "outcome-unknown", "unknown");
    assert_eq!(unknown.field("retry-after"), "");
    let read = http.send("GET", &url, &[], "").await;
    problem(&read, 503, "unavailable", "none");
    assert_eq!(read.field("retry-after"), "1");
    (0..3).for_each(|index| network.resume_node(index));
    eventually("the network does not recover", async || {
        let read = http.send("GET", &url, &[], "").await;
        let known = read.status == 200 && (read.body == b"v" || read.body == b"w");
        known.then_some(()).ok_or_else(|| format!("{read:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eventual_write_is_accepted_without_a_majority() {
    let mut network = Network::start(3).await;
    let gateway = Gateway::start_with(&network, &["--timeout", "2s"]).await;
    let (http, url) = (Http::new(false), gateway.url("/v1/kv/k"));
    let at = |level: &str| gateway.url(&format!("/v1/kv/k?consistency={level}"));
    let everywhere = http.send("PUT", &at("all"), &[], "v").await;
    assert_eq!((everywhere.status, everywhere.field("dkv-level")), (201, "all"), "{everywhere:?}");
    let read = http.send("GET", &at("all"), &[], "").await;
    assert_eq!((read.status, read.body.as_slice()), (200, &b"v"[..]));
    let condition = http.send("PUT", &at("eventual"), &[("if-match", "*")], "w").await;
    problem(&condition, 400, "invalid", "none");

    (0..2).for_each(|index| network.pause_node(index));
    let taken = eventually("no node accepts the write", async || {
        let taken = http.send("PUT", &at("eventual"), &[], "w").await;
        if taken.status == 202 { Ok(taken) } else { Err(format!("{taken:?}")) }
    })
    .await;
    assert_eq!(taken.field("dkv-level"), "eventual", "{taken:?}");
    assert!(taken.field("dkv-pending").parse::<u64>().is_ok(), "{taken:?}");
    assert_eq!((taken.field("dkv-revision"), taken.field("etag")), ("", ""), "{taken:?}");
    eventually("the write is not visible at the node that accepted it", async || {
        let read = http.send("GET", &at("eventual"), &[], "").await;
        let shown = read.status == 200 && read.body == b"w" && read.field("etag").is_empty();
        shown.then_some(()).ok_or_else(|| format!("{read:?}"))
    })
    .await;

    (0..2).for_each(|index| network.resume_node(index));
    eventually("the write does not reach the others", async || {
        let read = http.send("GET", &url, &[], "").await;
        let there = read.status == 200 && read.body == b"w" && !read.field("etag").is_empty();
        there.then_some(()).ok_or_else(|| format!("{read:?}"))
    })
    .await;
    // A write at level `all` that is not everywhere has still taken effect.
    network.pause_node(0);
    let part = eventually("no node answers", async || {
        let part = http.send("PUT", &at("all"), &[], "x").await;
        if part.json()["code"] == "incomplete" { Ok(part) } else { Err(format!("{part:?}")) }
    })
    .await;
    problem(&part, 504, "incomplete", "done");
    network.resume_node(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_stops_answers_its_requests() {
    let network = Network::start(1).await;
    let mut gateway = Gateway::start(&network).await;
    let http = Http::new(false);
    assert_eq!(http.send("GET", &gateway.url("/v1/kv/k"), &[], "").await.status, 404);
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let begin = b"PUT /v1/kv/k HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\n\r\nva";
    stream.write_all(begin).await.unwrap();
    // The metrics show that it is in progress.
    eventually("the request does not begin", async || {
        let text = http.send("GET", &gateway.url("/metrics"), &[], "").await.body;
        let text = String::from_utf8(text).unwrap();
        let under_way = text.lines().any(|line| line == "dkv_http_requests_under_way 2");
        under_way.then_some(()).ok_or(text)
    })
    .await;
    gateway.process.signal(nix::sys::signal::Signal::SIGTERM);
    eventually("the gateway still listens", async || {
        match TcpStream::connect(gateway.address).await {
            Ok(_) => Err("a connection was made".into()),
            Err(_) => Ok(()),
        }
    })
    .await;
    stream.write_all(b"l!").await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 201 "), "{said}");
    assert!(gateway.process.ended().await.success());
    let client = network.client().await;
    assert_eq!(client.read("k").await.unwrap().value, "val!");
}
