//! Peers that want more than their certificate allows, or whose certificate was revoked.

use std::time::{Duration, Instant};

use dkv_api::{Condition, GroupId, NodeId, Role};
use dkv_base::id::{Serial, SessionId};
use dkv_node::fuzzing::introduce;
use dkv_test_support::{output, text};
use dkv_wire::certificate::Credentials;
use dkv_wire::codec::encode;
use dkv_wire::frame::FrameWriter;
use dkv_wire::incarnation::{BootId, Incarnation};
use dkv_wire::message::{
    Answer, Attempt, AttemptId, Command, ControlGroup, CoordinatorReport, Refusal, RequestBody,
    ServerAnswer, ServerRefusal, ServerRequest,
};
use dkv_wire::quic::Endpoint;
use dkv_wire::token::Token;
use serde_json::json;

use crate::harness::direct::{Direct, ask, ask_anywhere, ask_server, denied, raft_openings};
use crate::harness::{Network, eventually};

/// Returns the terms of the control group, which reveal an election. Shards get new terms when they
/// are balanced.
async fn terms(network: &Network) -> Vec<u64> {
    let mut terms = Vec::new();
    for index in network.running() {
        let status = network.status_of(index).await;
        let control = status.groups.iter().filter(|group| group.group == GroupId::CONTROL);
        terms.extend(control.map(|group| group.term.0));
    }
    terms
}

#[tokio::test(flavor = "multi_thread")]
async fn only_nodes_speak_raft_and_only_in_their_own_name() {
    let mut network = Network::start(3).await;
    let before = terms(&network).await;
    let client = Direct::join(&network, Role::Client).await;
    let admin = Direct::join(&network, Role::Admin).await;
    // A node with a certificate that is not a member of any group.
    let node = Direct::join(&network, Role::Node).await;
    // A thief of a server's directory can sign this.
    let id = client.credentials.identity.network;
    let server = Direct::forged(id, &network.path("server"), Role::Server);
    for member in &network.nodes {
        for peer in [&client, &admin, &node, &server] {
            for group in [GroupId::CONTROL, GroupId(1)] {
                for opening in raft_openings(group, network.nodes[0].id()) {
                    let connection = peer.to_node(member.address()).await.unwrap();
                    let (send, _receive) = connection.open_bi().await.unwrap();
                    FrameWriter::new(send).send(&opening).await.unwrap();
                    denied(&connection).await;
                }
            }
        }
        // A client is refused in its own name as much as in that of a node.
        let own = NodeId(client.credentials.identity.holder.0);
        for opening in raft_openings(GroupId::CONTROL, own) {
            let connection = client.to_node(member.address()).await.unwrap();
            let (send, _receive) = connection.open_bi().await.unwrap();
            FrameWriter::new(send).send(&opening).await.unwrap();
            denied(&connection).await;
        }
        let connection = server.to_node(member.address()).await.unwrap();
        let command = Command::OpenSession(SessionId(dkv_api::Uuid::from_u128(1)));
        let command = encode(&command);
        for body in [
            RequestBody::Propose { shard: GroupId(1), everywhere: false, command },
            RequestBody::RemoveNode(network.nodes[0].id()),
            RequestBody::Rebalance,
            RequestBody::Leaving,
        ] {
            let answer = ask(&connection, body.clone()).await.unwrap();
            assert!(matches!(&answer, Err(Refusal::Denied(_))), "{body:?} is answered {answer:?}");
        }
        // A node may open these in its own name; garbage after that does no harm.
        let own = node.credentials.identity.as_node().unwrap();
        for opening in raft_openings(GroupId::CONTROL, own) {
            let connection = node.to_node(member.address()).await.unwrap();
            let run = Incarnation::default().next(BootId(1));
            assert_eq!(introduce(&connection, own, &run).await, Some(true));
            let (send, _receive) = connection.open_bi().await.unwrap();
            let mut writer = FrameWriter::new(send);
            writer.push(&opening);
            writer.push_bytes(&[255; 100]);
            writer.flush().await.unwrap();
            let _ = ask(&connection, RequestBody::View).await.unwrap().unwrap();
        }
    }
    network.client().await.write("k", "v").await.unwrap();
    assert_eq!(terms(&network).await, before, "there was an election");
    network.assert_alive();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_is_limited_to_its_rights() {
    let network = Network::start(1).await;
    let node_address = network.nodes[0].address();
    let id = network.nodes[0].id();
    let client = Direct::join(&network, Role::Client).await;
    let node = Direct::join(&network, Role::Node).await;
    let view = network.client().await.view().await.unwrap();
    let holder = client.credentials.identity.holder;

    let to_server = client.to_server(&network).await.unwrap();
    let leader = view.coordinator;
    let control = ControlGroup { term: view.term, leader, index: 1, voters: vec![id] };
    let report = CoordinatorReport { term: view.term, view: view.clone(), control };
    for request in [
        ServerRequest::Register { name: None, address: node_address, region: None, control: None },
        ServerRequest::Report(report.clone()),
        ServerRequest::CreateToken {
            role: Role::Admin,
            life_s: None,
            uses: None,
            name: None,
            user: None,
        },
        ServerRequest::ListTokens,
        ServerRequest::RevokeToken(dkv_api::Uuid::nil()),
    ] {
        let answer = ask_server(&to_server, &request).await;
        let refused = matches!(&answer, ServerAnswer::Refused(ServerRefusal::Denied(_)));
        assert!(refused, "{request:?} is answered {answer:?}");
    }
    let of_node = node.to_server(&network).await.unwrap();
    let answer = ask_server(&of_node, &ServerRequest::ListTokens).await;
    assert!(matches!(answer, ServerAnswer::Refused(ServerRefusal::Denied(_))), "{answer:?}");
    // In the name of the coordinator.
    let answer = ask_server(&of_node, &ServerRequest::Report(report)).await;
    assert!(matches!(answer, ServerAnswer::Refused(ServerRefusal::Invalid(_))), "{answer:?}");

    let to_node = client.to_node(node_address).await.unwrap();
    for body in [
        RequestBody::Announce { name: "mallory".into(), address: node_address, region: None },
        RequestBody::Leaving,
        RequestBody::RemoveNode(id),
        RequestBody::Revoke(holder),
    ] {
        let answer = ask(&to_node, body.clone()).await.unwrap();
        assert!(matches!(&answer, Err(Refusal::Denied(_))), "{body:?} is answered {answer:?}");
    }
    let of_node = node.to_node(node_address).await.unwrap();
    let answer = ask(&of_node, RequestBody::RemoveNode(id)).await.unwrap();
    assert!(matches!(answer, Err(Refusal::Denied(_))), "{answer:?}");

    // A report of another network, or of none at all.
    let other = Network::beside(&network).await;
    let stranger = Direct::join(&other, Role::Client).await;
    assert!(stranger.to_node(node_address).await.is_err());
    assert!(stranger.to_server(&network).await.is_err());
    let token = std::fs::read_to_string(network.token_file(Role::Node)).unwrap();
    let authority = token.parse::<Token>().unwrap().authority;
    let joiner = Endpoint::dial_only(None).unwrap();
    assert!(joiner.connect_to_join(node_address, authority).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_client_is_refused_at_once_and_everywhere() {
    let mut network = Network::start(3).await;
    let admin = network.admin().await;
    let home = network.path("mallory");
    let mallory = network.client_as(Role::Client, &home).await;
    mallory.write("k", "mallory").await.unwrap();
    let holder = mallory.identity().holder;
    let credentials =
        dkv_wire::local::credentials_dir(&home, mallory.identity().network, Role::Client);
    let direct = Direct::with(Credentials::load(&credentials).unwrap().unwrap());
    let mut open = vec![direct.to_server(&network).await.unwrap()];
    for node in &network.nodes {
        let connection = direct.to_node(node.address()).await.unwrap();
        assert!(matches!(ask(&connection, RequestBody::View).await, Ok(Ok(Answer::View(_)))));
        open.push(connection);
    }

    admin.revoke(holder).await.unwrap();
    for connection in &open {
        denied(connection).await;
    }
    let addresses = network.nodes.iter().map(|node| node.address()).collect::<Vec<_>>();
    for address in addresses {
        if let Ok(connection) = direct.to_node(address).await {
            denied(&connection).await;
        }
    }
    if let Ok(connection) = direct.to_server(&network).await {
        denied(&connection).await;
    }
    let refused = mallory.write("k", "again").await.unwrap_err();
    assert!(!refused.to_string().is_empty());
    let address = network.address.to_string();
    let ended = network.dkv_as(&[&address, "W,k,again"], &home).await;
    let said = output(&ended.stderr);
    assert!(said.starts_with("error: denied") && said.lines().count() == 1, "{said}");
    assert_eq!(ended.status.code(), Some(7));

    // All nodes still refuse it after a restart.
    for index in network.running() {
        network.kill_node(index);
    }
    for index in 0..3 {
        network.start_node(index).await;
    }
    network.settled().await;
    for node in &network.nodes {
        if let Ok(connection) = direct.to_node(node.address()).await {
            denied(&connection).await;
        }
    }
    let client = network.client().await;
    assert_eq!(client.read("k").await.unwrap().value, "mallory");
    let current = client.read("k").await.unwrap().receipt.revision;
    client.write_with("k", "ours", Condition::Revision(current).into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_is_refused_and_ends() {
    let mut network = Network::start(4).await;
    let client = network.client().await;
    client.write("k", "v").await.unwrap();
    let index = (network.coordinator().await + 1) % 4;
    let removed = network.nodes[index].id();
    let dir = network.nodes[index].dir.clone();
    let credentials = Credentials::load(&dir.join("credentials")).unwrap().unwrap();
    let direct = Direct::with(credentials);
    let others: Vec<_> = (0..4).filter(|other| *other != index).collect();
    let address = network.nodes[others[0]].address();
    let open = direct.to_node(address).await.unwrap();

    let said = network.dkv(&["remove", &removed.to_string()]).await;
    assert!(said.status.success(), "{said:?}");
    denied(&open).await;
    for _ in 0..2 {
        let process = network.nodes[index].running();
        let status = process.ended().await;
        let said = process.said();
        assert_eq!(status.code(), Some(1), "{said}");
        let last = said.lines().last().unwrap();
        assert!(last.starts_with("error: ") && last.contains("removed from"), "{said}");
        assert!(last.contains(text(&dir)), "{said}");
        network.respawn_node(index, &[]);
    }
    if let Ok(connection) = direct.to_node(address).await {
        denied(&connection).await;
    }

    // The others form a network of three.
    network.nodes.remove(index);
    network.settled().await;
    eventually("it is still known", async || {
        let view = client.refresh().await.map_err(|error| error.to_string())?;
        if view.node(removed).is_none() { Ok(()) } else { Err(format!("{view:?}")) }
    })
    .await;
    network.kill_node(0);
    client.write("k", "v2").await.unwrap();
}

/// A client has no say in a node's name, also where a node passes its request on.
#[tokio::test(flavor = "multi_thread")]
async fn what_only_nodes_send_is_not_passed_on_for_clients() {
    let network = Network::with(json!({ "shards": 1 }), 3).await;
    let client = Direct::join(&network, Role::Client).await;
    network.client().await.write("k", "v").await.unwrap();
    let session = SessionId(dkv_api::Uuid::from_u128(1));
    let id = AttemptId {
        home: GroupId(1),
        session,
        serial: Serial(1),
        attempt: Attempt { term: dkv_api::Term(1), number: 1 },
    };
    let commands = [
        Command::OpenSessionOf { session, holder: network.nodes[0].id().into() },
        Command::Resolve { id, abort: true },
    ];
    for node in &network.nodes {
        let connection = client.to_node(node.address()).await.unwrap();
        for command in &commands {
            let command = encode(command);
            let body = RequestBody::Propose { shard: GroupId(1), everywhere: false, command };
            let answer = ask_anywhere(&connection, body).await;
            assert!(matches!(&answer, Err(Refusal::Denied(_))), "{answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_names_the_nodes_that_have_not_confirmed_it() {
    let mut network = Network::start(3).await;
    let home = network.path("mallory");
    let mallory = network.client_as(Role::Client, &home).await;
    let holder = mallory.identity().holder.to_string();
    let silent = (network.coordinator().await + 1) % 3;
    let view = mallory.refresh().await.unwrap();
    let name = view.node(network.nodes[silent].id()).unwrap().name.clone();
    network.pause_node(silent);
    for arguments in [&["revoke", &holder][..], &["policy", "create", "p"]] {
        let told = network.dkv(arguments).await;
        let said = String::from_utf8_lossy(&told.stderr);
        assert_eq!(told.status.code(), Some(8), "{told:?}");
        assert!(said.contains(&name) && said.contains("did not confirm"), "{said}");
    }
    network.resume_node(silent);
    // Now they all have, and nobody waits for anybody.
    let begun = Instant::now();
    let told = network.dkv(&["policy", "drop", "p"]).await;
    assert!(told.status.success(), "{told:?}");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}
