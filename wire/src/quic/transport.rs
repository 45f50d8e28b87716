//! The transport parameters of connections, and the sockets below them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::{hkdf, hmac};
use dkv_base::platform;
use quinn::{
    AckFrequencyConfig, AsyncUdpSocket, EndpointConfig, MtuDiscoveryConfig, Runtime, TimeSource,
    TransportConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use socket2::{Domain, Protocol, Socket, Type};

use super::connection_ids::SimulatedIds;
use crate::certificate::Credentials;
use crate::delayed_socket::DelayedSocket;
use crate::limits::{self, PACKET_BYTES_MAX};
use crate::net_platform;
use crate::tls::{self, Admit};

/// Kernel buffer that a socket asks for in each direction, in bytes. The kernel may give less.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// Bytes that a peer may have sent on a connection and that the application has not read yet.
const WINDOW_BYTES: u32 = 32 * 1024 * 1024;
/// The same for a connection whose peer is not authenticated yet.
const FIRST_WINDOW_BYTES: u32 = 256 * 1024;
/// The same for a joiner, which sends one small frame.
const JOIN_WINDOW_BYTES: u32 = 4 * limits::JOIN_FRAME_BYTES_MAX as u32;
/// Bytes of a watch that its node may have sent and that the client has not read yet.
const WATCH_WINDOW_BYTES: u32 = 256 * 1024;
/// Packets that one acknowledgement may cover.
const ACK_PACKETS: u32 = 10;

pub(super) fn server_config(
    credentials: &Credentials,
    admit: Admit,
) -> io::Result<quinn::ServerConfig> {
    let tls = tls::server(credentials, admit).map_err(io::Error::other)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    config.time_source(Arc::new(PlatformTime));
    if let Some(seed) = net_platform::endpoint_seed() {
        // A closed connection takes the tokens of late Retry packets for frames, so the bytes of a
        // token must repeat too.
        config.token_key(Arc::new(hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&seed)));
    }
    config.transport_config(match admit {
        Admit::Certified => first_transport(),
        Admit::CertifiedAndJoining => join_transport(),
    });
    config.max_incoming(limits::HANDSHAKES_MAX);
    config.incoming_buffer_size(64 * 1024);
    config.incoming_buffer_size_total(16 * 1024 * 1024);
    Ok(config)
}

/// The wall clock of the platform, by which address tokens expire.
struct PlatformTime;

impl TimeSource for PlatformTime {
    fn now(&self) -> SystemTime {
        platform::wall_clock()
    }
}

/// The configuration of an endpoint whose connection ids and reset tokens derive from `secret`,
/// each by a key of its own.
pub(super) fn listening_config(secret: &[u8]) -> EndpointConfig {
    let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let reset = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&secret, b"reset").as_ref());
    let ids = hmac::sign(&secret, b"connection ids");
    let ids = u64::from_le_bytes(ids.as_ref().first_chunk().copied().unwrap_or_default());
    let mut config = EndpointConfig::new(Arc::new(reset));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    sized(config)
}

/// Lets an endpoint receive the longest packets that its peers may try.
pub(super) fn sized(mut config: EndpointConfig) -> EndpointConfig {
    // Cannot fail: the size lies between the least that QUIC allows and the most that UDP carries.
    let _ = config.max_udp_payload_size(PACKET_BYTES_MAX);
    config
}

/// The parameters of an accepted connection: a small window until the peer is known; see [`widen`].
fn first_transport() -> Arc<TransportConfig> {
    let mut config = transport_config();
    config.receive_window(VarInt::from_u32(FIRST_WINDOW_BYTES));
    Arc::new(config)
}

/// The parameters of a connection that this side opens. The peer opens no streams, and QUIC would
/// reserve memory for them all the same.
pub(super) fn dialing_transport() -> Arc<TransportConfig> {
    let mut config = transport_config();
    config.max_concurrent_bidi_streams(VarInt::from_u32(0));
    Arc::new(config)
}

/// The parameters of a connection for watches. Streams that are not read use up the window of the
/// connection, so it has room for all that there may be.
pub(super) fn watching_transport() -> Arc<TransportConfig> {
    let mut config = transport_config();
    config.max_concurrent_bidi_streams(VarInt::from_u32(0));
    config.stream_receive_window(VarInt::from_u32(WATCH_WINDOW_BYTES));
    config.receive_window(VarInt::from_u32(
        WATCH_WINDOW_BYTES * limits::CONNECTION_WATCHES_MAX as u32,
    ));
    Arc::new(config)
}

/// The parameters of a connection on which the peer may turn out to be a joiner: the bounds of one,
/// as QUIC cannot take back what it has granted.
fn join_transport() -> Arc<TransportConfig> {
    let mut config = transport_config();
    config.max_concurrent_bidi_streams(VarInt::from_u32(limits::JOIN_STREAMS_MAX));
    config.receive_window(VarInt::from_u32(JOIN_WINDOW_BYTES));
    Arc::new(config)
}

/// Widens the receive window of an authenticated peer: the whole of it for the first connection of
/// its certificate, half for the second, a third for the third, so that many connections do not
/// multiply the memory. The number of streams is up to the service that accepts them.
pub(crate) fn widen(connection: &quinn::Connection, count: usize) {
    let share = WINDOW_BYTES / u32::try_from(count.max(1)).unwrap_or(u32::MAX);
    connection.set_receive_window(VarInt::from_u32(share.max(FIRST_WINDOW_BYTES)));
}

fn transport_config() -> TransportConfig {
    let mut config = TransportConfig::default();
    let window = VarInt::from_u32(8 * 1024 * 1024);
    config.max_concurrent_bidi_streams(VarInt::from_u32(limits::CONNECTION_STREAMS_MAX));
    config.max_concurrent_uni_streams(VarInt::from_u32(0));
    config.stream_receive_window(window);
    config.receive_window(VarInt::from_u32(WINDOW_BYTES));
    config.send_window(32 * 1024 * 1024);
    config.datagram_receive_buffer_size(None);
    config.keep_alive_interval(Some(limits::KEEP_ALIVE));
    // Ten seconds fit a VarInt.
    config.max_idle_timeout(limits::IDLE_TIMEOUT.try_into().ok());
    // The default of 333 ms suits the open internet. It would delay the first retransmission of a
    // handshake and the first round trips of a fresh connection.
    config.initial_rtt(Duration::from_millis(20));
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(PACKET_BYTES_MAX);
    config.mtu_discovery_config(Some(discovery));
    let mut acks = AckFrequencyConfig::default();
    // By default a peer may delay an acknowledgement by 25 ms, and the retransmission of a lost
    // last packet waits for that.
    acks.max_ack_delay(Some(Duration::from_millis(2)));
    // An answer carries an acknowledgement along; a separate one for every second packet is waste.
    acks.ack_eliciting_threshold(VarInt::from_u32(ACK_PACKETS));
    config.ack_frequency_config(Some(acks));
    config
}

/// Opens a socket, and an endpoint on it.
pub(super) fn open(
    mut config: EndpointConfig,
    server: Option<quinn::ServerConfig>,
    address: SocketAddr,
) -> io::Result<(quinn::Endpoint, Arc<DelayedSocket>)> {
    let runtime = Arc::new(quinn::TokioRuntime);
    let socket = match net_platform::bind(address)? {
        None => runtime.wrap_udp_socket(bind(address)?)?,
        Some(socket) => {
            config.rng_seed(net_platform::endpoint_seed());
            // A listening endpoint recognizes the ids of its predecessor.
            let key = if server.is_some() { 0 } else { platform::random_u64() as u32 };
            config.cid_generator(move || Box::new(SimulatedIds { key }));
            socket
        }
    };
    let delayed = Arc::new(DelayedSocket::new(socket));
    let socket = Arc::clone(&delayed) as Arc<dyn AsyncUdpSocket>;
    let quinn = quinn::Endpoint::new_with_abstract_socket(config, server, socket, runtime)?;
    Ok((quinn, delayed))
}

fn bind(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // The kernel caps these silently. A smaller buffer costs speed, not correctness.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.bind(&address.into())?;
    Ok(socket.into())
}
