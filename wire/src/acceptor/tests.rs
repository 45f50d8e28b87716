use std::time::{Duration, SystemTime};

use dkv_base::id::NetworkId;

use super::*;
use crate::certificate::{Authority, Credentials, generate_key};
use crate::identity::Role;
use crate::quic::ConnectError;
use crate::tls::{Admit, Expect};

const SOON: Duration = Duration::from_secs(5);

struct Network(Authority);

impl Network {
    fn new() -> Self {
        Self(Authority::create(NetworkId::random(), SystemTime::now()).unwrap())
    }

    fn credentials(&self, role: Role) -> Credentials {
        let (key, public_key) = generate_key().unwrap();
        let identity =
            Identity { network: self.0.network(), role, holder: HolderId::random(), user: None };
        let certificate = self.0.sign(identity, &public_key, SystemTime::now()).unwrap();
        Credentials::new(&certificate, self.0.certificate(), key).unwrap()
    }

    fn server(&self, admit: Admit) -> Endpoint {
        let credentials = self.credentials(Role::Server);
        let address = ([127, 0, 0, 1], 0).into();
        Endpoint::listen(address, credentials.clone(), admit, credentials.secret()).unwrap()
    }

    fn client(&self) -> Endpoint {
        Endpoint::dial_only(Some(self.credentials(Role::Client))).unwrap()
    }
}

fn acceptor(handshakes: usize, connections: usize) -> Arc<Acceptor> {
    Arc::new(Acceptor {
        handshakes: Arc::new(Slots::new(handshakes, handshakes)),
        connections: Arc::new(Semaphore::new(connections)),
        ..Acceptor::default()
    })
}

/// Streams that the tests grant to the holders of certificates.
const STREAMS: u32 = 16;

/// Serves, keeps connections open, and tells who was let in.
fn serve(
    acceptor: &Arc<Acceptor>,
    endpoint: &Endpoint,
) -> tokio::sync::mpsc::UnboundedReceiver<Peer> {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let handle = move |connection: quinn::Connection, peer| {
        if matches!(peer, Peer::Certified(_)) {
            connection.set_max_concurrent_bi_streams(STREAMS.into());
        }
        let _ = sender.send(peer);
        async move { drop(connection.closed().await) }
    };
    tokio::spawn(Arc::clone(acceptor).serve(endpoint.clone(), handle));
    receiver
}

async fn closed_for(connection: &quinn::Connection) -> u64 {
    match tokio::time::timeout(SOON, connection.closed()).await.unwrap() {
        quinn::ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_connection_too_many_is_closed_and_its_place_is_free_again_later() {
    let network = Network::new();
    let endpoint = network.server(Admit::Certified);
    let acceptor = acceptor(8, 2);
    let mut admitted = serve(&acceptor, &endpoint);
    let address = endpoint.local_address().unwrap();
    let client = network.client();
    let connect = || client.connect(address, Expect::Server);
    let first = connect().await.unwrap();
    let _second = connect().await.unwrap();
    let holder = client.credentials().unwrap().identity;
    for _ in 0..2 {
        assert_eq!(admitted.recv().await, Some(Peer::Certified(holder)));
    }
    let third = connect().await.unwrap();
    assert_eq!(closed_for(&third).await, Close::Busy as u64);
    assert!(admitted.try_recv().is_err());

    Close::Done.close(&first, "done");
    let freed = async {
        while acceptor.connections.available_permits() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, freed).await.unwrap();
    let _fourth = connect().await.unwrap();
    assert_eq!(admitted.recv().await, Some(Peer::Certified(holder)));
}

/// Handshakes of others, from addresses of their own.
fn others(acceptor: &Arc<Acceptor>, count: usize) -> Vec<dkv_base::slots::Slot> {
    let address = |number: usize| [10, 0, (number >> 8) as u8, number as u8].into();
    (0..count).filter_map(|number| acceptor.handshakes.take(address(number))).collect()
}

#[tokio::test]
async fn a_handshake_too_many_is_refused_and_a_later_one_is_not() {
    let network = Network::new();
    let endpoint = network.server(Admit::Certified);
    let acceptor = acceptor(8, 8);
    let mut admitted = serve(&acceptor, &endpoint);
    let address = endpoint.local_address().unwrap();
    let others = others(&acceptor, 8);
    // No address has more than one, so none makes room.
    let _own = acceptor.handshakes.take(address.ip());
    let refused = network.client().connect(address, Expect::Server).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Unreachable { .. }), "{refused}");
    assert!(admitted.try_recv().is_err());
    drop(others);
    let _connection = network.client().connect(address, Expect::Server).await.unwrap();
    assert!(tokio::time::timeout(SOON, admitted.recv()).await.unwrap().is_some());
}

#[tokio::test]
async fn under_pressure_an_address_is_proved_first_and_then_let_in() {
    let network = Network::new();
    let endpoint = network.server(Admit::Certified);
    let acceptor = acceptor(limits::HANDSHAKES_MAX, 8);
    let mut admitted = serve(&acceptor, &endpoint);
    let address = endpoint.local_address().unwrap();
    // Half of them are taken: everybody is asked to come again.
    let others = others(&acceptor, limits::HANDSHAKES_MAX / 2);
    let _connection = network.client().connect(address, Expect::Server).await.unwrap();
    assert!(tokio::time::timeout(SOON, admitted.recv()).await.unwrap().is_some());
    assert_eq!(acceptor.handshakes.taken(), others.len());
}

#[tokio::test]
async fn slow_handshakes_of_an_address_keep_nobody_out() {
    let network = Network::new();
    let endpoint = network.server(Admit::Certified);
    let acceptor = acceptor(4, 8);
    let mut admitted = serve(&acceptor, &endpoint);
    let address = endpoint.local_address().unwrap();
    // All slots are taken by handshakes from where the client is too, and none comes to an end.
    let mut slow: Vec<_> = (0..4).filter_map(|_| acceptor.handshakes.take(address.ip())).collect();
    assert_eq!(slow.len(), 4);
    let _connection = network.client().connect(address, Expect::Server).await.unwrap();
    assert!(tokio::time::timeout(SOON, admitted.recv()).await.unwrap().is_some());
    tokio::time::timeout(SOON, slow[0].lost()).await.unwrap();
}

#[tokio::test]
async fn one_holder_does_not_take_all_connections_and_some_are_for_administrators() {
    let network = Network::new();
    let endpoint = network.server(Admit::Certified);
    // One place, and somebody has it.
    let acceptor = acceptor(64, 1);
    let mut admitted = serve(&acceptor, &endpoint);
    let address = endpoint.local_address().unwrap();
    let client = network.client();
    let _first = client.connect(address, Expect::Server).await.unwrap();
    assert!(admitted.recv().await.is_some());
    let another = network.client().connect(address, Expect::Server).await.unwrap();
    assert_eq!(closed_for(&another).await, Close::Busy as u64);
    let mut kept = Vec::new();
    for role in [Role::Admin, Role::Node] {
        let endpoint = Endpoint::dial_only(Some(network.credentials(role))).unwrap();
        let mut open = Vec::new();
        for _ in 0..limits::HOLDER_CONNECTIONS_RESERVED {
            open.push(endpoint.connect(address, Expect::Server).await.unwrap());
            let peer = tokio::time::timeout(SOON, admitted.recv()).await.unwrap();
            let Some(Peer::Certified(identity)) = peer else { panic!("{peer:?}") };
            assert_eq!(identity.role, role);
        }
        // All of them share the reserved places.
        let more = endpoint.connect(address, Expect::Server).await.unwrap();
        assert_eq!(closed_for(&more).await, Close::Busy as u64);
        kept.extend(open);
    }
}

#[tokio::test]
async fn a_holder_has_so_many_connections_and_others_have_theirs() {
    let network = Network::new();
    let endpoint = network.server(Admit::Certified);
    let acceptor = acceptor(limits::HANDSHAKES_MAX, limits::CONNECTIONS_MAX);
    let mut admitted = serve(&acceptor, &endpoint);
    let address = endpoint.local_address().unwrap();
    let client = network.client();
    let mut open = Vec::new();
    for _ in 0..limits::HOLDER_CONNECTIONS_MAX {
        open.push(client.connect(address, Expect::Server).await.unwrap());
        assert!(admitted.recv().await.is_some());
    }
    let more = client.connect(address, Expect::Server).await.unwrap();
    assert_eq!(closed_for(&more).await, Close::Busy as u64);
    assert!(admitted.try_recv().is_err());
    let _other = network.client().connect(address, Expect::Server).await.unwrap();
    assert!(tokio::time::timeout(SOON, admitted.recv()).await.unwrap().is_some());
}

/// Opens streams and fills them until the other side allows no more; how many, and how many bytes.
async fn take_all(connection: &quinn::Connection, streams_most: usize) -> (usize, usize) {
    const PAUSE: Duration = Duration::from_millis(300);
    let mut streams = Vec::new();
    while streams.len() < streams_most
        && let Ok(stream) = tokio::time::timeout(PAUSE, connection.open_bi()).await
    {
        streams.push(stream.unwrap());
    }
    let mut bytes = 0;
    let chunk = vec![0; 1024 * 1024];
    for (send, _) in &mut streams {
        while let Ok(count) = tokio::time::timeout(PAUSE, send.write(&chunk)).await {
            bytes += count.unwrap();
            if bytes > 4 * chunk.len() {
                return (streams.len(), bytes);
            }
        }
    }
    (streams.len(), bytes)
}

#[tokio::test]
async fn a_joiner_gets_one_stream_and_little_room() {
    let network = Network::new();
    let endpoint = network.server(Admit::CertifiedAndJoining);
    let mut admitted = serve(&acceptor(8, 8), &endpoint);
    let address = endpoint.local_address().unwrap();
    let joiner = Endpoint::dial_only(None).unwrap();
    let connection = joiner.connect_to_join(address, network.0.fingerprint()).await.unwrap();
    assert_eq!(admitted.recv().await, Some(Peer::Joining));
    let (streams, bytes) = take_all(&connection, 10).await;
    assert_eq!(streams, limits::JOIN_STREAMS_MAX as usize);
    assert!((limits::JOIN_FRAME_BYTES_MAX..64 * 1024).contains(&bytes), "{bytes}");
    assert!(connection.close_reason().is_none());
}

#[tokio::test]
async fn a_holder_gets_the_streams_that_it_is_granted_and_room() {
    let network = Network::new();
    let endpoint = network.server(Admit::CertifiedAndJoining);
    let mut admitted = serve(&acceptor(8, 8), &endpoint);
    let address = endpoint.local_address().unwrap();
    let connection = network.client().connect(address, Expect::Server).await.unwrap();
    assert!(matches!(admitted.recv().await, Some(Peer::Certified(_))));
    let (streams, bytes) = take_all(&connection, 100).await;
    assert_eq!(streams, STREAMS as usize);
    assert!(bytes > 4 * 1024 * 1024, "{bytes}");
}

#[tokio::test]
async fn a_connection_that_is_closed_is_forgotten() {
    let network = Network::new();
    let endpoint = network.server(Admit::Certified);
    let acceptor = acceptor(8, 8);
    let mut admitted = serve(&acceptor, &endpoint);
    let address = endpoint.local_address().unwrap();
    let connection = network.client().connect(address, Expect::Server).await.unwrap();
    admitted.recv().await.unwrap();
    assert_eq!(acceptor.connections().len(), 1);
    Close::Done.close(&connection, "done");
    let forgotten = async {
        while !acceptor.connections().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, forgotten).await.unwrap();
}
