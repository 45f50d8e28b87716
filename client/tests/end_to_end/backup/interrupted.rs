//! Backups and restores that are killed at some moment, and go on.

use std::process::Stdio;
use std::time::Duration;

use dkv_api::WriteOptions;
use dkv_test_support::{eventually, skip, text};
use serde_json::json;

use super::follow::{caught_up, follow};
use super::{chunks, contents, flip_a_bit, json_of, run};
use crate::harness::{Network, for_a_while, process};

const KEYS: usize = 6000;
const VALUE_BYTES: usize = 4096;
/// The time of a lease that ends soon.
const SHORT: Duration = Duration::from_secs(10);

/// Bytes of a value that cannot be compressed.
fn value(number: usize) -> Vec<u8> {
    let mut state = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..VALUE_BYTES).map(next).collect()
}

/// Starts a command that is to be killed.
fn start(network: &Network, arguments: &[&str]) -> std::process::Child {
    let address = network.address.to_string();
    let arguments = [&[address.as_str()], arguments].concat();
    let mut command = process::command(&arguments, &network.home());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

async fn filled() -> Network {
    let network = Network::with(json!({ "shards": 3 }), 3).await;
    let client = network.client().await;
    let writing = (0..KEYS).map(|number| {
        let (client, key) = (client.clone(), format!("key/{number:06}"));
        async move { client.write(key, value(number)).await.unwrap() }
    });
    futures::future::join_all(writing).await;
    let lease = client.grant_lease(Duration::from_secs(3600)).await.unwrap();
    client.write_with("leased", "l", WriteOptions::default().lease(lease)).await.unwrap();
    network
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_backup_goes_on_and_so_does_a_killed_restore() {
    let network = filled().await;
    let client = network.client().await;
    // Its keys end while the restore is away, and come before all others.
    let short = client.hold_lease(SHORT).await.unwrap();
    let options = WriteOptions::default().lease(short.id());
    client.write_with("a/short", "s", options).await.unwrap();
    let destination = network.path("backups");
    let dest = text(&destination).to_owned();
    let create = ["backup", "create", &dest, "--rate", "8MiB"];
    let mut kept = 0;
    let backup = || {
        let mut names = std::fs::read_dir(&destination).ok()?;
        Some(names.next()?.ok()?.file_name().into_string().unwrap())
    };
    for stage in 0..2 {
        let mut killed = start(&network, &create);
        let written = || -> usize {
            let Some(backup) = backup() else { return 0 };
            match destination.join(&backup).join("default").is_dir() {
                true => chunks(&destination, &backup, "default").len(),
                false => 0,
            }
        };
        eventually("no chunk is written", async || {
            if written() > kept { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await;
        killed.kill().unwrap();
        killed.wait().unwrap();
        kept = written();
        // A chunk that is damaged is written again.
        if stage == 1 {
            flip_a_bit(chunks(&destination, &backup().unwrap(), "default").last().unwrap());
        }
        client.write(format!("between/{stage}"), "written").await.unwrap();
        client.delete(format!("key/{:06}", stage)).await.unwrap();
    }
    let listed = run(&network, &["backup", "list", &dest], 0).await;
    assert!(listed.contains("unfinished"), "{listed}");
    let created = &json_of(&network, &["backup", "create", &dest]).await[0];
    assert_eq!(created["resumed"], true, "{created}");
    assert_eq!(created["backup"].as_str(), backup().as_deref());
    run(&network, &["backup", "verify", &dest], 0).await;
    let expected = contents(&client).await;
    assert_eq!(expected.len(), KEYS + 2);

    // Into a new network.
    let mut other = Network::beside(&network).await;
    for _ in 0..3 {
        other.add_node().await;
    }
    other.settled().await;
    let restore = ["restore", &dest, "--rate", "8MiB"];
    let client = other.client().await;
    for least in [1, 4000] {
        let mut killed = start(&other, &restore);
        eventually("nothing is restored", async || match contents(&client).await.len() {
            found if found >= least => Ok(()),
            found => Err(format!("{found} keys")),
        })
        .await;
        // The mark is moved after the first 16 MiB, and the next keys wait for their rate.
        for_a_while(300).await;
        killed.kill().unwrap();
        killed.wait().unwrap();
    }
    for_a_while(SHORT.as_millis() as u64 + 1000).await;
    assert!(client.read("a/short").await.is_err(), "it has not ended");
    let second = &json_of(&network, &["backup", "create", &dest]).await[0];
    let refused = run(&other, &["restore", &dest], 4).await;
    assert!(refused.contains("another restore of keyspace default was interrupted"), "{refused}");
    assert_eq!(second["kind"], "full");
    let name = created["backup"].as_str().unwrap();
    let restored = &json_of(&other, &["restore", &dest, "--backup", name]).await[0];
    assert_eq!(restored["resumed"], true, "{restored}");
    assert_eq!(restored["leases"], 2, "{restored}");
    assert_eq!(contents(&other.client().await).await, expected);
    let refused = run(&other, &["restore", &dest, "--backup", name], 4).await;
    assert!(refused.contains("keyspace default has keys"), "{refused}");

    // One that is given up is dropped.
    let named = ["restore", &dest, "--as", "half", "--rate", "1MiB"];
    let mut killed = start(&other, &named);
    let admin = other.admin().await;
    eventually("the keyspace is not created", async || {
        let half = admin.keyspace("half").await.map_err(|error| error.to_string())?;
        match contents(&half).await.len() {
            0 => Err("it has no key".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    killed.kill().unwrap();
    killed.wait().unwrap();
    run(&other, &["restore", "--drop", "half"], 0).await;
    assert!(admin.keyspace("half").await.is_err());
}

/// Unmounts a disk, also after a failure.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").args(["-l", text(&self.0)]).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_keeps_what_was_written() {
    let network = filled().await;
    let disk = network.path("disk");
    std::fs::create_dir(&disk).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=20m", "dkv-test", text(&disk)])
        .output();
    if !mounted.is_ok_and(|mounted| mounted.status.success()) {
        skip("a_full_disk_keeps_what_was_written", "it takes root and mount");
        return;
    }
    let _mounted = Mounted(disk.clone());
    let resize = |size: &str| {
        let options = format!("remount,size={size}");
        let mut resized = std::process::Command::new("mount");
        resized.args(["-o", &options, text(&disk)]);
        assert!(resized.status().unwrap().success());
    };
    let destination = disk.join("backups");
    let dest = text(&destination);
    let full = run(&network, &["backup", "create", dest], 1).await;
    assert!(full.contains("No space left on device"), "{full}");
    assert!(full.contains("run the same command again"), "{full}");
    resize("40m");
    let created = run(&network, &["backup", "create", dest], 0).await;
    assert!(created.contains("is complete (full)"), "{created}");
    let verified = run(&network, &["backup", "verify", dest], 0).await;
    assert!(verified.contains("nothing is wrong"), "{verified}");

    // A follower waits for space, and says so once.
    let mut following = follow(&network, dest, &[]);
    let said = || std::fs::read_to_string(network.path("follow.err")).unwrap_or_default();
    eventually("it says nothing of the disk", async || match said() {
        said if said.contains("No space left on device (os error 28); trying again") => Ok(()),
        said => Err(said),
    })
    .await;
    for_a_while(3000).await;
    assert_eq!(said().matches("No space left on device").count(), 1, "{}", said());
    assert!(following.try_wait().unwrap().is_none(), "{}", said());
    resize("100m");
    caught_up(&network, dest, 1).await;
    following.kill().unwrap();
    following.wait().unwrap();
    let verified = run(&network, &["backup", "verify", dest], 0).await;
    assert!(verified.contains("nothing is wrong"), "{verified}");
}
