//! `/v1` on a network of three nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::Gateway;
use super::http::{Answer, Http, raw};
use crate::harness::process::{command_under, spawn};
use crate::harness::{Network, Process, eventually, for_a_while};

const LIMIT: usize = 2 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_values_over_both_versions_of_http() {
    let network = Network::start(3).await;
    let gateway = Gateway::start(&network).await;
    for http2 in [false, true] {
        let http = Http::new(http2);
        let url = gateway.url(&format!("/v1/kv/a%2Fb%00%ff/{http2}"));
        let send = async |method, fields: &[_], body: &'static [u8]| {
            http.send(method, &url, fields, body).await
        };
        assert_eq!(send("GET", &[], b"").await.status, 404);
        let written = send("PUT", &[("if-none-match", "*")], b"\0\xff").await;
        assert_eq!(written.status, 201, "{written:?}");
        let tag = written.field("etag").to_owned();
        assert_eq!(send("PUT", &[("if-none-match", "*")], b"x").await.status, 412);
        let read = send("GET", &[], b"").await;
        assert_eq!((read.status, read.body.as_slice()), (200, &b"\0\xff"[..]));
        assert_eq!(read.field("etag"), tag);
        assert_eq!(read.field("dkv-revision"), tag.trim_matches('"'));
        let head = send("HEAD", &[], b"").await;
        assert_eq!((head.status, head.field("content-length"), head.body.len()), (200, "2", 0));
        assert_eq!(send("GET", &[("if-none-match", &tag)], b"").await.status, 304);
        assert_eq!(send("PUT", &[("if-match", &tag)], b"y").await.status, 204);
        assert_eq!(send("DELETE", &[("if-match", &tag)], b"").await.status, 412);
        assert_eq!(send("DELETE", &[], b"").await.status, 204);
        assert_eq!(send("DELETE", &[], b"").await.status, 404);
        assert_eq!(send("POST", &[], b"").await.status, 405);
        let near = http.send("PUT", &gateway.url("/v1/kv/near"), &[], "v").await;
        assert!(near.status == 201 || near.status == 204, "{near:?}");
        let path =
            format!("/v1/kv/near?consistency=eventual&at_least={}", near.field("dkv-revision"));
        assert_eq!(http.send("GET", &gateway.url(&path), &[], "").await.body, b"v");
        let status = http.send("GET", &gateway.url("/v1/status"), &[], "").await.json();
        assert_eq!(status["nodes"].as_array().unwrap().len(), 3, "{status}");
        assert_eq!(http.send("GET", &gateway.url("/readyz"), &[], "").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_at_and_over_each_limit() {
    let network = Network::start(1).await;
    let gateway = Gateway::start(&network).await;
    let http = Http::new(false);
    for (bytes, expected) in [(0, 201), (LIMIT - 1, 201), (LIMIT, 201), (LIMIT + 1, 413)] {
        let url = gateway.url(&format!("/v1/kv/size-{bytes}"));
        let value: Vec<u8> = (0..bytes).map(|byte| (byte % 251) as u8).collect();
        assert_eq!(http.send("PUT", &url, &[], value.clone()).await.status, expected, "{bytes}");
        let read = http.send("GET", &url, &[], "").await;
        if expected == 201 {
            assert!(read.status == 200 && read.body == value, "{bytes}");
        } else {
            assert_eq!(read.status, 404);
        }
    }
    // Longer than any network accepts: the answer arrives although the body was discarded.
    let huge = http.send("PUT", &gateway.url("/v1/kv/huge"), &[], vec![0; 20 << 20]).await;
    assert_eq!(huge.status, 413, "{huge:?}");
    for (length, expected) in [(4096, 201), (4097, 414)] {
        let url = gateway.url(&format!("/v1/kv/{}", "%6b".repeat(length)));
        assert_eq!(http.send("PUT", &url, &[], "v").await.status, expected, "{length}");
    }
    let long = format!("GET /v1/kv/{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "k".repeat(70_000));
    let said = raw(gateway.address, &[long.as_bytes()], 1).await;
    assert!(said.starts_with("HTTP/1.1 414") || said.starts_with("HTTP/1.1 431"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn badly_behaved_clients_do_no_harm() {
    let network = Network::start(1).await;
    let server = network.address.to_string();
    // The usual limit of open files; a gateway raises it.
    let wrapper = ["sh", "-c", "ulimit -S -n 1024; exec \"$0\" \"$@\""];
    let arguments = ["gateway", &server, "--http", "127.0.0.1:0"];
    let command = command_under(&wrapper, &arguments, &network.home());
    let mut process = Process::spawn(command, &network.path("gateway.log"));
    let address = process.ready().await.unwrap();
    // Many silent connections block nobody.
    let mut idle = Vec::new();
    for _ in 0..1100 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    let one = b"PUT /v1/kv/p HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\nv";
    let two = b"GET /v1/kv/p HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let pipelined = [one.as_slice(), two, two].concat();
    let said = raw(address, &[&pipelined], 3).await;
    assert_eq!(said.matches("HTTP/1.1 200").count(), 2, "{said}");
    let begin =
        b"PUT /v1/kv/slow HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    let said = raw(address, &[begin, b"2\r\na", b"b\r\n", b"0\r\n", b"\r\n"], 1).await;
    assert!(said.starts_with("HTTP/1.1 201"), "{said}");
    let waits = b"PUT /v1/kv/w HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n\
        content-length: 99999999\r\n\r\n";
    let said = raw(address, &[waits], 1).await;
    assert!(said.starts_with("HTTP/1.1 413"), "{said}");
    let said = raw(address, &[b"NONSENSE\r\n\r\n"], 1).await;
    assert!(said.starts_with("HTTP/1.1 400"), "{said}");
    drop(idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_loopback_is_open_unless_an_option_says_otherwise() {
    let network = Network::start(1).await;
    let server = network.address.to_string();
    let open = ["gateway", &server, "--http", "0.0.0.0:0"];
    let ended = network.dkv_as(&open, &network.home()).await;
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(2), "{said}");
    assert!(said.contains("--without-authentication") && said.lines().count() == 1, "{said}");
    let mut gateway = Gateway::start(&network).await;
    assert!(gateway.process.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_coordinator_is_killed_under_load() {
    let mut network = Network::start(3).await;
    let gateway = Gateway::start(&network).await;
    let (http, over) = (Http::new(false), Arc::new(AtomicBool::new(false)));
    let writer = |number: usize| {
        let (http, over) = (http.clone(), over.clone());
        let url = gateway.url(&format!("/v1/kv/writer-{number}"));
        tokio::spawn(async move {
            let (mut acknowledged, mut may_be, mut gap) = (0, 0, Duration::ZERO);
            let mut last = Instant::now();
            for value in 1_u64.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let Answer { status, .. } = http.send("PUT", &url, &[], value.to_string()).await;
                match status {
                    201 | 204 => {
                        (acknowledged, may_be) = (value, value);
                        gap = gap.max(last.elapsed());
                        last = Instant::now();
                    }
                    503 => {}
                    504 => may_be = value,
                    other => panic!("status {other}"),
                }
            }
            (url, acknowledged, may_be, gap)
        })
    };
    let writers: Vec<_> = (0..16).map(writer).collect();
    for_a_while(500).await;
    let coordinator = network.coordinator().await;
    network.kill_node(coordinator);
    for_a_while(1500).await;
    over.store(true, Ordering::Relaxed);
    let mut longest = Duration::ZERO;
    for writer in writers {
        let (url, acknowledged, may_be, gap) = writer.await.unwrap();
        longest = longest.max(gap);
        let value = eventually("the key cannot be read", async || {
            let read = http.send("GET", &url, &[], "").await;
            if read.status == 200 { Ok(read.body) } else { Err(format!("{read:?}")) }
        })
        .await;
        let value: u64 = String::from_utf8(value).unwrap().parse().unwrap();
        assert!((acknowledged..=may_be).contains(&value), "{value}, {acknowledged}, {may_be}");
    }
    println!("longest time without an acknowledged write: {longest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_without_a_majority_is_unavailable() {
    let mut network = Network::start(3).await;
    let address = network.address.to_string();
    let arguments = ["gateway", &address, "--http", "127.0.0.1:0", "--timeout", "700ms"];
    let log = network.path("gateway.log");
    let mut process = spawn(&arguments, &network.home(), &log);
    let address = process.ready().await.unwrap();
    let http = Http::new(false);
    let url = |path: &str| format!("http://{address}{path}");
    assert_eq!(http.send("PUT", &url("/v1/kv/k"), &[], "v").await.status, 201);
    network.same_state().await;
    network.kill_node(0);
    network.kill_node(1);
    let read = http.send("GET", &url("/v1/kv/k"), &[], "").await;
    assert_eq!((read.status, read.field("retry-after")), (503, "1"), "{read:?}");
    let near = http.send("GET", &url("/v1/kv/k?consistency=eventual"), &[], "").await;
    assert_eq!((near.status, near.body.as_slice()), (200, &b"v"[..]));
    let write = http.send("PUT", &url("/v1/kv/k"), &[], "w").await;
    assert!(write.status == 503 || write.status == 504, "{write:?}");
    let effect = if write.status == 504 { "unknown" } else { "none" };
    assert_eq!(write.json()["effect"], effect);
    assert_eq!(http.send("GET", &url("/readyz"), &[], "").await.status, 503);
    assert_eq!(http.send("GET", &url("/livez"), &[], "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_increments_and_appends() {
    let network = Network::start(3).await;
    let gateway = Gateway::start(&network).await;
    for http2 in [false, true] {
        let http = Http::new(http2);
        let transact = async |body: String| {
            let answer = http.send("POST", &gateway.url("/v1/txn"), &[], body).await;
            (answer.status, answer.json())
        };
        let order = format!(
            r#"{{"if":[{{"key":"order-{http2}","exists":false}}],
                "then":[{{"op":"put","key":"order-{http2}","value_base64":"/w=="}}],
                "else":[{{"op":"get","key":"order-{http2}"}}]}}"#
        );
        let (status, said) = transact(order.clone()).await;
        assert_eq!((status, said["branch"].as_str()), (200, Some("then")), "{said}");
        let revision = said["revision"].as_u64();
        let (status, said) = transact(order).await;
        assert_eq!((status, said["branch"].as_str()), (200, Some("else")), "{said}");
        assert_eq!(said["results"][0]["revision"].as_u64(), revision);
        assert_eq!(said["results"][0]["value_base64"].as_str(), Some("/w=="));
        for (body, expected, code) in [
            (
                r#"{"then":[{"op":"put","key":"a","value":""},{"op":"delete","key":"a"}]}"#,
                400,
                "invalid",
            ),
            (
                r#"{"if":[{"key":"none","exists":true}],"then":[{"op":"get","key":"none"}]}"#,
                409,
                "conflict",
            ),
            (r#"{"then":[{"op":"increment","key":"word"}]}"#, 409, "unfit"),
        ] {
            http.send("PUT", &gateway.url("/v1/kv/word"), &[], "blue").await;
            let (status, said) = transact(body.into()).await;
            assert_eq!((status, said["code"].as_str()), (expected, Some(code)), "{said}");
        }
        let long = "x".repeat(LIMIT + 1);
        let put = format!(r#"{{"then":[{{"op":"put","key":"a","value":"{long}"}}]}}"#);
        let (status, said) = transact(put).await;
        assert_eq!((status, said["code"].as_str()), (413, Some("transaction-too-large")));

        let visits = gateway.url(&format!("/v1/increment/visits%2F{http2}?by=20"));
        let sum = http.send("POST", &visits, &[], "").await;
        assert_eq!((sum.status, sum.body.as_slice()), (200, &b"20"[..]));
        let tag = sum.field("etag").to_owned();
        let again = http.send("POST", &visits, &[("if-match", &tag)], "").await;
        assert_eq!((again.status, again.body.as_slice()), (200, &b"40"[..]));
        assert_eq!(http.send("POST", &visits, &[("if-match", &tag)], "").await.status, 412);
        let log = gateway.url(&format!("/v1/append/log-{http2}"));
        assert_eq!(http.send("POST", &log, &[], "one\n").await.status, 201);
        assert_eq!(http.send("POST", &log, &[], "two\n").await.status, 204);
        let read = http.send("GET", &gateway.url(&format!("/v1/kv/log-{http2}")), &[], "").await;
        assert_eq!(read.body, b"one\ntwo\n");
    }
}
