//! Tests of the settings of HTTP/2, with frames written by hand.

use std::convert::Infallible;

use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Response, body::Bytes};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::builder;

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u32;
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Sends requests that are all reset before the server can have seen one, and then a ping; returns
/// the kind of the frame with which the server answers.
async fn answer_to_resets(builder: &Builder<TokioExecutor>, number: u32) -> u8 {
    let (mut client, server) = tokio::io::duplex(1024 * 1024);
    let service = service_fn(|_| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"answer"))))
    });
    let connection = builder.serve_connection(TokioIo::new(server), service).into_owned();
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    sent.extend(frame(SETTINGS, 0, 0, &[]));
    for stream in (1..).step_by(2).take(number as usize) {
        // POST http / with the authority "a", and no end of the body.
        let head = [0x83, 0x86, 0x84, 0x01, 0x01, b'a'];
        sent.extend(frame(HEADERS, 0x4, stream, &head));
        sent.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    sent.extend(frame(PING, 0, 0, &[7; 8]));
    client.write_all(&sent).await.expect("room for all of it");
    // Everything has been sent before the server reads.
    let serving = tokio::spawn(async move { drop(connection.await) });
    let answer = loop {
        let mut head = [0; 9];
        client.read_exact(&mut head).await.expect("a frame");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        client.read_exact(&mut payload).await.expect("its payload");
        if head[3] == GOAWAY || head[3] == PING && payload == [7; 8] {
            break head[3];
        }
    };
    serving.abort();
    answer
}

#[tokio::test]
async fn a_client_may_reset_many_streams_at_once() {
    assert_eq!(answer_to_resets(&builder(), 500).await, PING);
    // With the library's limit, a client that cancels its watches would lose its connection.
    assert_eq!(answer_to_resets(&Builder::new(TokioExecutor::new()), 500).await, GOAWAY);
    // There is a limit all the same.
    assert_eq!(answer_to_resets(&builder(), 10_000).await, GOAWAY);
}
