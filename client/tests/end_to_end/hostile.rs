//! Garbage, floods and slow peers on every port. No process dies or grows without bound, and other
//! clients are served meanwhile.

mod unread;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use dkv_api::{Client, Role};
use dkv_test_support::within;
use dkv_wire::certificate::generate_key;
use dkv_wire::frame::{FrameReader, FrameWriter};
use dkv_wire::join::{JoinError, join};
use dkv_wire::limits::{CONNECTION_STREAMS_MAX, FRAME_BYTES_MAX};
use dkv_wire::message::{
    JoinAnswer, JoinRefusal, JoinRequest, Joining, Opening, RecertifyRequest, RequestBody,
    ServerAnswer, ServerRequest,
};
use dkv_wire::quic::{ConnectError, Endpoint};
use dkv_wire::rpc::call;
use dkv_wire::tls::Expect;
use dkv_wire::token::Token;
use rand::RngExt;
use serde_json::{Value, json};
use tokio::net::UdpSocket;

use crate::harness::direct::{Direct, ask, ask_server};
use crate::harness::relay::Relay;
use crate::harness::{Network, PATIENCE, eventually};

/// Number of bytes by which the memory of a process may grow.
const GROWTH_BYTES_MAX: u64 = 160 * 1024 * 1024;
/// Time without growth or much work after which a process is at rest.
const REST: Duration = Duration::from_secs(3);
/// Time of processors that is much within that, in ticks of 10 ms.
const REST_TICKS: u64 = 30;
/// Time in which well-behaved clients must be served.
const SERVICE: Duration = Duration::from_secs(5);

const MIB: usize = 1024 * 1024;
/// Number of keys with large values.
const LARGE: usize = 30;
/// Number of large values that are written over others.
const OVERWRITTEN: usize = 400;

/// A network under attack, and its state before.
struct Besieged {
    network: Network,
    client: Client,
    before: Vec<u64>,
}

impl Besieged {
    async fn start() -> Self {
        let network = Network::alone(settings(2), 3).await;
        let client = network.client().await;
        Self { network, client, before: Vec::new() }.prepared().await
    }

    /// Starts a network with large values, and with as much history as it keeps. Its nodes are
    /// patient: no other primary is to be elected while the machine is busy with the values.
    async fn with_large_values() -> Self {
        let patient = json!({
            "shards": 1, "heartbeat_ms": 200, "election_min_ms": 8000, "election_max_ms": 10000
        });
        let network = Network::alone(patient, 3).await;
        let client = network.client().await;
        // As many as the attack writes, which by themselves make a node grow.
        for number in 0..OVERWRITTEN {
            client.write(large(number), vec![7; MIB]).await.unwrap();
        }
        let mut besieged = Self { network, client, before: Vec::new() }.prepared().await;
        besieged.note_memory().await;
        besieged
    }

    /// Notes the memory from which processes grow, once what they have to do is done.
    async fn note_memory(&mut self) {
        self.before = self.memory_at_rest(None).await;
    }

    /// Waits until all processes are at rest: none has grown for a while, nor computed much.
    /// Returns the highest memory of each. None may grow by more than `most` meanwhile.
    async fn memory_at_rest(&mut self, most: Option<u64>) -> Vec<u64> {
        let mut highest = memory(&mut self.network);
        let begun = Instant::now();
        let (mut since, mut computed) = (begun, cpu_ticks(&mut self.network));
        while since.elapsed() < REST && begun.elapsed() < 3 * PATIENCE {
            tokio::time::sleep(REST / 20).await;
            most.inspect(|most| self.has_grown_by_less_than(*most));
            let mut is_at_rest = true;
            for (now, highest) in memory(&mut self.network).into_iter().zip(&mut highest) {
                is_at_rest &= now < *highest + MIB as u64;
                *highest = now.max(*highest);
            }
            let now = cpu_ticks(&mut self.network);
            is_at_rest &= now.iter().zip(&computed).all(|(now, before)| now - before < REST_TICKS);
            if !is_at_rest {
                (since, computed) = (Instant::now(), now);
            }
        }
        highest
    }

    /// Notes the state before the attack.
    async fn prepared(mut self) -> Self {
        self.client.write("k", "v").await.unwrap();
        self.before = memory(&mut self.network);
        self
    }

    /// Returns the addresses of all ports.
    fn ports(&self) -> Vec<SocketAddr> {
        let nodes = self.network.nodes.iter().map(|node| node.address());
        nodes.chain([self.network.address]).collect()
    }

    /// Checks that the network is healthy.
    async fn check(&mut self) {
        let served = async {
            self.client.write("k", "w").await.unwrap();
            self.client.read("k").await.unwrap();
        };
        within(SERVICE, "a request", served).await;
        // A new client needs the server and every node.
        let newcomer = async {
            let direct = Direct::join(&self.network, Role::Client).await;
            direct.to_server(&self.network).await.unwrap();
            for node in &self.network.nodes {
                direct.to_node(node.address()).await.unwrap();
            }
        };
        within(SERVICE, "a newcomer", newcomer).await;
        self.network.assert_alive();
        self.has_grown_by_less_than(GROWTH_BYTES_MAX);
    }

    fn has_grown_by_less_than(&mut self, most: u64) {
        let now = memory(&mut self.network);
        for (now, before) in now.iter().zip(&self.before) {
            assert!(*now < before + most, "a process grew from {before} to {now} bytes");
        }
    }
}

/// Timeouts long enough for a busy machine: the attacks do not target timing.
fn settings(shards: usize) -> Value {
    json!({
        "shards": shards, "heartbeat_ms": 100, "election_min_ms": 1000, "election_max_ms": 1500
    })
}

fn memory(network: &mut Network) -> Vec<u64> {
    let server = network.server.as_ref().unwrap().memory_bytes();
    let nodes = network.nodes.iter_mut().map(|node| node.running().memory_bytes());
    [server].into_iter().chain(nodes).collect()
}

/// Returns the time of processors that each process has used, in ticks of 10 ms.
fn cpu_ticks(network: &mut Network) -> Vec<u64> {
    let server = network.server.as_ref().unwrap().id();
    let nodes = network.nodes.iter_mut().map(|node| node.running().id());
    let ticks = |process: u32| -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
        // The state is the first field behind the name, which may have anything in it.
        let fields = stat.rsplit_once(") ").unwrap().1.split(' ');
        fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    };
    [server].into_iter().chain(nodes).map(ticks).collect()
}

fn rubbish(length_max: usize) -> Vec<u8> {
    let mut random = rand::rng();
    let length = random.random_range(1..=length_max);
    (0..length).map(|_| random.random()).collect()
}

/// Returns the header of a frame of that length.
fn head(bytes: u32) -> [u8; 4] {
    bytes.to_le_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_in_datagrams_and_in_streams() {
    let mut besieged = Besieged::start().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for port in besieged.ports() {
        for number in 0..3000 {
            let mut datagram = rubbish(1400);
            // Every other datagram looks like the first packet of a connection, version 1.
            if number % 2 == 0 && datagram.len() > 5 {
                datagram[..5].copy_from_slice(&[0xc3, 0, 0, 0, 1]);
            }
            let _ = socket.send_to(&datagram, port).await;
        }
    }
    besieged.check().await;

    for role in [Role::Client, Role::Node] {
        let direct = Direct::join(&besieged.network, role).await;
        for node in &besieged.network.nodes {
            for _ in 0..100 {
                let connection = direct.to_node(node.address()).await.unwrap();
                for number in 0..5 {
                    let Ok((mut send, _receive)) = connection.open_bi().await else { break };
                    let mut content = Vec::new();
                    // Some follow a valid opening, some are whole frames.
                    if number % 2 == 0 {
                        let mut writer = FrameWriter::new(&mut content);
                        writer.send(&Opening::Requests).await.unwrap();
                    }
                    let rest = rubbish(2000);
                    if number > 1 {
                        content.extend(head(rest.len() as u32));
                    }
                    content.extend(rest);
                    let _ = send.write_all(&content).await;
                    let _ = send.finish();
                }
            }
        }
        let connection = direct.to_server(&besieged.network).await.unwrap();
        for _ in 0..300 {
            let Ok((mut send, mut receive)) = connection.open_bi().await else { break };
            let _ = send.write_all(&rubbish(2000)).await;
            let _ = send.finish();
            let _ = within(SERVICE, "an answer", receive.read_to_end(1 << 20)).await;
        }
    }
    besieged.check().await;
}

/// Writes one byte per second to each stream, until the peer stops listening.
async fn trickle(mut streams: Vec<quinn::SendStream>) {
    while !streams.is_empty() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut open = Vec::new();
        for mut stream in streams {
            if stream.write_all(&[0]).await.is_ok() {
                open.push(stream);
            }
        }
        streams = open;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_are_announced_and_never_sent() {
    let mut besieged = Besieged::start().await;
    let direct = Direct::join(&besieged.network, Role::Client).await;
    let (mut held, mut trickles) = (Vec::new(), Vec::new());
    for node in &besieged.network.nodes {
        let mut connection = direct.to_node(node.address()).await.unwrap();
        // Streams with an opening and then a frame that is too long, of maximum length, or slow;
        // and some empty ones.
        for number in 0..1000_u32 {
            // As many as one connection may open.
            if number % CONNECTION_STREAMS_MAX == CONNECTION_STREAMS_MAX - 1 {
                connection = direct.to_node(node.address()).await.unwrap();
            }
            let (mut send, receive) = connection.open_bi().await.unwrap();
            if number % 4 != 3 {
                let mut content = Vec::new();
                FrameWriter::new(&mut content).send(&Opening::Requests).await.unwrap();
                let length = [u32::MAX, FRAME_BYTES_MAX as u32, 100][number as usize % 4];
                content.extend(head(length));
                content.extend([0; 10]);
                send.write_all(&content).await.unwrap();
            }
            let mut kept = Some(send);
            if number % 4 == 2 {
                trickles.extend(kept.take());
            }
            held.push((connection.clone(), kept, receive));
        }
    }
    let trickling = tokio::spawn(trickle(trickles));
    besieged.check().await;
    // A stream that announced too long a frame is closed; other streams of its connection stay
    // open.
    let connection = held[0].0.clone();
    let mut ended = 0;
    for (_, _, receive) in held.iter_mut().take(4) {
        let read = tokio::time::timeout(Duration::from_millis(500), receive.read_to_end(10));
        ended += u32::from(read.await.is_ok());
    }
    assert!((1..4).contains(&ended), "{ended} of 4 streams were ended");
    assert!(connection.close_reason().is_none());

    let connection = direct.to_server(&besieged.network).await.unwrap();
    let mut silent = Vec::new();
    for number in 0..15_u32 {
        let (mut send, receive) = connection.open_bi().await.unwrap();
        send.write_all(&head([u32::MAX, 4000][number as usize % 2])).await.unwrap();
        silent.push((send, receive));
    }
    besieged.check().await;

    // Slow frames time out, and single bytes do not extend the timeout.
    let (connection, _, receive) = &mut held[2];
    let ended = within(Duration::from_secs(25), "giving up", receive.read_to_end(10)).await;
    assert!(ended.is_ok_and(|answer| answer.is_empty()) || connection.close_reason().is_some());
    besieged.check().await;
    // All of them timed out.
    within(Duration::from_secs(25), "giving up all", trickling).await.unwrap();
}

fn large(number: usize) -> String {
    format!("large-{}", number % LARGE)
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_floods_the_log_of_the_server() {
    let network = Network::server_only(json!({})).await;
    let direct = Direct::join(&network, Role::Client).await;
    let administrator = Direct::join(&network, Role::Admin).await;
    let log = || std::fs::read_to_string(network.path("server.log")).unwrap();
    let (before, begun) = (log().lines().count(), Instant::now());

    // Expired certificates that are none, as anybody can send them.
    let token = std::fs::read_to_string(network.token_file(Role::Node)).unwrap();
    let authority = token.parse::<Token>().unwrap().authority;
    let joiner = Endpoint::dial_only(None).unwrap();
    for _ in 0..300 {
        let connection = joiner.connect_to_join(network.address, authority).await.unwrap();
        let rubbish =
            RecertifyRequest { certificate: rubbish(300).into(), proof: rubbish(64).into() };
        let request = Joining::Recertify(rubbish);
        let answer: Result<JoinAnswer, JoinRefusal> =
            call(&connection, None::<&()>, &request, FRAME_BYTES_MAX, PATIENCE).await.unwrap();
        assert_eq!(answer, Err(JoinRefusal::Certificate));
        connection.close(0_u32.into(), b"");
    }
    // Requests that take another role.
    let connection = direct.to_server(&network).await.unwrap();
    let mut streams = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (send, receive) = connection.open_bi().await.unwrap();
        let (mut writer, mut reader) =
            (FrameWriter::new(send), FrameReader::new(receive, FRAME_BYTES_MAX));
        streams.spawn(async move {
            for _ in 0..1000 {
                writer.send(&ServerRequest::ListTokens).await.unwrap();
                assert!(reader.next().await.unwrap().is_some());
            }
        });
    }
    let create = ServerRequest::CreateToken {
        role: Role::Client,
        life_s: None,
        uses: None,
        name: None,
        user: None,
    };
    let administering = administrator.to_server(&network).await.unwrap();
    let made = ask_server(&administering, &create).await;
    let ServerAnswer::Token(made) = made else { panic!("{made:?}") };
    let act = format!("administrative act: create token {}", made.parse::<Token>().unwrap().id);
    within(PATIENCE, "the flood", streams.join_all()).await;
    eventually("the act is not in the log", async || {
        let text = log();
        let is_there = text.contains(&act);
        if is_there { Ok(()) } else { Err(text.lines().count().to_string()) }
    })
    .await;
    // The log has 30 denials of one sender at once, and then one every ten seconds.
    let lines = log().lines().count() - before;
    let most = 2 * (30 + begun.elapsed().as_secs() / 10) + 20;
    assert!(lines as u64 <= most, "{lines} lines in the log: {}", log());
    for denied in ["denied: join again", "denied: list tokens"] {
        assert!(log().contains(denied), "nobody learns of what was {denied}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn joiners_that_do_not_take_their_answers_keep_nobody_out() {
    /// As many as one address may be.
    const JOINERS: usize = 64;
    let network = Network::server_only(json!({})).await;
    let administrator = Direct::join(&network, Role::Admin).await;
    let administering = administrator.to_server(&network).await.unwrap();
    let token = std::fs::read_to_string(network.token_file(Role::Client)).unwrap();
    let Token { id, secret, authority, .. } = token.parse().unwrap();
    let relay = Relay::to(network.address).await;
    let joiner = Endpoint::dial_only(None).unwrap();
    let mut joining = Vec::new();
    for _ in 0..JOINERS {
        joining.push(joiner.connect_to_join(relay.address, authority).await.unwrap());
    }
    relay.lose_replies(true);
    let mut held = Vec::new();
    for connection in &joining {
        let (send, receive) = connection.open_bi().await.unwrap();
        let mut writer = FrameWriter::new(send);
        let (_, public_key) = generate_key().unwrap();
        let request = JoinRequest { token: id, secret, public_key };
        writer.send(&Joining::Join(request)).await.unwrap();
        held.push((writer, receive));
    }
    // Others leave some places to an administrator, and are over soon.
    eventually("no token is used", async || {
        match ask_server(&administering, &ServerRequest::ListTokens).await {
            ServerAnswer::Tokens(tokens) if tokens.iter().any(|it| it.id == id && it.used > 10) => {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let another = Direct::join(&network, Role::Admin);
    within(Duration::from_secs(2), "an administrator to join", another).await;
    // Nor do they keep their places from other clients for as long as one may join.
    let others = async {
        let joiner = Endpoint::dial_only(None).unwrap();
        let token = token.parse().unwrap();
        while let Err(error) = join(&joiner, network.address, &token).await {
            assert!(matches!(error, JoinError::Refused(JoinRefusal::Busy)), "{error}");
        }
    };
    within(Duration::from_secs(3), "a client to join", others).await;
    drop((held, joining));
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_connections() {
    let mut besieged = Besieged::start().await;
    let direct = Direct::join(&besieged.network, Role::Client).await;
    let token = std::fs::read_to_string(besieged.network.token_file(Role::Node)).unwrap();
    let authority = token.parse::<Token>().unwrap().authority;

    // Handshakes of which only the first packets arrive.
    let mut relays = Vec::new();
    let mut handshakes = tokio::task::JoinSet::new();
    for port in besieged.ports() {
        let relay = Relay::to(port).await;
        relay.lose_replies(true);
        for _ in 0..500 {
            let (endpoint, address) = (direct.endpoint.clone(), relay.address);
            handshakes.spawn(async move {
                let _ = endpoint.connect(address, Expect::AnyNode).await;
            });
        }
        relays.push(relay);
    }
    besieged.check().await;
    handshakes.join_all().await;
    besieged.check().await;

    // Many valid connections.
    let address = besieged.network.nodes[0].address();
    let mut open = Vec::new();
    // From ten holders, because each may open only some of them.
    for _ in 0..10 {
        let holder = Direct::join(&besieged.network, Role::Client).await;
        for _ in 0..4 {
            let mut some = tokio::task::JoinSet::new();
            for _ in 0..50 {
                let endpoint = holder.endpoint.clone();
                some.spawn(async move {
                    let begun = Instant::now();
                    loop {
                        match endpoint.connect(address, Expect::AnyNode).await {
                            Ok(connection) => return connection,
                            // So many concurrent handshakes may exceed the time limit of one.
                            Err(ConnectError::Unreachable { .. } | ConnectError::Busy { .. })
                                if begun.elapsed() < PATIENCE => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                });
            }
            open.extend(some.join_all().await);
        }
    }
    besieged.check().await;
    let last = open.last().unwrap();
    ask(last, RequestBody::View).await.unwrap().unwrap();

    // Joiners that connect and send nothing; each is refused or times out.
    let mut silent = Vec::new();
    let joiner = Endpoint::dial_only(None).unwrap();
    for _ in 0..300 {
        if let Ok(connection) = joiner.connect_to_join(besieged.network.address, authority).await {
            silent.push(connection);
        }
    }
    eventually("silent joiners stay", async || {
        let open = silent.iter().filter(|open| open.close_reason().is_none()).count();
        if open == 0 { Ok(()) } else { Err(format!("{open} are connected")) }
    })
    .await;
    besieged.check().await;
}
