//! Recovery of networks whose groups have lost their majorities with their disks.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dkv_api::{Client, Level, WriteOptions};
use dkv_test_support::{output, skip, text};
use futures::future::join_all;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::harness::process::{command_under, spawn};
use crate::harness::{Load, Network, eventually};

/// Runs `dkv recover group`, checks its exit status, and returns what it printed.
async fn recover(network: &Network, more: &[&str], status: i32) -> String {
    let ran = network.dkv(&[&["recover", "group"], more].concat()).await;
    let (printed, said) = (output(&ran.stdout), output(&ran.stderr));
    assert_eq!(ran.status.code(), Some(status), "{more:?}: {said}{printed}");
    if status == 0 { printed.to_owned() } else { format!("{printed}{said}") }
}

fn name(network: &Network, index: usize) -> String {
    network.nodes[index].file()["name"].as_str().unwrap().to_owned()
}

async fn check_keys(client: &Client, count: usize) {
    for number in 0..count {
        let read = client.read(format!("key-{number}")).await.unwrap();
        assert_eq!(read.value, number.to_string());
    }
}

/// Starts a lost node on its old directory, which must be refused.
async fn refused(network: &Network, dir: &Path) {
    let (address, log) = (network.address.to_string(), network.path("returned.log"));
    let arguments = ["node", &address, "--data-dir", text(dir)];
    let mut returned = spawn(&arguments, &network.home(), &log);
    let _ = returned.ready().await;
    assert_eq!(returned.ended().await.code(), Some(1), "{}", returned.said());
    let said = returned.said();
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("error: ") && last.contains("removed from the network"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_three_nodes_goes_on_alone_and_fills_up_again() {
    let mut network = Network::start(3).await;
    let client = network.client().await;
    for number in 0..200 {
        client.write(format!("key-{number}"), number.to_string()).await.unwrap();
    }
    network.same_state().await;
    let dir = network.nodes[2].dir.clone();
    let dir = text(&dir);
    let lost = [name(&network, 0), name(&network, 1)];
    let running = recover(&network, &[dir, "--yes"], 1).await;
    assert!(running.contains("a node is running on"), "{running}");

    // The majority lives, so there is nothing to recover.
    network.kill_node(2);
    let alive = recover(&network, &[dir, "--yes"], 1).await;
    assert!(alive.contains("lives: it answers at"), "{alive}");
    let gone = ["--gone", lost[0].as_str(), "--gone", lost[1].as_str()];
    let alive = recover(&network, &[&[dir, "--yes"], &gone[..]].concat(), 1).await;
    assert!(alive.contains("lives: it answers at"), "no option overrules a proof: {alive}");
    network.start_node(2).await;
    network.settled().await;
    network.same_state().await;

    for index in 0..3 {
        network.kill_node(index);
    }
    let other = text(&network.nodes[1].dir).to_owned();
    let whole = recover(&network, &[dir, &other, "--yes", "--gone", &lost[0]], 1).await;
    assert!(whole.contains("every group has a majority"), "{whole}");
    let returned = network.path("returned");
    fs::rename(&network.nodes[0].dir, &returned).unwrap();
    fs::remove_dir_all(&network.nodes[1].dir).unwrap();
    // The server has heard them a moment ago.
    let heard = recover(&network, &[dir, "--yes"], 1).await;
    assert!(heard.contains("may be alive: the registration server heard it"), "{heard}");
    let wrong = recover(&network, &[dir, "--yes", "--gone", "nobody"], 1).await;
    assert!(wrong.contains("no lost node has that name"), "{wrong}");

    // Without a word from the operator it only tells.
    let plan = recover(&network, &[&[dir], &gone[..]].concat(), 2).await;
    assert!(plan.contains("nothing was changed"), "{plan}");
    assert!(
        plan.contains("control group: goes on with") && plan.contains("may be lost:"),
        "{plan}"
    );
    let file = network.path("report.json");
    let how = [&[dir, "--yes", "--json", "--report", text(&file)], &gone[..]].concat();
    let done: Value = serde_json::from_str(&recover(&network, &how, 0).await).unwrap();
    assert_eq!(done["done"], true, "{done}");
    assert_eq!(done["missing"].as_array().unwrap().len(), 2);
    for group in done["groups"].as_array().unwrap() {
        assert_eq!(group["fate"], "recovered", "{group}");
        assert_eq!(group["lost_voters"].as_array().unwrap().len(), 2, "{group}");
    }
    let written: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(written["groups"], done["groups"]);
    let again = recover(&network, &[dir, "--yes"], 1).await;
    assert!(again.contains("every group has a majority"), "{again}");

    network.nodes.drain(..2);
    network.start_node(0).await;
    check_keys(&client, 200).await;
    client.write("afterwards", "1").await.unwrap();
    refused(&network, &returned).await;

    // New nodes take the places of the lost ones by themselves.
    network.add_node().await;
    network.add_node().await;
    network.settled().await;
    network.same_state().await;
    let client = network.client().await;
    check_keys(&client, 200).await;
    network.kill_node(0);
    check_keys(&client, 200).await;
    assert_eq!(client.read("afterwards").await.unwrap().value, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_five_nodes_go_on_with_the_most_complete_replicas() {
    let mut network = Network::with(json!({ "replication": 5 }), 5).await;
    let client = network.client().await;
    let load = Load::start(&client);
    load.more(500).await;
    let report = load.stop().await;
    network.same_state().await;
    // One of the two that are left misses the last writes.
    network.kill_node(3);
    for number in 0..50 {
        client.write(format!("key-{number}"), number.to_string()).await.unwrap();
    }
    network.same_state().await;
    network.stop_node(4).await;
    for index in 0..3 {
        network.kill_node(index);
        fs::rename(&network.nodes[index].dir, network.path(&format!("lost-{index}"))).unwrap();
    }
    let dirs = [text(&network.nodes[3].dir).to_owned(), text(&network.nodes[4].dir).to_owned()];
    network.kill_server();
    let how = [dirs[0].as_str(), &dirs[1], "--yes", "--json"];
    let silent = recover(&network, &how, 1).await;
    assert!(silent.contains("does not tell") && silent.contains("--server-lost"), "{silent}");
    let done = recover(&network, &[&how[..], &["--server-lost"]].concat(), 0).await;
    let done: Value = serde_json::from_str(&done).unwrap();
    let complete = name(&network, 4);
    for group in done["groups"].as_array().unwrap() {
        assert_eq!(group["fate"], "recovered", "{group}");
    }
    let kept = done["groups"].as_array().unwrap().iter();
    assert!(kept.filter(|group| group["keeper"] == complete.as_str()).count() > 0, "{done}");

    network.nodes.drain(..3);
    network.start_server().await;
    // The one that lagged knows the new members, and elects nobody without the other.
    network.respawn_node(0, &[]);
    network.start_node(1).await;
    network.nodes[0].running().ready().await.unwrap();
    check_keys(&client, 50).await;
    report.check(&client).await;
    network.settled().await;
    for index in 0..3 {
        refused(&network, &network.path(&format!("lost-{index}"))).await;
    }
    network.add_node().await;
    network.settled().await;
    network.same_state().await;
    check_keys(&network.client().await, 50).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_without_a_replica_begin_anew_only_if_that_is_said() {
    let mut network = Network::with(json!({ "replication": 1 }), 3).await;
    let client = network.client().await;
    for number in 0..40 {
        client.write(format!("key-{number}"), number.to_string()).await.unwrap();
    }
    // Writes that wait in the last node's outbox, and then settle in shards that will be lost.
    network.kill_node(0);
    network.kill_node(1);
    eventually_write(&client, "before").await;
    network.start_node(0).await;
    network.start_node(1).await;
    arrived(&client, "before").await;
    for index in 0..3 {
        network.kill_node(index);
    }
    let dir = text(&network.nodes[2].dir).to_owned();
    let lost = [name(&network, 0), name(&network, 1)];
    for index in 0..2 {
        fs::remove_dir_all(&network.nodes[index].dir).unwrap();
    }
    let how = [dir.as_str(), "--yes", "--gone", &lost[0], "--gone", &lost[1]];
    let refused = recover(&network, &how, 1).await;
    assert!(refused.contains("--empty-shards to lose all of their keys"), "{refused}");
    let how = [&how[..], &["--empty-shards"]].concat();
    let said = recover(&network, &how, 0).await;
    assert!(said.contains("NO REPLICA is left") && said.contains("- ALL keys of shard"), "{said}");

    network.nodes.drain(..2);
    network.start_node(0).await;
    let client = network.client().await;
    for number in 0..40 {
        client.write(format!("new-{number}"), number.to_string()).await.unwrap();
    }
    for number in 0..40 {
        let read = client.read(format!("new-{number}")).await.unwrap();
        assert_eq!(read.value, number.to_string());
    }
    network.assert_alive();
    // The shards have lost what the outbox had delivered, and take what it delivers now.
    eventually_write(&client, "after").await;
    arrived(&client, "after").await;
}

/// Writes at level eventual, at a node that answers.
async fn eventually_write(client: &Client, prefix: &str) {
    for number in 0..20 {
        let key = format!("{prefix}-{number}");
        let options = WriteOptions::from(Level::Eventual).timeout(Duration::from_secs(30));
        client.write_with(key, number.to_string(), options).await.unwrap();
    }
}

/// Waits until such writes are in their shards.
async fn arrived(client: &Client, prefix: &str) {
    for number in 0..20 {
        eventually("an eventual write does not arrive", async || {
            let read = client.read(format!("{prefix}-{number}")).await;
            let read = read.map_err(|error| error.to_string())?;
            let arrived = read.value == number.to_string();
            if arrived { Ok(()) } else { Err(format!("{prefix}-{number}")) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_of_keyspaces_go_on_although_nothing_has_been_checkpointed() {
    let mut network = Network::start(3).await;
    let created = network.dkv(&["keyspace", "create", "orders", "--shards", "3"]).await;
    assert!(created.status.success(), "{}", output(&created.stderr));
    let client = network.client().await;
    let orders = client.keyspace("orders").await.unwrap();
    for number in 0..30 {
        orders.write(format!("key-{number}"), number.to_string()).await.unwrap();
    }
    network.same_state().await;
    for index in 0..3 {
        network.kill_node(index);
    }
    let dir = text(&network.nodes[2].dir).to_owned();
    let (one, other) = (name(&network, 0), name(&network, 1));
    let how = [dir.as_str(), "--yes", "--json", "--gone", &one, "--gone", &other];
    let done: Value = serde_json::from_str(&recover(&network, &how, 0).await).unwrap();
    for group in done["groups"].as_array().unwrap() {
        assert_eq!(group["fate"], "recovered", "{group}");
    }
    network.nodes.drain(..2);
    network.start_node(0).await;
    let orders = network.client().await.keyspace("orders").await.unwrap();
    for number in 0..30 {
        assert_eq!(orders.read(format!("key-{number}")).await.unwrap().value, number.to_string());
    }
}

fn has_strace() -> bool {
    let version = std::process::Command::new("strace").arg("-V").output();
    version.is_ok_and(|version| version.status.success())
}

/// Runs a command that is killed at a thread's system call of this name and number. Returns whether
/// it was.
async fn kill_at(network: &Network, call: &str, number: u32, how: &[&str]) -> bool {
    let (trace, inject) =
        (format!("trace={call}"), format!("inject={call}:signal=SIGKILL:when={number}"));
    let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
    let address = network.address.to_string();
    let how = [&[address.as_str()], how].concat();
    let ran = Command::from(command_under(&strace, &how, &network.home())).output().await.unwrap();
    !ran.status.success()
}

/// A copy of the data directories of the nodes that are left.
async fn copied(network: &Network, kept: &[PathBuf], name: &str) -> Vec<PathBuf> {
    let mut copies = Vec::new();
    for dir in kept {
        let copy = network.path(&format!("{name}-{}", dir.file_name().unwrap().display()));
        let copied = Command::new("cp").arg("-a").args([dir, &copy]).status().await.unwrap();
        assert!(copied.success());
        copies.push(copy);
    }
    copies
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_that_is_killed_at_any_write_is_finished_by_the_next_one() {
    if !has_strace() {
        let why = "there is no strace";
        skip("a_recovery_that_is_killed_at_any_write_is_finished_by_the_next_one", why);
        return;
    }
    let mut network = Network::with(json!({ "replication": 5 }), 5).await;
    let client = network.client().await;
    for number in 0..50 {
        client.write(format!("key-{number}"), number.to_string()).await.unwrap();
    }
    network.same_state().await;
    for index in 0..5 {
        network.kill_node(index);
    }
    network.kill_server();
    let before = copied(&network, &[network.path("server")], "before").await;
    let kept: Vec<PathBuf> = network.nodes[3..].iter().map(|node| node.dir.clone()).collect();
    for index in 0..3 {
        fs::remove_dir_all(&network.nodes[index].dir).unwrap();
    }
    // strace counts the calls of each thread: marks are written by one, each log by one of its own.
    let renames = (5..=10).map(|at| ("rename", at));
    let kills = renames.chain((1..=7).chain([30]).map(|at| ("fdatasync", at)));
    let run = async |(call, at): (&str, u32)| {
        let copies = copied(&network, &kept, &format!("{call}-{at}")).await;
        let dirs = [text(&copies[0]), text(&copies[1])];
        let how = ["recover", "group", dirs[0], dirs[1], "--yes", "--server-lost"];
        let killed = kill_at(&network, call, at, &how).await;
        let again = network.dkv(&how).await;
        let said = format!("{}{}", output(&again.stdout), output(&again.stderr));
        // The marks of all directories said that it was finished.
        let whole = again.status.code() == Some(1) && said.contains("every group has a majority");
        assert!(again.status.success() || whole, "killed at {call} {at}: {said}");
        let finished = said.contains("was finished already");
        (killed, said.contains("taken back"), finished, copies)
    };
    let runs = join_all(kills.map(run)).await;
    let undone = runs.iter().filter(|(_, undone, ..)| *undone).count();
    assert!(undone >= 6, "{undone} recoveries were cut off in the middle");
    assert!(runs.iter().any(|(killed, ..)| !killed), "one has nothing left to be killed at");

    network.nodes.drain(..3);
    let finished = runs.iter().filter(|(_, _, finished, _)| *finished);
    assert!(finished.clone().count() >= 1, "none was cut off between the last marks");
    let cut_off = runs.iter().filter(|(_, undone, ..)| *undone);
    for (.., copies) in cut_off.step_by(undone.div_ceil(3)).chain(finished) {
        for (node, copy) in network.nodes.iter_mut().zip(copies) {
            node.dir.clone_from(copy);
        }
        // It would tell one recovered network from another by its nodes' incarnations.
        fs::remove_dir_all(network.path("server")).unwrap();
        fs::rename(copied(&network, &before, "copy").await.remove(0), network.path("server"))
            .unwrap();
        network.start_server().await;
        network.respawn_node(0, &[]);
        network.start_node(1).await;
        network.nodes[0].running().ready().await.unwrap();
        check_keys(&network.client().await, 50).await;
        network.kill_node(0);
        network.kill_node(1);
        network.kill_server();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_that_was_cut_off_is_taken_back_when_the_lost_nodes_are_found() {
    if !has_strace() {
        let why = "there is no strace";
        skip("a_recovery_that_was_cut_off_is_taken_back_when_the_lost_nodes_are_found", why);
        return;
    }
    let mut network = Network::start(3).await;
    let client = network.client().await;
    client.write("key-0", "0").await.unwrap();
    network.same_state().await;
    // It misses what follows.
    network.kill_node(2);
    for number in 0..50 {
        client.write(format!("key-{number}"), number.to_string()).await.unwrap();
    }
    network.kill_node(0);
    network.kill_node(1);
    let kept = network.nodes[2].dir.clone();
    let lost = [name(&network, 0), name(&network, 1)];
    let how = ["recover", "group", text(&kept), "--yes", "--gone", &lost[0], "--gone", &lost[1]];
    assert!(kill_at(&network, "fdatasync", 4, &how).await, "it was never cut off in the middle");
    let refused = network.try_start_node(2).await.unwrap_err();
    assert!(refused.contains("was cut off; run `dkv recover group` again"), "{refused}");
    let dirs: Vec<String> = network.nodes.iter().map(|node| text(&node.dir).to_owned()).collect();
    let said = recover(&network, &[&dirs[0], &dirs[1], &dirs[2], "--yes"], 0).await;
    assert!(said.contains("the recovery was taken back"), "{said}");
    for index in 0..3 {
        network.respawn_node(index, &[]);
    }
    for index in 0..3 {
        network.nodes[index].running().ready().await.unwrap();
    }
    check_keys(&network.client().await, 50).await;
    network.settled().await;
    network.same_state().await;
}
