//! The gateway in the process of a node, and the metrics of both.

use super::http::Http;
use crate::harness::{Network, eventually};

/// Returns the value of a metric; `None` if it is missing.
fn figure(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_serves_http_and_its_metrics() {
    let mut network = Network::server_only(serde_json::json!({ "shards": 2 })).await;
    let arguments = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    for _ in 0..3 {
        let index = network.spawn_node_with(&arguments);
        network.nodes[index].running().ready().await.unwrap();
    }
    network.settled().await;
    let mut urls = Vec::new();
    for node in &mut network.nodes {
        let process = node.running();
        let address = eventually("HTTP is not served", async || {
            let said = process.said();
            let line = said.lines().find_map(|line| line.strip_prefix("http "));
            line.map(str::to_owned).ok_or(said)
        })
        .await;
        urls.push(format!("http://{address}"));
    }
    let http = Http::new(false);
    for number in 0..50 {
        let url = format!("{}/v1/kv/k{number}", urls[number % 3]);
        assert_eq!(http.send("PUT", &url, &[], "v").await.status, 201);
    }
    let (mut writes, mut leaders) = (0.0, 0.0);
    for url in &urls {
        let told = http.send("GET", &format!("{url}/metrics"), &[], "").await;
        assert!(told.field("content-type").starts_with("text/plain; version=0.0.4"));
        let text = String::from_utf8(told.body).unwrap();
        assert!(
            figure(&text, "dkv_http_requests_total{kind=\"put\",status=\"201\"}") >= Some(16.0)
        );
        assert!(figure(&text, "dkv_wal_fsync_duration_seconds_count") > Some(10.0), "{text}");
        assert_eq!(figure(&text, "dkv_raft_has_leader{group=\"1\"}"), Some(1.0), "{text}");
        assert!(figure(&text, "dkv_raft_committed_index{group=\"1\"}") > Some(0.0), "{text}");
        writes +=
            figure(&text, "dkv_node_requests_total{kind=\"write\",result=\"ok\"}").unwrap_or(0.0);
        leaders += figure(&text, "dkv_raft_is_leader{group=\"2\"}").unwrap();
    }
    // Writes open sessions, too.
    assert!(writes >= 50.0 && leaders == 1.0, "{writes} {leaders}");

    // A node that stops gracefully answers its requests; the others continue.
    network.stop_node(0).await;
    for number in 0..50 {
        let url = format!("{}/v1/kv/k{number}", urls[1 + number % 2]);
        assert_eq!(http.send("GET", &url, &[], "").await.body, b"v");
    }

    // The last one knows that nobody leads, although it followed the other to its end.
    let leads = |text: &str| figure(text, "dkv_raft_is_leader{group=\"1\"}") == Some(1.0);
    let last = eventually("nobody leads", async || {
        for index in [1, 2] {
            let told = http.send("GET", &format!("{}/metrics", urls[index]), &[], "").await;
            if leads(&String::from_utf8_lossy(&told.body)) {
                return Ok(3 - index);
            }
        }
        Err("neither does".to_owned())
    })
    .await;
    network.kill_node(3 - last);
    eventually("it still names a leader", async || {
        let told = http.send("GET", &format!("{}/metrics", urls[last]), &[], "").await;
        let text = String::from_utf8_lossy(&told.body).into_owned();
        let lacks = |group| {
            figure(&text, &format!("dkv_raft_has_leader{{group=\"{group}\"}}")) == Some(0.0)
        };
        if (0..=2).all(lacks) { Ok(()) } else { Err(text) }
    })
    .await;
}
