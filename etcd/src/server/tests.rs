//! Tests of the listener: the settings of HTTP/2, with frames written by hand; browsers; and those
//! who take all that they get.

use std::convert::Infallible;
use std::net::SocketAddr;

use dkv_listener::test_support::{refuses_pages_of_other_sites, serves_programs};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use super::running::RequestBody;
use super::{Asker, Face, Listener, builder};
use crate::args::Args;
use crate::budget::Budget;
use crate::http::Body;
use crate::json::answer::plain;

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

async fn length(request: Request<RequestBody<Incoming>>) -> Response<Body> {
    match request.into_body().collect().await {
        Ok(body) => plain(StatusCode::OK, body.to_bytes().len().to_string()),
        Err(error) => plain(StatusCode::TOO_MANY_REQUESTS, error.to_string()),
    }
}

/// Answers with the length of the body.
struct Lengths;

impl Face for Lengths {
    fn answer(
        &self,
        request: Request<RequestBody<Incoming>>,
    ) -> impl Future<Output = Response<Body>> + Send + 'static {
        length(request)
    }

    fn asker(&self, _: Option<&str>, _: Option<&str>) -> Asker {
        Asker::Anybody
    }
}

async fn serve(budget: Budget) -> (SocketAddr, JoinHandle<()>) {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = Listener::bind(loopback, &Args::default()).await.unwrap();
    let address = listener.address();
    (address, tokio::spawn(listener.serve_face(Lengths, budget, std::future::pending())))
}

#[tokio::test]
async fn no_listener_serves_a_page_of_another_site() {
    let (address, serving) = serve(Budget::default()).await;
    for path in ["/v3/kv/put", "/metrics", "/health", "/version"] {
        refuses_pages_of_other_sites(address, path).await;
    }
    serves_programs(address, "/version").await;
    serving.abort();
}

#[tokio::test]
async fn those_who_send_long_messages_slowly_do_not_keep_others_out() {
    const BUDGET: usize = 1024 * 1024;
    let (address, serving) = serve(Budget::new([BUDGET, 0, 0, 0], 4096)).await;
    let head = |length: usize| {
        let fields = "Host: localhost\r\nConnection: close\r\n";
        format!("POST / HTTP/1.1\r\n{fields}Content-Length: {length}\r\n\r\n")
    };
    // Together they would have four times as much as there is, and send no more.
    let part = [head(2 * BUDGET).into_bytes(), vec![b'x'; BUDGET / 16]].concat();
    let mut flooders = Vec::new();
    for _ in 0..64 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // One that is refused may not be read to the end.
        _ = stream.write_all(&part).await;
        flooders.push(stream);
    }
    let mut said = [0; 12];
    flooders[63].read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"HTTP/1.1 429");
    // A short one is taken even from their address, and longer ones from another.
    for (from, length) in [([127, 0, 0, 1], 3000), ([127, 0, 0, 2], BUDGET / 8)] {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((from, 0))).unwrap();
        let mut stream = socket.connect(address).await.unwrap();
        let request = head(length) + &"x".repeat(length);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        assert!(said.starts_with("HTTP/1.1 200 ") && said.ends_with(&length.to_string()), "{said}");
    }
    serving.abort();
}
