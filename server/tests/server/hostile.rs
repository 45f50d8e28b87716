//! Garbage on the port disturbs nobody else.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use dkv_wire::identity::Role;
use dkv_wire::limits::{JOIN_FRAME_BYTES_MAX, SERVER_FRAME_BYTES_MAX};
use dkv_wire::message::{ServerAnswer, ServerRefusal, ServerRequest};
use dkv_wire::quic::{Close, Endpoint};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};

use crate::support::{Peer, Place, TIMEOUT};

/// Asserts that other peers are served promptly.
async fn others_are_served(place: &Place, server: SocketAddr, connected: &Peer) {
    let served = async {
        connected.ask(&ServerRequest::Lookup).await;
        place.peer(server, Role::Client).await.ask(&ServerRequest::Lookup).await;
    };
    tokio::time::timeout(Duration::from_secs(2), served).await.expect("others have to wait");
}

fn frame(announced: usize, content: &[u8]) -> Vec<u8> {
    let mut frame = (announced as u32).to_le_bytes().to_vec();
    frame.extend_from_slice(content);
    frame
}

#[tokio::test]
async fn random_packets_disturb_nobody() {
    let place = Place::new();
    let server = place.start().await;
    let connected = place.peer(server.address(), Role::Client).await;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let packets = prop::collection::vec(any::<u8>(), 0..1400);
    let config = Config { cases: 2000, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&packets, |packet| {
            let _ = socket.send_to(&packet, server.address());
            Ok(())
        })
        .unwrap();
    others_are_served(&place, server.address(), &connected).await;
}

#[tokio::test]
async fn random_frames_of_certified_peers_are_all_answered() {
    let place = Place::new();
    let server = place.start().await;
    let node = place.peer(server.address(), Role::Node).await;
    let strategy = prop::collection::vec(any::<u8>(), 0..200);
    let mut runner = TestRunner::deterministic();
    for _ in 0..300 {
        let content = strategy.new_tree(&mut runner).unwrap().current();
        let (mut send, mut receive) = node.connection.open_bi().await.unwrap();
        send.write_all(&frame(content.len(), &content)).await.unwrap();
        send.finish().unwrap();
        let answer = receive.read_to_end(SERVER_FRAME_BYTES_MAX).await.unwrap();
        assert!(!answer.is_empty(), "every frame is answered");
    }
    others_are_served(&place, server.address(), &node).await;
}

#[tokio::test]
async fn oversized_frames_are_refused() {
    let place = Place::new();
    let server = place.start().await;
    let client = place.peer(server.address(), Role::Client).await;

    // A joiner that announces too long a frame is disconnected before it sends it.
    let endpoint = Endpoint::dial_only(None).unwrap();
    let authority = place.token(Role::Node).authority;
    let joiner = endpoint.connect_to_join(server.address(), authority).await.unwrap();
    let (mut send, _receive) = joiner.open_bi().await.unwrap();
    send.write_all(&frame(JOIN_FRAME_BYTES_MAX + 1, b"")).await.unwrap();
    let closed = tokio::time::timeout(TIMEOUT, joiner.closed()).await.unwrap();
    let quinn::ConnectionError::ApplicationClosed(why) = closed else { panic!("{closed}") };
    assert_eq!(why.error_code, (Close::Protocol as u32).into());

    // A client gets an error and keeps its connection; only a node's frames may be long.
    for bytes in [JOIN_FRAME_BYTES_MAX + 1, u32::MAX as usize] {
        let (mut send, receive) = client.connection.open_bi().await.unwrap();
        send.write_all(&frame(bytes, b"")).await.unwrap();
        let mut reader = dkv_wire::frame::FrameReader::new(receive, SERVER_FRAME_BYTES_MAX);
        let answer = reader.next().await.unwrap().unwrap();
        let answer: ServerAnswer = dkv_wire::codec::decode(&answer).unwrap();
        let ServerAnswer::Refused(ServerRefusal::Invalid(why)) = answer else { panic!() };
        assert!(why.contains("over the limit"), "{why}");
    }
    others_are_served(&place, server.address(), &client).await;
}

#[tokio::test]
async fn slow_frames_disturb_nobody() {
    let place = Place::new();
    let server = place.start().await;
    let client = place.peer(server.address(), Role::Client).await;
    let authority = place.token(Role::Node).authority;
    let endpoint = Endpoint::dial_only(None).unwrap();
    let mut slow = Vec::new();
    for _ in 0..100 {
        let joiner = endpoint.connect_to_join(server.address(), authority).await.unwrap();
        let (mut send, receive) = joiner.open_bi().await.unwrap();
        send.write_all(&frame(100, b"half")).await.unwrap();
        slow.push((joiner, send, receive));
    }
    for _ in 0..15 {
        let (mut send, receive) = client.connection.open_bi().await.unwrap();
        send.write_all(&frame(100, b"half")).await.unwrap();
        slow.push((client.connection.clone(), send, receive));
    }
    others_are_served(&place, server.address(), &client).await;

    // Slow joiners are disconnected.
    let closed = tokio::time::timeout(Duration::from_secs(8), slow[0].0.closed()).await;
    assert!(matches!(closed, Ok(quinn::ConnectionError::ApplicationClosed(_))), "{closed:?}");
}

#[tokio::test]
async fn a_joiner_cannot_ask_what_takes_a_certificate() {
    let place = Place::new();
    let server = place.start().await;
    let endpoint = Endpoint::dial_only(None).unwrap();
    let authority = place.token(Role::Node).authority;
    let joiner = endpoint.connect_to_join(server.address(), authority).await.unwrap();
    let request = ServerRequest::Status;
    let answer: Result<ServerAnswer, _> =
        dkv_wire::rpc::call(&joiner, None::<&()>, &request, SERVER_FRAME_BYTES_MAX, TIMEOUT).await;
    assert!(answer.is_err(), "{answer:?}");
}

#[tokio::test]
async fn one_certificate_does_not_take_all_connections() {
    let place = Place::new();
    let server = place.start().await;
    let client = place.peer(server.address(), Role::Client).await;
    let mut more = Vec::new();
    for _ in 0..64 {
        more.push(client.again(server.address()).await);
    }
    let last = more.last().unwrap();
    let closed = tokio::time::timeout(TIMEOUT, last.connection.closed()).await.unwrap();
    let quinn::ConnectionError::ApplicationClosed(why) = closed else { panic!("{closed}") };
    assert_eq!(why.error_code, (Close::Busy as u32).into());
    others_are_served(&place, server.address(), &client).await;

    // Closed connections make room again.
    for peer in more {
        Close::Done.close(&peer.connection, "");
        peer.endpoint.close().await;
    }
    client.again(server.address()).await.ask(&ServerRequest::Lookup).await;
}
