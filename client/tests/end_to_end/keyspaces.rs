//! Keyspaces of a real network: created, used, changed and dropped while nodes come and go.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use dkv_api::recipes::{Lock, LockOptions};
use dkv_api::{
    Client, Error, KeyRange, KeyspaceChange, KeyspaceSettings, Level, ReadOptions, ScanOptions,
    Transaction, TransactionOperation, WatchEvent, WatchOptions, WriteOptions,
};
use dkv_test_support::{eventually, output, within};
use serde_json::{Value, json};

use crate::harness::{Network, PATIENCE};

/// Runs a command, checks its exit status, and returns what it printed: the result, or the single
/// line of the error.
async fn run(network: &Network, line: &[&str], status: i32) -> String {
    let ran = network.dkv(line).await;
    let said = output(&ran.stderr);
    assert_eq!(ran.status.code(), Some(status), "{line:?}: {said}{}", output(&ran.stdout));
    if status == 0 {
        return output(&ran.stdout).to_owned();
    }
    assert!(said.starts_with("error: ") && said.lines().count() == 1, "{line:?}: {said}");
    said.to_owned()
}

/// Returns the bytes that a directory and all below it take on the disk.
fn disk_use(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(about) if about.is_dir() => disk_use(&entry.path()),
        Ok(about) => about.blocks() * 512,
        Err(_) => 0,
    };
    entries.filter_map(|entry| entry.ok().map(of)).sum()
}

/// Returns bytes that cannot be compressed.
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..200_000).map(next).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_has_a_value_in_each_keyspace() {
    let network = Network::with(json!({ "shards": 2 }), 3).await;
    let created = run(&network, &["keyspace", "create", "orders", "--shards", "2"], 0).await;
    assert!(created.contains("keyspace orders was created with 2 shards"), "{created}");
    run(&network, &["keyspace", "create", "one", "--history", "1h,1MiB", "--quota", "1GiB"], 0)
        .await;
    for (line, says) in [
        (&["put", "color", "red"][..], "written color"),
        (&["--keyspace", "orders", "W,color,blue", "R,color"], "blue\n"),
        (&["put", "color", "green", "--keyspace", "one"], "written color"),
        (&["get", "color"], "red\n"),
        (&["get", "color", "--keyspace", "default"], "red\n"),
        (
            &["get color --keyspace orders", "R,color", "get color --keyspace one"],
            "blue\nred\ngreen\n",
        ),
        (&["scan", "--keyspace", "orders"], "color,blue\n"),
        (&["increment", "n", "5", "--keyspace", "one"], "5\n"),
        (&["history", "n", "--keyspace", "one"], "5"),
        (&["scan", "--keyspace", "one", "--revision", "1"], "color,green\n"),
    ] {
        let said = run(&network, line, 0).await;
        assert!(
            said.ends_with(says) || said.starts_with(says) || said.contains(says),
            "{line:?}: {said}"
        );
    }
    for (line, status, says) in [
        (&["get", "color", "--keyspace", "nobodys"][..], 3, "there is no keyspace nobodys"),
        (&["get", "n", "--keyspace", "orders"], 3, "key not found: n"),
        (&["keyspace", "show", "nobodys"], 3, "there is no keyspace nobodys; there are default"),
        (&["keyspace", "create", "orders"], 1, "the keyspace orders exists already"),
        (&["keyspace", "create", "x", "--shards", "1024"], 1, "at most 1024 shards"),
        (&["keyspace", "create", "x", "--history", "1ms"], 2, "the time of --history must be"),
        (&["keyspace", "set", "orders"], 2, "nothing is to be changed"),
        (&["keyspace", "drop", "orders"], 2, "repeat the command with --yes orders"),
        (&["keyspace", "drop", "orders", "--yes", "order"], 2, "the name was not repeated"),
        (&["keyspace", "drop", "default", "--yes", "default"], 1, "default cannot be dropped"),
        (&["status", "--keyspace", "orders"], 2, "--keyspace applies only to commands on keys"),
    ] {
        let said = run(&network, line, status).await;
        assert!(said.contains(says), "{line:?}: {said}");
    }
    let listed = run(&network, &["keyspace", "list", "--json"], 0).await;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let of = |name: &str| {
        let all = listed["keyspaces"].as_array().unwrap();
        all.iter().find(|it| it["name"] == name).unwrap().clone()
    };
    assert_eq!((&of("orders")["shards"], &of("orders")["shards_led"]), (&json!(2), &json!(2)));
    assert_eq!(of("one")["quota_bytes"], 1 << 30);
    assert_eq!(
        (&of("one")["history_age_ms"], &of("one")["history_bytes"]),
        (&json!(3_600_000), &json!(1 << 20))
    );
    let shown = run(&network, &["keyspace", "show", "one"], 0).await;
    assert!(shown.contains("quota        1.0 GiB"), "{shown}");

    // The library: everything works in a keyspace as it does without.
    let client = network.client().await;
    let orders = client.keyspace("orders").await.unwrap();
    let mut watch =
        orders.watch(KeyRange::Prefix("".into()), WatchOptions::default()).await.unwrap();
    let level = WriteOptions::from(Level::Eventual);
    orders.write_with("slow", "later", level).await.unwrap();
    let session = ReadOptions::from(Level::Session);
    assert_eq!(orders.read_with("slow", session).await.unwrap().value, "later");
    let both = Transaction::new()
        .then(TransactionOperation::increment("color2", 7))
        .then(TransactionOperation::get("color2"));
    assert!(orders.transact(both).await.unwrap().succeeded);
    client.write("color2", "elsewhere").await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        if let WatchEvent::Change(change) =
            within(PATIENCE, "an event", watch.next()).await.unwrap()
        {
            seen.push((change.key, change.value.unwrap()));
        }
    }
    seen.sort();
    assert_eq!(seen, [("color2".into(), "7".into()), ("slow".into(), "later".into())]);
    let mut scan = orders.scan(ScanOptions::default().values(false));
    let mut keys = Vec::new();
    while let Some(pair) = scan.next().await.unwrap() {
        keys.push(pair.key);
    }
    assert_eq!(keys, ["color", "color2", "slow"]);
    assert!(matches!(
        client.create_keyspace("x", KeyspaceSettings::default()).await,
        Err(Error::Denied(_))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyspace_is_created_while_the_coordinator_dies_and_dropped_while_a_node_is_away() {
    let settings = json!({ "shards": 1, "log_bytes_max": 16 << 20 });
    let mut network = Network::with(settings, 3).await;
    let admin = network.admin().await;
    let settings = KeyspaceSettings { shards: 4, ..KeyspaceSettings::default() };
    let coordinator = network.coordinator().await;
    let creating = admin.clone();
    let created = tokio::spawn(async move { creating.create_keyspace("big", settings).await });
    tokio::time::sleep(Duration::from_millis(30)).await;
    network.kill_node(coordinator);
    within(PATIENCE, "its creation", created).await.unwrap().unwrap();
    let big = admin.keyspace("big").await.unwrap();
    for number in 0..200 {
        big.write(format!("key-{number}"), noise(number)).await.unwrap();
    }
    network.start_node(coordinator).await;
    network.settled().await;

    // It is on disk, beside the log, and one node is not there when it is dropped.
    let disks: Vec<_> = network.nodes.iter().map(|node| node.dir.clone()).collect();
    let used = || -> Vec<u64> { disks.iter().map(|disk| disk_use(disk)).collect() };
    eventually("it does not get to the disk", async || {
        let used = used();
        if used.iter().all(|used| *used > 40 << 20) { Ok(()) } else { Err(format!("{used:?}")) }
    })
    .await;
    let mut watch = big.watch(KeyRange::Prefix("".into()), WatchOptions::default()).await.unwrap();
    let away = (network.coordinator().await + 1) % 3;
    network.kill_node(away);
    admin.drop_keyspace("big").await.unwrap();
    let gone = Error::NoKeyspace { name: "big".into() };
    assert_eq!(big.read("key-1").await.unwrap_err(), gone);
    assert_eq!(big.write("key-1", "v").await.unwrap_err(), gone);
    let ended = loop {
        match within(PATIENCE, "the end of the watch", watch.next()).await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(ended, gone);
    // A client that has not heard of it.
    let other = network.client().await;
    eventually("a node still knows the keyspace", async || match other.keyspace("big").await {
        Err(error) if error == gone => Ok(()),
        found => Err(format!("{found:?}")),
    })
    .await;
    network.start_node(away).await;
    network.settled().await;
    eventually("the disk is not freed", async || {
        let used = used();
        if used.iter().all(|used| *used < 30 << 20) { Ok(()) } else { Err(format!("{used:?}")) }
    })
    .await;
    for status in network.same_state().await {
        assert_eq!(status.groups.len(), 2, "{:?}", status.groups);
    }
    network.assert_alive();
}

/// Every command on keys is about those of the keyspace, however it is named.
#[tokio::test(flavor = "multi_thread")]
async fn times_to_live_and_locks_belong_to_a_keyspace() {
    let network = Network::with(json!({ "shards": 1 }), 1).await;
    run(&network, &["keyspace", "create", "jobs", "--replication", "1"], 0).await;
    run(&network, &["put", "color", "red"], 0).await;
    run(&network, &["--keyspace", "jobs", "put", "color", "blue", "--ttl", "1h"], 0).await;
    let lives = run(&network, &["--keyspace", "jobs", "ttl", "color"], 0).await;
    assert_ne!(lives, run(&network, &["ttl", "color"], 0).await);

    let jobs = network.client().await.keyspace("jobs").await.unwrap();
    let lock = Lock::acquire(&jobs, "lock/nightly", LockOptions::default()).await.unwrap();
    let line = ["lock", "nightly", "--no-wait", "--keyspace", "jobs", "--", "true"];
    run(&network, &line, 4).await;
    run(&network, &["lock", "nightly", "--no-wait", "--", "true"], 0).await;
    lock.release().await.unwrap();
    run(&network, &line, 0).await;
    run(&network, &["lock", "nightly", "--keyspace", "none", "--", "true"], 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_keyspace_takes_deletes_until_there_is_room() {
    let network = Network::with(json!({ "shards": 1 }), 3).await;
    let admin = network.admin().await;
    run(&network, &["keyspace", "create", "small", "--quota", "64KiB"], 0).await;
    let small = admin.keyspace("small").await.unwrap();
    let full = fill(&small).await;
    assert!(matches!(full, Error::OverQuota { used, limit: 65_536 } if used > 50_000), "{full:?}");
    let said = run(&network, &["--keyspace", "small", "put", "more", &"x".repeat(20_000)], 1).await;
    assert!(said.contains("over quota: the shard has") && said.contains("64.0 KiB"), "{said}");
    admin.write("elsewhere", "goes on").await.unwrap();
    small.write("key-0", "smaller").await.unwrap();
    small.delete("key-1").await.unwrap();
    small.write("key-1", "fits again").await.unwrap();
    let change = KeyspaceChange { quota_bytes: Some(None), ..KeyspaceChange::default() };
    admin.set_keyspace("small", change).await.unwrap();
    eventually("the quota stays", async || {
        let written = small.write("large", vec![1; 100_000]).await;
        written.map(drop).map_err(|error| error.to_string())
    })
    .await;
}

/// Writes until a write is refused.
async fn fill(client: &Client) -> Error {
    for number in 0..100 {
        if let Err(error) = client.write(format!("key-{number}"), vec![1; 10_000]).await {
            return error;
        }
    }
    panic!("the quota does not hold");
}
