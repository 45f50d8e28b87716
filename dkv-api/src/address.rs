//! Addresses of servers and nodes, as people type them.

use std::net::{IpAddr, SocketAddr};

use crate::error::ConnectError;

/// Port of an address that names none.
///
/// # Examples
/// ```
/// assert_eq!(dkv_api::DEFAULT_PORT, 4400);
/// ```
pub const DEFAULT_PORT: u16 = 4400;

/// A host and a port. Host names are resolved for every connection, because they may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    host: String,
    port: u16,
}

impl HostPort {
    /// Parses `host`, `host:port`, `[ipv6]`, `[ipv6]:port` or a bare IPv6 address.
    pub(crate) fn parse(text: &str) -> Result<Self, ConnectError> {
        let text = text.trim();
        let wrong = |why: &str| ConnectError::Address { address: text.into(), why: why.into() };
        let port = |digits: &str| match digits.parse() {
            Ok(0) | Err(_) => Err(wrong("the port must be a number from 1 to 65535")),
            Ok(port) => Ok(port),
        };
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self { host: ip.to_string(), port: DEFAULT_PORT });
        }
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or_else(|| wrong("a ] is missing"))?;
            match rest.strip_prefix(':') {
                Some(digits) => (host, port(digits)?),
                None if rest.is_empty() => (host, DEFAULT_PORT),
                None => return Err(wrong("after ] comes : and a port")),
            }
        } else {
            match text.rsplit_once(':') {
                Some((host, digits)) => (host, port(digits)?),
                None => (text, DEFAULT_PORT),
            }
        };
        if host.is_empty() || host.contains(char::is_whitespace) {
            return Err(wrong("a host name or an IP address is needed"));
        }
        Ok(Self { host: host.to_ascii_lowercase(), port })
    }

    /// Resolves the host; IPv4 addresses come first.
    pub(crate) async fn resolve(&self) -> Result<Vec<SocketAddr>, ResolveError> {
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let mut addresses: Vec<SocketAddr> =
            found.map_err(|error| ResolveError::Failed(self.clone(), error))?.collect();
        // Servers and nodes listen on IPv4 by default.
        addresses.sort_by_key(SocketAddr::is_ipv6);
        addresses.dedup();
        if addresses.is_empty() {
            return Err(ResolveError::NoAddress(self.clone()));
        }
        Ok(addresses)
    }
}

/// Why a host has no address now. The caller tries another one, or this one later.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    /// The resolver fails.
    #[error("cannot look up {0}: {1}")]
    Failed(HostPort, std::io::Error),
    /// The name exists, but has no address.
    #[error("cannot look up {0}: the name has no address")]
    NoAddress(HostPort),
}

impl std::fmt::Display for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::HostPort;

    #[test]
    fn addresses_are_parsed_as_people_type_them() {
        let read = |text: &str| HostPort::parse(text).map(|address| address.to_string()).ok();
        for (text, expected) in [
            ("127.0.0.1", "127.0.0.1:4400"),
            ("127.0.0.1:5000", "127.0.0.1:5000"),
            (" db.Example.org ", "db.example.org:4400"),
            ("db.example.org:1", "db.example.org:1"),
            ("::1", "[::1]:4400"),
            ("[::1]", "[::1]:4400"),
            ("[::1]:9", "[::1]:9"),
        ] {
            assert_eq!(read(text).as_deref(), Some(expected), "{text}");
        }
        for text in
            ["", ":4400", "host:", "host:0", "host:65536", "host:x", "[::1", "[::1]9", "a b"]
        {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
