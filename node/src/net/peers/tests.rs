use std::sync::Arc;
use std::time::Duration;

use dkv_wire::acceptor::Acceptor;
use dkv_wire::quic::Endpoint;
use dkv_wire::tls::Admit;

use super::*;
use crate::raft::test_replica::{credentials, new_authority};

/// Peers that know one node, and the endpoint at which that node listens.
fn two_nodes() -> (Peers, NodeId, Endpoint) {
    let authority = new_authority();
    let (own, other) = (credentials(&authority), credentials(&authority));
    let node = other.identity.as_node().unwrap();
    let address = "127.0.0.1:0".parse().unwrap();
    let listener = Endpoint::listen(address, other, Admit::Certified, b"other").unwrap();
    let peers = Peers::new(Endpoint::dial_only(Some(own)).unwrap(), Arc::new(Acceptor::default()));
    peers.learn(node, listener.local_address().unwrap());
    (peers, node, listener)
}

/// Accepts connections and keeps them open.
fn accept(listener: &Endpoint) {
    let listener = listener.quinn().clone();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Some(incoming) = listener.accept().await {
            open.push(incoming.await);
        }
    });
}

#[tokio::test]
async fn what_was_asked_before_a_connection_was_open_says_nothing_about_it() {
    let (peers, node, listener) = two_nodes();
    accept(&listener);
    let asked = Instant::now();
    let connection = peers.connection(node, Lane::Urgent).await.unwrap();
    // A call that waited for the handshake has timed out, and the other node connects.
    peers.failed(node, Lane::Urgent, asked);
    tokio::time::sleep(connection.rtt() * 3).await;
    peers.redial(node);
    assert_eq!(connection.close_reason(), None);
    // One that was sent on the connection and has had no answer for longer than an answer takes.
    peers.failed(node, Lane::Urgent, Instant::now());
    tokio::time::sleep(connection.rtt() * 3 + Duration::from_millis(1)).await;
    peers.redial(node);
    assert!(connection.close_reason().is_some());
}

#[tokio::test]
async fn one_late_answer_is_no_dead_connection() {
    let (peers, node, listener) = two_nodes();
    accept(&listener);
    let connection = peers.connection(node, Lane::Urgent).await.unwrap();
    let link = peers.link(node, Lane::Urgent);
    assert!(!lock(&link.state).seems_dead());
    lock(&link.state).failing_since = Some(Instant::now() + Duration::from_secs(1));
    peers.redial(node);
    assert_eq!(connection.close_reason(), None);
}
