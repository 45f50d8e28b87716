//! QUIC endpoints and connections, tuned once for everybody.
//!
//! A process has one [`Endpoint`]: it listens on it, if it listens, and connects from it. What a
//! connection is for is said by the streams on it; who is at its other end by
//! [`peer_identity`].

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use aws_lc_rs::hmac;
use dkv_base::platform;
use quinn::{
    AckFrequencyConfig, AsyncUdpSocket, ClientConfig, EndpointConfig, MtuDiscoveryConfig, Runtime,
    TransportConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use rustls::pki_types::CertificateDer;
use socket2::{Domain, Protocol, Socket, Type};

use crate::certificate::{Credentials, Life, identity_of, utc};
use crate::delays::Way;
use crate::identity::Identity;
use crate::limits;
use crate::line::Line;
use crate::tls::{self, Admit, Expect, OutOfTime};
use crate::token::Fingerprint;

use crate::net_platform;

/// Name in the handshake. It is not checked; certificates are, see [`tls`].
const SERVER_NAME: &str = "dkv";
/// Time in which the last packet of a connection is sent.
const CLOSE_LEAVES_WITHIN: Duration = Duration::from_millis(20);
/// Bytes of kernel buffer asked for, each way. The kernel may give less.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// Bytes that a peer may send on a connection and that nobody has read yet.
const WINDOW_BYTES: u32 = 32 * 1024 * 1024;
/// The same of a connection of which it is not known yet who is at its other end.
const FIRST_WINDOW_BYTES: u32 = 256 * 1024;
/// The same of a joiner, who sends one small frame.
const JOIN_WINDOW_BYTES: u32 = 4 * limits::JOIN_FRAME_BYTES_MAX as u32;

/// Why a connection is closed, as its peer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Close {
    /// The conversation is over.
    Done = 0,
    /// The peer's certificate is not, or no longer, accepted.
    Denied = 1,
    /// The peer broke the protocol.
    Protocol = 2,
    /// There are too many connections already.
    Busy = 3,
    /// The process is stopping.
    Stopping = 4,
}

impl Close {
    /// Closes a connection for this reason.
    pub fn close(self, connection: &quinn::Connection, why: &str) {
        connection.close(VarInt::from_u32(self as u32), why.as_bytes());
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The certificates do not agree: the other side is not who was expected, or refuses us.
    #[error("{address}: {why}")]
    Refused {
        /// Who was called.
        address: SocketAddr,
        /// What TLS says.
        why: String,
    },
    /// The other side speaks another version of the protocol: another release of dkv.
    #[error(
        "{address} speaks another version of dkv's protocol than this program ({}): run the same \
         release everywhere",
        String::from_utf8_lossy(tls::ALPN)
    )]
    Version {
        /// Who was called.
        address: SocketAddr,
    },
    /// A certificate is not valid now: a clock is wrong, or nobody has renewed it.
    #[error("{address}: {why}")]
    Clock {
        /// Who was called.
        address: SocketAddr,
        /// Which certificate, when it is valid, and what the clock of this machine says.
        why: String,
    },
    /// The other side is who was expected, and has removed us from the network.
    #[error("{address}: {why}")]
    Removed {
        /// Who was called.
        address: SocketAddr,
        /// What it says.
        why: String,
    },
    /// The other side gave the place of this connection to somebody else: so many connect from
    /// here.
    #[error("{address}: too many are connecting to it from this address at once; try again")]
    Busy {
        /// Who was called.
        address: SocketAddr,
    },
    /// Nobody answered, or the way was lost.
    #[error("{address}: {why}")]
    Unreachable {
        /// Who was called.
        address: SocketAddr,
        /// What QUIC says.
        why: String,
    },
    /// Our own keys or sockets are not usable.
    #[error("cannot connect: {0}")]
    Local(String),
}

impl ConnectError {
    /// Sorts a lost connection into refused, removed, busy or unreachable.
    pub fn from_lost(address: SocketAddr, error: &quinn::ConnectionError) -> Self {
        // An IPv6 socket calls IPv4 addresses by another name than people do.
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        if let quinn::ConnectionError::ApplicationClosed(close) = error
            && close.error_code == VarInt::from_u32(Close::Denied as u32)
        {
            // Sent over a connection on which both sides were proved.
            let why = String::from_utf8_lossy(&close.reason).into_owned();
            return Self::Removed { address, why };
        }
        let is_busy = match error {
            quinn::ConnectionError::ApplicationClosed(close) => {
                close.error_code == VarInt::from_u32(Close::Busy as u32)
            }
            quinn::ConnectionError::ConnectionClosed(close) => {
                u64::from(close.error_code) == CLOSED_IN_HANDSHAKE
            }
            _ => false,
        };
        if is_busy {
            return Self::Busy { address };
        }
        let code = tls_code(error);
        if code == NO_APPLICATION_PROTOCOL {
            return Self::Version { address };
        }
        if code == CERTIFICATE_EXPIRED {
            // After the handshake of this side: it is our certificate that the other has looked at.
            return Self::Clock { address, why: out_of_time(None, None, platform::wall_clock()) };
        }
        let refused = (0x100..0x200).contains(&code);
        let why = match error {
            quinn::ConnectionError::TimedOut => "no answer".to_owned(),
            quinn::ConnectionError::ApplicationClosed(close) => {
                String::from_utf8_lossy(&close.reason).into_owned()
            }
            other => other.to_string(),
        };
        if refused { Self::Refused { address, why } } else { Self::Unreachable { address, why } }
    }
}

/// The code that a connection was lost with. Those from 0x100 on are TLS alerts (RFC 9001, section
/// 4.8).
fn tls_code(error: &quinn::ConnectionError) -> u64 {
    match error {
        quinn::ConnectionError::TransportError(error) => u64::from(error.code),
        quinn::ConnectionError::ConnectionClosed(close) => u64::from(close.error_code),
        _ => 0,
    }
}

/// What an application's close looks like as long as the handshake is not over (RFC 9000, section
/// 10.2.3). A side of ours closes then only to make room for another.
const CLOSED_IN_HANDSHAKE: u64 = 0x0c;

/// The TLS alert of a side that speaks none of the protocols that the other offers (RFC 7301,
/// section 3.2), as QUIC has it.
const NO_APPLICATION_PROTOCOL: u64 = 0x100 + 120;

/// The TLS alert of a side to which a certificate is not valid now (RFC 8446, section 6.2), as QUIC
/// has it.
const CERTIFICATE_EXPIRED: u64 = 0x100 + 45;

/// What to say of a handshake that has failed with [`CERTIFICATE_EXPIRED`]: of the other's
/// certificate, if this side has refused that, and of our own otherwise.
fn out_of_time(theirs: Option<&Life>, own: Option<Life>, now: SystemTime) -> String {
    match (theirs, own) {
        (Some(theirs), _) => {
            format!(
                "the other side's certificate: {}; set the clocks right",
                theirs.at_odds_with(now)
            )
        }
        (None, Some(own)) if !own.contains(now) => {
            format!("our own certificate: {}; set the clocks right", own.at_odds_with(now))
        }
        (None, own) => {
            let until = own.map(|own| format!(", valid until {},", utc(own.until)));
            format!(
                "the other side does not take our certificate{} for valid now; this machine's clock says {}: \
                 set the clocks right",
                until.unwrap_or_default(),
                utc(now)
            )
        }
    }
}

/// One process's end of all its connections.
#[derive(Clone)]
pub struct Endpoint {
    quinn: quinn::Endpoint,
    line: Arc<Line>,
    credentials: Arc<RwLock<Option<Credentials>>>,
    closing: Arc<AtomicBool>,
}

impl Endpoint {
    /// An endpoint that listens.
    ///
    /// `secret` is something that only this process has and that it has again after a restart, such
    /// as a private key: with it, a restarted process resets the connections of the one before
    /// (RFC 9000, section 10.3), so that their peers notice at once.
    pub fn listen(
        address: SocketAddr,
        credentials: Credentials,
        admit: Admit,
        secret: &[u8],
    ) -> io::Result<Self> {
        let server = server_config(&credentials, admit)?;
        let (quinn, line) = open(listening_config(secret), Some(server), address)?;
        Ok(Self {
            quinn,
            line,
            credentials: Arc::new(RwLock::new(Some(credentials))),
            closing: Arc::default(),
        })
    }

    /// An endpoint that only connects. Without credentials it can do no more than
    /// [`join`](Self::connect_to_join).
    pub fn dial_only(credentials: Option<Credentials>) -> io::Result<Self> {
        let unspecified = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let any = || sized(EndpointConfig::default());
        let (quinn, line) = open(any(), None, unspecified)
            .or_else(|_| open(any(), None, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))))?;
        Ok(Self {
            quinn,
            line,
            credentials: Arc::new(RwLock::new(credentials)),
            closing: Arc::default(),
        })
    }

    /// Where it listens.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.quinn.local_addr()
    }

    /// The quinn endpoint, to accept from.
    pub fn quinn(&self) -> &quinn::Endpoint {
        &self.quinn
    }

    /// What it proves itself with.
    pub fn credentials(&self) -> Option<Credentials> {
        self.credentials.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Uses other credentials for connections from now on.
    pub fn set_credentials(
        &self,
        credentials: Credentials,
        admit: Option<Admit>,
    ) -> io::Result<()> {
        if let Some(admit) = admit {
            self.quinn.set_server_config(Some(server_config(&credentials, admit)?));
        }
        *self.credentials.write().unwrap_or_else(|poisoned| poisoned.into_inner()) =
            Some(credentials);
        Ok(())
    }

    /// Connects to a process of the network.
    pub async fn connect(
        &self,
        address: SocketAddr,
        expect: Expect,
    ) -> Result<quinn::Connection, ConnectError> {
        let credentials =
            self.credentials().ok_or_else(|| ConnectError::Local("no certificate yet".into()))?;
        let theirs = OutOfTime::default();
        let tls = tls::client(&credentials, expect, &theirs).map_err(local)?;
        self.dial(address, tls, &theirs).await
    }

    /// Connects to a registration server to join its network.
    pub async fn connect_to_join(
        &self,
        address: SocketAddr,
        authority: Fingerprint,
    ) -> Result<quinn::Connection, ConnectError> {
        let theirs = OutOfTime::default();
        let tls = tls::joiner(authority, &theirs).map_err(local)?;
        self.dial(address, tls, &theirs).await
    }

    async fn dial(
        &self,
        address: SocketAddr,
        tls: quinn::crypto::rustls::QuicClientConfig,
        theirs: &OutOfTime,
    ) -> Result<quinn::Connection, ConnectError> {
        let mut config = ClientConfig::new(Arc::new(tls));
        config.transport_config(dialing_transport());
        let address = self.reachable(address);
        let connecting = self.quinn.connect_with(config, address, SERVER_NAME).map_err(local)?;
        // It goes on when nobody waits for it any more. Given up before the other side has
        // answered, it would answer a Retry with a close, for which there is another Retry, and so
        // on for seconds.
        let connecting = tokio::spawn(connecting);
        let connected = match tokio::time::timeout(limits::HANDSHAKE_TIMEOUT, connecting).await {
            Ok(ended) => Ok(ended.map_err(local)?),
            Err(late) => Err(late),
        };
        match connected {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) if tls_code(&error) == CERTIFICATE_EXPIRED => {
                let own = self.credentials().and_then(|own| own.life().ok());
                let why = out_of_time(theirs.get(), own, platform::wall_clock());
                let address = SocketAddr::new(address.ip().to_canonical(), address.port());
                Err(ConnectError::Clock { address, why })
            }
            Ok(Err(error)) => Err(ConnectError::from_lost(address, &error)),
            Err(_) => Err(ConnectError::from_lost(address, &quinn::ConnectionError::TimedOut)),
        }
    }

    /// An IPv6 socket reaches IPv4 addresses in their mapped form only.
    fn reachable(&self, address: SocketAddr) -> SocketAddr {
        match (self.quinn.local_addr(), address) {
            (Ok(SocketAddr::V6(_)), SocketAddr::V4(v4)) => {
                SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port()))
            }
            _ => address,
        }
    }

    /// From now on, holds back what goes to these addresses and comes from them, and nothing else.
    /// A delay that varies wanders between zero and twice its average.
    pub fn set_ways(&self, ways: Vec<(SocketAddr, Way)>, vary: bool) {
        self.line.set_ways(ways, vary);
    }

    /// How long an answer from an address takes on average because of [these](Self::set_ways).
    pub fn held_back(&self, address: SocketAddr) -> Duration {
        self.line.round_trip(address)
    }

    /// Whether this side [closes](Self::close) its connections: that none can be made is no news
    /// then.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Closes all connections and gives the word of it the time to leave.
    ///
    /// It is one packet to each peer, sent at once. QUIC would wait for three times as long as a
    /// lost packet takes to be noticed (RFC 9000, section 10.2), to answer what was on its way:
    /// nobody who leaves needs that.
    pub async fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        self.quinn.close(VarInt::from_u32(Close::Stopping as u32), b"stopping");
        let leaving = CLOSE_LEAVES_WITHIN + self.line.longest_way();
        let _ = tokio::time::timeout(leaving, self.quinn.wait_idle()).await;
    }
}

/// Who is at the other end; `None` for a joiner.
pub fn peer_identity(connection: &quinn::Connection) -> Option<Identity> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    identity_of(chain.first()?).ok()
}

/// The certificate of the authority that the other end showed, if its fingerprint is this one.
pub fn peer_authority(
    connection: &quinn::Connection,
    fingerprint: Fingerprint,
) -> Option<CertificateDer<'static>> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    chain.iter().find(|certificate| Fingerprint::of(certificate) == fingerprint).cloned()
}

/// Bytes of keying material that [`proof_material`] exports.
pub const PROOF_BYTES: usize = 32;

/// Bytes that only the two ends of this connection know, to be signed as a proof of a key.
pub fn proof_material(connection: &quinn::Connection) -> Option<[u8; PROOF_BYTES]> {
    let mut material = [0; PROOF_BYTES];
    connection.export_keying_material(&mut material, b"EXPORTER-dkv-recertify", b"").ok()?;
    Some(material)
}

/// Whether the connection was made to join.
pub fn is_joining(connection: &quinn::Connection) -> bool {
    let data = connection.handshake_data();
    let data = data.and_then(|data| data.downcast::<quinn::crypto::rustls::HandshakeData>().ok());
    data.is_some_and(|data| data.protocol.as_deref() == Some(tls::ALPN_JOIN))
}

fn local(error: impl std::fmt::Display) -> ConnectError {
    ConnectError::Local(error.to_string())
}

fn server_config(credentials: &Credentials, admit: Admit) -> io::Result<quinn::ServerConfig> {
    let tls = tls::server(credentials, admit).map_err(io::Error::other)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    config.transport_config(match admit {
        Admit::Certified => first_transport(),
        Admit::CertifiedAndJoining => join_transport(),
    });
    config.max_incoming(limits::HANDSHAKES_MAX);
    config.incoming_buffer_size(64 * 1024);
    config.incoming_buffer_size_total(16 * 1024 * 1024);
    Ok(config)
}

/// Connection ids and reset tokens that follow from `secret`, each in a way of its own.
fn listening_config(secret: &[u8]) -> EndpointConfig {
    let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let reset = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&secret, b"reset").as_ref());
    let ids = hmac::sign(&secret, b"connection ids");
    let ids = u64::from_le_bytes(ids.as_ref().first_chunk().copied().unwrap_or_default());
    let mut config = EndpointConfig::new(Arc::new(reset));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    sized(config)
}

/// Lets an endpoint receive the longest packets that its peers try.
fn sized(mut config: EndpointConfig) -> EndpointConfig {
    // Within bounds: between the least that QUIC allows and the most that UDP carries.
    let _ = config.max_udp_payload_size(PACKET_BYTES_MAX);
    config
}

/// Begins with little room; see [`widen`].
fn first_transport() -> Arc<TransportConfig> {
    let mut config = transport_config();
    config.receive_window(VarInt::from_u32(FIRST_WINDOW_BYTES));
    Arc::new(config)
}

/// Whoever is called opens no streams; room for them would be taken all the same.
fn dialing_transport() -> Arc<TransportConfig> {
    let mut config = transport_config();
    config.max_concurrent_bidi_streams(VarInt::from_u32(0));
    Arc::new(config)
}

/// Begins with the bounds of a joiner: what was granted once cannot be taken back.
fn join_transport() -> Arc<TransportConfig> {
    let mut config = transport_config();
    config.max_concurrent_bidi_streams(VarInt::from_u32(limits::JOIN_STREAMS_MAX));
    config.receive_window(VarInt::from_u32(JOIN_WINDOW_BYTES));
    Arc::new(config)
}

/// Grants the holder of a certificate room for what nobody has read yet: all of it for its first
/// connection, half for its second, a third for its third, so that many are not many times as much.
/// How many streams, is for whoever serves them.
pub(crate) fn widen(connection: &quinn::Connection, count: usize) {
    let share = WINDOW_BYTES / u32::try_from(count.max(1)).unwrap_or(u32::MAX);
    connection.set_receive_window(VarInt::from_u32(share.max(FIRST_WINDOW_BYTES)));
}

/// Longest packet that is tried: what a network with jumbo frames carries. Paths that carry less
/// are found out by probes, as RFC 8899 describes.
pub(crate) const PACKET_BYTES_MAX: u16 = 8952;
/// Packets that may wait for one acknowledgement.
const ACK_PACKETS: u32 = 10;

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
    // Within VarInt by its limit of ten seconds.
    config.max_idle_timeout(limits::IDLE_TIMEOUT.try_into().ok());
    // The default of 333 ms is for the open internet: it delays the first retransmission of a
    // handshake and the first round trips of a fresh connection.
    config.initial_rtt(Duration::from_millis(20));
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(PACKET_BYTES_MAX);
    config.mtu_discovery_config(Some(discovery));
    let mut acks = AckFrequencyConfig::default();
    // By default a peer may sit on an acknowledgement for 25 ms, which a lost last packet waits
    // for.
    acks.max_ack_delay(Some(Duration::from_millis(2)));
    // An answer carries an acknowledgement along; one of its own for every second packet is waste.
    acks.ack_eliciting_threshold(VarInt::from_u32(ACK_PACKETS));
    config.ack_frequency_config(Some(acks));
    config
}

/// Opens the socket of an endpoint, and the endpoint on it.
fn open(
    mut config: EndpointConfig,
    server: Option<quinn::ServerConfig>,
    address: SocketAddr,
) -> io::Result<(quinn::Endpoint, Arc<Line>)> {
    let runtime = Arc::new(quinn::TokioRuntime);
    let socket = match net_platform::bind(address)? {
        None => runtime.wrap_udp_socket(bind(address)?)?,
        Some(socket) => {
            config.rng_seed(net_platform::endpoint_seed());
            socket
        }
    };
    let line = Arc::new(Line::new(socket));
    let socket = Arc::clone(&line) as Arc<dyn AsyncUdpSocket>;
    let quinn = quinn::Endpoint::new_with_abstract_socket(config, server, socket, runtime)?;
    Ok((quinn, line))
}

fn bind(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // The kernel caps these silently; what it gives is enough to run, if not to run fastest.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.bind(&address.into())?;
    Ok(socket.into())
}
