//! Data directories on which a node must refuse to start, and its messages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use dkv_test_support::text;

use crate::harness::process::spawn;
use crate::harness::{Load, Network, eventually};

/// Starts a node on a directory, and checks that it is refused with one error.
async fn refused(network: &Network, dir: &Path, why: &str) {
    let address = network.address.to_string();
    let log = network.path("refused.log");
    let arguments = ["node", &address, "--data-dir", text(dir), "--listen", "127.0.0.1:0"];
    let mut process = spawn(&arguments, &network.home(), &log);
    let said = match process.ready().await {
        Ok(_) => panic!("it started, and should have said {why:?}"),
        Err(said) => said,
    };
    let status = process.ended().await;
    let last = said.lines().last().unwrap();
    let errors = said.lines().filter(|line| line.starts_with("error: ")).count();
    assert!(last.starts_with("error: ") && errors == 1, "{said}");
    assert!(last.contains(text(dir)), "it does not name {}: {said}", dir.display());
    assert!(last.contains(why), "not {why:?}: {said}");
    assert_eq!(status.code(), Some(1), "{said}");
}

/// Copies a directory, to modify the copy.
fn copy(network: &Network, from: &Path, name: &str) -> PathBuf {
    let to = network.path(name);
    let copied = Command::new("cp").arg("-a").args([from, &to]).status().unwrap();
    assert!(copied.success());
    to
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_used_by_one_process_of_one_network() {
    let mut network = Network::start(1).await;
    let dir = network.nodes[0].dir.clone();
    refused(&network, &dir, "is in use by another process").await;
    network.assert_alive();

    // The server of another network refuses the node, which has no effect there.
    let mut other = Network::beside(&network).await;
    other.add_node().await;
    network.stop_node(0).await;
    let (address, log) = (other.address.to_string(), network.path("astray.log"));
    let arguments = ["node", &address, "--data-dir", text(&dir)];
    let mut astray = spawn(&arguments, &other.home(), &log);
    // It may serve for a moment before it reaches the server.
    let _ = astray.ready().await;
    assert_eq!(astray.ended().await.code(), Some(1), "{}", astray.said());
    let said = astray.said();
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("error: ") && last.contains("belongs to another network"), "{said}");
    assert!(!said.contains("confirmed as coordinator"), "{said}");
    let known = other.client().await.status().await.nodes;
    assert_eq!(known.len(), 1, "{known:?}");
    drop(astray);
    network.start_node(0).await;
    network.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_directory_is_refused() {
    let mut network = Network::start(3).await;
    let client = network.client().await;
    for number in 0..200 {
        client.write(format!("key-{number}"), "v".repeat(5000)).await.unwrap();
    }
    let index = (network.coordinator().await + 1) % 3;
    network.kill_node(index);
    let dir = network.nodes[index].dir.clone();

    let lost = copy(&network, &dir, "log-gone");
    fs::remove_dir_all(lost.join("wal")).unwrap();
    refused(&network, &lost, "already holds this node's data").await;
    let lost = copy(&network, &dir, "log-empty");
    for file in files_below(&lost.join("wal")) {
        fs::remove_file(file).unwrap();
    }
    refused(&network, &lost, "already holds this node's data").await;

    let lost = copy(&network, &dir, "node-file-gone");
    fs::remove_file(lost.join("node.json")).unwrap();
    refused(&network, &lost, "node.json is missing or empty").await;
    let cut = copy(&network, &dir, "node-file-cut");
    let whole = fs::read(cut.join("node.json")).unwrap();
    fs::write(cut.join("node.json"), &whole[..whole.len() / 2]).unwrap();
    refused(&network, &cut, "node.json").await;

    let lost = copy(&network, &dir, "key-gone");
    fs::remove_file(lost.join("credentials/key.der")).unwrap();
    refused(&network, &lost, "key.der is missing or empty").await;
    let cut = copy(&network, &dir, "certificate-cut");
    let file = cut.join("credentials/certificate.der");
    fs::write(&file, &fs::read(&file).unwrap()[..100]).unwrap();
    refused(&network, &cut, "is damaged").await;

    // A byte in the middle of the log, in entries that were acknowledged long ago.
    for part in 1..4 {
        let flipped = copy(&network, &dir, &format!("byte-flipped-{part}"));
        let file = longest_segment(&flipped);
        let mut content = fs::read(&file).unwrap();
        let end = content.iter().rposition(|byte| *byte != 0).unwrap();
        let wanted = end * part / 4;
        let at = (wanted..end).find(|at| content[*at] != 0).unwrap();
        content[at] ^= 0x10;
        fs::write(&file, content).unwrap();
        refused(&network, &flipped, "is damaged").await;
    }
    let cut = copy(&network, &dir, "segment-cut");
    let file = longest_segment(&cut);
    let content = fs::read(&file).unwrap();
    let end = content.iter().rposition(|byte| *byte != 0).unwrap();
    fs::write(&file, &content[..end / 2]).unwrap();
    refused(&network, &cut, "is damaged").await;

    let cut = copy(&network, &dir, "state-cut");
    for file in files_below(&cut.join("state")) {
        let content = fs::read(&file).unwrap();
        fs::write(&file, &content[..content.len() / 2]).unwrap();
    }
    refused(&network, &cut, "is damaged").await;

    // The original still works.
    network.start_node(index).await;
    network.settled().await;
    network.same_state().await;
}

/// Returns the log file with the most content.
fn longest_segment(dir: &Path) -> PathBuf {
    let used = |file: &PathBuf| {
        let content = fs::read(file).unwrap();
        content.iter().rposition(|byte| *byte != 0).unwrap_or(0)
    };
    files_below(&dir.join("wal")).into_iter().max_by_key(used).unwrap()
}

/// An older copy is intact, but lacks entries that its node has acknowledged since, like a disk
/// that lied about its syncs. The leader detects this.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_is_detected() {
    let mut network = Network::start(3).await;
    let client = network.client().await;
    let load = Load::start(&client);
    load.more(300).await;
    let index = (network.coordinator().await + 1) % 3;
    network.stop_node(index).await;
    let dir = network.nodes[index].dir.clone();
    let earlier = copy(&network, &dir, "earlier");
    network.start_node(index).await;
    network.settled().await;
    let leader = network.coordinator().await;
    load.more(1000).await;
    network.kill_node(index);
    fs::rename(&dir, network.path("later")).unwrap();
    fs::rename(&earlier, &dir).unwrap();

    network.respawn_node(index, &[]);
    let mut reverted = network.nodes[index].process.take().unwrap();
    // It may serve for a moment before a leader contacts it.
    let _ = reverted.ready().await;
    assert_eq!(reverted.ended().await.code(), Some(1), "{}", reverted.said());
    let said = reverted.said();
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("error: ") && last.contains("has acknowledged entry"), "{said}");
    refused(&network, &dir, "has acknowledged entry").await;
    load.more(500).await;
    network.assert_alive();
    assert_eq!(network.coordinator().await, leader, "the coordinator changed");

    // It may join under a new identity.
    let before = network.nodes[index].id();
    fs::rename(&dir, network.path("damaged")).unwrap();
    network.start_node(index).await;
    assert_ne!(network.nodes[index].id(), before);
    let admin = network.admin().await;
    admin.remove_node(before).await.unwrap();
    eventually("the old identity is still known", async || {
        let view = client.refresh().await.map_err(|error| error.to_string())?;
        if view.node(before).is_none() { Ok(()) } else { Err("it is there".into()) }
    })
    .await;
    load.more(500).await;
    load.stop().await.check(&client).await;
    network.settled().await;
    network.same_state().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_may_change_their_address_at_once() {
    let mut network = Network::start(3).await;
    let client = network.client().await;
    client.write("k", "v").await.unwrap();
    for index in 0..3 {
        network.kill_node(index);
    }
    for index in 0..3 {
        let before = network.nodes[index].address();
        network.respawn_node(index, &["--listen", "127.0.0.1:0"]);
        assert_ne!(network.nodes[index].running().ready().await, Ok(before));
    }
    network.settled().await;
    assert_eq!(client.read("k").await.unwrap().value, "v");
    client.write("k", "w").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_may_change_its_address() {
    let mut network = Network::start(3).await;
    let client = network.client().await;
    client.write("k", "v").await.unwrap();
    for index in 0..3 {
        let (id, before) = (network.nodes[index].id(), network.nodes[index].address());
        network.kill_node(index);
        network.respawn_node(index, &["--listen", "127.0.0.1:0"]);
        let address = network.nodes[index].running().ready().await.unwrap();
        assert_ne!(address, before);
        network.settled().await;
        assert_eq!(network.nodes[index].id(), id);
        let view = client.refresh().await.unwrap();
        assert_eq!(view.node(id).unwrap().address, address);
    }
    assert_eq!(client.read("k").await.unwrap().value, "v");
    client.write("k", "w").await.unwrap();
    network.same_state().await;
}
