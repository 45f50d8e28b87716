//! What each role may ask, and the fate of removed holders.

use dkv_wire::identity::Role;
use dkv_wire::message::{ServerAnswer, ServerRefusal, ServerRequest};
use dkv_wire::quic::Close;

use crate::support::{Peer, Place, TIMEOUT, create_token, register};

#[tokio::test]
async fn roles_decide_who_may_ask_what() {
    let place = Place::new();
    let server = place.start().await;
    let node = place.peer(server.address(), Role::Node).await;
    let client = place.peer(server.address(), Role::Client).await;
    let admin = place.peer(server.address(), Role::Admin).await;

    let create = create_token(Role::Node, None);
    let revoke = ServerRequest::RevokeToken(place.token(Role::Client).id);
    let report = ServerRequest::Report(node.report_of(1, &[&node], &[]));
    let all = [register(4401), report, create, ServerRequest::ListTokens, revoke];
    let may = |role: Role, request: &ServerRequest| match request {
        ServerRequest::Register { .. } | ServerRequest::Report(_) => role == Role::Node,
        _ => role == Role::Admin,
    };
    for request in &all {
        for peer in [&node, &client, &admin] {
            let role = peer.credentials.identity.role;
            let answer = peer.ask(request).await;
            let denied = matches!(answer, ServerAnswer::Refused(ServerRefusal::Denied(_)));
            assert_eq!(denied, !may(role, request), "{role} asks {request:?}: {answer:?}");
        }
    }
    for peer in [&node, &client, &admin] {
        assert!(matches!(peer.ask(&ServerRequest::Lookup).await, ServerAnswer::View(Some(_))));
        assert!(matches!(peer.ask(&ServerRequest::Status).await, ServerAnswer::Status(_)));
    }
}

#[tokio::test]
async fn a_node_cannot_report_for_another() {
    let place = Place::new();
    let server = place.start().await;
    let first = place.peer(server.address(), Role::Node).await;
    let second = place.peer(server.address(), Role::Node).await;
    let forged = ServerRequest::Report(first.report_of(1, &[&first], &[]));
    assert!(matches!(second.refusal(&forged).await, ServerRefusal::Invalid(_)));
    assert_eq!(second.ask(&ServerRequest::Lookup).await, ServerAnswer::View(None));
}

#[tokio::test]
async fn a_removed_holder_is_disconnected_at_once_and_for_good() {
    let place = Place::new();
    let server = place.start().await;
    let coordinator = place.peer(server.address(), Role::Node).await;
    let node = place.peer(server.address(), Role::Node).await;
    let client = place.peer(server.address(), Role::Client).await;
    let bystander = place.peer(server.address(), Role::Client).await;
    coordinator.register(4401).await;
    node.register(4402).await;
    coordinator.report(1, &[&coordinator, &node], &[]).await;

    coordinator.report(1, &[&coordinator], &[node.holder(), client.holder()]).await;
    for peer in [&node, &client] {
        let closed = tokio::time::timeout(TIMEOUT, peer.connection.closed()).await.unwrap();
        let quinn::ConnectionError::ApplicationClosed(why) = closed else { panic!("{closed}") };
        assert_eq!(why.error_code, (Close::Denied as u32).into());
    }
    bystander.ask(&ServerRequest::Lookup).await;

    let stays_out = async |server| {
        for peer in [&node, &client] {
            if let Ok(again) = Peer::connect(server, peer.credentials.clone()).await {
                assert!(again.try_ask(&ServerRequest::Lookup).await.is_err());
                let public_key = peer.credentials.public_key().unwrap();
                assert!(again.try_ask(&ServerRequest::Renew { public_key }).await.is_err());
            }
        }
    };
    stays_out(server.address()).await;
    drop(server);
    let server = place.start().await;
    stays_out(server.address()).await;
    bystander.again(server.address()).await.ask(&ServerRequest::Lookup).await;
}
