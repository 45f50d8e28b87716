//! Data directories that are copied, put back, and started twice.
//!
//! A directory that is older than what the network knows of its node never serves; of two processes
//! of one node neither takes writes until somebody says which; and a restart is never taken for a
//! second process.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use dkv_api::{Client, Error, ReadOptions, Role, RunChoice, WriteOptions};
use serde_json::json;

use crate::lab::network::{Lab, on_network};
use crate::lab::{Under, eventually, for_a_while, host, tools};

/// Time in which an older copy that was believed would have served.
const SERVING_MS: u64 = 4000;

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// Puts a copy of its directory in a node's place, and keeps what was there.
fn put_back(lab: &Lab, index: usize, copied: &Path, kept: &Path) {
    let dir = &lab.nodes[index].dir;
    fs::rename(dir, kept).unwrap();
    copy(copied, dir);
}

/// Takes a node's directory back that was kept.
fn restore(lab: &Lab, index: usize, kept: &Path) {
    let dir = &lab.nodes[index].dir;
    fs::remove_dir_all(dir).unwrap();
    fs::rename(kept, dir).unwrap();
}

fn address(lab: &Lab, index: usize) -> SocketAddr {
    SocketAddr::from((host::address(lab.nodes[index].host), 4401))
}

async fn says(lab: &mut Lab, index: usize, what: &str) {
    eventually("a node does not say it", async || {
        let said = lab.nodes[index].running().said();
        if said.contains(what) { Ok(()) } else { Err(format!("not {what:?} in: {said}")) }
    })
    .await;
}

/// A warning of the server or of a node in the status.
async fn is_shown(lab: &Lab, what: &str) {
    let client = lab.client().await;
    eventually("the status does not show it", async || {
        let status = client.status().await;
        let server = status.server?;
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

/// A founder's directory from before it had company is put back, and started before all others.
fn the_founder_is_put_back(server_comes_later: bool) {
    on_network(json!({}), 1, async |lab| {
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
        let status = lab.nodes[founder].running().ended().await;
        assert_eq!(status.code(), Some(1));
        assert!(!lab.nodes[founder].running().said().contains("ready "), "it has served");
        lab.nodes[founder].process = None;
        is_shown(lab, "n1 Older").await;

        // Started again and again it does not grow into its place.
        for _ in 0..2 {
            lab.spawn_node(founder, &Under::default());
            let nobody = lab.client().await;
            let options = WriteOptions::default().timeout(Duration::from_secs(2));
            let written = nobody.write_with("k1", "other", options).await;
            assert!(
                matches!(written, Err(Error::Unavailable(_) | Error::Unknown(_))),
                "{written:?}"
            );
            nobody.close().await;
            assert_eq!(lab.nodes[founder].running().ended().await.code(), Some(1));
            lab.nodes[founder].process = None;
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
    if !tools::has("a_founders_early_copy_does_not_serve_alone", &["namespaces"]) {
        return;
    }
    the_founder_is_put_back(false);
}

#[test]
fn a_founders_early_copy_waits_for_a_server_that_comes_later() {
    if !tools::has("a_founders_early_copy_waits_for_a_server_that_comes_later", &["namespaces"]) {
        return;
    }
    the_founder_is_put_back(true);
}

/// A copy from within a node's last run is started where nobody hears of it, and votes for itself
/// each time until its log has more than the network knows of.
#[test]
fn a_copy_that_voted_alone_is_told_apart() {
    if !tools::has("a_copy_that_voted_alone_is_told_apart", &["namespaces"]) {
        return;
    }
    on_network(json!({ "replication": 1, "shards": 4 }), 1, async |lab| {
        lab.settled().await;
        let (old, kept) = (lab.path("old"), lab.path("kept"));
        lab.pause_node(0);
        copy(&lab.nodes[0].dir, &old);
        lab.resume_node(0);
        let client = lab.client().await;
        client.write("k", "late").await.unwrap();
        client.close().await;
        // By its goodbye, the server knows all that it has.
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
        assert_eq!(lab.nodes[0].running().ended().await.code(), Some(1));
        lab.nodes[0].process = None;
        restore(lab, 0, &kept);
        lab.start_node(0).await;
        let client = lab.client().await;
        assert_eq!(client.read("k").await.unwrap().value.as_ref(), b"late");
        client.close().await;
    });
}

/// A copy is put back while the others are at work, as it was before the node's last run, or within
/// it.
#[test]
fn a_leaders_and_a_followers_copy_take_no_part() {
    if !tools::has("a_leaders_and_a_followers_copy_take_no_part", &["namespaces"]) {
        return;
    }
    on_network(json!({}), 3, async |lab| {
        let work = lab.work().await;
        for round in 0..2 {
            let leader = lab.coordinator().await;
            let index = if round == 0 { leader } else { (leader + 1) % 3 };
            let (old, kept) =
                (lab.path(&format!("old-{round}")), lab.path(&format!("kept-{round}")));
            // Within its run.
            lab.pause_node(index);
            copy(&lab.nodes[index].dir, &old);
            lab.resume_node(index);
            work.more(200).await;
            lab.kill_node(index);
            work.more(100).await;
            put_back(lab, index, &old, &kept);
            lab.spawn_node(index, &Under::default());
            // By the server's word it ends; if only those who were there know, it is held back.
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

/// Without a server, those who were there know.
#[test]
fn a_followers_copy_takes_no_part_without_a_server() {
    if !tools::has("a_followers_copy_takes_no_part_without_a_server", &["namespaces"]) {
        return;
    }
    on_network(json!({}), 3, async |lab| {
        let work = lab.work().await;
        let index = (lab.coordinator().await + 1) % 3;
        let (old, kept) = (lab.path("old"), lab.path("kept"));
        lab.pause_node(index);
        copy(&lab.nodes[index].dir, &old);
        lab.resume_node(index);
        work.more(200).await;
        lab.kill_node(index);
        lab.kill_server();
        put_back(lab, index, &old, &kept);
        lab.spawn_node(index, &Under::default());
        says(lab, index, "this node takes no part").await;
        let others = lab.others(index);
        eventually("nobody else says it", async || {
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
    lab.pause_node(index);
    copy(&lab.nodes[index].dir, &dir);
    lab.resume_node(index);
    lab.spawn_copy(&dir)
}

/// Says which run goes on, once the server has heard of it.
async fn keeps(lab: &Lab, node: usize, run: RunChoice) {
    let (admin, id) = (lab.client_as(Role::Admin).await, lab.nodes[node].id());
    eventually("no run is kept", async || {
        admin.keep_run(id, run).await.map_err(|error| error.to_string())
    })
    .await;
    admin.close().await;
}

/// Each of the two says that there are two, and the clone has never served.
async fn both_are_held_back(lab: &mut Lab, original: usize, clone: usize) {
    for index in [original, clone] {
        says(lab, index, "this node takes no part").await;
        says(lab, index, "two processes of this node run").await;
    }
    let said = lab.nodes[original].running().said();
    assert!(!said.contains("older copy"), "it was taken for an older copy: {said}");
}

fn has_never_served(lab: &mut Lab, clone: usize) {
    assert!(!lab.nodes[clone].running().said().contains("ready "), "the clone has served");
}

async fn is_not_written(client: &Client, key: &str) -> bool {
    let options = WriteOptions::default().timeout(Duration::from_secs(1));
    client.write_with(key, "v", options).await.is_err()
}

#[test]
fn a_clone_beside_the_coordinator_is_noticed_and_ended() {
    if !tools::has("a_clone_beside_the_coordinator_is_noticed_and_ended", &["namespaces"]) {
        return;
    }
    on_network(json!({}), 3, async |lab| {
        let work = lab.work().await;
        let original = lab.coordinator().await;
        let clone = start_clone(lab, original);
        both_are_held_back(lab, original, clone).await;
        has_never_served(lab, clone);
        is_shown(lab, "Twice").await;
        // The others go on.
        work.more(100).await;
        let kept = address(lab, original);
        keeps(lab, original, RunChoice::Address(kept)).await;
        says(lab, clone, "an administrator has said that another process of this node goes on")
            .await;
        assert_eq!(lab.nodes[clone].running().ended().await.code(), Some(1));
        lab.nodes.truncate(3);
        lab.settled().await;
        work.more(100).await;
        lab.judge(work).await;
    });
}

/// Whoever talks to both notices it, also without a server.
#[test]
fn a_clone_is_noticed_by_the_other_nodes_alone() {
    if !tools::has("a_clone_is_noticed_by_the_other_nodes_alone", &["namespaces"]) {
        return;
    }
    on_network(json!({}), 3, async |lab| {
        let work = lab.work().await;
        let original = lab.coordinator().await;
        lab.kill_server();
        let clone = start_clone(lab, original);
        both_are_held_back(lab, original, clone).await;
        work.more(100).await;
        lab.start_server().await;
        is_shown(lab, "Twice").await;
        let kept = address(lab, original);
        keeps(lab, original, RunChoice::Address(kept)).await;
        says(lab, clone, "an administrator has said that another process of this node goes on")
            .await;
        assert_eq!(lab.nodes[clone].running().ended().await.code(), Some(1));
        lab.nodes.truncate(3);
        lab.settled().await;
        lab.judge(work).await;
    });
}

/// What is left of a directory is no directory: votes and acknowledged entries are gone with the
/// log.
#[test]
fn an_identity_without_its_log_does_not_go_on() {
    if !tools::has("an_identity_without_its_log_does_not_go_on", &["namespaces"]) {
        return;
    }
    on_network(json!({}), 3, async |lab| {
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
            assert_eq!(lab.nodes[index].running().ended().await.code(), Some(1));
            assert!(!lab.nodes[index].running().said().contains("ready "), "it has served");
            lab.nodes[index].process = None;
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
    if !tools::has("a_clone_of_the_only_node_is_noticed_and_either_may_be_kept", &["namespaces"]) {
        return;
    }
    on_network(json!({ "replication": 1 }), 1, async |lab| {
        let client = lab.client().await;
        client.write("k", "before").await.unwrap();
        let clone = start_clone(lab, 0);
        both_are_held_back(lab, 0, clone).await;
        has_never_served(lab, clone);
        eventually("it takes writes", async || {
            if is_not_written(&client, "k").await { Ok(()) } else { Err("written".into()) }
        })
        .await;
        for _ in 0..3 {
            assert!(is_not_written(&client, "k").await);
            let options = ReadOptions::default().timeout(Duration::from_secs(1));
            client.read_with("k", options).await.unwrap_err();
        }
        let kept = address(lab, clone);
        keeps(lab, 0, RunChoice::Address(kept)).await;
        let mut original = lab.nodes.remove(0);
        assert_eq!(original.running().ended().await.code(), Some(1));
        eventually("the one that is kept does not serve", async || {
            client.write("k", "after").await.map(drop).map_err(|error| error.to_string())
        })
        .await;
        client.close().await;
    });
}

#[test]
fn a_node_that_is_killed_again_and_again_is_not_two() {
    if !tools::has("a_node_that_is_killed_again_and_again_is_not_two", &["namespaces"]) {
        return;
    }
    on_network(json!({}), 3, async |lab| {
        let work = lab.work().await;
        let mut said = String::new();
        for round in 0..24_usize {
            let index = round % 3;
            said.push_str(&lab.nodes[index].running().said());
            lab.kill_node(index);
            lab.spawn_node(index, &Under::default());
            // Nor does the server forget anything that it needs to know.
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
