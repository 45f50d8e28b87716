//! What an operator sees of a network: slow requests, logs and their levels, where a key is, and
//! what may fail next.

use std::time::Duration;

use dkv_api::{Client, Level, ShardInfo, WriteOptions};
use dkv_test_support::output;
use serde_json::{Value, json};

use crate::harness::{Network, eventually};

/// Returns the shard of a key.
async fn shard_of(client: &Client, key: &str) -> ShardInfo {
    let view = client.refresh().await.unwrap();
    view.shard_of(client.keyspace_id(), key.as_bytes()).unwrap().clone()
}

fn document(ended: &std::process::Output) -> Value {
    let text = output(&ended.stdout);
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_request_is_logged_with_where_its_time_went() {
    let mut network = Network::start(3).await;
    network.settled().await;
    let client = network.client().await;
    let put = ["put", "order/1", "a value that no log shows", "all"];
    assert!(network.dkv(&put).await.status.success());
    let primary = network.index_of(shard_of(&client, "order/1").await.primary.unwrap());
    let follower = (0..3).find(|index| *index != primary).unwrap();
    network.pause_node(follower);
    let writer = client.clone();
    let writing = tokio::spawn(async move {
        let mut options = WriteOptions::default();
        options.level = Level::All;
        writer.write_with("order/1", "a value that no log shows", options).await
    });
    tokio::time::sleep(Duration::from_millis(1200)).await;
    network.resume_node(follower);
    writing.await.unwrap().unwrap();
    let line = eventually("no slow request is logged", async || {
        let said = std::fs::read_to_string(network.path(&format!("node-{}.log", primary + 1)));
        let said = said.unwrap();
        let line = said.lines().find(|line| line.contains("slow request"));
        line.map(str::to_owned).ok_or(said)
    })
    .await;
    assert!(line.contains("key=\"order/1\"") && line.contains("replicas "), "{line}");
    assert!(!line.contains("no log shows"), "{line}");
    let told = client.diagnose(network.nodes[primary].id()).await.unwrap().slow_requests;
    assert!(told.iter().any(|(stage, count)| stage == "replicas" && *count > 0), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_logged_changes_at_run_time_and_comes_back() {
    let mut network = Network::server_only(json!({})).await;
    let listen = ["--listen", "127.0.0.1:0"];
    network.spawn_node_with(&[&listen[..], &["--name", "a", "--log-format", "json"]].concat());
    network.nodes[0].running().ready().await.unwrap();
    network.settled().await;
    let filters = async |more: &[&str]| {
        let ended = network.dkv(&[&["log"], more, &["--output", "json"]].concat()).await;
        assert!(ended.status.success(), "{ended:?}");
        let processes = document(&ended)["processes"].as_array().unwrap().clone();
        let of = |it: &Value| (it["name"].clone(), it["filter"].clone(), it["then"].clone());
        processes.iter().map(of).collect::<Vec<_>>()
    };
    let before = filters(&[]).await;
    assert_eq!((&before[0].0, &before[1].0), (&json!("a"), &json!("server")));
    assert!(before.iter().all(|(.., then)| then.is_null()), "{before:?}");

    let passing = filters(&["a", "dkv_node=debug,info", "--for", "2s"]).await;
    assert_eq!(passing, [(json!("a"), json!("dkv_node=debug,info"), before[0].1.clone())]);
    let lasting = filters(&["server", "warn"]).await;
    assert_eq!(lasting, [(json!("server"), json!("warn"), Value::Null)]);
    eventually("the filter before does not come back", async || {
        let now = filters(&["a"]).await;
        if now == before[..1] { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;

    let misspelt = network.dkv(&["log", "a", "loud"]).await;
    assert_eq!(misspelt.status.code(), Some(2), "{misspelt:?}");
    let nobody = network.dkv(&["log", "nobody", "info"]).await;
    assert_eq!(nobody.status.code(), Some(3), "{nobody:?}");
    let client = network.client().await;
    let denied = client.node_log(network.nodes[0].id(), None).await;
    assert!(matches!(denied, Err(dkv_api::Error::Denied(_))), "{denied:?}");

    let said = std::fs::read_to_string(network.path("node-1.log")).unwrap();
    let lines = said.lines().filter(|line| line.starts_with('{'));
    let lines: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    let acts = lines.iter().filter_map(|line| line["message"].as_str());
    let acts: Vec<&str> = acts.filter(|text| text.starts_with("administrative act: log")).collect();
    assert_eq!(acts.len(), 1, "{said}");
    assert!(lines.iter().any(|line| line["level"] == "DEBUG"), "{said}");
    assert!(lines.iter().all(|line| line["timestamp"].is_string()), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_explained_and_so_is_its_last_failover() {
    let mut network = Network::start(3).await;
    network.settled().await;
    let client = network.client().await;
    for value in ["1", "2"] {
        client.write("color", value).await.unwrap();
    }
    let explained = async || {
        let ended = network.dkv(&["explain", "color", "--json"]).await;
        assert!(ended.status.success(), "{ended:?}");
        document(&ended)
    };
    let first = explained().await;
    assert_eq!((&first["key"], &first["keyspace"]), (&json!("color"), &json!("default")));
    assert_eq!(first["replicas"].as_array().unwrap().len(), 3, "{first}");
    assert_eq!(first["levels"][0]["node"], first["primary"], "{first}");
    assert_eq!(first["state"], "exists until it is deleted; 2 versions are kept");

    let old = shard_of(&client, "color").await.primary.unwrap();
    let old_name = first["primary"].clone();
    network.kill_node(network.index_of(old));
    let last = eventually("the failover is not explained", async || {
        let ended = network.dkv(&["explain", "color", "--json"]).await;
        let told = document(&ended);
        // Balancing may have moved the primary once more since.
        let changes = told["changes"].as_array().unwrap();
        let failover = changes.iter().find(|change| change["before"] == old_name).cloned();
        failover.map(|failover| (told.clone(), failover)).ok_or_else(|| told.to_string())
    })
    .await;
    let (last, failover) = last;
    assert_eq!(last["changes"][0]["primary"], last["primary"], "{last}");
    let why = failover["why"].as_str().unwrap();
    assert!(why.contains("was gone") || why.contains("was silent"), "{last}");
    let text = network.dkv(&["explain", "color"]).await;
    assert!(output(&text.stdout).contains("changed    "), "{text:?}");
    let absent = network.dkv(&["explain", "nothing"]).await;
    assert!(output(&absent.stdout).contains("does not exist"), "{absent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_what_a_further_failure_would_do() {
    let mut network = Network::start(3).await;
    network.settled().await;
    let examined = async || {
        let ended = network.dkv(&["doctor", "--json"]).await;
        (ended.status.code(), document(&ended)["findings"].as_array().unwrap().clone())
    };
    let has = |findings: &[Value], about: &str| findings.iter().any(|it| it["about"] == about);
    let (_, healthy) = examined().await;
    for about in ["majority", "leader", "failures", "node", "clock", "certificate"] {
        assert!(!has(&healthy, about), "{healthy:?}");
    }
    network.kill_node(2);
    let findings = eventually("the dead node is not found", async || {
        let ended = network.dkv(&["doctor", "--json"]).await;
        let findings = document(&ended)["findings"].as_array().unwrap().clone();
        let found = has(&findings, "failures") && has(&findings, "node");
        if found && ended.status.code() >= Some(10) {
            Ok(findings)
        } else {
            Err(format!("{ended:?}"))
        }
    })
    .await;
    let severities = ["critical", "warning", "hint"];
    let order: Vec<_> = findings
        .iter()
        .map(|it| severities.iter().position(|severity| it["severity"] == *severity).unwrap())
        .collect();
    assert!(order.is_sorted(), "{findings:?}");

    network.kill_node(1);
    eventually("the lost majority is not found", async || {
        let ended = network.dkv(&["doctor"]).await;
        let text = output(&ended.stdout);
        let found = ended.status.code() == Some(11) && text.starts_with("critical");
        if found && text.contains("no majority") { Ok(()) } else { Err(format!("{ended:?}")) }
    })
    .await;
    network.kill_node(0);
    network.kill_server();
    let nobody = network.dkv(&["doctor"]).await;
    assert_eq!(nobody.status.code(), Some(5), "{nobody:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_has_everything_but_keys_and_values() {
    let network = Network::start(3).await;
    network.settled().await;
    let client = network.client().await;
    client.write("a-secret-key", "a-secret-value").await.unwrap();
    let file = network.path("bundle.tar.zst");
    let file = file.to_str().unwrap();
    let ended = network.dkv(&["debug", "bundle", file, "--output", "json"]).await;
    assert!(ended.status.success(), "{ended:?}");
    let parts = document(&ended)["parts"].as_array().unwrap().clone();
    let packed = std::fs::read(file).unwrap();
    let bytes = zstd::stream::decode_all(&packed[..]).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    for part in &parts {
        assert!(text.contains(&format!("dkv-debug/{}", part.as_str().unwrap())), "{part}");
    }
    assert_eq!(parts.iter().filter(|it| it.as_str().unwrap().starts_with("nodes/")).count(), 3);
    for part in ["\"may_fail\"", "\"findings\"", "\"leader_changes\"", "\"election_min_ms\""] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("a-secret") && !text.contains("dkv1."), "{text}");
    let again = network.dkv(&["debug", "bundle", file]).await;
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    assert_eq!(std::fs::read(file).unwrap(), packed);
}
