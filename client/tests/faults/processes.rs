//! Processes that are killed, paused and restarted.

use serde_json::json;

use crate::lab::network::on_network;
use crate::lab::{for_a_while, tools};

fn can_be_run(test: &str) -> bool {
    tools::has(test, &["namespaces"])
}

#[test]
fn the_leader_is_killed_again_and_again() {
    if !can_be_run("the_leader_is_killed_again_and_again") {
        return;
    }
    on_network(json!({}), 3, async |lab| {
        let work = lab.work().await;
        for _ in 0..3 {
            let leader = lab.coordinator().await;
            lab.kill_node(leader);
            work.more(200).await;
            lab.start_node(leader).await;
            lab.settled().await;
        }
        let history = lab.judge(work).await;
        let unknown = history.operations.iter().filter(|operation| operation.is_open()).count();
        assert_eq!(unknown, 0, "a failover only takes time");
    });
}

#[test]
fn leaders_are_paused_for_longer_than_an_election() {
    if !can_be_run("leaders_are_paused_for_longer_than_an_election") {
        return;
    }
    on_network(json!({}), 3, async |lab| {
        let work = lab.work().await;
        for _ in 0..3 {
            let leader = lab.coordinator().await;
            lab.pause_node(leader);
            work.more(200).await;
            for_a_while(500).await;
            lab.resume_node(leader);
            work.more(100).await;
            lab.settled().await;
        }
        lab.judge(work).await;
    });
}

#[test]
fn all_processes_are_killed_at_once() {
    if !can_be_run("all_processes_are_killed_at_once") {
        return;
    }
    on_network(json!({}), 3, async |lab| {
        let work = lab.work().await;
        for _ in 0..2 {
            work.more(200).await;
            for index in lab.running() {
                lab.kill_node(index);
            }
            lab.kill_server();
            lab.start_server().await;
            for index in 0..3 {
                lab.spawn_node(index, &crate::lab::Under::default());
            }
            for node in &mut lab.nodes {
                node.running().ready().await.unwrap();
            }
        }
        lab.judge(work).await;
    });
}

#[test]
fn nodes_are_restarted_one_after_the_other() {
    if !can_be_run("nodes_are_restarted_one_after_the_other") {
        return;
    }
    on_network(json!({}), 3, async |lab| {
        let work = lab.work().await;
        for index in 0..3 {
            lab.stop_node(index).await;
            work.more(100).await;
            lab.start_node(index).await;
            lab.settled().await;
        }
        lab.judge(work).await;
    });
}

#[test]
#[ignore = "takes minutes"]
fn nodes_end_in_all_ways_for_a_long_time() {
    if !can_be_run("nodes_end_in_all_ways_for_a_long_time") {
        return;
    }
    on_network(json!({ "replication": 5, "log_bytes_max": 16 * 1024 * 1024 }), 5, async |lab| {
        let work = lab.work_with(4000).await;
        for round in 0..40_usize {
            let leader = lab.coordinator().await;
            let other = (leader + 1 + round % 4) % 5;
            match round % 4 {
                0 => lab.kill_node(leader),
                1 => lab.stop_node(leader).await,
                2 => lab.pause_node(leader),
                _ => {
                    lab.kill_node(leader);
                    lab.pause_node(other);
                }
            }
            work.more(300).await;
            match round % 4 {
                2 => lab.resume_node(leader),
                3 => {
                    lab.resume_node(other);
                    lab.start_node(leader).await;
                }
                _ => lab.start_node(leader).await,
            }
            lab.settled().await;
        }
        lab.judge(work).await;
    });
}
