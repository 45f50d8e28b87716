//! Why connections close, and why there is none.

use std::net::SocketAddr;
use std::time::SystemTime;

use dkv_base::platform;
use quinn::VarInt;

use crate::certificate::{Life, utc};
use crate::tls;

/// The reason for closing a connection, which its peer receives as the application error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Close {
    /// The conversation has ended.
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
    /// Closes a connection for this reason, with `why` as the text that the peer may show.
    pub fn close(self, connection: &quinn::Connection, why: &str) {
        connection.close(VarInt::from_u32(self as u32), why.as_bytes());
    }
}

/// Why a connection could not be made or was lost.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The certificates do not agree: the peer is not the one expected, or refuses ours.
    #[error("{address}: {why}")]
    Refused {
        /// The peer's address.
        address: SocketAddr,
        /// The error of TLS.
        why: String,
    },
    /// The peer speaks another version of the protocol: it runs another release of dkv.
    #[error(
        "{address} speaks another version of dkv's protocol than this program ({}): run the same \
         release everywhere",
        String::from_utf8_lossy(tls::ALPN)
    )]
    Version {
        /// The peer's address.
        address: SocketAddr,
    },
    /// A certificate is not valid now: a clock is wrong, or the certificate was not renewed.
    #[error("{address}: {why}")]
    Clock {
        /// The peer's address.
        address: SocketAddr,
        /// Whose certificate, when it is valid, and the time on this machine's clock.
        why: String,
    },
    /// The peer is the one expected, and has removed us from the network.
    #[error("{address}: {why}")]
    Removed {
        /// The peer's address.
        address: SocketAddr,
        /// The peer's text.
        why: String,
    },
    /// The peer gave the slot of this connection to another: too many connect from this address.
    #[error("{address}: too many are connecting to it from this address at once; try again")]
    Busy {
        /// The peer's address.
        address: SocketAddr,
    },
    /// The peer did not answer, or the path to it was lost.
    #[error("{address}: {why}")]
    Unreachable {
        /// The peer's address.
        address: SocketAddr,
        /// The error of QUIC.
        why: String,
    },
    /// Our own keys or sockets cannot be used.
    #[error("cannot connect: {0}")]
    Local(String),
}

impl ConnectError {
    /// Classifies a lost connection by what its caller can do about it.
    pub fn from_lost(address: SocketAddr, error: &quinn::ConnectionError) -> Self {
        // An IPv6 socket names IPv4 peers by mapped addresses, which people do not write.
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        if let quinn::ConnectionError::ApplicationClosed(close) = error
            && close.error_code == VarInt::from_u32(Close::Denied as u32)
        {
            // Only a peer that both sides have authenticated can send this code.
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
            // This side's handshake is over, so the peer has judged our certificate.
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

/// The QUIC error code of a lost connection, or zero. Codes from 0x100 on are TLS alerts (RFC 9001,
/// section 4.8).
pub(super) fn tls_code(error: &quinn::ConnectionError) -> u64 {
    match error {
        quinn::ConnectionError::TransportError(error) => u64::from(error.code),
        quinn::ConnectionError::ConnectionClosed(close) => u64::from(close.error_code),
        _ => 0,
    }
}

/// The code that stands for an application's close before the handshake has ended (RFC 9000,
/// section 10.2.3). Our side closes that early only to make room for another connection.
const CLOSED_IN_HANDSHAKE: u64 = 0x0c;

/// The QUIC code of the TLS alert `no_application_protocol` (RFC 7301, section 3.2): the peer
/// speaks none of the protocols that this side offers.
const NO_APPLICATION_PROTOCOL: u64 = 0x100 + 120;

/// The QUIC code of the TLS alert `certificate_expired` (RFC 8446, section 6.2): the certificate is
/// not valid at the peer's time.
pub(super) const CERTIFICATE_EXPIRED: u64 = 0x100 + 45;

/// Explains a handshake that failed with [`CERTIFICATE_EXPIRED`]: by the peer's certificate if this
/// side refused it, and by our own otherwise.
pub(super) fn out_of_time(theirs: Option<&Life>, own: Option<Life>, now: SystemTime) -> String {
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
