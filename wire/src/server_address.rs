//! Addresses of registration servers, as people write them: one or several, separated by commas.

use std::net::SocketAddr;

/// The port of a server whose address names none.
pub const DEFAULT_SERVER_PORT: u16 = 4400;

/// An address that cannot be resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the address {address} of the registration server cannot be resolved: {why}")]
pub struct Unresolved {
    /// The address as it was given.
    pub address: String,
    /// The error of the system.
    pub why: String,
}

/// Resolves the socket address of a server, from `ip`, `ip:port`, `name` or `name:port`.
///
/// # Errors
/// It has no address, or not now.
pub async fn resolve(address: &str) -> Result<SocketAddr, Unresolved> {
    if let Ok(address) = address.parse::<SocketAddr>() {
        return Ok(address);
    }
    let with_port = if has_port(address) {
        address.to_owned()
    } else {
        format!("{address}:{DEFAULT_SERVER_PORT}")
    };
    let failed = |why: String| Unresolved { address: address.to_owned(), why };
    let mut found =
        tokio::net::lookup_host(&with_port).await.map_err(|error| failed(error.to_string()))?;
    found.next().ok_or_else(|| failed("it has no address".into()))
}

/// Resolves the addresses in a list, in their order and without repetition. One that cannot be
/// resolved is left out if others can.
///
/// # Errors
/// None can be resolved.
pub async fn resolve_list(list: &str) -> Result<Vec<SocketAddr>, Unresolved> {
    let (mut found, mut failed) = (Vec::new(), None);
    for address in list.split(',').map(str::trim) {
        match resolve(address).await {
            Ok(address) if found.contains(&address) => {}
            Ok(address) => found.push(address),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    match failed {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found),
    }
}

fn has_port(address: &str) -> bool {
    // A bare IPv6 address has colons and no port.
    match address.rsplit_once(':') {
        Some((host, port)) => {
            (!host.contains(':') || host.ends_with(']')) && port.parse::<u16>().is_ok()
        }
        None => false,
    }
}

#[cfg(test)]
mod tests;
