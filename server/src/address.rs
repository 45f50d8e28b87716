//! The address at which others reach the server.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

/// Guesses the address at which other machines reach a server that listens on a wildcard address.
pub(crate) fn reachable_address(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    // Connecting a UDP socket sends nothing, but makes the system choose a source address. The
    // destinations are reserved for documentation (RFC 5737, RFC 3849).
    let source_address = |from: &str, to: &str| -> io::Result<IpAddr> {
        let socket = UdpSocket::bind((from, 0))?;
        socket.connect((to, 9))?;
        Ok(socket.local_addr()?.ip())
    };
    let ip = source_address("0.0.0.0", "192.0.2.1").or_else(|error| match address {
        SocketAddr::V6(_) => source_address("::", "2001:db8::1"),
        SocketAddr::V4(_) => Err(error),
    });
    match ip {
        Ok(ip) if !ip.is_unspecified() => SocketAddr::new(ip, address.port()),
        _ => SocketAddr::from(([127, 0, 0, 1], address.port())),
    }
}
