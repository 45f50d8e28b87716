//! Disks that fail, stall, lose power during a sync, or are full.

use std::fs::File;
use std::io::Write;
use std::process::{Child, Command};
use std::time::Duration;

use dkv_api::Role;
use dkv_test_support::text;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::lab::network::{Lab, Work, on_network};
use crate::lab::{Under, eventually, for_a_while, tools};

fn can_be_run(test: &str) -> bool {
    tools::has(test, &["namespaces", "strace"])
}

/// A tracer that injects faults into the system calls of a running process.
pub(crate) struct Injection(Child);

impl Injection {
    /// Starts tracing; `inject` is an argument of strace.
    pub(crate) fn begin(process: u32, inject: &str) -> Self {
        let (process, trace) = (process.to_string(), "trace=fdatasync");
        let inject = format!("inject=fdatasync:{inject}");
        let arguments =
            ["-f", "-qq", "-p", &process, "-o", "/dev/null", "-e", trace, "-e", &inject];
        Self(Command::new("strace").args(arguments).spawn().unwrap())
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        // SIGTERM makes it detach without harm to the process.
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// Waits until a node has ended by itself, and returns its output.
async fn ended(lab: &mut Lab, index: usize) -> String {
    let mut process = lab.nodes[index].process.take().unwrap();
    let status = process.ended().await;
    assert!(!status.success(), "{status}: {}", process.said());
    process.said()
}

#[test]
fn a_sync_fails() {
    if !can_be_run("a_sync_fails") {
        return;
    }
    on_network(json!({}), 3, async |lab| {
        let work = lab.work().await;
        for turn in 0..2 {
            // First the leader, then a follower.
            let index = (lab.coordinator().await + turn) % 3;
            let process = lab.nodes[index].running().id();
            let injection = Injection::begin(process, "error=EIO:when=1");
            let said = ended(lab, index).await;
            assert!(said.lines().last().unwrap().starts_with("error: "), "{said}");
            drop(injection);
            work.more(200).await;
            lab.start_node(index).await;
            lab.settled().await;
        }
        lab.judge(work).await;
    });
}

async fn killed_at(lab: &mut Lab, work: &Work, turn: usize, sync: u64) {
    let index = (lab.coordinator().await + turn) % 3;
    let process = lab.nodes[index].running().id();
    let injection = Injection::begin(process, &format!("signal=SIGKILL:when={sync}"));
    ended(lab, index).await;
    drop(injection);
    work.more(50).await;
    lab.start_node(index).await;
    lab.settled().await;
}

#[test]
fn a_node_dies_during_a_sync() {
    if !can_be_run("a_node_dies_during_a_sync") {
        return;
    }
    on_network(json!({}), 3, async |lab| {
        let work = lab.work().await;
        for turn in 0..6 {
            killed_at(lab, &work, turn % 2, 1 + 3 * turn as u64).await;
        }
        lab.judge(work).await;
    });
}

#[test]
#[ignore = "takes minutes"]
fn a_node_dies_at_each_of_many_syncs() {
    if !can_be_run("a_node_dies_at_each_of_many_syncs") {
        return;
    }
    on_network(json!({ "log_bytes_max": 16 * 1024 * 1024 }), 3, async |lab| {
        let work = lab.work_with(20_000).await;
        for turn in 0..60 {
            killed_at(lab, &work, turn % 3, 1 + turn as u64 / 2).await;
        }
        lab.judge(work).await;
    });
}

#[test]
fn the_leaders_disk_stalls() {
    if !can_be_run("the_leaders_disk_stalls") {
        return;
    }
    on_network(json!({}), 3, async |lab| {
        let work = lab.work().await;
        let leader = lab.coordinator().await;
        let others = lab.others(leader);
        let process = lab.nodes[leader].running().id();
        let injection = Injection::begin(process, "delay_enter=8000000");
        // It sends heartbeats but commits nothing, and must lose its leadership.
        let next = lab.coordinator_among(&others).await;
        assert_ne!(next, leader);
        work.more(200).await;
        drop(injection);
        lab.judge(work).await;
    });
}

#[test]
fn a_followers_disk_is_slow() {
    if !can_be_run("a_followers_disk_is_slow") {
        return;
    }
    on_network(json!({}), 3, async |lab| {
        let work = lab.work().await;
        let follower = (lab.coordinator().await + 1) % 3;
        lab.stop_node(follower).await;
        let slow = Under::strace("fdatasync:delay_enter=60000");
        lab.start_node_under(follower, slow).await;
        work.more(500).await;
        // The others do not wait for it unless one of them fails.
        let other = lab.others(follower)[0];
        lab.kill_node(other);
        work.more(50).await;
        lab.start_node(other).await;
        lab.settled().await;
        lab.judge(work).await;
    });
}

/// Size of the small disk in bytes: a node keeps 128 MiB free.
const DISK: &str = "size=240m";

#[test]
fn the_leaders_disk_is_full() {
    if !tools::has("the_leaders_disk_is_full", &["namespaces"]) {
        return;
    }
    on_network(json!({ "log_bytes_max": 16 * 1024 * 1024, "shards": 1 }), 0, async |lab| {
        let disk = lab.path("node-1");
        std::fs::create_dir(&disk).unwrap();
        tools::run("mount", &["-t", "tmpfs", "-o", DISK, "tmpfs", text(&disk)]);
        for _ in 0..3 {
            lab.add_node(Under::default()).await;
        }
        lab.settled().await;
        let leader = lab.coordinator().await;
        assert_eq!(leader, 0, "the first node leads");
        let work = lab.work().await;
        let client = lab.client().await;

        let filling = disk.join("filling");
        let mut file = File::create(&filling).unwrap();
        while file.write_all(&[1; 64 * 1024]).is_ok() {}
        let id = lab.nodes[leader].id();
        let is_full = async || -> Result<bool, String> {
            let status = client.status().await;
            let node = status.nodes.into_iter().find(|(info, _)| info.id == id).ok_or("gone")?;
            Ok(node.1.map_err(|error| error.to_string())?.disk_full)
        };
        eventually("the node does not notice", async || {
            if is_full().await? { Ok(()) } else { Err("it says that it has room".to_owned()) }
        })
        .await;
        let (done, written) = (work.workload.done(), work.workload.written());
        // Writes are refused with an answer, and reads still work.
        eventually("nothing is served", async || {
            if work.workload.done() > done + 300 { Ok(()) } else { Err("too little".to_owned()) }
        })
        .await;
        println!("{} writes while it was full", work.workload.written() - written);
        drop(file);
        std::fs::remove_file(&filling).unwrap();
        eventually("the disk stays full", async || {
            if is_full().await? { Err("it says that it is full".to_owned()) } else { Ok(()) }
        })
        .await;
        client.close().await;
        lab.judge(work).await;
    });
}

#[test]
fn a_followers_disk_is_full() {
    if !tools::has("a_followers_disk_is_full", &["namespaces"]) {
        return;
    }
    on_network(json!({ "log_bytes_max": 16 * 1024 * 1024, "shards": 1 }), 0, async |lab| {
        let disk = lab.path("node-3");
        std::fs::create_dir(&disk).unwrap();
        tools::run("mount", &["-t", "tmpfs", "-o", DISK, "tmpfs", text(&disk)]);
        for _ in 0..3 {
            lab.add_node(Under::default()).await;
        }
        lab.settled().await;
        let work = lab.work_with(20_000).await;
        let filling = disk.join("filling");
        let mut file = File::create(&filling).unwrap();
        while file.write_all(&[1; 64 * 1024]).is_ok() {}
        // More than the log may hold, so that a part of it must be purged.
        work.more(1200).await;
        for_a_while(Duration::from_secs(1).as_millis() as u64).await;
        drop(file);
        std::fs::remove_file(&filling).unwrap();
        lab.judge(work).await;
    });
}

#[test]
fn the_disk_of_an_audit_log_is_full() {
    if !tools::has("the_disk_of_an_audit_log_is_full", &["namespaces"]) {
        return;
    }
    on_network(json!({ "shards": 1 }), 0, async |lab| {
        let disk = lab.path("audit");
        std::fs::create_dir(&disk).unwrap();
        tools::run("mount", &["-t", "tmpfs", "-o", "size=256k", "tmpfs", text(&disk)]);
        let file = disk.join("log");
        let arguments = ["--audit", text(&file), "--audit-writes"].map(str::to_owned).to_vec();
        for _ in 0..3 {
            lab.add_node(Under::default()).await;
        }
        lab.settled().await;
        let leader = lab.coordinator().await;
        lab.stop_node(leader).await;
        lab.start_node_under(leader, Under { arguments, ..Under::default() }).await;
        lab.settled().await;
        let admin = lab.client_as(Role::Admin).await;
        let id = lab.nodes[leader].id();
        let lines = || std::fs::read_to_string(&file).unwrap_or_default();
        let is_whole = |line: &str| serde_json::from_str::<serde_json::Value>(line).is_ok();
        // Each is an act that goes to this very node.
        let act = async || admin.node_log(id, None).await.map(drop).unwrap();
        let log = |for_ms| dkv_api::LogChange { filter: "info".into(), for_ms };
        admin.node_log(id, Some(log(Some(60_000)))).await.unwrap();
        eventually("the first act is missing", async || match lines().lines().count() {
            0 => Err("no line".to_owned()),
            _ => Ok(()),
        })
        .await;
        let filling = disk.join("filling");
        let mut filler = File::create(&filling).unwrap();
        while filler.write_all(&[1; 4096]).is_ok() {}
        while filler.write_all(&[1]).is_ok() {}
        // More than the last page of the file takes.
        for _ in 0..100 {
            admin.node_log(id, Some(log(Some(60_000)))).await.unwrap();
        }
        act().await;
        drop(filler);
        std::fs::remove_file(&filling).unwrap();
        eventually("the count of lost events is missing", async || {
            let told = lines();
            assert!(told.lines().all(is_whole), "{told}");
            match told.lines().any(|line| line.contains("\"act\":\"lost events\"")) {
                true => Ok(()),
                false => Err(told),
            }
        })
        .await;
        admin.node_log(id, Some(log(Some(60_000)))).await.unwrap();
        let told = |text: &str| {
            let parse = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
            let all: Vec<serde_json::Value> = text.lines().map(parse).collect();
            let lost = all.iter().filter(|line| line["act"] == "lost events");
            let lost: u64 =
                lost.map(|line| line["target"].as_str().unwrap().parse::<u64>().unwrap()).sum();
            (all.iter().filter(|line| line["act"] == "log").count() as u64, lost)
        };
        // The file has each act or counts it.
        eventually("an act is missing", async || match told(&lines()) {
            (acts, lost) if acts + lost == 102 && lost > 0 => Ok(()),
            found => Err(format!("{found:?}")),
        })
        .await;
        admin.close().await;
        lab.assert_alive();
    });
}

#[test]
fn a_replica_moves_off_a_node_whose_disk_is_full() {
    if !tools::has("a_replica_moves_off_a_node_whose_disk_is_full", &["namespaces"]) {
        return;
    }
    on_network(json!({ "log_bytes_max": 16 * 1024 * 1024, "shards": 4 }), 0, async |lab| {
        let disk = lab.path("node-3");
        std::fs::create_dir(&disk).unwrap();
        tools::run("mount", &["-t", "tmpfs", "-o", DISK, "tmpfs", text(&disk)]);
        for _ in 0..4 {
            lab.add_node(Under::default()).await;
        }
        lab.settled().await;
        let work = lab.work().await;
        let admin = lab.client_as(Role::Admin).await;
        let id = lab.nodes[2].id();
        let replicas = async || -> Result<u32, String> {
            let placement = admin.placement(false).await.map_err(|error| error.to_string())?;
            let places = placement.nodes.iter().find(|places| places.node == id);
            Ok(places.ok_or("it is not there")?.shards)
        };
        eventually("the node has no replica", async || match replicas().await? {
            0 => Err("none".to_owned()),
            _ => Ok(()),
        })
        .await;
        let filling = disk.join("filling");
        let mut file = File::create(&filling).unwrap();
        while file.write_all(&[1; 64 * 1024]).is_ok() {}
        while file.write_all(&[1]).is_ok() {}
        admin.drain_node(id, true).await.unwrap();
        eventually("the shards are not moved away", async || match replicas().await? {
            0 => Ok(()),
            some => Err(format!("{some} are left")),
        })
        .await;
        // It looks for obsolete replicas three times per second.
        for_a_while(Duration::from_secs(3).as_millis() as u64).await;
        lab.assert_alive();
        drop(file);
        std::fs::remove_file(&filling).unwrap();
        eventually("the node is not drained", async || {
            let placement = admin.placement(false).await.map_err(|error| error.to_string())?;
            match placement.nodes.iter().find(|places| places.node == id) {
                Some(places) if places.may_stop => Ok(()),
                places => Err(format!("{places:?}")),
            }
        })
        .await;
        admin.drain_node(id, false).await.unwrap();
        admin.close().await;
        lab.judge(work).await;
    });
}
