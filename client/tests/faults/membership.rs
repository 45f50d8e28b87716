//! Networks that grow and shrink under load.

use dkv_api::{KeyspaceId, Level, Role};
use serde_json::json;

use crate::lab::host::{CLIENT, SERVER};
use crate::lab::network::on_network;
use crate::lab::{Under, eventually, tools};

#[test]
fn a_network_grows_to_seven_and_shrinks_to_three() {
    let test = "a_network_grows_to_seven_and_shrinks_to_three";
    if !tools::has(test, &["namespaces"]) {
        return;
    }
    on_network(json!({}), 3, async |lab| {
        let work = lab.work().await;
        for _ in 0..4 {
            lab.add_node(Under::default()).await;
            work.more(50).await;
        }
        lab.settled().await;
        let admin = lab.client_as(Role::Admin).await;
        // The first nodes lead and vote, so others must take over.
        for index in 0..4 {
            let id = lab.nodes[index].id();
            admin.remove_node(id).await.unwrap();
            eventually("the node is not removed", async || {
                let view = admin.refresh().await.map_err(|error| error.to_string())?;
                if view.node(id).is_none() { Ok(()) } else { Err("it is there".to_owned()) }
            })
            .await;
            let mut process = lab.nodes[index].process.take().unwrap();
            process.ended().await;
            work.more(50).await;
        }
        lab.settled().await;
        admin.close().await;
        lab.judge(work).await;
    });
}

#[test]
fn nodes_are_drained_one_after_the_other() {
    let test = "nodes_are_drained_one_after_the_other";
    if !tools::has(test, &["namespaces"]) {
        return;
    }
    on_network(json!({ "shards": 6 }), 4, async |lab| {
        let work = lab.work().await;
        let admin = lab.client_as(Role::Admin).await;
        for _ in 0..3 {
            let index = lab.coordinator().await;
            let id = lab.nodes[index].id();
            admin.drain_node(id, true).await.unwrap();
            eventually("the node is not drained", async || {
                let placement = admin.placement(false).await.map_err(|error| error.to_string())?;
                match placement.nodes.iter().find(|places| places.node == id) {
                    Some(places) if places.may_stop => Ok(()),
                    places => Err(format!("{places:?}, {:?}", placement.moves)),
                }
            })
            .await;
            // As promised, the network does not need it any more.
            lab.kill_node(index);
            work.more(50).await;
            lab.start_node(index).await;
            admin.drain_node(id, false).await.unwrap();
        }
        admin.close().await;
        lab.judge(work).await;
    });
}

#[test]
fn a_leader_that_is_replaced_while_it_is_cut_off_is_emptied_once_it_is_back() {
    let test = "a_leader_that_is_replaced_while_it_is_cut_off_is_emptied_once_it_is_back";
    if !tools::has(test, &["namespaces", "iptables"]) {
        return;
    }
    on_network(json!({ "shards": 1 }), 4, async |lab| {
        let work = lab.work().await;
        let client = lab.client().await;
        let id = client.write("k", "v").await.unwrap().receipt.node;
        let leader = lab.nodes.iter().position(|node| node.id() == id).unwrap();
        let others = lab.others(leader);
        for other in &others {
            lab.hosts.cut(lab.nodes[leader].host, lab.nodes[*other].host);
            lab.hosts.cut(CLIENT, lab.nodes[*other].host);
        }
        lab.hosts.cut(lab.nodes[leader].host, SERVER);
        // It still leads according to its own log, and stores what it accepts.
        client.write_with("kept", "by the leader", Level::Eventual.into()).await.unwrap();
        lab.hosts.heal();
        for other in &others {
            lab.hosts.cut(lab.nodes[leader].host, lab.nodes[*other].host);
        }
        lab.hosts.cut(lab.nodes[leader].host, SERVER);
        lab.hosts.cut(lab.nodes[leader].host, CLIENT);
        lab.coordinator_among(&others).await;
        let admin = lab.client_as(Role::Admin).await;
        admin.drain_node(id, true).await.unwrap();
        eventually("the shard still has it as a voter", async || {
            let view = admin.refresh().await.map_err(|error| error.to_string())?;
            let shard = view.shard_of(KeyspaceId::DEFAULT, b"k").ok_or("there is no shard")?;
            if shard.voters.len() == 3 && !shard.voters.contains(&id) {
                Ok(())
            } else {
                Err(format!("{shard:?}"))
            }
        })
        .await;
        lab.hosts.heal();
        eventually("the node is not drained", async || {
            let placement = admin.placement(false).await.map_err(|error| error.to_string())?;
            match placement.nodes.iter().find(|places| places.node == id) {
                Some(places) if places.may_stop => Ok(()),
                places => Err(format!("{places:?}, {:?}", placement.moves)),
            }
        })
        .await;
        let kept = client.read("kept").await.unwrap();
        assert_eq!(kept.value, "by the leader");
        admin.drain_node(id, false).await.unwrap();
        client.close().await;
        admin.close().await;
        lab.judge(work).await;
    });
}
