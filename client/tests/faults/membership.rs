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
        // The first nodes, which lead and vote, so that others have to take over.
        for index in 0..4 {
            let id = lab.nodes[index].id();
            admin.remove_node(id).await.unwrap();
            eventually("it is not removed", async || {
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
