//! Restarts: of all processes at once, of the server alone, and of nodes without the server.

use dkv_wire::certificate::Credentials;
use dkv_wire::message::{
    Confirmation, ControlGroup, CoordinatorReport, ServerAnswer, ServerRequest,
};

use crate::harness::direct::{Direct, ask_server};
use crate::harness::{Load, Network, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn all_processes_are_killed_at_once() {
    let mut network = Network::start(3).await;
    let client = network.client().await;
    let load = Load::start(&client);
    load.more(1000).await;
    for index in network.running() {
        network.kill_node(index);
    }
    network.kill_server();
    network.start_server().await;
    for index in 0..3 {
        network.respawn_node(index, &[]);
    }
    for node in &mut network.nodes {
        node.running().ready().await.unwrap();
    }
    load.more(500).await;
    let report = load.stop().await;
    report.check(&client).await;
    network.settled().await;
    network.same_state().await;

    // Then a graceful restart, with a new client.
    for index in network.running() {
        network.stop_node(index).await;
    }
    for index in 0..3 {
        network.start_node(index).await;
    }
    report.check(&network.client().await).await;
    network.same_state().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_works_without_its_server() {
    let mut network = Network::start(3).await;
    let client = network.client().await;
    let before = client.status().await.server.unwrap().coordinator.unwrap();
    network.kill_server();
    let load = Load::start(&client);
    load.more(500).await;
    let coordinator = network.coordinator().await;
    let mut old_view = client.view().await.unwrap();
    network.kill_node(coordinator);
    load.more(500).await;
    network.start_node(coordinator).await;
    load.more(200).await;
    let other = (coordinator + 1) % 3;
    network.kill_node(other);
    load.more(300).await;
    network.start_node(other).await;
    let report = load.stop().await;
    assert_eq!(report.failures, [""; 0]);
    report.check(&client).await;

    // Without the server, a command finds the nodes that it knows.
    let read = network.dkv(&["R,counter"]).await;
    assert!(read.status.success(), "{read:?}");

    network.start_server().await;
    network.settled().await;
    let (node, term) = eventually("the server does not confirm a coordinator", async || {
        let now = client
            .status()
            .await
            .server
            .map_err(|error| error.to_string())?
            .coordinator
            .ok_or("nobody")?;
        if now.1 > before.1 { Ok(now) } else { Err(format!("{now:?} as before")) }
    })
    .await;
    let index = network.coordinator().await;
    let control = &network.status_of(index).await.groups[0];
    assert!(control.term > term || network.nodes[index].id() == node);
    network.same_state().await;

    // The server remembers the coordinator, and refuses older ones.
    network.kill_server();
    network.start_server().await;
    let old = &network.nodes[coordinator];
    let credentials = Credentials::load(&old.dir.join("credentials")).unwrap().unwrap();
    let connection = Direct::with(credentials).to_server(&network).await.unwrap();
    (old_view.term, old_view.coordinator) = (before.1, Some(old.id()));
    let voters = old_view.nodes.iter().map(|node| node.id).collect();
    let control =
        ControlGroup { term: old_view.term, leader: old_view.coordinator, index: 1, voters };
    let report = CoordinatorReport { term: old_view.term, view: old_view, control };
    let answer = ask_server(&connection, &ServerRequest::Report(report)).await;
    let outdated = matches!(
        answer,
        ServerAnswer::Confirmed(Confirmation::Outdated { confirmed }) if confirmed >= term
    );
    assert!(outdated, "{answer:?}");
    let said = client.status().await.server.unwrap();
    assert!(said.coordinator.unwrap().1 >= term, "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_node_comes_back_as_another() {
    let mut network = Network::start(3).await;
    let client = network.client().await;
    for number in 0..50 {
        client.write(format!("key-{number}"), number.to_string()).await.unwrap();
    }
    let old = network.nodes[2].id();
    network.kill_node(2);
    std::fs::remove_dir_all(&network.nodes[2].dir).unwrap();
    network.start_node(2).await;
    let new = network.nodes[2].id();
    assert_ne!(old, new);

    // The old identity counts as a member until an administrator removes it.
    network.admin().await.remove_node(old).await.unwrap();
    network.settled().await;
    for status in network.same_state().await {
        for group in status.groups {
            assert_eq!(group.voters.len(), 3, "{group:?}");
            assert!(group.voters.contains(&new) && !group.voters.contains(&old), "{group:?}");
        }
    }
    let view = client.refresh().await.unwrap();
    assert!(view.node(old).is_none() && view.denied.contains(&old.into()), "{view:?}");
    for number in 0..50 {
        let read = client.read(format!("key-{number}")).await.unwrap();
        assert_eq!(read.value, number.to_string());
    }

    // It has the data of the others, and serves with only one of them.
    network.kill_node(0);
    client.write("afterwards", "1").await.unwrap();
    assert_eq!(client.read("key-7").await.unwrap().value, "7");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_node_takes_the_place_of_its_name() {
    let mut network = Network::start(3).await;
    let client = network.client().await;
    client.write("k", "v").await.unwrap();
    let index = (network.coordinator().await + 1) % 3;
    let (old, name) = (network.nodes[index].id(), network.nodes[index].file()["name"].clone());
    let name = name.as_str().unwrap();
    network.kill_node(index);
    std::fs::remove_dir_all(&network.nodes[index].dir).unwrap();
    network.respawn_node(index, &["--name", name]);
    network.nodes[index].running().ready().await.unwrap();
    network.settled().await;
    let new = network.nodes[index].id();
    assert_ne!(old, new);
    for status in network.same_state().await {
        for group in status.groups {
            assert!(group.voters.contains(&new) && !group.voters.contains(&old), "{group:?}");
        }
    }
    assert_eq!(client.refresh().await.unwrap().node(new).unwrap().name, name);
    assert_eq!(client.read("k").await.unwrap().value, "v");
}
