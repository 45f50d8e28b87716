//! Connections and their bounds, some with a paused clock.

use std::time::Duration;

use bytes::Bytes;
use dkv_listener::test_support::{refuses_pages_of_other_sites, serves_programs};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;
use crate::app::Options;
use crate::limits::BODY_TIMEOUT;
use crate::memory_store::MemoryStore;
use crate::{Access, App};

fn app() -> App {
    let options = Options { network: "here".into(), access: Access::Anybody, extra_metrics: None };
    App::new(MemoryStore::default(), options)
}

/// Opens a connection, and returns it with the task that serves it.
fn connected() -> (DuplexStream, JoinHandle<()>) {
    let (client, stream) = tokio::io::duplex(64 * 1024);
    let serving = Serving { builder: builder(), app: app(), tls: None };
    let (never, stop) = watch::channel(());
    let served = async move {
        serving.serve_connection(stream, None, None, stop).await;
        drop(never);
    };
    (client, tokio::spawn(served))
}

/// Sends bytes one by one, `every_s` seconds apart, until the other side closes. Returns what it
/// sent and after how many seconds it closed.
async fn dribble(client: DuplexStream, bytes: &[u8], every_s: u64) -> (String, u64) {
    let begun = Instant::now();
    let (mut from, mut to) = tokio::io::split(client);
    let sending = async {
        for byte in bytes.iter().cycle() {
            if to.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(every_s)).await;
        }
        std::future::pending::<()>().await;
    };
    let mut said = Vec::new();
    tokio::select! {
        read = from.read_to_end(&mut said) => drop(read.unwrap()),
        () = sending => {}
    }
    (String::from_utf8(said).unwrap(), begun.elapsed().as_secs())
}

#[tokio::test(start_paused = true)]
async fn an_endless_head_closes_its_connection() {
    let (mut client, served) = connected();
    client.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx: ").await.unwrap();
    let (said, seconds) = dribble(client, b"y", 5).await;
    assert_eq!((said.as_str(), seconds), ("", HEAD_TIMEOUT.as_secs()));
    served.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_another_request_is_closed() {
    let (mut client, served) = connected();
    client.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let (said, seconds) = dribble(client, b"", 5).await;
    assert!(said.starts_with("HTTP/1.1 200 ") && said.ends_with("ok\n"), "{said}");
    assert_eq!(seconds, HEAD_TIMEOUT.as_secs());
    served.await.unwrap();
    // So is one that never sends anything.
    let (client, served) = connected();
    let (said, seconds) = dribble(client, b"", 5).await;
    assert_eq!((said.as_str(), seconds), ("", IDLE_TIMEOUT.as_secs()));
    served.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_body_that_arrives_too_slowly_is_answered_with_408() {
    for every_s in [7, 1_000_000] {
        let (mut client, served) = connected();
        let head = b"PUT /v1/kv/k HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n";
        client.write_all(head).await.unwrap();
        let (said, seconds) = dribble(client, b"v", every_s).await;
        assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
        assert!(
            said.contains("\"code\":\"body\"") && said.contains("\"effect\":\"none\""),
            "{said}"
        );
        assert_eq!(seconds, BODY_TIMEOUT.as_secs());
        served.await.unwrap();
    }
}

type Sender = http2::SendRequest<Full<Bytes>>;

/// Opens an HTTP/2 connection that pings even without requests; the task ends with it.
async fn pinging(client: DuplexStream) -> (Sender, JoinHandle<hyper::Result<()>>) {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).initial_stream_window_size(1024);
    builder.keep_alive_interval(Duration::from_secs(5)).keep_alive_while_idle(true);
    let (sender, connection) = builder.handshake(TokioIo::new(client)).await.unwrap();
    (sender, tokio::spawn(connection))
}

async fn ask(to: &mut Sender, method: &str, value: Vec<u8>) -> axum::http::Response<Incoming> {
    let request = Request::builder().method(method).uri("http://localhost/v1/kv/k");
    to.send_request(request.body(Full::from(value)).unwrap()).await.unwrap()
}

/// Returns the seconds until a connection ends, which must be within minutes.
async fn ended(since: Instant, connection: JoinHandle<hyper::Result<()>>) -> u64 {
    let ended = tokio::time::timeout(10 * IDLE_TIMEOUT, connection).await;
    let _ = ended.expect("the connection stays open").unwrap();
    since.elapsed().as_secs()
}

#[tokio::test(start_paused = true)]
async fn pings_alone_do_not_keep_a_connection() {
    let (client, served) = connected();
    let (mut sender, connection) = pinging(client).await;
    for _ in 0..3 {
        assert_eq!(ask(&mut sender, "PUT", vec![7; 1000]).await.status().as_u16() / 100, 2);
        tokio::time::sleep(IDLE_TIMEOUT - Duration::from_secs(1)).await;
        assert!(sender.is_ready());
    }
    assert_eq!(ended(Instant::now(), connection).await, 1);
    served.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_unread_answer_closes_its_connection_and_a_slow_reader_does_not() {
    let (client, served) = connected();
    let (mut sender, connection) = pinging(client).await;
    let value = vec![7; 16 * ANSWER_PIECE_BYTES];
    ask(&mut sender, "PUT", value.clone()).await;
    let mut body = ask(&mut sender, "GET", Vec::new()).await.into_body();
    let (begun, mut read, mut stop) = (Instant::now(), 0, ANSWER_PIECE_BYTES);
    while let Some(frame) = body.frame().await {
        read += frame.unwrap().into_data().unwrap().len();
        if read >= stop {
            stop += ANSWER_PIECE_BYTES;
            tokio::time::sleep(IDLE_TIMEOUT / 4).await;
        }
    }
    assert_eq!(read, value.len());
    assert!(begun.elapsed() > 3 * IDLE_TIMEOUT);

    let begun = Instant::now();
    let unread = ask(&mut sender, "GET", Vec::new()).await;
    // Requests in progress have some time to finish.
    assert_eq!(ended(begun, connection).await, (IDLE_TIMEOUT + STOP_TIMEOUT).as_secs());
    served.await.unwrap();
    drop(unread);
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_their_turn() {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut listener = Listener::bind(address, &Args::default()).await.unwrap();
    listener.connections_max = 2;
    let (address, app) = (listener.address(), app());
    let metrics = Arc::clone(&app.metrics);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(listener.serve(app, async { _ = stopped.await }));
    let ask_for_life = async |stream: &mut TcpStream| {
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    };
    let mut said = [0; 12];
    let mut inside = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // Busy while the rest of the body may arrive.
        let head = b"PUT /v1/kv/k HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n1";
        stream.write_all(head).await.unwrap();
        inside.push(stream);
    }
    while metrics.under_way() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut third = TcpStream::connect(address).await.unwrap();
    ask_for_life(&mut third).await;
    let early = tokio::time::timeout(Duration::from_millis(200), third.read_exact(&mut said)).await;
    assert!(early.is_err() && metrics.open() == 2);
    drop(inside.pop());
    third.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"HTTP/1.1 200");
    stop.send(()).unwrap();
    serving.await.unwrap();
}

#[tokio::test]
async fn silent_connections_do_not_block_others() {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut listener = Listener::bind(address, &Args::default()).await.unwrap();
    listener.connections_max = 8;
    let (address, app) = (listener.address(), app());
    let metrics = Arc::clone(&app.metrics);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(listener.serve(app, async { _ = stopped.await }));
    let mut silent = Vec::new();
    for number in 0..20 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // Half of them have begun a head.
        if number % 2 == 0 {
            stream.write_all(b"GET /livez HTTP/1.1\r\nx: ").await.unwrap();
        }
        silent.push(stream);
    }
    // Answered before any of them reaches its time limit.
    let answered = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut said = [0; 12];
        stream.read_exact(&mut said).await.unwrap();
        said
    };
    let said = tokio::time::timeout(HEAD_TIMEOUT / 6, answered).await.unwrap();
    assert_eq!(&said, b"HTTP/1.1 200");
    assert!(metrics.open() <= 8);
    stop.send(()).unwrap();
    serving.await.unwrap();
}

#[tokio::test]
async fn no_listener_serves_a_page_of_another_site() {
    let open = Args { without_authentication: true, ..Args::default() };
    let main = SocketAddr::from(([127, 0, 0, 1], 9));
    for (app, args) in
        [(app(), Args::default()), (app(), open.clone()), (crate::forwarder(main), open)]
    {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Listener::bind(loopback, &args).await.unwrap();
        let address = listener.address();
        let serving = tokio::spawn(listener.serve(app, std::future::pending()));
        refuses_pages_of_other_sites(address, "/kvs/k").await;
        serves_programs(address, "/livez").await;
        serving.abort();
    }
}
