//! The limits of users: requests and bytes a second, and connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use dkv_api::{
    Error, KeyRange, PolicyLimits, ReadOptions, Role, WatchEvent, WatchOptions, WriteOptions,
};
use dkv_test_support::{eventually, output, within};
use dkv_wire::codec::decode;
use dkv_wire::frame::{FrameReader, FrameWriter};
use dkv_wire::limits::FRAME_BYTES_MAX;
use dkv_wire::message::{
    Answer, LimitKind, Opening, Refusal, RequestBody, WatchFrame, WatchRequest,
};
use dkv_wire::tls::Expect;
use serde_json::json;

use super::{SHARD, SOON, ask, client, direct, rule, user};
use crate::gateway::Gateway;
use crate::gateway::http::Http;
use crate::harness::Network;
use crate::harness::direct::Direct;

fn requests(most: u32) -> PolicyLimits {
    PolicyLimits { requests: Some(most), ..PolicyLimits::default() }
}

/// Starts a network of one node, in which these users may do everything, and their policies have
/// their names.
async fn network_of(users: &[&str]) -> Network {
    let network = Network::alone(json!({"shards": 1, "replication": 1}), 1).await;
    let admin = network.admin().await;
    admin.write("k", "v").await.unwrap();
    for name in users {
        admin.create_policy(name, vec![rule("", "read,write,watch")]).await.unwrap();
        admin.grant_policy(name, user(name)).await.unwrap();
    }
    network
}

#[tokio::test(flavor = "multi_thread")]
async fn a_greedy_user_keeps_to_its_limit_and_slows_no_other() {
    const LIMIT: u32 = 100;
    const READS: u32 = 2000;
    let network = network_of(&["greedy", "modest"]).await;
    let modest = client(&network, Role::Client, "modest").await;
    let reads = async || {
        let begun = Instant::now();
        for _ in 0..READS {
            modest.read("k").await.unwrap();
        }
        begun.elapsed()
    };
    reads().await;
    let alone = reads().await;
    network.admin().await.limit_policy("greedy", requests(LIMIT)).await.unwrap();
    let greedy = client(&network, Role::Client, "greedy").await;
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let begun = Instant::now();
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let (greedy, stop, served) = (greedy.clone(), Arc::clone(&stop), Arc::clone(&served));
            tokio::spawn(async move {
                let hasty = || ReadOptions::default().timeout(Duration::from_millis(20));
                while !stop.load(Ordering::Relaxed) {
                    match greedy.read_with("k", hasty()).await {
                        Ok(_) => _ = served.fetch_add(1, Ordering::Relaxed),
                        Err(Error::Limited { .. } | Error::Unavailable(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        })
        .collect();
    let mut beside = reads().await;
    while begun.elapsed() < Duration::from_secs(3) {
        beside = beside.min(reads().await);
    }
    let passed = begun.elapsed().as_secs_f64();
    let served = served.load(Ordering::Relaxed);
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    let most = f64::from(LIMIT) * (passed + 1.0);
    assert!(f64::from(served) <= most + 1.0, "{served} in {passed} s");
    assert!(f64::from(served) >= f64::from(LIMIT) * passed / 2.0, "{served} in {passed} s");
    assert!(beside < alone * 3 + Duration::from_millis(500), "{beside:?} beside, {alone:?} alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_waits_as_it_is_told_and_says_so_if_it_may_not() {
    let network = network_of(&["alice"]).await;
    let admin = network.admin().await;
    let alice = client(&network, Role::Client, "alice").await;
    alice.read("k").await.unwrap();
    admin.limit_policy("alice", requests(5)).await.unwrap();
    let begun = Instant::now();
    for number in 0..10 {
        alice.read("k").await.unwrap();
        alice.write("k", number.to_string()).await.unwrap();
    }
    // Five at once, and five a second.
    assert!(begun.elapsed() >= Duration::from_millis(2900), "{:?}", begun.elapsed());
    let hasty = || WriteOptions::default().timeout(Duration::from_millis(30));
    let mut wait = None;
    for _ in 0..10 {
        if let Err(Error::Limited { retry_after, why }) = alice.write_with("k", "v", hasty()).await
        {
            assert!(why.contains("limit of requests a second"), "{why}");
            wait = Some(retry_after);
        }
    }
    assert!(wait.is_some_and(|wait| wait <= Duration::from_millis(200)), "{wait:?}");
    // A watch counts too, and begins once it may.
    let mut watch = alice.watch(KeyRange::Key("k".into()), WatchOptions::default()).await.unwrap();
    admin.write("k", "news").await.unwrap();
    loop {
        let event = within(SOON, "a change", watch.next()).await.unwrap();
        if matches!(&event, WatchEvent::Change(change) if change.key == "k") {
            break;
        }
    }
    // The least of several policies counts, and a limit that is taken away is gone at once.
    admin.create_policy("more", Vec::new()).await.unwrap();
    admin.limit_policy("more", requests(1_000_000)).await.unwrap();
    admin.grant_policy("more", user("alice")).await.unwrap();
    let shown = network.dkv(&["policy", "show", "alice"]).await;
    assert!(output(&shown.stdout).contains("limits   5 requests a second"), "{shown:?}");
    let some = async || {
        let begun = Instant::now();
        for _ in 0..15 {
            alice.read("k").await.unwrap();
        }
        begun.elapsed()
    };
    assert!(some().await >= Duration::from_millis(1900));
    let ended = network.dkv(&["policy", "limit", "alice", "--none"]).await;
    assert!(ended.status.success(), "{ended:?}");
    assert!(some().await < Duration::from_millis(1900));
    assert!(admin.limit_policy("alice", requests(0)).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_and_connections_are_limited_by_user_and_http_says_when_to_come_again() {
    let network = network_of(&["alice", "bob"]).await;
    let admin = network.admin().await;
    let bob = client(&network, Role::Client, "bob").await;
    admin.write("long", vec![b'x'; 300 * 1024]).await.unwrap();
    bob.read("k").await.unwrap();
    let bytes = PolicyLimits { bytes: Some(100 * 1024), ..PolicyLimits::default() };
    admin.limit_policy("bob", bytes).await.unwrap();
    // An answer leaves a debt, which the next request waits for.
    bob.read("long").await.unwrap();
    let hasty = ReadOptions::default().timeout(Duration::from_millis(50));
    let refused = bob.read_with("k", hasty).await.unwrap_err();
    assert!(
        matches!(&refused, Error::Limited { retry_after, why }
        if *retry_after > Duration::from_secs(1) && why.contains("bytes")),
        "{refused}"
    );
    let begun = Instant::now();
    bob.read("k").await.unwrap();
    assert!(begun.elapsed() > Duration::from_secs(1), "{:?}", begun.elapsed());

    // Connections of all its certificates together.
    let connections = PolicyLimits { connections: Some(2), ..PolicyLimits::default() };
    admin.limit_policy("alice", connections).await.unwrap();
    let address = network.nodes[0].address();
    let (first, second) = (
        direct(&network, Role::Client, "alice").await,
        direct(&network, Role::Reader, "alice").await,
    );
    let held = [first.to_node(address).await.unwrap(), second.to_node(address).await.unwrap()];
    for connection in &held {
        let answer = ask(connection, RequestBody::View, false).await;
        assert!(matches!(answer, Ok(Answer::View(..))), "{answer:?}");
    }
    let third = second.to_node(address).await.unwrap();
    let closed = within(SOON, "the refusal", third.closed()).await.to_string();
    assert!(closed.contains("as many connections"), "{closed}");
    held[0].close(0_u32.into(), b"");
    eventually("no connection becomes free", async || {
        let again = second.to_node(address).await.unwrap();
        let open = tokio::time::timeout(Duration::from_millis(200), again.closed()).await;
        if open.is_err() { Ok(()) } else { Err("it was closed".to_owned()) }
    })
    .await;

    // A gateway passes the refusal on at once.
    admin.limit_policy("alice", requests(3)).await.unwrap();
    let gateway = Gateway::start_with(&network, &["--with-authentication"]).await;
    let made = network.dkv(&["token", "create", "--http", "--user", "alice"]).await;
    let token = format!("Bearer {}", output(&made.stdout).trim());
    let (http, url) = (Http::new(false), gateway.url("/v1/kv/k"));
    let mut statuses = Vec::new();
    for _ in 0..10 {
        let answer = http.send("GET", &url, &[("authorization", &token)], "").await;
        if answer.status == 429 {
            assert_eq!(answer.field("retry-after"), "1");
            assert_eq!(
                (&answer.json()["code"], &answer.json()["effect"]),
                (&json!("limited"), &json!("none"))
            );
        }
        statuses.push(answer.status);
    }
    assert!(statuses.contains(&200) && statuses.contains(&429), "{statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, 200 | 429)), "{statuses:?}");
}

/// A watch of a key on one stream, without the client library.
struct Stream {
    reader: FrameReader<quinn::RecvStream>,
    _writer: FrameWriter<quinn::SendStream>,
}

impl Stream {
    async fn open(connection: &quinn::Connection, key: &str, of: &str) -> Self {
        let (send, receive) = connection.open_bi().await.unwrap();
        let mut writer = FrameWriter::new(send);
        writer.push(&Opening::Watch);
        let keys = KeyRange::Key(key.as_bytes().to_vec().into());
        let user = Some(user(of));
        let request = WatchRequest { shard: SHARD, keys, after: None, previous: false, user };
        writer.send(&request).await.unwrap();
        Self { reader: FrameReader::new(receive, FRAME_BYTES_MAX), _writer: writer }
    }

    /// Returns the number of changes in the next frame, or why there is none.
    async fn frame(&mut self) -> Result<usize, Refusal> {
        let frame = within(SOON, "a frame", self.reader.next()).await.unwrap().unwrap();
        match decode(&frame).unwrap() {
            WatchFrame::Changes { changes, .. } => Ok(changes.len()),
            WatchFrame::Ended(refusal) => Err(refusal),
        }
    }

    /// Waits for a change, and returns the longest time without a frame.
    async fn change(&mut self) -> Duration {
        let mut longest = Duration::ZERO;
        loop {
            let begun = Instant::now();
            let changes = self.frame().await.unwrap();
            longest = longest.max(begun.elapsed());
            if changes > 0 {
                return longest;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_of_a_user_pay_for_their_bytes_and_hold_up_no_other_user_of_their_holder() {
    /// Frames of as many bytes as the holder may have in memory, and some more.
    const WATCHES: usize = 130;
    const BYTES: u64 = 32 * 1024;
    let network = network_of(&["alice", "bob"]).await;
    let admin = network.admin().await;
    let address = network.nodes[0].address();
    let gateway = Direct::join(&network, Role::Client).await;
    let connection = gateway.endpoint.connect_to_watch(address, Expect::AnyNode).await.unwrap();

    // It begins before there is a limit, and keeps to it all the same.
    let mut first = Stream::open(&connection, "first", "alice").await;
    first.frame().await.unwrap();
    let bytes = PolicyLimits { bytes: Some(BYTES), ..PolicyLimits::default() };
    admin.limit_policy("alice", bytes).await.unwrap();
    // The first frame under the limit finds a full bucket.
    for number in 0..2 {
        admin.write("first", vec![number; 320 * 1024]).await.unwrap();
        first.change().await;
    }
    let begun = Instant::now();
    admin.write("first", "last").await.unwrap();
    let silence = first.change().await;
    // One second's worth and the time since are less than a tenth.
    assert!(begun.elapsed() > Duration::from_secs(8), "{:?}", begun.elapsed());
    assert!(silence < Duration::from_secs(8), "the client gave it up after {silence:?}");

    let (mut many, mut of_bob) = (Vec::new(), Stream::open(&connection, "bob", "bob").await);
    of_bob.frame().await.unwrap();
    admin.limit_policy("alice", PolicyLimits::default()).await.unwrap();
    for _ in 0..WATCHES {
        let mut watch = Stream::open(&connection, "many", "alice").await;
        watch.frame().await.unwrap();
        many.push(watch);
    }
    admin.limit_policy("alice", bytes).await.unwrap();
    for number in 0..2 {
        admin.write("many", vec![number; 1024 * 1024]).await.unwrap();
    }
    // Each has sent one frame at least, and pauses. Together, because one that is not read holds up
    // the others of its connection.
    futures::future::join_all(many.iter_mut().map(Stream::change)).await;
    admin.write("bob", vec![0; 64 * 1024]).await.unwrap();
    of_bob.change().await;

    // The beginning of a watch is a request.
    admin.limit_policy("bob", requests(1)).await.unwrap();
    let mut refused = None;
    for _ in 0..20 {
        let mut watch = Stream::open(&connection, "bob", "bob").await;
        refused = refused.or(watch.frame().await.err());
    }
    let is_limited =
        |it: &Refusal| matches!(it, Refusal::Limited { limit: LimitKind::Requests, .. });
    assert!(refused.as_ref().is_some_and(is_limited), "{refused:?}");
}
