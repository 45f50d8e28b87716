//! A backup that is followed, while primaries and its own process die.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use dkv_api::{Client, Error};
use dkv_test_support::{PATIENCE, eventually, text};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::{contents, json_of, run};
use crate::harness::{Network, for_a_while, process};

/// The keys of a keyspace, with their values.
type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

/// Starts to follow a network.
pub(super) fn follow(network: &Network, dest: &str, more: &[&str]) -> Child {
    std::fs::create_dir_all(dest).unwrap();
    let address = network.address.to_string();
    let line = [address.as_str(), "backup", "follow", dest, "--json", "--every", "300ms"];
    let arguments = [&line, more].concat();
    let log = |name| {
        let mut log = std::fs::OpenOptions::new();
        log.create(true).append(true).open(network.path(name)).unwrap()
    };
    let mut command = process::command(&arguments, &network.home());
    command.stdin(Stdio::null()).stdout(log("follow.out")).stderr(log("follow.err"));
    command.spawn().unwrap()
}

/// Waits until the backup that is followed, the last one, has everything up to now.
pub(super) async fn caught_up(network: &Network, dest: &str, keyspaces: usize) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    eventually("the backup does not follow", async || {
        let listed = json_of(network, &["backup", "list", dest]).await;
        let backups = listed[0]["backups"].as_array().unwrap();
        let Some(backup) = backups.last() else { return Err("none".into()) };
        let of = backup["keyspaces"].as_array().unwrap();
        let through = of.iter().filter_map(|it| it["through_at_ms"].as_u64());
        let has_all = through.clone().filter(|through| *through >= now).count() >= keyspaces;
        if has_all { Ok(()) } else { Err(format!("{now}: {backup}")) }
    })
    .await;
}

/// Writes a value until that is known to be done.
async fn write(client: &Client, key: &str, value: &str) {
    eventually("a write fails", async || match client.write(key, value.to_owned()).await {
        Ok(_) => Ok(()),
        Err(Error::Unknown(why) | Error::Unavailable(why)) => Err(why),
        Err(error) => panic!("{error}"),
    })
    .await;
}

fn time_of(second: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    format!("{}s", now.saturating_sub(second))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_second_comes_back_whoever_dies() {
    let mut network = Network::with(json!({ "shards": 3 }), 3).await;
    let client = network.client().await;
    for number in 0..300 {
        write(&client, &format!("key/{number:03}"), "before").await;
    }
    let destination = network.path("backups");
    let dest = text(&destination).to_owned();
    // Keys are written anew so often that it happens at any moment.
    let again = ["--base-every", "2s"];
    let mut following = follow(&network, &dest, &again);
    caught_up(&network, &dest, 1).await;
    // What there was at each of some moments, with nothing written around them.
    let mut moments: Vec<(u64, Contents)> = Vec::new();
    for round in 0..4_u64 {
        for number in 0..40 {
            let key = format!("key/{:03}", (number * 7 + round * 11) % 300);
            write(&client, &key, &round.to_string()).await;
        }
        client.delete(format!("key/{:03}", 299 - round)).await.ok();
        match round {
            0 => {
                // The follower is killed in the middle of its work, and starts again.
                following.kill().unwrap();
                following.wait().unwrap();
                write(&client, "while/away", "written").await;
                following = follow(&network, &dest, &again);
            }
            1 | 2 => {
                let view = client.refresh().await.unwrap();
                let primary = view.shards[round as usize].primary.unwrap();
                let index = network.index_of(primary);
                network.kill_node(index);
                write(&client, &format!("failover/{round}"), "written").await;
                network.start_node(index).await;
                network.settled().await;
            }
            _ => {
                let admin = network.admin().await;
                admin.create_keyspace("later", Default::default()).await.unwrap();
                let later = client.keyspace("later").await.unwrap();
                write(&later, "color", "blue").await;
                caught_up(&network, &dest, 2).await;
            }
        }
        caught_up(&network, &dest, 1).await;
        for_a_while(1200).await;
        let second = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        moments.push((second, contents(&client).await));
        for_a_while(1500).await;
    }
    // It ends in good order, with everything.
    write(&client, "last", "written").await;
    kill(Pid::from_raw(following.id() as i32), Signal::SIGTERM).unwrap();
    let ended = tokio::task::spawn_blocking(move || following.wait());
    let ended = tokio::time::timeout(PATIENCE, ended).await.expect("it does not end");
    assert!(ended.unwrap().unwrap().success());
    run(&network, &["backup", "verify", &dest], 0).await;

    for (index, (second, expected)) in moments.iter().enumerate() {
        let (name, at) = (format!("at-{index}"), time_of(*second));
        let line = ["restore", &dest, "--keyspace", "default", "--as", &name, "--at", &at];
        let restored = run(&network, &line, 0).await;
        let found = contents(&client.keyspace(&name).await.unwrap()).await;
        let odd = found.iter().find(|(key, value)| expected.get(*key) != Some(value));
        let lacking = expected.keys().find(|key| !found.contains_key(*key));
        assert!(found == *expected, "{restored}unexpected: {odd:?}, missing: {lacking:?}");
    }
    run(&network, &["restore", &dest, "--keyspace", "default", "--as", "end"], 0).await;
    assert_eq!(contents(&client.keyspace("end").await.unwrap()).await, contents(&client).await);
    run(&network, &["restore", &dest, "--keyspace", "later", "--as", "later-2"], 0).await;
    let early = ["restore", &dest, "--keyspace", "default", "--as", "early", "--at", "1h"];
    let refused = run(&network, &early, 3).await;
    assert!(refused.contains("no backup in"), "{refused}");

    // What comes before the last base is pruned, and the rest is as good as before.
    let from = async || {
        let shown = json_of(&network, &["backup", "show", &dest]).await;
        let of = shown[0]["keyspaces"].as_array().unwrap().iter();
        let mut of = of.filter(|it| it["name"] == "default");
        of.next().unwrap()["from_at_ms"].as_u64().unwrap()
    };
    let before = from().await;
    let pruned = json_of(&network, &["backup", "prune", &dest, "--keep", "1s"]).await;
    assert!(pruned[0]["chunks"].as_u64().unwrap() > 10, "{pruned:?}");
    assert!(from().await > before + 5000, "{before}");
    run(&network, &["backup", "verify", &dest], 0).await;
    run(&network, &["restore", &dest, "--keyspace", "default", "--as", "pruned"], 0).await;
    assert_eq!(contents(&client.keyspace("pruned").await.unwrap()).await, contents(&client).await);
    let (second, _) = moments[0];
    let at = time_of(second);
    let old = ["restore", &dest, "--keyspace", "default", "--as", "old", "--at", &at];
    let refused = run(&network, &old, 3).await;
    assert!(refused.contains("no backup in"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_while_it_was_away_begins_a_new_base() {
    let network = Network::with(json!({ "shards": 1 }), 1).await;
    let (client, admin) = (network.client().await, network.admin().await);
    write(&client, "color", "red").await;
    let destination = network.path("backups");
    let dest = text(&destination).to_owned();
    let mut following = follow(&network, &dest, &[]);
    caught_up(&network, &dest, 1).await;
    for_a_while(1500).await;
    following.kill().unwrap();
    following.wait().unwrap();
    let mut latest = dkv_api::Revision(0);
    for number in 0..50 {
        latest = client.write("color", number.to_string()).await.unwrap().receipt.revision;
    }
    admin.compact(latest).await.unwrap();
    let mut following = follow(&network, &dest, &[]);
    caught_up(&network, &dest, 1).await;
    following.kill().unwrap();
    following.wait().unwrap();
    run(&network, &["restore", &dest, "--as", "copy"], 0).await;
    let copied = run(&network, &["get", "color", "--keyspace", "copy"], 0).await;
    assert_eq!(copied.trim_end(), "49");
    // An increment of a backup that is forgotten is full.
    let elsewhere = network.path("increments");
    let elsewhere = text(&elsewhere);
    run(&network, &["backup", "create", elsewhere], 0).await;
    // The changes at the floor stay, those before it do not.
    client.write("color", "between").await.unwrap();
    let latest = client.write("color", "50").await.unwrap().receipt.revision;
    admin.compact(latest).await.unwrap();
    let ran = network.dkv(&["backup", "create", elsewhere, "--since", "latest"]).await;
    let said = dkv_test_support::output(&ran.stderr).to_owned();
    assert!(ran.status.success() && said.contains("no longer has the history"), "{said}");
    let line = ["restore", elsewhere, "--keyspace", "default", "--as", "copy-2"];
    run(&network, &line, 0).await;
    let copied = run(&network, &["get", "color", "--keyspace", "copy-2"], 0).await;
    assert_eq!(copied.trim_end(), "50");
}
