//! The port: its protocols, its bounds, and who may ask.

use dkv_etcd::proto::etcdserverpb::{LeaseKeepAliveRequest, PutRequest};
use dkv_test_support::{eventually, output};
use serde_json::json;
use tonic::Code;

use super::{Face, prefix};
use crate::gateway::http::Http;
use crate::harness::process::{command, spawn};
use crate::harness::{Network, Process};

#[tokio::test(flavor = "multi_thread")]
async fn one_port_speaks_to_operators_too() {
    let network = Network::start(1).await;
    let face = Face::start(&network).await;
    face.put("k", "v").await;
    for http2 in [false, true] {
        let http = Http::new(http2);
        let get = async |path: &str| http.send("GET", &face.url(path), &[], "").await;
        let version = get("/version").await.json();
        assert_eq!(version["etcdcluster"], json!("3.6.0"));
        let health = get("/health").await;
        assert_eq!((health.status, &health.json()["health"]), (200, &json!("true")));
        let metrics = String::from_utf8(get("/metrics").await.body).unwrap();
        for line in [
            "etcd_server_has_leader 1",
            "etcd_server_leader_changes_seen_total ",
            "etcd_mvcc_db_total_size_in_bytes ",
            "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Put\",\
             grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1",
        ] {
            assert!(metrics.contains(line), "{line} is not in {metrics}");
        }
        assert_eq!(get("/v3/nothing").await.status, 404);
        let page = [("origin", "http://evil.example")];
        let put = http.send("POST", &face.url("/v3/kv/put"), &page, r#"{"key":"YQ=="}"#).await;
        assert_eq!(put.status, 403, "pages of browsers may not write");
        let page = [("origin", "http://evil.example"), ("content-type", "application/grpc")];
        let put = http.send("POST", &face.url("/etcdserverpb.KV/Put"), &page, "").await;
        assert_eq!(put.status, 403, "nor call themselves a client of gRPC");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_bounded_and_streams_are_not() {
    let network = Network::start(1).await;
    let face = Face::start(&network).await;
    let put = |bytes| PutRequest {
        key: "big".into(),
        value: vec![b'x'; bytes].into(),
        ..Default::default()
    };
    face.kv().put(put(1536 * 1024 - 64)).await.unwrap();
    let large = face.kv().put(put(1536 * 1024)).await.unwrap_err();
    assert_eq!(
        (large.code(), large.message()),
        (Code::InvalidArgument, "etcdserver: request is too large")
    );
    // More than the streams that hyper allows at once, on one connection.
    let lease = face.lease();
    let mut streams = Vec::new();
    for _ in 0..500 {
        let (sender, messages) = futures::channel::mpsc::unbounded();
        sender.unbounded_send(LeaseKeepAliveRequest { id: 1 }).unwrap();
        let mut answers = lease.clone().lease_keep_alive(messages).await.unwrap().into_inner();
        assert_eq!(answers.message().await.unwrap().unwrap().ttl, 0);
        streams.push((sender, answers));
    }
    drop(streams);
    let mut lease = lease;
    lease.lease_leases(dkv_etcd::proto::etcdserverpb::LeaseLeasesRequest {}).await.unwrap();
    assert_eq!(face.kv().range(prefix("b")).await.unwrap().into_inner().count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_face_in_a_node_serves_as_well() {
    let mut network = Network::server_only(json!({})).await;
    let index = network.spawn_node_with(&["--listen", "127.0.0.1:0", "--etcd", "127.0.0.1:0"]);
    let process = network.nodes[index].running();
    process.ready().await.unwrap();
    let address = eventually("the face of a node", async || {
        let said = process.said();
        let line = said.lines().find_map(|line| line.strip_prefix("etcd ").map(str::to_owned));
        line.ok_or(said)
    })
    .await;
    let http = Http::new(false);
    let body = json!({ "key": "aw==" }).to_string();
    let answer = http.send("POST", &format!("http://{address}/v3/kv/range"), &[], body).await;
    assert_eq!((answer.status, &answer.json()["header"]["revision"]), (200, &json!("1")));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_create_it_says_what_to_do() {
    let network = Network::start(1).await;
    let (server, home) = (network.address.to_string(), network.path("other"));
    std::fs::create_dir(&home).unwrap();
    let token = network.token_file(dkv_api::Role::Client);
    let token = token.to_str().unwrap();
    let line = ["gateway", &server, "--etcd", "127.0.0.1:0", "--token-file", token];
    let mut process: Process = spawn(&line, &home, &network.path("etcd.log"));
    let address = process.ready().await.unwrap();
    let face = Face { process, address };
    let refused = face.kv().range(prefix("k")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("keyspace create etcd --shards 1"), "{}", refused.message());
    let made = network.dkv(&["keyspace", "create", "etcd", "--shards", "1"]).await;
    assert!(made.status.success(), "{}", output(&made.stderr));
    assert_eq!(face.kv().range(prefix("k")).await.unwrap().into_inner().count, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_command_line_is_one_clear_line() {
    let network = Network::start(1).await;
    let (server, home) = (network.address.to_string(), network.home());
    let made = network.dkv(&["keyspace", "create", "wide", "--shards", "2"]).await;
    assert!(made.status.success(), "{}", output(&made.stderr));
    for (line, says) in [
        (&["gateway", &server, "--etcd", "0.0.0.0:0"][..], "--etcd-without-tls"),
        (&["gateway", &server, "--etcd", "nowhere"], "use an address such as 127.0.0.1:2379"),
        (&["gateway", &server, "--etcd", "0", "--tls-cert", "a", "--tls-key", "b"], "add --http"),
        (&["gateway", &server, "--etcd-keyspace", "x"], "--etcd"),
        (
            &["gateway", &server, "--etcd", "0", "--etcd-tls-cert", "a", "--etcd-tls-key", "b"],
            "cannot use a for TLS",
        ),
    ] {
        let ended = tokio::process::Command::from(command(line, &home)).output().await.unwrap();
        let said = output(&ended.stderr);
        assert!(!ended.status.success() && said.starts_with("error: "), "{line:?}: {said}");
        assert!(said.contains(says), "{line:?}: {said}");
    }
    let wide = Face::start_with(&network, &["--etcd-keyspace", "wide"]).await;
    let refused = wide.kv().range(prefix("k")).await.unwrap_err();
    assert!(refused.message().contains("wide has 2 shards"), "{}", refused.message());
}
