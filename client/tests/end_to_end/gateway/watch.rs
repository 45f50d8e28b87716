//! Watches as server-sent events, and reads of earlier values.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dkv_api::{Revision, Rights};
use dkv_test_support::within;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Gateway;
use super::http::Http;
use crate::harness::Network;

const SOON: Duration = Duration::from_secs(30);

/// A client of server-sent events, as browsers have one.
struct EventSource {
    http: Http,
    url: String,
    /// The id of the last event.
    last: String,
    body: Option<Incoming>,
    /// Bytes that are no whole event yet.
    rest: Vec<u8>,
}

impl EventSource {
    fn new(url: String) -> Self {
        let http = Http::new(false);
        Self { http, url, last: String::new(), body: None, rest: Vec::new() }
    }

    /// Returns the next event, after opening the stream if it is not open.
    async fn next(&mut self) -> (String, Value) {
        loop {
            if let Some(end) = self.rest.windows(2).position(|two| two == b"\n\n") {
                let event: Vec<u8> = self.rest.drain(..end + 2).collect();
                if let Some(event) = self.parse(std::str::from_utf8(&event).unwrap()) {
                    return event;
                }
                continue;
            }
            let body = match &mut self.body {
                Some(body) => body,
                None => {
                    let answer = self.http.open(&self.url, &[("last-event-id", &self.last)]).await;
                    assert_eq!(answer.status(), 200);
                    assert_eq!(answer.headers()["content-type"], "text/event-stream");
                    self.body.insert(answer.into_body())
                }
            };
            let frame = within(SOON, "an event", body.frame()).await.expect("the stream has ended");
            self.rest.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
    }

    fn parse(&mut self, event: &str) -> Option<(String, Value)> {
        let (mut name, mut data) = (String::new(), None);
        for line in event.lines() {
            match line.split_once(": ") {
                Some(("id", id)) => self.last = id.to_owned(),
                Some(("event", value)) => value.clone_into(&mut name),
                Some(("data", value)) => data = Some(serde_json::from_str(value).unwrap()),
                _ => {}
            }
        }
        data.map(|data| (name, data))
    }

    /// Loses the connection in the middle of whatever it carries.
    fn cut(&mut self) {
        (self.body, self.rest) = (None, Vec::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_is_cut_misses_and_repeats_nothing() {
    let network = Network::with(json!({ "shards": 3 }), 3).await;
    let gateway = Gateway::start(&network).await;
    let mut source = EventSource::new(gateway.url("/v1/watch?prefix=w/&previous=true"));
    let (begun, data) = source.next().await;
    let start = source.last.clone();
    assert_eq!((begun.as_str(), data["token"].as_str()), ("begin", Some(start.as_str())));
    let writer = network.client().await;
    let writing = tokio::spawn(async move {
        for number in 0..500 {
            writer.write(format!("w/{number:03}"), number.to_string()).await.unwrap();
            writer.write(format!("other/{number}"), "").await.unwrap();
        }
        writer.delete("w/007").await.unwrap();
    });
    let (mut seen, mut latest) = (BTreeSet::new(), BTreeMap::new());
    let (mut changes, mut deletions) = (0, 0);
    while changes < 501 {
        let (name, data) = source.next().await;
        match name.as_str() {
            "put" => {
                let key = data["key"].as_str().unwrap().to_owned();
                let number: usize = key.strip_prefix("w/").unwrap().parse().unwrap();
                assert_eq!(data["value"], number.to_string());
                assert_eq!((&data["version"], &data["previous"]), (&json!(1), &Value::Null));
                assert!(seen.insert(number), "{key} twice");
            }
            "delete" => {
                assert_eq!(
                    (&data["key"], &data["previous"]["value"]),
                    (&json!("w/007"), &json!("7"))
                );
                deletions += 1;
            }
            "begin" | "progress" => continue,
            other => panic!("{other}: {data}"),
        }
        changes += 1;
        let revision = data["revision"].as_u64().unwrap();
        assert!(latest.insert(data["shard"].as_u64(), revision) < Some(revision), "{data}");
        if changes % 90 == 0 {
            source.cut();
        }
    }
    assert_eq!((seen.len(), deletions), (500, 1));
    writing.await.unwrap();
    // Nothing more comes than was written.
    network.client().await.write("w/last", "").await.unwrap();
    let last = loop {
        let (name, data) = source.next().await;
        if name != "progress" {
            break data;
        }
    };
    assert_eq!(last["key"], "w/last");
    // Another one sees all of it again, where the first has begun.
    let path = format!("/v1/watch?prefix=w/12&from={start}");
    let (mut again, mut puts) = (EventSource::new(gateway.url(&path)), 0);
    while puts < 10 {
        puts += usize::from(again.next().await.0 == "put");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn earlier_values_are_served_back_to_the_floor() {
    let network = Network::with(json!({ "shards": 1 }), 1).await;
    let gateway = Gateway::start(&network).await;
    let (client, admin, http) = (network.client().await, network.admin().await, Http::new(false));
    for number in 1..=6 {
        client.write("k", number.to_string()).await.unwrap();
    }
    admin.compact(Revision(4)).await.unwrap();
    let get = async |path: &str| http.send("GET", &gateway.url(path), &[], "").await;
    let old = get("/v1/kv/k?revision=5").await;
    assert_eq!((old.status, old.body.as_slice(), old.field("etag")), (200, &b"5"[..], "\"5\""));
    let list = get("/v1/kv?prefix=k&revision=5").await.json();
    assert_eq!(list["pairs"], json!([{ "key": "k", "value": "5", "revision": 5 }]));
    let page = get("/v1/history?key=k&limit=2").await.json();
    assert_eq!((&page["floor_revision"], &page["versions"][1]["value"]), (&json!(4), &json!("5")));
    let page = get(page["next"].as_str().unwrap()).await.json();
    assert_eq!(page["versions"][0]["value"], "4");
    for path in ["/v1/kv/k?revision=2", "/v1/kv?revision=2", "/v1/watch?from=2"] {
        let gone = get(path).await;
        assert_eq!((gone.status, &gone.json()["floor_revision"]), (410, &json!(4)), "{path}");
    }
    let gone = http.send("GET", &gateway.url("/v1/watch"), &[("last-event-id", "1:2")], "").await;
    assert_eq!((gone.status, gone.json()["code"].as_str()), (410, Some("compacted")));
    for (path, code) in [
        ("/v1/watch?from=77", "not-yet"),
        ("/v1/watch?from=7:1", "invalid"),
        ("/v1/watch?key=k&prefix=k", "invalid"),
        ("/v1/kv/k?revision=99", "not-yet"),
        ("/v1/kv?revision=99", "not-yet"),
        ("/v1/kv/k?revision=one", "invalid"),
        ("/v1/history?before=3", "invalid"),
    ] {
        let refused = get(path).await;
        assert_eq!((refused.status, refused.json()["code"].as_str()), (400, Some(code)), "{path}");
    }
    let other = [("sec-fetch-site", "cross-site")];
    assert_eq!(http.send("GET", &gateway.url("/v1/watch"), &other, "").await.status, 403);
}

/// Opens a watch, and returns its connection once it has begun.
async fn open(gateway: &Gateway, field: &str) -> TcpStream {
    let host = gateway.address;
    let request = format!("GET /v1/watch HTTP/1.1\r\nHost: {host}\r\n{field}\r\n");
    let mut stream = TcpStream::connect(host).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).contains("event: begin") {
        let read = within(SOON, "the first event", stream.read_buf(&mut said)).await.unwrap();
        assert_ne!(read, 0, "{}", String::from_utf8_lossy(&said));
    }
    stream
}

/// Whether the body of an answer is complete when the connection ends.
async fn ends_whole(mut stream: TcpStream) -> bool {
    let mut said = Vec::new();
    within(SOON, "the end of the stream", stream.read_to_end(&mut said)).await.unwrap();
    said.ends_with(b"0\r\n\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_end_whole_when_the_gateway_stops() {
    let network = Network::start(1).await;
    let mut gateway = Gateway::start(&network).await;
    let stream = open(&gateway, "").await;
    assert!(gateway.process.stop().await.success());
    assert!(ends_whole(stream).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_once_its_token_is_revoked() {
    let network = Network::start(1).await;
    let gateway = Gateway::start_with(&network, &["--with-authentication"]).await;
    let url = gateway.url("/v1/watch");
    assert_eq!(Http::new(false).send("GET", &url, &[], "").await.status, 401);
    let admin = network.admin().await;
    let (token, holder) = admin.create_bearer(Rights::Read, None).await.unwrap();
    let field = format!("Authorization: Bearer {token}\r\nConnection: close\r\n");
    let stream = open(&gateway, &field).await;
    admin.revoke(holder).await.unwrap();
    assert!(ends_whole(stream).await);
}
