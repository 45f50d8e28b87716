//! Packets that are lost, delayed, duplicated or out of order.

use std::time::Duration;

use serde_json::json;

use crate::lab::network::on_network;
use crate::lab::relay::{FaultyRelay, PacketFaults};
use crate::lab::{Under, for_a_while, host, tools};

#[test]
fn a_tenth_of_all_packets_is_lost() {
    if !tools::has("a_tenth_of_all_packets_is_lost", &["namespaces", "iptables"]) {
        return;
    }
    on_network(json!({}), 3, async |lab| {
        let work = lab.work().await;
        for index in 0..3 {
            lab.hosts.lose(lab.nodes[index].host, 0.1);
        }
        work.more(400).await;
        // Meanwhile the leader is killed.
        let leader = lab.coordinator().await;
        lab.kill_node(leader);
        work.more(400).await;
        lab.start_node(leader).await;
        lab.judge(work).await;
    });
}

#[test]
fn packets_are_delayed_duplicated_and_reordered() {
    if !tools::has("packets_are_delayed_duplicated_and_reordered", &["namespaces"]) {
        return;
    }
    on_network(json!({}), 0, async |lab| {
        // All peers reach each node only through a relay on the host of the clients.
        let mut relays = Vec::new();
        for number in 0..3_u16 {
            let node = (host::address(usize::from(number) + 2), 4401).into();
            let relay =
                FaultyRelay::start((host::address(host::CLIENT), 5001 + number).into(), node).await;
            let advertise = vec!["--advertise".to_owned(), relay.address.to_string()];
            relays.push(relay);
            lab.add_node(Under { arguments: advertise, ..Under::default() }).await;
        }
        lab.settled().await;
        let work = lab.work().await;
        for relay in &relays {
            relay.set(PacketFaults {
                late: Duration::from_millis(2)..Duration::from_millis(12),
                twice: 0.1,
                lost: 0.02,
            });
        }
        work.more(400).await;
        let leader = lab.coordinator().await;
        lab.pause_node(leader);
        for_a_while(600).await;
        work.more(200).await;
        lab.resume_node(leader);
        work.more(200).await;
        relays.iter().for_each(|relay| relay.set(PacketFaults::default()));
        lab.judge(work).await;
    });
}
