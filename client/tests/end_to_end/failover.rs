//! Loss of the coordinator under load, in several ways.

use std::time::Duration;

use crate::harness::{Load, Network, for_a_while};

#[tokio::test(flavor = "multi_thread")]
async fn the_coordinator_is_killed_again_and_again() {
    let mut network = Network::alone(serde_json::json!({}), 3).await;
    let client = network.client().await;
    let load = Load::start(&client);
    for _ in 0..3 {
        load.more(500).await;
        let coordinator = network.coordinator().await;
        network.kill_node(coordinator);
        load.more(1000).await;
        network.start_node(coordinator).await;
        network.settled().await;
    }
    let report = load.stop().await;
    println!("{} requests, the slowest took {:?}", report.done, report.slowest);
    assert_eq!(report.failures, [""; 0], "a failover only takes time");
    assert!(report.slowest < Duration::from_secs(8), "{:?}", report.slowest);
    report.check(&client).await;
    network.same_state().await;
    network.assert_alive();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_coordinator_is_stopped_gracefully() {
    let mut network = Network::alone(serde_json::json!({}), 3).await;
    let client = network.client().await;
    let load = Load::start(&client);
    load.more(500).await;
    let coordinator = network.coordinator().await;
    network.stop_node(coordinator).await;
    load.more(1000).await;
    let report = load.stop().await;
    println!("{} requests, the slowest took {:?}", report.done, report.slowest);
    assert_eq!(report.failures, [""; 0]);
    assert!(report.slowest < Duration::from_secs(2), "{:?}", report.slowest);
    report.check(&client).await;
    network.start_node(coordinator).await;
    network.settled().await;
    network.same_state().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_nodes_survive_the_loss_of_two() {
    let mut network = Network::with(serde_json::json!({ "replication": 5 }), 5).await;
    let client = network.client().await;
    let load = Load::start(&client);
    load.more(300).await;
    let first = network.coordinator().await;
    network.kill_node(first);
    load.more(300).await;
    let second = network.coordinator().await;
    network.kill_node(second);
    load.more(300).await;
    for_a_while(200).await;
    let report = load.stop().await;
    assert_eq!(report.failures, [""; 0]);
    report.check(&client).await;
    network.start_node(first).await;
    network.start_node(second).await;
    network.settled().await;
    network.same_state().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_process_is_detected_at_once() {
    // By silence alone, the loss of the coordinator would be detected after twenty seconds. One
    // shard, because a node that dies during a transfer of its primary is not detected sooner.
    let patient = serde_json::json!({
        "shards": 1, "heartbeat_ms": 1000, "election_min_ms": 20000, "election_max_ms": 30000
    });
    let mut network = Network::alone(patient, 3).await;
    let client = network.client().await;
    let load = Load::start(&client);
    load.more(500).await;
    let coordinator = network.coordinator().await;
    network.kill_node(coordinator);
    load.more(500).await;
    let report = load.stop().await;
    println!("{} requests, the slowest took {:?}", report.done, report.slowest);
    assert_eq!(report.failures, [""; 0]);
    assert!(report.slowest < Duration::from_secs(10), "{:?}", report.slowest);
    report.check(&client).await;
}
