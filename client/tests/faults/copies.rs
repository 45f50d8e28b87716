//! Data directories that are copied, put back, and started twice.
//!
//! A directory that is older than the network's knowledge of its node never serves. When two
//! processes of one node run, neither accepts writes until an administrator chooses one. A restart
//! never looks like a second process.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use dkv_api::{Client, Error, ReadOptions, Role, RunChoice, WriteOptions};
use serde_json::{Value, json};

use crate::lab::network::{Lab, on_network};
use crate::lab::{Under, eventually, for_a_while, host, tools};

/// Time in which an older copy would serve if the network accepted it.
const SERVING_MS: u64 = 4000;

/// Runs a test on a network of hosts, if this machine can make them.
fn on_hosts(settings: Value, nodes: usize, test: impl AsyncFnOnce(&mut Lab)) {
    let thread = std::thread::current();
    if tools::has(thread.name().unwrap_or_default(), &["namespaces"]) {
        on_network(settings, nodes, test);
    }
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// Copies the directory of a running node, which is paused meanwhile.
fn copy_paused(lab: &mut Lab, index: usize, to: &Path) {
    lab.pause_node(index);
    copy(&lab.nodes[index].dir, to);
    lab.resume_node(index);
}

/// Replaces the directory of a node with a copy, and moves the current one to `kept`.
fn put_back(lab: &Lab, index: usize, copied: &Path, kept: &Path) {
    let dir = &lab.nodes[index].dir;
    fs::rename(dir, kept).unwrap();
    copy(copied, dir);
}

/// Puts the current directory of a node back in place.
fn restore(lab: &Lab, index: usize, kept: &Path) {
    let dir = &lab.nodes[index].dir;
    fs::remove_dir_all(dir).unwrap();
    fs::rename(kept, dir).unwrap();
}

fn address(lab: &Lab, index: usize) -> SocketAddr {
    SocketAddr::from((host::address(lab.nodes[index].host), 4401))
}

async fn says(lab: &mut Lab, index: usize, what: &str) {
    eventually("a node does not print the message", async || {
        let said = lab.nodes[index].running().said();
        if said.contains(what) { Ok(()) } else { Err(format!("not {what:?} in: {said}")) }
    })
    .await;
}

/// Waits until a node that was refused has exited, and checks that it has never served.
async fn refuses_to_serve(lab: &mut Lab, index: usize) {
    let process = lab.nodes[index].running();
    assert_eq!(process.ended().await.code(), Some(1));
    assert!(!process.said().contains("ready "), "it has served");
    lab.nodes[index].process = None;
}

/// Waits for a warning of the server or of a node in the status.
async fn is_shown(lab: &Lab, what: &str) {
    let client = lab.client().await;
    eventually("the status does not show the warning", async || {
        let status = client.status().await;
        let server = status.server.map_err(|error| error.to_string())?;
        let mut shown: Vec<String> =
            server.runs.iter().map(|run| format!("{} {:?}", run.name, run.verdict)).collect();
        for (_, answer) in &status.nodes {
            shown.extend(answer.iter().flat_map(|answer| answer.notes.clone()));
        }
        let found = shown.iter().any(|it| it.contains(what));
        if found { Ok(()) } else { Err(format!("{shown:?}")) }
    })
    .await;
    client.close().await;
}

/// Puts back the founder's directory from before other nodes joined, and starts it first.
fn put_the_founder_back(server_comes_later: bool) {
    on_hosts(json!({}), 1, async |lab| {
        let founder = 0;
        lab.stop_node(founder).await;
        let early = lab.path("early");
        copy(&lab.nodes[founder].dir, &early);
        lab.start_node(founder).await;
        for _ in 0..2 {
            lab.add_node(Under::default()).await;
        }
        lab.settled().await;
        let client = lab.client().await;
        for key in 0..20 {
            client.write(format!("k{key}"), "late").await.unwrap();
        }
        client.close().await;
        for index in (0..3).rev() {
            lab.stop_node(index).await;
        }
        put_back(lab, founder, &early, &lab.path("right"));
        if server_comes_later {
            lab.kill_server();
        }
        lab.spawn_node(founder, &Under::default());
        if server_comes_later {
            for_a_while(SERVING_MS).await;
            lab.start_server().await;
        }
        says(lab, founder, "is an older copy of this node's").await;
        refuses_to_serve(lab, founder).await;
        is_shown(lab, "n1 Older").await;

        // Repeated starts do not help it.
        for _ in 0..2 {
            lab.spawn_node(founder, &Under::default());
            let client = lab.client().await;
            let options = WriteOptions::default().timeout(Duration::from_secs(2));
            let written = client.write_with("k1", "other", options).await;
            assert!(
                matches!(written, Err(Error::Unavailable(_) | Error::Unknown(_))),
                "{written:?}"
            );
            client.close().await;
            refuses_to_serve(lab, founder).await;
        }
        for index in 1..3 {
            lab.start_node(index).await;
        }
        let client = lab.client().await;
        for key in 0..20 {
            let value = client.read(format!("k{key}")).await.unwrap();
            assert_eq!(value.value.as_ref(), b"late");
        }
        client.close().await;
        restore(lab, founder, &lab.path("right"));
        lab.start_node(founder).await;
        lab.settled().await;
        lab.same_state().await;
    });
}

#[test]
fn a_founders_early_copy_does_not_serve_alone() {
    put_the_founder_back(false);
}

#[test]
fn a_founders_early_copy_waits_for_a_server_that_comes_later() {
    put_the_founder_back(true);
}

/// A copy from within a node's last run starts without contact to anyone, and votes for itself each
/// time, until its log has more entries than the network knows.
#[test]
fn a_copy_that_voted_alone_is_told_apart() {
    on_hosts(json!({ "replication": 1, "shards": 4 }), 1, async |lab| {
        lab.settled().await;
        let (old, kept) = (lab.path("old"), lab.path("kept"));
        copy_paused(lab, 0, &old);
        let client = lab.client().await;
        client.write("k", "late").await.unwrap();
        client.close().await;
        // When it stops, the node tells the server the position of its log.
        lab.stop_node(0).await;
        lab.kill_server();
        put_back(lab, 0, &old, &kept);
        for _ in 0..2 {
            lab.start_node(0).await;
            lab.kill_node(0);
        }
        lab.start_server().await;
        lab.spawn_node(0, &Under::default());
        says(lab, 0, "is an older copy of this node's").await;
        refuses_to_serve(lab, 0).await;
        restore(lab, 0, &kept);
        lab.start_node(0).await;
        let client = lab.client().await;
        assert_eq!(client.read("k").await.unwrap().value.as_ref(), b"late");
        client.close().await;
    });
}

/// A copy from within the node's last run is put back while the others work.
#[test]
fn a_leaders_and_a_followers_copy_take_no_part() {
    on_hosts(json!({}), 3, async |lab| {
        let work = lab.work().await;
        for round in 0..2 {
            let leader = lab.coordinator().await;
            let index = if round == 0 { leader } else { (leader + 1) % 3 };
            let (old, kept) =
                (lab.path(&format!("old-{round}")), lab.path(&format!("kept-{round}")));
            copy_paused(lab, index, &old);
            work.more(200).await;
            lab.kill_node(index);
            work.more(100).await;
            put_back(lab, index, &old, &kept);
            lab.spawn_node(index, &Under::default());
            // It exits if the server knows better, and is held back if only other nodes do.
            says(lab, index, "is an older copy of this node's").await;
            work.more(200).await;
            lab.kill_node(index);
            restore(lab, index, &kept);
            lab.start_node(index).await;
            lab.settled().await;
        }
        lab.judge(work).await;
    });
}

/// Without a server, the other nodes detect the copy.
#[test]
fn a_followers_copy_takes_no_part_without_a_server() {
    on_hosts(json!({}), 3, async |lab| {
        let work = lab.work().await;
        let index = (lab.coordinator().await + 1) % 3;
        let (old, kept) = (lab.path("old"), lab.path("kept"));
        copy_paused(lab, index, &old);
        work.more(200).await;
        lab.kill_node(index);
        lab.kill_server();
        put_back(lab, index, &old, &kept);
        lab.spawn_node(index, &Under::default());
        says(lab, index, "this node takes no part").await;
        let others = lab.others(index);
        eventually("no other node reports it", async || {
            let mut said = String::new();
            for other in &others {
                said.push_str(&lab.nodes[*other].running().said());
            }
            if said.contains("is refused: its directory") { Ok(()) } else { Err(said) }
        })
        .await;
        work.more(200).await;
        lab.kill_node(index);
        lab.start_server().await;
        restore(lab, index, &kept);
        lab.start_node(index).await;
        lab.settled().await;
        lab.judge(work).await;
    });
}

/// Starts a copy of a node's directory on another host, beside the node.
fn start_clone(lab: &mut Lab, index: usize) -> usize {
    let dir = lab.path("node-clone");
    copy_paused(lab, index, &dir);
    lab.spawn_copy(&dir)
}

/// Chooses the run that continues, once the server knows it.
async fn keeps(lab: &Lab, node: usize, run: RunChoice) {
    let (admin, id) = (lab.client_as(Role::Admin).await, lab.nodes[node].id());
    eventually("no run is kept", async || {
        admin.keep_run(id, run).await.map_err(|error| error.to_string())
    })
    .await;
    admin.close().await;
}

/// Keeps the original of the two, and waits until the clone has ended.
async fn keep_original(lab: &mut Lab, original: usize, clone: usize) {
    let kept = address(lab, original);
    keeps(lab, original, RunChoice::Address(kept)).await;
    says(lab, clone, "an administrator has said that another process of this node goes on").await;
    assert_eq!(lab.nodes[clone].running().ended().await.code(), Some(1));
    lab.nodes.truncate(3);
}

/// Checks that both processes report the other one, and that neither looks like an older copy.
async fn both_are_held_back(lab: &mut Lab, original: usize, clone: usize) {
    for index in [original, clone] {
        says(lab, index, "this node takes no part").await;
        says(lab, index, "two processes of this node run").await;
    }
    let said = lab.nodes[original].running().said();
    assert!(!said.contains("older copy"), "it was taken for an older copy: {said}");
}

fn assert_never_served(lab: &mut Lab, clone: usize) {
    assert!(!lab.nodes[clone].running().said().contains("ready "), "the clone has served");
}

async fn is_refused(client: &Client, key: &str) -> bool {
    let options = WriteOptions::default().timeout(Duration::from_secs(1));
    client.write_with(key, "v", options).await.is_err()
}

#[test]
fn a_clone_beside_the_coordinator_is_noticed_and_ended() {
    on_hosts(json!({}), 3, async |lab| {
        let work = lab.work().await;
        let original = lab.coordinator().await;
        let clone = start_clone(lab, original);
        both_are_held_back(lab, original, clone).await;
        assert_never_served(lab, clone);
        is_shown(lab, "Twice").await;
        // The other nodes continue.
        work.more(100).await;
        keep_original(lab, original, clone).await;
        lab.settled().await;
        work.more(100).await;
        lab.judge(work).await;
    });
}

/// A node that talks to both processes detects the clone, even without a server.
#[test]
fn a_clone_is_noticed_by_the_other_nodes_alone() {
    on_hosts(json!({}), 3, async |lab| {
        let work = lab.work().await;
        let original = lab.coordinator().await;
        lab.kill_server();
        let clone = start_clone(lab, original);
        both_are_held_back(lab, original, clone).await;
        work.more(100).await;
        lab.start_server().await;
        is_shown(lab, "Twice").await;
        keep_original(lab, original, clone).await;
        lab.settled().await;
        lab.judge(work).await;
    });
}

/// A directory without its log is useless: the votes and the acknowledged entries are lost.
#[test]
fn an_identity_without_its_log_does_not_go_on() {
    on_hosts(json!({}), 3, async |lab| {
        let work = lab.work().await;
        let (index, kept) = (lab.coordinator().await, lab.path("kept"));
        lab.kill_node(index);
        let dir = lab.nodes[index].dir.clone();
        fs::rename(&dir, &kept).unwrap();
        fs::create_dir(&dir).unwrap();
        copy(&kept.join("credentials"), &dir.join("credentials"));
        for _ in 0..2 {
            lab.spawn_node(index, &Under::default());
            says(lab, index, "has this node's identity and nothing else").await;
            refuses_to_serve(lab, index).await;
        }
        work.more(100).await;
        restore(lab, index, &kept);
        lab.start_node(index).await;
        lab.settled().await;
        lab.judge(work).await;
    });
}

#[test]
fn a_clone_of_the_only_node_is_noticed_and_either_may_be_kept() {
    on_hosts(json!({ "replication": 1 }), 1, async |lab| {
        let client = lab.client().await;
        client.write("k", "before").await.unwrap();
        // While the control group is held back, nobody new joins.
        lab.client_as(Role::Admin).await.close().await;
        let clone = start_clone(lab, 0);
        both_are_held_back(lab, 0, clone).await;
        assert_never_served(lab, clone);
        eventually("the node accepts writes", async || {
            if is_refused(&client, "k").await { Ok(()) } else { Err("written".into()) }
        })
        .await;
        for _ in 0..3 {
            assert!(is_refused(&client, "k").await);
            let options = ReadOptions::default().timeout(Duration::from_secs(1));
            client.read_with("k", options).await.unwrap_err();
        }
        let kept = address(lab, clone);
        keeps(lab, 0, RunChoice::Address(kept)).await;
        let mut original = lab.nodes.remove(0);
        assert_eq!(original.running().ended().await.code(), Some(1));
        eventually("the kept process does not serve", async || {
            client.write("k", "after").await.map(drop).map_err(|error| error.to_string())
        })
        .await;
        client.close().await;
    });
}

#[test]
fn a_node_that_is_killed_again_and_again_is_not_two() {
    on_hosts(json!({}), 3, async |lab| {
        let work = lab.work().await;
        let mut said = String::new();
        for round in 0..24_usize {
            let index = round % 3;
            said.push_str(&lab.nodes[index].running().said());
            lab.kill_node(index);
            lab.spawn_node(index, &Under::default());
            // A restarted server must not forget the runs either.
            if round % 5 == 3 {
                lab.kill_server();
                lab.start_server().await;
            }
            for_a_while([0, 30, 200, 700][round % 4]).await;
        }
        for node in &mut lab.nodes {
            node.running().ready().await.unwrap();
        }
        lab.settled().await;
        for node in &mut lab.nodes {
            said.push_str(&node.running().said());
        }
        for wrong in ["two processes", "two of its processes", "older copy"] {
            let line = said.lines().find(|line| line.contains(wrong));
            assert_eq!(line, None);
        }
        lab.judge(work).await;
    });
}
