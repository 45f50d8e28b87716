//! Courses of events: several faults one after the other, each at the moment that matters.
//!
//! All nodes are reached through relays, so that each link has faults of its own, one way each.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dkv_api::{
    Client, ClientBuilder, GroupId, KeyspaceId, Level, NetworkStatus, NodeId, ReadOptions, Role,
};
use dkv_wire::message::GroupStatus;
use serde_json::json;

use crate::lab::host::{CLIENT, SERVER};
use crate::lab::network::on_network;
use crate::lab::relay::{FaultyRelay, PacketFaults};
use crate::lab::{Lab, Under, eventually, for_a_while, host, tools};

/// How late acknowledgements are once they are late.
const LATE: Duration = Duration::from_secs(3);
/// How late entries are while voters change: less than the silence of a leader that is down.
const SLOW: Duration = Duration::from_millis(120);

/// Nodes, each of which is reached through its relay only.
struct Relayed {
    relays: Vec<FaultyRelay>,
}

impl Relayed {
    async fn start(lab: &mut Lab, nodes: u16) -> Self {
        let mut relays = Vec::new();
        for number in 0..nodes {
            let node = (host::address(usize::from(number) + 2), 4401).into();
            let relay =
                FaultyRelay::start((host::address(CLIENT), 5001 + number).into(), node).await;
            let arguments = vec!["--advertise".to_owned(), relay.address.to_string()];
            relays.push(relay);
            lab.add_node(Under { arguments, ..Under::default() }).await;
        }
        lab.settled().await;
        Self { relays }
    }

    /// Sets the faults of what a host sends to a node, and of what the node answers it.
    fn link(&self, sender: Ipv4Addr, to: usize, there: PacketFaults, back: PacketFaults) {
        self.relays[to].set_for(IpAddr::V4(sender), there, back);
    }

    fn heal(&self) {
        self.relays.iter().for_each(|relay| relay.set(PacketFaults::default()));
    }
}

/// Returns the address of the host of a node.
fn address(lab: &Lab, node: usize) -> Ipv4Addr {
    host::address(lab.nodes[node].host)
}

/// Returns the index of the node that leads the only shard.
async fn leader_of_shard(lab: &Lab, client: &Client) -> usize {
    let id = client.write("who leads", "?").await.unwrap().receipt.node;
    lab.nodes.iter().position(|node| node.id() == id).unwrap()
}

/// A value that was read, and when the read began.
struct Seen {
    begun: Instant,
    number: u64,
}

/// Reads a key in a loop on a host of its own until it is told to stop.
fn read_on(host: String, client: ClientBuilder, stop: Arc<AtomicBool>) -> Vec<Seen> {
    host::enter(&host);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = client.connect().await.unwrap();
        let mut seen = Vec::new();
        while !stop.load(Ordering::SeqCst) {
            let begun = Instant::now();
            let patience = ReadOptions::default().timeout(Duration::from_secs(2));
            if let Ok(read) = client.read_with("k", patience).await {
                let number = String::from_utf8(read.value.to_vec()).unwrap().parse().unwrap();
                seen.push(Seen { begun, number });
            }
        }
        client.close().await;
        seen
    })
}

#[test]
fn late_acknowledgements_confirm_no_leader() {
    let test = "late_acknowledgements_confirm_no_leader";
    if !tools::has(test, &["namespaces", "iptables"]) {
        return;
    }
    on_network(json!({ "shards": 1 }), 0, async |lab| {
        let network = Relayed::start(lab, 3).await;
        let client = lab.client().await;
        client.write("k", "0").await.unwrap();
        let leader = leader_of_shard(lab, &client).await;
        let (others, old) = (lab.others(leader), address(lab, leader));
        // A client that will reach nobody but the leader.
        let reader = lab.hosts.add();
        let stop = Arc::new(AtomicBool::new(false));
        let reading = {
            let (name, stop) = (lab.hosts.name(reader), Arc::clone(&stop));
            let builder = lab.client_builder(Role::Client);
            std::thread::spawn(move || read_on(name, builder, stop))
        };
        let work = lab.work().await;
        let isolate = |node: usize| {
            network.link(host::address(reader), node, PacketFaults::cut(), PacketFaults::cut());
        };
        others.iter().for_each(|other| isolate(*other));
        lab.hosts.cut(reader, SERVER);
        // What the others acknowledge is late from now on; entries still reach them for a while.
        for other in &others {
            network.link(old, *other, PacketFaults::default(), PacketFaults::late(LATE));
        }
        for_a_while(150).await;
        // All that it has written is on its way when it is cut off.
        network.link(host::address(CLIENT), leader, PacketFaults::cut(), PacketFaults::cut());
        for_a_while(50).await;
        let cut = Instant::now();
        for other in &others {
            network.link(old, *other, PacketFaults::cut(), PacketFaults::late(LATE));
            let other = address(lab, *other);
            network.link(other, leader, PacketFaults::cut(), PacketFaults::cut());
        }
        // The others elect a leader, and write what the old one does not know.
        let mut written = Vec::new();
        while cut.elapsed() < LATE + Duration::from_secs(1) {
            let number = written.len() as u64 + 1;
            if client.write("k", number.to_string()).await.is_ok() {
                written.push((Instant::now(), number));
            }
            for_a_while(5).await;
        }
        assert!(written.len() > 10, "no leader was elected in time: {written:?}");
        stop.store(true, Ordering::SeqCst);
        network.heal();
        let seen = reading.join().unwrap();
        for read in &seen {
            let known = written.iter().filter(|(acknowledged, _)| *acknowledged < read.begun);
            let known = known.map(|(_, number)| *number).max().unwrap_or(0);
            let after = read.begun.saturating_duration_since(cut);
            assert!(
                read.number >= known,
                "{after:?} after the cut a read found {}, and {known} was acknowledged",
                read.number
            );
        }
        println!("{test}: {} reads, {} writes", seen.len(), written.len());
        client.close().await;
        lab.judge(work).await;
    });
}

/// Returns what a node says of its replica of a shard.
fn replica_of(status: &NetworkStatus, node: NodeId, shard: GroupId) -> Option<&GroupStatus> {
    let (_, status) = status.nodes.iter().find(|(info, _)| info.id == node)?;
    status.as_ref().ok()?.groups.iter().find(|group| group.group == shard)
}

#[test]
fn a_voter_that_alone_knows_of_its_removal_makes_a_leader_possible() {
    let test = "a_voter_that_alone_knows_of_its_removal_makes_a_leader_possible";
    if !tools::has(test, &["namespaces"]) {
        return;
    }
    on_network(json!({ "shards": 1 }), 0, async |lab| {
        let network = Relayed::start(lab, 4).await;
        let work = lab.work().await;
        let (client, admin) = (lab.client().await, lab.client_as(Role::Admin).await);
        let mut struck = None;
        for _ in 0..10 {
            lab.settled().await;
            let leader = leader_of_shard(lab, &client).await;
            let view = admin.refresh().await.unwrap();
            let shard = view.shard_of(KeyspaceId::DEFAULT, b"k").unwrap();
            let voters = &shard.voters;
            let removed =
                lab.others(leader).into_iter().find(|it| voters.contains(&lab.nodes[*it].id()));
            let removed = removed.unwrap();
            let id = lab.nodes[removed].id();
            // Only the voter that is to be removed gets entries at once.
            let slow: Vec<usize> =
                lab.others(leader).into_iter().filter(|it| *it != removed).collect();
            for other in &slow {
                let late = PacketFaults::late(SLOW);
                network.link(address(lab, leader), *other, late, PacketFaults::default());
            }
            admin.drain_node(id, true).await.unwrap();
            // The voter that is removed is asked again and again, without a pause.
            let until = Instant::now() + Duration::from_secs(60);
            let moved = loop {
                let status = client.status().await;
                let knows = |node: usize| {
                    replica_of(&status, lab.nodes[node].id(), shard.group).is_some_and(|it| {
                        it.halves.is_empty() && !it.voters.is_empty() && !it.voters.contains(&id)
                    })
                };
                match (knows(removed), slow.iter().any(|node| knows(*node))) {
                    (true, false) => break true,
                    (_, true) => break false,
                    _ => assert!(Instant::now() < until, "the voters do not change"),
                }
            };
            if moved {
                for other in &slow {
                    network.link(
                        address(lab, leader),
                        *other,
                        PacketFaults::cut(),
                        PacketFaults::cut(),
                    );
                }
                lab.kill_node(leader);
                struck = Some(leader);
                break;
            }
            network.heal();
            admin.drain_node(id, false).await.unwrap();
        }
        let leader = struck.expect("the leader was never struck between the two entries");
        eventually("there is no leader for good", async || {
            client.write("k", "by the next leader").await.map_err(|error| error.to_string())
        })
        .await;
        network.heal();
        lab.start_node(leader).await;
        for node in 0..4 {
            admin.drain_node(lab.nodes[node].id(), false).await.unwrap();
        }
        client.close().await;
        admin.close().await;
        lab.judge(work).await;
    });
}

#[test]
fn a_node_that_nobody_hears_is_not_said_to_be_empty() {
    let test = "a_node_that_nobody_hears_is_not_said_to_be_empty";
    if !tools::has(test, &["namespaces", "iptables"]) {
        return;
    }
    on_network(json!({ "shards": 1 }), 5, async |lab| {
        let (client, admin) = (lab.client().await, lab.client_as(Role::Admin).await);
        client.write("k", "v").await.unwrap();
        let view = admin.refresh().await.unwrap();
        let shard = view.shard_of(KeyspaceId::DEFAULT, b"k").unwrap().clone();
        let coordinator = lab.coordinator().await;
        // A follower, which only the client reaches.
        let silent = lab.others(coordinator).into_iter().find(|node| {
            let id = lab.nodes[*node].id();
            shard.voters.contains(&id) && shard.primary != Some(id)
        });
        let silent = silent.unwrap();
        let id = lab.nodes[silent].id();
        for other in lab.others(silent) {
            lab.hosts.cut(lab.nodes[silent].host, lab.nodes[other].host);
            lab.hosts.cut(CLIENT, lab.nodes[other].host);
        }
        lab.hosts.cut(lab.nodes[silent].host, SERVER);
        let kept = client.write_with("kept", "by one node", Level::Eventual.into()).await.unwrap();
        assert_eq!(kept.receipt.node, id);
        lab.hosts.heal();
        for other in lab.others(silent) {
            lab.hosts.cut(lab.nodes[silent].host, lab.nodes[other].host);
        }
        lab.hosts.cut(lab.nodes[silent].host, SERVER);
        lab.hosts.cut(lab.nodes[silent].host, CLIENT);
        admin.drain_node(id, true).await.unwrap();
        let may_stop = async || {
            let placement = admin.placement(false).await.map_err(|error| error.to_string())?;
            let places = placement.nodes.iter().find(|places| places.node == id);
            Ok::<_, String>(places.is_some_and(|places| places.may_stop))
        };
        // Its replicas are gone soon, and long after that nobody has heard from it. Then a new
        // coordinator begins to judge.
        eventually("its replica is not moved away", async || {
            assert_ne!(may_stop().await, Ok(true), "nobody has heard from the node");
            let view = admin.refresh().await.map_err(|error| error.to_string())?;
            let shard = view.shard_of(KeyspaceId::DEFAULT, b"k").ok_or("no shard")?;
            if shard.voters.contains(&id) { Err(format!("{shard:?}")) } else { Ok(()) }
        })
        .await;
        let until = Instant::now() + Duration::from_secs(7);
        while Instant::now() < until {
            assert_ne!(may_stop().await, Ok(true), "nobody has heard from the node");
            for_a_while(20).await;
        }
        lab.kill_node(coordinator);
        let until = Instant::now() + Duration::from_secs(7);
        while Instant::now() < until {
            assert_ne!(may_stop().await, Ok(true), "the next coordinator has not heard from it");
            for_a_while(20).await;
        }
        lab.hosts.heal();
        lab.start_node(coordinator).await;
        eventually("the node is not drained", async || match may_stop().await? {
            true => Ok(()),
            false => Err("it may not be stopped".to_owned()),
        })
        .await;
        assert_eq!(client.read("kept").await.unwrap().value, "by one node");
        client.close().await;
        admin.close().await;
    });
}
