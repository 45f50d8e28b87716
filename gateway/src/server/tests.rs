//! Connections and their bounds, some by a clock that is moved by hand.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;
use crate::app::Options;
use crate::limits::BODY_TIMEOUT;
use crate::memory::Memory;
use crate::{Access, App};

fn app() -> App {
    let options = Options { network: "here".into(), access: Access::Loopback, figures: None };
    App::new(Memory::default(), options)
}

/// A connection, and the task that serves it.
fn connected() -> (DuplexStream, JoinHandle<()>) {
    let (client, stream) = tokio::io::duplex(64 * 1024);
    let serving = Serving { builder: builder(), app: app(), tls: None };
    let stream = Watched::new(stream, IDLE_TIMEOUT, Arc::clone(&serving.app.metrics));
    let graceful = GracefulShutdown::new();
    let served = async move { serving.connection(stream, graceful.watcher()).await };
    (client, tokio::spawn(served))
}

/// Sends bytes one by one, with so many seconds between them, until the other side has gone; and
/// tells what it has said and after how many seconds it went.
async fn dribble(client: DuplexStream, bytes: &[u8], every_s: u64) -> (String, u64) {
    let begun = tokio::time::Instant::now();
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
async fn a_head_that_does_not_end_ends_its_connection() {
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
    // And one that never says anything.
    let (client, served) = connected();
    let (said, seconds) = dribble(client, b"", 5).await;
    assert_eq!((said.as_str(), seconds), ("", IDLE_TIMEOUT.as_secs()));
    served.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn whoever_sends_a_body_too_slowly_is_told() {
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

#[tokio::test]
async fn more_connections_than_there_may_be_wait_for_their_turn() {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut listener = Listener::bind(address, &Args::default()).await.unwrap();
    listener.connections_max = 2;
    let (address, app) = (listener.address(), app());
    let metrics = Arc::clone(&app.metrics);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(listener.serve(app, async { _ = stopped.await }));
    let ask = async |stream: &mut TcpStream| {
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    };
    let mut said = [0; 12];
    let mut inside = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        ask(&mut stream).await;
        stream.read_exact(&mut said).await.unwrap();
        inside.push(stream);
    }
    let mut third = TcpStream::connect(address).await.unwrap();
    ask(&mut third).await;
    let early = tokio::time::timeout(Duration::from_millis(200), third.read_exact(&mut said)).await;
    assert!(early.is_err() && metrics.open() == 2);
    drop(inside.pop());
    third.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"HTTP/1.1 200");
    stop.send(()).unwrap();
    serving.await.unwrap();
}
