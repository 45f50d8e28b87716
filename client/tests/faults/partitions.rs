//! Partitions: hosts that cannot reach each other.

use std::time::Duration;

use dkv_api::{Error, Level, ReadOptions, WriteOptions};
use serde_json::json;

use crate::lab::host::{CLIENT, SERVER};
use crate::lab::network::on_network;
use crate::lab::{Lab, eventually, for_a_while, tools};

/// Longer than an election takes.
const LONG_MS: u64 = 1500;

fn can_be_run(test: &str) -> bool {
    tools::has(test, &["namespaces", "iptables"])
}

/// Returns the hosts of nodes.
fn hosts(lab: &Lab, nodes: &[usize]) -> Vec<usize> {
    nodes.iter().map(|index| lab.nodes[*index].host).collect()
}

#[test]
fn the_leader_is_cut_off_from_the_other_nodes() {
    if !can_be_run("the_leader_is_cut_off_from_the_other_nodes") {
        return;
    }
    on_network(json!({}), 3, async |lab| {
        let work = lab.work().await;
        for _ in 0..2 {
            // Clients and the server still reach it.
            let leader = lab.coordinator().await;
            let others = lab.others(leader);
            for other in hosts(lab, &others) {
                lab.hosts.cut(lab.nodes[leader].host, other);
            }
            let next = lab.coordinator_among(&others).await;
            assert_ne!(next, leader);
            work.more(300).await;
            for_a_while(LONG_MS).await;
            lab.hosts.heal();
            lab.settled().await;
        }
        lab.judge(work).await;
    });
}

#[test]
fn the_leader_is_cut_off_from_all_hosts() {
    if !can_be_run("the_leader_is_cut_off_from_all_hosts") {
        return;
    }
    on_network(json!({}), 3, async |lab| {
        let work = lab.work().await;
        let leader = lab.coordinator().await;
        let others = lab.others(leader);
        let all = [&[CLIENT, SERVER], &hosts(lab, &others)[..]];
        for other in all.concat() {
            lab.hosts.cut(lab.nodes[leader].host, other);
        }
        work.more(300).await;
        for_a_while(LONG_MS).await;
        lab.judge(work).await;
    });
}

#[test]
fn nodes_that_reach_only_clients_are_not_called_available() {
    if !can_be_run("nodes_that_reach_only_clients_are_not_called_available") {
        return;
    }
    on_network(json!({}), 3, async |lab| {
        let client = lab.client().await;
        client.write("k", "v").await.unwrap();
        let available = async || {
            let report = dkv_gateway::status::report(&client.status().await, "the server");
            (report.available, format!("{:?}", report.warnings))
        };
        eventually("the network is not called available", async || match available().await {
            (true, _) => Ok(()),
            (false, why) => Err(why),
        })
        .await;
        let all = hosts(lab, &[0, 1, 2]);
        for (one, other) in [(0, 1), (0, 2), (1, 2)] {
            lab.hosts.cut(all[one], all[other]);
        }
        eventually("a leader that hears nobody is believed", async || match available().await {
            (true, why) => Err(why),
            (false, _) => Ok(()),
        })
        .await;
        // The same by the command: its exit status, and why.
        let (status, text) = lab.command(&["status"]).await;
        assert_eq!(status, Some(5), "{text}");
        let why = "error: the network is unavailable: no leader in ";
        let reasons = "an election is under way, or the nodes do not reach each other\n";
        assert!(text.contains(why) && text.contains(reasons), "{text}");
        lab.hosts.heal();
        lab.settled().await;
        let (status, text) = lab.command(&["status"]).await;
        assert_eq!(status, Some(0), "{text}");
    });
}

/// Number of keys that are written on both sides of a partition.
const KEYS: usize = 20;

/// Cuts a node and the clients off from the other nodes and the server.
fn cut_off(lab: &Lab, host: usize, others: &[usize]) {
    for other in others.iter().chain(&[SERVER]) {
        lab.hosts.cut(host, *other);
    }
}

#[test]
fn an_isolated_site_continues_with_eventual_operations() {
    if !can_be_run("an_isolated_site_continues_with_eventual_operations") {
        return;
    }
    on_network(json!({}), 3, async |lab| {
        let client = lab.client().await;
        for number in 0..KEYS {
            client.write(format!("k{number}"), "before").await.unwrap();
        }
        lab.same_state().await;
        let left = lab.others(lab.coordinator().await)[0];
        let (left_host, far) = (lab.nodes[left].host, hosts(lab, &lab.others(left)));
        // A node and a client that reach only each other.
        cut_off(lab, left_host, &far);
        cut_off(lab, CLIENT, &far);
        for number in 0..KEYS {
            let (key, value) = (format!("k{number}"), format!("alone {number}"));
            let read = client.read_with(&key, ReadOptions::eventual()).await.unwrap();
            assert_eq!(read.value, "before");
            let written = client.write_with(&key, value.clone(), Level::Eventual.into()).await;
            let receipt = written.unwrap().receipt;
            assert_eq!((receipt.node, receipt.level), (lab.nodes[left].id(), Level::Eventual));
            for level in [ReadOptions::eventual(), ReadOptions::session()] {
                let read = client.read_with(&key, level).await.unwrap();
                assert_eq!(
                    (read.value.as_ref(), read.receipt.pending),
                    (value.as_bytes(), receipt.pending)
                );
            }
        }
        let patience = Duration::from_secs(3);
        let read = client.read_with("k0", ReadOptions::default().timeout(patience)).await;
        assert!(matches!(read, Err(Error::Unavailable(_))), "{read:?}");
        let strong = WriteOptions::default().timeout(patience);
        let written = client.write_with("nobody", "v", strong).await;
        // The outcome is unknown only if the node led that shard when it was cut off.
        let refused = matches!(written, Err(Error::Unavailable(_) | Error::Unknown(_)));
        assert!(refused, "{written:?}");

        // The other side continues, and later writes win.
        lab.hosts.heal();
        cut_off(lab, left_host, &far);
        let other = lab.client().await;
        other.write("k0", "later").await.unwrap();
        lab.hosts.heal();
        lab.settled().await;
        for number in 0..KEYS {
            let expected = if number == 0 { "later".into() } else { format!("alone {number}") };
            eventually("an accepted write does not arrive", async || {
                let read = other.read(format!("k{number}")).await.map_err(|e| e.to_string())?;
                let value = String::from_utf8_lossy(&read.value).into_owned();
                if value == expected { Ok(()) } else { Err(format!("k{number} is {value:?}")) }
            })
            .await;
        }
        eventually("an outbox is not empty", async || {
            let status = client.status().await;
            let nodes = status.nodes.into_iter().map(|(_, status)| status);
            let pending: u64 = nodes.map(|status| status.map_or(1, |status| status.pending)).sum();
            if pending == 0 { Ok(()) } else { Err(format!("{pending} writes wait")) }
        })
        .await;
        lab.same_state().await;
        assert_eq!(other.read("k0").await.unwrap().value, "later");
    });
}

#[test]
fn the_leader_can_send_but_not_receive() {
    if !can_be_run("the_leader_can_send_but_not_receive") {
        return;
    }
    on_network(json!({}), 3, async |lab| {
        let work = lab.work().await;
        let leader = lab.coordinator().await;
        for other in hosts(lab, &lab.others(leader)) {
            lab.hosts.block(other, lab.nodes[leader].host);
        }
        work.more(300).await;
        for_a_while(LONG_MS).await;
        lab.judge(work).await;
    });
}

#[test]
fn the_leader_can_receive_but_not_send() {
    if !can_be_run("the_leader_can_receive_but_not_send") {
        return;
    }
    on_network(json!({}), 3, async |lab| {
        let work = lab.work().await;
        let leader = lab.coordinator().await;
        for other in hosts(lab, &lab.others(leader)) {
            lab.hosts.block(lab.nodes[leader].host, other);
        }
        work.more(300).await;
        for_a_while(LONG_MS).await;
        lab.judge(work).await;
    });
}

#[test]
fn a_follower_that_cannot_receive_causes_no_election() {
    if !can_be_run("a_follower_that_cannot_receive_causes_no_election") {
        return;
    }
    on_network(json!({}), 3, async |lab| {
        let work = lab.work().await;
        let leader = lab.coordinator().await;
        let follower = lab.others(leader)[0];
        for other in hosts(lab, &lab.others(follower)) {
            lab.hosts.block(other, lab.nodes[follower].host);
        }
        work.more(500).await;
        for_a_while(LONG_MS).await;
        lab.judge(work).await;
    });
}

#[test]
fn two_sides_meet_in_one_node() {
    if !can_be_run("two_sides_meet_in_one_node") {
        return;
    }
    on_network(json!({ "replication": 5 }), 5, async |lab| {
        let work = lab.work().await;
        let leader = lab.coordinator().await;
        let others = hosts(lab, &lab.others(leader));
        // The leader is on one side, with a neighbour and the bridge, which is second.
        let (near, far) = (others[0], &others[2..]);
        for other in far {
            lab.hosts.cut(lab.nodes[leader].host, *other);
            lab.hosts.cut(near, *other);
        }
        work.more(300).await;
        for_a_while(LONG_MS).await;
        work.more(100).await;
        lab.judge(work).await;
    });
}

#[test]
fn each_node_sees_only_its_neighbours() {
    if !can_be_run("each_node_sees_only_its_neighbours") {
        return;
    }
    on_network(json!({ "replication": 5 }), 5, async |lab| {
        let work = lab.work().await;
        for (one, other) in [(0, 2), (0, 3), (1, 3), (1, 4), (2, 4)] {
            lab.hosts.cut(lab.nodes[one].host, lab.nodes[other].host);
        }
        work.more(300).await;
        for_a_while(LONG_MS).await;
        work.more(100).await;
        lab.judge(work).await;
    });
}

#[test]
fn no_side_has_a_majority() {
    if !can_be_run("no_side_has_a_majority") {
        return;
    }
    on_network(json!({}), 3, async |lab| {
        let work = lab.work().await;
        let all = hosts(lab, &[0, 1, 2]);
        for (one, other) in [(0, 1), (0, 2), (1, 2)] {
            lab.hosts.cut(all[one], all[other]);
        }
        // Longer than the timeout of an operation, so that some outcomes are unknown.
        for_a_while(5000).await;
        lab.judge(work).await;
    });
}
