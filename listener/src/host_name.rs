//! Host names, as in `Host`, `Origin` and `--host`.

use std::net::{IpAddr, Ipv6Addr};

/// A host name or address, with an optional port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName {
    /// In lower case; an IPv6 address without brackets.
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
}

/// A text is not a host name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a host name with or without a port")]
pub struct HostNameError(String);

impl HostName {
    /// Parses `NAME` or `NAME:PORT`.
    ///
    /// # Errors
    /// [`HostNameError`].
    pub fn parse(text: &str) -> Result<Self, HostNameError> {
        let invalid = || HostNameError(text.to_owned());
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']').ok_or_else(invalid)?;
                let address: Ipv6Addr = address.parse().map_err(|_| invalid())?;
                (address.to_string(), port.strip_prefix(':').or(port.is_empty().then_some("")))
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host.to_ascii_lowercase(), Some(port)),
                None => (text.to_ascii_lowercase(), Some("")),
            },
        };
        let is_valid =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
        if host.is_empty() || !host.bytes().all(is_valid) {
            return Err(invalid());
        }
        let port = match port.ok_or_else(invalid)? {
            "" => None,
            port if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(port.parse().map_err(|_| invalid())?)
            }
            _ => return Err(invalid()),
        };
        Ok(Self { host, port })
    }

    /// Returns the host if it is an IP address.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Whether this names `other`. A missing port here matches any port; a missing port there means
    /// `default_port`, that of its scheme.
    pub(crate) fn covers(&self, other: &Self, default_port: Option<u16>) -> bool {
        self.host == other.host
            && self.port.is_none_or(|port| other.port.or(default_port) == Some(port))
    }
}
