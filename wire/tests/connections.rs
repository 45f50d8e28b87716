//! Connections over real sockets: who may connect to whom, and what happens when one side goes.
#![allow(clippy::unwrap_used, missing_docs)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use dkv_base::id::{HolderId, NetworkId, NodeId};
use dkv_wire::acceptor::{Acceptor, Peer};
use dkv_wire::certificate::{Authority, Credentials, generate_key};
use dkv_wire::identity::{Identity, Role};
use dkv_wire::quic::{ConnectError, Endpoint};
use dkv_wire::tls::{Admit, Expect};
use tokio::net::UdpSocket;

const SOON: Duration = Duration::from_secs(2);

struct Network {
    authority: Authority,
}

impl Network {
    fn new() -> Self {
        Self { authority: Authority::create(NetworkId::random(), SystemTime::now()).unwrap() }
    }

    fn credentials(&self, role: Role) -> Credentials {
        self.made_at(role, SystemTime::now())
    }

    fn made_at(&self, role: Role, now: SystemTime) -> Credentials {
        let (key, public_key) = generate_key().unwrap();
        let network = self.authority.network();
        let identity = Identity { network, role, holder: HolderId::random(), user: None };
        let certificate = self.authority.sign(identity, &public_key, now).unwrap();
        Credentials::new(&certificate, self.authority.certificate(), key).unwrap()
    }

    fn dialer(&self, role: Role) -> Endpoint {
        Endpoint::dial_only(Some(self.credentials(role))).unwrap()
    }
}

fn listen(credentials: &Credentials, address: &str) -> Endpoint {
    let address = address.parse().unwrap();
    Endpoint::listen(address, credentials.clone(), Admit::Certified, credentials.secret()).unwrap()
}

/// Lets everybody in who has a certificate, and keeps the connections open.
fn serve(endpoint: &Endpoint) -> Arc<Acceptor> {
    let acceptor = Arc::new(Acceptor::default());
    let serving = Arc::clone(&acceptor).serve(endpoint.clone(), |connection, _: Peer| async move {
        connection.closed().await;
    });
    tokio::spawn(serving);
    acceptor
}

fn node_of(credentials: &Credentials) -> NodeId {
    credentials.identity.as_node().unwrap()
}

#[tokio::test]
async fn only_the_expected_one_is_connected_to() {
    let (network, other) = (Network::new(), Network::new());
    let credentials = network.credentials(Role::Node);
    let endpoint = listen(&credentials, "127.0.0.1:0");
    let _gate = serve(&endpoint);
    let address = endpoint.local_address().unwrap();
    let client = network.dialer(Role::Client);
    client.connect(address, Expect::AnyNode).await.unwrap();
    client.connect(address, Expect::Node(node_of(&credentials))).await.unwrap();
    for wrong in [Expect::Server, Expect::Node(NodeId::random())] {
        let refused = client.connect(address, wrong).await.unwrap_err();
        assert!(matches!(refused, ConnectError::Refused { .. }), "{wrong:?}: {refused}");
    }
    let stranger = other.dialer(Role::Client).connect(address, Expect::AnyNode).await.unwrap_err();
    assert!(matches!(stranger, ConnectError::Refused { .. }), "{stranger}");
}

/// A listener of another release, whose certificate is as good as any.
fn another_release(credentials: &Credentials) -> quinn::Endpoint {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider);
    let config = config.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    let chain = vec![credentials.certificate.clone()];
    let mut config =
        config.with_no_client_auth().with_single_cert(chain, credentials.key()).unwrap();
    config.alpn_protocols = vec![b"dkv/0".to_vec(), b"dkv/2".to_vec(), b"dkv-join/2".to_vec()];
    let config = quinn::crypto::rustls::QuicServerConfig::try_from(config).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(config));
    quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap()
}

#[tokio::test]
async fn two_releases_that_mean_different_things_refuse_each_other() {
    let network = Network::new();
    let newer = another_release(&network.credentials(Role::Node));
    let address = newer.local_addr().unwrap();
    tokio::spawn(async move {
        while let Some(incoming) = newer.accept().await {
            tokio::spawn(async move { incoming.accept().unwrap().await });
        }
    });
    let refused = network.dialer(Role::Node).connect(address, Expect::AnyNode).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Version { .. }), "{refused:?}");
    let said = refused.to_string();
    assert!(said.contains("another version") && said.contains("the same release"), "{said}");
    let joining = Endpoint::dial_only(None).unwrap();
    let fingerprint = network.authority.fingerprint();
    let refused = joining.connect_to_join(address, fingerprint).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Version { .. }), "{refused:?}");
}

#[tokio::test]
async fn a_clock_that_was_ahead_cuts_nobody_off_and_an_expired_certificate_is_named() {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    let now = SystemTime::now();
    let (network, server) = (Network::new(), Endpoint::listen);
    let listen_with = |credentials: &Credentials| {
        let (own, secret) = (credentials.clone(), credentials.secret());
        server(([127, 0, 0, 1], 0).into(), own, Admit::CertifiedAndJoining, secret).unwrap()
    };
    let dial_with =
        |credentials: &Credentials| Endpoint::dial_only(Some(credentials.clone())).unwrap();
    // Both were made in a year that has not come yet.
    let early = listen_with(&network.made_at(Role::Server, now + YEAR));
    let _gate = serve(&early);
    let dialer = dial_with(&network.made_at(Role::Node, now + YEAR));
    let address = early.local_address().unwrap();
    dialer.connect(address, Expect::Server).await.unwrap();

    // The server's has expired.
    let late = listen_with(&network.made_at(Role::Server, now - YEAR));
    let _late_gate = serve(&late);
    let address = late.local_address().unwrap();
    let joining = dialer.connect_to_join(address, network.authority.fingerprint());
    for failed in [dialer.connect(address, Expect::Server).await, joining.await] {
        let error = failed.unwrap_err();
        assert!(matches!(error, ConnectError::Clock { .. }), "{error:?}");
        let said = error.to_string();
        assert!(said.contains("the other side's certificate: it was valid until "), "{said}");
        assert!(said.contains("this machine's clock says "), "{said}");
    }

    // Our own has.
    let expired = dial_with(&network.made_at(Role::Node, now - YEAR));
    let address = early.local_address().unwrap();
    let why = match expired.connect(address, Expect::Server).await {
        Err(error) => error,
        // The handshake of this side ends before the other has looked at its certificate.
        Ok(connection) => ConnectError::from_lost(address, &connection.closed().await),
    };
    assert!(matches!(why, ConnectError::Clock { .. }), "{why:?}");
    assert!(why.to_string().contains("this machine's clock says "), "{why}");
}

/// What somebody gets who sends the first packet of a handshake in the name of another, and nothing
/// else.
#[tokio::test]
async fn an_address_that_is_not_proved_gets_no_more_than_three_times_what_it_sent() {
    let network = Network::new();
    let endpoint = listen(&network.credentials(Role::Node), "127.0.0.1:0");
    let _gate = serve(&endpoint);
    let victim = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    victim.connect(endpoint.local_address().unwrap()).await.unwrap();

    // The packet is taken from a client that calls somebody who never answers.
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let client = network.dialer(Role::Client);
    let address = silent.local_addr().unwrap();
    let calling = tokio::spawn(async move { client.connect(address, Expect::AnyNode).await });
    let mut packet = [0; 65_536];
    let sent = silent.recv(&mut packet).await.unwrap();
    calling.abort();
    assert!(sent >= 1200, "an Initial of {sent} bytes");
    victim.send(&packet[..sent]).await.unwrap();

    // What it does not hear of is sent again, and once more, for as long as a handshake may take.
    let mut received = 0;
    let quiet = Duration::from_secs(1);
    while let Ok(bytes) = tokio::time::timeout(quiet, victim.recv(&mut packet)).await {
        received += bytes.unwrap();
    }
    assert!(received > 0, "nobody answers");
    assert!(received <= 3 * sent, "{received} bytes for {sent}");
}

#[tokio::test]
async fn a_panic_while_a_connection_is_served_ends_that_connection_alone() {
    let network = Network::new();
    let endpoint = listen(&network.credentials(Role::Node), "127.0.0.1:0");
    let acceptor = Arc::new(Acceptor::default());
    let serving = acceptor.serve(endpoint.clone(), |connection, peer: Peer| async move {
        let Peer::Certified(identity) = peer else { return };
        assert_ne!(identity.role, Role::Admin, "a planted fault");
        connection.closed().await;
    });
    let serving = tokio::spawn(serving);
    let address = endpoint.local_address().unwrap();
    let other = network.dialer(Role::Client).connect(address, Expect::AnyNode).await.unwrap();
    let hit = network.dialer(Role::Admin).connect(address, Expect::AnyNode).await.unwrap();
    tokio::time::timeout(SOON, hit.closed()).await.unwrap();
    assert!(other.close_reason().is_none());
    network.dialer(Role::Client).connect(address, Expect::AnyNode).await.unwrap();
    assert!(!serving.is_finished());
}

#[tokio::test]
async fn a_client_certificate_cannot_be_connected_to() {
    let network = Network::new();
    let endpoint = listen(&network.credentials(Role::Client), "127.0.0.1:0");
    let _gate = serve(&endpoint);
    let address = endpoint.local_address().unwrap();
    for expect in [Expect::AnyNode, Expect::Server] {
        let refused = network.dialer(Role::Node).connect(address, expect).await.unwrap_err();
        assert!(matches!(refused, ConnectError::Refused { .. }), "{refused}");
    }
}

#[tokio::test]
async fn a_denied_holder_loses_its_open_connections() {
    let network = Network::new();
    let endpoint = listen(&network.credentials(Role::Node), "127.0.0.1:0");
    let acceptor = serve(&endpoint);
    let address = endpoint.local_address().unwrap();
    let client = network.dialer(Role::Client);
    let holder = client.credentials().unwrap().identity.holder;
    let connection = client.connect(address, Expect::AnyNode).await.unwrap();
    let bystander = network.dialer(Role::Client).connect(address, Expect::AnyNode).await.unwrap();
    // The list may be there before the other side has taken the connection, or after.
    acceptor.set_denied([holder]);
    tokio::time::timeout(SOON, connection.closed()).await.unwrap();
    let again = client.connect(address, Expect::AnyNode).await.unwrap();
    tokio::time::timeout(SOON, again.closed()).await.unwrap();
    assert!(bystander.close_reason().is_none());
}

/// QUIC's own end takes three times as long as a lost packet takes to be noticed, for either side.
#[tokio::test]
async fn who_closes_leaves_at_once_and_the_others_learn_of_it() {
    let network = Network::new();
    let endpoint = listen(&network.credentials(Role::Node), "127.0.0.1:0");
    let (closed, mut learnt) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(Arc::new(Acceptor::default()).serve(
        endpoint.clone(),
        move |connection, _: Peer| {
            let closed = closed.clone();
            async move {
                let _ = closed.send(connection.closed().await);
            }
        },
    ));
    let address = endpoint.local_address().unwrap();
    let mut shortest = Duration::MAX;
    for _ in 0..5 {
        let client = network.dialer(Role::Client);
        let _connection = client.connect(address, Expect::AnyNode).await.unwrap();
        let begun = Instant::now();
        client.close().await;
        shortest = shortest.min(begun.elapsed());
        let reason = tokio::time::timeout(SOON, learnt.recv()).await.unwrap().unwrap();
        assert!(matches!(reason, quinn::ConnectionError::ApplicationClosed(_)), "{reason}");
    }
    assert!(shortest < Duration::from_millis(50), "{shortest:?}");
}

/// What the kernel refuses to send is lost without a word, and taken for a path that carries only
/// short packets.
#[tokio::test]
async fn much_data_goes_in_long_packets() {
    let network = Network::new();
    let endpoint = listen(&network.credentials(Role::Node), "127.0.0.1:0");
    let acceptor = Arc::new(Acceptor::default());
    tokio::spawn(acceptor.serve(endpoint.clone(), |connection, _: Peer| async move {
        while let Ok((_, mut stream)) = connection.accept_bi().await {
            let _ = stream.read_to_end(usize::MAX).await;
        }
    }));
    let client = network.dialer(Role::Client);
    let address = endpoint.local_address().unwrap();
    let connection = client.connect(address, Expect::AnyNode).await.unwrap();
    let all = vec![7; 1024 * 1024];
    for _ in 0..16 {
        let (mut stream, _) = connection.open_bi().await.unwrap();
        stream.write_all(&all).await.unwrap();
        stream.finish().unwrap();
        stream.stopped().await.unwrap();
    }
    let path = connection.stats().path;
    assert_eq!(path.black_holes_detected, 0, "{path:?}");
    assert!(path.current_mtu > 8000, "{path:?}");
}

/// A process that is killed tells nobody. What has come back in its place must not leave its peers
/// waiting for the idle time.
#[test]
fn a_restarted_process_resets_the_connections_of_the_one_before() {
    let network = Network::new();
    let credentials = network.credentials(Role::Node);
    // A runtime of its own stands for the process: shut down, it sends nothing more.
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (process, other) = (runtime(), runtime());
    let address: SocketAddr = process.block_on(async {
        let endpoint = listen(&credentials, "127.0.0.1:0");
        let _gate = serve(&endpoint);
        endpoint.local_address().unwrap()
    });
    other.block_on(async {
        let client = network.dialer(Role::Client);
        let connection = client.connect(address, Expect::AnyNode).await.unwrap();
        process.shutdown_background();
        let restarted = loop {
            let secret = credentials.secret();
            match Endpoint::listen(address, credentials.clone(), Admit::Certified, secret) {
                Ok(endpoint) => break endpoint,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let _gate = serve(&restarted);
        // An acknowledgement that was on its way may have told the restarted process already.
        if let Ok((mut stream, _)) = connection.open_bi().await {
            let _ = stream.write_all(&[0; 1000]).await;
        }
        let reason = tokio::time::timeout(SOON, connection.closed()).await.unwrap();
        assert!(matches!(reason, quinn::ConnectionError::Reset), "{reason}");
    });
}

/// Passes datagrams on between a caller and a server, with a delay, and counts those of the caller.
async fn slow_way(server: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let way = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let (address, sent) = (way.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&sent);
    tokio::spawn(async move {
        let (mut caller, mut bytes) = (None, vec![0; 2048]);
        loop {
            let (length, from) = way.recv_from(&mut bytes).await.unwrap();
            let to = if from == server {
                caller.unwrap()
            } else {
                caller = Some(from);
                counted.fetch_add(1, Ordering::Relaxed);
                server
            };
            let (way, bytes) = (Arc::clone(&way), bytes[..length].to_vec());
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(3)).await;
                way.send_to(&bytes, to).await.unwrap();
            });
        }
    });
    (address, sent)
}

#[tokio::test]
async fn a_call_that_is_given_up_ends_in_a_few_packets() {
    let network = Network::new();
    let endpoint = listen(&network.credentials(Role::Node), "127.0.0.1:0");
    let _gate = serve(&endpoint);
    let (address, sent) = slow_way(endpoint.local_address().unwrap()).await;
    let client = network.dialer(Role::Client);
    // Before anything has come back.
    let call = client.connect(address, Expect::AnyNode);
    tokio::time::timeout(Duration::from_millis(2), call).await.unwrap_err();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let sent = sent.load(Ordering::Relaxed);
    assert!((1..16).contains(&sent), "{sent} packets");
}
