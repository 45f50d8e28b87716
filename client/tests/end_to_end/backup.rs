//! Backups of networks that are in use, and what comes back from them.

mod exchange;
mod follow;
mod interrupted;
mod s3;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dkv_api::{
    Client, Error, KeyspaceSettings, LeaseId, Lifetime, ScanOptions, Transaction,
    TransactionOperation, WriteOptions,
};
use dkv_test_support::{eventually, output, text};
use serde_json::{Value, json};

use crate::harness::{Network, for_a_while};

const ACCOUNTS: u64 = 24;
const OPENING: i64 = 100;
const WRITERS: u64 = 16;

fn account(number: u64) -> String {
    format!("account-{number:02}")
}

/// Runs a command, checks its exit status, and returns what it printed: the result, or what it said
/// of the failure.
async fn run(network: &Network, line: &[&str], status: i32) -> String {
    let ran = network.dkv(line).await;
    let said = output(&ran.stderr);
    assert_eq!(ran.status.code(), Some(status), "{line:?}: {said}{}", output(&ran.stdout));
    let printed = if status == 0 { output(&ran.stdout) } else { said };
    printed.to_owned()
}

/// Runs a command and returns the JSON objects that it printed.
async fn json_of(network: &Network, line: &[&str]) -> Vec<Value> {
    let printed = run(network, &[line, &["--json"]].concat(), 0).await;
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Returns everything that a keyspace has.
async fn contents(client: &Client) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut scan = client.scan(ScanOptions::default());
    let mut all = BTreeMap::new();
    while let Some(pair) = scan.next().await.unwrap() {
        all.insert(pair.key.to_vec(), pair.value.unwrap().to_vec());
    }
    all
}

/// Moves money between accounts of all shards, and writes keys of its own, until it is stopped.
async fn write(client: Client, writer: u64, stop: Arc<AtomicBool>) {
    let mut round = 0;
    while !stop.load(Ordering::SeqCst) {
        round += 1;
        let from = account((writer + round) % ACCOUNTS);
        let to = account((writer * 5 + round * 7 + 1) % ACCOUNTS);
        let transfer = Transaction::new()
            .then(TransactionOperation::increment(&from, -3))
            .then(TransactionOperation::increment(&to, 3));
        if from != to {
            match client.transact(transfer).await {
                Ok(_) | Err(Error::Unknown(_) | Error::Unavailable(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        // Two keys of a writer, the second after the first: never the other way round.
        for name in ["first", "second"] {
            let key = format!("writer-{writer:02}/{name}");
            match client.write(&key, round.to_string()).await {
                Ok(_) | Err(Error::Unknown(_) | Error::Unavailable(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Flips a bit in the middle of a file.
fn flip_a_bit(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(file, bytes).unwrap();
}

/// Returns the files with chunks of a backup's keyspace, in order.
fn chunks(destination: &Path, backup: &str, keyspace: &str) -> Vec<std::path::PathBuf> {
    let folder = std::fs::read_dir(destination.join(backup).join(keyspace)).unwrap();
    let mut files: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_is_of_one_moment() {
    let network = Network::with(json!({ "shards": 4 }), 3).await;
    let (client, admin) = (network.client().await, network.admin().await);
    for number in 0..ACCOUNTS {
        client.write(account(number), OPENING.to_string()).await.unwrap();
    }
    for number in 0..2000 {
        client.write(format!("ballast/{number:05}"), vec![number as u8; 1024]).await.unwrap();
    }
    let settings = KeyspaceSettings {
        shards: 1,
        history_age_ms: 3_600_000,
        quota_bytes: Some(1 << 30),
        ..KeyspaceSettings::default()
    };
    admin.create_keyspace("orders", settings.clone()).await.unwrap();
    let orders = client.keyspace("orders").await.unwrap();
    let lease = orders.grant_lease(Duration::from_secs(600)).await.unwrap();
    orders.write_with("leased", "l", WriteOptions::default().lease(lease)).await.unwrap();
    let hour = Duration::from_secs(3600);
    orders.write_with("expiring", "e", WriteOptions::default().ttl(hour)).await.unwrap();
    orders.write(b"\xff\0raw", &b"\0\xff"[..]).await.unwrap();

    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let client = network.client().await;
        writers.push(tokio::spawn(write(client, writer, Arc::clone(&stop))));
    }
    for_a_while(500).await;
    for key in (0..WRITERS).map(|writer| format!("writer-{writer:02}/second")) {
        eventually("a writer has not begun", async || {
            client.read(&key).await.map_err(|error| error.to_string())
        })
        .await;
    }
    let destination = network.path("backups");
    let dest = text(&destination);
    let created = &json_of(&network, &["backup", "create", dest]).await[0];
    assert_eq!(created["kind"], "full", "{created}");
    assert_eq!(created["keyspaces"].as_array().unwrap().len(), 2, "{created}");
    let backup = created["backup"].as_str().unwrap().to_owned();
    for_a_while(500).await;
    let after = &json_of(&network, &["backup", "create", dest, "--since", "latest"]).await[0];
    assert_eq!(after["kind"], "increment", "{after}");
    let stored = |created: &Value| created["stored_bytes"].as_u64().unwrap();
    let records = |created: &Value| created["records"].as_u64().unwrap();
    assert!(records(created) > 2000 && records(after) < records(created), "{created} {after}");
    assert!(stored(after) < stored(created), "{created} {after}");
    stop.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }

    let listed = run(&network, &["backup", "list", dest], 0).await;
    assert!(listed.contains(&backup) && listed.contains("increment"), "{listed}");
    let verified = run(&network, &["backup", "verify", dest], 0).await;
    assert!(verified.contains("nothing is wrong"), "{verified}");

    // Never over what is there.
    let refused = run(&network, &["restore", dest, "--keyspace", "default"], 4).await;
    assert!(refused.contains("keyspace default has keys"), "{refused}");
    let refused = run(&network, &["restore", dest, "--as", "copy"], 4).await;
    assert!(refused.contains("several keyspaces"), "{refused}");

    for (name, from) in [("copy", backup.as_str()), ("copy-after", "latest")] {
        let line = ["restore", dest, "--backup", from, "--keyspace", "default", "--as", name];
        let restored = run(&network, &line, 0).await;
        assert!(restored.contains("compared with the backup: equal, hash "), "{restored}");
        let copy = contents(&client.keyspace(name).await.unwrap()).await;
        let number = |key: String| -> i64 {
            let value = copy.get(key.as_bytes());
            value.map_or(0, |value| String::from_utf8(value.clone()).unwrap().parse().unwrap())
        };
        let sum: i64 = (0..ACCOUNTS).map(account).map(number).sum();
        assert_eq!(sum, OPENING * ACCOUNTS as i64, "{name} shows half of a transfer");
        for writer in 0..WRITERS {
            let of = |name| number(format!("writer-{writer:02}/{name}"));
            let (first, second) = (of("first"), of("second"));
            assert!(first == second || first == second + 1, "{name}: {first} {second}");
        }
        assert_eq!(copy.len() as u64, ACCOUNTS + 2000 + 2 * WRITERS);
    }
    run(&network, &["restore", dest, "--keyspace", "orders", "--as", "orders-copy"], 0).await;
    let copy = client.keyspace("orders-copy").await.unwrap();
    assert_eq!(contents(&copy).await, contents(&orders).await);
    assert_eq!(copy.lease(lease).await.unwrap().ttl, Duration::from_secs(600));
    let LeaseId(id) = lease;
    match copy.ttl("leased").await.unwrap() {
        Lifetime::Lease { lease, .. } => assert_eq!(lease.0, id),
        other => panic!("{other:?}"),
    }
    match copy.ttl("expiring").await.unwrap() {
        Lifetime::Ttl { remaining, .. } => {
            assert!(remaining <= hour && remaining > hour - Duration::from_secs(120));
        }
        other => panic!("{other:?}"),
    }
    let all = client.list_keyspaces().await.unwrap();
    let restored = all.iter().find(|it| it.keyspace.name == "orders-copy").unwrap();
    assert_eq!(restored.keyspace.settings, settings);

    // A bit that changes is found, and named.
    let chunk = chunks(&destination, &backup, "default").remove(1);
    flip_a_bit(&chunk);
    let damaged = run(&network, &["backup", "verify", dest, &backup], 1).await;
    assert!(damaged.contains("default/0000000002 is damaged: its hash"), "{damaged}");
    let line = ["restore", dest, "--backup", &backup, "--keyspace", "default", "--as", "never"];
    let damaged = run(&network, &line, 1).await;
    assert!(damaged.contains("is damaged"), "{damaged}");
    assert!(client.keyspace("never").await.is_err(), "nothing was created");
}

#[tokio::test(flavor = "multi_thread")]
async fn destinations_that_are_none_are_refused() {
    let network = Network::with(json!({ "shards": 1 }), 1).await;
    run(&network, &["put", "color", "blue"], 0).await;
    let other = network.path("server");
    for (line, status, says) in [
        (&["backup", "create", text(&other)][..], 1, "holds other files and no backup"),
        (&["backup", "create", "ftp://host/x"], 1, "name a directory or s3://BUCKET/PATH"),
        (&["backup", "create", "/dev/null"], 1, "cannot use /dev/null"),
        (&["backup", "list", "/nowhere/at/all"], 1, "No such file"),
        (&["restore", text(&other)], 3, "has no complete backup"),
        (&["backup", "create", "b", "--since", "latest"], 3, "has no complete backup"),
        (&["backup", "create", "b", "--keyspace", "none"], 3, "there is no keyspace none"),
        (&["backup", "prune", "b"], 2, "--keep"),
        (&["restore"], 2, "DEST"),
        (&["restore", "b", "--at", "yesterday"], 2, "write a time as in"),
        (&["restore", "--drop", "default"], 4, "no restore of keyspace default was interrupted"),
    ] {
        let said = run(&network, line, status).await;
        assert!(said.contains(says), "{line:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_backups_are_pruned() {
    let network = Network::with(json!({ "shards": 1 }), 1).await;
    let destination = network.path("backups");
    // One that others may enter, as a mounted disk.
    std::fs::create_dir(&destination).unwrap();
    std::fs::set_permissions(&destination, PermissionsExt::from_mode(0o755)).unwrap();
    let dest = text(&destination);
    let mut names = Vec::new();
    for (number, since) in [None, Some("latest"), None].into_iter().enumerate() {
        run(&network, &["put", "color", &number.to_string()], 0).await;
        let mut line = vec!["backup", "create", dest];
        line.extend(since.iter().flat_map(|since| ["--since", since]));
        let created = &json_of(&network, &line).await[0];
        names.push(created["backup"].as_str().unwrap().to_owned());
        for_a_while(1100).await;
    }
    for chunk in chunks(&destination, &names[0], "default") {
        let mode = std::fs::metadata(&chunk).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", chunk.display());
    }
    let prune = |more: &'static [&'static str]| [&["backup", "prune", dest][..], more].concat();
    let pruned = &json_of(&network, &prune(&["--keep", "1s", "--dry-run"])).await[0];
    assert_eq!(pruned["backups"].as_array().unwrap().len(), 2, "{pruned}");
    run(&network, &prune(&["--keep", "1s"]), 0).await;
    let left = &json_of(&network, &["backup", "list", dest]).await[0];
    let left: Vec<&Value> =
        left["backups"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(left, [&json!(names[2])]);
    run(&network, &["restore", dest, "--as", "copy"], 0).await;
    let copied = run(&network, &["get", "color", "--keyspace", "copy"], 0).await;
    assert_eq!(copied.trim_end(), "2");
}
