//! A node that was away for so long that the logs of the others no longer have what it missed.

use dkv_api::Client;
use futures::StreamExt;
use serde_json::json;

use crate::harness::{Network, eventually};

/// Smallest log that a network can be configured to keep, in bytes.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Bytes of each value.
const VALUE_BYTES: usize = 256 * 1024;

/// Writes values, most of which replace older ones.
async fn write_much(client: &Client, round: u8, count: usize) {
    let writes = futures::stream::iter(0..count).map(async |number| {
        let value = vec![round; VALUE_BYTES];
        client.write(format!("key-{}", number % 40), value).await.unwrap();
    });
    writes.buffer_unordered(8).collect::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_away_for_long_gets_a_snapshot() {
    let mut network = Network::with(json!({ "log_bytes_max": LOG_BYTES_MAX }), 3).await;
    let client = network.client().await;
    write_much(&client, 1, 40).await;
    let away = (network.coordinator().await + 1) % 3;
    let had = network.status_of(away).await;
    network.kill_node(away);
    // Four times the limit of the log.
    write_much(&client, 2, 256).await;
    eventually("the logs are not purged", async || {
        for index in network.running() {
            let status = network.status_of(index).await;
            let pairs = status.groups.iter().zip(&had.groups);
            let missed = pairs.filter(|(has, had)| has.purged_index > had.last_index);
            if missed.count() == 0 {
                return Err(format!("{status:?}"));
            }
        }
        Ok(())
    })
    .await;
    network.start_node(away).await;
    write_much(&client, 3, 40).await;
    network.settled().await;
    network.same_state().await;
    log_is_short(&network).await;

    // It keeps the snapshot, and can serve its content.
    network.kill_node(away);
    network.start_node(away).await;
    network.same_state().await;
    network.kill_node((away + 1) % 3);
    let read = client.read("key-17").await.unwrap();
    assert!(read.value == vec![3; VALUE_BYTES]);
    network.assert_alive();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_stays_bounded_under_many_writes() {
    let network = Network::with(json!({ "log_bytes_max": LOG_BYTES_MAX }), 3).await;
    let client = network.client().await;
    let mut longest = 0;
    for round in 0..6 {
        write_much(&client, round, 100).await;
        for index in 0..3 {
            longest = longest.max(network.status_of(index).await.log_bytes);
        }
    }
    println!("the longest log had {longest} bytes");
    // Primaries wait for their own log, but may send entries to a follower whose checkpoints are
    // late.
    assert!(longest < 2 * LOG_BYTES_MAX, "a log of {longest} bytes");
    log_is_short(&network).await;
}

/// Waits until every log is within its limit.
async fn log_is_short(network: &Network) {
    eventually("the logs stay too long", async || {
        for index in network.running() {
            let status = network.status_of(index).await;
            if status.log_bytes > LOG_BYTES_MAX {
                return Err(format!("{} has {} bytes", status.name, status.log_bytes));
            }
        }
        Ok(())
    })
    .await;
}
