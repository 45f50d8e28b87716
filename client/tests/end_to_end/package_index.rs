//! An index of packages in a keyspace of four shards, which two watchers follow to files while
//! primaries die. One of the watchers is killed, too, and resumed from what is in its file.
//!
//! The ignored test takes the machine's own index, as `apt-cache dumpavail` prints it, or makes up
//! one of 100,000 records if there is none:
//!
//! ```sh
//! cargo test -p dkv --test end_to_end package_index -- --include-ignored --nocapture
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use dkv_api::{Bytes, Client, Error, KeyspaceSettings, ScanOptions};
use dkv_test_support::{Process, eventually, for_a_while};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::harness::Network;
use crate::harness::process::spawn;

const KEYSPACE: &str = "packages";
const SHARDS: u32 = 4;
/// Writes at the same time.
const WRITERS: usize = 64;
/// How often a primary and the second watcher die.
const DEATHS: usize = 5;

/// One change of the load: a key, and its value or none for a delete.
type Change = (String, Option<String>);

/// Makes up an index: paragraphs of some 700 bytes.
fn made_up(records: usize) -> String {
    let mut index = String::new();
    for number in 0..records {
        let hash = |salt: usize| {
            let mixed = (number as u64 ^ (salt as u64) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            format!("{:016x}{:016x}", mixed, mixed.rotate_left(29).wrapping_mul(3))
        };
        let name = format!("package-{number:06}");
        let depends: Vec<String> =
            (1..8).map(|step| format!("package-{:06} (>= {step}.0)", number / step)).collect();
        index.push_str(&format!(
            "Package: {name}\nVersion: {}.{}-1\nInstalled-Size: {}\nArchitecture: amd64\n\
             Maintainer: Somebody <somebody@example.org>\nDepends: {}\nDescription: {}\n\
             Section: misc\nPriority: optional\nFilename: pool/main/{name}_amd64.deb\nSize: {}\n\
             MD5sum: {}\nSHA256: {}{}\n\n",
            number % 10,
            number % 7,
            number * 3,
            depends.join(", "),
            hash(1).repeat(4),
            number * 1000,
            hash(2),
            hash(3),
            hash(4),
        ));
    }
    index
}

/// Returns the machine's index, if it has one.
fn of_the_machine() -> Option<String> {
    let printed = Command::new("apt-cache").arg("dumpavail").output().ok()?;
    let index = String::from_utf8(printed.stdout).ok()?;
    (printed.status.success() && index.starts_with("Package: ")).then_some(index)
}

/// Returns the changes that an index makes: for each package its paragraph, and the checksum of its
/// file. A few records are replaced, and a few removed again.
fn changes(index: &str) -> Vec<Vec<Change>> {
    let mut all = Vec::new();
    for (number, paragraph) in index.split("\n\n").enumerate() {
        let field = |name: &str| {
            let mut lines = paragraph.lines();
            lines.find_map(|line| line.strip_prefix(name)).map(|text| text.trim().to_owned())
        };
        let (Some(name), Some(file)) = (field("Package:"), field("Filename:")) else { continue };
        let version = field("Version:").unwrap_or_default();
        let (record, sum) = (format!("package/{name}/{version}"), format!("file/{file}"));
        all.push(vec![
            (record.clone(), Some(paragraph.to_owned())),
            (sum.clone(), field("SHA256:")),
        ]);
        if let Some(last) = all.last_mut() {
            match number % 40 {
                0 => last.push((record, Some(format!("{paragraph}\nStatus: replaced")))),
                1 => last.push((sum, None)),
                _ => {}
            }
        }
    }
    all
}

/// Makes a change, however often that takes.
async fn change(client: &Client, (key, value): &Change) {
    loop {
        let done = match value {
            Some(value) => client.write(key, value.clone()).await.map(drop),
            None => client.delete(key).await.map(drop),
        };
        match done {
            Ok(()) | Err(Error::NotFound { .. }) => return,
            Err(Error::Unknown(_) | Error::Unavailable(_)) => for_a_while(50).await,
            Err(error) => panic!("{key}: {error}"),
        }
    }
}

/// What the lines of a watcher lead to.
#[derive(Default)]
struct Replay {
    values: BTreeMap<String, String>,
    /// For each shard, the revision up to which everything was shown, and that of the last change.
    through: BTreeMap<u64, u64>,
    last: BTreeMap<u64, (u64, String)>,
    changes: usize,
}

impl Replay {
    /// Follows the whole lines of a file. A watcher that was killed may have written half a line.
    fn follow(&mut self, file: &PathBuf) {
        let text = std::fs::read_to_string(file).unwrap();
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        for line in whole.lines().filter(|line| line.starts_with('{')) {
            let line: Value = serde_json::from_str(line).unwrap();
            if let Some(token) = line["token"].as_str() {
                for (shard, revision) in token.split(',').filter_map(|part| part.split_once(':')) {
                    let through = self.through.entry(shard.parse().unwrap()).or_default();
                    *through = (*through).max(revision.parse().unwrap());
                }
            } else if line["key"].is_string() {
                self.take(&line);
            }
        }
    }

    fn take(&mut self, line: &Value) {
        let (shard, revision) =
            (line["shard"].as_u64().unwrap(), line["revision"].as_u64().unwrap());
        let key = line["key"].as_str().unwrap().to_owned();
        let last = self.last.insert(shard, (revision, key.clone()));
        // A resumed watcher shows the last revision of its file again: it may have shown half.
        let again = Some((revision, key.clone())) == last;
        let last = last.map_or(0, |(revision, _)| revision);
        assert!(revision > last || again, "{line} comes after revision {last}");
        self.changes += usize::from(!again);
        match line["value"].as_str() {
            Some(value) => self.values.insert(key, value.to_owned()),
            None => self.values.remove(&key),
        };
    }

    /// Returns the position from which another watcher goes on.
    fn position(&self) -> String {
        let through = self.through.iter().map(|(shard, through)| {
            let last = self.last.get(shard).map_or(0, |(revision, _)| revision - 1);
            format!("{shard}:{}", last.max(*through))
        });
        through.collect::<Vec<_>>().join(",")
    }
}

fn watcher(network: &Network, file: &Path, from: Option<&str>) -> Process {
    let address = network.address.to_string();
    let mut arguments = vec![address.as_str(), "watch", "--json", "--keyspace", KEYSPACE];
    if let Some(from) = from {
        arguments.extend(["--from", from]);
    }
    spawn(&arguments, &network.home(), file)
}

async fn begun(process: &Process) {
    eventually("the watcher does not begin", async || {
        let said = process.said();
        if said.contains("\"token\"") { Ok(()) } else { Err(said) }
    })
    .await;
}

/// Returns all keys with their values, as of one moment.
async fn snapshot(client: &Client) -> BTreeMap<String, String> {
    let snapshot = client.snapshot().await.unwrap();
    let mut scan = snapshot.scan(ScanOptions::default());
    let mut found = BTreeMap::new();
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    while let Some(pair) = scan.next().await.unwrap() {
        found.insert(text(pair.key), text(pair.value.unwrap()));
    }
    found
}

async fn load_and_follow(index: String) {
    let records = changes(&index);
    let written: usize = records.iter().map(Vec::len).sum();
    let mut network = Network::alone(json!({}), 3).await;
    let admin = network.admin().await;
    let settings =
        KeyspaceSettings { shards: SHARDS, history_bytes: 1 << 30, ..KeyspaceSettings::default() };
    admin.create_keyspace(KEYSPACE, settings).await.unwrap();
    let client = network.client().await.keyspace(KEYSPACE).await.unwrap();
    let all_file = network.path("all.jsonl");
    let all = watcher(&network, &all_file, None);
    let mut files = vec![network.path("resumed-0.jsonl")];
    let mut second = watcher(&network, &files[0], None);
    begun(&all).await;
    begun(&second).await;

    let (began, loaded) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
    let loading = {
        let (client, loaded) = (client.clone(), Arc::clone(&loaded));
        let count = records.len();
        tokio::spawn(async move {
            let load = futures::stream::iter(records).for_each_concurrent(WRITERS, |record| {
                let (client, loaded) = (client.clone(), Arc::clone(&loaded));
                async move {
                    for one in &record {
                        change(&client, one).await;
                    }
                    loaded.fetch_add(1, Ordering::Relaxed);
                }
            });
            load.await;
            count
        })
    };
    let count = index.split("\n\n").count();
    for death in 0..DEATHS {
        eventually("the load does not go on", async || {
            let loaded = loaded.load(Ordering::Relaxed);
            if loaded >= (death + 1) * count / (DEATHS + 2) {
                Ok(())
            } else {
                Err(loaded.to_string())
            }
        })
        .await;
        second.kill();
        let view = client.refresh().await.unwrap();
        let shards = view.shards_of(client.keyspace_id());
        let led = shards[death % shards.len()].primary;
        if let Some(index) = led.map(|led| network.index_of(led)) {
            network.kill_node(index);
            for_a_while(500).await;
            network.start_node(index).await;
        }
        let mut replay = Replay::default();
        files.iter().for_each(|file| replay.follow(file));
        files.push(network.path(&format!("resumed-{}.jsonl", death + 1)));
        second = watcher(&network, &files[death + 1], Some(&replay.position()));
        begun(&second).await;
    }
    let records = loading.await.unwrap();
    println!("{records} packages, {written} changes in {:?}", began.elapsed());
    network.settled().await;

    let found = snapshot(&client).await;
    assert!(found.len() > records, "{} keys of {records} packages", found.len());
    for (who, files) in [("the watcher", vec![all_file]), ("the one that was resumed", files)] {
        let followed = eventually(&format!("{who} does not come to the end"), async || {
            let mut replay = Replay::default();
            files.iter().for_each(|file| replay.follow(file));
            let missing =
                found.iter().filter(|(key, value)| replay.values.get(*key) != Some(value));
            let (missing, more) = (missing.count(), replay.values.len());
            if missing == 0 && more == found.len() {
                return Ok(replay.changes);
            }
            for_a_while(500).await;
            Err(format!("{missing} of {} keys differ, and it has {more}", found.len()))
        })
        .await;
        println!("{who}: {followed} changes lead to the same {} keys", found.len());
        assert!(followed >= written, "{who} has shown {followed} of {written} changes");
    }
    drop((all, second));
    network.assert_alive();
}

#[tokio::test(flavor = "multi_thread")]
async fn both_watchers_of_a_small_index_have_what_a_snapshot_shows() {
    load_and_follow(made_up(2000)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; see above"]
async fn both_watchers_of_the_machines_index_have_what_a_snapshot_shows() {
    load_and_follow(of_the_machine().unwrap_or_else(|| made_up(50_000))).await;
}
