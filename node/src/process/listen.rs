//! The address at which a node listens.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use dkv_wire::certificate::Credentials;
use dkv_wire::net_platform;
use dkv_wire::quic::Endpoint;
use dkv_wire::tls::Admit;

use crate::net::server_link::resolve;
use crate::process::args::Args;
use crate::process::error::ProcessError;
use crate::storage::data_dir::NodeFile;

/// First port that a node tries if it has no configured port and no previous one.
const FIRST_PORT: u16 = 4401;
/// Number of further ports to try before the node takes any free one.
const PORTS_TRIED: u16 = 100;

/// Checks that the node may listen at its configured address.
pub(super) fn may_listen(args: &Args) -> Result<(), ProcessError> {
    let Some(address) = args.listen else { return Ok(()) };
    net_platform::may_bind(address).map_err(|error| cannot_listen(address, error))
}

fn cannot_listen(address: SocketAddr, source: io::Error) -> ProcessError {
    match source.kind() {
        io::ErrorKind::AddrInUse => ProcessError::PortInUse(address),
        _ => ProcessError::NotListening { address, source },
    }
}

/// Listens at the configured address, or the previous one, or any that the server can be reached
/// from.
pub(super) async fn listen(
    args: &Args,
    credentials: &Credentials,
    known: Option<&NodeFile>,
) -> Result<Endpoint, ProcessError> {
    let bind = |address| {
        Endpoint::listen(address, credentials.clone(), Admit::Certified, credentials.secret())
    };
    if let Some(address) = args.listen {
        return bind(address).map_err(|error| cannot_listen(address, error));
    }
    if let Some(file) = known
        && let Ok(endpoint) = bind(file.listen)
    {
        return Ok(endpoint);
    }
    let ip = match resolve(&args.server).await {
        // A list that resolves is not empty.
        Ok(servers) => local_ip_towards(servers[0])?,
        // If the server's address is unknown, the previous address is the best guess.
        Err(error) => known.map(|file| file.listen.ip()).ok_or(error)?,
    };
    let mut ports = (FIRST_PORT..FIRST_PORT + PORTS_TRIED).chain([0]);
    let mut failed = None;
    let bound = ports.find_map(|port| {
        bind(SocketAddr::new(ip, port)).map_err(|error| failed = Some(error)).ok()
    });
    bound.ok_or_else(|| {
        let source = failed.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into());
        ProcessError::NoPort { ip, source }
    })
}

/// Returns the address of this machine from which it reaches a server.
fn local_ip_towards(server: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    // Connecting a datagram socket sends nothing: it asks the kernel for the route.
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_this_machine_is_reached_from_this_machine() {
        let server = ([127, 0, 0, 1], 4400).into();
        assert!(local_ip_towards(server).unwrap().is_loopback());
    }
}
