//! What a policy limits its users to, at each node.

use serde::{Deserialize, Serialize};

use crate::limits::{
    USER_BYTES_RATE_MAX, USER_BYTES_RATE_MIN, USER_CONNECTIONS_MAX, USER_REQUESTS_RATE_MAX,
};

/// The limits of a user at each node, whichever of its holders ask; `None` for no limit. The least
/// of several policies counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyLimits {
    /// Requests a second: 1 to [`USER_REQUESTS_RATE_MAX`].
    pub requests: Option<u32>,
    /// Bytes a second of requests, answers and watches: [`USER_BYTES_RATE_MIN`] to
    /// [`USER_BYTES_RATE_MAX`].
    pub bytes: Option<u64>,
    /// Connections: 1 to [`USER_CONNECTIONS_MAX`].
    pub connections: Option<u32>,
}

/// A limit is out of its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a limit of {what} is from {least} to {most}")]
pub struct BadLimit {
    what: &'static str,
    least: u64,
    most: u64,
}

impl PolicyLimits {
    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// The lesser of each limit.
    pub fn least(self, other: Self) -> Self {
        fn least<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
            match (one, other) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            }
        }
        Self {
            requests: least(self.requests, other.requests),
            bytes: least(self.bytes, other.bytes),
            connections: least(self.connections, other.connections),
        }
    }

    /// Checks the bounds.
    ///
    /// # Errors
    /// The limit that is out of them.
    pub fn check(&self) -> Result<(), BadLimit> {
        let Self { requests, bytes, connections } = *self;
        for (what, value, least, most) in [
            ("requests", requests.map(u64::from), 1, u64::from(USER_REQUESTS_RATE_MAX)),
            ("bytes", bytes, USER_BYTES_RATE_MIN, USER_BYTES_RATE_MAX),
            ("connections", connections.map(u64::from), 1, u64::from(USER_CONNECTIONS_MAX)),
        ] {
            if value.is_some_and(|value| !(least..=most).contains(&value)) {
                return Err(BadLimit { what, least, most });
            }
        }
        Ok(())
    }
}

impl std::fmt::Display for PolicyLimits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let requests = self.requests.map(|most| format!("{most} requests a second"));
        let bytes = self.bytes.map(|most| format!("{most} bytes a second"));
        let connections = self.connections.map(|most| format!("{most} connections"));
        let all: Vec<String> = requests.into_iter().chain(bytes).chain(connections).collect();
        f.write_str(&if all.is_empty() { "none".to_owned() } else { all.join(", ") })
    }
}

/// The limit that a user has used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LimitKind {
    /// Its requests.
    Requests,
    /// Its bytes.
    Bytes,
}

impl std::fmt::Display for LimitKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Requests => "requests",
            Self::Bytes => "bytes",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_limits_the_least_counts_and_each_has_bounds() {
        let one = PolicyLimits { requests: Some(5), bytes: Some(4096), connections: None };
        let other = PolicyLimits { requests: Some(7), bytes: None, connections: Some(2) };
        let both = PolicyLimits { requests: Some(5), bytes: Some(4096), connections: Some(2) };
        assert_eq!((one.least(other), other.least(one)), (both, both));
        assert_eq!(both.to_string(), "5 requests a second, 4096 bytes a second, 2 connections");
        assert!(PolicyLimits::default().is_none() && both.check().is_ok());
        for bad in [
            PolicyLimits { requests: Some(0), ..both },
            PolicyLimits { bytes: Some(1023), ..both },
            PolicyLimits { bytes: Some(u64::MAX), ..both },
            PolicyLimits { connections: Some(0), ..both },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
