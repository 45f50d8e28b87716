//! Scans while keys change, values are evicted from memory and the coordinator is killed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use dkv_api::{Client, Pair, ScanOptions};
use dkv_test_support::output;

use crate::harness::Network;

/// Number of keys that are written once, before the scans.
const STABLE: usize = 300;
/// Number of keys that are written repeatedly.
const HOT: usize = 5;

fn stable(number: usize) -> (String, Vec<u8>) {
    (format!("key/{number:04}"), vec![number as u8; 1 + number * 64])
}

/// The acknowledged writes of a writer.
#[derive(Default)]
struct Told {
    /// The last number written to each hot key.
    hot: [AtomicU64; HOT],
    /// Keys that are created and deleted.
    gone: Mutex<BTreeMap<String, bool>>,
    stop: AtomicBool,
}

/// Writes until it is stopped.
async fn write(client: Client, told: Arc<Told>) {
    let mut number = 0;
    while !told.stop.load(Ordering::Relaxed) {
        number += 1;
        for (index, hot) in told.hot.iter().enumerate() {
            let mut value = format!("{number:08}").into_bytes();
            value.resize(100_000, 0);
            client.write(format!("key/hot{index}"), value).await.unwrap();
            hot.store(number, Ordering::Relaxed);
        }
        let key = format!("key/come{:03}", number % 100);
        if number / 100 % 2 == 0 {
            client.write(&key, "here").await.unwrap();
        } else {
            client.delete(&key).await.unwrap();
        }
        told.gone.lock().unwrap().insert(key, true);
    }
}

/// Scans everything and compares the result. Returns the number of pages.
async fn scan(client: &Client, told: &Told) {
    let before: Vec<u64> = told.hot.iter().map(|hot| hot.load(Ordering::Relaxed)).collect();
    let mut scan = client.scan(ScanOptions::prefix("key/"));
    let (mut last, mut stables, mut hots) = (String::new(), 0, 0);
    while let Some(Pair { key, value, .. }) = scan.next().await.unwrap() {
        let key = String::from_utf8(key.to_vec()).unwrap();
        assert!(key > last, "{key} after {last}");
        let value = value.unwrap();
        if let Some(index) = key.strip_prefix("key/hot") {
            let number: u64 = std::str::from_utf8(&value[..8]).unwrap().parse().unwrap();
            let least = before[index.parse::<usize>().unwrap()];
            assert!(number >= least, "{key} is at {number}, and was at {least}");
            hots += 1;
        } else if key.starts_with("key/come") {
            assert_eq!(value, "here");
        } else {
            let (expected, content) = stable(stables);
            assert!(key == expected && value == content, "{key} instead of {expected}");
            stables += 1;
        }
        last = key;
    }
    assert_eq!((stables, hots), (STABLE, HOT));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_appears_once_despite_failures() {
    let small = serde_json::json!({ "log_bytes_max": 16 << 20, "shards": 3 });
    let mut network = Network::server_only(small).await;
    for _ in 0..3 {
        // A third of the values fits, once checkpoints have the others.
        let index = network.spawn_node_with(&["--listen", "127.0.0.1:0", "--value-memory", "1"]);
        network.nodes[index].running().ready().await.unwrap();
    }
    network.settled().await;
    let client = network.client().await;
    for number in 0..STABLE {
        let (key, value) = stable(number);
        client.write(key, value).await.unwrap();
    }
    client.write("another", "prefix").await.unwrap();
    let told = Arc::new(Told::default());
    for index in 0..HOT {
        client.write(format!("key/hot{index}"), "00000000").await.unwrap();
    }
    let writing = tokio::spawn(write(network.client().await, told.clone()));
    for round in 0..20 {
        if round == 10 {
            let coordinator = network.coordinator().await;
            network.kill_node(coordinator);
        }
        scan(&client, &told).await;
    }
    told.stop.store(true, Ordering::Relaxed);
    writing.await.unwrap();
    // `load` accepts what `scan` prints, and `verify` finds it.
    let listed = network.dkv(&["scan", "key/", "--limit", "200", "--after", "key/0099"]).await;
    assert!(listed.status.success(), "{}", output(&listed.stderr));
    let file = network.path("listed.csv");
    std::fs::write(&file, &listed.stdout).unwrap();
    let verified = network.dkv(&["verify", file.to_str().unwrap()]).await;
    assert!(verified.status.success(), "{}", output(&verified.stderr));
    assert!(output(&verified.stdout).starts_with("verified 200 records"), "{verified:?}");
    let keys = network.dkv(&["scan", "--keys", "--limit", "2"]).await;
    assert_eq!(output(&keys.stdout), "another\nkey/0000\n");
}
