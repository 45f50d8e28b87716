//! Shards that live on some of the nodes: their placement and their moves.

use std::collections::BTreeMap;
use std::time::Duration;

use dkv_api::{Client, GroupId, KeyspaceId, NodeId, Role};
use dkv_test_support::output;
use dkv_wire::limits::FRAME_BYTES_MAX;
use dkv_wire::message::{Answer, Opening, ReadMode, Refusal, Reply, Request, RequestBody};
use dkv_wire::rpc::call;
use serde_json::json;

use crate::harness::direct::Direct;
use crate::harness::{Load, Network, eventually};

/// Waits until nothing moves any more and the numbers of shards are as expected. A new coordinator
/// does not know yet what could move.
async fn at_rest(
    client: &Client,
    wanted: impl Fn(&BTreeMap<NodeId, u32>) -> bool,
) -> BTreeMap<NodeId, u32> {
    eventually("replicas keep moving", async || {
        let placement = client.placement(true).await.map_err(|error| error.to_string())?;
        let counts = placement.nodes.iter().map(|places| (places.node, places.shards)).collect();
        let rests = placement.moves.is_empty()
            && placement.planned.is_empty()
            && placement.transfers.is_empty();
        if rests && wanted(&counts) { Ok(counts) } else { Err(format!("{placement:?}")) }
    })
    .await
}

async fn drained(client: &Client, node: NodeId) {
    client.drain_node(node, true).await.unwrap();
    eventually("the node is not drained", async || {
        let placement = client.placement(false).await.map_err(|error| error.to_string())?;
        match placement.nodes.iter().find(|places| places.node == node) {
            Some(places) if places.may_stop => Ok(()),
            places => Err(format!("{places:?}, {:?}", placement.moves)),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_added_and_another_drained_under_load_and_no_request_fails() {
    let mut network = Network::with(json!({ "shards": 8 }), 4).await;
    let (client, admin) = (network.client().await, network.admin().await);
    at_rest(&admin, |counts| counts.values().all(|count| *count == 6)).await;
    let load = Load::start(&client);
    load.more(200).await;

    let added = network.add_node().await;
    let newcomer = network.nodes[added].id();
    eventually("the new node gets no shards", async || {
        let status = network.status_of(added).await;
        if status.groups.len() > 3 {
            Ok(())
        } else {
            Err(format!("{} groups", status.groups.len()))
        }
    })
    .await;
    let even = |counts: &BTreeMap<NodeId, u32>| {
        counts.len() == 5 && counts.values().all(|count| (4..=5).contains(count))
    };
    let counts = at_rest(&admin, even).await;
    assert!(counts.contains_key(&newcomer));
    load.more(200).await;

    let old = network.coordinator().await;
    let leaving = network.nodes[old].id();
    drained(&admin, leaving).await;
    network.settled_without(&[old]).await;
    load.more(200).await;
    network.stop_node(old).await;
    load.more(200).await;
    let report = load.stop().await;
    println!("{} requests, the slowest took {:?}", report.done, report.slowest);
    assert_eq!(report.failures, [""; 0]);
    report.check(&client).await;
    network.same_state().await;

    // Only its replica of the control group remains. After an undo, it gets its share again.
    network.start_node(old).await;
    eventually("it holds more than the control group", async || {
        let status = network.status_of(old).await;
        let held: Vec<GroupId> = status.groups.iter().map(|group| group.group).collect();
        if held == [GroupId::CONTROL] { Ok(()) } else { Err(format!("{held:?}")) }
    })
    .await;
    admin.drain_node(leaving, false).await.unwrap();
    network.settled().await;
    at_rest(&admin, even).await;
    let shown = network.dkv(&["rebalance", "--dry-run"]).await;
    assert_eq!(
        output(&shown.stdout),
        "no replica would move\nno primary would change hands\n",
        "{shown:?}"
    );
    report.check(&client).await;
    network.assert_alive();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_node_is_replaced_and_deletes_its_replicas_when_it_returns() {
    let mut network = Network::with(json!({ "replace_after_ms": 3000 }), 4).await;
    let (client, admin) = (network.client().await, network.admin().await);
    let even = |counts: &BTreeMap<NodeId, u32>| counts.values().all(|count| *count == 3);
    at_rest(&admin, even).await;
    for number in 0..50 {
        client.write(format!("key-{number}"), "v").await.unwrap();
    }
    let gone = (network.coordinator().await + 1) % 4;
    let id = network.nodes[gone].id();
    network.kill_node(gone);
    eventually("the node is not replaced", async || {
        let view = client.refresh().await.map_err(|error| error.to_string())?;
        let counts = view.shards.iter().all(|shard| !shard.voters.contains(&id));
        let whole = view.shards.iter().all(|shard| shard.voters.len() == 3);
        if counts && whole { Ok(()) } else { Err(format!("{:?}", view.shards)) }
    })
    .await;
    // It returns with obsolete replicas, and ends up with its share.
    network.start_node(gone).await;
    network.settled().await;
    at_rest(&admin, even).await;
    network.settled().await;
    for number in 0..50 {
        assert_eq!(client.read(format!("key-{number}")).await.unwrap().value, "v");
    }
    network.same_state().await;
    network.assert_alive();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_the_shard_says_where_to_go_or_passes_it_on() {
    let network = Network::with(json!({ "replication": 1, "shards": 3 }), 3).await;
    let (client, admin) = (network.client().await, network.admin().await);
    at_rest(&admin, |counts| counts.values().all(|count| *count == 1)).await;
    client.write("k", "v").await.unwrap();
    // The view of one node may lag behind the placement of another.
    let shard = eventually("the shard is not in its place", async || {
        let view = client.refresh().await.map_err(|error| error.to_string())?;
        let shard = view.shard_of(KeyspaceId::DEFAULT, b"k").unwrap().clone();
        let rests = shard.primary.is_some_and(|primary| shard.voters == [primary]);
        if rests { Ok(shard) } else { Err(format!("{shard:?}")) }
    })
    .await;
    let direct = Direct::join(&network, Role::Client).await;
    for node in &network.nodes {
        let connection = direct.to_node(node.address()).await.unwrap();
        let ask = async |forward| {
            let key = bytes::Bytes::from_static(b"k");
            let body = RequestBody::Read { shard: shard.group, key, mode: ReadMode::Primary };
            let request = Request { id: 1, deadline_ms: 5000, forward, user: None, body };
            let opening = Some(&Opening::Requests);
            let patience = Duration::from_secs(6);
            let reply: Reply =
                call(&connection, opening, &request, FRAME_BYTES_MAX, patience).await.unwrap();
            reply.result
        };
        let holds = shard.voters.contains(&node.id());
        // A node that has just lost the shard may not know the new leader yet.
        let told = async {
            loop {
                match ask(false).await {
                    Ok(Answer::Value(..)) => break assert!(holds),
                    Err(Refusal::NotPrimary { primary }) => {
                        assert!(!holds);
                        if primary == shard.voters.first().copied() {
                            break;
                        }
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    other => panic!("{other:?}"),
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), told)
            .await
            .expect("the node learns who leads");
        match ask(true).await {
            Ok(Answer::Value(receipt, Some(stored))) => {
                assert_eq!((&stored.value[..], receipt.node), (&b"v"[..], shard.voters[0]));
            }
            other => panic!("{other:?}"),
        }
    }

    // A drain that has no target keeps everything, and says why.
    let refused = network.dkv(&["drain", "nobody"]).await;
    assert!(output(&refused.stderr).contains("there is no node nobody"), "{refused:?}");
    let shown = network.dkv(&["drain", "node-1", "--no-wait"]).await;
    let known = output(&shown.stderr).contains("there is no node") || shown.status.success();
    assert!(known, "{shown:?}");
}
