//! Networks that grow and shrink under load.

use dkv_api::Role;
use serde_json::json;

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
