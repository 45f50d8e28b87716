//! QUIC endpoints and connections, with one tuning for all processes.
//!
//! A process has one [`Endpoint`]: it accepts connections on it, if it listens, and connects from
//! it. The first frame of each stream says what the stream is for; the certificate of the peer says
//! who it is ([`peer_identity`]).

mod connection_ids;
mod error;
mod peer;
mod transport;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use dkv_base::{platform, sync};
use quinn::{ClientConfig, EndpointConfig, TransportConfig, VarInt};

pub use error::{Close, ConnectError};
pub use peer::{PROOF_BYTES, is_joining, peer_authority, peer_identity, proof_material};
pub(crate) use transport::widen;

use crate::certificate::Credentials;
use crate::delayed_socket::DelayedSocket;
use crate::limits;
use crate::net_platform;
use crate::network::LinkDelay;
use crate::tls::{self, Admit, Expect, OutOfTime};
use crate::token::Fingerprint;
use error::{CERTIFICATE_EXPIRED, out_of_time, tls_code};
use transport::{
    dialing_transport, listening_config, open, server_config, sized, watching_transport,
};

/// The server name in the handshake. Neither side checks it; both check certificates, see [`tls`].
const SERVER_NAME: &str = "dkv";
/// Time within which the closing packets of all connections leave.
const CLOSE_LEAVES_WITHIN: Duration = Duration::from_millis(20);

/// A process's QUIC endpoint: its end of all its connections. Clones share it.
#[derive(Clone)]
pub struct Endpoint {
    quinn: quinn::Endpoint,
    socket: Arc<DelayedSocket>,
    credentials: Arc<RwLock<Option<Credentials>>>,
    closing: Arc<AtomicBool>,
}

impl Endpoint {
    /// Opens an endpoint that listens.
    ///
    /// `secret` is known to this process alone and the same after a restart, such as a private key.
    /// With it a restarted process resets the connections of its predecessor (RFC 9000, section
    /// 10.3), so that their peers notice at once.
    ///
    /// # Errors
    /// If the credentials do not make a TLS configuration, or the address cannot be bound.
    pub fn listen(
        address: SocketAddr,
        credentials: Credentials,
        admit: Admit,
        secret: &[u8],
    ) -> io::Result<Self> {
        let server = server_config(&credentials, admit)?;
        let (quinn, socket) = open(listening_config(secret), Some(server), address)?;
        Ok(Self {
            quinn,
            socket,
            credentials: Arc::new(RwLock::new(Some(credentials))),
            closing: Arc::default(),
        })
    }

    /// Opens an endpoint that only connects. Without credentials it can only
    /// [join](Self::connect_to_join).
    ///
    /// # Errors
    /// If no socket can be opened.
    pub fn dial_only(credentials: Option<Credentials>) -> io::Result<Self> {
        let unspecified = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let any = || sized(EndpointConfig::default());
        let (quinn, socket) = open(any(), None, unspecified)
            .or_else(|_| open(any(), None, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))))?;
        Ok(Self {
            quinn,
            socket,
            credentials: Arc::new(RwLock::new(credentials)),
            closing: Arc::default(),
        })
    }

    /// The address at which it listens.
    ///
    /// # Errors
    /// If the operating system cannot tell.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.quinn.local_addr()
    }

    /// The inner endpoint, to accept connections from.
    pub fn quinn(&self) -> &quinn::Endpoint {
        &self.quinn
    }

    /// The credentials that it connects with.
    pub fn credentials(&self) -> Option<Credentials> {
        sync::read(&self.credentials).clone()
    }

    /// Replaces the credentials of future connections, and of the listener if `admit` is given.
    ///
    /// # Errors
    /// If the credentials do not make a TLS configuration.
    pub fn set_credentials(
        &self,
        credentials: Credentials,
        admit: Option<Admit>,
    ) -> io::Result<()> {
        if let Some(admit) = admit {
            self.quinn.set_server_config(Some(server_config(&credentials, admit)?));
        }
        *sync::write(&self.credentials) = Some(credentials);
        Ok(())
    }

    /// Connects to a process of the network.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(
        &self,
        address: SocketAddr,
        expect: Expect,
    ) -> Result<quinn::Connection, ConnectError> {
        self.connect_with(address, expect, dialing_transport()).await
    }

    /// Connects to a node for watches alone. The windows are such that a watch whose stream is not
    /// read takes little memory and holds up no other watch of the connection.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect_to_watch(
        &self,
        address: SocketAddr,
        expect: Expect,
    ) -> Result<quinn::Connection, ConnectError> {
        self.connect_with(address, expect, watching_transport()).await
    }

    async fn connect_with(
        &self,
        address: SocketAddr,
        expect: Expect,
        transport: Arc<TransportConfig>,
    ) -> Result<quinn::Connection, ConnectError> {
        let credentials =
            self.credentials().ok_or_else(|| ConnectError::Local("no certificate yet".into()))?;
        let theirs = OutOfTime::default();
        let tls = tls::client(&credentials, expect, &theirs).map_err(local)?;
        self.dial(address, tls, transport, &theirs).await
    }

    /// Connects to a registration server to join its network.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect_to_join(
        &self,
        address: SocketAddr,
        authority: Fingerprint,
    ) -> Result<quinn::Connection, ConnectError> {
        let theirs = OutOfTime::default();
        let tls = tls::joiner(authority, &theirs).map_err(local)?;
        self.dial(address, tls, dialing_transport(), &theirs).await
    }

    async fn dial(
        &self,
        address: SocketAddr,
        tls: quinn::crypto::rustls::QuicClientConfig,
        transport: Arc<TransportConfig>,
        theirs: &OutOfTime,
    ) -> Result<quinn::Connection, ConnectError> {
        let mut config = ClientConfig::new(Arc::new(tls));
        config.transport_config(transport);
        if net_platform::is_simulated() {
            config.initial_dst_cid_provider(Arc::new(connection_ids::first_id));
        }
        let address = self.reachable(address);
        let connecting = self.quinn.connect_with(config, address, SERVER_NAME).map_err(local)?;
        // A task of its own, so that it goes on after the timeout. Dropped before the peer has
        // answered, it would answer a Retry with a close, the peer would answer that with another
        // Retry, and so on for seconds.
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

    /// The address as this socket can reach it: an IPv6 socket takes IPv4 addresses in mapped form.
    fn reachable(&self, address: SocketAddr) -> SocketAddr {
        match (self.quinn.local_addr(), address) {
            (Ok(SocketAddr::V6(_)), SocketAddr::V4(v4)) => {
                SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port()))
            }
            _ => address,
        }
    }

    /// Replaces the emulated delays: from now on datagrams to and from these addresses are delayed,
    /// and no others. If `vary`, a delay wanders between zero and twice its average.
    pub fn set_link_delays(&self, links: Vec<(SocketAddr, LinkDelay)>, vary: bool) {
        self.socket.set_links(links, vary);
    }

    /// The average time that the [emulated delays](Self::set_link_delays) add to a round trip to
    /// `address`.
    pub fn added_round_trip(&self, address: SocketAddr) -> Duration {
        self.socket.added_round_trip(address)
    }

    /// Whether [`close`](Self::close) was called. A failure to connect is no news then.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Closes all connections and waits until the closing packets have left.
    ///
    /// There is one packet for each peer, sent at once. QUIC itself would wait for three probe
    /// timeouts to answer packets on their way (RFC 9000, section 10.2), which a process that stops
    /// does not need.
    pub async fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        self.quinn.close(VarInt::from_u32(Close::Stopping as u32), b"stopping");
        let leaving = CLOSE_LEAVES_WITHIN + self.socket.longest_delay();
        let _ = tokio::time::timeout(leaving, self.quinn.wait_idle()).await;
    }
}

fn local(error: impl std::fmt::Display) -> ConnectError {
    ConnectError::Local(error.to_string())
}
